"""Not faster than asked: keys a second, bytes a second, a share of the server's time.

Each limit is a line in time: what has been used so far is paid for at one moment, and no burst goes out
before that. So a limit holds over any stretch of time, whatever a page weighed, and errors do not add up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ._connection import Connection
from ._errors import PermissionDenied, ServerFailure, fitting
from ._options import KiB, Options
from ._session import info
from ._shape import Shapes
from ._wire import Traffic

_GRAIN = 0.05  # seconds of a limit that one page may take
_CREDIT = 0.1  # seconds that may be made good after a wait: more would be a burst
_LEAST_CHUNK = 1 * KiB
_LEAST_WAIT = 0.001

_LOOK = 0.1  # seconds between looks at the server's clock
_SETTLING = 0.01  # seconds until the server has done what was sent
_QUIET, _LEAST_QUIET = 0.08, 0.02  # seconds in which nothing is sent, to see what the others take
_QUIET_EVERY = 2.0
_MEMORY = 0.7  # how much of what was seen of the others before still counts
_DOUBT = 1.5  # times what was expected: then the others may take more than they did
_NOISE = 0.01  # of the time: a server that nobody asks anything works too
_SURPRISE = 4  # times what was expected: more than that in one look was not us


class Limit:
    """So much a second of what `used` counts; `expected` is under way and not counted yet."""

    def __init__(self, per_second: float, used: Callable[[], float]) -> None:
        self.per_second = per_second
        self.expected = 0.0
        self._used = used
        self._paid = used()
        self._since = time.perf_counter()

    def due(self, now: float) -> float:
        """When all that has been used is paid for."""
        used = self._used() + self.expected
        due = self._since + (used - self._paid) / self.per_second
        if due < now - _CREDIT:
            self._since = due = now - _CREDIT
            self._paid = used
        return due


class Turn:
    """Leave to send a burst; `end` when its answer has been counted."""

    def __init__(self, limit: Limit | None, size: float) -> None:
        self._limit = limit
        self._size = size
        if limit is not None:
            limit.expected += size

    def end(self) -> None:
        if self._limit is not None:
            self._limit.expected -= self._size
            self._limit = None


class Pace:
    """What `rate`, `bandwidth` and `max_load` allow, for all connections of one stream together.

    `waited`: the last burst had to wait for its turn, so more of them at once would be no quicker.
    """

    def __init__(self, options: Options, shapes: Shapes, traffic: Traffic) -> None:
        self.waited = False
        self._options = options
        self._shapes = shapes
        self._keys = 0
        self._load = Load(options.max_load) if options.max_load is not None else None
        limits = [
            self._limit(options.rate, lambda: self._keys),
            self._limit(options.bandwidth, lambda: traffic.received),
            self._limit(options.max_load, lambda: self._load.used if self._load else 0.0),
        ]
        self._bandwidth = limits[1]
        self._limits = [limit for limit in limits if limit is not None]

    @staticmethod
    def _limit(per_second: float | None, used: Callable[[], float]) -> Limit | None:
        return Limit(per_second, used) if per_second is not None else None

    # How much at a time

    def page(self, most: int) -> int:
        """How many keys may be read at once, `most` of them where nothing is limited."""
        options, shapes = self._options, self._shapes
        if options.rate is not None:
            most = min(most, int(options.rate * _GRAIN))
        if options.bandwidth is not None:
            most = min(most, int(options.bandwidth * _GRAIN / shapes.bytes_per_key))
        if options.max_load is not None:
            most = min(most, int(options.max_load * _GRAIN / shapes.work_per_key))
        return max(1, most)

    def chunk(self, most: int) -> int:
        """How many bytes may be asked for at once."""
        if self._options.bandwidth is not None:
            most = min(most, max(_LEAST_CHUNK, int(self._options.bandwidth * _GRAIN)))
        return most

    # When

    async def turn(
        self, connection: Connection, *, keys: int = 0, size: float = 0.0, work: float = 0.0
    ) -> Turn:
        """Waits until the next burst may be sent.

        `keys` are read by it, `size` bytes will come, about, and the server will need `work` seconds.
        Raises PermissionDenied or ServerFailure where the server's load is limited and not told.
        """
        if not self._limits:
            return _FREE
        self.waited = False
        while True:
            if self._load is not None:
                await self._load.look_again(connection)
            now = time.perf_counter()
            wait = max([limit.due(now) for limit in self._limits]) - now
            if wait <= 0 and (self._load is None or not self._load.held):
                break
            self.waited = True
            await asyncio.sleep(max(min(wait, _LOOK), _LEAST_WAIT))
        self._keys += keys
        if self._load is not None:
            self._load.expect(work)
        most = self._bandwidth.per_second * _GRAIN if self._bandwidth is not None else 0.0
        return Turn(self._bandwidth, min(size, most))  # before any was seen, keys are taken to be big


_FREE = Turn(None, 0.0)


class Load:
    """How much of the server's time goes to us: its own clock of CPU time, less what the others take.

    Between two looks at that clock, what was sent counts as the model says, times what the model was off
    by lately. What the others take is seen in short moments in which nothing is sent: now and then, and at
    once where the clock tells of far more than was expected, for either may have become dearer.
    """

    def __init__(self, most: float) -> None:
        self.held = False
        self._quiet = (
            _QUIET * (1 - most) + _LEAST_QUIET
        )  # a stream that mostly waits loses nothing by waiting
        self._measured = 0.0
        self._expected = 0.0
        self._cost = 1.0
        self._others = 0.0  # seconds of the server in `_seen` seconds: lately, the latest counting most
        self._seen = 0.0
        self._clock: float | None = None
        self._looked = 0.0
        self._quiet_at = 0.0
        self._looking = False

    @property
    def used(self) -> float:
        """Seconds of the server's time so far."""
        return self._measured + self._cost * self._expected

    def expect(self, work: float) -> None:
        """Something is sent that is about `work` seconds for the server."""
        self._expected += work

    async def look_again(self, connection: Connection) -> None:
        """Looks at the server's clock, if the last look was a while ago."""
        if self._looking or time.perf_counter() - self._looked < _LOOK:
            return
        self._looking = True
        try:
            await self._look(connection)
        finally:
            self._looking = self.held = False

    async def _look(self, connection: Connection) -> None:
        used, seconds = await self._passed(connection)
        doubtful = self._less_others(used, seconds) > _DOUBT * self._cost * self._expected + _NOISE * seconds
        if doubtful or self._looked - self._quiet_at > _QUIET_EVERY:
            self.held = True
            await asyncio.sleep(_SETTLING + 2 * connection.round_trip)
            more, later = await self._passed(connection)
            used, seconds = used + more, seconds + later
            await self._look_at_others(connection, memory=0.0 if doubtful else _MEMORY)
        ours = min(self._less_others(used, seconds), _SURPRISE * self._cost * self._expected)
        self._measured += ours
        if ours:
            self._cost = (self._cost + ours / self._expected) / 2
        self._expected = 0.0

    async def _look_at_others(self, connection: Connection, memory: float) -> None:
        looking, _ = await self._passed(connection)  # two looks one after the other: what looking costs
        await asyncio.sleep(self._quiet)
        used, seconds = await self._passed(connection)
        self._others = memory * self._others + max(0.0, used - looking)
        self._seen = memory * self._seen + seconds
        self._quiet_at = self._looked

    def _less_others(self, used: float, seconds: float) -> float:
        return max(0.0, used - seconds * self._others / self._seen) if self._seen else used

    async def _passed(self, connection: Connection) -> tuple[float, float]:
        """Seconds that the server has worked since the last look, and how long that was ago."""
        clock, now = await _cpu_seconds(connection), time.perf_counter()
        before, looked = self._clock, self._looked
        self._clock, self._looked = clock, now
        return (clock - before, now - looked) if before is not None else (0.0, 0.0)


async def _cpu_seconds(connection: Connection) -> float:
    """CPU time of the server so far."""
    try:
        fields = info(await connection.call(b"INFO", b"cpu"))
    except PermissionDenied as error:
        text = f"max_load needs the server's clock of CPU time; allow the user +info: {error.message}"
        raise PermissionDenied(text, node=connection.node, command="INFO") from error
    if "used_cpu_user" not in fields or "used_cpu_sys" not in fields:
        text = "max_load needs the server's clock of CPU time, and INFO cpu does not tell it here"
        raise ServerFailure(text, node=connection.node, command="INFO")
    with fitting(connection.node):
        return float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"])
