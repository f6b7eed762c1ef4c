"""The layout "records", written: batches as RecordBatches of which a row is a key or a piece.

A batch of one type, which most are, costs a list or two a column: what waits as a reply (`Batch.raw`) becomes
an array without becoming a dict, set or list first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._record import Batch, Opaque, RepeatedFields, StreamDetails
from ..datatypes import datatype, values_of
from ._json_form import document
from ._layout import (
    Layout,
    by_type,
    floats,
    known,
    nulls,
    numbers,
    offsets,
    spread,
    truths,
    types_column,
    words,
)
from ._schema import arrow, records_schema

_COLUMNS = {
    "string": "string",
    "hash": "hash",
    "list": "list",
    "set": "set",
    "zset": "zset",
    "stream": "stream",
    "ReJSON-RL": "json",
}
_ANY = "dump"


def column_of(kind: str) -> str:
    """The column that holds values of this type."""
    return _COLUMNS.get(kind, _ANY)


class Records(Layout):
    """A row is a key, or a piece of a big value; nothing is lost."""

    def __init__(self, text: bool) -> None:
        super().__init__()
        self.schema = records_schema(text)
        self._kinds = dict(zip(self.schema.names, self.schema.types))

    def table(self, batch: Batch) -> Any:
        kinds, rows = self._kinds, len(batch)
        found = {"key": words(batch.keys, kinds["key"]), "type": types_column(batch)}
        for name in ("db", "expires_at"):
            if (column := known(batch, name)) is not None:
                found[name] = numbers(column, kinds[name])
        found.update(self._values(batch))
        found.update(self._details(batch))
        if batch.pieces is not None:
            found.update(self._pieces(batch))
        columns = [found[name] if name in found else nulls(kind, rows) for name, kind in kinds.items()]
        return arrow().RecordBatch.from_arrays(columns, schema=self.schema)

    def _values(self, batch: Batch) -> dict[str, Any]:
        if not len(batch):
            return {}
        if isinstance(batch.types, str):
            return {column_of(batch.types): self._array(batch, batch.types)}
        by_column: dict[str, Any] = {}
        opaque: list[int] = []
        for kind, rows in by_type(batch).items():
            if kind in _COLUMNS:
                some = batch.of(rows)
                some.types = kind
                by_column[column_of(kind)] = spread(self._array(some, kind), rows, len(batch))
            else:
                opaque += rows
        if opaque:
            dumps = _dumps([batch.values[row] for row in opaque], self._kinds[_ANY])
            by_column[_ANY] = spread(dumps, opaque, len(batch))
        return by_column

    def _array(self, batch: Batch, kind: str) -> Any:
        column = column_of(kind)
        make, takes_raw = _ARRAYS[column]
        into = self._kinds[column]
        if batch.raw and not datatype(kind).plain and takes_raw:
            try:
                return make(batch.values, into)
            except (
                IndexError,
                TypeError,
                ValueError,
            ):  # a reply of another form: what makes values says it best
                pass
        return make(list(values_of(batch)), into)

    def _details(self, batch: Batch) -> dict[str, Any]:
        details = known(batch, "details")
        if details is None:
            return {}
        fields = [list(one.items()) if isinstance(one, dict) else None for one in details]
        streams = [_groups(one) if isinstance(one, StreamDetails) else None for one in details]
        found: dict[str, list[Any]] = {"fields_expire_at": fields, "groups": streams}
        pa = arrow()
        return {name: pa.array(rows, self._kinds[name]) for name, rows in found.items() if any(rows)}

    def _pieces(self, batch: Batch) -> dict[str, Any]:
        pieces = batch.pieces or []
        return {
            "part": numbers([None if one is None else one.number for one in pieces], self._kinds["part"]),
            "last": truths([None if one is None else one.last for one in pieces]),
            "torn": truths([one.torn if one is not None and one.last else None for one in pieces]),
        }


# Values of one type as an array. -------------------------------------------------------------------

Make = Callable[[Sequence[Any], Any], Any]


def _strings(values: Sequence[Any], into: Any) -> Any:
    return words(values, into)


def _hashes(values: Sequence[Any], into: Any) -> Any:
    if values and isinstance(values[0], dict):
        names = list(itertools.chain.from_iterable(values))
        contents = list(itertools.chain.from_iterable([one.values() for one in values]))
        begins = offsets(map(len, values))
    else:
        flat = list(itertools.chain.from_iterable(values))
        names, contents = flat[::2], flat[1::2]
        begins = offsets([len(one) // 2 for one in values])
    return _map(begins, words(names, into.key_type), words(contents, into.item_type), into)


def _map(begins: Any, names: Any, contents: Any, into: Any) -> Any:
    return arrow().MapArray.from_arrays(begins, names, contents).cast(into)


def _lists(values: Sequence[Any], into: Any) -> Any:
    elements = words(list(itertools.chain.from_iterable(values)), into.value_type)
    return arrow().ListArray.from_arrays(offsets(map(len, values)), elements, type=into)


def _sets(values: Sequence[Any], into: Any) -> Any:
    return _lists([sorted(one if isinstance(one, set) else set(one)) for one in values], into)


def _zsets(values: Sequence[Any], into: Any) -> Any:
    pa = arrow()
    pairs = list(itertools.chain.from_iterable(values))
    member, score = into.value_type
    members = words([one[0] for one in pairs], member.type)
    scores = floats([one[1] for one in pairs])
    scored = pa.StructArray.from_arrays([members, scores], fields=[member, score])
    return pa.ListArray.from_arrays(offsets(map(len, values)), scored, type=into)


def _streams(values: Sequence[Any], into: Any) -> Any:
    pa = arrow()
    entries = list(itertools.chain.from_iterable(values))
    name, fields = into.value_type
    pair = fields.type.value_type
    each = [list(pairs_of(one[1])) for one in entries]
    pairs = list(itertools.chain.from_iterable(each))
    columns = [words([one[place] for one in pairs], pair.field(place).type) for place in (0, 1)]
    made = pa.ListArray.from_arrays(
        offsets(map(len, each)), pa.StructArray.from_arrays(columns, fields=list(pair)), type=fields.type
    )
    named = pa.StructArray.from_arrays(
        [words([one[0] for one in entries], name.type), made], fields=[name, fields]
    )
    return pa.ListArray.from_arrays(offsets(map(len, values)), named, type=into)


def pairs_of(fields: dict[Any, Any]) -> Iterable[Any]:
    """The (field, value) pairs of an entry, those that repeat too."""
    return fields.pairs if isinstance(fields, RepeatedFields) else fields.items()


def _documents(values: Sequence[Any], into: Any) -> Any:
    return words(list(map(document, values)), into)


def _dumps(values: Sequence[Any], into: Any) -> Any:
    return words([one.dump if isinstance(one, Opaque) else one for one in values], into)


_ARRAYS: dict[str, tuple[Make, bool]] = {
    "string": (_strings, True),
    "hash": (_hashes, True),
    "list": (_lists, True),
    "set": (_sets, True),
    "zset": (_zsets, True),
    "stream": (_streams, False),
    "json": (_documents, False),
    "dump": (_dumps, False),
}
"""How an array is made of the values of a column, and whether of replies as well."""


def _groups(details: StreamDetails) -> dict[str, Any]:
    return {
        **details._asdict(),
        "groups": [one._asdict() for one in details.groups],
        "pending": [one._asdict() for one in details.pending],
    }
