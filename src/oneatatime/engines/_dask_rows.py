"""What Dask's workers do: a partition as a pandas frame or as items; and which columns a frame is asked for.

Imported by `dask` once Dask is known to be there: an expression of Dask is a class, so it must be imported to
be defined.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
from dask.dataframe.dask_expr._expr import Head, Index, determine_column_projection
from dask.dataframe.dask_expr._reductions import Len
from dask.dataframe.dask_expr.io import FromMapProjectable

from .._blocking import iterate
from .._partition import Partition
from .._record import Parts, Record
from .._stream import stream
from ._table import Table


def _new() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """Reads a partition as a pandas frame. Each `read` has a `token` of its own: data may have changed."""

    table: Table
    token: str = field(default_factory=_new)

    # `columns` has no default, so that Dask asks for [] as well
    def __call__(self, partition: Partition, columns: list[str], limit: int | None = None) -> Any:
        whole = self.table.schema
        wanted = columns or whole.names[:1]
        schema = pa.schema([whole.field(name) for name in wanted], whole.metadata)
        batches = self.table.batches(partition, wanted, limit)
        return _frame(pa.Table.from_batches(batches, schema))[columns]

    def empty(self) -> Any:
        """A frame of no rows."""
        return _frame(self.table.schema.empty_table())

    def __repr__(self) -> str:
        return f"<rows of {self.table.name}>"

    def __dask_tokenize__(self) -> str:
        return self.token


def _frame(table: pa.Table) -> pd.DataFrame:
    return table.replace_schema_metadata().to_pandas(types_mapper=pd.ArrowDtype)


class Frame(FromMapProjectable):  # type: ignore[misc]
    """What `dd.from_map` makes, but `head` stops early, and an index and `len` ask for no columns.

    Else they ask for all. Then a filter and its index would be read apart, at two moments.
    """

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if type(parent) is Head and parent.n >= 0 and not self.operand("kwargs"):
            return Head(self.substitute_parameters({"kwargs": {"limit": parent.n}}), *parent.operands[1:])
        if not isinstance(parent, Len | Index):
            return super()._simplify_up(parent, dependents)
        wanted: Any = []
        if isinstance(parent, Index):
            wanted = determine_column_projection(self, parent, dependents)
        wanted = [name for name in self.columns if name in ([wanted] if isinstance(wanted, str) else wanted)]
        if wanted == self.columns:
            return None
        return type(parent)(self.substitute_parameters({"columns": wanted, "_series": False}))


@dataclass(frozen=True, eq=False, repr=False)
class Items:
    """Reads a partition as a list, which Dask may send elsewhere: values that are `Parts` are loaded."""

    arguments: Mapping[str, Any]
    records: bool
    token: str = field(default_factory=_new)

    def __call__(self, partitions: Iterable[Partition]) -> list[Any]:
        (partition,) = partitions
        with closing(iterate(lambda: self._batches(partition))) as batches:
            return list(itertools.chain.from_iterable(batches))

    async def _batches(self, partition: Partition) -> AsyncIterator[list[Any]]:
        async with stream(partition, **self.arguments) as begun:
            async for batch in begun.batches():
                whole = [await _whole(record) for record in batch]
                yield whole if self.records else [(record.key, record.value) for record in whole]

    def __dask_tokenize__(self) -> str:
        return self.token


async def _whole(record: Record) -> Record:
    value = record.value
    return record._replace(value=await value.load()) if isinstance(value, Parts) else record
