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
from ._pushed import Pushed
from ._stream import stream


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
    typed = columns is None or "type" not in table.schema.names

    def read(
        wanted: list[str] | None, predicate: Any | None, rows: int | None, size: int | None
    ) -> Iterator[Any]:
        # Rows are counted before the filter, where polars gives both: then the server must leave out nothing.
        asked, exact = _asked(predicate, arguments, typed) if rows is None else _Asked({}, predicate is None)
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


def _asked(predicate: Any, given: Mapping[str, Any], typed: bool = True) -> _Asked:
    if predicate is None:
        return _Asked({}, True)
    pushed = Pushed(given, typed=typed)
    taken = [_taken(part, pushed) for part in _parts(_tree(predicate))]  # each is offered
    asked = pushed.arguments
    return _Asked(asked, all(taken) or asked is None)


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


def _taken(part: Any, pushed: Pushed) -> bool:
    """Whether the server can answer a condition."""
    match part:
        case {"BinaryExpr": {"left": {"Column": "type"}, "op": "Eq", "right": literal}}:
            return pushed.has_type([_literal(literal)])
        case {
            "Function": {
                "input": [{"Column": "type"}, literal],
                "function": {"Boolean": "IsIn" | {"IsIn": {"nulls_equal": False}}},
            }
        }:
            return pushed.has_type(_literal(literal))
        case {"BinaryExpr": {"left": {"Column": "key"}, "op": "Eq", "right": literal}}:
            return pushed.is_key(_literal(literal))
        case {
            "Function": {
                "input": [{"Column": "key"}, literal],
                "function": {"BinaryExpr": "StartsWith"} | {"StringExpr": "StartsWith"},
            }
        }:
            return pushed.begins(_literal(literal))
    return False


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
