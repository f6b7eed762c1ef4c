"""The seed's form, to the letter: one value per key, in the order of the keys, as soon as it is there."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import oneatatime
from oneatatime import InvalidInput, OneAtATime, Options, Undecodable
from tests.servers import Server


@pytest.fixture
def thousand(server: Server) -> list[str]:
    """The names of a thousand keys that hold their own number."""
    keys = [f"k:{n}" for n in range(1000)]
    server.admin.mset({key: n for n, key in enumerate(keys)})
    return keys


def numbers(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]


# The protocol


async def test_it_is_an_async_iterator_as_the_seed_wrote_it(server: Server) -> None:
    server.admin.mset({"a": 1, "b": 2})
    values = OneAtATime(server.url, ["a", "b"])
    assert not inspect.iscoroutinefunction(OneAtATime.__aiter__)
    assert not inspect.isasyncgenfunction(OneAtATime.__aiter__)
    assert values.__aiter__() is values
    step = values.__anext__()
    assert inspect.isawaitable(step)
    assert await step == b"1"
    assert await values.__anext__() == b"2"
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):
            await values.__anext__()


async def test_anext_needs_no_aiter_before_it(server: Server) -> None:
    server.admin.set("a", 1)
    assert await anext(OneAtATime(server.url, ["a"])) == b"1"


async def test_other_code_runs_while_it_waits(server: Server, thousand: list[str]) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert [value async for value in OneAtATime(server.url, thousand)] == numbers(1000)
    task.cancel()
    assert turns > 3


# Order, missing keys, types


async def test_values_come_in_the_order_of_the_keys(server: Server, thousand: list[str]) -> None:
    assert [value async for value in OneAtATime(server.url, thousand)] == numbers(1000)
    assert [value async for value in OneAtATime(server.url, thousand[::-1])] == numbers(1000)[::-1]


async def test_a_key_that_is_not_there_is_none_in_its_place(server: Server, thousand: list[str]) -> None:
    keys = [key if n % 3 else f"missing:{n}" for n, key in enumerate(thousand)]
    expected = [b"%d" % n if n % 3 else None for n in range(1000)]
    assert [value async for value in OneAtATime(server.url, keys)] == expected
    assert [value async for value in OneAtATime(server.url, keys, encoding="utf-8")] == [
        None if value is None else value.decode() for value in expected
    ]
    assert [value async for value in OneAtATime(server.url, ["no"] * 1200)] == [None] * 1200


async def test_a_key_may_be_given_more_than_once(server: Server) -> None:
    server.admin.set("a", 1)
    server.admin.rpush("b", 2)
    keys = ["a", "b", "a", "no", "a", "no", "b"] * 200
    values = {"a": b"1", "b": [b"2"], "no": None}
    assert [value async for value in OneAtATime(server.url, keys)] == [values[key] for key in keys]


async def test_any_type_is_a_value_here(server: Server) -> None:
    admin = server.admin
    admin.set("string", "")
    admin.hset("hash", "f", "v")
    admin.rpush("list", "e")
    admin.sadd("set", "m")
    admin.zadd("zset", {"m": 1})
    admin.xadd("stream", {"f": "v"}, id="1-1")
    keys = ["string", "hash", "none", "list", "set", "zset", "stream"]
    values = [b"", {b"f": b"v"}, None, [b"e"], {b"m"}, [(b"m", 1.0)], [(b"1-1", {b"f": b"v"})]]
    assert [value async for value in OneAtATime(server.url, keys * 50)] == values * 50
    assert list(OneAtATime(server.url, keys * 50)) == values * 50


async def test_order_holds_among_values_of_every_size(server: Server) -> None:
    """Values that take other ways (too long to guess, in chunks, too big to hold) stay in their places."""
    sizes = [1, 70_000, 5, 0, 2_000_000, 300_000, 3, 900_000, 70_000, 1]
    keys = [f"k{n}" for n in range(200)]
    pipe = server.admin.pipeline(transaction=False)
    for n, key in enumerate(keys):
        if n % 4 == 3:
            pipe.rpush(key, *range(n * 20))
        elif n % 9:
            pipe.set(key, b"%03d" % n + b"x" * sizes[n % 10])
    pipe.execute()
    n = -1
    async for value in OneAtATime(server.url, keys):
        n += 1
        if n % 4 == 3:
            assert [int(element) for element in value] == list(range(n * 20))
        elif n % 9 == 0:
            assert value is None
        else:
            size = 3 + sizes[n % 10]
            if isinstance(value, oneatatime.Parts):
                assert size > 1 << 20
                value = await value.load()
            assert value[:3] == b"%03d" % n
            assert len(value) == size
    assert n == 199


# Kinds of keys


def plain(keys: list[str]) -> Iterator[str]:
    yield from keys


async def agen(keys: list[str]) -> AsyncIterator[str]:
    for key in keys:
        yield key


class Book:
    """A collection that hands out a new iterator for each loop."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.loops = 0

    def __iter__(self) -> Iterator[str]:
        self.loops += 1
        return iter(self.keys)


class AsyncBook(Book):
    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> AsyncIterator[str]:
        self.loops += 1
        return agen(self.keys)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        dict.fromkeys,
        plain,
        iter,
        agen,
        Book,
        AsyncBook,
        lambda keys: [key.encode() for key in keys],
    ],
    ids=[
        "list",
        "tuple",
        "dict",
        "generator",
        "iterator",
        "async generator",
        "iterable",
        "async iterable",
        "bytes",
    ],
)
@pytest.mark.parametrize("count", [0, 1, 2, 499, 500, 501, 1000])
async def test_keys_may_be_anything_that_gives_keys(
    server: Server, thousand: list[str], make: Any, count: int
) -> None:
    assert [value async for value in OneAtATime(server.url, make(thousand[:count]))] == numbers(count)


def test_a_plain_for_takes_every_kind_of_keys_too(server: Server, thousand: list[str]) -> None:
    for make in (list, plain, agen, Book, AsyncBook):
        assert list(OneAtATime(server.url, make(thousand))) == numbers(1000)  # type: ignore[operator]


@pytest.mark.parametrize("keys", [None, 7, "key", b"key"])
def test_what_gives_no_keys_is_refused_at_once(keys: Any) -> None:
    with pytest.raises(InvalidInput, match="key"):
        OneAtATime("redis://localhost", keys)


async def test_what_is_no_key_is_an_error_after_the_values_before_it(
    server: Server, thousand: list[str]
) -> None:
    keys: list[Any] = [*thousand[:700], 7, *thousand[700:]]
    for given in (keys, agen(keys), plain(keys)):
        values, found = OneAtATime(server.url, given), []
        with pytest.raises(InvalidInput, match="bytes or str, not int: 7"):
            while True:
                found.append(await anext(values))
        assert found == numbers(700)


@pytest.mark.parametrize("is_async", [False, True])
async def test_endless_keys_give_endless_values(server: Server, thousand: list[str], is_async: bool) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1):
            yield thousand[(taken - 1) % 1000]

    async def endless_async() -> AsyncIterator[str]:
        for key in endless():
            yield key

    found = []
    async for value in OneAtATime(server.url, endless_async() if is_async else endless()):
        found.append(value)
        if len(found) == 5000:
            break
    assert found == numbers(1000) * 5
    assert taken <= 5000 + 33 * 500  # 32 pages ahead at most, and the one that is taken


# Slow and fast


async def test_a_slow_source_delivers_each_value_as_soon_as_its_key_is_there(
    server: Server, thousand: list[str]
) -> None:
    given: list[float] = []

    async def slow() -> AsyncIterator[str]:
        for key in thousand[:20]:
            await asyncio.sleep(0.01)
            given.append(time.perf_counter())
            yield key

    delays = []
    async for value in OneAtATime(server.url, slow()):
        assert value == b"%d" % len(delays)
        delays.append(time.perf_counter() - given[len(delays)])
    assert len(delays) == 20
    assert sorted(delays)[10] < 0.005
    assert max(delays[1:]) < 0.1


async def test_a_source_may_wait_for_the_value_before_it_gives_the_next_key(server: Server) -> None:
    """A linked list in the database: each value names the next key."""
    server.admin.mset({f"node:{n}": f"node:{n + 1}" for n in range(50)})
    values: asyncio.Queue[str] = asyncio.Queue()

    async def follow() -> AsyncIterator[str]:
        yield "node:0"
        while (key := await values.get()) != "node:50":
            yield key

    visited = []
    async for value in OneAtATime(server.url, follow(), encoding="utf-8"):
        visited.append(value)
        values.put_nowait(value)
    assert visited == [f"node:{n + 1}" for n in range(50)]


@pytest.mark.parametrize("make", [list, plain, agen, AsyncBook])
async def test_a_fast_source_is_fetched_a_page_at_a_time(server: Server, make: Any) -> None:
    keys = [f"k:{n}" for n in range(20_000)]
    server.admin.mset(dict.fromkeys(keys, "v"))
    stream = oneatatime.stream(server.url, keys=make(keys))
    assert len([value async for _, value in stream]) == 20_000
    done = stream.statistics()
    assert done.round_trips <= 200
    assert done.commands <= 1.05 * 20_000
    server.admin.config_resetstat()
    assert len([value async for value in OneAtATime(server.url, make(keys))]) == 20_000
    assert server.admin.info("stats")["total_commands_processed"] <= 1.05 * 20_000


async def test_a_source_in_fits_and_starts_is_fetched_as_it_comes(
    server: Server, thousand: list[str]
) -> None:
    async def bursts() -> AsyncIterator[str]:
        for start in range(0, 1000, 100):
            await asyncio.sleep(0.005)
            for key in thousand[start : start + 100]:
                yield key

    stream = oneatatime.stream(server.url, keys=bursts())
    assert [value async for _, value in stream] == numbers(1000)
    assert stream.statistics().round_trips <= 60


# Starting over and going on


@pytest.mark.parametrize("make", [list, tuple, dict.fromkeys, Book, AsyncBook])
async def test_each_loop_starts_over(server: Server, thousand: list[str], make: Any) -> None:
    values = OneAtATime(server.url, make(thousand))
    for stop in (1, 10, 600, 1000):
        found = []
        async for value in values:
            found.append(value)
            if len(found) == stop:
                break
        assert found == numbers(stop)
    assert [value async for value in values] == numbers(1000)


async def test_starting_over_reads_the_values_anew(server: Server) -> None:
    server.admin.set("a", 1)
    values = OneAtATime(server.url, ["a"])
    assert [value async for value in values] == [b"1"]
    server.admin.set("a", 2)
    assert [value async for value in values] == [b"2"]
    server.admin.delete("a")
    assert [value async for value in values] == [None]


@pytest.mark.parametrize("make", [plain, iter, agen])
async def test_keys_that_can_be_run_through_once_go_on_after_a_break(
    server: Server, thousand: list[str], make: Any
) -> None:
    values = OneAtATime(server.url, make(thousand))
    found = []
    for stop in (1, 10, 600, 10_000):
        async for value in values:
            found.append(value)
            if len(found) == stop:
                break
    assert found == numbers(1000)
    assert [value async for value in values] == []


def test_plain_loops_start_over_and_go_on_likewise(server: Server, thousand: list[str]) -> None:
    again, once = OneAtATime(server.url, thousand), OneAtATime(server.url, plain(thousand))
    assert list(itertools.islice(again, 10)) == numbers(10)
    assert list(again) == numbers(1000)
    assert list(itertools.islice(once, 10)) == numbers(10)
    assert list(once) == numbers(1000)[10:]


async def test_nothing_is_asked_of_keys_or_server_before_the_loop(thousand: list[str]) -> None:
    book = Book(thousand)
    values = OneAtATime("redis://localhost:1", book)
    assert book.loops == 0
    await values.aclose()
    assert book.loops == 0


# Errors and endings


class Broken(Exception):
    pass


@pytest.mark.parametrize("before", [0, 1, 499, 500, 501, 1000])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_error_of_the_source_comes_after_the_values_of_the_keys_before_it(
    server: Server, thousand: list[str], before: int, is_async: bool
) -> None:
    def failing() -> Iterator[str]:
        yield from thousand[:before]
        raise Broken("the source broke")

    async def failing_async() -> AsyncIterator[str]:
        for key in failing():
            yield key

    values = OneAtATime(server.url, failing_async() if is_async else failing())
    found = []
    with pytest.raises(Broken, match="the source broke"):
        while True:
            found.append(await anext(values))
    assert found == numbers(before)


async def test_the_async_source_is_closed_at_the_end(server: Server, thousand: list[str]) -> None:
    closed = []

    async def source(name: str, wait: float) -> AsyncIterator[str]:
        try:
            for key in thousand:
                if wait:
                    await asyncio.sleep(wait)
                yield key
        finally:
            await asyncio.sleep(0)  # closing may take a turn of the loop
            closed.append(name)

    assert len([value async for value in OneAtATime(server.url, source("end", 0))]) == 1000
    assert closed == ["end"]

    for name, wait in (("break", 0), ("slow", 0.005)):
        values = OneAtATime(server.url, source(name, wait))
        async for _ in values:
            break
        await values.aclose()
        assert closed[-1] == name

    async for _ in OneAtATime(server.url, source("dropped", 0.005)):
        break
    for _ in range(100):
        await asyncio.sleep(0.001)
        if closed[-1] == "dropped":
            break
    assert closed == ["end", "break", "slow", "dropped"]


async def test_a_source_that_is_never_looped_over_is_left_alone(server: Server) -> None:
    async def source() -> AsyncIterator[str]:
        raise AssertionError("nobody asked")
        yield ""

    keys = source()
    values = OneAtATime(server.url, keys)
    await values.aclose()
    await keys.aclose()  # type: ignore[attr-defined]


async def test_text_is_asked_for_as_in_stream(server: Server) -> None:
    server.admin.mset({"a": "é", "b": b"\xff", "c": "ü"})
    values = OneAtATime(server.url, ["a", "b", "c"], encoding="utf-8")
    assert await anext(values) == "é"
    with pytest.raises(Undecodable) as caught:
        await anext(values)
    assert caught.value.key == b"b"
    assert await anext(values) == "ü"
    with pytest.raises(StopAsyncIteration):
        await anext(values)


@pytest.mark.parametrize(
    "options", [Options(count=1), Options(burst=1, ahead=1), Options(reply_limit=64)], ids=repr
)
async def test_any_options_keep_the_order(server: Server, thousand: list[str], options: Options) -> None:
    keys = [key for pair in zip(thousand[:200], ["no"] * 200) for key in pair]
    expected = [value for pair in zip(numbers(200), [None] * 200) for value in pair]
    assert [value async for value in OneAtATime(server.url, keys, options=options)] == expected
    assert [value async for value in OneAtATime(server.url, keys, count=3, options=options)] == expected


async def test_a_slow_plain_source_holds_no_value_back(server: Server) -> None:
    """A plain generator blocks the loop while it waits for its next key: what was asked for comes first."""
    server.admin.mset({f"k{n}": n for n in range(5)})
    given = 0.0

    def slow() -> Iterator[str]:
        nonlocal given
        for n in range(5):
            time.sleep(0.05)
            given = time.perf_counter()
            yield f"k{n}"

    values = oneatatime.OneAtATime(server.url, slow())
    late = [time.perf_counter() - given async for _ in values]
    assert len(late) == 5
    assert sum(wait < 0.04 for wait in late[1:]) >= 3
