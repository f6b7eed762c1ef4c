"""Where an export's records go: one file, or a folder of parts with a manifest that says how far it is.

Records gather until there is enough for a hop to a thread; there they become bytes. What has been written
stands in `manifest` only when it is whole and under its name.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO, Protocol

from ._blocking import aside
from ._files import Files, NewFile
from ._manifest import Manifest, Part, part_name
from ._options import PART_SECONDS
from ._outfile import Writing
from ._record import Batch
from ._sealed import Json
from .formats import Format

_AT_ONCE = 1024 * 1024
"""Bytes of records that become a file's bytes at a time: a hop to a thread costs 0.1 ms."""


class Source(Protocol):
    """Where the records come from, as far as a manifest tells of it."""

    def checkpoint(self) -> Json | None:
        """What of it has been finished with; None where nobody can know."""

    def left_out(self) -> dict[str, int]:
        """What it had and could not give, by reason."""


class Sink(ABC):
    """Takes batches. `unfit` counts what the format had no place for, by reason."""

    def __init__(self, format: Format, how: Mapping[str, Any]) -> None:  # noqa: A002 - the word for it
        self.unfit: Counter[str] = Counter()
        self._format = format
        self._how = how
        self._waiting: list[Batch] = []
        self._weight = 0
        self._at_once = _AT_ONCE
        self._writing: Writing | None = None

    @property
    @abstractmethod
    def written(self) -> tuple[int, int, int]:
        """How many records, bytes and files are whole by now."""

    async def add(self, batch: Batch) -> None:
        """Takes a batch; those before it have been finished with. Raises FileFailure, or InvalidInput."""
        self._waiting.append(batch)
        self._weight += batch.weight
        if self._weight >= self._at_once or batch.pieces is not None:  # a piece is big enough
            await self._flush()

    @abstractmethod
    async def finish(self, *, complete: bool) -> None:
        """All has come. `complete`: nothing is missing."""

    @abstractmethod
    async def break_off(self) -> None:
        """No more comes, by an error of whoever gave it: keeps what can be kept."""

    async def abandon(self) -> None:
        """Leaves nothing of the file that is being written."""
        writing, self._writing = self._writing, None
        if writing is not None and isinstance(writing.file, NewFile):
            await aside(writing.file.abandon)

    async def _flush(self) -> None:
        batches, self._waiting, self._weight = self._waiting, [], 0
        await aside(self._write, batches)

    def _write(self, batches: list[Batch]) -> None:
        if self._writing is None:
            self._writing = self._opened()
        self._writing.write(batches)

    def _opened(self) -> Writing:
        file = self._file()
        try:
            return Writing(file, self._format, self._how)
        except BaseException:
            if isinstance(file, NewFile):
                file.abandon()
            raise

    @abstractmethod
    def _file(self) -> NewFile | BinaryIO:
        """The next file to be written."""


class OneFile(Sink):
    """A single file: under its name when it is whole, or not at all."""

    def __init__(self, files: Files, name: str, format: Format, how: Mapping[str, Any]) -> None:  # noqa: A002
        super().__init__(format, how)
        self._files = files
        self._name = name
        self._done = (0, 0, 0)

    @property
    def written(self) -> tuple[int, int, int]:
        return self._done

    async def finish(self, *, complete: bool) -> None:
        await self._flush()
        writing = self._writing
        assert writing is not None, "a file without records is one too"
        part = await aside(writing.committed)
        self._writing = None
        self.unfit += writing.unfit
        self._done = (part.records, part.bytes, 1)

    async def break_off(self) -> None:
        await self.abandon()

    def _file(self) -> NewFile:
        return self._files.new(self._name)


class OpenFile(Sink):
    """A file that is open, and may be a terminal: it is written in the loop. `closes` it at the end."""

    def __init__(
        self,
        file: BinaryIO,
        format: Format,  # noqa: A002
        how: Mapping[str, Any],
        *,
        closes: bool = False,
    ) -> None:
        super().__init__(format, how)
        self._to = file
        self._closes = closes
        self._done = (0, 0, 0)

    @property
    def written(self) -> tuple[int, int, int]:
        return self._done

    async def finish(self, *, complete: bool) -> None:
        await self._flush()
        writing = self._writing
        assert writing is not None, "a file without records is one too"
        writing.finish()
        self.unfit += writing.unfit
        self._done = (writing.records, 0, 1)
        await self.break_off()

    async def break_off(self) -> None:
        """What was written is out of our hands."""
        if self._closes:
            self._to.close()

    async def add(self, batch: Batch) -> None:
        self._write([batch])

    async def _flush(self) -> None:
        self._write([])

    def _file(self) -> BinaryIO:
        return self._to


class Parts(Sink):
    """A folder of parts of about `part_bytes`, with a manifest that tells of the `source`."""

    def __init__(
        self,
        files: Files,
        manifest: Manifest,
        format: Format,  # noqa: A002
        how: Mapping[str, Any],
        part_bytes: int,
        source: Source,
    ) -> None:
        super().__init__(format, how)
        self.manifest = manifest
        self._before = Counter(manifest.left_out)
        self._files = files
        self._part_bytes = part_bytes
        self._source = source
        self._at_once = min(_AT_ONCE, part_bytes)
        self._begun: float | None = None  # when the first record of this part came
        self._inside = False  # of a value whose last piece has not come

    @property
    def written(self) -> tuple[int, int, int]:
        return self.manifest.total

    async def begin(self) -> None:
        """Clears away what a killed run has left beside, and writes what is about to be done."""
        await aside(self.manifest.begin, self._files)

    async def add(self, batch: Batch) -> None:
        if not batch.continues and self._is_full():  # everything before this batch has been finished with
            await self._commit()
        self._inside = batch.goes_on
        if self._begun is None:
            self._begun = time.monotonic()
        await super().add(batch)

    async def finish(self, *, complete: bool) -> None:
        if self._waiting or self._writing is not None or (complete and not self.manifest.parts):
            await self._commit()  # an empty database is a part without records
        if complete:
            self.manifest = replace(self.manifest, complete=True, left_out=self._left_out())
            await aside(self.manifest.write, self._files)

    async def break_off(self) -> None:
        if self._inside:  # a part holds whole values alone, and what was written cannot be taken back
            await self.abandon()
        elif self._waiting or self._writing is not None:
            await self._commit()

    def _file(self) -> NewFile:
        return self._files.new(part_name(self.manifest.next_number, self._format.extension))

    def _is_full(self) -> bool:
        if self._begun is not None and time.monotonic() > self._begun + PART_SECONDS:
            return True
        return self._writing is not None and self._writing.size >= self._part_bytes

    async def _commit(self) -> None:
        await self._flush()
        await aside(self._commit_now, self._source.checkpoint())

    def _commit_now(self, checkpoint: Json | None) -> None:
        """The part under its name, and then in the manifest: at one go, whoever stops waiting for it."""
        part = self._whole()
        self.manifest = replace(self.manifest.with_part(part, checkpoint), left_out=self._left_out())
        self.manifest.write(self._files)

    def _whole(self) -> Part:
        """The part that was being written, under its name."""
        writing, self._writing, self._begun = self._writing, None, None
        assert writing is not None, "what is flushed is written"
        try:
            part = writing.committed()
        except BaseException:
            if isinstance(writing.file, NewFile):
                writing.file.abandon()
            raise
        self.unfit += writing.unfit
        return part

    def _left_out(self) -> dict[str, int]:
        """What is not in it, by reason: left out by the runs before, by the source, by the format."""
        return dict(self._before + Counter(self._source.left_out()) + self.unfit)
