"""What is imported, batch by batch: records of somebody's own, or of a stream, or of files.

A feed gives each batch with the number of its first record, and can go back to a record: to the first piece
of a value whose later pieces were lost on their way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import Any

from ._gathered import batch_of, gathered
from ._pieces import pieces_of
from ._record import Batch, Parts, Piece, Record

Numbered = tuple[int, Batch]


class Feed(ABC):
    """Batches one after the other. `name` says in messages what they are of."""

    name: str

    @abstractmethod
    async def next(self) -> Numbered | None:
        """The next batch and the number of its first record; None at the end."""

    @abstractmethod
    async def go_back(self, number: int) -> None:
        """Goes on with this record, the first piece of the value that was given last."""

    @abstractmethod
    async def close(self) -> None:
        """Lets go of what it holds."""

    def place(self, number: int) -> str:
        """Where the record of this number stands, in words for messages."""
        return f"{self.name}, record {number + 1:,}"


class Live(Feed):
    """Records, or lists of records, of any iterable. A value that is `Parts` becomes pieces.

    `patience`: the seconds for which the server that such a value comes from may be gone.
    """

    name = "the records"

    def __init__(self, records: Any, patience: float = 0.0) -> None:
        self._batches = gathered(records)
        self._patience = patience
        self._number = 0
        self._waiting: Batch | None = None
        self._big: Record | None = None
        self._pieces: AsyncGenerator[tuple[Record, Piece | None], None] | None = None

    async def next(self) -> Numbered | None:
        while True:
            if self._pieces is not None:
                given = await anext(self._pieces, None)
                if given is not None:
                    record, piece = given
                    return self._counted(batch_of([record], None if piece is None else [piece]))
                self._pieces = None
            if self._waiting is None:
                self._waiting = await anext(self._batches, None)
                if self._waiting is None:
                    return None
            batch, end = self._waiting, len(self._waiting)
            whole = next((row for row, one in enumerate(batch.values) if isinstance(one, Parts)), end)
            rest = whole or 1
            self._waiting = batch.of(list(range(rest, end))) if rest < end else None
            if whole:
                return self._counted(batch if whole == end else batch.of(list(range(whole))))
            self._big = batch.record(0)
            self._pieces = pieces_of(self._big, self._patience)

    async def go_back(self, number: int) -> None:
        assert self._big is not None, "only big values come in pieces"
        if self._pieces is not None:
            await self._pieces.aclose()
        self._number = number
        self._pieces = pieces_of(self._big, self._patience)

    async def close(self) -> None:
        if self._pieces is not None:
            await self._pieces.aclose()
        await self._batches.aclose()

    def _counted(self, batch: Batch) -> Numbered:
        number, self._number = self._number, self._number + len(batch)
        return number, batch
