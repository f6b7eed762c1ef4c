"""A stream as a frame: whatever takes Arrow's PyCapsule interface (pyarrow, polars, pandas, DuckDB) reads it.

Each consumer scans anew, in a thread of the stream's own, so it works within a running event loop, and a
table may be read twice or joined with itself. A consumer that stops early ends the scan.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from ._blocking import iterate
from ._errors import InvalidInput
from ._options import LOSSLESS, MiB, Options, Selection
from ._pieces import whole_and_pieces
from ._record import Batch
from .formats._gather import Gatherer
from .formats._layout import Layout
from .formats._layouts import layout_of
from .formats._schema import UNFIT, arrow
from .formats._table import Inference

_ROWS = 64 * 1024
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

    def reader(self) -> Any:
        """A new scan, as a pyarrow.RecordBatchReader."""
        if isinstance(self._asked.selection.keys, Iterator | AsyncIterator):
            raise InvalidInput(
                "keys= can be run through only once, and a frame is scanned anew each time: give a list"
            )
        layout = self._layout()
        return arrow().RecordBatchReader.from_batches(layout.schema, _tables(self._changed(), layout))

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


def _put_together(waiting: list[Any]) -> list[Any]:
    if len(waiting) < 2:
        return waiting
    return arrow().Table.from_batches(waiting).combine_chunks().to_batches()  # type: ignore[no-any-return]
