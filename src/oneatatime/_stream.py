"""The stream: what the user holds and loops over.

Every loop is a thin skin over batches: `_View` turns the batch at hand into items, and asks its reading
for the next one when they have run out.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from operator import itemgetter
from types import TracebackType
from typing import Any, Generic, TypeVar

from ._endpoint import Endpoint
from ._errors import Error, InvalidInput
from ._flow import Statistics
from ._loop import Skin
from ._options import Keys, Options, Selection
from ._reading import Reading, Shape
from ._record import Batch, Record
from ._source import KeySource
from ._worker import Work
from .datatypes import values_of

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


class _Failing:
    """Items of a batch in which some rows are errors: each is raised in its place, and costs only itself."""

    def __init__(self, items: Iterator[Any], failed: dict[int, Error]) -> None:
        self._items = items
        self._failed = failed
        self._row = -1

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self._row += 1
        if self._row in self._failed:
            raise self._failed[self._row]
        return item


class _Runs:
    """Lists of records, cut where a row is an error."""

    def __init__(self, records: Iterator[Record], failed: dict[int, Error]) -> None:
        self._records = _Failing(records, failed)
        self._lengths = [after - before - 1 for before, after in itertools.pairwise([-1, *sorted(failed)])]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> list[Record]:
        if self._lengths and self._lengths[0]:
            run = list(itertools.islice(self._records, self._lengths[0]))
            self._lengths[0] = 0
            return run
        if self._lengths:
            del self._lengths[0]
            next(self._records)  # raises the error
        if last := list(self._records):
            return last
        raise StopIteration


class Stream(_View[Any]):
    """An async iterator of (key, value) over what was selected; also a plain one.

    Nothing is opened before the first item is asked for. A loop that ends early (`break`, an exception, a
    timeout) may be followed by another, which goes on where it stopped; a stream that nobody holds any
    more leaves no task and no connection behind. `aclose()` and `async with` end it at once.
    """

    def __init__(self, work: Work, source: KeySource | None = None) -> None:
        super().__init__(Reading(work, source), _pairs)
        self._work = work

    def records(self) -> _View[Record]:
        """The same stream as `Record`s: key, type, value and the metadata asked for."""
        return _View(self._reading, _records)

    def batches(self) -> _View[list[Record]]:
        """The same stream as lists of `Record`s, one list a page: the quickest way to loop in bulk."""
        return _View(self._reading, _batches)

    def keys(self) -> _View[Any]:
        """The keys alone. If this is how the stream begins, no value is read at all, then or later."""
        return _Keys(self._reading, _names)

    def __getitem__(self, key: object) -> Any:
        raise TypeError("a stream is no mapping: dict(iter(stream)) makes one of it")

    def statistics(self) -> Statistics:
        """A snapshot of what has been done so far."""
        return self._reading.statistics()

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
        return f"<Stream of {self._work.endpoint.node}: {done.keys} keys, {state}>"


def stream(
    source: object,
    *,
    match: bytes | str | None = None,
    types: str | Iterable[str] | None = None,
    keys: Keys | None = None,
    metadata: str | Iterable[str] = (),
    encoding: str | None = None,
    errors: str = "strict",
    count: int | None = None,
    rate: float | None = None,
    bandwidth: float | None = None,
    max_load: float | None = None,
    options: Options | None = None,
) -> Stream:
    """Everything in a database, as an async iterator of (key, value); all types mixed.

    `source` is a URL (`redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://`) or a client object of
    redis-py, valkey-py, coredis or valkey-glide, which is only asked how to connect. `match` is a glob
    pattern, `types` one of Redis's type names or several, `keys` the keys to read instead of all.
    `metadata` names what `records()` shall know beside the value: "ttl" (ms), "memory" (bytes), "idle"
    (s), "freq", "encoding". `encoding` gives str for bytes, `errors` as in `bytes.decode`. `count` is
    SCAN's COUNT. `rate` (keys a second), `bandwidth` (bytes a second) and `max_load` (share of the
    server's time, up to 1) hold the stream back; `options` holds all other settings.

    Values: string bytes, hash dict, list list, set set, zset list of (member, score), stream list of
    (id, fields), JSON the document, any other type `Opaque`; a value over `Options.parts_over` bytes is a
    `Parts`, itself an async iterator. Every key that exists from the first step to the last is delivered
    at least once.

    Raises InvalidInput here, for arguments that make no sense; the loop raises what `oneatatime.Error`
    documents.

    >>> import oneatatime
    >>> async def total(url):
    ...     return sum([len(value) async for key, value in oneatatime.stream(url, types="string")])
    """
    selection = Selection.checked(
        match=match, types=types, keys=keys, metadata=metadata, encoding=encoding, errors=errors
    )
    chosen = _options(options, count=count, rate=rate, bandwidth=bandwidth, max_load=max_load)
    work = Work(Endpoint.of(source), chosen, selection)
    return Stream(work, KeySource(selection) if keys is not None else None)


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
        self._endpoint = Endpoint.of(redis)
        self._options = _options(options, count=count, rate=rate)
        self._keys = keys
        super().__init__(self._new_reading(), _values)

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
        work = Work(self._endpoint, self._options, self._selection, keep_missing=True)
        return Reading(work, KeySource(self._selection))


def _options(options: Options | None, **given: float | None) -> Options:
    options = Options() if options is None else options
    if not isinstance(options, Options):
        raise InvalidInput(f"options= is an oneatatime.Options, not {type(options).__name__}: {options!r}")
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(options, **changes) if changes else options


# What an item is


def _pairs(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(zip(keys, _read(batch)), batch)


def _values(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(map(itemgetter(1), zip(keys, _read(batch))), batch)


def _names(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(keys, batch)


def _records(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return _rows(_all_records(keys, batch), batch)


def _rows(items: Iterator[Any], batch: Batch) -> Iterator[Any]:
    return items if batch.failed is None else _Failing(items, batch.failed)


def _all_records(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    types = itertools.repeat(batch.types) if isinstance(batch.types, str) else batch.types
    columns = batch.metadata or {}
    metadata = [columns.get(name) or itertools.repeat(None) for name in Record._fields[3:]]
    return map(Record, keys, types, _read(batch), *metadata)


def _batches(keys: Iterator[Any], batch: Batch) -> Iterator[Any]:
    records = _all_records(keys, batch)
    return iter([list(records)]) if batch.failed is None else _Runs(records, batch.failed)


def _read(batch: Batch) -> Iterable[Any]:
    if len(batch.values) < len(batch):
        text = "the stream was begun by keys(), which reads no values: read them with a stream of their own"
        raise InvalidInput(text)
    return values_of(batch)
