"""A part of a deployment that one worker reads: in this process, in another, or on another machine."""

from __future__ import annotations

from dataclasses import dataclass

from ._cursor import POSITIONS, Range
from ._deployment import Deployment
from ._slot import named


@dataclass(frozen=True, repr=False)
class Partition:
    """A disjoint part of the keyspace, to be read by `stream(partition)`; picklable.

    All partitions of one plan together hold every key. `index` counts them from 0 to `of`. On one server
    it is a range of cursors, and means something to one server process only: after a restart or a
    failover the plan must be made anew, and reading it raises `PlanOutdated`. In a cluster it is a set of
    slots, and stays true whatever happens; only the piece of a slot that was too big for one
    partition is bound to the process as well. `dbs` are the databases that it is of, where that is not the
    one that the source names, nor all that there will be.

    Like the source it was made of, it holds what is needed to log in: send it to nobody else. Made with
    `plan(..., secret=)` it holds nothing secret, and whoever reads it finds the password where it runs.
    """

    deployment: Deployment
    index: int
    of: int
    start: int = 0
    end: int = POSITIONS
    slots: int | None = None
    run_id: str | None = None
    all_dbs: bool = False
    dbs: tuple[int, ...] | None = None

    @property
    def range(self) -> Range:
        """The positions that are wanted."""
        return Range(self.start, self.end)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """What Dask names tasks by: nothing secret, and `slots` as text, for it is too big a number there."""
        slots = None if self.slots is None else hex(self.slots)
        where = (repr(self.deployment), self.index, self.of, self.start, self.end, slots)
        return (*where, self.run_id, self.all_dbs, self.dbs)

    def __repr__(self) -> str:
        what = named(self.slots) if self.slots is not None else f"{(self.end - self.start) / POSITIONS:.1%}"
        if self.dbs is not None:
            what += f" of database{'s' * (len(self.dbs) > 1)} {', '.join(map(str, self.dbs))}"
        return f"<Partition {self.index + 1} of {self.of} of {self.deployment.name}: {what}>"
