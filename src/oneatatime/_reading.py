"""One reading of a selection: its tasks, and where the loop over it stands. The only place that starts tasks.

A `Reading` owns a `_Run`: the tasks, the flow between them and the loop, and nothing that points back.
So when the iterator over a reading is dropped (a `break`, an exception, a timeout), the reading dies by
its reference count, and takes tasks and connections with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from ._blocking import Blocking, Turns, iterate
from ._checkpoint import Json
from ._errors import Incomplete, PermissionDenied, ProtocolViolation, StreamClosed, Undecodable
from ._reader import Reader
from ._record import Batch
from ._source import KeySource
from ._statistics import Statistics

T = TypeVar("T")

Shape = Callable[[Iterator[Any], Batch], Iterator[Any]]
"""What a view makes of a batch: from the iterator over its keys, which tells how far the loop is."""


class View(Protocol[T]):
    """An iterator over a reading: it holds what is left of the batch it is in."""

    items: Iterator[T]
    shape: Shape


class _Run:
    """The tasks that read, in the event loop where the first batch was asked for."""

    def __init__(self, reader: Reader, source: KeySource | None) -> None:
        self.reader = reader
        self.work = reader.work
        self._source = source
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._closed = False

    @property
    def begun(self) -> bool:
        return self._loop is not None

    async def take(self) -> Batch | None:
        """The next batch, or None at the end."""
        loop = asyncio.get_running_loop()
        if self._loop is None and not self._closed:
            self._loop = loop
            self.work.flow.began = time.perf_counter()
            self._spawn(self.reader.read(self._spawn))
        elif self._loop is not loop and not self._closed:
            raise StreamClosed("the stream was begun in another event loop, and lives and ends there")
        try:
            return await self.work.flow.take()
        except Exception:
            self._cancel()
            await self._until_ended()  # or a loop that ends with the error would meet what is still ending
            raise

    async def _until_ended(self) -> None:
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        batch = await self.take()
        if batch is None:
            raise StopAsyncIteration
        return batch

    def _spawn(self, reading: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        self._running += 1
        task = self._loop.create_task(self._watch(reading))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(task, reading))

    def _ended(self, task: asyncio.Task[None], reading: Coroutine[Any, Any, None]) -> None:
        self._tasks.discard(task)
        reading.close()  # a task that is cancelled early never began it
        if not task.cancelled():
            task.exception()  # a KeyboardInterrupt has gone its own way already

    async def _watch(self, reading: Coroutine[Any, Any, None]) -> None:
        flow = self.work.flow
        try:
            await reading
        except (asyncio.CancelledError, GeneratorExit):
            flow.fail(StreamClosed("the stream was closed while it was read"))
            raise
        except BaseException as error:
            if isinstance(error, Incomplete):
                error.missing += self.reader.not_begun
            flow.fail(error)
            self._cancel(besides=asyncio.current_task())
            if not isinstance(error, Exception):
                raise
        else:
            self._running -= 1
            if not self._running:
                flow.finish()

    def _cancel(self, besides: asyncio.Task[Any] | None = None) -> None:
        for task in list(self._tasks):
            if task is not besides:
                task.cancel()

    def drop(self) -> None:
        """Ends everything, from a destructor too, in whatever thread that runs."""
        self._closed = True
        if self._loop is None or self._here():
            self._end()
        elif not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it is being closed just now
                self._loop.call_soon_threadsafe(self._end)

    async def aclose(self) -> None:
        """Ends everything and waits until nothing of it is left."""
        self.drop()
        if self._loop is not None and not self._here():
            return
        await self._until_ended()
        if self._source is not None:
            await self._source.aclose()

    def _here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _end(self) -> None:
        self.work.flow.close()
        self._cancel()


class Reading:
    """One reading of a selection, shared by all views of a stream: where the loop stands."""

    def __init__(self, reader: Reader, source: KeySource | None = None) -> None:
        self.work = reader.work
        self._reader = reader
        self._source = source
        self._run = _Run(reader, source)
        self._blocking: Blocking[Batch] | None = None
        self._lock: asyncio.Lock | None = None
        self._turns = Turns()
        self.one_at_a_time = threading.Lock()
        self._batch = Batch([], "", [])
        self._keys: Iterator[Any] = iter(())
        self._delivered = 0
        self._types: Counter[str] = Counter()
        self._view: weakref.ref[View[Any]] | None = None
        self._closed = False

    @property
    def begun(self) -> bool:
        return self._blocking is not None or self._lock is not None

    async def refill(self, view: View[T]) -> T:
        """The next item for a view whose items have run out; gives it the rest of a batch with it."""
        if self._blocking is not None:
            raise StreamClosed("the stream was begun by a plain `for`, and goes on only in one")
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:  # several tasks may share a stream: each item goes to one of them
            while True:
                for item in self._first(view):
                    return item
                if not self._hand_rest_to(view):
                    await asyncio.sleep(0)  # a quick loop over a quick server leaves the others their turn
                    try:
                        batch = await self._run.take()
                    except Exception:
                        self._finish()
                        raise
                    if batch is None:
                        self._finish()
                        raise StopAsyncIteration
                    self._begin(batch, view)

    def refill_blocking(self, view: View[T]) -> T:
        """The same for a plain `for`."""
        with self._turns:  # several threads may share a stream too
            if self._blocking is None:
                if self._run.begun:
                    raise StreamClosed("the stream was begun by `async for`, and goes on only in one")
                self._blocking = iterate(lambda run=self._run: run)  # type: ignore[misc]
            while True:
                with self.one_at_a_time:
                    for item in self._first(view):
                        return item
                if not self._hand_rest_to(view):
                    try:
                        batch = next(self._blocking)
                    except Exception:
                        self._finish()
                        raise
                    self._begin(batch, view)

    def _first(self, view: View[T]) -> list[T]:
        """The next item that a view has, if any."""
        try:
            return list(itertools.islice(view.items, 1))
        except Exception as error:  # noqa: BLE001 - whatever an item fails with
            raise self.failed(error)  # noqa: B904 - mostly the same

    def failed(self, error: Exception) -> Exception:
        """What is raised where an item could not be made; a broken reply ends the reading, as anywhere."""
        if isinstance(error, ProtocolViolation):
            error = ProtocolViolation(error.message, node=self.work.deployment.name, command=error.command)
            self.work.flow.fail(error)
        elif isinstance(error, Undecodable | PermissionDenied):
            self.work.account.fail(error)
        return error

    def _hand_rest_to(self, view: View[Any]) -> bool:
        """What another view has left of the batch goes to this one."""
        before = self._view() if self._view is not None else None
        left = self._keys.__length_hint__()  # type: ignore[attr-defined]
        if left and self._closed:
            raise StreamClosed("the stream is closed")
        if before is view or not left:
            return False
        if before is not None:
            before.items = iter(())
        self._begin(_from(self._batch, len(self._batch) - left), view)
        return True

    def _begin(self, batch: Batch, view: View[Any]) -> None:
        self._account()
        for milestone, reached in (batch.before or {}).items():
            milestone.loop_reached(reached)
        self._batch = batch
        self._keys = iter(batch.keys)
        try:
            view.items = view.shape(self._keys, batch)
        except ProtocolViolation as error:
            self._batch, self._keys = Batch([], "", []), iter(())
            raise self.failed(error) from error
        self._view = weakref.ref(view)

    def _finish(self) -> None:
        """The loop has taken all there was, to the end or to an error."""
        if not self._closed and not self._keys.__length_hint__():  # type: ignore[attr-defined]
            self.work.flow.finished_with_all()

    def _account(self) -> None:
        """Counts what has been delivered of the batch that gives way to another."""
        delivered = len(self._batch) - self._keys.__length_hint__()  # type: ignore[attr-defined]
        self._delivered += delivered
        self._types.update(_types(self._batch, delivered))

    def statistics(self) -> Statistics:
        work, flow, account = self.work, self.work.flow, self.work.account
        here = len(self._batch) - self._keys.__length_hint__()  # type: ignore[attr-defined]
        delivered = self._delivered + here
        finished = flow.complete and here == len(self._batch)
        finished = finished and (self._blocking is None or self._blocking.over)
        fraction = 1.0 if finished else self._fraction()
        now = flow.ended if finished and flow.ended else time.perf_counter()
        traffic = work.traffic
        return Statistics(
            keys=delivered,
            bytes=traffic.received,
            types=MappingProxyType(dict(self._types + _types(self._batch, here))),
            vanished=account.vanished + work.values.vanished,
            torn=work.values.torn,
            commands=traffic.commands,
            round_trips=traffic.round_trips,
            elapsed=now - flow.began if flow.began is not None else 0.0,
            estimated_total=self._estimate(delivered, fraction),
            fraction=fraction,
            complete=finished and not (account.forbidden or account.failed or account.skipped),
            finished=finished,
            keys_at_start=account.keys_at_start,
            keys_at_end=account.keys_at_end,
            repeats=account.repeats,
            forbidden=account.forbidden,
            failed=account.failed,
            failures=tuple(account.failures),
            read_again=account.read_again,
            skipped=tuple(account.skipped),
            nodes=tuple(account.nodes),
            best_effort=account.best_effort,
        )

    def checkpoint(self) -> Json:
        """What is needed to go on from here."""
        return self._reader.checkpoint()

    def _fraction(self) -> float:
        if self._source is not None:
            return self._source.taken / self._source.total if self._source.total else 0.0
        return self._reader.fraction

    def _estimate(self, delivered: int, fraction: float) -> int | None:
        selection = self.work.selection
        if self._source is not None:
            return self._source.total
        if selection.match is None and not selection.types and not self._reader.partial:
            return self.work.account.keys_at_start
        return round(delivered / fraction) if fraction else None

    async def aclose(self) -> None:
        """Ends the reading; returns when nothing of it is left."""
        self.close()
        if self._blocking is None:
            await self._run.aclose()

    def close(self) -> None:
        """The same at once, where nobody can wait: tasks and connections are gone a moment later."""
        self._closed = True
        view = self._view() if self._view is not None else None
        if view is not None:
            view.items = iter(())
        if self._blocking is not None:
            self._blocking.close()
        else:
            self._run.drop()

    def __del__(self) -> None:
        self.close()


def _from(batch: Batch, start: int) -> Batch:
    types = batch.types if isinstance(batch.types, str) else batch.types[start:]
    rest = Batch(batch.keys[start:], types, batch.values[start:], raw=batch.raw)
    if batch.metadata is not None:
        rest.metadata = {name: column[start:] for name, column in batch.metadata.items()}
    if batch.failed is not None:
        rest.failed = {row - start: error for row, error in batch.failed.items() if row >= start} or None
    return rest


def _types(batch: Batch, rows: int) -> Counter[str]:
    if isinstance(batch.types, str):
        return Counter({batch.types: rows} if rows and batch.types else {})
    return Counter(batch.types[:rows])
