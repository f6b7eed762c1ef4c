"""However a loop ends, nothing is left: no task, no connection, no thread, no object, no warning."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import oneatatime
from oneatatime import Options, Parts, StreamClosed
from tests.leaks import (
    KEYS,
    LOOPS,
    SMALL,
    assert_no_connections,
    assert_nothing_left,
    fill,
    no_complaints,
    our_objects,
    quick_collector,  # noqa: F401 - a fixture
)
from tests.proxy import Fault, FaultProxy, Plan
from tests.servers import Server, TLSServer

pytestmark = pytest.mark.usefixtures("quick_collector")


class Boom(Exception):
    pass


# Ways to leave a loop


async def leave_by_break(things: Any) -> None:
    async for _ in things:
        break


async def leave_by_exception(things: Any) -> None:
    with contextlib.suppress(Boom):
        async for _ in things:
            raise Boom


async def leave_by_timeout(things: Any) -> None:
    async def loop() -> None:
        async for _ in things:
            await asyncio.sleep(10)

    with contextlib.suppress(asyncio.TimeoutError):
        if sys.version_info >= (3, 11):
            async with asyncio.timeout(0.01):
                await loop()
        else:
            await asyncio.wait_for(loop(), 0.01)


async def leave_by_timeout_of_a_step(things: Any) -> None:
    steps = aiter(things)
    with contextlib.suppress(asyncio.TimeoutError, StopAsyncIteration, StreamClosed):
        while True:
            await asyncio.wait_for(anext(steps), 0.0001)


async def leave_by_cancellation(things: Any) -> None:
    async def loop() -> None:
        async for _ in things:
            await asyncio.sleep(0)

    task = asyncio.ensure_future(loop())
    await asyncio.sleep(0.002)
    task.cancel()
    await asyncio.wait([task])


async def leave_by_dropping(things: Any) -> None:
    await anext(aiter(things))


async def leave_in_a_circle(things: Any) -> None:
    circle: dict[str, Any] = {"things": things}
    circle["self"] = circle
    await anext(aiter(things))
    del circle, things
    gc.collect()


async def leave_by_aclose(things: Any) -> None:
    await anext(aiter(things))
    if hasattr(things, "aclose"):
        await things.aclose()
        await things.aclose()


async def leave_without_beginning(things: Any) -> None:
    aiter(things)


WAYS: list[Callable[[Any], Awaitable[None]]] = [
    leave_by_break,
    leave_by_exception,
    leave_by_timeout,
    leave_by_timeout_of_a_step,
    leave_by_cancellation,
    leave_by_dropping,
    leave_in_a_circle,
    leave_by_aclose,
    leave_without_beginning,
]


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_nothing_is_left(
    server: Server, kind: str, leave: Callable[[Any], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    fill(server.admin)
    counts = []
    for _ in range(4):
        with no_complaints(caplog):
            await leave(LOOPS[kind](server.url))
            await assert_nothing_left(server.admin)
        counts.append(our_objects())
    assert counts[1] == counts[2] == counts[3]


# Cancellation at every await


@pytest.mark.parametrize("kind", LOOPS)
async def test_cancelled_after_any_number_of_turns(
    server: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(server.admin, 20)

    async def loop() -> int:
        return len([thing async for thing in _first(LOOPS[kind](server.url), 150)])

    await _cancelled_at_every_turn(server, loop, caplog)


async def test_tls_cancelled_after_any_number_of_turns(
    tls_server: TLSServer, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tls_server.admin, 5)

    async def loop() -> int:
        stream = oneatatime.stream(f"{tls_server.url}?ssl_ca_certs={tls_server.ca_certs}")
        return len([thing async for thing in stream])

    await _cancelled_at_every_turn(tls_server, loop, caplog, growth=1.1)


async def _first(things: Any, most: int) -> AsyncIterator[Any]:
    count = 0
    async for thing in things:
        yield thing
        count += 1
        if count >= most:
            return


async def _cancelled_at_every_turn(
    server: Server, loop: Callable[[], Any], caplog: pytest.LogCaptureFixture, growth: float = 1.0
) -> None:
    turns, came_to_an_end = 0, 0
    with no_complaints(caplog):
        while came_to_an_end < 3:
            task = asyncio.ensure_future(loop())
            for _ in range(turns):
                await asyncio.sleep(0)
            came_to_an_end += task.done()
            task.cancel()
            await asyncio.wait([task])
            del task  # which keeps its exception, and that the frames it went through
            await assert_nothing_left(server.admin)
            turns = max(turns + 1, int(turns * growth))
    assert turns > 20


@pytest.mark.parametrize("kind", ["pairs", "given", "pulled"])
async def test_closed_after_any_number_of_turns(
    server: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`aclose` ends a loop that waits in another task: that one is told, and does not wait for ever."""
    fill(server.admin, 20)

    async def loop(things: Any) -> None:
        async for _ in _first(things, 100):
            await asyncio.sleep(0)

    turns, came_to_an_end = 0, 0
    with no_complaints(caplog):
        while came_to_an_end < 3:
            things = LOOPS[kind](server.url)
            task = asyncio.ensure_future(loop(things))
            for _ in range(turns):
                await asyncio.sleep(0)
            came_to_an_end += task.done()
            await things.aclose()
            with contextlib.suppress(StreamClosed):
                await asyncio.wait_for(task, 5)
            await assert_nothing_left(server.admin)
            turns += 1


@pytest.mark.parametrize("kind", LOOPS)
def test_the_loop_ends_after_any_number_of_turns(
    server: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio.run cancels every task at once: the loop's, and ours."""
    fill(server.admin, 20)

    async def main(turns: int) -> bool:
        async def loop() -> None:
            async for _ in _first(things, 150):
                pass

        things = LOOPS[kind](server.url)
        task = asyncio.ensure_future(loop())
        for _ in range(turns):
            await asyncio.sleep(0)
        return task.done()

    turns = 0
    with no_complaints(caplog):
        while not asyncio.run(main(turns)):
            turns += 1 + turns // 10
            gc.collect(0)
        assert_no_connections(server.admin)


# What is left of a stream that ended early


async def test_a_second_loop_goes_on_where_the_first_stopped(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=SMALL)
    seen = []
    for _ in range(1000):
        async for key, _value in stream:
            seen.append(key)
            break
    assert sorted(seen) == sorted(server.admin.keys())
    assert stream.statistics().complete


async def test_a_timeout_of_a_step_loses_no_item(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=SMALL)
    seen = []
    with contextlib.suppress(StopAsyncIteration):
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                seen.append((await asyncio.wait_for(anext(stream), 0.0002))[0])
    assert sorted(seen) == sorted(server.admin.keys())


@pytest.mark.parametrize("kind", ["pairs", "given", "pulled"])
async def test_after_aclose_the_stream_says_so(server: Server, kind: str, no_leaks: None) -> None:
    fill(server.admin)
    things = LOOPS[kind](server.url)
    await anext(things)
    await things.aclose()
    for _ in range(3):
        with pytest.raises(StreamClosed, match="closed"):
            await anext(things)


async def test_never_begun_and_closed(server: Server, no_leaks: None) -> None:
    stream = oneatatime.stream(server.url)
    stream.close()
    with pytest.raises(StreamClosed):
        await anext(stream)
    async with oneatatime.stream(server.url) as stream:
        pass
    with pytest.raises(StreamClosed):
        await anext(stream)
    with pytest.raises(StreamClosed):
        next(iter(stream))
    assert not stream.statistics().complete


async def test_closed_in_the_last_batch_is_not_complete(server: Server, no_leaks: None) -> None:
    fill(server.admin, 2)
    stream = oneatatime.stream(server.url)
    await anext(stream)
    await asyncio.sleep(0.05)
    await stream.aclose()
    assert not stream.statistics().complete
    with pytest.raises(StreamClosed):
        await anext(stream)


async def test_a_complete_stream_stays_complete(server: Server, no_leaks: None) -> None:
    fill(server.admin, 2)
    async with oneatatime.stream(server.url) as stream:
        assert len([item async for item in stream]) == 6
    assert stream.statistics().complete
    assert [item async for item in stream] == []


async def test_async_with_closes_while_the_body_fails(server: Server) -> None:
    fill(server.admin)
    with pytest.raises(Boom):
        async with oneatatime.stream(server.url, options=SMALL) as stream:
            async for _ in stream:
                raise Boom
    assert asyncio.all_tasks() == {asyncio.current_task()}  # at once: `aclose` waits for that
    assert_no_connections(server.admin)


async def test_a_source_of_keys_is_closed_with_the_loop(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    ended = []

    async def keys() -> AsyncIterator[bytes]:
        try:
            for key in KEYS * 100:
                yield key
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    things = oneatatime.OneAtATime(server.url, keys(), options=SMALL)
    await anext(aiter(things))
    await things.aclose()
    assert ended == [True]
    things = oneatatime.OneAtATime(server.url, keys(), options=SMALL)
    await anext(aiter(things))
    del things
    await assert_nothing_left(server.admin)
    assert ended == [True, True]


# Parts


@pytest.mark.parametrize("kind", ["string", "hash", "list", "set", "zset", "stream"])
@pytest.mark.parametrize("leave", WAYS[:7], ids=lambda way: way.__name__)
async def test_parts_left_half_way(
    server: Server, kind: str, leave: Callable[[Any], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    _big(server, kind)
    counts = []
    for _ in range(3):
        with no_complaints(caplog):
            async for _key, value in oneatatime.stream(
                server.url, options=Options(parts_over=1000, chunk=500)
            ):
                assert isinstance(value, Parts)
                await leave(value)
                await leave(value.chunks())
            del value
            await assert_nothing_left(server.admin)
        counts.append(our_objects())
    assert counts[1] == counts[2]


def _big(server: Server, kind: str) -> None:
    members = [f"member {n}" for n in range(2000)]
    admin: Any = server.admin
    if kind == "string":
        admin.set("big", b"x" * 100_000)
    elif kind == "hash":
        admin.hset("big", mapping=dict.fromkeys(members, "x"))
    elif kind == "list":
        admin.rpush("big", *members)
    elif kind == "set":
        admin.sadd("big", *members)
    elif kind == "zset":
        admin.zadd("big", dict.fromkeys(members, 1))
    else:
        pipeline = admin.pipeline(transaction=False)
        for member in members:
            pipeline.xadd("big", {"name": member})
        pipeline.execute()


# While connections come about


@pytest.mark.parametrize("leave", [leave_by_timeout, leave_by_cancellation], ids=lambda way: way.__name__)
async def test_left_while_the_server_does_not_answer(
    server: Server, leave: Callable[[Any], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    for passing in (0, 1, 100, 600):
        async with FaultProxy(server.url, Plan(to_client=Fault(stall=passing))) as proxy:
            with no_complaints(caplog):
                await leave(oneatatime.stream(proxy.url))
                await asyncio.sleep(0.01)
                assert asyncio.all_tasks() == {asyncio.current_task()}
    await assert_nothing_left(server.admin)
