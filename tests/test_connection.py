"""The wire: what is said when a connection is made, and what becomes of replies that nobody expects."""

from __future__ import annotations

import asyncio
import logging
import pickle
import resource
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest

import oneatatime
from oneatatime import (
    ConnectionLost,
    Endpoint,
    Incomplete,
    Options,
    ProtocolViolation,
    ReplyTimeout,
    Unreachable,
)
from oneatatime._connection import Connection
from oneatatime._request import ReplyTooBig, command
from oneatatime._session import Session
from oneatatime._wire import Traffic
from tests.fake import HELLO, Answers, FakeServer, array, bulk, page
from tests.proxy import Fault, FaultProxy, Plan
from tests.servers import Server

QUICK = Options(timeout=0.2, connect_timeout=0.5, ranges=1, on_unreachable="fail")


async def everything(url: str, **arguments: Any) -> dict[Any, Any]:
    return {key: value async for key, value in oneatatime.stream(url, **{"options": QUICK, **arguments})}


# Setting up


async def test_what_is_said_first(no_leaks: None) -> None:
    async with FakeServer() as fake:
        url = fake.url.replace("redis://", "redis://user:secret@") + "/3"
        assert await everything(url) == {b"key": b"value"}
    assert fake.asked[:5] == [
        [b"HELLO", b"3", b"AUTH", b"user", b"secret", b"SETNAME", b"oneatatime"],
        [b"SELECT", b"3"],
        [b"CLIENT", b"NO-TOUCH", b"ON"],
        [b"CLIENT", b"SETINFO", b"LIB-NAME", b"oneatatime"],
        [b"CLIENT", b"SETINFO", b"LIB-VER", oneatatime.__version__.encode()],
    ]


@pytest.mark.parametrize(
    "refusal", [b"-ERR unknown command 'HELLO'\r\n", b"-NOPROTO no\r\n", b"-NOPERM no\r\n"]
)
async def test_a_server_without_hello_is_spoken_to_in_resp2(refusal: bytes, no_leaks: None) -> None:
    old: Answers = {b"HELLO": refusal, b"CLIENT": b"-ERR unknown command 'CLIENT'\r\n"}
    async with FakeServer(old) as fake:
        assert await everything(fake.url) == {b"key": b"value"}
        assert [words[0] for words in fake.asked].count(b"AUTH") == 0
        fake.asked.clear()
        assert await everything(fake.url.replace("//", "//:secret@")) == {b"key": b"value"}
        assert fake.asked[5] == [b"AUTH", b"secret"]
        fake.asked.clear()
        assert await everything(fake.url + "?protocol=2") == {b"key": b"value"}
        assert fake.asked[0][0] == b"CLIENT"


async def test_a_server_that_quotes_the_password_is_not_repeated(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    def quoting(words: list[bytes]) -> bytes:
        return b"-ERR unknown command `%b`, with args: %b\r\n" % (words[0], b" ".join(words[1:]))

    async with FakeServer({b"HELLO": quoting, b"AUTH": quoting, b"CLIENT": quoting}) as fake:
        with caplog.at_level(logging.DEBUG), pytest.raises(oneatatime.Error) as caught:
            await everything(fake.url.replace("//", "//user:hunter2@"))
    for text in (str(caught.value), repr(caught.value), caplog.text, repr(pickle.dumps(caught.value))):
        assert "hunter2" not in text
    assert "***" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "match"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolViolation, "not a Redis"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", ProtocolViolation, "not a Redis"),
        (b"220 mail.example ESMTP\r\n", ProtocolViolation, "not a Redis"),
        (b"-ERR max number of clients reached\r\n", Unreachable, "max number of clients"),
        (b"-DENIED Redis is running in protected mode\r\n", Unreachable, "protected mode"),
        (b"", Unreachable, "closed the connection"),
    ],
)
@pytest.mark.parametrize("hang_up", [True, False])
async def test_a_greeting_nobody_asked_for(
    said: bytes, kind: type[Exception], match: str, hang_up: bool, no_leaks: None
) -> None:
    async with FakeServer(greeting=said, hang_up=hang_up) as fake:
        if said[:1] in b"-" and not hang_up:
            return  # no server says that and stays
        with pytest.raises(kind, match=match) as caught:
            await everything(fake.url)
        assert caught.value.node == fake.url.removeprefix("redis://")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("hello", "kind"),
    [
        (b"+OK\r\n", ProtocolViolation),
        (b"_\r\n", ProtocolViolation),
        (b"*-1\r\n", ProtocolViolation),
        (b"%1\r\n*0\r\n:1\r\n", ProtocolViolation),  # a list cannot be the key of a dict
        (b"%0\r\n", None),
        (b"%1\r\n$4\r\nmode\r\n*1\r\n:1\r\n", None),
        (b">2\r\n+push\r\n+message\r\n" + HELLO, None),
    ],
)
async def test_an_odd_hello(hello: bytes, kind: type[Exception] | None, no_leaks: None) -> None:
    async with FakeServer({b"HELLO": hello}) as fake:
        if kind is None:
            assert await everything(fake.url) == {b"key": b"value"}
        else:
            with pytest.raises(kind):
                await everything(fake.url)


async def test_credentials_that_never_come(no_leaks: None) -> None:
    async def never() -> tuple[str | None, str | None]:
        await asyncio.sleep(60)
        return None, None

    async with FakeServer() as fake:
        port = int(fake.url.rpartition(":")[2])
        endpoint = Endpoint("127.0.0.1", port, credentials=never)
        with pytest.raises(Unreachable, match=r"within 0\.05 s"):
            await Connection.open(endpoint, Options(connect_timeout=0.05))


async def test_time_is_up_while_somebody_cancels(no_leaks: None) -> None:
    """Whoever cancelled gets a cancellation, not an error about time."""
    async with FakeServer({b"HELLO": b""}) as fake:
        for delay in (0.01, 0.02, 0.021, 0.03):
            opening = asyncio.ensure_future(
                Connection.open(Endpoint.of(fake.url), Options(connect_timeout=0.02))
            )
            await asyncio.sleep(delay)
            cancelled = opening.cancel()
            expected = [asyncio.CancelledError if cancelled else Unreachable]
            if sys.version_info < (3, 11):  # nobody can tell there, if both come in one turn of the loop
                expected.append(Unreachable)
            with pytest.raises(tuple(expected)):
                await opening


# Matching replies to questions


async def test_whoever_gave_up_leaves_the_others_their_replies(server: Server, no_leaks: None) -> None:
    connection = await Connection.open(Endpoint.of(server.url), Options())
    futures = connection.exchange(command(b"ECHO", b"a"), command(b"ECHO", b"b"), command(b"ECHO", b"c"))
    futures[1].cancel()
    assert (await futures[0]).replies == [b"a"]
    assert (await futures[2]).replies == [b"c"]
    connection.abort()
    await connection.wait_closed()
    (late,) = connection.exchange(command(b"PING"))
    with pytest.raises(ConnectionLost):
        await late


async def test_a_late_reply_is_nobodys(no_leaks: None) -> None:
    """After a timeout the connection is dead: what comes then answers no other question."""
    async with FakeServer({b"GET": b""}) as fake:
        connection = await Connection.open(Endpoint.of(fake.url), QUICK)
        (early,) = connection.exchange(command(b"GET", b"a"))
        with pytest.raises(ReplyTimeout):
            await early
        fake._writers[0].write(bulk(b"late"))
        (other,) = connection.exchange(command(b"STRLEN", b"b"))
        with pytest.raises(ReplyTimeout):
            await other
        await connection.wait_closed()


async def test_one_reply_too_many(no_leaks: None) -> None:
    async with FakeServer({b"SCAN": page(0, b"key") + b"+OK\r\n" * 20}) as fake:
        with pytest.raises(ProtocolViolation, match="nobody asked"):
            await everything(fake.url)


async def test_a_value_whose_length_lies_is_not_delivered(no_leaks: None) -> None:
    """Hiredis does not look at what ends a value: the lie shows in what comes after."""
    for lie in (b"$4\r\nvalue\r\n", b"$6\r\nvalue\r\n\r\n", b"$0\r\nvalue\r\n"):
        async with FakeServer({b"GETRANGE": lie, b"GET": lie, b"MGET": b"*1\r\n" + lie}) as fake:
            with pytest.raises(ProtocolViolation):
                await everything(fake.url)
            with pytest.raises(ProtocolViolation):
                [value async for value in oneatatime.OneAtATime(fake.url, [b"key"], options=QUICK)]


async def test_push_messages_are_not_replies(no_leaks: None) -> None:
    push = b">2\r\n+invalidate\r\n*1\r\n+key\r\n"
    answers: Answers = {
        b"SCAN": push + page(0, b"key") + push,
        b"GETRANGE": push + bulk(b"value") + push,
        b"INFO": push + bulk(b"run_id:a\r\n"),
    }
    async with FakeServer(answers) as fake:
        assert await everything(fake.url) == {b"key": b"value"}


async def test_a_busy_loop_is_no_silence_of_the_server(server: Server, no_leaks: None) -> None:
    connection = await Connection.open(Endpoint.of(server.url), Options(timeout=0.05))
    (answer,) = connection.exchange(command(b"DEBUG", b"SLEEP", b"0.02"))
    import time

    time.sleep(1.2)  # the loop cannot look; the reply has been here for long
    assert (await answer).replies == [b"OK"]
    connection.abort()
    await connection.wait_closed()


# Replies past their limit


async def test_a_reply_too_big_costs_only_its_own_burst(server: Server, no_leaks: None) -> None:
    server.admin.set("big", b"x" * 500_000)
    traffic = Traffic()
    session = Session(Endpoint.of(server.url), Options(reply_limit=10_000), traffic)
    await session.open()
    await session.identify()
    before, big, after, later = session.send(
        command(b"ECHO", b"before"),
        command(b"GET", b"big"),
        command(b"ECHO", b"after"),
        command(b"ECHO", b"x"),
    )
    assert (await session.answer(before)).replies == [b"before"]
    with pytest.raises(ReplyTooBig):
        await session.answer(big)
    assert (await session.answer(later)).replies == [b"x"]
    assert (await session.answer(after)).replies == [b"after"]
    (whole,) = session.send(command(b"GET", b"big", bounded=False))
    assert (await session.answer(whole)).size > 500_000
    session.abort()
    await session.wait_closed()


async def test_nothing_goes_on_with_another_server(
    server: Server, redis_server: Server, no_leaks: None
) -> None:
    """A cursor means nothing to another process: neither a restarted one nor one behind the same address."""
    server.admin.set("big", b"x" * 500_000)
    async with FaultProxy(server.url) as proxy:
        session = Session(Endpoint.of(proxy.url), Options(reply_limit=10_000), Traffic())
        await session.open()
        await session.identify()
        big, after = session.send(command(b"GET", b"big"), command(b"ECHO", b"after"))
        proxy._upstream = urlsplit(redis_server.url)
        with pytest.raises(ReplyTooBig):
            await session.answer(big)
        with pytest.raises(ConnectionLost, match="restarted"):
            await session.answer(after)
        session.abort()
        await session.wait_closed()


# Hostile replies


BILLION = b"*1000000000\r\n"
HOSTILE_SCANS = {
    "nil": b"_\r\n",
    "number": b":0\r\n",
    "no keys": array(bulk(b"0")),
    "three": array(bulk(b"0"), array(), array()),
    "a number as cursor": array(b":0\r\n", array()),
    "letters as cursor": array(bulk(b"abc"), array()),
    "negative cursor": array(bulk(b"-1"), array()),
    "huge cursor": array(bulk(b"9" * 20), array()),
    "cursor with blanks": array(bulk(b" 0"), array()),
    "empty cursor": array(bulk(b""), array()),
    "keys that are numbers": array(bulk(b"0"), array(b":1\r\n")),
    "keys that are nil": array(bulk(b"0"), array(b"$-1\r\n")),
    "keys that are errors": array(bulk(b"0"), array(b"-ERR no\r\n")),
    "keys that are lists": array(bulk(b"0"), array(array(bulk(b"key")))),
    "keys as a map": array(bulk(b"0"), b"%1\r\n+a\r\n+b\r\n"),
    "keys as a string": array(bulk(b"0"), bulk(b"key")),
    "negative array": b"*-5\r\n",
    "negative string": b"$-7\r\n",
    "no number": b"*abc\r\n",
    "overflow": b"*99999999999999999999\r\n",
    "deep": b"*1\r\n" * 100,
    "unknown type": b"?what\r\n",
    "huge string": b"$1000000000000\r\nabc",
    "huge array": BILLION,
    "huge arrays": BILLION * 8,
    "huge map": b"%1000000000\r\n",
    "unhashable": b"%1\r\n*0\r\n+a\r\n",
    "a circle": array(bulk(b"7"), array()),
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("reply", HOSTILE_SCANS.values(), ids=HOSTILE_SCANS)
async def test_a_hostile_scan(reply: bytes, protocol: int, no_leaks: None) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with FakeServer({b"SCAN": reply}) as fake:
        for timeout in (0.5, 0.2):
            options = Options(timeout=timeout, on_unreachable="fail")
            with pytest.raises((ProtocolViolation, Incomplete)) as caught:
                await everything(f"{fake.url}?protocol={protocol}", options=options)
            if isinstance(caught.value, Incomplete):  # the rest of the reply never came
                assert isinstance(caught.value.__cause__, ReplyTimeout)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * (1024 if sys.platform != "darwin" else 1024**2)


async def test_what_looks_like_a_huge_array_may_stand_in_a_value(server: Server, no_leaks: None) -> None:
    text = b"*1000000000\r\n"
    values = {b"%b%d" % (text, n): b"x" * n + text * (n % 7 + 1) for n in range(0, 3000, 7)}
    server.admin.mset(values)  # type: ignore[arg-type]
    server.admin.hset("hash", mapping={text: text})
    server.admin.rpush("list", text, text)
    found = await everything(server.url)
    assert found == {**values, b"hash": {text: text}, b"list": [text, text]}
    async with FaultProxy(server.url, Plan(to_client=Fault(dribble=True))) as proxy:
        keys = list(values)[:40]
        read = oneatatime.OneAtATime(proxy.url, keys, options=QUICK)
        assert [value async for value in read] == [values[key] for key in keys]


@pytest.mark.parametrize("name", [b"INFO", b"DBSIZE", b"TYPE", b"GETRANGE", b"GET", b"MGET"])
@pytest.mark.parametrize(
    "reply",
    [
        b"_\r\n",
        b":-3\r\n",
        b"*0\r\n",
        b"*1\r\n+a\r\n",
        b"$3\r\n\xff\xfe:\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"#t\r\n",
        b",inf\r\n",
    ],
)
async def test_a_reply_of_another_kind(name: bytes, reply: bytes, no_leaks: None) -> None:
    """An error of ours, or what it can only be taken for; never one of Python's."""
    async with FakeServer({name: reply}) as fake:
        for options in (QUICK, Options(timeout=0.2, ranges=1, count=1)):
            try:
                found = await everything(fake.url, options=options)
            except oneatatime.Error:
                continue
            assert found in ({}, {b"key": b"value"}, {b"key": b"\xff\xfe:"}) or name == b"TYPE"


async def test_an_info_that_makes_no_sense(no_leaks: None) -> None:
    async with FakeServer({b"INFO": bulk(b"maxmemory:lots\r\nused_memory:\r\n")}) as fake:
        with pytest.raises(ProtocolViolation, match="does not fit"):
            await everything(fake.url)
