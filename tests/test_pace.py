"""Limits on keys, bytes and server time: kept, by what the server and the loop saw."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

import oneatatime
from oneatatime._pace import Limit

from .servers import Server

_SECONDS = 2.0
_NEAR = 0.1  # of a limit; `make bench-pace` holds the 5 % over ten seconds


async def _count(items: AsyncIterator[Any], seconds: float = _SECONDS) -> float:
    """Items a second, after half a second."""
    start = time.perf_counter()
    counted, began = 0, 0.0
    async for _ in items:
        now = time.perf_counter()
        if not began:
            if now - start > 0.5:
                began = now
            continue
        counted += 1
        if now - began > seconds:
            return counted / (now - began)
    raise AssertionError("there were not enough keys")


def _fill(server: Server, keys: int) -> None:
    for start in range(0, keys, 10_000):
        server.admin.mset({f"string:{n}": b"x" * 100 for n in range(start, start + 10_000)})


def _cpu(server: Server) -> float:
    fields = server.admin.info("cpu")
    return float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"])


@pytest.mark.parametrize("rate", [500, 20_000])
async def test_keys_a_second(server: Server, rate: float) -> None:
    _fill(server, 100_000)
    stream = oneatatime.stream(server.url, rate=rate)
    assert await _count(stream) == pytest.approx(rate, rel=_NEAR)
    await stream.aclose()


async def test_names_and_given_keys_have_a_rate_too(server: Server) -> None:
    _fill(server, 40_000)
    stream = oneatatime.stream(server.url, rate=10_000)
    assert await _count(stream.keys()) == pytest.approx(10_000, rel=_NEAR)
    await stream.aclose()
    given = (f"string:{n}" for n in range(40_000))
    values = oneatatime.OneAtATime(server.url, given, rate=10_000)
    assert await _count(values) == pytest.approx(10_000, rel=_NEAR)
    await values.aclose()


async def test_a_low_rate_gives_a_few_keys_at_a_time(server: Server) -> None:
    _fill(server, 10_000)
    stream = oneatatime.stream(server.url, rate=20)
    start = time.perf_counter()
    came = []
    async for _ in stream:
        came.append(time.perf_counter() - start)
        if came[-1] > 1.5:
            break
    await stream.aclose()
    assert 15 <= len(came) <= 60
    assert all(after - before < 0.8 for before, after in itertools.pairwise(came)), came


async def test_bytes_a_second(server: Server) -> None:
    _fill(server, 100_000)
    stream = oneatatime.stream(server.url, bandwidth=1_000_000)
    start, before = time.perf_counter(), 0
    began = 0.0
    async for _ in stream:
        now = time.perf_counter()
        if not began and now - start > 0.5:
            began, before = now, stream.statistics().bytes
        if began and now - began > _SECONDS:
            break
    rate = (stream.statistics().bytes - before) / (time.perf_counter() - began)
    await stream.aclose()
    assert rate == pytest.approx(1_000_000, rel=0.15)


async def test_a_big_value_in_parts_is_held_back_too(server: Server) -> None:
    server.admin.setrange("big", 20 * 2**20, b"x")
    async for _, value in oneatatime.stream(server.url, bandwidth=4_000_000):
        start, size = time.perf_counter(), 0
        async for chunk in value:
            size += len(chunk)
            if time.perf_counter() - start > _SECONDS:
                break
        assert size / (time.perf_counter() - start) == pytest.approx(4_000_000, rel=0.2)


async def test_a_share_of_the_servers_time(server: Server) -> None:
    _fill(server, 100_000)
    idle, start = _cpu(server), time.perf_counter()
    await asyncio.sleep(1)
    idle = (_cpu(server) - idle) / (time.perf_counter() - start)
    end, began, clock = time.perf_counter() + _SECONDS + 0.7, 0.0, 0.0
    while time.perf_counter() < end:
        async with oneatatime.stream(server.url, max_load=0.1) as stream:
            async for _ in stream:
                now = time.perf_counter()
                if not began and now > end - _SECONDS:
                    began, clock = now, _cpu(server)
                if now > end:
                    break
    load = (_cpu(server) - clock) / (time.perf_counter() - began) - idle
    assert load == pytest.approx(0.1, rel=0.2)


async def test_a_sleeping_loop_is_not_made_good_in_a_burst(server: Server) -> None:
    _fill(server, 40_000)
    stream = oneatatime.stream(server.url, rate=5_000, options=oneatatime.Options(ahead=64 * 1024))
    async for _ in stream:
        break
    await asyncio.sleep(1.5)  # 7,500 keys' worth
    start, keys = time.perf_counter(), 0
    async for _ in stream:
        keys += 1
        if time.perf_counter() - start > 0.5:
            break
    await stream.aclose()
    assert keys < 5_000 * 0.5 + 2_000  # what was read ahead, and a tenth of a second made good


async def test_a_stream_that_waits_its_turn_ends_at_once(server: Server) -> None:
    _fill(server, 10_000)
    stream = oneatatime.stream(server.url, rate=0.5)
    async for _ in stream:
        break
    start = time.perf_counter()
    await stream.aclose()
    assert time.perf_counter() - start < 0.5
    assert len(asyncio.all_tasks()) == 1


async def test_no_load_without_the_servers_clock(server: Server) -> None:
    server.admin.execute_command("ACL", "SETUSER", "noinfo", "on", ">pw", "~*", "+@all", "-info")
    _fill(server, 10_000)
    with pytest.raises(oneatatime.PermissionDenied, match=r"max_load needs .* \+info"):
        async for _ in oneatatime.stream(server.url.replace("://", "://noinfo:pw@"), max_load=0.5):
            pass


@pytest.mark.parametrize(
    "limit",
    [
        {"rate": 0},
        {"rate": -1},
        {"bandwidth": "1MB"},
        {"max_load": 1.5},
        {"rate": True},
        {"rate": float("inf")},
    ],
)
def test_a_limit_that_makes_no_sense(limit: dict[str, Any]) -> None:
    with pytest.raises(oneatatime.InvalidInput, match=next(iter(limit))):
        oneatatime.stream("redis://localhost", **limit)


def test_what_is_expected_counts_until_it_has_come() -> None:
    used = 0.0
    limit = Limit(100, lambda: used)
    now = time.perf_counter()
    limit.expected += 50
    assert limit.due(now) == pytest.approx(now + 0.5, abs=0.05)
    used, limit.expected = 10.0, 0.0
    assert limit.due(now) == pytest.approx(now + 0.1, abs=0.05)


def test_time_not_used_is_forgotten_but_for_a_tenth_of_a_second() -> None:
    limit = Limit(100, lambda: 0.0)
    now = time.perf_counter()
    assert limit.due(now + 60) == pytest.approx(now + 59.9, abs=0.05)
