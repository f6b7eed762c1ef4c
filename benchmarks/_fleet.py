"""A thousand nodes and a hundred billion keys, as figures: what there is, and how it is cut by the real plan.

What a key costs is measured elsewhere: docs/performance.md, by `make bench-cluster`, `bench-growth` and
`bench-ways`; the comments say which figure. What a view costs is measured by `benchmarks.scale` itself, on
a real node that lists 2,000, and is rounded up here so that a simulation gives the same twice.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from oneatatime._cursor import SLOT_WIDTH, Range
from oneatatime._plan import _cut_evenly, spread
from oneatatime._record import _OBJECTS
from oneatatime._session import Identity
from oneatatime._slot import SLOTS, runs
from oneatatime._width import Width

_PAGE_BYTES = 48 * 1024  # of replies, as `_shape` has it
_MODEL = 1.2e-6  # seconds a key, as `_shape` has it for SCAN and a string
_VIEWS_SHARE = 0.01  # as `_post` has it
_LEAST_HELD = 64 * 1024  # as `_cluster` has it


@dataclass(frozen=True)
class Fleet:
    """The task, the cluster, the workers, and what goes wrong. Seconds, bytes, shares."""

    keys: int = 10**11
    primaries: int = 1000
    replicas: int = 1000
    hashes: float = 0.3  # of 5 fields; the others are strings of 100 B
    tagged: float = 0.01  # share of keys that share a hash tag with others
    tags: int = 100_000  # of them, by Zipf's law: the first has a twelfth
    scattered: bool = False  # slots lie anywhere, as after years of resharding; else in runs

    # a key. Strings: bench-cluster. Hashes: bench-growth, and what a cluster adds to a string. The servers'
    # a fifth more: so much a string costs more among 5 million than among 1 (bench-growth)
    server_string: float = 0.646e-6 * 1.2
    server_hash: float = (2.115 + 0.646 - 0.518) * 1e-6 * 1.2
    client_string: float = 0.537e-6
    client_hash: float = (1.042 + 0.537 - 0.341) * 1e-6
    loop: float = 0.0  # what the loop body does with a key
    name: int = 20  # bytes of a key's name
    reply_string: int = 140  # bytes on the wire, the name that SCAN gives and the name asked for included
    reply_hash: int = 190
    view_bytes: int = 126  # for each node listed
    view_server: float = 0.6e-6  # for each node listed
    view_client: float = 0.25e-6

    partitions: int = 4096
    order: str = "planned"  # or "shuffled", or "neighbours": in the order of slots
    workers: int = 1000
    workers_a_machine: int = 32
    network: float = 25e9 / 8  # bytes a second into a machine
    way: float = 0.0005  # seconds there and back
    ahead: int = 64 << 20  # Options.ahead
    max_load: float | None = None
    task: float = 0.5  # until a partition's first key: the engine, three views, connections
    checkpoints: bool = True  # a partition that is tried again begins at the slot it was in

    slow_nodes: float = 0.02
    slower: float = 3.0  # times
    worker_life: float = 24 * 3600.0  # until one dies, on average
    worker_back: float = 30.0
    failovers: float = 1 / (30 * 86400)  # a second and node
    failover: float = 20.0  # seconds that a node's slots are not served
    moved: float = 60 / 3600  # slots a second that move to another node
    seed: int = 7

    vcpu_hour: float = 0.04  # dollars
    crossing_gb: float = 0.02  # dollars for a GB from zone to zone, both ways together
    crossing: float = 2 / 3  # share of the bytes that do, where three zones share everything evenly

    @property
    def server(self) -> float:
        """Seconds of a node's core a key, views not counted."""
        return (1 - self.hashes) * self.server_string + self.hashes * self.server_hash

    @property
    def client(self) -> float:
        return (1 - self.hashes) * self.client_string + self.hashes * self.client_hash + self.loop

    @property
    def reply(self) -> float:
        """Bytes a key on the wire, views not counted."""
        return (1 - self.hashes) * self.reply_string + self.hashes * self.reply_hash

    @property
    def weight(self) -> float:
        """What one key counts of `Options.ahead` (`Batch.weight`)."""
        return self.reply + self.name + _OBJECTS

    @property
    def page(self) -> int:
        return min(750, int(_PAGE_BYTES / self.reply))

    def width(self) -> int:
        """Connections of one stream to one node, by the real rule; one with a limit is never widened."""
        width = Width(1, 32)
        if self.max_load is None:
            for _ in range(200):
                width.saw(self.page * _MODEL, self.way, int(self.ahead // _PAGE_BYTES))
        return width.target

    def keys_a_view(self, nodes: int) -> float:
        """Keys between two views, where a stream reads at so many nodes.

        The window is a hundred times as long as a view takes, which waits for those of the stream's other
        connections; but where that is more than a worker may hold (`Cluster._most_held`), it comes early.
        """
        posts = nodes * self.width()
        members = self.primaries + self.replicas
        window = members * (self.view_server + self.view_client * posts) + self.way
        rate = 1 / max(self.server, self.client) / posts
        if self.max_load is not None:
            rate = self.max_load / self.server
        held = max(_LEAST_HELD, self.ahead / posts) / self.weight
        return max(1.0, min(held, max(0.005, window / _VIEWS_SHARE) * rate))

    def with_views(self, nodes: int) -> tuple[float, float, float]:
        """What a key costs server and client, in seconds, and its bytes, views included."""
        members, keys = self.primaries + self.replicas, self.keys_a_view(nodes)
        return (
            self.server + members * self.view_server / keys,
            self.client + members * self.view_client / keys,
            self.reply + members * self.view_bytes / keys,
        )


@dataclass(frozen=True)
class Part:
    """A partition: which keys of which slots at which node, and whether it is bound to a process."""

    index: int
    at: dict[int, list[int]]
    bound: bool

    @property
    def keys(self) -> int:
        return sum(map(sum, self.at.values()))


def counted(fleet: Fleet) -> list[int]:
    """Keys of each slot: most even, some by tags of which a few are giants."""
    chosen = random.Random(fleet.seed)
    tagged = fleet.keys * fleet.tagged
    even = (fleet.keys - tagged) / SLOTS
    found = [max(0.0, chosen.gauss(even, even**0.5)) for _ in range(SLOTS)]
    whole = sum(1 / rank for rank in range(1, fleet.tags + 1))
    for rank in range(1, fleet.tags + 1):
        found[chosen.randrange(SLOTS)] += tagged / (whole * rank)
    return [int(count) for count in found]


def owners(fleet: Fleet) -> list[int]:
    """The node of each slot."""
    found = [slot * fleet.primaries // SLOTS for slot in range(SLOTS)]
    if fleet.scattered:
        random.Random(fleet.seed).shuffle(found)
    return found


def cut(fleet: Fleet, keys: Sequence[int]) -> list[tuple[Range, int, str | None]]:
    """What `plan` makes of these counts: its own function, on servers that have a table for each slot."""
    ids = [Identity(run_id=f"{node:040x}", slot_tables=True) for node in range(fleet.primaries)]
    of_slot = {slot: ids[node] for slot, node in enumerate(owners(fleet))}
    return _cut_evenly(list(keys), fleet.partitions, of_slot)


def parts(fleet: Fleet) -> list[Part]:
    """The partitions, in the order in which workers take them."""
    keys, owner = counted(fleet), owners(fleet)
    found = []
    for index, (piece, slots, run_id) in enumerate(cut(fleet, keys)):
        at: dict[int, list[int]] = defaultdict(list)
        for first, last in runs(slots):
            for slot in range(first, last + 1):
                count = keys[slot]
                if run_id is not None:  # a share of the slot; the last one takes what division leaves
                    begin, end = (place - slot * SLOT_WIDTH for place in (piece.start, piece.end))
                    count = count * end // SLOT_WIDTH - count * begin // SLOT_WIDTH
                at[owner[slot]].append(count)
        found.append(Part(index, dict(at), run_id is not None))
    return ordered(found, fleet)


def ordered(parts: list[Part], fleet: Fleet) -> list[Part]:
    """By `Fleet.order`: neighbours live at the same node, and a plan puts them far apart."""
    if fleet.order == "neighbours":
        return parts
    if fleet.order == "shuffled":
        return random.Random(fleet.seed).sample(parts, len(parts))
    return spread(parts)
