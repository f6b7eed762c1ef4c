"""Connections that break at every byte, servers that die: a whole result, or an error that says what not."""

# ruff: noqa: PERF401, PERF403 - what a loop found before its error counts, too

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any
from urllib.parse import urlsplit

import pytest

import oneatatime
from oneatatime import ConnectionLost, Incomplete, Options, ProtocolViolation, ReplyTimeout, Unreachable
from oneatatime.server import EmbeddedServer
from tests.proxy import Fault, FaultProxy, Plan
from tests.servers import Server

OPTIONS = Options(ranges=1, timeout=0.5, connect_timeout=0.5, on_unreachable="fail")
NOT_LONG = Options(ranges=1, timeout=0.02, connect_timeout=0.05, on_unreachable="fail")
PATIENT = Options(ranges=1, timeout=0.5, connect_timeout=0.5)


def short(server: Server) -> dict[bytes, Any]:
    """A few keys of every type."""
    admin: Any = server.admin
    admin.set("string", "some text")
    admin.hset("hash", mapping={"field": "text"})
    admin.rpush("list", "a", "b")
    admin.sadd("set", "member")
    admin.zadd("zset", {"member": 1})
    admin.xadd("stream", {"field": "text"}, id="1-1")
    return {
        b"string": b"some text",
        b"hash": {b"field": b"text"},
        b"list": [b"a", b"b"],
        b"set": {b"member"},
        b"zset": [(b"member", 1.0)],
        b"stream": [(b"1-1", {b"field": b"text"})],
    }


async def attempt(url: str, options: Options = OPTIONS) -> tuple[list[Any], oneatatime.Error | None]:
    """What came, and what ended it early. That it ends at all is a part of every test here."""
    found: list[Any] = []

    async def loop() -> None:
        async for item in oneatatime.stream(url, options=options):
            found.append(item)

    try:
        await asyncio.wait_for(loop(), 10)
    except oneatatime.Error as error:
        return found, error
    return found, None


async def passing(proxy: FaultProxy) -> tuple[int, int]:
    """How many bytes a whole iteration takes: to the client, to the server."""
    _, error = await attempt(proxy.url)
    assert error is None
    link = proxy.links[-1]
    return link.to_client.passed, link.to_server.passed


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("direction", ["to_client", "to_server"])
async def test_cut_at_every_byte(server: Server, direction: str, reset: bool, no_leaks: None) -> None:
    expected = short(server)
    async with FaultProxy(server.url) as proxy:
        whole = dict(zip(("to_client", "to_server"), await passing(proxy)))[direction]
        complete = 0
        for position in range(whole + 1):
            if position > 300 and position < whole - 500 and position % 50:
                continue  # within what INFO says
            proxy.plan = Plan(**{direction: Fault(cut=position, reset=reset)})
            found, error = await attempt(proxy.url)
            if error is None:
                assert dict(found) == expected
                complete += 1
            else:
                assert isinstance(error, Incomplete | ConnectionLost | Unreachable), error
                assert error.node == proxy.url.removeprefix("redis://")
                assert all(expected[key] == value for key, value in found)
        assert complete <= 40  # what is cut after the last reply was asked for, or has come


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
async def test_cut_once_at_every_byte_loses_nothing(server: Server, direction: str, no_leaks: None) -> None:
    expected = short(server)
    async with FaultProxy(server.url) as proxy:
        whole = dict(zip(("to_client", "to_server"), await passing(proxy)))[direction]
        refused = 0
        for position in range(whole + 1):
            if position > 300 and position < whole - 900 and position % 50:
                continue  # within what INFO says
            proxy.upcoming.append(Plan(**{direction: Fault(cut=position)}))
            found, error = await attempt(proxy.url, PATIENT)
            if error is None:
                assert dict(found) == expected
            else:  # before anything was known of the server there is nothing to wait for
                assert isinstance(error, Unreachable | ConnectionLost) and not found
                refused += 1
        assert refused < whole / 2


@pytest.mark.parametrize("garbage", [b"\xff", b"9", b"0", b"\r", b"*", b"$", b"_"])
async def test_garbage_at_every_byte(server: Server, garbage: bytes, no_leaks: None) -> None:
    """Nothing is wrong that the protocol can tell: only the one byte that was changed, within a text."""
    short(server)
    async with FaultProxy(server.url) as proxy:
        whole, _ = await passing(proxy)
        expected, _ = await attempt(proxy.url)
        for position in [*range(0, whole - 450, 37), *range(whole - 450, whole)]:
            proxy.plan = Plan(to_client=Fault(replace=(position, garbage)))
            found, error = await attempt(proxy.url, NOT_LONG)
            if error is None and len(found) == len(expected) - 1:
                assert all(item in expected for item in found)  # it was in the name of a key: no such key
            elif error is None:
                assert differences(found, expected) <= 1, (position, found)
            else:
                expected_errors = (
                    Incomplete | ConnectionLost | Unreachable | ProtocolViolation | oneatatime.ServerFailure
                )
                assert isinstance(error, expected_errors)


def differences(found: list[Any], expected: list[Any]) -> int:
    """In how many bytes two results differ that are otherwise alike."""
    if len(found) > len(expected):  # it was in the cursor: some come twice
        assert all(item in expected for item in found)
        return 0
    first, second = flat(found), flat(expected)
    assert list(map(len, first)) == list(map(len, second)), (found, expected)
    return sum(a != b for one, other in zip(first, second) for a, b in zip(one, other))


def flat(value: Any) -> list[bytes]:
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple | set):
        return [b"[", *(piece for part in value for piece in flat(part)), b"]"]
    return [value if isinstance(value, bytes) else str(value).encode()]


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
async def test_stalled_anywhere(server: Server, direction: str, no_leaks: None) -> None:
    short(server)
    async with FaultProxy(server.url) as proxy:
        whole = dict(zip(("to_client", "to_server"), await passing(proxy)))[direction]
        for position in range(0, whole - 1, whole // 25):
            proxy.plan = Plan(**{direction: Fault(stall=position)})
            began = asyncio.get_running_loop().time()
            _, error = await attempt(proxy.url, NOT_LONG)
            assert isinstance(error, ReplyTimeout | Unreachable | Incomplete)
            assert "Options(" in str(error)
            assert asyncio.get_running_loop().time() - began < 1


async def test_one_byte_at_a_time(server: Server, no_leaks: None) -> None:
    expected = short(server)
    async with FaultProxy(server.url, Plan(Fault(dribble=True), Fault(dribble=True))) as proxy:
        found, error = await attempt(proxy.url)
    assert error is None and dict(found) == expected


async def test_a_long_way(server: Server, no_leaks: None) -> None:
    expected = short(server)
    async with FaultProxy(server.url, Plan(round_trip=0.02)) as proxy:
        found, error = await attempt(proxy.url)
    assert error is None and dict(found) == expected


@pytest.mark.parametrize("ranges", [1, 2, 4])
async def test_what_was_read_comes_before_the_error(server: Server, ranges: int, no_leaks: None) -> None:
    values = {b"key:%d" % n: b"%d" % n for n in range(1000)}
    server.admin.mset(values)  # type: ignore[arg-type]
    async with FaultProxy(server.url) as proxy:
        await anext(oneatatime.stream(proxy.url, options=Options(count=50, ranges=ranges)))
        begun = proxy.links[0].to_client.passed  # what it takes to find out about the server, and a bit more
        proxy.plan = Plan(to_client=Fault(cut=begun + 3000))
        options = Options(count=50, ranges=ranges, on_unreachable="fail")
        stream = oneatatime.stream(proxy.url, options=options)
        found = {}
        errors = []
        for _ in range(4):
            try:
                async for key, value in stream:
                    found[key] = value
            except Incomplete as error:
                errors.append((error, depth(error)))
        assert 0 < len(found) < 1000
        assert found.items() <= values.items()
        assert len(errors) == 4 and len({id(error) for error, _ in errors}) == 1
        assert errors[1][1] == errors[3][1] < 30  # it does not grow
        done = stream.statistics()
        assert done.keys == len(found) and not done.complete and done.fraction < 1


def depth(error: BaseException) -> int:
    trace, count = error.__traceback__, 0
    while trace is not None:
        trace, count = trace.tb_next, count + 1
    return count


async def test_given_keys_come_before_the_error(server: Server, no_leaks: None) -> None:
    values = {b"key:%d" % n: b"%d" % n for n in range(1000)}
    server.admin.mset(values)  # type: ignore[arg-type]
    async with FaultProxy(server.url, Plan(to_client=Fault(cut=10_000))) as proxy:
        found = []
        options = Options(count=50, on_unreachable="fail")
        with pytest.raises(ConnectionLost):
            async for value in oneatatime.OneAtATime(proxy.url, list(values), options=options):
                found.append(value)
    assert found and found == list(values.values())[: len(found)]


async def test_given_keys_go_on_in_their_order_after_a_cut(server: Server, no_leaks: None) -> None:
    values = {b"key:%d" % n: b"%d" % n for n in range(1000)}
    server.admin.mset(values)  # type: ignore[arg-type]
    async with FaultProxy(server.url) as proxy:
        for cut in range(3000, 13_000, 497):
            proxy.upcoming.append(Plan(to_client=Fault(cut=cut)))
            one_at_a_time = oneatatime.OneAtATime(proxy.url, list(values), count=50)
            assert [value async for value in one_at_a_time] == list(values.values())


class Broken(Exception):
    pass


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_error_of_the_keys_comes_after_the_values_before_it(
    server: Server, asynchronous: bool, no_leaks: None
) -> None:
    server.admin.mset({"a": 1, "b": 2})

    def keys() -> Any:
        yield "a"
        yield "b"
        yield "c"
        raise Broken

    async def async_keys() -> Any:
        for key in keys():
            yield key

    found = []
    with pytest.raises(Broken):
        async for value in oneatatime.OneAtATime(server.url, async_keys() if asynchronous else keys()):
            found.append(value)
    assert found == [b"1", b"2", None]


async def test_the_servers_error_is_not_hidden_by_a_source_that_waits(server: Server, no_leaks: None) -> None:
    """The source is inside a wait of its own when the connection ends, and cannot be closed from outside."""
    closed = []

    async def keys() -> Any:
        try:
            for n in range(1000):
                yield f"key:{n}"
                await asyncio.sleep(0.001)
        finally:
            closed.append(True)

    async with FaultProxy(server.url) as proxy:
        await anext(aiter(oneatatime.OneAtATime(proxy.url, ["key:0"])))
        proxy.plan = Plan(to_client=Fault(cut=proxy.links[0].to_client.passed + 500))
        with pytest.raises(ConnectionLost):
            options = Options(on_unreachable="fail")
            async for _ in oneatatime.OneAtATime(proxy.url, keys(), options=options):
                pass
    await asyncio.sleep(0.01)
    assert closed == [True]


async def test_parts_that_are_cut(server: Server, no_leaks: None) -> None:
    server.admin.rpush("big", *(f"element {n}" for n in range(3000)))
    options = Options(parts_over=1000, chunk=500)
    async with FaultProxy(server.url) as proxy:
        async for _, value in oneatatime.stream(proxy.url, options=options):
            proxy.plan = Plan(to_client=Fault(cut=5000))
            seen = []
            with pytest.raises(ConnectionLost):
                async for element in value:
                    seen.append(element)
            assert seen == [b"element %d" % n for n in range(len(seen))] and 0 < len(seen) < 3000
            proxy.plan = Plan()
            assert len([element async for element in value]) == 3000  # a new loop, a new connection


# Servers that die


async def test_killed_in_the_middle() -> None:
    with EmbeddedServer() as server:
        await _fill(server.url)
        stream = oneatatime.stream(server.url, options=Options(count=10, ahead=1, patience=0.3))
        await anext(stream)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(Incomplete, match=r"database 0 of unix:.* could not be read for 0\.3 s") as caught:
            async for _ in stream:
                pass
        assert caught.value.missing == (f"database 0 of unix:{server.path}",)
        assert isinstance(caught.value.__cause__, Unreachable)
        with pytest.raises(Unreachable):
            await anext(oneatatime.stream(server.url))


@pytest.mark.parametrize("unique", [False, True])
async def test_restarted_in_the_middle(unique: bool, no_leaks: None) -> None:
    """The new process has another order of cursors: everything is read again."""
    with EmbeddedServer() as first, EmbeddedServer() as second:
        for server in (first, second):
            await _fill(server.url)
        async with FaultProxy(first.url) as proxy:
            stream = oneatatime.stream(proxy.url, options=Options(count=10, ahead=1), unique=unique)
            found = [(await anext(stream))[0]]
            proxy._upstream = urlsplit(second.url)
            proxy.drop(reset=True)
            found += [key async for key, _ in stream]
    assert len(set(found)) == 2000
    assert (len(found) == 2000) == unique
    done = stream.statistics()
    assert done.complete and done.repeats >= len(found) - 2000
    assert any("another server process answers" in why for why in done.read_again)


async def test_two_servers_behind_one_address(no_leaks: None) -> None:
    with EmbeddedServer() as first, EmbeddedServer() as second:
        await _fill(first.url)
        async with FaultProxy(first.url) as proxy:
            stream = oneatatime.stream(proxy.url, options=Options(count=10, ranges=2))
            step = asyncio.ensure_future(anext(stream))
            while not (proxy.links and proxy.links[0].to_client.passed):
                await asyncio.sleep(0)
            proxy._upstream = urlsplit(second.url)
            found = {(await step)[0]} | {key async for key, _ in stream}
    assert len(found) == 2000 and stream.statistics().complete  # all over the first connection


async def test_stopped_in_the_middle() -> None:
    with EmbeddedServer() as server:
        await _fill(server.url)
        options = Options(count=10, ahead=1, timeout=0.1, on_unreachable="fail")
        stream = oneatatime.stream(server.url, options=options)
        await anext(stream)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Incomplete, match=r"0\.1 s"):
                async for _ in stream:
                    pass
            with pytest.raises(Unreachable, match=r"0\.05 s|nothing"):
                await anext(oneatatime.stream(server.url, options=Options(connect_timeout=0.05)))
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def _fill(url: str) -> None:
    from oneatatime._load import load

    load(url, ((b"SET", b"key:%d" % n, n) for n in range(2000)))
