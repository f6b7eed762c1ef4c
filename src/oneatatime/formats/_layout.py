"""Batches -> Arrow: what the layouts have in common, and arrays of lists of words without a loop a row."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from .._errors import InvalidInput
from .._record import Batch, Piece
from .._resp import buffers
from ._schema import arrow

_MOST_NULLS = 1 << 16
_MOST_BYTES = 1 << 31
"""Of a column: what 32-bit offsets and a page of Parquet can tell."""


class TooMuch(Exception):
    """More bytes than 32-bit offsets can tell in one array: fewer rows at a time will do."""


class Layout(ABC):
    """What a row is. `schema` is that of all batches; `unfit` counts by column what became null there."""

    schema: Any

    def __init__(self) -> None:
        self.unfit: Counter[str] = Counter()

    @abstractmethod
    def table(self, batch: Batch) -> Any:
        """A batch as a RecordBatch; pieces come in their order. Raises TooMuch."""

    def batches(self, batch: Batch) -> Iterator[Any]:
        """A batch as RecordBatches, several where one cannot hold so many bytes.

        Raises InvalidInput, with the key, for what the layout cannot hold.
        """
        try:
            yield self.table(batch)
        except TooMuch as error:
            if len(batch) == 1:
                text = "it has 2 GiB or more, which an Arrow column does not hold: export it as JSON lines"
                raise InvalidInput(text, key=batch.keys[0]) from error
            middle = len(batch) // 2
            yield from self.batches(batch.of(list(range(middle))))
            yield from self.batches(batch.of(list(range(middle, len(batch)))))
        except (UnicodeError, arrow().ArrowInvalid, arrow().ArrowTypeError) as error:
            self._blame(batch, error)

    def _blame(self, batch: Batch, error: Exception) -> None:
        """Raises InvalidInput for the first row that does not fit by itself."""
        for row in range(len(batch)):
            try:
                self.table(batch.of([row]))
            except (UnicodeError, arrow().ArrowInvalid, arrow().ArrowTypeError) as reason:
                text = f"it is not UTF-8, as columns of text are: leave out encoding=, or this key ({reason})"
                raise InvalidInput(text, key=batch.keys[row]) from reason
        raise error


def words(found: Sequence[Any], kind: Any) -> Any:
    """An array of bytes or str. Raises TooMuch where they are too many for its offsets."""
    pa = arrow()
    try:
        made = _joined_words(found, kind)
    except TypeError:  # str, or nothing, among them
        try:
            made = pa.array(found, kind)
        except pa.ArrowCapacityError as error:
            raise TooMuch from error
    if isinstance(made, pa.ChunkedArray) or made.nbytes >= _MOST_BYTES:
        raise TooMuch
    return made


def _joined_words(found: Sequence[bytes], kind: Any) -> Any:
    """The same of bytes alone, made of its buffers: pa.array would import pandas, which takes 0.5 s."""
    pa = arrow()
    wide = kind in (pa.large_binary(), pa.large_string())
    try:
        data, ends = buffers(found, wide)
    except OverflowError as error:
        raise TooMuch from error
    made = pa.Array.from_buffers(kind, len(found), [None, pa.py_buffer(ends), pa.py_buffer(data)])
    if kind in (pa.string(), pa.large_string()):
        made.validate(full=True)
    return made


def offsets(lengths: Iterable[int]) -> Any:
    """Where each of several lists begins among the elements of all, and where the last one ends."""
    try:
        found = array("i", itertools.accumulate(lengths, initial=0))
    except OverflowError as error:
        raise TooMuch from error
    return _of_buffer(arrow().int32(), found)


def nulls(kind: Any, rows: int) -> Any:
    """A column without values."""
    return _nulls(kind).slice(0, rows) if rows <= _MOST_NULLS else arrow().nulls(rows, kind)


@lru_cache(maxsize=128)
def _nulls(kind: Any) -> Any:
    return arrow().nulls(_MOST_NULLS, kind)


def numbers(found: Sequence[int | None], kind: Any) -> Any:
    """A column of whole numbers, null where there is none."""
    code = "q" if kind == arrow().int64() else "i"
    if None not in found:
        return _of_buffer(kind, array(code, found))
    return _of_buffer(kind, array(code, [one or 0 for one in found]), found)


def truths(found: Sequence[bool | None]) -> Any:
    """A column of true and false, null where there is neither."""
    pa = arrow()
    known = [pa.py_buffer(_bits([one is not None for one in found])), pa.py_buffer(_bits(found))]
    return pa.Array.from_buffers(pa.bool_(), len(found), known)


def floats(found: Iterable[float]) -> Any:
    """A column of doubles."""
    return _of_buffer(arrow().float64(), array("d", found))


def _of_buffer(kind: Any, values: Any, known: Sequence[Any] | None = None) -> Any:
    pa = arrow()
    valid = None if known is None else pa.py_buffer(_bits([one is not None for one in known]))
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])


def _bits(found: Sequence[Any]) -> bytes:
    """A bit for each, the first one lowest."""
    written = "".join(["1" if one else "0" for one in reversed(found)]) or "0"
    return int(written, 2).to_bytes(len(found) // 8 + 1, "little")


def spread(column: Any, rows: list[int], of: int) -> Any:
    """The column's elements in these rows of so many, null in all others."""
    places: list[int | None] = [None] * of
    for place, row in enumerate(rows):
        places[row] = place
    return column.take(numbers(places, arrow().int32()))


def by_type(batch: Batch) -> dict[str, list[int]]:
    """The rows of each type."""
    found: dict[str, list[int]] = {}
    for row, kind in enumerate(batch.types):
        found.setdefault(kind, []).append(row)
    return found


def types_column(batch: Batch) -> Any:
    """The column `type`."""
    if isinstance(batch.types, str) and len(batch) <= _MOST_NULLS:
        return _repeated(batch.types).slice(0, len(batch))
    types = [batch.types] * len(batch) if isinstance(batch.types, str) else batch.types
    return words([name.encode() for name in types], arrow().string())


@lru_cache(maxsize=32)
def _repeated(name: str) -> Any:
    return words([name.encode()] * _MOST_NULLS, arrow().string())


def known(batch: Batch, name: str) -> list[Any] | None:
    """A column of the batch's metadata, or None where nothing stands in it."""
    found = (batch.metadata or {}).get(name)
    return None if found is None or found.count(None) == len(found) else found


def piece_of(batch: Batch) -> Piece | None:
    """Which piece of a value the batch is, if it is one: a piece is a batch by itself."""
    return batch.pieces[0] if batch.pieces else None
