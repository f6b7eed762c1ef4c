"""A batch between processes: bytes, and back.

What counts is what the one who takes them spends, for many send to it. `marshal` takes the least of all that
were tried (docs/performance.md); what it does not know is pickled. Values too big to hold travel by name.
"""

from __future__ import annotations

import marshal
import pickle
from collections.abc import Callable
from typing import Any

from ._record import Batch, Parts

_VERSION = 4
_MARSHALLED, _PICKLED = b"m", b"p"
_MOST_FIELDS = 1000  # names of fields that are remembered; where there are more, hardly any come again
_SLOW = "set"  # marshal sorts sets

MakeParts = Callable[[bytes, str, int, "int | None"], Parts]
"""Key, type, size and, where there are several, database -> what stands for a big value, where it arrives."""


class Fields(dict[Any, Any]):
    """Names of fields, each as the same object wherever it stands: then it travels once, and is made once."""

    def __missing__(self, name: Any) -> Any:
        if len(self) < _MOST_FIELDS:
            self[name] = name
        return name


def pack(batch: Batch, values: list[Any], fields: Fields, *, names: bool) -> bytes:
    """The batch with these values, as bytes; `names`: with the keys as bytes beside those that are text."""
    if batch.types == "hash" and len(fields) < _MOST_FIELDS:
        values = [
            {fields[name]: text for name, text in value.items()} if value.__class__ is dict else value
            for value in values
        ]
    parts: dict[int, tuple[bytes, str, int]] = {}
    if Parts in map(type, values):
        for row, value in enumerate(values):
            if isinstance(value, Parts):
                parts[row] = (value.key, value.type, value.size)
        values = [None if row in parts else value for row, value in enumerate(values)]
    failed = pickle.dumps(batch.failed, 5) if batch.failed else None
    own = batch.names if names else None
    whole = (batch.keys, batch.types, values, batch.size, batch.metadata, own, parts, failed)
    if batch.types != _SLOW:
        try:
            return _MARSHALLED + marshal.dumps(whole, _VERSION)
        except ValueError:  # a type of ours, or nested too deep
            pass
    return _PICKLED + pickle.dumps(whole, 5)


def unpack(data: bytes, make_parts: MakeParts) -> Batch:
    """The batch that was packed."""
    inside = memoryview(data)[1:]
    whole = marshal.loads(inside) if data[:1] == _MARSHALLED else pickle.loads(inside)
    keys, types, values, size, metadata, names, parts, failed = whole
    dbs = metadata.get("db") if metadata else None
    for row, (key, kind, weight) in parts.items():
        values[row] = make_parts(key, kind, weight, None if dbs is None else dbs[row])
    return Batch(
        keys,
        types,
        values,
        size,
        metadata,
        pickle.loads(failed) if failed is not None else None,
        names=names,
    )
