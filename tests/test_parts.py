"""Values too big to hold: read whole, in part or not at all, and honest about changes in mid-read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import oneatatime
from oneatatime import ConnectionLost, Options, Parts, Undecodable
from tests.fake import Answers, FakeServer, array, bulk
from tests.reading import everything, with_protocol
from tests.servers import Server

SMALL = Options(parts_over=20_000, chunk=4_000)
TYPES = ("string", "hash", "list", "set", "zset", "stream")


def write(server: Server, key: str, kind: str, elements: int, length: int = 20) -> Any:
    """A value of so many elements (bytes, for a string); returned as it should be delivered."""
    fill = b"e" * length
    made = [b"%06d" % n + fill for n in range(elements)]
    pipe = server.admin.pipeline(transaction=False)
    value: Any
    if kind == "string":
        value = (b"".join(made) + fill)[:elements]
        pipe.set(key, value)
    elif kind == "hash":
        value = {one: one[::-1] for one in made}
        pipe.hset(key, mapping=value)
    elif kind == "list":
        value = made
        pipe.rpush(key, *made)
    elif kind == "set":
        value = set(made)
        pipe.sadd(key, *made)
    elif kind == "zset":
        value = [(one, float(n // 2)) for n, one in enumerate(made)]
        pipe.zadd(key, dict(value))
    else:
        value = [(b"%d-1" % (n + 1), {b"f": one}) for n, one in enumerate(made)]
        for entry, fields in value:
            pipe.xadd(key, fields, id=entry)  # type: ignore[arg-type]
    pipe.execute()
    return value


def assembled(kind: str, parts: list[Any]) -> Any:
    if kind == "string":
        return b"".join(parts)
    if kind in ("hash", "set"):
        assert len({part if kind == "set" else part[0] for part in parts}) <= len(parts)
        return dict(parts) if kind == "hash" else set(parts)
    return sorted(dict(parts).items(), key=lambda pair: (pair[1], pair[0])) if kind == "zset" else parts


async def only(server: Server, options: Options = SMALL, **arguments: Any) -> Any:
    (value,) = (await everything(server.url, options=options, **arguments)).values()
    return value


# What is big


async def test_a_string_is_parts_from_one_byte_over_the_limit(server: Server) -> None:
    for neighbours in (0, 100):
        server.admin.flushall()
        for n in range(neighbours):
            server.admin.set(f"small:{n}", "v")
        under, over = write(server, "big:1", "string", 20_000), write(server, "big:2", "string", 20_001)
        found = await everything(server.url, options=SMALL)
        assert found[b"big:1"] == under
        parts = found[b"big:2"]
        assert isinstance(parts, Parts)
        assert (parts.key, parts.type, parts.size) == (b"big:2", "string", 20_001)
        pieces = [piece async for piece in parts]
        assert b"".join(pieces) == over
        assert [len(piece) for piece in pieces] == [4000] * 5 + [1]


@pytest.mark.parametrize("kind", TYPES[1:])
@pytest.mark.parametrize("length", [20, 700], ids=["short", "long"])
async def test_a_collection_is_whole_well_under_the_limit_and_parts_over_it(
    server: Server, kind: str, length: int
) -> None:
    under, over = 5000 // (length + 20), 90_000 // (length + 6)
    written = {
        b"k:%d" % n: write(server, f"k:{n}", kind, elements, length)
        for n, elements in enumerate([1, 1, under, over, under, over, 1])
    }
    for _ in range(2):
        found = await everything(server.url, options=SMALL)
        big = {key for key, value in found.items() if isinstance(value, Parts)}
        assert big == {b"k:3", b"k:5"}
        for key, value in found.items():
            assert (await value.load() if key in big else value) == written[key]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("known", [0, 400], ids=["unknown", "known"])
async def test_what_is_over_the_limit_is_parts_whatever_came_before_it(
    server: Server, kind: str, known: int
) -> None:
    """Also where few long elements fit into one reply, and values of the same shape are known well."""
    options = Options(parts_over=50_000, chunk=10_000)
    for n in range(known):
        write(server, f"k:{n}", kind, 12, 10)
    keys = [f"k:{n}" for n in range(known)]
    value = write(server, "k:99999", kind, 60_000 if kind == "string" else 12, 6_000)
    stream = oneatatime.stream(server.url, keys=[*keys, "k:99999"], options=options)
    found = dict([pair async for pair in stream])
    big = found.pop(b"k:99999")
    assert not any(isinstance(value, Parts) for value in found.values())
    assert isinstance(big, Parts)
    assert await big.load() == value


async def test_a_limit_below_everything_makes_parts_of_everything(server: Server) -> None:
    written = {kind.encode(): write(server, kind, kind, 3000) for kind in TYPES}
    found = await everything(server.url, options=Options(parts_over=1, chunk=1))
    assert all(isinstance(value, Parts) for value in found.values())
    assert {key: await value.load() for key, value in found.items()} == written


async def test_a_limit_above_everything_makes_no_parts(server: Server) -> None:
    written = {kind.encode(): write(server, kind, kind, 20_000, 500) for kind in TYPES}
    written[b"string"] = b"s" * 12_000_000
    server.admin.set("string", written[b"string"])
    assert await everything(server.url, options=Options(parts_over=1 << 40)) == written


# Ways to read it


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("kind", TYPES)
async def test_parts_are_the_elements_as_often_as_they_are_asked_for(
    server: Server, kind: str, protocol: int
) -> None:
    value = write(server, "big", kind, 50_000 if kind == "string" else 3000)
    (parts,) = (await everything(with_protocol(server.url, protocol), options=SMALL)).values()
    assert isinstance(parts, Parts)
    assert parts.torn is None
    for _ in range(2):
        elements = [part async for part in parts]
        assert assembled(kind, elements) == value
        assert parts.torn is False
    chunks = [chunk async for chunk in parts.chunks()]
    assert all(type(chunk) is list and chunk for chunk in chunks)
    assert len(chunks) > 5
    assert assembled(kind, [part for chunk in chunks for part in chunk]) == value
    assert await parts.load() == value


@pytest.mark.parametrize("kind", TYPES)
async def test_parts_may_be_read_in_part_or_left_alone_and_the_stream_goes_on(
    server: Server, kind: str
) -> None:
    written = {}
    for n in range(30):
        big = n % 3 == 0
        written[b"k:%d" % n] = write(
            server, f"k:{n}", kind, (40_000 if kind == "string" else 2500) if big else 5
        )
    found = {}
    held = []
    async for key, value in oneatatime.stream(server.url, options=SMALL):
        n = int(key[2:])
        assert isinstance(value, Parts) == (n % 3 == 0)
        if not isinstance(value, Parts):
            found[key] = value
        elif n % 2:
            found[key] = assembled(kind, [part async for part in value])
        else:
            async for part in value:
                assert part in (written[key].items() if kind == "hash" else written[key])
                break
            held.append(value)
    assert {key: value for key, value in written.items() if key in found} == found
    assert len(held) == 5
    for parts in held:  # the stream has ended, they can still be read
        assert await parts.load() == written[parts.key]


@pytest.mark.parametrize("kind", TYPES)
async def test_several_loops_over_one_value_do_not_disturb_each_other(server: Server, kind: str) -> None:
    value = write(server, "big", kind, 50_000 if kind == "string" else 2500)
    parts = await only(server)

    async def read() -> Any:
        return assembled(kind, [part async for part in parts])

    assert await asyncio.gather(*(read() for _ in range(4))) == [value] * 4


@pytest.mark.parametrize("kind", TYPES)
def test_a_plain_for_goes_over_parts(server: Server, kind: str) -> None:
    value = write(server, "big", kind, 50_000 if kind == "string" else 2500)
    ((_, parts),) = iter(oneatatime.stream(server.url, options=SMALL))
    assert assembled(kind, list(parts)) == value
    assert parts.torn is False
    for part in parts:
        assert part in (value.items() if kind == "hash" else value)
        break


@pytest.mark.parametrize("kind", TYPES)
def test_a_plain_for_over_parts_inside_a_plain_for_over_a_stream(server: Server, kind: str) -> None:
    written = {
        b"k:%d" % n: write(server, f"k:{n}", kind, 30_000 if kind == "string" else 1500) for n in range(5)
    }
    found = {key: assembled(kind, list(parts)) for key, parts in oneatatime.stream(server.url, options=SMALL)}
    assert found == written


async def test_the_end_of_one_loop_over_parts_stays_the_end(server: Server) -> None:
    write(server, "big", "string", 50_000)
    loop = aiter(await only(server))
    while True:
        try:
            await anext(loop)
        except StopAsyncIteration:
            break
    with pytest.raises(StopAsyncIteration):
        await anext(loop)


async def test_loops_over_parts_leave_no_connection(server: Server, no_leaks: None) -> None:
    write(server, "big", "hash", 3000)
    parts = await only(server)
    async for _ in parts:
        break
    chunks = parts.chunks()
    await anext(chunks)
    del chunks
    assert len([part async for part in parts]) == 3000
    await parts.load()


async def test_a_big_value_says_what_it_is(server: Server) -> None:
    write(server, "big", "hash", 3000)
    parts = await only(server)
    assert repr(parts).startswith("<Parts of hash b'big', about ")
    assert 3000 * 50 < parts.size < 3000 * 300
    assert parts.size == server.admin.memory_usage("big")


# Changes in mid-read

_CHANGES: dict[str, Callable[[Any], Any]] = {
    "appended": lambda admin: admin.append("big", "x"),
    "pushed": lambda admin: admin.lpush("big", "x"),
    "popped": lambda admin: admin.rpop("big"),
    "trimmed": lambda admin: admin.ltrim("big", 0, 10),
    "set": lambda admin: admin.set("big", "short"),
    "deleted": lambda admin: admin.delete("big"),
    "expired": lambda admin: admin.pexpire("big", 0),
    "renamed": lambda admin: admin.rename("big", "other"),
    "retyped": lambda admin: (admin.delete("big"), admin.hset("big", "f", "v")),
}


async def changed(server: Server, parts: Any, change: str) -> list[Any]:
    """Reads a value, and changes it when the first chunks have come."""
    found: list[Any] = []
    chunks = 0
    async for chunk in parts.chunks():
        found += chunk
        chunks += 1
        if chunks == 2:
            _CHANGES[change](server.admin)
    return found


@pytest.mark.parametrize("change", ["appended", "set", "deleted", "expired", "renamed", "retyped"])
async def test_a_string_that_changes_while_it_is_read_is_torn(server: Server, change: str) -> None:
    value = write(server, "big", "string", 200_000)
    stream = oneatatime.stream(server.url, options=SMALL)
    _, parts = await anext(stream)
    pieces = b"".join(await changed(server, parts, change))
    assert parts.torn is True
    assert value[:4000] == pieces[:4000]
    assert stream.statistics().torn == 1
    await stream.aclose()


@pytest.mark.parametrize(
    "change", ["pushed", "popped", "trimmed", "deleted", "expired", "renamed", "retyped"]
)
async def test_a_list_that_changes_while_it_is_read_is_torn(server: Server, change: str) -> None:
    value = write(server, "big", "list", 5000)
    parts = await only(server)
    found = await changed(server, parts, change)
    assert parts.torn is True
    assert found[0] == value[0]


@pytest.mark.parametrize("kind", ["hash", "set", "zset", "stream"])
@pytest.mark.parametrize("change", ["deleted", "expired", "renamed", "set"])
async def test_a_collection_that_goes_in_mid_read_ends_there(server: Server, kind: str, change: str) -> None:
    value = write(server, "big", kind, 5000)
    parts = await only(server)
    found = await changed(server, parts, change)
    assert 0 < len(found) < 5000
    wanted = list(value.items()) if kind == "hash" else value
    assert all(part in wanted for part in found[:3])
    assert parts.torn is True


@pytest.mark.parametrize("kind", ["string", "hash", "list", "set", "zset", "stream"])
async def test_a_value_that_was_gone_before_it_was_read_is_not_an_empty_one(
    server: Server, kind: str
) -> None:
    write(server, "big", kind, 5000 if kind != "string" else 200_000)
    parts = await only(server)
    server.admin.delete("big")
    assert [part async for part in parts] == []
    assert parts.torn is True


async def test_a_loop_over_parts_that_was_broken_off_does_not_look_finished(server: Server) -> None:
    write(server, "big", "hash", 5000)
    parts = await only(server)
    chunks = parts.chunks()
    await anext(chunks)
    server.admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
    for _ in range(2):
        with pytest.raises(oneatatime.ConnectionLost):
            while True:
                await anext(chunks)


@pytest.mark.parametrize("kind", ["hash", "set", "zset"])
async def test_elements_that_are_there_all_along_are_delivered_while_others_come_and_go(
    server: Server, kind: str
) -> None:
    value = write(server, "big", kind, 5000)
    extra = [b"x%d" % n for n in range(4000)]
    add: Callable[[list[bytes]], Any] = {
        "hash": lambda some: server.admin.hset("big", mapping=dict.fromkeys(some, b"1")),
        "set": lambda some: server.admin.sadd("big", *some),
        "zset": lambda some: server.admin.zadd("big", dict.fromkeys(some, 1)),
    }[kind]
    remove: Any = {"hash": server.admin.hdel, "set": server.admin.srem, "zset": server.admin.zrem}[kind]
    parts = await only(server)
    found, turn = [], 0
    async for chunk in parts.chunks():
        found += chunk
        turn += 1
        add(extra[::2] if turn % 2 else extra[1::2])
        remove("big", *(extra[1::2] if turn % 2 else extra[::2]))
    stable = set(value) if kind == "set" else set(dict(value).items())
    assert stable <= set(found)


async def test_a_stream_is_read_to_the_entry_that_was_last_when_reading_began(server: Server) -> None:
    value = write(server, "big", "stream", 3000)
    parts = await only(server)
    found = []
    async for chunk in parts.chunks():
        found += chunk
        for _ in range(50):
            server.admin.xadd("big", {"more": "and more"})
        server.admin.xdel("big", value[-1][0])
    assert found == value[:-1]


async def test_load_reads_again_what_was_torn(server: Server) -> None:
    write(server, "big", "list", 5000)
    parts = await only(server)
    stop = False

    def push() -> None:
        while not stop:
            server.admin.lset("big", 0, "new")
            server.admin.lset("big", 1, "new")

    pushing = asyncio.create_task(asyncio.to_thread(push))
    try:
        value = await parts.load()
    finally:
        stop = True
        await pushing
    assert len(value) == 5000
    assert value[2] == b"000002" + b"e" * 20
    assert parts.torn is False


@pytest.mark.parametrize("kind", TYPES)
async def test_load_of_a_value_that_is_gone_or_another_says_so(server: Server, kind: str) -> None:
    write(server, "big", kind, 50_000 if kind == "string" else 3000)
    parts = await only(server)
    server.admin.delete("big")
    with pytest.raises(oneatatime.ServerFailure, match="gone") as caught:
        await parts.load()
    assert caught.value.key == b"big"
    if kind == "list":
        server.admin.set("big", "v")
    else:
        server.admin.rpush("big", "v")
    with pytest.raises(oneatatime.ServerFailure, match="another type"):
        await parts.load()


@pytest.mark.parametrize("kind", TYPES)
async def test_a_loop_over_a_value_that_is_gone_is_empty(server: Server, kind: str) -> None:
    write(server, "big", kind, 50_000 if kind == "string" else 3000)
    parts = await only(server)
    server.admin.delete("big")
    assert [part async for part in parts] == []


# Text


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000, 4001])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "shift_jis"])
async def test_characters_are_not_cut_at_the_borders_of_chunks(
    server: Server, chunk: int, encoding: str
) -> None:
    text = "aé日本語" * 100 if encoding != "shift_jis" else "a日本語" * 100
    server.admin.set("key".encode(encoding), text.encode(encoding))
    parts = await only(server, Options(parts_over=10, chunk=chunk), encoding=encoding)
    pieces = [piece async for piece in parts]
    assert all(type(piece) is str and piece for piece in pieces)
    assert "".join(pieces) == text
    assert await parts.load() == text
    assert all([chunk async for chunk in parts.chunks()])


@pytest.mark.parametrize("kind", TYPES)
async def test_parts_are_text_where_text_was_asked_for(server: Server, kind: str) -> None:
    write(server, "big", kind, 50_000 if kind == "string" else 3000)
    parts = await only(server, encoding="utf-8")
    elements = [part async for part in parts]
    small = Options(parts_over=1 << 30)
    assert await parts.load() == await only(server, small, encoding="utf-8")
    if kind == "string":
        assert {type(piece) for piece in elements} == {str}
    if kind == "hash":
        assert {type(word) for pair in elements for word in pair} == {str}
    if kind == "zset":
        assert {tuple(map(type, pair)) for pair in elements} == {(str, float)}


@pytest.mark.parametrize("kind", TYPES)
async def test_a_big_value_that_is_no_text_is_an_error_that_names_it(server: Server, kind: str) -> None:
    value = write(server, "big", kind, 50_000 if kind == "string" else 3000)
    bad = b"\xff\xfe"
    if kind == "string":
        server.admin.append("big", bad)
    elif kind == "hash":
        server.admin.hset("big", "f", bad)
    elif kind == "list":
        server.admin.rpush("big", bad)
    elif kind == "set":
        server.admin.sadd("big", bad)
    elif kind == "zset":
        server.admin.zadd("big", {bad: 1e9})
    else:
        server.admin.xadd("big", {"f": bad})
    server.admin.set("another", "v")
    found = await everything(server.url, options=SMALL, encoding="utf-8")
    assert found["another"] == "v"  # the stream knows nothing of it
    parts = found["big"]
    with pytest.raises(Undecodable, match=f"the {kind} value is not utf-8") as caught:
        [part async for part in parts]
    assert caught.value.key == b"big"
    with pytest.raises(Undecodable, match=f"the {kind} value is not utf-8"):
        await parts.load()
    again = await everything(server.url, options=SMALL, encoding="utf-8", errors="surrogateescape")
    assert len(await again["big"].load()) == len(value) + (2 if kind == "string" else 1)


async def test_a_character_that_the_end_cuts_is_an_error(server: Server) -> None:
    server.admin.set("key", "日".encode() * 1000 + b"\xe6\x97")
    parts = await only(server, Options(parts_over=10, chunk=1000), encoding="utf-8")
    with pytest.raises(Undecodable):
        [piece async for piece in parts]
    parts = await only(server, Options(parts_over=10, chunk=1000), encoding="utf-8", errors="replace")
    assert "".join([piece async for piece in parts]) == "日" * 1000 + "\ufffd"


# Elements that are big themselves


@pytest.mark.parametrize("kind", TYPES[1:])
async def test_elements_too_big_for_a_reply_come_one_by_one(server: Server, kind: str) -> None:
    options = Options(parts_over=100_000, chunk=50_000, reply_limit=300_000)
    value = write(server, "big", kind, 12, 200_000)
    for n in range(300):
        write(server, f"small:{n}", kind, 2)
    found = await everything(server.url, options=options)
    assert len(found) == 301
    assert {key for key, one in found.items() if isinstance(one, Parts)} == {b"big"}
    assert assembled(kind, [part async for part in found[b"big"]]) == value
    assert await found[b"big"].load() == value


async def test_a_cursor_is_not_taken_to_another_process() -> None:
    """After a reply that was too big the loop went on at whatever answered: fields were left out."""
    runs = ["aaaa"]

    def hscan(words: list[bytes]) -> bytes:
        if words[2] == b"0":
            return array(bulk(b"7"), array(bulk(b"field"), bulk(b"value")))
        if words[-1] == b"1":
            return array(bulk(b"0"), array())
        runs.append("bbbb")  # whoever answers from now on
        return array(bulk(b"0"), array(bulk(b"big"), bulk(b"v" * 200_000)))

    answers: Answers = {
        b"TYPE": b"+hash\r\n",
        b"HSCAN": hscan,
        b"MEMORY": b":5000000\r\n",
        b"INFO": lambda _: bulk(b"run_id:%b\r\nredis_mode:standalone\r\n" % runs[-1].encode()),
    }
    async with FakeServer(answers) as fake:
        options = Options(parts_over=100_000, chunk=50_000, reply_limit=100_000)
        stream = oneatatime.stream(fake.url, types=("hash", "set"), options=options)
        (parts,) = [value async for _, value in stream]
        assert isinstance(parts, Parts)
        with pytest.raises(ConnectionLost, match="restarted"):
            async for _ in parts:
                pass
