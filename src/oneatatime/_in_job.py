"""What a process of an export does: reads partitions, one after the other, and writes whole parts of them.

It says what it has written, and the parent writes that down: a part is under its name first, and named in
the manifest then. What a kill leaves between the two is a stray, and the parent removes it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._blocking import aside
from ._checkpoint import Checkpoint
from ._errors import InvalidInput
from ._files import Files, NewFile
from ._in_child import Parent
from ._layout import Layout
from ._manifest import Manifest, Part, part_name
from ._options import EXPORT_AHEAD, Options
from ._partition import Partition
from ._record import Batch
from ._sealed import Json
from ._sink import Parts
from ._statistics import Statistics
from ._stream import Stream, stream
from ._transfer import Transfer
from .formats import Format

_TELL_EVERY = 0.2  # seconds


@dataclass(frozen=True)
class Job:
    """How each partition is read and written. `selected`: arguments of `stream` that choose what is read."""

    files: Files
    format: Format
    layout: Layout
    how: Mapping[str, Any]
    part_bytes: int
    selected: Mapping[str, Any]


class Order(NamedTuple):
    """A partition, from where a checkpoint of it is. `where`: the deployment that the others are of."""

    partition: Partition
    checkpoint: Json | None
    where: Json | None


class Report(NamedTuple):
    """How far a partition is; with a `part`, one more that is whole, and the checkpoint of what is in it.

    `over`: all that came of it is in parts; `whole`: and nothing of it was skipped.
    """

    statistics: Statistics
    part: Part | None = None
    checkpoint: Json | None = None
    left_out: Mapping[str, int] | None = None
    over: bool = False
    whole: bool = False


def selected_stream(
    source: object, selected: Mapping[str, Any], asked: Mapping[str, Any], checkpoint: Json | None
) -> Stream:
    """The stream of what an export's arguments select, and its layout has `asked` for.

    Raises InvalidInput where they make no sense.
    """
    if "metadata" in selected or "resume" in selected:
        text = "an export asks for the metadata it needs, and resumes by its folder's manifest"
        raise InvalidInput(text)
    options = selected.get("options") or Options(ahead=EXPORT_AHEAD)
    return stream(source, **{**selected, **asked, "options": options}, resume=checkpoint)


async def export_partitions(parent: Parent, job: Job, number: int) -> None:
    """Exports what the parent gives, until it gives None. The next part has this number."""
    while (order := await parent.receive()) is not None:
        number = await _export(parent, job, order, number)


async def _export(parent: Parent, job: Job, order: Order, number: int) -> int:
    """Exports a partition. Returns the number of the part that comes next."""
    asked = job.layout.asked(job.format)
    checkpoint = order.checkpoint
    if checkpoint is None and order.where is not None:
        fresh = selected_stream(order.partition, job.selected, asked, None).checkpoint()
        checkpoint = Checkpoint.of_json(fresh)._replace(where=order.where).to_json()
    source = selected_stream(order.partition, job.selected, asked, checkpoint)
    transfer = Transfer(job.layout, source)
    sink = _SentParts(parent, job, transfer, number)
    await transfer.run(sink)
    statistics = source.statistics()
    whole = statistics.finished and not statistics.skipped
    report = Report(
        statistics, checkpoint=source.checkpoint(), left_out=sink.left_out, over=True, whole=whole
    )
    await parent.send(report)
    return sink.number


class _SentParts(Parts):
    """Parts of a folder of which the parent keeps the manifest, and says their numbers."""

    def __init__(self, parent: Parent, job: Job, transfer: Transfer, number: int) -> None:
        super().__init__(job.files, Manifest({}), job.format, job.how, job.part_bytes, transfer)
        self.number = number
        self._parent = parent
        self._transfer = transfer
        self._told = time.monotonic()
        self._last = False

    @property
    def left_out(self) -> dict[str, int]:
        """What is not in the parts, by reason."""
        return self._left_out()

    async def add(self, batch: Batch) -> None:
        await super().add(batch)
        if time.monotonic() > self._told + _TELL_EVERY:
            self._told = time.monotonic()
            await self._parent.send(Report(self._statistics()))

    async def finish(self, *, complete: bool) -> None:
        if self._waiting or self._writing is not None:
            await self._commit()

    async def break_off(self) -> None:
        self._last = True  # the parent gives no more numbers
        await super().break_off()

    def _file(self) -> NewFile:
        return self._files.new(part_name(self.number, self._format.extension))

    async def _commit(self) -> None:
        await self._flush()
        checkpoint = self._transfer.checkpoint()
        part = await aside(self._whole)
        await self._parent.send(Report(self._statistics(), part, checkpoint, self.left_out))
        if not self._last:
            self.number = await self._parent.receive()

    def _statistics(self) -> Statistics:
        assert self._transfer.stream is not None, "a partition is read by a stream"
        return self._transfer.stream.statistics()
