"""What an item is: of a batch come pairs, values, keys, records, or lists of records."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

from ._errors import Error, InvalidInput
from ._record import Batch, Record
from .datatypes import values_of


def pairs(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(zip(keys, _read(batch)), batch)


def values(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(map(itemgetter(1), zip(keys, _read(batch))), batch)


def names(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(keys, batch)


def records(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(_all_records(keys, batch), batch)


def _rows(items: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return items if batch.failed is None else _Failing(items, batch.failed)


def _all_records(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    types = itertools.repeat(batch.types) if isinstance(batch.types, str) else batch.types
    columns = batch.metadata or {}
    metadata = [columns.get(name) or itertools.repeat(None) for name in Record._fields[3:]]
    return map(Record, keys, types, _read(batch), *metadata)


def batches(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    records = _all_records(keys, batch)
    if not len(batch):  # it only brings the news of how far the loop is
        return iter(())
    return iter([list(records)]) if batch.failed is None else _Runs(records, batch.failed)


def wholes(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    """The batch itself, or what of it stands before, between and after rows that are errors."""
    if not len(batch):
        return iter(())
    _read(batch)
    if batch.failed is None:
        return _all_at_once(keys, batch)
    rows = map(itemgetter(1), zip(keys, itertools.count()))
    return map(batch.of, _Runs(rows, batch.failed))


def _all_at_once(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    deque(keys, maxlen=0)  # with the batch the loop has all of it
    yield batch


def _read(batch: Batch) -> Iterable[Any]:
    if len(batch.values) < len(batch):
        text = "the stream was begun by keys(), which reads no values: read them with a stream of their own"
        raise InvalidInput(text)
    return values_of(batch)


class _Failing:
    """Items of a batch in which some rows are errors: each is raised in its place, and costs only itself."""

    def __init__(self, items: Iterator[Any], failed: dict[int, Error]) -> None:
        self._items = items
        self._failed = failed
        self._row = -1

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self._row += 1
        if self._row in self._failed:
            raise self._failed[self._row]
        return item


class _Runs:
    """Lists of records, cut where a row is an error."""

    def __init__(self, records: Iterator[Any], failed: dict[int, Error]) -> None:
        self._records = _Failing(records, failed)
        self._lengths = [after - before - 1 for before, after in itertools.pairwise([-1, *sorted(failed)])]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> list[Any]:
        if self._lengths and self._lengths[0]:
            run = list(itertools.islice(self._records, self._lengths[0]))
            self._lengths[0] = 0
            return run
        if self._lengths:
            del self._lengths[0]
            next(self._records)  # raises the error
        if last := list(self._records):
            return last
        raise StopIteration
