"""What the workers at one server share: how it was found, how far away it is, how slow, how long gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ._beside import Expiring
from ._connection import Connection
from ._endpoint import Endpoint
from ._errors import ConnectionLost, ServerUnready, Unreachable
from ._guard import Guard
from ._options import KiB, Options
from ._pace import Load
from ._scan import Scan
from ._session import Pending, Session
from ._shape import LONGEST_BURST
from ._survey import Survey
from ._width import Width
from ._wire import Traffic

_LEAST_TO_SPLIT = 4000  # keys that a range must have left to be worth another connection
_LEAST_BURST = 16 * KiB  # below that the cost of a burst weighs more than what it saves
_CAUTION = 8  # a server that evicts when it is full is asked for so many times less at once
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between attempts at a server that is gone

OUT_OF_REACH = (ConnectionLost, Unreachable, ServerUnready)
"""What a server may recover from. Nothing else is ever tried again."""


class Outage:
    """How long a server has been out of reach, and when to try it again.

    `patience` is how long that may be, in seconds.
    """

    def __init__(self, patience: float) -> None:
        self.since: float | None = None
        self.error: Exception | None = None
        self._patience = patience
        self._pause = _FIRST_PAUSE
        self._next = 0.0

    def noted(self, error: Exception) -> None:
        """An attempt has failed."""
        now = time.monotonic()
        self.error = error
        if self.since is None:
            self.since, self._pause = now, _FIRST_PAUSE
        self._next = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def over(self) -> None:
        """It answers, and got on with something."""
        self.since = self.error = None

    async def rest(self) -> None:
        """Waits until it is time for the next attempt."""
        await asyncio.sleep(self.pause)

    @property
    def pause(self) -> float:
        """Seconds to wait before the next attempt."""
        return max(0.0, self._next - time.monotonic()) if self.since is not None else 0.0

    @property
    def too_long(self) -> bool:
        """Whether patience is at its end."""
        return self.since is not None and time.monotonic() - self.since > self._patience


class Node:
    """One server that is read.

    `scans` are under way at it, read by so many `workers`. `from_replica`: what it has of its primary will
    do.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: Options,
        *,
        least: int,
        load: Callable[[Traffic], Load | None],
        from_replica: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.name = endpoint.node
        self.traffic = Traffic()
        self.survey = Survey()
        self.expiring = Expiring()
        self.guard = Guard()
        self.width = Width(least, options.most_ranges)
        self.load = load(self.traffic)
        self.outage = Outage(options.patience)
        self.round_trip = float("inf")  # seconds: the least that any answer took
        self.scans: list[Scan] = []
        self.workers = 0
        self._options = options
        self.from_replica = from_replica

    @property
    def way(self) -> float:
        """Seconds to the server and back, as far as is known.

        Where the server was slow from the beginning, a turn of its loop or two are in every round trip.
        """
        return max(0.0, self.round_trip - 2 * self.survey.delay)

    def session(self, *, asking: bool = False) -> Session:
        """A connection to it, still to be opened."""
        return Session(
            self.endpoint, self._options, self.traffic, asking=asking, from_replica=self.from_replica
        )

    def burst(self, share: int) -> int:
        """Bytes to ask for at a time, where `share` bytes may be read ahead."""
        shared = max(_LEAST_BURST, min(self._options.burst, share))
        return shared if self.survey.roomy else shared // _CAUTION

    async def look_again(self, connection: Connection) -> None:
        """Looks again at what may have changed in the server, now and then."""
        await self.survey.look_again(connection)

    def measure(self, work: float, weight: int, waits: float, round_trip: float) -> None:
        """After a page that was `work` seconds for the server and `weight` bytes of replies."""
        # of all connections: a busy loop makes a short way look long
        self.round_trip = min(self.round_trip, round_trip)
        fitting = self._options.ahead // max(weight, 1)
        self.width.saw(work, self.way, fitting, waits)
        self.width.ease(self.guard.ease)

    def watch(self, answered: Pending, hungry: float) -> None:
        """After an answer: whether the server has got slower. The loop waits since `hungry` seconds."""
        # while the loop works on a batch it is the loop that takes its time, and the answer may lie here
        waited = min(answered.waited, hungry)
        under_way = LONGEST_BURST * max(len(self.scans), self.width.target)
        self.guard.saw(waited, under_way, self.way)

    def widest(self, share: float) -> Scan | None:
        """The range to split, where one more would be of use. `share` of all keys is in one position."""
        if max(len(self.scans), self.workers) >= self.width.target or not self.scans:
            return None
        widest = max(self.scans, key=lambda scan: scan.left)
        worth = max(_LEAST_TO_SPLIT, 8 * self._options.count)
        return widest if widest.left * share * (self.survey.keys or 0) > worth else None
