"""Not faster than asked: keys a second, bytes a second, a share of the server's time.

Each limit is a line in time: what has been used so far is paid for at one moment, and no burst goes out
before that. So a limit holds over any stretch of time, whatever a page weighed, and errors do not add up.
The server's time is taken in turns: bursts go out until it is used a little ahead, then none until that is
paid for and a little more, and in this rest the server's clock shows what it does without us.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from ._connection import Connection
from ._errors import PermissionDenied, ServerFailure, fitting
from ._options import KiB, Options
from ._request import Dropped
from ._session import info
from ._shape import Shapes
from ._wire import Traffic

_GRAIN = 0.05  # seconds of a limit that one page may take
_CREDIT = 0.1  # seconds that may be made good after a wait: more would be a burst
_LEAST_CHUNK = 1 * KiB
_LEAST_WAIT, _MOST_WAIT = 0.001, 0.1  # at a time: what was expected may turn out to be less

_SWING = 0.05  # seconds by which the server's time may be used ahead; then a rest, until it is as far behind
_UNEVEN = 0.4, 1.6  # times that, by chance
_SWING_CREDIT = 0.3  # may be made good: a rest that turns out to have been too long is no loss
_REST_EVERY, _LEAST_REST = 2.0, 0.03  # seconds: others are looked at even where we are below our share
_FIRST_REST = 0.1  # seconds until what is sent is first measured
_SETTLING = 0.005  # seconds until the server has done what was sent
_LOOK_COST = 0.000_06  # seconds of a server that INFO wakes up, about
_FEW = 300  # commands a second of others that say nothing yet of how busy they are
_OLD = 0.8  # what the times before count, beside the last, where the model is measured
_SURPRISE = 4  # times what was expected: more than that was not us


class Limit:
    """So much a second of what `used` counts; `expected` is under way and not counted yet."""

    def __init__(self, per_second: float, used: Callable[[], float], credit: float = _CREDIT) -> None:
        self.per_second = per_second
        self.expected = 0.0
        self._used = used
        self._credit = credit
        self._paid = used()
        self._since = time.perf_counter()

    def due(self, now: float) -> float:
        """When all that has been used is paid for."""
        used = self._used() + self.expected
        due = self._since + (used - self._paid) / self.per_second
        if due < now - self._credit:
            self._since = due = now - self._credit
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

    def __init__(self, options: Options, shapes: Shapes, received: Callable[[], int]) -> None:
        self.waited = False
        self._options = options
        self._shapes = shapes
        self._keys = 0
        limits = [
            self._limit(options.rate, lambda: self._keys),
            self._limit(options.bandwidth, received),
        ]
        self._bandwidth = limits[1]
        self._limits = [limit for limit in limits if limit is not None]

    @staticmethod
    def _limit(per_second: float | None, used: Callable[[], float]) -> Limit | None:
        return Limit(per_second, used) if per_second is not None else None

    def load(self, traffic: Traffic) -> Load | None:
        """The limit on the time of one server, which gets this traffic; None where there is none."""
        return Load(self._options.max_load, traffic) if self._options.max_load is not None else None

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
        self,
        connection: Connection,
        load: Load | None,
        *,
        keys: int = 0,
        size: float = 0.0,
        work: float = 0.0,
    ) -> Turn:
        """Waits until the next burst may be sent to the server that has this `load`.

        `keys` are read by it, `size` bytes will come, about, and the server will need `work` seconds.
        Raises PermissionDenied or ServerFailure where the server's load is limited and not told.
        """
        if not self._limits and load is None:
            return _FREE
        self.waited = False
        while True:
            if load is not None:
                await load.ready(connection)
                self.waited = self.waited or load.short
            now = time.perf_counter()
            wait = max([limit.due(now) for limit in self._limits], default=now) - now
            if wait <= 0:
                break
            self.waited = True
            await asyncio.sleep(min(max(wait, _LEAST_WAIT), _MOST_WAIT))
        self._keys += keys
        if load is not None:
            load.expect(work)
        most = self._bandwidth.per_second * _GRAIN if self._bandwidth is not None else 0.0
        return Turn(self._bandwidth, min(size, most))  # before any was seen, keys are taken to be big


_FREE = Turn(None, 0.0)


class Load:
    """How much of the server's time goes to us: its own clock of CPU time, less what the others take.

    The clock is read when a rest begins and when it ends. What others take between two rests is what they
    took in these two on average, as far as they sent as many commands: who waits for answers sends fewer
    while the server is busy with us. That errs as often for us as against us, so nothing is rounded up to
    zero, and sums do not drift. Until the next rest what is sent counts as the model says, times what the
    model was off by: not by the clock, or we would go on for longer whenever others end.
    """

    def __init__(self, share: float, traffic: Traffic) -> None:
        self.resting = False
        self.short = False  # the last rest had to be
        self._traffic = traffic
        self._measured = 0.0
        self._expected = 0.0  # by the model, since the last rest
        self._took = self._sent = 0.0  # lately: measured, and by the model
        self._cost = _SURPRISE / 2  # of what the model says; until it is seen, less than may be is sent
        self._others = _NOTHING  # a second, in the last rest
        self._rested: Look | None = None
        self.limit = Limit(share, lambda: self._measured + self._cost * self._expected, _SWING_CREDIT)

    def expect(self, work: float) -> None:
        """Something is sent that is about `work` seconds for the server."""
        self._expected += work

    async def ready(self, connection: Connection) -> None:
        """Waits until the next burst may be sent; whoever comes first rests for all."""
        while True:
            now = time.perf_counter()
            if self.resting:
                await asyncio.sleep(_LEAST_WAIT)
            elif self._rest_is_due(now):
                self.resting = True
                try:
                    await self._rest(connection)
                except Dropped:
                    # whoever reads opens it anew when an answer is missing: let it ask, once all is paid for
                    now = time.perf_counter()
                    await asyncio.sleep(max(0.0, self.limit.due(now) - now))
                    return
                finally:
                    self.resting = False
            else:
                return

    def _rest_is_due(self, now: float) -> bool:
        if self._rested is None or self.limit.due(now) > now + _SWING:
            return True
        return now > self._rested.at + (_REST_EVERY if self._sent else _FIRST_REST)

    async def _rest(self, connection: Connection) -> None:
        await asyncio.sleep(_SETTLING + 2 * connection.round_trip)
        began = await _look(connection, self._traffic)
        sent, self._expected = self._expected, 0.0
        since, self._rested = self._rested, began  # should the rest be broken off, this has been counted
        paid = self._measured
        self._measured = paid + self._ours(since, began, sent, self._others)
        from random import uniform  # here: nobody else needs it, and it takes a millisecond

        # never in step with others that come and go: it would always meet the same of them
        wait = self.limit.due(began.at) + _SWING * uniform(*_UNEVEN) - began.at
        self.short = wait > _LEAST_REST
        await asyncio.sleep(max(wait, _LEAST_REST))
        ended = await _look(connection, self._traffic)
        others = began.until(ended, less=_LOOK_COST)
        ours = self._ours(since, began, sent, self._others.mean(others))
        self._measured = paid + ours + _LOOK_COST
        self._others, self._rested = others, ended
        self._took, self._sent = _OLD * self._took + ours, _OLD * self._sent + sent
        if self._took > 0 and self._sent:
            self._cost = self._took / self._sent

    def _ours(self, since: Look | None, now: Look, sent: float, others: Others) -> float:
        """Seconds of the server's time between two looks, if the others were as busy then."""
        if since is None:
            return 0.0
        then, seconds = since.until(now), now.at - since.at
        most = _SURPRISE * (self._cost * sent + self.limit.per_second * _SWING)
        return max(-most, min(seconds * (then.load - others.load_with(then.commands)), most))


@dataclass(frozen=True, eq=False, repr=False)
class Others:
    """What the others did, a second: share of the server's time, commands."""

    load: float
    commands: float

    def mean(self, other: Others) -> Others:
        return Others((self.load + other.load) / 2, (self.commands + other.commands) / 2)

    def load_with(self, commands: float) -> float:
        """The load if they send that many commands; a few say nothing, for a server works without any too."""
        return self.load * (commands + _FEW) / (self.commands + _FEW)


_NOTHING = Others(0.0, 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class Look:
    """What the server's clock said, and how many commands the others had sent by then."""

    at: float
    clock: float
    commands: int

    def until(self, later: Look, less: float = 0.0) -> Others:
        seconds = later.at - self.at
        commands = max(0, later.commands - self.commands)  # CONFIG RESETSTAT lets them begin anew
        return Others((later.clock - self.clock - less) / seconds, commands / seconds)


async def _look(connection: Connection, traffic: Traffic) -> Look:
    """Looks at the server, and at nothing else where it does not tell: it is busy without commands, then."""
    clock = await _cpu_seconds(connection)
    ours = traffic.commands
    told = info(await connection.call(b"INFO", b"stats")).get("total_commands_processed", "")
    return Look(time.perf_counter(), clock, (int(told) if told.isdigit() else ours) - ours)


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
