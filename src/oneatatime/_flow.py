"""Between workers and loop: batches that wait, bounded in bytes, and how far the loop is with them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

from ._errors import StreamClosed
from ._record import Batch

_TELL_EVERY = 0.2  # seconds in which no batch came: then a loop that waits is told how far it is


class Milestone(Protocol):
    """Something that is read bit by bit, and wants to know how much of it the loop has finished with."""

    def loop_reached(self, reached: Any) -> None:
        """The loop has finished with all that was put before this was noted."""


class Flow:
    """Batches on their way from several workers to whoever takes them.

    A worker that puts a batch while more than `ahead` bytes wait goes on only when there is room again. An
    error is a value here: it comes out after the batches that were put before it.
    """

    def __init__(self, ahead: int) -> None:
        self.began: float | None = None
        self.ended: float | None = None
        self._readers = 0
        self._batches: deque[tuple[Batch, int]] = deque()
        self._ahead = 0
        self._most_ahead = ahead
        self._taker: asyncio.Future[None] | None = None
        self._hungry_since = 0.0
        self._putters: deque[asyncio.Future[None]] = deque()
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None
        self._finished = False
        self._notes: dict[Milestone, Any] = {}  # since the batch that was put last
        self._noted: deque[dict[Milestone, Any]] = deque()  # before each batch that waits
        self._told = 0.0

    @property
    def complete(self) -> bool:
        """All that was put has been taken, and the end was a good one."""
        return self._finished and self._error is None and not self._batches

    @property
    def full(self) -> bool:
        """Workers wait: it is the loop that takes its time."""
        return self._ahead > self._most_ahead

    @property
    def share(self) -> int:
        """Bytes of what may be read ahead, for each of those that read."""
        return self._most_ahead // max(self._readers, 1)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One more reads, meanwhile."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    @property
    def hungry(self) -> float:
        """Seconds that the loop has been waiting for a batch; 0 while it works on one."""
        waits = self._taker is not None and not self._taker.done()
        return time.perf_counter() - self._hungry_since if waits else 0.0

    # The workers' side

    async def put(self, batch: Batch) -> None:
        """Hands a batch over; returns when there is room for the next."""
        if not len(batch):
            return
        self._append(batch)
        while self._ahead > self._most_ahead:
            room = asyncio.get_running_loop().create_future()
            self._putters.append(room)
            await room

    def note(self, milestone: Milestone, reached: Any) -> None:
        """So far is `milestone` when the loop has finished with all that has been put."""
        self._notes[milestone] = reached
        now = time.perf_counter()
        if not self._batches and self.hungry and now > self._told + _TELL_EVERY:
            self._told = now
            self._append(Batch([], "", []))  # nothing to deliver, but the news that come before it

    def _append(self, batch: Batch) -> None:
        self._batches.append((batch, batch.weight))
        self._noted.append(self._notes)
        self._notes = {}
        self._ahead += self._batches[-1][1]
        self._tell()

    def finish(self) -> None:
        """No more batches will come."""
        self._finished = True
        self._tell()

    def fail(self, error: BaseException) -> None:
        """No more batches will come, because of this."""
        if self._error is None:
            self._error, self._trace = error, error.__traceback__
        self._tell()

    def close(self) -> None:
        """Nothing more is wanted: what was put is dropped, and whoever asks is told."""
        if not self.complete:
            self.fail(StreamClosed("the stream is closed"))
            self._batches.clear()
            self._noted.clear()
            self._notes.clear()

    # The loop's side

    def finished_with_all(self) -> None:
        """The loop has finished with all that was put, and will get no more."""
        if not self._batches:
            notes, self._notes = self._notes, {}
            for milestone, reached in notes.items():
                milestone.loop_reached(reached)

    async def take(self) -> Batch | None:
        """The next batch, or None at the end; one taker at a time.

        Raises what ended the work early, each time it is asked.
        """
        while not self._batches:
            if self._error is not None:
                raise self._error.with_traceback(self._trace)  # or each loop that tries again would add to it
            if self._finished:
                self.ended = self.ended or time.perf_counter()
                return None
            self._taker = asyncio.get_running_loop().create_future()
            self._hungry_since = time.perf_counter()
            await self._taker
        batch, weight = self._batches.popleft()
        batch.before = self._noted.popleft()
        self._ahead -= weight
        while self._putters and self._ahead <= self._most_ahead:
            _wake(self._putters.popleft())
        return batch

    def _tell(self) -> None:
        if self._taker is not None:
            _wake(self._taker)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
