"""What a process of a stream does: reads partitions, one after the other, and sends batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._checkpoint import Progress
from ._in_child import Parent
from ._options import Options, Selection
from ._packed import Fields, pack
from ._partition import Partition
from ._reader import Reader
from ._reading import Reading, Shape
from ._record import Batch
from ._statistics import Statistics
from ._work import Work
from .datatypes import values_of

_TELL_EVERY = 0.1  # seconds


@dataclass(frozen=True)
class Job:
    """How each partition is read. `names`: the keys are wanted as bytes, too."""

    selection: Selection
    options: Options
    names_only: bool
    names: bool


class Report(NamedTuple):
    """How far a partition is with all that was sent before this. `over`: it was read to its end."""

    progress: dict[int, Progress]
    fraction: float
    statistics: Statistics
    over: bool = False


def _whole(keys: Iterator[Any], batch: Batch) -> Iterator[Batch]:
    """A batch as it is, with the errors in it, or the news alone that come with it."""
    deque(keys, maxlen=0)  # with the batch the loop has all of it
    return iter([batch])


class _Wholes:
    """A view of a reading that takes batches so."""

    def __init__(self) -> None:
        self.items: Iterator[Batch] = iter(())
        self.shape: Shape = _whole


async def read_partitions(parent: Parent, job: Job) -> None:
    """Reads what the parent gives, a partition and what of it is done already, until it gives None."""
    while (order := await parent.receive()) is not None:
        partition, done = order
        await _read(parent, job, partition, done)


async def _read(parent: Parent, job: Job, partition: Partition, done: dict[int, Progress]) -> None:
    work = Work(partition.deployment, job.options, job.selection, names_only=job.names_only)
    work.keep_names = job.names
    reader = Reader(work, None, partition, done=done)
    reading, view = Reading(reader), _Wholes()
    told, fields = time.monotonic(), Fields()
    try:
        with suppress(StopAsyncIteration):
            while True:
                batch = await reading.refill(view)
                if time.monotonic() > told + _TELL_EVERY:
                    await parent.send(Report(reader.progress, reader.fraction, reading.statistics()))
                    told = time.monotonic()
                if len(batch):
                    values = list(values_of(batch)) if batch.values else []
                    await parent.send(pack(batch, values, fields, names=job.names))
        await parent.send(Report(reader.progress, 1.0, reading.statistics(), over=True))
    finally:
        await reading.aclose()
