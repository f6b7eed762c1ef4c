"""A server that gets slower is asked for less, and for more again when it recovers."""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime._guard import Guard

from .servers import Server


def test_steady_answers_change_nothing() -> None:
    guard = Guard()
    for _ in range(1000):
        guard.saw(0.002, 0.002, 0.0002)
    assert (guard.ease, guard.pause) == (1.0, 0.0)


def test_the_jitter_of_a_long_way_changes_nothing() -> None:
    guard, chance = Guard(), random.Random(1)
    for _ in range(1000):
        guard.saw(0.02 + chance.uniform(0, 0.02), 0.004, 0.02)
        assert guard.ease == 1.0


def test_late_answers_narrow_and_timely_ones_widen() -> None:
    guard = Guard()
    for _ in range(100):
        guard.saw(0.05, 0.002, 0.0002)
    assert guard.ease == 1 / 16
    assert 0.04 < guard.pause <= 0.05
    for _ in range(16):
        guard.saw(0.001, 0.002, 0.0002)
    assert (guard.ease, guard.pause) == (1.0, 0.0)


def test_a_pause_has_an_end() -> None:
    guard = Guard()
    for _ in range(100):
        guard.saw(30.0, 0.002, 0.0002)
    assert guard.pause == 0.25


def _mgets(admin: redis.Redis) -> int:
    """How many times values were asked for, since the counts were set back."""
    return int(admin.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])


async def test_a_slow_server_is_asked_for_less_until_it_recovers(server: Server) -> None:
    admin = server.admin
    admin.execute_command("DEBUG", "POPULATE", 2_000_000, "string", 100)  # one stream is to last through it
    slow = threading.Event()

    def make_slow() -> None:
        with redis.Redis.from_url(server.url) as sleeper:
            while slow.is_set():
                sleeper.execute_command("DEBUG", "SLEEP", 0.05)

    async def pages(seconds: float) -> float:
        """Keys a page, by the server's own count of commands."""
        keys, end = 0, time.perf_counter() + seconds
        admin.config_resetstat()
        while time.perf_counter() < end:
            async for _ in stream():
                keys += 1
                if time.perf_counter() > end:
                    break
        return keys / max(_mgets(admin), 1)

    current: list[oneatatime.Stream] = []

    def stream() -> oneatatime.Stream:  # the same one, as long as it lasts: it is what has learned
        if not current or current[0].statistics().complete:
            current[:] = [oneatatime.stream(server.url)]
        return current[0]

    full = await pages(0.2)  # and the stream goes on in the next stretch
    slow.set()
    threads = [threading.Thread(target=make_slow) for _ in range(2)]  # two, so that there is no gap
    for thread in threads:
        thread.start()
    try:
        # beside other work on the machine it may take a while, and a lull in it looks like a recovery
        narrow = min([await pages(1.5) for _ in range(3)])
    finally:
        slow.clear()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    await pages(0.5)
    again = await pages(0.5)
    await current[0].aclose()
    assert narrow < full / 3, (full, narrow, again)
    assert again > full / 2, (full, narrow, again)


async def test_a_server_that_is_slow_from_the_beginning_is_asked_for_less(server: Server) -> None:
    server.admin.execute_command("DEBUG", "POPULATE", 2_000_000, "string", 100)
    if "instantaneous_eventloop_duration_usec" not in server.admin.info("stats"):
        pytest.skip("this server does not tell")
    slow = threading.Event()
    slow.set()

    def make_slow() -> None:
        with redis.Redis.from_url(server.url) as sleeper:
            while slow.is_set():
                sleeper.execute_command("DEBUG", "SLEEP", 0.05)

    threads = [threading.Thread(target=make_slow) for _ in range(2)]  # two, so that there is no gap
    for thread in threads:
        thread.start()
    stream = oneatatime.stream(server.url)
    try:
        await asyncio.sleep(2.0)
        await _read_for(stream, 8.0, lambda stream: _ease(stream) <= 1 / 4)
        slowed = _ease(stream)
    finally:
        slow.clear()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    await _read_for(stream, 3.0, lambda stream: _ease(stream) == 1.0)
    again = _ease(stream)
    await stream.aclose()
    assert slowed <= 1 / 4
    assert again == 1.0


async def _read_for(
    stream: oneatatime.Stream, seconds: float, enough: Callable[[oneatatime.Stream], bool]
) -> None:
    end = time.perf_counter() + seconds
    async for _ in stream:
        if time.perf_counter() > end or enough(stream):
            break


async def test_a_loop_that_takes_its_time_is_not_a_slow_server(server: Server) -> None:
    server.admin.execute_command("DEBUG", "POPULATE", 30_000)
    stream = oneatatime.stream(server.url, options=oneatatime.Options(ahead=64 * 1024))
    eases = []
    keys = 0
    async for _ in stream:
        (node,) = stream._reading.work.nodes.values()
        guard = node.guard
        keys += 1
        eases.append(guard.ease)
        if keys % 3000 == 0:
            time.sleep(0.05)
            await asyncio.sleep(0.05)
    assert keys == 30_000
    assert statistics.median(eases) == 1.0  # other load on this machine may well make the server slow


def _ease(stream: Any) -> float:
    """Of the one server that it reads."""
    (node,) = stream._reading.work.nodes.values()
    return float(node.guard.ease)
