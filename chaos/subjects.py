"""The readers, each in a process of its own, told to go through everything again and again.

A reader is a coroutine that adds each key it is given to a list. A new one is an entry of READERS.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import multiprocessing
import random
import resource
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.clusters import Line
from tests.nodes import Wire

_DEADLINE = 150.0  # seconds: an iteration that takes longer is stuck
_EVERY = 100  # keys between two rests
_NOT_STARTED = (
    "Unreachable",
    "ConnectionLost",
    "ReplyTimeout",
    "ServerLoading",
)  # where nothing was read yet


@dataclass(frozen=True)
class Order:
    """One iteration to be made: `rest` is how long to sleep after each 100 keys."""

    url: str
    rest: float
    patience: float = 30.0


@dataclass
class Report:
    """What came of it. `error` is empty when the reader said that it was complete.

    `kind` of an error: "incomplete" names what is `missing`; "not started" has read nothing; "error" is any
    other, "stuck" one that never ended.
    """

    keys: list[bytes] = field(default_factory=list)
    kind: str = "complete"
    error: str = ""
    missing: list[str] = field(default_factory=list)
    garbled: int = 0
    rss: int = 0


@dataclass(frozen=True)
class Reader:
    """`read(order, report)` adds what it is given to the report. `ours`: held to the promise."""

    read: Callable[[Order, Report], Awaitable[None]]
    topologies: tuple[str, ...]
    module: str
    ours: bool = False
    unique: bool = False
    repeats: bool = False  # by its nature: how much again does not count


class _Pace:
    """Rests now and then, so that events fall into the middle of iterations."""

    def __init__(self, rest: float) -> None:
        self._rest, self._count = rest, 0

    async def step(self, keys: int = 1) -> None:
        before, self._count = self._count // _EVERY, self._count + keys
        if self._count // _EVERY > before:
            await asyncio.sleep(self._rest)

    def step_now(self, keys: int = 1) -> None:
        before, self._count = self._count // _EVERY, self._count + keys
        if self._count // _EVERY > before:
            time.sleep(self._rest)


# Ours


def _options(order: Order) -> Any:
    import oneatatime

    # Little is read ahead, or a slow loop body would not slow the reading down.
    return oneatatime.Options(count=100, ahead=16 * 1024, timeout=5.0, patience=order.patience)


def _take(report: Report, key: bytes, value: Any) -> None:
    report.keys.append(key)
    report.garbled += value != key


async def ours(order: Order, report: Report) -> None:
    await _ours(order, report, unique=False)


async def ours_unique(order: Order, report: Report) -> None:
    await _ours(order, report, unique=True)


async def _ours(order: Order, report: Report, *, unique: bool) -> None:
    import oneatatime

    pace = _Pace(order.rest)
    async for key, value in oneatatime.stream(order.url, unique=unique, options=_options(order)):
        _take(report, key, value)
        await pace.step()


async def ours_resumed(order: Order, report: Report) -> None:
    """Stops after some keys and goes on from its checkpoint with a new stream, four times."""
    import oneatatime

    pace = _Pace(order.rest)
    checkpoint: Any = None
    for stop in (True, True, True, True, False):
        stream = oneatatime.stream(order.url, resume=checkpoint, options=_options(order))
        left = random.randint(1, 9000) if stop else -1
        async with stream:
            async for key, value in stream:
                _take(report, key, value)
                await pace.step()
                left -= 1
                if not left:
                    break
            else:
                return
            checkpoint = json.loads(json.dumps(stream.checkpoint()))


async def ours_in_partitions(order: Order, report: Report) -> None:
    import oneatatime

    async def one(partition: Any) -> None:
        pace = _Pace(order.rest * 3)
        async for key, value in oneatatime.stream(partition, options=_options(order)):
            _take(report, key, value)
            await pace.step()

    partitions = await asyncio.to_thread(oneatatime.plan, order.url, 4)
    outcomes = await asyncio.gather(*map(one, partitions), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in errors:
        report.missing += getattr(error, "missing", ())
        if not isinstance(error, oneatatime.Incomplete):
            raise error
    if errors:
        raise errors[0]


# Others


def _address(url: str) -> tuple[str, str, int]:
    scheme, _, rest = url.partition("://")
    host, _, port = rest.partition("/")[0].partition(",")[0].partition(":")
    return scheme, host, int(port)


async def redis_py(order: Order, report: Report) -> None:
    await asyncio.to_thread(_redis_py, order, report)


def _redis_py(order: Order, report: Report) -> None:
    import redis
    from redis.sentinel import Sentinel

    scheme, host, port = _address(order.url)
    pace = _Pace(order.rest)
    client: Any
    if scheme == "redis+cluster":
        client = redis.RedisCluster(host=host, port=port, socket_timeout=5)
    elif scheme == "redis+sentinel":
        places = [place.split(":") for place in urlsplit(order.url).netloc.split(",")]
        client = Sentinel([(h, int(p)) for h, p in places], socket_timeout=5).master_for("service")
    else:
        client = redis.Redis(host=host, port=port, socket_timeout=5)
    try:
        for key in client.scan_iter(count=100):
            report.keys.append(key)
            pace.step_now()
    finally:
        client.close()


async def glide(order: Order, report: Report) -> None:
    import glide

    scheme, host, port = _address(order.url)
    pace = _Pace(order.rest)
    where = [glide.NodeAddress(host, port)]
    if scheme == "redis+cluster":
        cluster = await glide.GlideClusterClient.create(
            glide.GlideClusterClientConfiguration(where, request_timeout=5000)
        )
        try:
            position = glide.ClusterScanCursor()
            while not position.is_finished():
                position, keys = await cluster.scan(position, count=100)
                report.keys += keys
                await pace.step(len(keys))
        finally:
            await cluster.close()
        return
    client = await glide.GlideClient.create(glide.GlideClientConfiguration(where, request_timeout=5000))
    try:
        cursor: Any = "0"
        while True:
            cursor, keys = await client.scan(cursor, count=100)
            report.keys += keys
            await pace.step(len(keys))
            if int(cursor) == 0:
                return
    finally:
        await client.close()


async def naive(order: Order, report: Report) -> None:
    await asyncio.to_thread(_naive, order, report)


def _naive(order: Order, report: Report) -> None:
    """SCAN on each primary as it is at the beginning; after a lost connection on with the cursor at hand."""
    scheme, _, port = _address(order.url)
    ports = [port]
    pace = _Pace(order.rest)
    if scheme == "redis+cluster":
        said = Wire(port).call("CLUSTER", "NODES").decode().splitlines()
        ports = [line.port for line in map(Line.of, said) if "master" in line.flags and line.slots]
    for one in ports:
        wire, cursor, failures = Wire(one, timeout=5.0), b"0", 0
        while True:
            try:
                cursor, keys = wire.call("SCAN", cursor, "COUNT", 100)
            except OSError:
                failures += 1
                if failures > 100:
                    raise
                time.sleep(0.1)
                continue
            report.keys += keys
            pace.step_now(len(keys))
            if cursor == b"0":
                break
        wire.close()


_ALL = ("cluster", "standalone", "sentinel")
READERS = {
    "oneatatime": Reader(ours, _ALL, "oneatatime", ours=True),
    "oneatatime unique": Reader(ours_unique, _ALL, "oneatatime", ours=True, unique=True),
    "oneatatime resumed": Reader(ours_resumed, _ALL, "oneatatime", ours=True, repeats=True),
    "oneatatime partitions": Reader(ours_in_partitions, _ALL, "oneatatime", ours=True),
    "redis-py scan_iter": Reader(redis_py, _ALL, "redis"),
    "valkey-glide scan": Reader(glide, ("cluster", "standalone"), "glide"),
    "SCAN by hand": Reader(naive, ("cluster", "standalone"), "hiredis"),
}


def absent(name: str) -> str:
    """Why a reader cannot be tried here; empty when it can."""
    reader = READERS[name]
    if importlib.util.find_spec(reader.module) is None:
        return f"{reader.module} is not installed"
    if reader.ours:
        import oneatatime

        if not hasattr(oneatatime, "Incomplete"):
            return "this oneatatime reads one server only"
    return ""


# The process


class Subject:
    """A reader in a process of its own, started anew when it dies or hangs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._spawning = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._ours, theirs = self._spawning.Pipe()
        self._process = self._spawning.Process(target=_serve, args=(self.name, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def iterate(self, order: Order) -> Report:
        """One iteration, however it ends."""
        try:
            self._ours.send(order)
            if self._ours.poll(_DEADLINE + 15):
                report: Report = self._ours.recv()
                return report
            report = Report(kind="stuck", error="no answer, not even to being cancelled")
        except (EOFError, OSError) as error:
            report = Report(kind="error", error=f"its process ended: {error!r}")
        self.close()
        self._start()
        return report

    def close(self) -> None:
        self._ours.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(name: str, connection: Any) -> None:
    while True:
        try:
            order = connection.recv()
        except EOFError:
            return
        connection.send(_one(READERS[name], order))


def _one(reader: Reader, order: Order) -> Report:
    report = Report()
    try:
        asyncio.run(_within(reader.read(order, report), _DEADLINE))
    except asyncio.TimeoutError:
        report.kind, report.error = "stuck", f"not at its end after {_DEADLINE:g} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the reader told its user
        report.missing += [
            str(one) for one in getattr(error, "missing", ()) if str(one) not in report.missing
        ]
        named = any(kind.__name__ == "Incomplete" for kind in type(error).__mro__)
        report.kind = "incomplete" if named else "error"
        if not report.keys and (not reader.ours or type(error).__name__ in _NOT_STARTED):
            report.kind = "not started"
        report.error = f"{type(error).__name__}: {error}"[:1000]
        if report.kind == "error" and reader.ours:
            report.error += "\n" + "".join(traceback.format_exception(error))[-3000:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report.rss = peak if sys.platform != "darwin" else peak // 1024
    return report


async def _within(reading: Awaitable[None], seconds: float) -> None:
    await asyncio.wait_for(reading, seconds)
