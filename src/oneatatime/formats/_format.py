"""What a format can do: the one interface between records and the bytes of a file.

A format does no network and no waiting: a writer turns batches into bytes of a file that is open, a reader
turns bytes back into batches. Which file that is, where it stands, and when it is whole is the affair of
rooms above.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from .._record import Batch, Piece, Record


class Writer(ABC):
    """Records into one file. Whoever opened the file closes it.

    Keys, strings and fields are bytes, unless the format is one of text columns. A batch holds no `Parts`:
    of a value too big to hold each piece is written by itself, and pieces of a key stand together. Where they
    begin again at 0, they replace those before. `left_out` counts the keys that were given and are not in the
    file, because it has no place for them and whoever gave them wanted that.
    """

    left_out = 0

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    @property
    def unfit(self) -> Mapping[str, int]:
        """What there was no place for, by reason."""
        return {"records": self.left_out} if self.left_out else {}

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Adds whole records. Raises InvalidInput, with the key, for what the format cannot hold."""

    @abstractmethod
    def write_piece(self, record: Record, piece: Piece) -> None:
        """Adds a piece of a value: `record.value` is the piece, in the form of a whole value of its type."""

    @abstractmethod
    def finish(self) -> None:
        """Writes what still waits, and what says that the file is whole."""


class Reader(ABC):
    """What a writer wrote, as batches of records, pieces among them.

    `name` is the file's, for messages. A reader of a damaged, cut off or foreign file raises InvalidInput,
    which says the file, and where in it: "line 17" or "row 1,200".
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name

    @abstractmethod
    def batches(self, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """Batches after the first `start` records, each with the number of its first record, from 0."""

    @abstractmethod
    def place(self, number: int) -> str:
        """Where the record of this number stands, in words for messages: "line 18", "row 17"."""
