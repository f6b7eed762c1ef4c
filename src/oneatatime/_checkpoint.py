"""What is needed to go on after a crash: what of a selection the loop has finished with.

A checkpoint is plain data for `json.dumps`, holds nothing secret, and names what it belongs to: it is
taken for what it says only when it is whole, of this version, of the same keys and of the same deployment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ._cursor import POSITIONS, Range
from ._errors import InvalidInput
from ._options import Selection
from ._partition import Partition
from ._slot import SLOTS, bits, runs

VERSION = 1

Json = dict[str, Any]


class Progress(NamedTuple):
    """How much of one database is done: all of it, ranges of one server process, or slots."""

    done: bool = False
    run_id: str | None = None
    ranges: tuple[Range, ...] = ()
    slots: int = 0


def reach(databases: Mapping[int, Progress]) -> int:
    """A number for how much that is: what was read alike has more of it, the more of that is done."""
    slots = sum(one.slots.bit_count() for one in databases.values())
    ends = ((POSITIONS,) if one.done else (r.end - r.start for r in one.ranges) for one in databases.values())
    return slots + sum(itertools.chain.from_iterable(ends))


class Checkpoint(NamedTuple):
    """`where` says which deployment, in words that its nodes confirm; `what` which keys of it."""

    where: Mapping[str, Any]
    what: Mapping[str, Any]
    databases: Mapping[int, Progress]

    def to_json(self) -> Json:
        """As plain data, with a digest over it."""
        data: Json = {
            "oneatatime": "checkpoint",
            "version": VERSION,
            "where": dict(self.where),
            "what": dict(self.what),
            "databases": {str(db): _progress_to_json(one) for db, one in sorted(self.databases.items())},
        }
        return {**data, "digest": _digest(data)}

    @classmethod
    def of_json(cls, data: object) -> Checkpoint:
        """The checkpoint that is written there.

        Raises InvalidInput for anything that `to_json` did not write like this.
        """
        if not isinstance(data, Mapping) or data.get("oneatatime") != "checkpoint":
            raise InvalidInput("resume= takes what Stream.checkpoint() gave: this is no checkpoint")
        if data.get("version") != VERSION:
            text = f"the checkpoint is of version {data.get('version')!r}, and this reads version {VERSION}"
            raise InvalidInput(f"{text}: go on with the release that wrote it, or begin anew")
        rest = {name: value for name, value in data.items() if name != "digest"}
        if data.get("digest") != _digest(rest):
            raise InvalidInput("the checkpoint is damaged: its digest does not fit what it says; begin anew")
        try:
            databases = {int(db): _progress_of_json(one) for db, one in data["databases"].items()}
            return cls(dict(data["where"]), dict(data["what"]), databases)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"the checkpoint does not make sense: {error!r}; begin anew") from error

    def check_what(self, what: Mapping[str, Any]) -> None:
        """Raises InvalidInput where other keys are asked for now than those it is about."""
        for name in sorted({*self.what, *what}):
            before, now = self.what.get(name), what.get(name)
            if before != now:
                text = f"the checkpoint was made with {name}={before!r}, and now it is {name}={now!r}"
                raise InvalidInput(f"{text}: go on with the same, or begin anew without it")

    def check_where(self, where: Mapping[str, Any]) -> None:
        """Raises InvalidInput where it is another deployment than the one it was made of."""
        before, now = set(self.where.get("ids", ())), set(where.get("ids", ()))
        same = self.where.get("name") == where.get("name") or bool(before & now)
        if where.get("kind") == "cluster" and before and now:
            same = bool(before & now)  # nodes keep their ids when they restart, or move
        same = same and self.where.get("kind") == where.get("kind")
        if not same:
            raise InvalidInput(
                f"the checkpoint is of another deployment: of {self.where.get('name')}, not of "
                f"{where.get('name')}; begin anew without it"
            )


def what_of(selection: Selection, db: int, partition: Partition | None) -> Json:
    """Which keys a selection is of, as a checkpoint says it."""
    what: Json = {
        "match": selection.match.decode("latin-1") if selection.match is not None else None,
        "types": sorted(selection.types),
        "db": "all" if selection.all_dbs else db,
    }
    if selection.fields:
        what["fields"] = [field.decode("latin-1") for field in selection.fields]
    if selection.dump:
        what["dump"] = True
    if partition is not None:
        what["partition"] = [partition.index, partition.of, str(partition.start), str(partition.end)]
        what["partition"].append(None if partition.slots is None else slots_to_json(partition.slots))
        what["partition"].append(None if partition.dbs is None else list(partition.dbs))
    return what


def _progress_to_json(one: Progress) -> Json:
    if one.done:
        return {"done": True}
    data: Json = {}
    if one.ranges:  # as text: JSON's numbers are not that long everywhere
        data.update(run_id=one.run_id, ranges=[[str(part.start), str(part.end)] for part in one.ranges])
    if one.slots:
        data["slots"] = slots_to_json(one.slots)
    return data


def _progress_of_json(data: Json) -> Progress:
    ranges = tuple(Range(int(start), int(end)) for start, end in data.get("ranges", ()))
    if not all(0 <= part.start <= part.end <= POSITIONS for part in ranges):
        raise ValueError("a range of cursors that there is not")
    slots = slots_of_json(data.get("slots", ()))
    return Progress(bool(data.get("done", False)), data.get("run_id"), ranges, slots)


def slots_of_json(words: Iterable[Iterable[int]]) -> int:
    """What `slots_to_json` wrote. Raises ValueError for anything else."""
    slots = 0
    for word in words:
        first, last = (int(number) for number in word)
        if not 0 <= first <= last < SLOTS:
            raise ValueError("slots that there are not")
        slots |= bits(range(first, last + 1))
    return slots


def slots_to_json(slots: int) -> list[list[int]]:
    """Slots as plain data: the first and the last of each run."""
    return [[first, last] for first, last in runs(slots)]


def _digest(data: Mapping[str, Any]) -> str:
    import json  # here, both: few make checkpoints, and they make every start 2 ms longer
    from hashlib import blake2b

    written = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return blake2b(written.encode(), digest_size=16).hexdigest()
