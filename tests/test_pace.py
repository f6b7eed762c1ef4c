"""Limits on keys, bytes and server time: kept, by what the server and the loop saw."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

import oneatatime
from oneatatime import _pace
from oneatatime._pace import Limit, Load, Look, Pace
from oneatatime._request import Dropped
from oneatatime._wire import Traffic

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


async def test_every_chunk_of_a_big_value_takes_its_turn(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.admin.setrange("big", 4 * 2**20, b"x")
    turns: list[float] = []
    take_turn = Pace.turn

    async def turn(self: Pace, connection: Any, load: Any, *, work: float = 0.0, **burst: Any) -> Any:
        if not burst:  # those of the pages that are still being looked for say how many keys they read
            turns.append(work)
        return await take_turn(self, connection, load, work=work, **burst)

    async for _, value in oneatatime.stream(server.url):
        monkeypatch.setattr(Pace, "turn", turn)
        chunks = [chunk async for chunk in value]
        monkeypatch.undo()
    assert len(turns) == server.admin.info("commandstats")["cmdstat_getrange"]["calls"] - 1
    assert len(turns) >= len(chunks)


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


# A share of the server's time, on a clock that only this test moves


class _Simulated:
    """A server that takes `others` of its time for others, and for us what it is given to do.

    Others send `commands` for each second of its time, and `patient` ones only while it does not work for us.
    """

    round_trip = 0.0002

    def __init__(self, others: Callable[[float], float], commands: int, patient: bool) -> None:
        self.now, self.cpu, self.ours, self.longest, self.commands = 1000.0, 0.0, 0.0, 0.0, 0.0
        self._others, self._commands, self._patient = others, commands, patient

    def perf_counter(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        self._pass(seconds)

    async def look(self, *_: Any) -> Look:
        self.ours += 0.00006
        self.cpu += 0.00006
        return Look(self.now, self.cpu, int(self.commands))

    def work(self, seconds: float, elapsed: float) -> None:
        self.ours += seconds
        self.cpu += seconds
        self._pass(elapsed, wait=self._patient)

    def _pass(self, seconds: float, wait: bool = False) -> None:
        end = self.now + seconds
        while self.now < end:
            step = min(0.001, end - self.now)
            others = 0.0 if wait else self._others(self.now) * step
            self.cpu += others
            self.commands += others * self._commands
            self.now += step


async def _share(
    monkeypatch: pytest.MonkeyPatch,
    asked: float,
    *,
    others: Callable[[float], float] = lambda now: 0.0,
    model: float = 0.0005,
    elapsed: float = 0.0006,
    seconds: float = 10.0,
    commands: int = 0,
    patient: bool = False,
) -> tuple[float, _Simulated]:
    """The share that bursts of half a millisecond got, by a model that takes them for `model` seconds."""
    random.seed(1)  # rests are uneven
    server = _Simulated(others, commands, patient)
    monkeypatch.setattr(_pace, "time", server)
    monkeypatch.setattr(_pace, "asyncio", SimpleNamespace(sleep=server.sleep))
    monkeypatch.setattr(_pace, "_look", server.look)
    load = Load(asked, Traffic())
    began = ours = 0.0
    while not began or server.now < began + seconds:
        if not began and server.now > 1001:
            began, ours = server.now, server.ours
        await load.ready(server)  # type: ignore[arg-type]
        load.expect(model)
        server.work(0.0005, elapsed)
    return (server.ours - ours) / (server.now - began), server


@pytest.mark.parametrize("asked", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("model", [0.0001, 0.0005, 0.0025])
async def test_a_share_is_kept_whatever_the_model_says(
    monkeypatch: pytest.MonkeyPatch, asked: float, model: float
) -> None:
    share, _ = await _share(monkeypatch, asked, model=model)
    assert share == pytest.approx(asked, rel=0.03)


@pytest.mark.parametrize("asked", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("commands", [0, 30_000])
async def test_what_others_take_does_not_count(
    monkeypatch: pytest.MonkeyPatch, asked: float, commands: int
) -> None:
    share, _ = await _share(monkeypatch, asked, others=lambda now: 0.3, commands=commands)
    assert share == pytest.approx(asked, rel=0.03)


@pytest.mark.parametrize("asked", [0.1, 0.4])
async def test_others_that_wait_for_us_leave_us_no_more(
    monkeypatch: pytest.MonkeyPatch, asked: float
) -> None:
    share, _ = await _share(monkeypatch, asked, others=lambda now: 0.3, commands=30_000, patient=True)
    assert share == pytest.approx(asked, rel=0.04)


@pytest.mark.parametrize("every", [0.01, 1.0, 3.0])
@pytest.mark.parametrize("commands", [0, 30_000])
async def test_others_that_come_and_go_do_not_count(
    monkeypatch: pytest.MonkeyPatch, every: float, commands: int
) -> None:
    come_and_go: Callable[[float], float] = lambda now: 0.5 if int(now / every) % 2 else 0.0  # noqa: E731
    share, server = await _share(monkeypatch, 0.2, others=come_and_go, commands=commands, seconds=12)
    assert share == pytest.approx(0.2, rel=0.05)
    assert server.longest < 0.4  # nor do they make it pause


async def test_a_rest_that_is_broken_off_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Simulated(lambda now: 0.0, 0, False)
    monkeypatch.setattr(_pace, "time", server)
    monkeypatch.setattr(_pace, "asyncio", SimpleNamespace(sleep=server.sleep))
    monkeypatch.setattr(_pace, "_look", server.look)
    load = Load(0.1, Traffic())
    await load.ready(server)  # type: ignore[arg-type]
    asked, sleeps = load.limit.due(server.now), itertools.count()

    async def broken_off(seconds: float) -> None:
        if next(sleeps) % 2:  # the first of a rest lets the server settle
            raise Dropped
        await server.sleep(seconds)

    monkeypatch.setattr(_pace, "asyncio", SimpleNamespace(sleep=broken_off))
    load.expect(0.02)
    server.work(0.02, 0.02)
    for _ in range(5):
        await load.ready(server)  # type: ignore[arg-type]
        assert not load.resting
    assert load.limit.due(server.now) - asked == pytest.approx(0.2, abs=0.02)


async def test_a_rest_that_is_broken_off_lets_nothing_out_early(monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Simulated(lambda now: 0.0, 0, False)
    monkeypatch.setattr(_pace, "time", server)
    monkeypatch.setattr(_pace, "asyncio", SimpleNamespace(sleep=server.sleep))
    monkeypatch.setattr(_pace, "_look", server.look)
    load = Load(0.1, Traffic())
    await load.ready(server)  # type: ignore[arg-type]

    async def dropped(*_: Any) -> Look:
        raise Dropped

    monkeypatch.setattr(_pace, "_look", dropped)
    load.expect(0.02)
    server.work(0.02, 0.02)
    await load.ready(server)  # type: ignore[arg-type]
    assert load.limit.due(server.now) <= server.now


async def test_one_long_command_of_another_is_no_reason_for_a_long_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, server = await _share(monkeypatch, 0.1, others=lambda now: 1.0 if 1005 < now < 1007 else 0.0)
    assert server.longest < 1


async def test_others_that_end_leave_no_more_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that could not be reached beside them is one that must be kept without them."""
    share, _ = await _share(
        monkeypatch, 0.5, others=lambda now: 0.6 if now < 1003 else 0.0, elapsed=0.0007, seconds=20
    )
    assert share == pytest.approx(0.5, rel=0.05)


async def test_who_stays_below_the_share_is_hardly_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    share, server = await _share(monkeypatch, 0.6, elapsed=0.001)
    assert 0.48 < share < 0.51
    assert server.longest < 0.05
