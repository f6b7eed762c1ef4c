"""Spark: `spark.read.format("oneatatime")` and `.write`, once `register(spark)` was called.

Spark asks for partitions where it plans, and gives each to a task. What a task needs travels with its
partition, because Spark sends the reader off before it asks for partitions. What a filter left out of a frame
Spark leaves out of whatever else is made of that frame, so filters are taken only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from .._errors import InvalidInput, MissingExtra
from .._pushed import Pushed
from ._spark_options import arguments_of, as_wanted, layout
from ._table import Table
from ._written import Destination

try:
    from pyspark.sql import datasource as api
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
except ImportError as error:
    raise MissingExtra(
        'engines.spark needs PySpark 4.1 or later: pip install "oneatatime[spark]"; and Java 17, '
        "on Debian and Ubuntu: apt-get install default-jre-headless"
    ) from error


def register(spark: Any) -> None:
    """Makes "oneatatime" a format of this SparkSession, and lets Spark tell its filters to sources.

    >>> def hashes(spark, url):
    ...     register(spark)
    ...     return spark.read.format("oneatatime").option("url", url).option("types", "hash").load().count()
    """
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "true")
    spark.dataSource.register(OneatatimeDataSource)


class OneatatimeDataSource(api.DataSource):  # type: ignore[misc]
    """A deployment as Spark sees it. Its options: docs/guides/spark.md."""

    @classmethod
    def name(cls) -> str:
        return "oneatatime"

    def schema(self) -> Any:
        """The columns of the layout. Asks the server only where `columns` has names without types."""
        return from_arrow_schema(layout(arguments_of(self.options)))

    def reader(self, schema: Any) -> Any:
        """Reads rows of this schema, the user's or that of the layout."""
        given = arguments_of(self.options)
        kind = FilteringReader if given.pop("pushdown", False) else Reader
        return kind(given, to_arrow_schema(schema, timezone="UTC"))

    def writer(self, schema: Any, overwrite: bool) -> Any:
        """Writes rows, each key in place of what was there."""
        if overwrite:
            text = 'mode("overwrite") would mean to empty the deployment first, and nothing here does that'
            raise InvalidInput(f'{text}: mode("append") writes each key in place of what it held')
        return Writer(Destination.of(**arguments_of(self.options, writing=True)))


class Reader(api.DataSourceReader):  # type: ignore[misc]
    """All rows of a frame, whatever Spark then makes of them."""

    def __init__(self, given: dict[str, Any], schema: Any) -> None:
        self._given, self._schema = as_wanted(given, schema), schema
        self._pushed = Pushed(self._given, by_name=False, typed="columns" not in self._given)

    def partitions(self) -> list[Any]:
        """What each task reads; Spark makes a task without a value of none."""
        asked = self._pushed.arguments
        if asked is None:
            return []
        table = Table.of(**self._given).narrowed(**asked)
        return [api.InputPartition((replace(table, partitions=()), one)) for one in table.partitions]

    def read(self, partition: Any) -> Iterator[Any]:
        """The rows of a partition, in the types that Spark has for them."""
        if partition.value is None:
            return
        table, part = partition.value
        for batch in table.batches(part, self._schema.names):
            yield batch.cast(self._schema)


class FilteringReader(Reader):
    """Rows of a frame with one filter: what the server can do of it, it does; the rest is Spark's."""

    def pushFilters(self, filters: list[Any]) -> Iterable[Any]:
        """Those that are left to Spark."""
        return [one for one in filters if not self._taken(one)]

    def _taken(self, one: Any) -> bool:
        match one:
            case api.EqualTo(attribute=("type",), value=name):
                return self._pushed.has_type([name])
            case api.In(attribute=("type",), value=names):
                return self._pushed.has_type(names)
            case api.EqualTo(attribute=("key",), value=key):
                return self._pushed.is_key(key)
            case api.StringStartsWith(attribute=("key",), value=prefix):
                return self._pushed.begins(prefix)
            case api.IsNotNull(attribute=("key" | "type" as name,)):
                return name == "key" or "columns" not in self._given
        return False


class Writer(api.DataSourceArrowWriter):  # type: ignore[misc]
    """Rows as `read` gives them, or a hash a row. What a task wrote before it failed stays: at least once."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def write(self, batches: Iterator[Any]) -> Any:
        self._destination.write(batches)
        return api.WriterCommitMessage()
