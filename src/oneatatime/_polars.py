"""A lazy frame of polars over a deployment: what a query leaves out is not read.

Of a query's filter the server is asked what it can answer: types, one key, keys that begin with something.
What of a filter is not understood here is not an error: polars then filters by itself, whatever came.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from ._errors import MissingExtra
from ._frames import ArrowStream
from ._options import CORE_TYPES, MODULE_TYPES
from ._stream import stream

_SPECIAL = b"*?[]^\\"
_ONE_OF_ITS_KIND = ("match", "keys", "unique", "resume")


def polars_scan(
    source: object,
    *,
    flatten: bool = False,
    columns: Mapping[str, Any] | Iterable[str] | None = None,
    **arguments: Any,
) -> Any:
    """A `polars.LazyFrame` over `source`: rows as `Stream.arrow` gives them, read when it is collected.

    `arguments` are those of `stream`. A query reads no more than it needs: where it uses only `key`, no value
    is read, and each key is one row, big values too; of `columns` only those it uses; `type == ...` and
    `type.is_in(...)` become types=, `key == ...` reads that key, a prefix of `key` becomes match=; and a
    `head(n)` ends the scan. All other filters are polars's own, over what was read.

    Raises MissingExtra without polars.

    >>> def old(url):
    ...     import polars
    ...     people = polars_scan(url, columns={"age": "int64"}, match="user:*", encoding="utf-8")
    ...     return people.filter(polars.col("age") > 60).select("key").collect()
    """
    pl = _polars()
    from polars.io.plugins import register_io_source

    table = stream(source, **arguments).arrow(flatten=flatten, columns=columns)  # checks the arguments

    def read(
        wanted: list[str] | None, predicate: Any | None, rows: int | None, size: int | None
    ) -> Iterator[Any]:
        # Rows are counted before the filter, where polars gives both: then the server must leave out nothing.
        asked, exact = _asked(predicate, arguments) if rows is None else _Asked({}, predicate is None)
        wanted = table.schema.names if wanted is None else wanted or ["key"]  # of none, how many rows
        needed = {*wanted, *(predicate.meta.root_names() if predicate is not None and not exact else ())}
        if asked is None:
            found: Iterable[Any] = ()
        else:
            found = _frames(source, {**arguments, **asked}, flatten, table, needed)
        return _answered(found, None if exact else predicate, wanted, rows)

    return register_io_source(read, schema=pl.DataFrame(table.schema.empty_table()).schema)


def _polars() -> Any:
    try:
        import polars
    except ImportError as error:
        raise MissingExtra('polars_scan needs polars: pip install "oneatatime[polars]"') from error
    return polars


def _frames(
    source: object, arguments: dict[str, Any], flatten: bool, table: ArrowStream, needed: set[str]
) -> Iterator[Any]:
    narrowed = stream(source, **arguments).arrow(flatten=flatten, columns=table.columns)
    with closing(narrowed.reader([name for name in table.schema.names if name in needed])) as reader:
        for batch in reader:
            yield _polars().DataFrame(batch)


def _answered(found: Iterable[Any], predicate: Any, wanted: list[str], rows: int | None) -> Iterator[Any]:
    """Frames of the columns wanted: the first `rows` of all, and of these what the filter leaves.

    That is what polars means by the two: of `filter(...).head(n)` it gives the filter alone.
    """
    try:
        for frame in found:
            if rows is not None:
                frame = frame.head(rows)
                rows -= frame.height
            if predicate is not None:
                frame = frame.filter(predicate)
            yield frame.select(wanted)
            if rows == 0:
                return
    finally:
        if isinstance(found, Iterator):
            found.close()  # type: ignore[attr-defined]


# What of a filter the server can answer. -----------------------------------------------------------


class _Asked(NamedTuple):
    """What to ask of `stream`, None where nothing can be found; `exact` where that is all of the filter."""

    arguments: dict[str, Any] | None
    exact: bool


def _asked(predicate: Any, given: Mapping[str, Any]) -> _Asked:
    if predicate is None:
        return _Asked({}, True)
    types: set[str] | None = None
    key: dict[str, Any] = {}
    exact = True
    for part in _parts(_tree(predicate)):
        if (some := _types(part)) is not None:
            types = some if types is None else types & some
        elif not key and (found := _key(part, given)):
            key = found
        else:
            exact = False
    asked = dict(key)
    if types is not None:
        mine = given.get("types") or None
        types &= types if mine is None else {mine} if isinstance(mine, str) else set(mine)
        if not types:
            return _Asked(None, True)
        asked["types"] = sorted(types)
    return _Asked(asked, exact)


def _tree(predicate: Any) -> Any:
    """A filter as polars writes it down. That form is its own affair: what looks otherwise is not asked."""
    try:
        return json.loads(predicate.meta.serialize(format="json"))
    except (_polars().exceptions.PolarsError, ValueError):
        return None


def _parts(tree: Any) -> Iterator[Any]:
    """The conditions that must all be true."""
    match tree:
        case {"BinaryExpr": {"left": left, "op": "And", "right": right}}:
            yield from _parts(left)
            yield from _parts(right)
        case _:
            yield tree


def _types(part: Any) -> set[str] | None:
    """The types that a condition allows, if that is all it says."""
    found: Any = None
    match part:
        case {"BinaryExpr": {"left": {"Column": "type"}, "op": "Eq", "right": literal}}:
            found = [_literal(literal)]
        case {
            "Function": {
                "input": [{"Column": "type"}, literal],
                "function": {"Boolean": "IsIn" | {"IsIn": {"nulls_equal": False}}},
            }
        }:
            found = _literal(literal)
    known = isinstance(found, list) and found and all(name in CORE_TYPES + MODULE_TYPES for name in found)
    return set(found) if known else None


def _key(part: Any, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which keys a condition asks for, if that is all it says."""
    if any(given.get(name) for name in _ONE_OF_ITS_KIND):
        return None
    match part:
        case {"BinaryExpr": {"left": {"Column": "key"}, "op": "Eq", "right": literal}}:
            key = _name(_literal(literal), given)
            if key is None:
                return None
            return {"match": _escaped(key)} if given.get("db") == "all" else {"keys": [key]}
        case {
            "Function": {
                "input": [{"Column": "key"}, literal],
                "function": {"BinaryExpr": "StartsWith"} | {"StringExpr": "StartsWith"},
            }
        }:
            prefix = _name(_literal(literal), given)
            return None if prefix is None else {"match": _escaped(prefix) + b"*"}
    return None


def _literal(tree: Any) -> Any:
    """The str, bytes or list that a literal is, in the forms that polars has had for it; else None."""
    match tree:
        case {"Literal": {"Scalar": {"value": found}}} | {"Literal": {"Scalar": found}} | {"Literal": found}:
            pass
        case _:
            return None
    match found:
        case {"String": str(text)} | {"StringOwned": str(text)}:
            return text
        case {"Binary": list(numbers)} | {"BinaryOwned": list(numbers)}:
            return bytes(numbers)
        case {"List": list(numbers)} | {"Series": list(numbers)}:  # a column as Arrow IPC
            return _polars().read_ipc_stream(io.BytesIO(bytes(numbers))).to_series().to_list()
    return None


def _name(literal: Any, given: Mapping[str, Any]) -> bytes | None:
    """A literal as the bytes of a key, where they are certain."""
    if isinstance(literal, str):
        certain = str(given.get("encoding")).lower() in ("utf-8", "utf8")
        return literal.encode() if certain else None
    return literal if isinstance(literal, bytes) else None


def _escaped(key: bytes) -> bytes:
    """A pattern that means this key and no other."""
    return b"".join([b"\\%c" % byte if byte in _SPECIAL else b"%c" % byte for byte in key])
