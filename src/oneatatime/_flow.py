"""Between workers and loop: batches that wait, bounded in bytes, and the counts of what went through."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType

from ._errors import StreamClosed
from ._record import Batch
from ._wire import Traffic


@dataclass(frozen=True)
class Statistics:
    """What a stream has done so far: an immutable snapshot.

    `keys` delivered to the loop, and `types` the same by type; `vanished` keys that were gone when their
    value was asked for; `torn` big values that changed while the loop read them; `bytes` received,
    `commands` and `round_trips` sent, all connections together; `elapsed` seconds since the first was
    opened; `estimated_total` keys there are to deliver, as far as can be known; `fraction` of the way
    done, 0 to 1; `complete`: everything was read and delivered, to the end and without an error.
    """

    keys: int = 0
    bytes: int = 0
    types: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    vanished: int = 0
    torn: int = 0
    commands: int = 0
    round_trips: int = 0
    elapsed: float = 0.0
    estimated_total: int | None = None
    fraction: float = 0.0
    complete: bool = False

    def __reduce__(self) -> tuple[object, ...]:
        return Statistics, tuple({**vars(self), "types": dict(self.types)}.values())


class Flow:
    """Batches on their way from several workers to whoever takes them.

    A worker that puts a batch while more than `ahead` bytes wait goes on only when there is room again. An
    error is a value here: it comes out after the batches that were put before it.
    """

    def __init__(self, ahead: int) -> None:
        self.traffic = Traffic()
        self.began: float | None = None
        self.ended: float | None = None
        self._batches: deque[tuple[Batch, int]] = deque()
        self._ahead = 0
        self._most_ahead = ahead
        self._taker: asyncio.Future[None] | None = None
        self._hungry_since = 0.0
        self._putters: deque[asyncio.Future[None]] = deque()
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None
        self._finished = False

    @property
    def complete(self) -> bool:
        """All that was put has been taken, and the end was a good one."""
        return self._finished and self._error is None and not self._batches

    @property
    def full(self) -> bool:
        """Workers wait: it is the loop that takes its time."""
        return self._ahead > self._most_ahead

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
        self._batches.append((batch, batch.weight))
        self._ahead += self._batches[-1][1]
        self._tell()
        while self._ahead > self._most_ahead:
            room = asyncio.get_running_loop().create_future()
            self._putters.append(room)
            await room

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

    # The loop's side

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
