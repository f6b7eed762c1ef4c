"""A partition as one of several processes reads it: how far it is, and what was told of it."""

from __future__ import annotations

from collections.abc import Iterable

from ._checkpoint import Progress, reach
from ._cursor import POSITIONS, Range, joined
from ._in_process import Report
from ._partition import Partition
from ._statistics import Account, Statistics
from ._wire import Traffic

_COUNTED = ("vanished", "repeats", "forbidden", "failed")


class Share:
    """One partition of a plan. `done` is what was read of it before, by database.

    `read` is what a process has read of it and sent; `settled` what the loop has finished with. `since`
    counts the keys that came after what `read` tells of.
    """

    def __init__(self, partition: Partition, done: dict[int, Progress]) -> None:
        self.partition = partition
        self.read = self.settled = done
        self.fraction = 0.0
        self.over = False
        self.failed = False
        self.lost = 0  # processes in a row that were lost over it, and none of them had got any further
        self.since = 0
        self.came = 0  # keys, of what `read` tells of
        self._told = Statistics()
        self._furthest = reach(done)

    def begin(self) -> None:
        """A process begins with it, or goes on."""
        self.since = 0
        self._told = Statistics()

    def heard(self, report: Report, account: Account, traffic: Traffic) -> int:
        """A process has said how far it is. Returns how many big values were torn since the last time."""
        now, before = report.statistics, self._told
        self.read, self.fraction, self.over = report.progress, report.fraction, report.over
        self.came, self.since = self.came + self.since, 0
        if (now_at := reach(report.progress)) > self._furthest:
            self._furthest, self.lost = now_at, 0
        for name in _COUNTED:
            setattr(account, name, getattr(account, name) + getattr(now, name) - getattr(before, name))
        traffic.received += now.bytes - before.bytes
        traffic.commands += now.commands - before.commands
        traffic.round_trips += now.round_trips - before.round_trips
        account.failures += now.failures[len(before.failures) :]
        skipped = now.skipped[len(before.skipped) :]  # of one server each share says the same
        account.skipped += [what for what in dict.fromkeys(skipped) if what not in account.skipped]
        account.nodes.update(dict.fromkeys(now.nodes))
        account.best_effort |= now.best_effort
        for reason in now.read_again:
            if reason not in before.read_again:
                what, _, why = reason.partition(": ")
                account.again(what, why)
        self._told = now
        return now.torn - before.torn

    def loop_reached(self, reached: dict[int, Progress]) -> None:
        """The loop has finished with so much of it."""
        self.settled = reached

    @property
    def is_piece(self) -> bool:
        """Whether it is a piece of one slot."""
        return self.partition.slots is not None and self.partition.range != Range()

    def __str__(self) -> str:
        return repr(self.partition)[1:-1]


def left_of(partition: Partition, before: dict[int, Progress]) -> tuple[dict[int, Progress], bool]:
    """What of a partition was done before, and whether that is all of it, as far as can be told."""
    done: dict[int, Progress] = {}
    for db, one in before.items():
        if partition.slots is not None:
            done[db] = Progress(slots=one.slots & partition.slots)
        elif one.done:
            done[db] = one
        else:
            ranges = [part.within(partition.range) for part in one.ranges]
            ranges = [part for part in ranges if part.start < part.end]
            done[db] = Progress(ranges == [partition.range], one.run_id, tuple(ranges))
    if partition.all_dbs:  # there may be databases that nobody has told of
        return done, False
    db = partition.deployment.login.db
    one = done.get(db, Progress())
    return done, one.done or (partition.slots is not None and one.slots == partition.slots)


def together(shares: Iterable[Share], before: dict[int, Progress]) -> dict[int, Progress]:
    """What the loop has finished with, of all partitions and before."""
    shares = list(shares)
    slots = {db: one.slots for db, one in before.items()}
    ranges = {db: list(_ranges(one, Range())) for db, one in before.items()}
    run_ids = {db: one.run_id for db, one in before.items()}
    for share in shares:
        part = share.partition
        for db, one in share.settled.items():
            if part.slots is None:
                ranges.setdefault(db, []).extend(_ranges(one, part.range))
                run_ids[db] = one.run_id or run_ids.get(db) or part.run_id
            elif not share.is_piece:
                slots[db] = slots.get(db, 0) | one.slots
    for slot in {share.partition.slots or 0 for share in shares if share.is_piece}:
        pieces = [share for share in shares if share.partition.slots == slot]
        for db in {db for share in pieces for db in share.settled}:
            if all(share.settled.get(db, Progress()).slots & slot for share in pieces):
                slots[db] = slots.get(db, 0) | slot
    found = {}
    for db in sorted({*slots, *ranges}):
        one_range = joined(ranges.get(db, ()))
        whole = one_range == [Range(0, POSITIONS)]
        found[db] = Progress(whole, run_ids.get(db), tuple(one_range), slots.get(db, 0))
    return found


def _ranges(one: Progress, part: Range) -> tuple[Range, ...]:
    return (part,) if one.done else one.ranges
