"""Files of records -> batches: one, or a folder of parts, read in a thread beside the writing."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, BinaryIO, cast

from ._errors import FileFailure, InvalidInput
from ._feed import Feed, Numbered
from ._files import Files, located
from ._manifest import NAME as MANIFEST
from ._manifest import Manifest
from ._options import MiB
from .formats import Format, decompressed, format_of, reader

_BLOCK = 1 * MiB
_ANYWHERE = ("parquet", "arrow")
"""Formats whose end says where everything is: their files are read at any place."""


@dataclass(frozen=True)
class Place:
    """One file to read: in a folder, or `stream`, which is open already. `name` is for messages.

    `sha256` is the sum of its bytes, where a manifest tells it.
    """

    name: str
    size: int
    files: Files | None = None
    path: str = ""
    stream: BinaryIO | None = None
    sha256: str | None = None

    def format(self, given: str | None) -> Format:
        """Its format, by its name's ending, or as it is given."""
        if self.stream is None:
            return format_of(self.path, given)
        if given is None:
            raise InvalidInput("an open file tells no format: give one, such as format='jsonl'")
        found = format_of("", given)
        if found.name in _ANYWHERE and not self.stream.seekable():
            raise InvalidInput(f"{found.name} is read from its end: give a file, not a pipe")
        return found

    def open(self) -> BinaryIO:
        """The file, open at its beginning."""
        if self.stream is not None:
            return self.stream
        assert self.files is not None, "what is not open is in a folder"
        return self.files.open(self.path)


def places_of(source: object) -> list[Place]:
    """The files that a path, a URL or an open file means; of a folder those that its manifest names.

    Raises InvalidInput where there are none, and for an export that is not complete.
    """
    if not isinstance(source, str | os.PathLike):
        return [Place("the open file", 0, stream=cast(BinaryIO, source))]
    files, name = located(source)
    if name:
        try:
            return [Place(files.path(name), files.size(name), files, name)]
        except FileFailure as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise InvalidInput(f"there is no file {files.path(name)}") from error
            raise
    manifest = Manifest.read(files)
    sums: dict[str, str] = {}
    if manifest is None:
        names = [one for one in files.names() if one[0] not in "._" and not one.endswith(".json")]
    else:
        sums = {part.name: part.sha256 for part in _checked(manifest, files)}
        names = list(sums)
    if not names:
        raise InvalidInput(f"the folder {files.where or '.'} holds no files to import")
    return [Place(files.path(one), files.size(one), files, one, sha256=sums.get(one)) for one in names]


def _checked(manifest: Manifest, files: Files) -> Any:
    """The parts of an export, all of it, and each as long as it was when it was written."""
    if not manifest.complete:
        text = f"{files.path(MANIFEST)}: the export is not complete"
        raise InvalidInput(f"{text}; the command that began it goes on with it")
    there = set(files.names())
    for part in manifest.parts:
        size = files.size(part.name) if part.name in there else None
        if size != part.bytes:
            found = "missing" if size is None else f"{size:,} bytes long, and had {part.bytes:,}"
            raise InvalidInput(f"{files.path(part.name)} is {found}: the export is damaged")
    return manifest.parts


class File(Feed):
    """One file of records, from record `start` on: the next batch is read while the last one is written.

    Where its sum is known, it is compared before the end is told; before anything else in a file that is read
    at any place.
    """

    def __init__(self, place: Place, format: str | None, start: int = 0) -> None:  # noqa: A002
        self.name = place.name
        self._place = place
        self._format = format
        self._start = start
        self._batches: Iterator[Numbered] | None = None
        self._close: Callable[[], None] = _nothing
        self._summed: _Summed | None = None
        self._where: Callable[[int], str] | None = None  # in the file a record stands
        self._ahead: asyncio.Future[Numbered | None] | None = None

    async def next(self) -> Numbered | None:
        loop = asyncio.get_running_loop()
        if self._ahead is None:
            self._ahead = loop.run_in_executor(None, self._step)
        await asyncio.wait([self._ahead])  # cancelled or not, `close` still knows of it
        found = self._ahead.result()
        self._ahead = None if found is None else loop.run_in_executor(None, self._step)
        return found

    async def go_back(self, number: int) -> None:
        await self.close()
        if self._place.stream is not None:
            if not self._place.stream.seekable():
                text = "a connection was lost in the middle of a big value, and a pipe cannot be read again"
                raise InvalidInput(f"{text}: import from a file")
            self._place.stream.seek(0)
        self._start = number

    async def close(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await asyncio.wait([ahead])  # a thread cannot be stopped, and it holds the file
            if not ahead.cancelled():
                ahead.exception()
        self._close()
        self._close, self._batches = _nothing, None

    def place(self, number: int) -> str:
        return super().place(number) if self._where is None else f"{self.name}, {self._where(number)}"

    def _step(self) -> Numbered | None:
        if self._batches is None:
            self._batches = self._opened()
        found = next(self._batches, None)
        if found is None and self._summed is not None:
            self._check(self._summed.rest())
        return found

    def _check(self, digest: str) -> None:
        if digest != self._place.sha256:
            text = "is not what was written: its SHA-256 is another one than the manifest says"
            raise InvalidInput(f"{self.name} {text}; the export is damaged")

    def _opened(self) -> Iterator[Numbered]:
        """The batches behind the first `start` records."""
        how = self._place.format(self._format)
        raw = self._place.open()
        if self._place.stream is None:
            self._close = raw.close
        if self._place.sha256 is not None:
            if how.name in _ANYWHERE:
                self._check(_sum_of(raw))
                raw.seek(0)
                self._place = replace(self._place, sha256=None)  # proven, also where it is opened again
            else:
                self._summed = _Summed(raw)
                raw = cast(BinaryIO, io.BufferedReader(self._summed, _BLOCK))
        file = decompressed(raw, how.compression, self.name)
        opened = reader(how, file, self.name)
        self._where = opened.place
        return opened.batches(self._start)


class _Summed(io.RawIOBase):
    """A file that is read from its beginning, and the SHA-256 of what has been."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._sum.update(data)
        return len(data)

    def rest(self) -> str:
        """The sum of all of it: what has not been read is."""
        while block := self._file.read(_BLOCK):
            self._sum.update(block)
        return self._sum.hexdigest()


def _sum_of(file: BinaryIO) -> str:
    return _Summed(file).rest()


def _nothing() -> None:
    """Nothing is open."""
