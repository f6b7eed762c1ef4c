"""How big and how slow the project's own objects are in a cluster of a thousand primaries."""

from __future__ import annotations

import json
import pickle
import statistics
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from oneatatime._checkpoint import Checkpoint, Progress, what_of
from oneatatime._cluster import _LEAST_HELD, Cluster
from oneatatime._deployment import Deployment
from oneatatime._discovery import ClusterMap
from oneatatime._ledger import Ledger
from oneatatime._options import Options, Selection
from oneatatime._partition import Partition
from oneatatime._slot import ALL_SLOTS, SLOTS, bits
from oneatatime._statistics import Account
from oneatatime._topology import Topology, view
from oneatatime._unique import seen
from oneatatime._work import Work
from tests.crowd import crowd

from ._fleet import Fleet, Part, counted, cut, owners

DEPLOYMENT = Deployment.of("redis+cluster://reader:secret@one.example:6379,two.example,three.example")
_KEYS_REMEMBERED = 500_000
Rows = list[list[str]]


def nodes_text(fleet: Fleet) -> bytes:
    """What a node says of such a cluster."""
    told = crowd(fleet.primaries, fleet.replicas, me="127.0.0.1:7000@17000", bus=17000)
    return "\n".join(line for line in told.splitlines() if not line.startswith("vars")).encode()


def partitions(fleet: Fleet) -> tuple[list[Partition], float]:
    """The real plan of it, and the seconds that cutting takes (asking not counted)."""
    keys = counted(fleet)
    began = time.perf_counter()
    pieces = cut(fleet, keys)
    found = [
        Partition(DEPLOYMENT, index, len(pieces), one.start, one.end, slots, run_id)
        for index, (one, slots, run_id) in enumerate(pieces)
    ]
    return found, time.perf_counter() - began


def of_plan(fleet: Fleet, parts: Iterable[Part]) -> list[str]:
    """One row: how evenly so many partitions are cut, and what they weigh."""
    found, seconds = partitions(fleet)
    sizes = [len(pickle.dumps(one)) for one in found]
    keys, nodes = zip(*((part.keys, len(part.at)) for part in parts))
    bound = sum(one.run_id is not None for one in found)
    return [
        f"{fleet.partitions:,}",
        f"{len(found):,}",
        f"{seconds * 1e3:.0f}",
        f"{statistics.fmean(keys) / 1e6:.1f}",
        f"{max(keys) / 1e6:.1f}",
        f"{bound}",
        f"{max(nodes)}",
        f"{statistics.fmean(sizes) / 1e3:.1f}",
        f"{sum(sizes) / 1e6:.1f}",
    ]


def of_keys(fleet: Fleet) -> Rows:
    """How keys lie: on average, and where there are most."""
    keys = counted(fleet)
    return [
        ["a node", f"{sum(keys) / fleet.primaries / 1e6:.1f}", f"{fullest(fleet) / 1e6:.1f}"],
        ["a slot", f"{statistics.fmean(keys) / 1e6:.1f}", f"{max(keys) / 1e6:.1f}"],
    ]


def fullest(fleet: Fleet) -> int:
    """Keys of the node that has most."""
    nodes = [0] * fleet.primaries
    for keys, node in zip(counted(fleet), owners(fleet), strict=True):
        nodes[node] += keys
    return max(nodes)


def of_checkpoints(fleet: Fleet) -> Rows:
    """Bytes of each checkpoint as JSON, and what making one takes."""
    found, _ = partitions(fleet)
    one = found[len(found) // 2]
    first = (one.slots or 0) & -(one.slots or 0)
    cases: list[tuple[str, Partition | None, int, bool]] = [
        ("all, nothing done", None, 0, True),
        ("all, half done, in one run", None, bits(range(SLOTS // 2)), True),
        ("all, every other slot done", None, bits(range(0, SLOTS, 2)), True),
        ("a partition", one, first, True),
        ("the same without the names of the nodes", one, first, False),
    ]
    rows = []
    for title, part, slots, named in cases:
        made = checkpoint(fleet, part, slots, named=named)
        seconds = quickest(lambda made=made: json.dumps(made.to_json()), 5)  # type: ignore[misc]
        rows.append([title, f"{len(json.dumps(made.to_json())) / 1e3:.1f}", f"{seconds * 1e3:.1f}"])
    return rows


def checkpoint(fleet: Fleet, part: Partition | None, slots: int, *, named: bool = True) -> Checkpoint:
    """What a stream over a part of the cluster gives when these slots are done."""
    topology = Topology.of([view([nodes_text(fleet), b""], "here")])
    ids = sorted(topology.primaries) if named else []
    where = {"kind": "cluster", "name": DEPLOYMENT.name, "ids": ids}
    return Checkpoint(where, what_of(Selection(), 0, part), {0: Progress(slots=slots)})


def checkpoint_bytes(fleet: Fleet) -> int:
    """Of a partition."""
    return len(json.dumps(checkpoint(fleet, partitions(fleet)[0][0], 0).to_json()))


def of_memory(fleet: Fleet) -> Rows:
    """What a stream holds of the cluster, whatever it reads, and what `unique=` adds."""
    text = nodes_text(fleet)
    topology, size = weighed(lambda: Topology.of([view([text, b""], "here")]))
    _, table = weighed(lambda: topology.owner(0))
    seen_last = view([text, b""], "here")
    _, lines = weighed(lambda: len(seen_last.members))
    _, ledger = weighed(lambda: Ledger(ALL_SLOTS, unique=False, account=Account(), db=0))
    remembered = seen("memory")
    for first in range(0, _KEYS_REMEMBERED, 500):
        remembered.fresh([b"user:%012d" % number for number in range(first, first + 500)])
    each = remembered.memory / _KEYS_REMEMBERED
    keys = counted(fleet)
    held = max(_LEAST_HELD * fleet.primaries, Options().ahead)
    return [
        ["the topology", f"{size / 1e6:.1f}"],
        ["who owns which slot, for given keys", f"{table / 1e6:.1f}"],
        ["all lines of one view in words, which no connection keeps", f"{lines / 1e6:.1f}"],
        ["the ledger", f"{ledger / 1e6:.3f}"],
        [f"unique=, {each:.0f} B a key: an average slot", f"{each * statistics.fmean(keys) / 1e6:.0f}"],
        ["unique=: the biggest slot", f"{each * max(keys) / 1e6:.0f}"],
        ["held for verdicts by one stream over all nodes, at most", f"{2 * held / 1e6:.0f}"],
    ]


def of_turns(fleet: Fleet) -> Rows:
    """Milliseconds that one stream over the whole cluster takes, each time."""
    text = nodes_text(fleet)
    work = Work(DEPLOYMENT, Options(), Selection())
    found = ClusterMap(work)
    found.topology = Topology.of([view([text, b""], "here")])
    cluster = Cluster(work, found, 0)

    def spawn(worker: Coroutine[Any, Any, None]) -> None:
        worker.close()

    def turn() -> None:
        cluster._send_workers(spawn)
        cluster._give_up_unserved()
        cluster._nobody_reads()

    turn()  # the first one makes a worker for each node
    one = quickest(lambda: view([text, b""], "here"), 20)
    lines = quickest(lambda: len(view([text, b""], "here").members), 20)
    whole = quickest(lambda: Topology.of([view([text, b""], "here") for _ in range(3)]), 3)
    return [
        ["a turn, five times a second", f"{quickest(turn, 5) * 1e3:.1f}"],
        ["three views made one topology, at the start", f"{whole * 1e3:.0f}"],
        ["one view before or after a window", f"{one * 1e3:.2f}"],
        ["the same, were all its lines looked at", f"{lines * 1e3:.1f}"],
    ]


def quickest(what: Callable[[], object], times: int) -> float:
    """Seconds of the quickest of several runs."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        what()
        found.append(time.perf_counter() - began)
    return min(found)


def weighed(make: Callable[[], Any]) -> tuple[Any, int]:
    """What was made, and the bytes that it holds."""
    tracemalloc.start()
    try:
        made = make()
        return made, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
