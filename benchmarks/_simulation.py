"""Workers that read partitions from nodes, event by event: how long, how far apart, how much again.

Between two events everything flows: a piece (what one worker reads at one node) comes at the least of what
the node's core, the worker's core, the machine's network, the way there and `max_load` allow; a core is
shared evenly by those who want it at that moment. An event is a piece read to its end, a partition begun, a
worker dead or back, a failover, a slot that moves.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ._fleet import Fleet, Part

_CLOSE = 1e-3  # of a key: what floats leave over


@dataclass(eq=False)
class Piece:
    part: Part
    place: int
    node: Node
    worker: Worker
    slots: list[int]
    done: float = 0.0
    rate: float = 0.0
    since: float = 0.0
    version: int = 0

    @property
    def keys(self) -> int:
        return sum(self.slots)

    def whole_slots(self) -> float:
        """Keys of the slots that are done, for good: a part of a slot never is."""
        total = 0.0
        if self.part.bound:
            return total
        for keys in self.slots:
            if total + keys > self.done + _CLOSE:
                break
            total += keys
        return total


@dataclass(eq=False)
class Node:
    slower: float
    pieces: list[Piece] = field(default_factory=list)
    up: bool = True
    most: int = 0  # streams at once


@dataclass(eq=False)
class Worker:
    pieces: list[Piece] = field(default_factory=list)
    part: Part | None = None
    life: int = 0
    at_once: int = 1  # nodes of its partition


@dataclass
class Outcome:
    """What came of it. `finished` counts how often each partition was read to its end."""

    seconds: float = 0.0
    last_percent: float = 0.0  # seconds that it took
    read: float = 0.0
    again: float = 0.0
    deaths: int = 0
    failovers: int = 0
    moved: int = 0  # slots that were being read
    planned_again: int = 0
    most_streams: int = 0  # at one node
    most_connections: int = 0
    server: float = 0.0  # seconds of cores
    client: float = 0.0
    bytes: float = 0.0
    finished: list[int] = field(default_factory=list)


class Simulation:
    """One run over `parts`; `run` gives its outcome."""

    def __init__(self, fleet: Fleet, parts: Sequence[Part]) -> None:
        self._fleet = fleet
        self._chance = random.Random(fleet.seed)
        slow = set(self._chance.sample(range(fleet.primaries), int(fleet.slow_nodes * fleet.primaries)))
        self._nodes = [Node(fleet.slower if node in slow else 1.0) for node in range(fleet.primaries)]
        self._queue = deque(parts)
        self._kept: dict[int, dict[int, float]] = {}  # of partitions that were begun: keys done, by node
        self._left = len(parts)
        self._all = sum(part.keys for part in parts)
        self._now = self._flow = self._begun_last = 0.0
        self._count = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._costs = {nodes: fleet.with_views(nodes) for nodes in {len(part.at) for part in parts}}
        self._width = fleet.width()
        self._network = fleet.network / min(fleet.workers_a_machine, fleet.workers)
        self.outcome = Outcome(finished=[0] * len(parts))

    def run(self) -> Outcome:
        fleet, outcome = self._fleet, self.outcome
        for _ in range(fleet.workers):
            self._begin(Worker())
        self._often(fleet.failovers * fleet.primaries, self._fail_over)
        self._often(fleet.moved, self._move)
        while self._left:
            when, _, event = heapq.heappop(self._events)
            self._flows_until(when)
            event()
        outcome.seconds = self._now
        outcome.last_percent = self._now - self._begun_last
        outcome.most_streams = max(node.most for node in self._nodes)
        outcome.most_connections = outcome.most_streams * self._width
        return outcome

    def _flows_until(self, when: float) -> None:
        before = self.outcome.read - self.outcome.again
        self.outcome.read += self._flow * (when - self._now)
        self._now = when
        if before < 0.99 * self._all <= self.outcome.read - self.outcome.again:
            self._begun_last = when

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._count), event))

    def _often(self, rate: float, event: Callable[[], None]) -> None:
        if rate:

            def happens() -> None:
                event()
                self._often(rate, event)

            self._after(self._chance.expovariate(rate), happens)

    # Workers

    def _begin(self, worker: Worker) -> None:
        """Takes the next partition, if there is one; a life of its own ends somewhere."""
        worker.life += 1
        if not self._queue:
            worker.part = None
            return
        worker.part = part = self._queue.popleft()
        life = worker.life
        self._after(self._fleet.task, lambda: self._read(worker, part, life))
        dies = self._chance.expovariate(1 / self._fleet.worker_life)
        self._after(dies, lambda: self._die(worker, life))

    def _read(self, worker: Worker, part: Part, life: int) -> None:
        if worker.life != life:
            return
        kept = self._kept.get(part.index, {})
        worker.at_once = len(part.at)
        for place, slots in part.at.items():
            node, done = self._nodes[place], kept.get(place, 0.0)
            if done and done > sum(slots) - _CLOSE:
                continue
            piece = Piece(part, place, node, worker, slots, done=done, since=self._now)
            worker.pieces.append(piece)
            node.pieces.append(piece)
            node.most = max(node.most, len(node.pieces))
        self._changed([*worker.pieces])

    def _die(self, worker: Worker, life: int) -> None:
        if worker.life != life or worker.part is None:
            return
        part, pieces, kept = worker.part, worker.pieces, self._kept.setdefault(worker.part.index, {})
        self.outcome.deaths += 1
        worker.life += 1
        worker.pieces, worker.part = [], None
        for piece in pieces:
            self._settle(piece)
            self._lose(piece, piece.whole_slots())
            kept[piece.place] = piece.done
            self._leave(piece)
        if not self._fleet.checkpoints:
            self.outcome.again += sum(kept.values())
            kept.clear()
        self._queue.appendleft(part)
        self._after(self._fleet.worker_back, lambda: self._begin(worker))

    # Pieces

    def _settle(self, piece: Piece) -> None:
        """Counts what has come of it by now."""
        elapsed = self._now - piece.since
        served, used, size = self._costs[piece.worker.at_once]
        came = min(piece.rate * elapsed, piece.keys - piece.done)
        piece.done += came
        piece.since = self._now
        self.outcome.server += came * served * piece.node.slower
        self.outcome.client += came * used
        self.outcome.bytes += came * size

    def _lose(self, piece: Piece, keeps: float) -> None:
        self.outcome.again += piece.done - keeps
        piece.done = keeps

    def _leave(self, piece: Piece) -> None:
        self._flow -= piece.rate
        piece.rate, piece.version = 0.0, piece.version + 1
        piece.node.pieces.remove(piece)
        self._changed(piece.node.pieces)

    def _changed(self, pieces: list[Piece]) -> None:
        """Who shares a core with one of these gets another share."""
        nodes = {id(piece.node): piece.node for piece in pieces}
        for piece in {id(one): one for node in nodes.values() for one in node.pieces}.values():
            self._settle(piece)
            self._flow -= piece.rate
            piece.rate = self._rate(piece)
            self._flow += piece.rate
            piece.version += 1
            if piece.rate:
                self._after((piece.keys - piece.done) / piece.rate, self._end_of(piece, piece.version))

    def _rate(self, piece: Piece) -> float:
        """Keys a second."""
        fleet, node, worker = self._fleet, piece.node, piece.worker
        if not node.up:
            return 0.0
        served, used, size = self._costs[worker.at_once]
        served *= node.slower
        page, here = fleet.page, len(worker.pieces)
        rate = min(
            1 / (served * len(node.pieces)),
            1 / (used * here),
            self._network / size / here,
            self._width * page / (fleet.way + page * (served + used)),
        )
        return rate if fleet.max_load is None else min(rate, fleet.max_load / served)

    def _end_of(self, piece: Piece, version: int) -> Callable[[], None]:
        def ends() -> None:
            if piece.version != version:
                return
            self._settle(piece)
            worker, part = piece.worker, piece.part
            worker.pieces.remove(piece)
            self._kept.setdefault(part.index, {})[piece.place] = piece.keys
            self._leave(piece)
            if worker.pieces:
                self._changed(worker.pieces)
                return
            self._left -= 1
            self.outcome.finished[part.index] += 1
            self._begin(worker)

        return ends

    # What befalls the cluster

    def _fail_over(self) -> None:
        """A node's slots are not served for a while; those under way are read again, done ones stay done."""
        node = self._chance.choice(self._nodes)
        if not node.up:
            return
        self.outcome.failovers += 1
        for piece in node.pieces:
            self._settle(piece)
            if piece.part.bound:  # to a process that is no more
                self.outcome.planned_again += 1
            self._lose(piece, piece.whole_slots())
        node.up = False
        self._changed(node.pieces)

        def is_back() -> None:
            node.up = True
            self._changed(node.pieces)

        self._after(self._fleet.failover, is_back)

    def _move(self) -> None:
        """A slot goes to another node: if it was being read, it is read again."""
        node = self._chance.choice(self._nodes)
        slots_here = 16_384 / self._fleet.primaries
        for piece in [piece for piece in node.pieces if self._chance.random() < 1 / slots_here]:
            self._settle(piece)
            self.outcome.moved += 1
            self._lose(piece, piece.whole_slots())
        self._changed(node.pieces)


def simulate(fleet: Fleet, parts: Sequence[Part]) -> Outcome:
    """One run, from the first partition to the last."""
    return Simulation(fleet, parts).run()
