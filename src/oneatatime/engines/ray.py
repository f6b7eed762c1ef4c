"""Ray: a deployment as a `ray.data.Dataset` and back, and a function of yours for each partition.

A partition is a read task and gives one block, whole. Where its worker dies Ray does it again; a task that
had given one block of several would be done again with the rows in another order, and lose some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._errors import MissingExtra
from .._partition import Partition
from ._table import Table, Task, opened
from ._written import Destination


def read(
    source: object,
    *,
    partitions: int | None = None,
    limit: int | None = None,
    flatten: bool = False,
    columns: Mapping[str, Any] | Iterable[str] | None = None,
    unfit: str = "null",
    ray_options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """A `ray.data.Dataset` of the rows that `Stream.arrow` gives, each partition a read task and a block.

    `arguments` are those of `stream`: `types` and `match` are asked of the server; and `secret=`, which names
    where workers find the password. `partitions` as for `plan`: a block is in memory whole. `limit`: so many
    rows are enough, and no partition is read further. `ray_options` are those of
    `ray.data.read_datasource`, such as `concurrency`. `select_columns` and `count` read no more than they
    need; `filter`, and `take` without a limit, are Ray's own, over partitions that were read.

    Raises MissingExtra without ray, and what `plan` and `stream` raise.

    >>> def old(url):
    ...     from ray.data.expressions import col
    ...     people = read(url, match="user:*", columns={"age": "int64"}, encoding="utf-8")
    ...     return people.filter(expr=col("age") > 60).select_columns(["key"]).take_all()
    """
    ray = _ray()
    from ._ray_data import OneatatimeDatasource

    table = Table.of(
        source, partitions=partitions, flatten=flatten, columns=columns, unfit=unfit, **arguments
    )
    how = {"override_num_blocks": len(table.partitions), **(ray_options or {})}
    found = ray.data.read_datasource(OneatatimeDatasource(table, limit), **how)
    found.context.target_max_block_size = None  # one block for each task
    return found if limit is None else found.limit(limit)


def datasink(target: object, **how: Any) -> Any:
    """What `Dataset.write_datasink` writes into: rows as `read` gives them, or a hash a row.

    Rows with a column `type` are those of the layout records. Others are hashes: `key`, a field for each
    other column that is not null, and `expires_at` (ms since 1970). `how` are arguments of
    `oneatatime.load`, and `secret=`. When it is written, `loaded` says what has become of the rows. Tasks
    that Ray does again write the same again: at least once.

    >>> def copy(here, there):
    ...     sink = datasink(there)
    ...     read(here).write_datasink(sink)
    ...     return sink.loaded.written
    """
    _ray()
    from ._ray_data import OneatatimeDatasink

    return OneatatimeDatasink(Destination.of(target, **how))


def apply(
    source: object,
    function: Callable[[Any], Any],
    *,
    partitions: int | None = None,
    retries: int = 3,
    ray_options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> list[Any]:
    """What `function` gives of each partition's `Stream`, in the order of the partitions, by Ray tasks.

    `function` loops over the stream (`for key, value in stream`). Where it fails, or its worker dies, it is
    done again up to `retries` times, from the partition's start: what it does to the world happens at least
    once. `ray_options` are those of `ray.remote`, `arguments` as for `read`. Raises what the function raised;
    tasks that have begun by then go on to their end.

    >>> def totals(url):
    ...     return sum(apply(url, lambda stream: sum(len(value) for _, value in stream), types="string"))
    """
    ray = _ray()
    from ._ray_data import in_order

    sent, begun = opened(source, arguments)
    begun.close()
    how = {"max_retries": retries, "retry_exceptions": True, **(ray_options or {})}
    task = Task(function, sent.arguments)

    @ray.remote(**how)  # type: ignore[untyped-decorator, unused-ignore]
    def oneatatime_partition(partition: Partition) -> Any:
        return task(partition)

    return in_order(oneatatime_partition.remote, sent.cut(partitions))


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra('engines.ray needs ray: pip install "oneatatime[ray]"') from error
    return ray
