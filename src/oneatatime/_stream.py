"""The stream: what the user holds and loops over.

Every loop is a thin skin over batches: `_View` turns the batch at hand into items, and asks its reading
for the next one when they have run out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _items as items
from ._checkpoint import Checkpoint
from ._deployment import Deployment
from ._errors import InvalidInput
from ._loop import Skin
from ._options import Keys, Options, Selection, check_processes
from ._partition import Partition
from ._reader import Reader
from ._reading import Reading, Shape
from ._record import Batch, Record
from ._source import KeySource
from ._statistics import Statistics
from ._work import Work

if TYPE_CHECKING:
    from ._frames import ArrowStream

T = TypeVar("T")


class _View(Skin, Generic[T]):
    """The thin skin over batches: an iterator of items, `async` or plain, that ends with its reading."""

    def __init__(self, reading: Reading, shape: Shape) -> None:
        self.items = iter(())
        self.shape = shape
        self._reading = reading

    async def refill(self) -> Any:
        return await self._reading.refill(self)

    def failed(self, error: Exception) -> Exception:
        return self._reading.failed(error)

    def __iter__(self) -> Iterator[T]:
        return _Plain(self, self._reading)


class _Keys(_View[Any]):
    """Keys alone. A stream that begins so reads no values at all."""

    async def refill(self) -> Any:
        self._begin()
        return await super().refill()

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        return super().__iter__()

    def _begin(self) -> None:
        if not self._reading.begun:
            self._reading.work.names_only = True


class _Plain(Generic[T]):
    """A view looped over by a plain `for`."""

    def __init__(self, view: _View[T], reading: Reading) -> None:
        self._view = view
        self._reading = reading

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        items: Iterator[T] = self._view.items
        with self._reading.one_at_a_time:  # of several threads, or one had another's metadata
            try:
                for item in items:
                    return item
            except Exception as error:  # noqa: BLE001 - whatever an item fails with
                raise self._reading.failed(error)  # noqa: B904 - mostly the same
        item = self._reading.refill_blocking(self._view)
        return item


class Stream(_View[Any]):
    """An async iterator of (key, value) over what was selected; also a plain one.

    Nothing is opened before the first item is asked for. A loop that ends early (`break`, an exception, a
    timeout) may be followed by another, which goes on where it stopped; a stream that nobody holds any
    more leaves no task and no connection behind. `aclose()` and `async with` end it at once.
    """

    def __init__(self, asked: _Asked, reading: Reading) -> None:
        super().__init__(reading, items.pairs)
        self._asked = asked

    def records(self) -> _View[Record]:
        """The same stream as `Record`s: key, type, value and the metadata asked for."""
        return _View(self._reading, items.records)

    def batches(self) -> _View[list[Record]]:
        """The same stream as lists of `Record`s, one list a page: the quickest way to loop in bulk."""
        return _View(self._reading, items.batches)

    def arrow(
        self,
        flatten: bool = False,
        columns: Mapping[str, Any] | Iterable[str] | None = None,
        unfit: str = "null",
    ) -> ArrowStream:
        """The same selection as a table for pyarrow, polars, pandas or DuckDB, scanned anew by each.

        A row is a record; with `flatten` an element; with `columns` a hash, and a column each field that is
        named there: `{"age": "int64"}`, or only the names, whose types are then inferred from the first
        hashes. What does not fit its type is null, or with unfit="error" an error that names key and field.
        A stream is such a table of records by itself: `polars.DataFrame(stream)`.

        >>> def ages(url):
        ...     import polars
        ...     people = stream(url, match="user:*", encoding="utf-8")
        ...     return polars.DataFrame(people.arrow(columns={"age": "int64"}))
        """
        from ._frames import (  # here, as below: few streams are tables, and every start waits
            ArrowStream,
            Rows,
        )

        return ArrowStream(self._asked, Rows.checked(flatten, columns, unfit))

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.arrow().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.arrow().__arrow_c_schema__()

    def _repr_html_(self) -> str:
        from ._html import table_of

        return table_of(self._asked, self._reading.work.deployment.name, self.statistics())

    def _batches(self) -> _View[Batch]:
        """The same stream as what travels within it: for whoever works column by column."""
        return _View(self._reading, items.wholes)

    def keys(self) -> _View[Any]:
        """The keys alone. If this is how the stream begins, no value is read at all, then or later."""
        return _Keys(self._reading, items.names)

    def __getitem__(self, key: object) -> Any:
        raise TypeError("a stream is no mapping: dict(iter(stream)) makes one of it")

    def statistics(self) -> Statistics:
        """A snapshot of what has been done so far, and the statement of completeness."""
        return self._reading.statistics()

    def checkpoint(self) -> dict[str, Any]:
        """What is needed to go on after a crash: `stream(source, resume=...)` takes it.

        Plain data for `json.dumps`, with nothing secret in it. It counts only what the loop has finished
        with: everything before the batch that the current item came in. What was delivered since comes again
        after a resume; nothing is left out.

        >>> import json
        >>> async def save(stream, path):
        ...     async for key, value in stream:
        ...         ...
        ...         path.write_text(json.dumps(stream.checkpoint()))
        """
        return self._reading.checkpoint()

    async def aclose(self) -> None:
        """Ends the stream; returns when its tasks and connections are gone."""
        await self._reading.aclose()

    def close(self) -> None:
        """The same for code without an event loop."""
        self._reading.close()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        done = self.statistics()
        state = "complete" if done.complete else f"{done.fraction:.0%} done"
        return f"<Stream of {self._reading.work.deployment.name}: {done.keys} keys, {state}>"


def stream(
    source: object,
    *,
    match: bytes | str | None = None,
    types: str | Iterable[str] | None = None,
    keys: Keys | None = None,
    metadata: str | Iterable[str] = (),
    encoding: str | None = None,
    errors: str = "strict",
    db: int | str | None = None,
    unique: bool | str = False,
    fields: Iterable[bytes | str] | None = None,
    dump: bool = False,
    resume: Mapping[str, Any] | None = None,
    count: int | None = None,
    rate: float | None = None,
    bandwidth: float | None = None,
    max_load: float | None = None,
    on_unreachable: str | None = None,
    read_from: str | None = None,
    processes: int = 1,
    options: Options | None = None,
) -> Stream:
    """Everything in a deployment, as an async iterator of (key, value); all types mixed.

    `source` is a URL (`redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://`, `redis+cluster://`,
    `redis+sentinel://`), a client object of redis-py, valkey-py, coredis or valkey-glide, which is only
    asked how to connect, or a `Partition`. `match` is a glob pattern, `types` one of Redis's type names or
    several, `keys` the keys to read instead of all. `metadata` names what `records()` shall know beside
    the value: "ttl" (ms), "memory" (bytes), "idle" (s), "freq", "encoding", "expires_at" (ms since 1970), and
    "details": when fields of a hash expire, groups of a stream. `encoding` gives str for bytes, `errors` as
    in `bytes.decode`. `db` is a database's number, or "all". `fields`: hashes alone, and of them only these
    fields travel. `dump`: every value is an `Opaque`, as DUMP gives it, big ones `Parts` of their own type.

    `unique`: each key comes exactly once; what was delivered is remembered in memory (True or "memory";
    about 30 bytes a key on one server, next to nothing in a cluster) or on "disk". `resume` is what
    `Stream.checkpoint` gave. `on_unreachable` is "wait" for a server that is gone (for `Options.patience`
    seconds), "fail", or "skip" what it holds; `read_from` is "primary" or "replica". `count` is SCAN's COUNT.
    `rate` (keys a second), `bandwidth` (bytes a second) and `max_load` (share of a server's time, up
    to 1) hold the stream back; `options` holds all other settings. `processes`: so many processes read, which
    this one only takes the batches of, where reading is the limit: of a cluster, of JSON, of hashes as text.

    Values: string bytes, hash dict, list list, set set, zset list of (member, score), stream list of
    (id, fields), JSON the document, any other type `Opaque`; a value over `Options.parts_over` bytes is a
    `Parts`, itself an async iterator. Every key that exists from the first step to the last is delivered
    at least once, or the loop ends in an error: `Incomplete` names what could not be read.

    Raises InvalidInput here, for arguments that make no sense; the loop raises what `oneatatime.Error`
    documents.

    >>> import oneatatime
    >>> async def total(url):
    ...     return sum([len(value) async for key, value in oneatatime.stream(url, types="string")])
    """
    partition = source if isinstance(source, Partition) else None
    if partition is not None and (db is not None or keys is not None):
        raise InvalidInput("a partition is read whole: db= was given to plan(), and keys= have none")
    check_processes(processes, keys=keys is not None, partition=partition is not None)
    selection = Selection.checked(
        match=match,
        types=types,
        keys=keys,
        metadata=metadata,
        encoding=encoding,
        errors=errors,
        unique=unique,
        all_dbs=_all_dbs(db) or (partition is not None and partition.all_dbs),
    ).reading(fields=fields, dump=dump)
    chosen = Options.of(
        options,
        count=count,
        rate=rate,
        bandwidth=bandwidth,
        max_load=max_load,
        on_unreachable=on_unreachable,
        read_from=read_from,
    )
    deployment = partition.deployment if partition is not None else Deployment.of(source, db=_number(db))
    begun = Checkpoint.of_json(resume) if resume is not None else None
    if begun is not None and keys is not None:
        raise InvalidInput("keys= cannot be resumed: give those that are left")
    return _Asked(deployment, partition, selection, chosen, begun, processes).begin()


@dataclass(frozen=True, eq=False, repr=False)
class _Asked:
    """What a stream was asked for: enough to begin it anew."""

    deployment: Deployment
    partition: Partition | None
    selection: Selection
    options: Options
    resume: Checkpoint | None
    processes: int = 1

    def begin(self, options: Options | None = None, **changes: Any) -> Stream:
        """A new stream, of a selection with these changes."""
        selection = replace(self.selection, **changes)
        given = KeySource(selection) if selection.keys is not None else None
        work = Work(self.deployment, options or self.options, selection)
        if self.processes > 1:
            from ._processes import Processes  # here: few streams need them, and every start waits

            return Stream(self, Reading(Processes(work, self.processes, self.resume)))
        return Stream(self, Reading(Reader(work, given, self.partition, self.resume), given))


def selection_of(stream: Stream) -> Selection:
    """What a stream reads."""
    return stream._reading.work.selection


def patience_of(stream: Stream) -> float:
    """For how many seconds a server may be gone that a stream reads."""
    options = stream._reading.work.options
    return options.patience if options.on_unreachable != "fail" else 0.0


def batches_of(stream: Stream) -> _View[Batch]:
    """The same stream as batches, column by column: what sinks take."""
    return stream._batches()


def _all_dbs(db: int | str | None) -> bool:
    if isinstance(db, str) and db != "all":
        raise InvalidInput(f'db={db!r} must be the number of a database, or "all"')
    return db == "all"


def _number(db: int | str | None) -> int | None:
    return None if isinstance(db, str) else db


class OneAtATime(_View[Any]):
    """The values of given keys, in their order, one at a time: None for a key that is not there.

    `redis` is a URL or a client object, as for `stream`. `keys` may be any iterable or async iterable,
    finite or endless. Values come as soon as they are there: a slow source of keys is read key by key, a
    fast one a page at a time. Keys are taken ahead of the loop: as many pages as keep the server busy.

    `rate` is keys a second at most; `options` holds all other settings. Each loop starts over the keys;
    keys that can be run through only once go on where they stopped.

    >>> import oneatatime
    >>> async def show(redis):
    ...     async for value in oneatatime.OneAtATime(redis, ["user:1", "user:2"]):
    ...         print(value)
    """

    def __init__(
        self,
        redis: object,
        keys: Keys,
        *,
        encoding: str | None = None,
        errors: str = "strict",
        count: int | None = None,
        rate: float | None = None,
        options: Options | None = None,
    ) -> None:
        if keys is None:
            raise InvalidInput("keys= is missing: OneAtATime reads the keys it is given")
        self._selection = Selection.checked(
            match=None, types=None, keys=keys, metadata=(), encoding=encoding, errors=errors
        )
        self._deployment = Deployment.of(redis)
        self._options = Options.of(options, count=count, rate=rate)
        self._keys = keys
        super().__init__(self._new_reading(), items.values)

    def __aiter__(self) -> AsyncIterator[Any]:
        self._start_over()
        return self

    def __iter__(self) -> Iterator[Any]:
        self._start_over()
        return super().__iter__()

    async def aclose(self) -> None:
        """Ends the iteration; returns when its tasks and connections are gone."""
        await self._reading.aclose()

    def _start_over(self) -> None:
        once = isinstance(self._keys, Iterator | AsyncIterator)
        if self._reading.begun and not once:
            self._reading.close()
            self._reading = self._new_reading()
            self.items = iter(())

    def _new_reading(self) -> Reading:
        work = Work(self._deployment, self._options, self._selection, keep_missing=True)
        source = KeySource(self._selection)
        return Reading(Reader(work, source), source)
