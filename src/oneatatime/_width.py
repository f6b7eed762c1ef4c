"""How many bursts to have under way at once, so that the server never waits for the wire.

While one page travels, the server must have others to work on: as many as fit into the way there and
back, and one more. On a loopback that is two, over a network of 20 ms some dozens.
"""

from __future__ import annotations


class Width:
    """`target`: how many bursts should be under way. It starts at `least` and never passes `most`."""

    def __init__(self, least: int, most: int) -> None:
        self.target = least
        self._least = least
        self._most = max(least, most)

    def saw(self, work: float, way: float, fitting: int) -> None:
        """A page is about `work` seconds for the server, the way there and back `way` seconds.

        `fitting` is how many such pages fit what may be read ahead.
        """
        needed = int((way + work) / max(work, 1e-6)) + 1
        self.target = max(self._least, min(self._most, fitting, needed))

    def ease(self, share: float) -> None:
        """Only so much of it, while the server is slow."""
        if share < 1:
            self.target = max(1, int(self.target * share))
