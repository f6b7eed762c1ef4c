"""The partitions of an export, and how far each is: as its manifest holds them, and back.

What is written is plain data and holds nothing secret: where the deployment is, the same command says again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._checkpoint import Checkpoint, Progress, reach, slots_of_json, slots_to_json
from ._deployment import Deployment
from ._errors import InvalidInput
from ._partition import Partition
from ._sealed import Json
from ._slot import ALL_SLOTS
from ._statistics import Statistics

_KIND = "partitions"
_VERSION = 1


class Portion:
    """One partition of an export.

    `checkpoint` and `left_out` are of what is in whole parts that the manifest names; `done`: all of it is.
    `over`: this run has done with it. `lost` counts the processes in a row that ended over it, and none
    of them had written anything that got it further.
    """

    def __init__(self, partition: Partition, checkpoint: Json | None = None, *, done: bool = False) -> None:
        self.partition = partition
        self.checkpoint = checkpoint
        self.done = self.over = done
        self.left_out: Json = {}
        self.left_out_before: Json = {}  # by processes that were lost
        self.lost = self._furthest = 0
        ended = Statistics(fraction=1.0, complete=True, finished=True)
        self.before: list[Statistics] = []  # of processes that were lost, as far as the manifest knows
        self.written = Statistics()  # the same of the process that has it now
        self.now = ended if done else Statistics()

    def come_to(self, checkpoint: Json) -> None:
        """This is what is in whole parts now."""
        self.checkpoint = checkpoint
        if (now_at := reach(Checkpoint.of_json(checkpoint).databases)) > self._furthest:
            self._furthest, self.lost = now_at, 0

    def to_json(self) -> Json:
        part = self.partition
        return {
            "index": part.index,
            "start": str(part.start),  # JSON's numbers are not that long everywhere
            "end": str(part.end),
            "slots": None if part.slots is None else slots_to_json(part.slots),
            "run_id": part.run_id,
            "dbs": None if part.dbs is None else list(part.dbs),
            "done": self.done,
            "checkpoint": self.checkpoint,
        }


class Portions(Sequence[Portion]):
    """All partitions of an export. `what` is selected; `where`: the deployment, as its nodes confirm it.

    `numbers`: how many numbers of parts were given away: no two runs give the same, because a process of the
    one before may have a moment left to write.
    """

    def __init__(
        self, portions: list[Portion], what: Json, where: Json | None = None, numbers: int = 0
    ) -> None:
        self.what = what
        self.where = where
        self.numbers = numbers
        self._portions = portions

    @classmethod
    def planned(cls, partitions: Sequence[Partition], what: Json) -> Portions:
        """Those of a new plan."""
        return cls([Portion(partition) for partition in partitions], what)

    @classmethod
    def of_json(cls, data: Json, deployment: Deployment, what: Json, *, all_dbs: bool) -> Portions:
        """Those that `to_json` wrote, of a deployment that may be reached in another way by now.

        Raises InvalidInput where something else is selected now, and for what does not make sense.
        """
        if data.get("version") != _VERSION:
            text = f"the export was begun by a release of version {data.get('version')!r} of its partitions"
            raise InvalidInput(f"{text}, and this reads version {_VERSION}: go on with that, or begin anew")
        try:
            of = len(data["partitions"])
            portions = [_portion_of_json(one, deployment, of, all_dbs=all_dbs) for one in data["partitions"]]
            where, before, numbers = data["where"], data["what"], int(data["numbers"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"the manifest's partitions do not make sense: {error!r}"
            raise InvalidInput(f"{text}; begin anew") from error
        Checkpoint({}, before, {}).check_what(what)
        return cls(portions, before, where, numbers)

    def __len__(self) -> int:
        return len(self._portions)

    def __getitem__(self, index: Any) -> Any:
        return self._portions[index]

    @property
    def all_done(self) -> bool:
        return all(portion.done for portion in self)

    def to_json(self) -> Json:
        """What a manifest's checkpoint is while the export goes on, and that of one stream at its end."""
        if self.all_done:
            return self._whole()
        return {
            "oneatatime": _KIND,
            "version": _VERSION,
            "where": self.where,
            "what": self.what,
            "numbers": self.numbers,
            "partitions": [portion.to_json() for portion in self],
        }

    def _whole(self) -> Json:
        """The checkpoint of a stream that has read all of it."""
        where = self.where or {}
        done = Progress(slots=ALL_SLOTS) if where.get("kind") == "cluster" else Progress(done=True)
        databases = {
            int(db) for portion in self if portion.checkpoint for db in portion.checkpoint["databases"]
        }
        return Checkpoint(where, self.what, dict.fromkeys(sorted(databases), done)).to_json()


def are_portions(checkpoint: Json | None) -> bool:
    """Whether a manifest's checkpoint is of partitions, and not of one stream."""
    return checkpoint is not None and checkpoint.get("oneatatime") == _KIND


def _portion_of_json(data: Json, deployment: Deployment, of: int, *, all_dbs: bool) -> Portion:
    partition = Partition(
        deployment,
        int(data["index"]),
        of,
        start=int(data["start"]),
        end=int(data["end"]),
        slots=None if data["slots"] is None else slots_of_json(data["slots"]),
        run_id=data["run_id"],
        all_dbs=all_dbs,
        dbs=None if data["dbs"] is None else tuple(map(int, data["dbs"])),
    )
    return Portion(partition, data["checkpoint"], done=bool(data["done"]))
