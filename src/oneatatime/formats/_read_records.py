"""The layout "records", read: RecordBatches of a file as batches, strings as bytes again.

Words come from their column all at once, by numpy where it is there: Arrow's own way takes thrice as long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._record import Batch, Group, Opaque, Pending, Piece, RepeatedFields, StreamDetails
from ._layout import by_type, numbers
from ._records import column_of
from ._schema import arrow


class Hole(Exception):
    """Something is not there that every record has: `row` of the batch, and what."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(row, what)
        self.row = row
        self.what = what


def batch_of(table: Any, size: int) -> Batch:
    """The records in a RecordBatch of so many bytes, whose schema was checked. Raises Hole."""
    for name in ("key", "type"):
        _filled(table.column(name), name)
    types = table.column("type")
    kinds = types.unique().to_pylist()
    batch = Batch(_words(table.column("key")), types.to_pylist(), [], size)
    batch.values = [None] * len(batch)
    for kind, rows in by_type(batch).items():
        column = table.column(column_of(kind))
        if len(kinds) > 1:
            column = column.take(numbers(rows, arrow().int32()))
        if column.null_count:
            place = column.is_null().index(True).as_py()
            raise Hole(
                rows[place], f"the column {column_of(kind)!r} is null, where the value of a {kind} belongs"
            )
        values = list(_VALUES[column_of(kind)](column))
        if column_of(kind) == "dump":
            values = [Opaque(kind, one) for one in values]
        if len(kinds) == 1:
            batch.types, batch.values = kind, values
            break
        for row, value in zip(rows, values):
            batch.values[row] = value
    batch.metadata = _metadata(table) or None
    batch.pieces = _pieces(table)
    return batch


def _filled(column: Any, name: str) -> None:
    if column.null_count:
        raise Hole(column.is_null().index(True).as_py(), f"the column {name!r} is null")


def _metadata(table: Any) -> dict[str, list[Any]]:
    found = {
        name: column.to_pylist()
        for name in ("db", "expires_at")
        if (column := table.column(name)).null_count < len(column)
    }
    fields, groups = table.column("fields_expire_at"), table.column("groups")
    if fields.null_count < len(fields) or groups.null_count < len(groups):
        found["details"] = [
            _expiring(one) if one is not None else _details(other) if other is not None else None
            for one, other in zip(fields.to_pylist(), groups.to_pylist())
        ]
    return found


def _pieces(table: Any) -> list[Piece | None] | None:
    parts = table.column("part")
    if parts.null_count == len(parts):
        return None
    said = zip(parts.to_pylist(), table.column("last").to_pylist(), table.column("torn").to_pylist())
    return [None if part is None else Piece(part, bool(last), bool(torn)) for part, last, torn in said]


# Values of one column, none of them null. ----------------------------------------------------------


def _words(column: Any) -> list[bytes]:
    """The words of a column of bytes or of text."""
    if column.null_count:  # of what is in a list
        raise Hole(0, "an element of a value is null in this row or one of those that follow")
    pa = arrow()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
    try:
        return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
    except ImportError:  # no numpy
        return column.to_pylist()  # type: ignore[no-any-return]


def _inside(column: Any) -> tuple[list[int], Any]:
    """Where each list of a column begins and ends among its elements, and these."""
    places: list[int] = column.offsets.to_pylist() or [0]
    first, last = places[0], places[-1]
    return [place - first for place in places], column.values.slice(first, last - first)


def _lists(column: Any) -> Iterator[list[bytes]]:
    places, elements = _inside(column)
    return _cut(places, _words(elements))


def _cut(places: list[int], elements: list[Any]) -> Iterator[list[Any]]:
    return map(elements.__getitem__, map(slice, places, places[1:]))


def _pairs(column: Any) -> Iterator[Iterator[tuple[bytes, bytes]]]:
    """Of maps, and of lists of two columns of words."""
    places, both = _inside(column)
    names, contents = both.flatten()
    return map(zip, _cut(places, _words(names)), _cut(places, _words(contents)))


def _zsets(column: Any) -> Iterator[list[tuple[bytes, float]]]:
    places, both = _inside(column)
    members, scores = both.flatten()
    if scores.null_count:
        raise Hole(0, "a score is null in this row or one of those that follow")
    return _cut(places, list(zip(_words(members), scores.to_pylist())))


def _streams(column: Any) -> Iterator[list[tuple[bytes, dict[bytes, bytes]]]]:
    places, both = _inside(column)
    ids, fields = both.flatten()
    if fields.null_count:
        raise Hole(0, "the fields of an entry are null in this row or one of those that follow")
    return _cut(places, list(zip(_words(ids), map(_fields, _pairs(fields)))))


def _fields(some: Iterator[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found = dict(pairs := list(some))
    return found if len(found) == len(pairs) else RepeatedFields(pairs)


_VALUES: dict[str, Callable[[Any], Iterable[Any]]] = {
    "string": _words,
    "hash": lambda column: map(dict, _pairs(column)),
    "list": _lists,
    "set": lambda column: map(set, _lists(column)),
    "zset": _zsets,
    "stream": _streams,
    "json": lambda column: map(json.loads, _words(column)),
    "dump": _words,
}


# Details: they are few, so each is read by itself. -------------------------------------------------


def _expiring(found: list[tuple[Any, int]]) -> dict[bytes, int]:
    return {_bytes(field): moment for field, moment in found}


def _details(found: dict[str, Any]) -> StreamDetails:
    groups = [
        Group(
            _bytes(one["name"]), _bytes(one["last_delivered_id"]), one["entries_read"], _all(one["consumers"])
        )
        for one in found["groups"] or ()
    ]
    pending = [
        Pending(_bytes(one["group"]), _bytes(one["id"]), _bytes(one["consumer"]), *_delivery(one))
        for one in found["pending"] or ()
    ]
    last, added, deleted = found["last_id"], found["entries_added"], found["max_deleted_id"]
    return StreamDetails(_bytes(last), added, _bytes(deleted), tuple(groups), tuple(pending))


def _delivery(one: dict[str, Any]) -> tuple[int, int]:
    return one["delivered_at"], one["deliveries"]


def _all(found: list[Any] | None) -> tuple[Any, ...]:
    return tuple(map(_bytes, found or ()))


def _bytes(found: Any) -> Any:
    return found.encode() if isinstance(found, str) else found
