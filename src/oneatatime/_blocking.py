"""An async iterator looped over by code that has no event loop, or whose loop is busy running it.

The iterator runs on an event loop in a thread of its own, which hands its items over a small bounded
queue. It hands over batches, never single records: a hop between threads costs microseconds. This is
the only place that starts a thread; `aside` does work on files in one of the loop's own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from ._errors import StreamClosed

T = TypeVar("T")
R = TypeVar("R")

_ROOM = 2  # items handed over and not taken; what lies behind them is bounded by whoever makes them


Turns = threading.RLock
"""Lets one thread at a time take from what several loop over."""


def iterate(make: Callable[[], AsyncIterator[T]]) -> Blocking[T]:
    """A plain iterator over the async iterator that `make` makes, in the thread where it will run."""
    return Blocking(make)


def beside(work: Callable[[], None]) -> None:
    """Starts `work` in a thread that keeps nobody from ending."""
    threading.Thread(target=work, name="oneatatime-beside", daemon=True).start()


async def aside(work: Callable[..., R], *arguments: Any) -> R:
    """What `work` gives, done in a thread while the loop goes on.

    It comes back when the work is done, also where it is cancelled: whoever cleans up then meets nobody
    who is still at it.
    """
    running = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if (error := running.exception()) is not None:
            raise error from None  # what has failed counts more than that it was not waited for
        raise


class _Handover(Generic[T]):
    """What the two threads share. The thread holds only this, so a dropped iterator ends it."""

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.changed = threading.Condition()
        self.over = False
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.room: asyncio.Event | None = None

    async def fill(self, make: Callable[[], AsyncIterator[T]]) -> None:
        self.loop, self.task, self.room = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
        with self.changed:
            if self.over:  # closed before it began
                return
        source = make()
        try:
            async for item in source:
                with self.changed:
                    self.items.append(item)
                    self.changed.notify_all()
                    self.room.clear()
                    full = len(self.items) >= _ROOM
                if full:
                    await self.room.wait()
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
            del source  # here and now, while the loop can still close what it holds

    def run(self, make: Callable[[], AsyncIterator[T]]) -> None:
        try:
            asyncio.run(self.fill(make))
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised where the items are taken
            self.error, self.trace = self.error or error, error.__traceback__
        with self.changed:
            self.over = True
            self.changed.notify_all()


class Blocking(Generic[T]):
    """A plain iterator; `close` ends it early and waits until nothing of it is left."""

    def __init__(self, make: Callable[[], AsyncIterator[T]]) -> None:
        self._handover: _Handover[T] = _Handover()
        run = self._handover.run
        self._thread = threading.Thread(target=run, args=(make,), name="oneatatime", daemon=True)
        self._process = os.getpid()
        self._thread.start()
        _open.add(self)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._process != os.getpid():
            raise StreamClosed("it was begun in another process, and goes on only there")
        shared = self._handover
        with shared.changed:
            while not shared.items and not shared.over:
                shared.changed.wait()
            if shared.items:
                item = shared.items.popleft()
                self._wake()
                return item
        self._thread.join()
        if shared.error is not None:
            raise shared.error.with_traceback(shared.trace)
        raise StopIteration

    @property
    def over(self) -> bool:
        """Whether all items were taken, to the end."""
        shared = self._handover
        return shared.over and shared.error is None and not shared.items

    def close(self) -> None:
        """Ends the loop in the thread and waits for it."""
        if self._process != os.getpid():  # after a fork the thread is the other process's
            return
        shared = self._handover
        with shared.changed:
            alive, shared.over = not shared.over, True
            if alive or shared.items:  # the thread may be done where the loop is not
                shared.error = shared.error or StreamClosed("it was closed before its end")
            shared.items.clear()
            shared.changed.notify_all()
        if alive and shared.loop is not None and shared.task is not None:
            with contextlib.suppress(RuntimeError):  # it may end by itself just now
                shared.loop.call_soon_threadsafe(shared.task.cancel)
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join()  # which an interpreter that is ending may not even have let begin

    def __del__(self) -> None:
        if not sys.is_finalizing():  # then `_close_all` has done it
            self.close()

    def _wake(self) -> None:
        shared = self._handover
        if shared.loop is not None and shared.room is not None:
            with contextlib.suppress(RuntimeError):  # the thread's loop may be over already
                shared.loop.call_soon_threadsafe(shared.room.set)


_open: weakref.WeakSet[Blocking[Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that still runs when the interpreter goes would be stopped anywhere, and joined in vain."""
    for blocking in list(_open):
        blocking.close()
