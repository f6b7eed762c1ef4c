"""What Ray is given: where a `ray.data.Dataset` comes from, where it goes, and tasks a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.data import Datasink, Datasource, ReadTask
from ray.data.block import BlockAccessor, BlockMetadata

from .._import import Loaded
from .._partition import Partition
from ..formats._schema import arrow
from ._table import Table
from ._written import Destination, together


class OneatatimeDatasource(Datasource):  # type: ignore[misc, unused-ignore]
    """A read task for each partition, which gives one block; of its columns those that the query needs.

    `limit`: how many rows of a partition are enough.
    """

    def __init__(self, table: Table, limit: int | None = None, wanted: list[str] | None = None) -> None:
        super().__init__()
        self._table = table
        self._limit = limit
        self._wanted = wanted

    def estimate_inmemory_data_size(self) -> None:
        return None

    def supports_projection_pushdown(self) -> bool:
        return not hasattr(Datasource, "get_column_renames")  # with which it meant something else

    def get_projection_map(self) -> dict[str, str] | None:
        return None if self._wanted is None else {name: name for name in self._wanted}

    def apply_projection(self, projection_map: Mapping[str, str] | None) -> OneatatimeDatasource:
        here = self._table.schema.names if self._wanted is None else self._wanted
        if projection_map is None:
            return self
        wanted = [name for name in here if name in projection_map]
        return OneatatimeDatasource(self._table, self._limit, wanted)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        names = self._wanted if self._wanted != [] else ["key"]  # of none, how many rows there are
        schema = self._table.schema
        if names is not None:
            schema = arrow().schema([schema.field(name) for name in names])
        table = replace(self._table, partitions=(), schema=schema)  # each task has only its own partition
        limits = [one for one in (self._limit, per_task_row_limit) if one is not None]
        limit = min(limits, default=None)
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [
            ReadTask(_reading(table, one, names, limit), unknown, schema=schema)
            for one in self._table.partitions
        ]


def _reading(
    table: Table, partition: Partition, names: list[str] | None, limit: int | None
) -> Callable[[], list[Any]]:
    def oneatatime_partition() -> list[Any]:
        return [arrow().Table.from_batches(table.batches(partition, names, limit), table.schema)]

    return oneatatime_partition


class OneatatimeDatasink(Datasink):  # type: ignore[misc, unused-ignore]
    """The blocks of a task into a deployment. `loaded`: what has become of all, once they are written."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self.loaded: Loaded | None = None

    def write(self, blocks: Iterable[Any], ctx: Any) -> Loaded:
        some = map(BlockAccessor.for_block, blocks)
        return self._destination.write(block.to_arrow() for block in some if block.num_rows())

    def on_write_complete(self, write_result: Any) -> None:
        self.loaded = together(write_result.write_returns)


def in_order(submit: Callable[[Partition], Any], partitions: Iterable[Partition]) -> list[Any]:
    """What the tasks of these partitions give. No more are submitted than Ray can soon begin.

    So few are left where one fails. They are not cancelled: a task that is cancelled in the instant in which
    it ends, or is about to be done again, ends the whole process (Ray 2.60: "Check failed").
    """
    if not ray.is_initialized():
        ray.init()
    waiting, running, found = deque(enumerate(partitions)), dict[Any, int](), dict[int, Any]()
    while waiting or running:
        most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while waiting and len(running) < most:
            number, partition = waiting.popleft()
            running[submit(partition)] = number
        for done in ray.wait(list(running))[0]:
            found[running.pop(done)] = ray.get(done)
    return [found[number] for number in sorted(found)]
