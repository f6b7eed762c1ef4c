"""One file that is being written: records through a format, and a compression, to where its bytes go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from ._files import NewFile
from ._manifest import Part
from ._record import Batch
from .formats import Format, compressed, writer


class Writing:
    """A file of `format` over `file`."""

    def __init__(self, file: NewFile | BinaryIO, format: Format, how: Mapping[str, Any]) -> None:  # noqa: A002
        self.file = file
        self._given = 0
        self._body = compressed(cast(BinaryIO, file), format.compression)
        self._writer = writer(format, self._body, **how)

    @property
    def size(self) -> int:
        """The bytes of it so far, as far as the format has let go of them."""
        return self.file.size if isinstance(self.file, NewFile) else 0

    @property
    def records(self) -> int:
        """The keys that are in it: a value in pieces is one, at its last piece."""
        return self._given - self._writer.left_out

    @property
    def unfit(self) -> Counter[str]:
        """What the format had no place for, by reason."""
        return Counter(self._writer.unfit)

    def write(self, batches: list[Batch]) -> None:
        """Adds records; those with pieces are batches of one."""
        for batch in batches:
            self._write_one(batch)
            self._given += batch.whole

    def _write_one(self, batch: Batch) -> None:
        if batch.pieces is None:
            self._writer.write(batch)
            return
        for row, piece in enumerate(batch.pieces):
            assert piece is not None, "whole records and pieces come in batches of their own"
            self._writer.write_piece(batch.record(row), piece)

    def finish(self) -> None:
        """All of it is with `file`, which is told nothing of its end."""
        self._writer.finish()
        if self._body is not self.file:
            self._body.close()

    def committed(self) -> Part:
        """The file under its name, and what is to be said of it."""
        assert isinstance(self.file, NewFile), "only a file of ours can be committed"
        self.finish()
        self.file.commit()
        return Part(self.file.name, self.records, self.file.size, self.file.digest())
