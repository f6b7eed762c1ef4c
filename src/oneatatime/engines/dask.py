"""Dask: a deployment as a DataFrame or a bag, and a function of yours for each partition of it.

What is planned here is read on Dask's workers, so both must reach the servers, and this package must be
installed on workers and scheduler. No password goes into a graph: `secret=` says where workers find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from .._errors import InvalidInput, MissingExtra
from .._stream import Stream
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
    (`pandas.ArrowDtype`), known without a look at data. What a computation does not use is not read: `len`
    and `df[["key"]]` read keys alone, where each is one row; of `columns` of hashes only those used are
    asked for; `head` stops early. What a lost worker had to do, Dask does again; `df.compute(retries=2)`
    also tries again what fails.

    Raises MissingExtra without Dask, InvalidInput for a password without `secret=`, and what `plan` raises.

    >>> def adults(url):
    ...     people = read(url, match="user:*", columns={"age": "int64"}, encoding="utf-8")
    ...     return people[people.age >= 18].age.count().compute()
    """
    dd, dask = _imported("dask.dataframe"), _imported("dask")
    rows: Any = {"flatten": flatten, "columns": columns, "unfit": unfit}
    table = Table.of(source, partitions=partitions, **rows, **arguments)
    from ._dask_rows import Frame, Rows

    reader = Rows(replace(table, partitions=()))
    with dask.config.set({"dataframe.convert-string": False}):  # they are Arrow's already
        frame = dd.from_map(reader, table.partitions, meta=reader.empty(), label="oneatatime")
    return type(frame)(Frame(*frame.expr.operands))


def read_bag(
    source: object, *, partitions: int | None = None, records: bool = False, **arguments: Any
) -> Any:
    """A Dask bag of `source`: (key, value) as a stream gives them, or with `records` all of a `Record`.

    Values too big to hold are loaded whole, and so is a partition: it is a list. `partitions` are those of
    `plan`, `arguments` those of `stream`, with `secret`.

    Raises MissingExtra without Dask, InvalidInput for a password without `secret=`, and what `plan` raises.

    >>> def longest(url):
    ...     return read_bag(url, types="string").map(lambda pair: len(pair[1])).max().compute()
    """
    bag, _ = _imported("dask.bag"), _imported("dask.dataframe")
    sent, _ = opened(source, arguments)
    parts = sent.cut(partitions)
    from ._dask_rows import Items

    return bag.from_sequence(parts, npartitions=len(parts)).map_partitions(Items(sent.arguments, records))


def apply(
    source: object, function: Callable[[Stream], Any], *, partitions: int | None = None, **arguments: Any
) -> list[Any]:
    """What `function(stream)` returns for the stream of each partition, in the order of partitions.

    On the workers of the distributed client that there is, else on Dask's scheduler here. On workers, a
    partition whose worker is lost, or that fails, is done again, twice at most: `function` sees each key at
    least once, and what it does elsewhere must do no harm twice. An error that stays is raised here, and ends
    the rest. `arguments` are those of `stream`, with `secret`.

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
        return list(dask.compute(*[dask.delayed(task, pure=False)(part) for part in parts]))
    if client.asynchronous:
        raise InvalidInput("apply waits for results, and this client is asynchronous: make one that is not")
    futures = client.map(task, parts, key="oneatatime-apply", pure=False, retries=_RETRIES)
    try:
        return list(client.gather(futures))
    finally:
        client.cancel(futures)


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra('engines.dask needs Dask: pip install "oneatatime[dask]"') from error
