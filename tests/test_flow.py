"""Memory in bytes, on both sides: what is read and not taken, and what the server keeps for us."""

from __future__ import annotations

import asyncio
import re
import time
import tracemalloc
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import Options, StreamClosed
from oneatatime._flow import Flow
from oneatatime._record import Batch
from oneatatime.server import EmbeddedServer
from tests.leaks import connections
from tests.servers import Server

KiB = 1024
MiB = 1024 * 1024


def batch(size: int) -> Batch:
    return Batch([b"key"], "string", [b"value"], size)


OVERHEAD = batch(0).weight


# The flow by itself


async def test_a_worker_waits_when_too_much_is_ahead() -> None:
    flow = Flow(100 + OVERHEAD)
    put: list[int] = []

    async def work() -> None:
        for size in (60, 60, 10, 200, 10):
            await flow.put(batch(size))
            put.append(size)
        flow.finish()

    worker = asyncio.ensure_future(work())
    await asyncio.sleep(0.01)
    assert put == [60]  # the second is there, and its worker waits
    taken = []
    while (got := await flow.take()) is not None:
        taken.append(got.size)
        await asyncio.sleep(0.001)
        ahead = sum((60, 60, 10, 200, 10)[len(taken) : len(put)])
        assert ahead <= 100 + OVERHEAD
    assert taken == [60, 60, 10, 200, 10]
    await worker


async def test_one_batch_bigger_than_all_that_may_be_ahead() -> None:
    flow = Flow(100)
    worker = asyncio.ensure_future(flow.put(batch(10_000)))
    await asyncio.sleep(0)
    assert not worker.done()
    assert (await flow.take()).size == 10_000  # type: ignore[union-attr]
    await worker


async def test_an_empty_batch_is_none() -> None:
    flow = Flow(100)
    await flow.put(Batch([], "string", [], 50))
    flow.finish()
    assert await flow.take() is None
    assert flow.complete


async def test_an_error_comes_after_the_batches_and_stays() -> None:
    flow = Flow(1000)
    await flow.put(batch(1))
    flow.fail(ValueError("first"))
    flow.fail(ValueError("second"))
    assert await flow.take() is not None
    for _ in range(3):
        with pytest.raises(ValueError, match="first"):
            await flow.take()
    assert not flow.complete


async def test_a_closed_flow_holds_nothing() -> None:
    flow = Flow(1000)
    await flow.put(batch(1))
    taker = asyncio.ensure_future(_two(flow))
    await asyncio.sleep(0)
    flow.close()
    with pytest.raises(StreamClosed):
        await taker
    with pytest.raises(StreamClosed):
        await flow.take()


async def _two(flow: Flow) -> None:
    await flow.take()
    await flow.take()


# Against a server


def fill(server: Server, keys: int, size: int) -> None:
    text = b"x" * size
    for start in range(0, keys, 1000):
        pipeline: Any = server.admin.pipeline(transaction=False)
        for n in range(start, min(keys, start + 1000)):
            pipeline.set(b"key:%d" % n, text)
        pipeline.execute()


def output_memory(server: Server) -> int:
    """Bytes of replies that the server holds for us."""
    return sum(int(re.search(r" omem=(\d+)", line)[1]) for line in connections(server.admin))  # type: ignore[index]


@pytest.mark.parametrize("ahead", [64 * KiB, 1 * MiB])
@pytest.mark.parametrize("size", [100, 5000, 200_000])
async def test_a_loop_that_sleeps(server: Server, ahead: int, size: int, no_leaks: None) -> None:
    """What is read while nobody takes it is bounded, and nothing waits in the server."""
    total = 24 * MiB
    keys = min(30_000, total // size)
    fill(server, keys, size)
    stream = oneatatime.stream(server.url, options=Options(ahead=ahead, burst=256 * KiB))
    await anext(stream)
    for _ in range(10):
        await asyncio.sleep(0.02)
        assert output_memory(server) <= 1 * MiB
    received = stream.statistics().bytes
    # ahead, and of each worker: the burst at work, the page that goes out, and one that came with it
    assert received <= ahead + 2 * 3 * 256 * KiB + 2 * 500 * size * (size < 1000) + 4 * size
    time.sleep(0.1)  # the same while the whole program stands still
    assert output_memory(server) <= 16 * MiB
    assert len([item async for item in stream]) == keys - 1
    assert stream.statistics().complete


@pytest.mark.parametrize("how", ["items", "keys", "count=10", "text"])
async def test_a_loop_that_sleeps_over_tiny_values(server: Server, how: str, no_leaks: None) -> None:
    """Keys weigh too, and what Python needs for each: bytes of values alone would let all of them in."""
    server.admin.execute_command("DEBUG", "POPULATE", 200_000, "k", 3)
    stream = oneatatime.stream(
        server.url, count=10 if how == "count=10" else None, encoding="utf-8" if how == "text" else None
    )
    async for _ in stream.keys() if how == "keys" else stream:
        await asyncio.sleep(0.4)
        break
    done = stream.statistics()
    assert done.keys == 1
    assert done.fraction < 0.5, done
    await stream.aclose()


async def test_memory_does_not_grow_with_the_database(server: Server, no_leaks: None) -> None:
    peaks = []
    for keys in (10_000, 60_000):
        fill(server, keys, 300)
        async for _ in oneatatime.stream(server.url, options=Options(count=100)):
            break
        tracemalloc.start()
        try:
            async for _ in oneatatime.stream(server.url, options=Options(ahead=256 * KiB)):
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1 * MiB and peaks[1] < 8 * MiB, peaks


async def test_a_string_that_is_too_big_is_no_surprise(server: Server, no_leaks: None) -> None:
    """A long string under a name that promises a short one is refused on its way, and read in parts."""
    fill(server, 2000, 10)
    server.admin.set("key:0", b"y" * 40 * MiB)
    tracemalloc.start()
    try:
        size = 0
        async for _, value in oneatatime.stream(server.url, count=100):
            if isinstance(value, oneatatime.Parts):
                async for part in value:
                    size += len(part)
            else:
                assert value == b"x" * 10
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 40 * MiB
    assert peak < 24 * MiB


@pytest.mark.parametrize(("size", "headroom"), [(200, 3 * MiB), (5000, 3 * MiB), (100_000, 3 * MiB)])
async def test_nothing_is_evicted_because_of_us(size: int, headroom: int, no_leaks: None) -> None:
    """Unread replies are used memory of the server: with maxmemory reached they would cost keys."""
    arguments = ["--maxmemory-policy", "allkeys-lru", "--save", ""]
    with EmbeddedServer(arguments=arguments) as embedded:
        admin: Any = redis.Redis(unix_socket_path=embedded.path, protocol=2)
        keys = 20 * MiB // size
        for start in range(0, keys, 1000):
            admin.mset({f"key:{n}": b"x" * size for n in range(start, min(keys, start + 1000))})
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] + headroom)
        before = admin.info("stats")["evicted_keys"]
        seen = 0
        async for _ in oneatatime.stream(embedded.url):
            seen += 1
            if seen in (10, keys // 2):
                await asyncio.sleep(0.1)
        assert seen == keys
        assert admin.info("stats")["evicted_keys"] == before == 0
        admin.close()
