"""What one real node that lists 2,000 costs its readers, and what reading a part of such a cluster gives."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

import oneatatime
from oneatatime import Options
from oneatatime._deployment import Deployment
from oneatatime._discovery import ClusterMap, look
from oneatatime._options import MiB, Selection
from oneatatime._partition import Partition
from oneatatime._plan import _counts
from oneatatime._slot import bits
from oneatatime._work import Work
from tests.clusters import tag
from tests.crowd import Crowd

from ._admin import Admin, Command
from ._fleet import Fleet
from ._table import short

_VIEWS = 100
_SLOTS = 16
_SMALL = 3  # primaries, and as many replicas


def measured(fleet: Fleet, keys: int, rounds: int) -> tuple[list[list[str]], list[list[str]]]:
    """Rows: what asking costs; keys a second and what they cost, beside a node that lists few."""
    with Crowd(fleet.primaries, fleet.replicas) as big, Crowd(_SMALL, _SMALL) as small:
        readings: dict[str, list[dict[str, float]]] = {}
        for crowd in (big, small):
            with Admin(_url(crowd)) as admin:
                admin.load(_strings(crowd, keys))
                admin.settle()
        for _ in range(rounds):
            for crowd in (small, big):
                for ahead in (4, 64):
                    title = f"lists {sum(crowd.shape):,}, {ahead} MiB ahead"
                    readings.setdefault(title, []).append(asyncio.run(_read(crowd, ahead * MiB)))
        asked = asyncio.run(_asked(big, fleet))
    return asked, [_row(title, several) for title, several in readings.items()]


def _url(crowd: Crowd) -> str:
    return f"redis://127.0.0.1:{crowd.node.port}"


def _own(crowd: Crowd) -> list[int]:
    return list(range(crowd.slots[0], crowd.slots[0] + _SLOTS))


def _strings(crowd: Crowd, keys: int) -> Iterator[Command]:
    tags = [tag(slot) for slot in _own(crowd)]
    return (("SET", f"user:{number:09d}:{{{tags[number % _SLOTS]}}}", b"x" * 100) for number in range(keys))


async def _asked(crowd: Crowd, fleet: Fleet) -> list[list[str]]:
    work = Work(Deployment.of(crowd.url), Options(), Selection())
    found = ClusterMap(work)
    began, used = time.perf_counter(), time.process_time()
    topology = await found.find()
    first, first_used = time.perf_counter() - began, time.process_time() - used
    own = topology.owner(crowd.slots[0])
    assert own is not None
    node = work.node(found.endpoint(own))
    session = node.session()
    await session.open()
    with Admin(_url(crowd)) as admin:
        before, server = node.traffic.received, admin.cpu_seconds()
        began, used = time.perf_counter(), time.process_time()
        for _ in range(_VIEWS):
            await look(session)
        elapsed, used = time.perf_counter() - began, time.process_time() - used
        server = admin.cpu_seconds() - server
    size = (node.traffic.received - before) / _VIEWS
    session.abort()
    trips = node.traffic.round_trips
    began = time.perf_counter()
    for _ in range(20):
        session = node.session()
        await session.open()
        await session.identify()
        await _counts(session, _own(crowd))
        session.abort()
    one = (time.perf_counter() - began) / 20
    trips = (node.traffic.round_trips - trips) // 20 + 1  # and one to connect
    return [
        ["a view: kB", f"{size / 1e3:.0f}"],
        ["a view: ms of the node", f"{server / _VIEWS * 1e3:.2f}"],
        ["a view: ms of the reader", f"{used / _VIEWS * 1e3:.2f}"],
        ["a view: ms until it is there", f"{elapsed / _VIEWS * 1e3:.2f}"],
        ["the first view of a stream, and who is who: ms", f"{first * 1e3:.0f}"],
        ["the same: ms of the reader", f"{first_used * 1e3:.0f}"],
        ["plan(): ms a node, on the loopback", f"{one * 1e3:.1f}"],
        ["plan(): round trips a node", f"{trips}"],
        [
            f"plan(): s for {fleet.primaries:,} nodes, one after the other, {fleet.way * 1e3:g} ms away",
            f"{fleet.primaries * (one + trips * fleet.way):.1f}",
        ],
        ["the same, 20 ms away: s", f"{fleet.primaries * (one + trips * 0.02):.0f}"],
    ]


async def _read(crowd: Crowd, ahead: int) -> dict[str, float]:
    part = Partition(Deployment.of(crowd.url), 0, 1, slots=bits(_own(crowd)))
    stream = oneatatime.stream(part, options=Options(ahead=ahead))
    with Admin(_url(crowd)) as admin:
        admin.call("CONFIG", "RESETSTAT")
        server, used, began = admin.cpu_seconds(), time.process_time(), time.perf_counter()
        keys = 0
        async for _ in stream:
            keys += 1
        elapsed, used = time.perf_counter() - began, time.process_time() - used
        server = admin.cpu_seconds() - server
        told = admin.info("commandstats")["cmdstat_cluster|nodes"]
    views = int(told.partition("calls=")[2].partition(",")[0])
    done = stream.statistics()
    if not done.complete:
        raise SystemExit(f"a partition was not complete: {done}")
    return {
        "rate": keys / elapsed,
        "server": server / keys * 1e6,
        "client": used / keys * 1e6,
        "views": views,
        "keys": keys / views,
        "bytes": done.bytes / keys,
    }


def _row(title: str, several: list[dict[str, float]]) -> list[str]:
    one = {name: statistics.median(reading[name] for reading in several) for name in several[0]}
    return [
        title,
        short(one["rate"]),
        f"{one['server']:.2f}",
        f"{one['client']:.2f}",
        f"{one['views']:.0f}",
        short(one["keys"]),
        f"{one['bytes']:.0f}",
    ]
