"""Dask: a deployment as a DataFrame or a bag, and a function of yours for each partition of it.

What is planned here is read on Dask's workers, so both must reach the servers, and this package must be
installed on workers and scheduler. No password goes into a graph: `secret=` says where workers find it.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from .._blocking import iterate
from .._errors import MissingExtra
from .._partition import Partition
from .._record import Parts, Record
from .._stream import Stream, stream
from ._table import Table, Task, opened

_RETRIES = 2


def read(
    source: object,
    *,
    partitions: int | None = None,
    flatten: bool = False,
    columns: Mapping[str, Any] | Iterable[str] | None = None,
    unfit: str = "null",
    **arguments: Any,
) -> Any:
    """A Dask DataFrame of `source`: rows as `Stream.arrow` gives them, in about so many partitions as asked.

    `partitions` are those of `plan`, `arguments` those of `stream`, with `secret`. Columns have Arrow's types
    (`pandas.ArrowDtype`), known without a look at data. What a computation does not use is not read: `len` and
    `df[["key"]]` read keys alone, where each is one row, and of `columns` of hashes only those used are asked
    for. Workers that are lost are replaced by Dask; `df.compute(retries=2)` tries what fails again, too.

    Raises MissingExtra without Dask, InvalidInput for a password without `secret=`, and what `plan` raises.

    >>> def adults(url):
    ...     people = read(url, match="user:*", columns={"age": "int64"}, encoding="utf-8")
    ...     return people[people.age >= 18].key.count().compute()
    """
    dd = _imported("dask.dataframe")
    table = Table.of(
        source, partitions=partitions, flatten=flatten, columns=columns, unfit=unfit, **arguments
    )
    rows = _Rows(replace(table, partitions=()))
    import dask

    with dask.config.set({"dataframe.convert-string": False}):  # they are Arrow's already
        frame = dd.from_map(rows, table.partitions, meta=rows.empty(), label="oneatatime")
    return _that_counts_keys(frame)


@dataclass(frozen=True, eq=False, repr=False)
class _Rows:
    """Reads a partition as a pandas frame: on a worker."""

    table: Table
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self, partition: Partition, columns: list[str]) -> Any:  # asked for, so that [] is, too
        import pyarrow as pa

        wanted = columns or self.table.schema.names[:1]
        batches = self.table.batches(partition, wanted)
        schema = pa.schema([self.table.schema.field(name) for name in wanted])
        found = pa.Table.from_batches((one.cast(schema) for one in batches), schema)
        return _frame(found)[columns]

    def empty(self) -> Any:
        return _frame(self.table.schema.empty_table())

    def __dask_tokenize__(self) -> str:  # each `read` reads anew what may have changed
        return self.token


def _frame(table: Any) -> Any:
    import pandas as pd

    return table.replace_schema_metadata().to_pandas(types_mapper=pd.ArrowDtype)


def _that_counts_keys(frame: Any) -> Any:
    """The same, of which `len` asks for no column: Dask leaves that to who reads, and then asks for all."""
    from dask.dataframe.dask_expr._collection import new_collection

    class Counting(type(frame.expr)):  # type: ignore[misc]
        def _simplify_up(self, parent: Any, dependents: Any) -> Any:
            if type(parent).__name__ == "Len" and self.columns:
                return type(parent)(self.substitute_parameters({"columns": [], "_series": False}))
            return super()._simplify_up(parent, dependents)

    return new_collection(Counting(*frame.expr.operands))


def read_bag(
    source: object, *, partitions: int | None = None, records: bool = False, **arguments: Any
) -> Any:
    """A Dask bag of `source`: (key, value) as a stream gives them, or with `records` all of a `Record`.

    Values too big to hold are loaded whole. Everything else is as for `read`.
    """
    bag = _imported("dask.bag")
    sent, _ = opened(source, arguments)
    parts = sent.cut(partitions)
    items = _Items(sent.arguments, records)
    return bag.from_sequence(parts, npartitions=len(parts)).map_partitions(items)


@dataclass(frozen=True, eq=False, repr=False)
class _Items:
    """Reads a partition item by item: on a worker."""

    arguments: Mapping[str, Any]
    records: bool
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self, partitions: Iterable[Partition]) -> list[Any]:  # a list: it may go to another worker
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


def apply(
    source: object,
    function: Callable[[Stream], Any],
    *,
    partitions: int | None = None,
    **arguments: Any,
) -> list[Any]:
    """What `function(stream)` returns for the stream of each partition, in the order of partitions.

    It runs on the workers of the distributed client that there is, else on Dask's scheduler here. There a
    partition whose worker is lost, or that fails, is done again, at most twice: so `function` runs at least
    once for each key, and what it does elsewhere should do no harm twice. An error that stays is raised here,
    and ends the others.

    Raises MissingExtra without Dask, InvalidInput for a password without `secret=`, and what `plan` raises.

    >>> def keys(url):
    ...     return sum(apply(url, lambda stream: sum(1 for _ in stream.keys()), partitions=8))
    """
    dask, distributed = _imported("dask"), _imported("distributed")
    sent, _ = opened(source, arguments)
    parts, task = sent.cut(partitions), Task(function, sent.arguments)
    try:
        client = distributed.get_client()
    except ValueError:  # there is none
        return list(dask.compute(*[dask.delayed(task, pure=False, name=None)(part) for part in parts]))
    futures = client.map(task, parts, key="oneatatime-apply", pure=False, retries=_RETRIES)
    try:
        return list(client.gather(futures))
    finally:
        client.cancel(futures)


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra('engines.dask needs Dask: pip install "oneatatime[dask]"') from error
