"""Lines -> records: strict, so that nothing of a file is lost in silence, and in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from .._errors import InvalidInput
from .._json import rows as rows_of
from .._options import KiB
from .._record import Batch
from ._format import Reader
from ._json_row import BOM, Row, Unreadable, row_of

_BLOCK = 256 * KiB


class JsonLinesReader(Reader):
    """The lines of a file, a block at a time; a line that is longer is held whole."""

    def batches(self, start: int = 0) -> Iterator[tuple[int, Batch]]:
        number = 0
        for block in _blocks(self.file):
            count = block.count(b"\n") + (not block.endswith(b"\n"))
            if number + count > start:
                skipped = max(start - number, 0)
                wanted = block.split(b"\n", skipped)[-1] if skipped else block
                yield from self._batches_of(wanted, number + skipped)
            number += count

    def place(self, number: int) -> str:
        return f"line {number + 1:,}"

    def _batches_of(self, block: bytes, number: int) -> Iterator[tuple[int, Batch]]:
        """A batch of the lines up to the first that cannot be read; then its error."""
        rows: list[Row] = []
        try:
            for line in rows_of(block):
                row = line if line.__class__ is tuple else row_of(line)
                rows.append(row)
        except Unreadable as error:
            if rows:
                yield number, _batch(rows)
            where = f"{self.name}, {self.place(number + len(rows))}"
            cut = "" if block.endswith(b"\n") else "; the line has no end: the file is cut off there"
            raise InvalidInput(f"{where}: {error}{cut}") from error
        if rows:
            yield number, _batch(rows)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, about a block at a time, without the BOM before them. The last one may have no end."""
    begin = file.read(len(BOM))
    held = [begin] if begin != BOM else []
    while block := file.read(_BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*held, block[:end]])
            held = []
        held.append(block[end:])
    last = b"".join(held)
    if last:
        yield last


def _batch(rows: list[Row]) -> Batch:
    keys, types, values, databases, moments, details, pieces = map(list, zip(*rows))
    metadata: dict[str, list[Any]] = {"db": databases, "expires_at": moments, "details": details}
    nothing = [None] * len(rows)
    known = {name: column for name, column in metadata.items() if column != nothing}
    batch = Batch(keys, types[0] if len(set(types)) == 1 else types, values, metadata=known or None)
    batch.size = sum(map(len, keys))
    if pieces != nothing:
        batch.pieces = pieces
    return batch
