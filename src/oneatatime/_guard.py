"""Whether the server has got slower, by our own round trips: then less is asked of it, until it recovers.

Other load, a fork, swapping: whatever it is, a server that struggles is not to be read at full speed.
Thresholds are coarse on purpose: a network's jitter must not slow anything down.
"""

from __future__ import annotations

import asyncio
from collections import deque

_TOLERATED = 0.005  # seconds that an answer may be late, or the way there and back if that is longer
_SLOW = 0.5  # share of the waiting that is too much, from which on the server counts as slow
_WINDOW, _ENOUGH = 16, 4  # answers looked at, and how many of them say something
_MORE_THAN_CHANCE = 3  # late ones of them
_LEAST_EASE = 1 / 16
_MOST_PAUSE = 0.25  # seconds


class Guard:
    """`ease`: 1, or the share of the usual to ask for at a time; `pause`: seconds to leave in between."""

    def __init__(self) -> None:
        self.ease = 1.0
        self.pause = 0.0
        self._answers: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    async def rest(self) -> None:
        """Leaves the server alone for a moment, while it is slow."""
        if self.pause:
            await asyncio.sleep(self.pause)

    def saw(self, waited: float, expected: float, way: float) -> None:
        """An answer for which this side had to wait: so many seconds, where so many were to be expected.

        Time in which this side was busy itself is not waiting.
        """
        late = max(0.0, waited - expected - max(_TOLERATED, way))
        self._answers.append((waited, late))
        if len(self._answers) < _ENOUGH:
            return
        all_waited, all_late = map(sum, zip(*self._answers))
        times_late = sum(1 for _, late in self._answers if late)
        if times_late >= _MORE_THAN_CHANCE and all_late > _SLOW * all_waited:
            self.ease = max(_LEAST_EASE, self.ease / 2)
            self._answers.clear()
        elif self.ease < 1 and not any(late for _, late in list(self._answers)[-_ENOUGH:]):
            self.ease = min(1.0, self.ease * 2)
            self._answers.clear()
        self.pause = min(late, _MOST_PAUSE) if self.ease < 1 else 0.0
