"""Partition -> pages: the SCAN calls over one cursor range, and what every reply must satisfy."""

from __future__ import annotations

import re
from typing import Any

from ._connection import server_error
from ._errors import InvalidInput, ProtocolViolation
from ._options import Selection
from ._partition import POSITIONS, Partition, position
from ._request import Burst, ReplyError, command
from ._resp import ARRAY, size_of

_OVERRUN = 100  # keys by which a reply may pass its COUNT, and more
_CURSOR = re.compile(rb"[0-9]{1,20}")


class Border:
    """The keys seen around the edges between partitions.

    The last call of a range runs over its end, into what the first calls of the next range deliver:
    up to a page of keys would come twice. Both sides claim the keys they see here; the second leaves
    them out. That loses nothing: the first delivers them.
    """

    def __init__(self) -> None:
        self._claimed: set[bytes] = set()

    def claim(self, keys: list[bytes]) -> list[bytes]:
        """Those of `keys` that nobody has claimed yet."""
        fresh = [key for key in keys if key not in self._claimed]
        self._claimed.update(fresh)
        return fresh


class Scan:
    """The SCAN calls over one partition: `request` is what to ask, `take` gives a reply's keys."""

    def __init__(
        self,
        partition: Partition,
        selection: Selection,
        count: int,
        *,
        before: Border,
        after: Border,
        node: str,
    ) -> None:
        self.partition = partition
        self.count = self._most = count
        self.finished = False
        self._selection = selection
        self._node = node
        self._reached = partition.start
        self._cursor = position(partition.start)
        self._whole = partition == Partition()
        self._before, self._after = before, after
        self._pages = self._seen = 0
        self._filters = selection.match is not None or self.by_type
        self._share = 1.0

    @property
    def done(self) -> int:
        """How many positions have been asked for and answered."""
        return min(self._reached, self.partition.end) - self.partition.start

    def request(self, *, bounded: bool = True) -> Burst:
        """The next call."""
        words: list[bytes | int] = [b"SCAN", self._cursor, b"COUNT", self.count]
        if self._selection.match is not None:
            words += [b"MATCH", self._selection.match]
        if self.by_type:
            words += [b"TYPE", self._selection.types[0].encode()]
        return command(*words, bounded=bounded)

    def aim(self, keys: int, most: int) -> None:
        """Sets COUNT so that about `keys` keys come: it counts those that the filters leave out too."""
        share = max(self._share, 1 / most) if self._filters else 1.0  # by chance a few buckets are empty
        self.count = max(1, min(most, int(keys / share)))

    @property
    def left(self) -> int:
        """How many positions are still to come."""
        return 0 if self.finished else self.partition.end - self._reached

    def split(self) -> Scan:
        """Gives away the second half of what is left; what is under way may run over the new end."""
        middle, border = self._reached + self.left // 2, Border()
        other = Scan(
            Partition(middle, self.partition.end),
            self._selection,
            self._most,
            before=border,
            after=self._after,
            node=self._node,
        )
        self.partition, self._after = Partition(self.partition.start, middle), border
        return other

    @property
    def by_type(self) -> bool:
        """SCAN takes one type; among several the reader chooses key by key."""
        return len(self._selection.types) == 1

    def take(self, reply: Any) -> list[bytes]:
        """The keys of a reply; moves on to the next call, or to the end.

        Raises what an error reply means, and ProtocolViolation for a reply that no SCAN gives: a reader
        that went on after one could end early, or never.
        """
        if isinstance(reply, ReplyError):
            raise self._failure(reply)
        cursor, keys = self._checked(reply)
        self._pages += 1
        self._seen += len(keys)
        self._share = (self._share + len(keys) / self.count) / 2
        reached = position(cursor) if cursor else POSITIONS
        if reached <= self._reached:
            reached = self._without_order(cursor, keys)
        self.finished = reached >= self.partition.end
        self._reached, self._cursor = reached, cursor
        return self._unclaimed(keys)

    def _unclaimed(self, keys: list[bytes]) -> list[bytes]:
        at_start = self.partition.start > 0 and (self._pages <= 2 or self._seen <= self._most + _OVERRUN)
        at_end = self.finished and self.partition.end < POSITIONS
        if at_start:
            keys = self._before.claim(keys)
        if at_end and not (at_start and self._after is self._before):  # claimed once is not to be had again
            keys = self._after.claim(keys)
        return keys

    def _without_order(self, cursor: int, keys: list[bytes]) -> int:
        """A cursor that moves in no order is the server's own affair, while it moves at all."""
        if not self._whole:
            text = (
                f"cursor {self._cursor} was followed by {cursor}: this server's cursors are not Redis's, "
                "and cannot be cut into ranges; read it with Options(ranges=1)"
            )
            raise ProtocolViolation(text, node=self._node, command="SCAN")
        if cursor == self._cursor and not keys:
            text = f"SCAN runs in a circle: cursor {cursor} was followed by itself"
            raise ProtocolViolation(text, node=self._node, command="SCAN")
        return self._reached

    def _checked(self, reply: Any) -> tuple[int, list[bytes]]:
        if (
            reply.__class__ is ARRAY
            and len(reply) == 2
            and isinstance(reply[0], bytes)
            and _CURSOR.fullmatch(reply[0])
            and reply[1].__class__ is ARRAY
            and _are_words(reply[1])
            and (cursor := int(reply[0])) < POSITIONS
        ):
            return cursor, list(reply[1])
        text = f"SCAN answered something else than a cursor and keys: {str(reply)[:80]}"
        raise ProtocolViolation(text, node=self._node, command="SCAN")

    def _failure(self, reply: ReplyError) -> Exception:
        if "unknown type name" in str(reply):
            text = f"this server has no type {self._selection.types[0]!r}: {reply}"
            return InvalidInput(text, node=self._node, command="SCAN")
        return server_error(reply, node=self._node, command="SCAN")


def _are_words(keys: Any) -> bool:
    try:
        return size_of(keys) >= 0
    except TypeError:
        return False
