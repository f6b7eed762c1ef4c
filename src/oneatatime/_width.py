"""How many bursts to have under way at once, so that the server never waits for the wire.

While one page travels, the server must have others to work on: as many as fit into the way there and
back, and one more. On a loopback that is two, over a network of 20 ms some dozens.
"""

from __future__ import annotations

_MEMORY = 32  # pages that count: the first ones find out what there is, and wait more often than others
_OFTEN = 1.5  # waits of a page from which on one page of the others is not enough to work on meanwhile


class Width:
    """`target`: how many bursts should be under way. It starts at `least` and never passes `most`."""

    def __init__(self, least: int, most: int) -> None:
        self.target = least
        self._least = least
        self._waits = 1.0
        self._most = max(least, most)

    def saw(self, work: float, way: float, fitting: int, waits: float = 1.0) -> None:
        """A page is about `work` seconds for the server, the way there and back `way` seconds.

        `fitting` is how many such pages fit what may be read ahead; `waits` how often a page waits for the
        server: for the answer to each burst that stands on the one before, and for each piece of a long one.
        """
        self._waits += (min(waits, 2.0) - self._waits) / _MEMORY
        needed = int((way + work) / max(work, 1e-6)) + 1
        if self._waits > _OFTEN:
            needed *= 2
        self.target = max(self._least, min(self._most, fitting, needed))

    def ease(self, share: float) -> None:
        """Only so much of it, while the server is slow."""
        if share < 1:
            self.target = max(1, int(self.target * share))
