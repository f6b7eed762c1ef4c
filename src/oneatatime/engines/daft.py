"""Daft: a deployment as a `daft.DataFrame`, read by tasks that are asynchronous as its own are.

Daft filters whatever comes, so what the server is asked for only has to leave nothing out. It gives a limit
together with filters, and means the rows that are left: a task stops at it only where the server filters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from .._blocking import aside
from .._errors import MissingExtra
from .._partition import Partition
from .._pushed import Pushed
from ._table import Table

try:
    from daft.io.source import DataSource, DataSourceTask
    from daft.recordbatch import RecordBatch
    from daft.schema import Schema

    from ._daft_filter import Tree, taken
except ImportError as error:
    raise MissingExtra('engines.daft needs Daft: pip install "oneatatime[daft]"') from error


def read(
    source: object,
    *,
    partitions: int | None = None,
    flatten: bool = False,
    columns: Mapping[str, Any] | Iterable[str] | None = None,
    unfit: str = "null",
    **arguments: Any,
) -> Any:
    """A `daft.DataFrame` of the rows that `Stream.arrow` gives of `source`.

    `arguments` are those of `stream`, and `secret=`, which names where workers find the password. Columns
    that a query does not use are not read, `type == ...` and `type.is_in(...)` become types=, `key == ...`
    match=, and a limit ends the scan. Daft has no way to say more; a prefix of keys is `match=` here.

    Raises MissingExtra without Daft, and what `plan` and `stream` raise.

    >>> def old(url):
    ...     import daft
    ...     people = read(url, match="user:*", columns={"age": "int64"}, encoding="utf-8")
    ...     return people.where(daft.col("age") > 60).select("key").to_pylist()
    """
    table = Table.of(
        source, partitions=partitions, flatten=flatten, columns=columns, unfit=unfit, **arguments
    )
    return _Source(table).read()


class _Source(DataSource):  # type: ignore[misc]
    def __init__(self, table: Table) -> None:
        self._table = table

    @property
    def name(self) -> str:
        return f"oneatatime {self._table.name}"

    @property
    def schema(self) -> Any:
        return Schema.from_pyarrow_schema(self._table.schema)

    async def get_tasks(self, pushdowns: Any) -> AsyncIterator[Any]:
        pushed = Pushed(self._table.arguments, by_name=False, typed=self._table.columns is None)
        exact = pushdowns.filters is None or taken(Tree().visit(pushdowns.filters), pushed)
        asked, columns = pushed.arguments, None
        if pushdowns.columns is not None:
            needed = {*pushdowns.columns, *pushdowns.filter_required_column_names()}
            columns = [name for name in self._table.schema.names if name in needed]
        limit = pushdowns.limit if exact else None
        if asked is not None:
            alone = replace(self._table.narrowed(**asked), partitions=())
            for partition in self._table.partitions:
                yield _Task(alone, partition, columns, limit)


class _Task(DataSourceTask):  # type: ignore[misc]
    def __init__(self, table: Table, partition: Partition, columns: list[str] | None, limit: int | None):
        self._table, self._partition, self._columns, self._limit = table, partition, columns, limit

    @property
    def schema(self) -> Any:
        return Schema.from_pyarrow_schema(self._table.schema)

    async def read(self) -> AsyncIterator[Any]:
        with closing(self._table.batches(self._partition, self._columns, self._limit)) as batches:
            while (batch := await aside(next, batches, None)) is not None:
                yield RecordBatch.from_arrow_record_batches([batch], batch.schema)
