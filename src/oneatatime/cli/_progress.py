"""How far it is: a bar on stderr while a stream runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .. import Statistics

_BAR = 20  # columns
_WIPE = "\r\x1b[K"

shortest_rate = 0.1  # seconds: what a shorter time says of a rate is nothing


class Progress:
    """A bar that is drawn over itself: fraction, keys, keys per second, time left.

    Nothing is drawn unless `shown`. `limit` is the number of keys after which the work ends anyway. Where
    it `goes_on` from what was done before, the time left is reckoned from what this run does.
    """

    def __init__(self, *, shown: bool, limit: int | None = None, goes_on: bool = False) -> None:
        self._shown = shown
        self._limit = limit
        self._begun: tuple[float, float] | None = (
            None if goes_on else (0.0, 0.0)
        )  # seconds, and what was done
        self._drawn = False
        encoding = getattr(sys.stderr, "encoding", None) or "ascii"
        self._full, self._empty = ("█", "░") if _can_write("█░", encoding) else ("#", "-")

    def draw(self, statistics: Statistics, keys: int) -> None:
        """Show where the work stands: `keys` of them done."""
        if self._begun is None and statistics.fraction > 0:
            self._begun = statistics.elapsed, statistics.fraction
        if self._shown:
            self.say(self._line(statistics, keys))

    def say(self, text: str) -> None:
        """Show this in the place of the bar, where it is shown."""
        if self._shown:
            self._show(_WIPE + text[: _columns() - 1])  # a full line would scroll
            self._drawn = True

    def wipe(self) -> None:
        """Clear the line for whatever comes next on the terminal."""
        if self._drawn:
            self._show(_WIPE)
            self._drawn = False

    def _line(self, statistics: Statistics, keys: int) -> str:
        done = statistics.fraction
        if self._limit is not None:
            done = max(done, keys / self._limit)
        done = min(done, 1.0)
        full = round(done * _BAR)
        text = f"{self._full * full}{self._empty * (_BAR - full)} {done:4.0%}  {keys:,} keys"
        elapsed = statistics.elapsed
        if elapsed < shortest_rate:
            return text
        text += f"  {rate(keys, elapsed)}"
        since, before = self._begun or (elapsed, done)
        if done <= before:
            return text
        return f"{text}  ETA {_clock((elapsed - since) * (1 - done) / (done - before))}"

    def _show(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody looks any more: the work goes on
            self._shown = self._drawn = False


def seconds(elapsed: float) -> str:
    """`4 ms`, `0.42 s`, `1.3 s`, `75 s`: no more digits than mean something."""
    if elapsed < 0.1:
        return f"{elapsed * 1000:.0f} ms"
    return f"{elapsed:.2f} s" if elapsed < 1 else f"{elapsed:.1f} s" if elapsed < 60 else f"{elapsed:,.0f} s"


def rounded(number: float) -> int:
    """To three digits: what a measured rate is good for.

    >>> rounded(948_731), rounded(5_812), rounded(40)
    (949000, 5810, 40)
    """
    whole = round(number)
    return round(whole, min(0, 3 - len(str(whole))))


def rate(keys: int, elapsed: float) -> str:
    """Keys per second, in digits that mean something."""
    return f"{rounded(keys / elapsed):,}/s"


def _clock(left: float) -> str:
    minutes, rest = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):  # forced onto something that is no terminal
        return 80


def _can_write(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
