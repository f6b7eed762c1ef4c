"""A stream as a frame: whatever takes Arrow's PyCapsule interface (pyarrow, polars, pandas, DuckDB) reads it.

Each consumer scans anew, in a thread of the stream's own, so it works within a running event loop, and a
table may be read twice or joined with itself. A consumer that stops early ends the scan.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from ._blocking import iterate
from ._errors import InvalidInput
from ._options import CORE_TYPES, LOSSLESS, MiB, Options, Selection
from ._pieces import whole_and_pieces
from ._record import Batch
from .formats._gather import Gatherer
from .formats._layout import Layout
from .formats._layouts import layout_of
from .formats._schema import UNFIT, arrow
from .formats._table import Inference

_ROWS = 64 * 1024
_KEYS = 8192  # of a batch where nothing but keys is asked for
_BYTES = 8 * MiB


class Asked(Protocol):
    """What a stream was asked for: enough to begin it anew."""

    @property
    def selection(self) -> Selection: ...
    @property
    def options(self) -> Options: ...

    def begin(self, options: Options | None = None, **changes: Any) -> Any:
        """A new stream, of a selection with these changes; with other options."""


@dataclass(frozen=True)
class Rows:
    """What a frame's rows are: records, elements (`flatten`), or hashes with these `columns`."""

    flatten: bool = False
    columns: Mapping[str, Any] | tuple[str, ...] | None = None
    unfit: str = "null"

    @classmethod
    def checked(cls, flatten: bool, columns: Mapping[str, Any] | Iterable[str] | None, unfit: str) -> Rows:
        """The rows that these arguments mean. Raises InvalidInput if they make no sense together."""
        if columns is not None and flatten:
            raise InvalidInput("flatten= makes a row of each element, columns= one of each hash: choose one")
        if unfit not in UNFIT:
            raise InvalidInput(f"unfit={unfit!r} must be one of {', '.join(map(repr, UNFIT))}")
        if isinstance(columns, str):
            raise InvalidInput(f"columns={columns!r} is one name, not several: write columns=[{columns!r}]")
        if columns is not None and not isinstance(columns, Mapping):
            columns = tuple(columns)
        return cls(flatten, columns, unfit)


class ArrowStream:
    """A stream as a table that is scanned whenever it is read, by Arrow's PyCapsule interface.

    `schema` is a pyarrow.Schema. Where only the names of columns were given, their types are inferred from
    the first hashes, once.
    """

    def __init__(self, asked: Asked, rows: Rows) -> None:
        self._asked = asked
        self._rows = rows
        arrow()

    @property
    def schema(self) -> Any:
        """What its columns are."""
        return self._layout().schema

    @property
    def columns(self) -> Mapping[str, Any] | None:
        """The columns of fields and their types, where its rows are hashes."""
        return None if self._rows.columns is None else self._columns

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.reader().__arrow_c_stream__(requested_schema)

    def reader(self, columns: Iterable[str] | None = None) -> Any:
        """A new scan, as a pyarrow.RecordBatchReader; of the columns only these, in their order.

        What they do not need is not read: fields of hashes, and where `key` is all that is wanted (or `type`,
        of a stream of one type), any value. Then each key is one row, big values too.
        """
        if isinstance(self._asked.selection.keys, Iterator | AsyncIterator):
            raise InvalidInput(
                "keys= can be run through only once, and a frame is scanned anew each time: give a list"
            )
        pa, whole = arrow(), self.schema
        wanted = whole.names if columns is None else list(columns)
        if unknown := [name for name in wanted if name not in whole.names]:
            raise InvalidInput(f"there is no column {unknown[0]!r}: there are {', '.join(whole.names)}")
        schema = pa.schema([whole.field(name) for name in wanted], whole.metadata)
        if columns is not None and not self._rows.flatten and set(wanted) <= self._known_of_keys():
            return pa.RecordBatchReader.from_batches(schema, self._of_keys(schema))
        table = self._with_fields(wanted)
        rows = _tables(table._changed(), table._layout())
        if columns is not None:
            rows = _selected(rows, wanted)
        return pa.RecordBatchReader.from_batches(schema, rows)

    def _with_fields(self, wanted: list[str]) -> ArrowStream:
        """The same, of hashes only the fields that are wanted."""
        if self._rows.columns is None:
            return self
        fields = {name: kind for name, kind in self._columns.items() if name in wanted}
        return ArrowStream(self._asked, replace(self._rows, columns=fields or dict(self._columns)))

    def _known_of_keys(self) -> set[str]:
        """The columns that are known without a look at any value; a field of hashes may be named "type"."""
        typed = self._one_type is not None and self._rows.columns is None
        return {"key", "type"} if typed else {"key"}

    @property
    def _types(self) -> tuple[str, ...]:
        hashes = () if self._rows.columns is None else ("hash",)
        return self._asked.selection.types or hashes

    @property
    def _one_type(self) -> str | None:
        """The one type that all keys have, if that is so."""
        return self._types[0] if len(self._types) == 1 and self._types[0] in CORE_TYPES else None

    def _of_keys(self, schema: Any) -> Generator[Any, None, None]:
        pa, kind = arrow(), self._one_type
        with self._asked.begin(types=self._types, metadata=()) as stream:
            keys = iter(stream.keys())
            while some := list(itertools.islice(keys, _KEYS)):
                known = {"key": some, "type": [kind] * len(some) if "type" in schema.names else None}
                columns = [pa.array(known[field.name], field.type) for field in schema]
                rows = pa.nulls(len(some))  # of no columns, too, it is known how many there are
                table = pa.RecordBatch.from_arrays([rows, *columns], ["", *schema.names])
                yield table.select(schema.names).replace_schema_metadata(schema.metadata)

    def _changed(self) -> _Scan:
        return _Scan(self._asked, self._changes(), replacing=self._name == "records")

    def _changes(self) -> dict[str, Any]:
        """What a scan asks for that the stream did not, or otherwise."""
        selection = self._asked.selection
        changes: dict[str, Any] = {"metadata": LOSSLESS}
        if self._rows.columns is not None:
            changes["metadata"] = ()
            changes.update(only_fields(list(self._columns)))
            changes["types"] = selection.types or ("hash",)
        if _is_utf8(selection):  # Arrow looks whether it is, in a tenth of the time
            changes["encoding"] = None
        return changes

    def _layout(self) -> Layout:
        selection, columns = self._asked.selection, self._rows.columns
        return layout_of(
            self._name,
            encoding=None if selection.encoding is None else "utf-8",
            columns=None if columns is None else self._columns,
            unfit=self._rows.unfit,
            beside=[name for name, there in self._beside() if there],
        )

    @property
    def _name(self) -> str:
        return "elements" if self._rows.flatten else "records" if self._rows.columns is None else "columns"

    def _beside(self) -> list[tuple[str, bool]]:
        return [("db", self._asked.selection.all_dbs), ("expires_at", self._rows.columns is None)]

    @cached_property
    def _columns(self) -> Mapping[str, Any]:
        columns = self._rows.columns or {}
        if isinstance(columns, Mapping):
            return columns
        sample = _Scan(self._asked, {"types": ("hash",), "metadata": (), **only_fields(list(columns))})
        inference = Inference(name.encode() for name in columns)
        with closing(sample.batches()) as batches:
            for batch in batches:
                inference.add_batch(batch)
                if inference.enough:
                    break
        found = inference.columns()
        return {name: found.get(name, "string") for name in columns}

    def __repr__(self) -> str:
        names = self._rows.columns or self.schema.names
        rows = "elements" if self._rows.flatten else "records" if self._rows.columns is None else "hashes"
        return f"<ArrowStream of {rows}: {', '.join(names)}; scanned anew each time>"


def only_fields(names: list[str]) -> dict[str, Any]:
    """How a stream is asked for these fields of hashes only."""
    return {"fields": tuple([name.encode() for name in names])}


def _is_utf8(selection: Selection) -> bool:
    encoding = (selection.encoding or "").lower().replace("-", "").replace("_", "")
    return encoding == "utf8" and selection.errors == "strict"


@dataclass(frozen=True, eq=False)
class _Scan:
    """One more pass over a stream's selection. `replacing`: rows say which piece of a value they are."""

    asked: Asked
    changes: dict[str, Any]
    replacing: bool = False

    def batches(self) -> Generator[Batch, None, None]:
        """Batches without parts, read in a thread; closing the generator ends all of it."""
        batches = iterate(self._read)
        try:
            yield from batches
        finally:
            batches.close()

    async def _read(self) -> AsyncGenerator[Batch, None]:
        options = self.asked.options
        patience = options.patience if options.on_unreachable != "fail" else 0.0
        async with (
            self.asked.begin(**self.changes) as stream,
            aclosing(whole_and_pieces(stream._batches(), patience, replacing=self.replacing)) as batches,
        ):
            async for batch in batches:
                yield batch


def _tables(scan: _Scan, layout: Layout) -> Generator[Any, None, None]:
    """RecordBatches: the first as soon as there is one, then each four times as big, to some MiB."""
    waiting: list[Any] = []
    rows, size, enough = 0, 0, 1
    gatherer = Gatherer(layout)
    batches = scan.batches()
    try:
        for batch in batches:
            for table in gatherer.add(batch, enough):
                waiting.append(table)
                rows += table.num_rows
                size += table.nbytes
            if rows >= enough or size >= _BYTES:
                yield from _put_together(waiting)
                waiting, rows, size, enough = [], 0, 0, min(4 * max(rows, enough), _ROWS)
        yield from _put_together([*waiting, *gatherer.rest()])
    finally:
        batches.close()


def _selected(tables: Generator[Any, None, None], names: list[str]) -> Generator[Any, None, None]:
    with closing(tables):
        for table in tables:
            yield table.select(names)


def _put_together(waiting: list[Any]) -> list[Any]:
    if len(waiting) < 2:
        return waiting
    return arrow().Table.from_batches(waiting).combine_chunks().to_batches()  # type: ignore[no-any-return]
