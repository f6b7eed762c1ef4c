"""The layout "elements": a row is a field, a member, an element, or the field of an entry. For analysis."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .._record import Batch, Opaque
from ..datatypes import values_of
from ._json_form import document
from ._layout import Layout, known, nulls, numbers, piece_of, types_column, words
from ._records import pairs_of
from ._schema import arrow, elements_schema

_Column = dict[str, list[Any]]


class Elements(Layout):
    """Pieces of a big value are rows like any others: a place in a list goes on counting from piece to piece.

    A string and a dump are one element, so their pieces are put together.
    """

    def __init__(self, text: bool) -> None:
        super().__init__()
        self.schema = elements_schema(text)
        self._kinds = dict(zip(self.schema.names, self.schema.types))
        self._before = 0
        self._held: list[Any] = []

    def table(self, batch: Batch) -> Any:
        values = list(values_of(batch))
        first = 0
        if (piece := piece_of(batch)) is not None:
            kind = batch.types if isinstance(batch.types, str) else batch.types[0]
            if kind not in _RUNS or kind == "string":
                values = self._put_together(values, piece.last)
                batch = batch if values else Batch([], kind, [])
            else:
                first = self._before if piece.number else 0
                self._before = first + len(values[0])
        counts, columns = _flattened(batch, values, first)
        return self._table(batch, counts, columns)

    def _put_together(self, values: list[Any], last: bool) -> list[Any]:
        value = values[0]
        self._held.append(value.dump if isinstance(value, Opaque) else value)
        if not last:
            return []
        held, self._held = self._held, []
        return [held[0][:0].join(held)]

    def _table(self, batch: Batch, counts: list[int], columns: _Column) -> Any:
        pa = arrow()
        rows = sum(counts)
        places = list(itertools.chain.from_iterable(map(itertools.repeat, range(len(counts)), counts)))
        taken = numbers(places, pa.int32())
        found: dict[str, Any] = {
            "key": words(batch.keys, self._kinds["key"]).take(taken),
            "type": types_column(batch).take(taken),
        }
        for name in ("db", "expires_at"):
            if (column := known(batch, name)) is not None:
                found[name] = numbers(column, self._kinds[name]).take(taken)
        for name, column in columns.items():
            found[name] = words(column, self._kinds[name])
        arrays = [found[name] if name in found else nulls(kind, rows) for name, kind in self._kinds.items()]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _flattened(batch: Batch, values: list[Any], first: int) -> tuple[list[int], _Column]:
    """How many rows each record becomes, and the columns of these rows: only those that hold something."""
    details = known(batch, "details") or [None] * len(values)
    counts: list[int] = []
    columns: _Column = {}
    rows = 0
    for kind, start, end in _runs(batch):
        run, made = _RUNS.get(kind, _dumps)(values[start:end], details[start:end])
        counts += run
        for name, column in made.items():
            columns.setdefault(name, [None] * rows).extend(column)
        rows += sum(run)
        for column in columns.values():
            column.extend([None] * (rows - len(column)))
    if first and "index" in columns:
        columns["index"] = [first + place for place in columns["index"]]
    return counts, columns


def _runs(batch: Batch) -> Iterator[tuple[str, int, int]]:
    """Where records of one type stand together."""
    if isinstance(batch.types, str):
        yield batch.types, 0, len(batch)
        return
    start = 0
    for kind, run in itertools.groupby(batch.types):
        end = start + len(list(run))
        yield kind, start, end
        start = end


# The elements of values of one type. ---------------------------------------------------------------

_Run = Callable[[Sequence[Any], Sequence[Any]], "tuple[list[int], _Column]"]


def _strings(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    return [1] * len(values), {"value": list(values)}


def _hashes(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    columns = {
        "field": list(itertools.chain.from_iterable(values)),
        "value": list(itertools.chain.from_iterable([value.values() for value in values])),
    }
    if any(details):
        moments = [(expiring or {}).get(field) for value, expiring in zip(values, details) for field in value]
        columns["field_expires_at"] = moments
    return list(map(len, values)), columns


def _lists(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    counts = list(map(len, values))
    places = list(itertools.chain.from_iterable(map(range, counts)))
    return counts, {"index": places, "value": list(itertools.chain.from_iterable(values))}


def _sets(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    return list(map(len, values)), {"value": list(itertools.chain.from_iterable(map(sorted, values)))}


def _zsets(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    pairs = list(itertools.chain.from_iterable(values))
    return list(map(len, values)), {
        "value": [pair[0] for pair in pairs],
        "score": [pair[1] for pair in pairs],
    }


def _streams(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    counts = []
    rows: list[tuple[Any, Any, Any]] = []
    for entries in values:
        before = len(rows)
        for name, fields in entries:
            rows += [(name, field, content) for field, content in pairs_of(fields)] or [(name, None, None)]
        if not entries:
            rows.append((None, None, None))
        counts.append(len(rows) - before)
    return counts, {name: [row[place] for row in rows] for place, name in enumerate(("id", "field", "value"))}


def _documents(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    return [1] * len(values), {"value": list(map(document, values))}


def _dumps(values: Sequence[Any], details: Sequence[Any]) -> tuple[list[int], _Column]:
    return [1] * len(values), {"value": [one.dump if isinstance(one, Opaque) else one for one in values]}


_RUNS: dict[str, _Run] = {
    "string": _strings,
    "hash": _hashes,
    "list": _lists,
    "set": _sets,
    "zset": _zsets,
    "stream": _streams,
    "ReJSON-RL": _documents,
}
