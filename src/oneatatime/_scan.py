"""Range -> pages: the SCAN calls over one range of positions, and what every reply must satisfy."""

from __future__ import annotations

import re
from typing import Any

from ._connection import server_error
from ._cursor import ONE_TABLE, POSITIONS, SLOT_WIDTH, TABLE_A_SLOT, Layout, Range
from ._errors import InvalidInput, ProtocolViolation
from ._options import Selection
from ._request import Burst, ReplyError, command
from ._resp import ARRAY, size_of
from ._slot import keyslot, slot_runs

_FIRST_COUNT = 32  # of a partition, until it shows how far one of COUNT leads
_OVERRUN = 100  # keys by which a reply may pass its COUNT, and more
_CURSOR = re.compile(rb"[0-9]{1,20}")


class Disordered(Exception):
    """This server's cursors do not move as Redis's do: its keyspace cannot be cut into ranges.

    `violation` is the error for where it has to be.
    """

    def __init__(self, text: str, node: str) -> None:
        super().__init__(text)
        self.violation = ProtocolViolation(text, node=node, command="SCAN")


class Border:
    """The keys seen around the edge between two ranges.

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


class Overrun:
    """What the last call of a partition gave beyond its end, and is not to be delivered twice.

    The call begins before the end and ends behind it, so its keys are of both sides; which of which only the
    server knows. It is asked again from the end on: what comes there belongs to the next partition, which
    begins with the same call. That holds only while the server's table has at least as many bits as
    the end: in a smaller one the first bucket lies on both sides of it, and once the table has grown the next
    partition would not see all of it. So a reply counts only if the cursor that follows shows so many bits;
    else its keys may come twice, and none is lost.
    """

    def __init__(self, keys: list[bytes], end: int, reached: int) -> None:
        self.keys = keys
        self.reached = end
        self._end = end
        self._behind = reached

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be asked."""
        return self.reached >= self._behind or not self.keys

    def leave_out(self, keys: list[bytes], reached: int) -> None:
        """Takes the keys from `self.reached` up to `reached` for those of the next partition."""
        if _lowest_bit(reached) <= _lowest_bit(self._end):
            others = set(keys)
            self.keys = [key for key in self.keys if key not in others]
        self.reached = reached if reached > self.reached else POSITIONS


class Scan:
    """The SCAN calls over one range: `request` is what to ask, `take` gives a reply's keys.

    `in_hand` are the keys of the last page until their values are delivered: what is read again where a
    connection is lost. `settled` is how far the loop has finished with the range; up to `relied` and from
    `relies` on keys were left out because the other side of a border delivers them. `seen` counts the keys
    that came. `disordered`: its cursors are the server's own affair. `outer` is the end of the partition that
    the range is of, where others of the same partition are behind it.
    """

    layout: Layout = ONE_TABLE
    table = POSITIONS
    """Positions of one table: a range that ends within one may have to be trimmed."""

    def __init__(
        self,
        part: Range,
        selection: Selection,
        count: int,
        *,
        before: Border | None = None,
        after: Border | None = None,
        outer: int | None = None,
        node: str,
    ) -> None:
        self.range = part
        self.count = self._most = count
        self._outer = outer if outer is not None else part.end if after is None else POSITIONS
        self.finished = False
        self.in_hand: list[bytes] = []
        self.settled = self.relied = part.start
        self.relies = POSITIONS
        self.disordered = False
        self.by_type = len(selection.types) == 1
        self.reached = part.start
        self._selection = selection
        self._node = node
        self._cursor = self.layout.cursor(part.start)
        self._whole = part == Range()
        self._before, self._after = before, after
        self._pages = self.seen = 0
        self._filters = selection.match is not None or self.by_type
        self._share = 1.0
        self._overrun: Overrun | None = None
        self._trims = self._outer % self.table > 0
        if self._trims:
            self.count = min(count, _FIRST_COUNT)
        self._step = 0.0  # positions for one of COUNT, by the last page

    @property
    def done(self) -> int:
        """How many positions have been asked for and answered."""
        return min(self.reached, self.range.end) - self.range.start

    @property
    def left(self) -> int:
        """How many positions are still to come."""
        return 0 if self.finished or self._overrun is not None else self.range.end - self.reached

    def request(self, *, bounded: bool = True) -> Burst:
        """The next call."""
        words: list[bytes | int] = [b"SCAN", self._cursor, b"COUNT", self.count]
        if self._selection.match is not None:
            words += [b"MATCH", self._selection.match]
        if self.by_type:  # SCAN takes one type; among several the reader chooses key by key
            words += [b"TYPE", self._selection.types[0].encode()]
        return command(*words, bounded=bounded)

    def aim(self, keys: int, most: int) -> None:
        """Sets COUNT so that about `keys` keys come: it counts those that the filters leave out too."""
        share = max(self._share, 1 / most) if self._filters else 1.0  # by chance a few buckets are empty
        self.count = max(1, min(most, int(keys / share)))
        if self._overrun is not None:
            self.count = 1
        elif self._trims and self._step:
            # what runs over the end of a partition comes in the next one too: its last page ends there
            self.count = max(1, min(self.count, int(self.left / self._step)))

    def split(self) -> Scan | None:
        """Gives away the second half of what is left; what is under way may run over the new end."""
        middle, border = self.reached + self.left // 2, Border()
        rest = Range(middle, self.range.end)
        other = Scan(
            rest,
            self._selection,
            self._most,
            before=border,
            after=self._after,
            outer=self._outer,
            node=self._node,
        )
        self.range, self._after = Range(self.range.start, middle), border
        return other

    def take(self, replies: list[Any]) -> list[bytes]:
        """The keys of a reply; moves on to the next call, or to the end.

        Raises what an error reply means, and ProtocolViolation for a reply that no SCAN gives: a reader
        that went on after one could end early, or never.
        """
        (reply,) = replies
        if isinstance(reply, ReplyError):
            raise self._failure(reply)
        cursor, keys = self._checked(reply)
        if self._overrun is not None:
            return self._trim(self._overrun, cursor, keys)
        self._pages += 1
        self.seen += len(keys)
        self._share = (self._share + len(keys) / self.count) / 2
        reached = self.layout.position(cursor) if cursor else POSITIONS
        if reached <= self.reached:
            reached = self._without_order(cursor, keys)
        self._step = (reached - self.reached) / self.count
        keys = self._own(keys, reached)
        if keys and reached > self._outer and self._trims:
            self._overruns(keys, reached)
            return self.in_hand
        self.finished = reached >= self.range.end
        before, self.reached, self._cursor = self.reached, reached, cursor
        self.in_hand = self._unclaimed(keys, before)
        return self.in_hand

    def _own(self, keys: list[bytes], reached: int) -> list[bytes]:
        """Those of a page's keys that are to be delivered."""
        return keys

    def _overruns(self, keys: list[bytes], reached: int) -> None:
        """A page ran over the end: a smaller one is asked for; of the smallest what is beyond is left out."""
        self.in_hand = []
        self.seen -= len(keys)
        if self.count == 1:
            self._overrun = Overrun(keys, self._outer, reached)
            self._cursor = self.layout.cursor(self._outer)
        self.count = max(1, int(self.left / self._step))

    def _trim(self, overrun: Overrun, cursor: int, keys: list[bytes]) -> list[bytes]:
        """Of the page that ran over the end, what is not the next partition's."""
        overrun.leave_out(keys, self.layout.position(cursor) if cursor else POSITIONS)
        self._cursor = cursor
        if not overrun.finished:
            return self.in_hand
        before, self.reached, self.finished = self.reached, self._outer, True
        self.in_hand = self._unclaimed(overrun.keys, before)
        return self.in_hand

    def _unclaimed(self, keys: list[bytes], reached: int) -> list[bytes]:
        before, after, found = self._before, self._after, len(keys)
        at_start = before is not None and (self._pages <= 2 or self.seen <= self._most + _OVERRUN)
        if at_start and before is not None:
            keys = before.claim(keys)
            if len(keys) < found:
                self.relied = min(self.reached, self.range.end)
        if self.finished and after is not None and not (at_start and after is before):
            found = len(keys)
            keys = after.claim(keys)  # claimed once is not to be had again
            if len(keys) < found:
                self.relies = reached
        return keys

    def _without_order(self, cursor: int, keys: list[bytes]) -> int:
        """A cursor that moves in no order is the server's own affair, while it moves at all."""
        if not self._whole:
            text = (
                f"cursor {self._cursor} was followed by {cursor}: this server's cursors are not Redis's, "
                "and cannot be cut into ranges; read it with Options(ranges=1)"
            )
            raise Disordered(text, self._node)
        if cursor == self._cursor and not keys:
            text = f"SCAN runs in a circle: cursor {cursor} was followed by itself"
            raise ProtocolViolation(text, node=self._node, command="SCAN")
        self.disordered = True
        return self.reached

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

    # How far the loop is

    @property
    def proven(self) -> Range:
        """What the loop has finished with, whatever becomes of the other sides of its borders."""
        return Range(self.relied, min(self.settled, self.relies))

    def loop_reached(self, reached: int) -> None:
        """The loop has finished with all keys before this position."""
        self.settled = max(self.settled, min(reached, self.range.end))


class SlotScan(Scan):
    """The same over slots of a cluster's node, where it has a table for each: a range of slots at a time.

    `slots` are those wanted, as bits; keys of others are left out: an old owner may still hold what is no
    longer its own, and a new one what is not yet. `came` are the slots of which keys came. Raises
    Disordered where the slots are not in the cursor.
    """

    layout = TABLE_A_SLOT
    table = SLOT_WIDTH

    def __init__(self, part: Range, slots: int, selection: Selection, count: int, *, node: str) -> None:
        super().__init__(part, selection, count, node=node)
        self.slots = slots
        self.came: set[int] = set()
        self._whole = False

    @property
    def read(self) -> int:
        """The slots that have been read whole, as bits."""
        upto = POSITIONS if self.finished else self.reached
        return self.slots & ((1 << (upto // SLOT_WIDTH)) - 1)

    @property
    def under_way(self) -> int:
        """The slot that may have been read in part, as bits."""
        return 0 if self.finished else self.slots & 1 << (self.reached // SLOT_WIDTH)

    def split(self) -> SlotScan | None:
        """Gives away the second half of the slots that are left; None where that is less than one."""
        last = self.range.end // SLOT_WIDTH
        here = self.reached // SLOT_WIDTH + 1  # the slot under way, and what may be asked for by now
        middle = (here + last + 1) // 2
        if not here < middle < last:
            return None
        rest = Range(middle * SLOT_WIDTH, self.range.end)
        upper = self.slots >> middle << middle
        other = SlotScan(rest, upper, self._selection, self._most, node=self._node)
        self.range, self.slots = Range(self.range.start, rest.start), self.slots ^ upper
        return other

    def _own(self, keys: list[bytes], reached: int) -> list[bytes]:
        if not keys:
            return keys
        found = slot_runs(keys)
        first, last = self.reached // SLOT_WIDTH, min(reached // SLOT_WIDTH, POSITIONS // SLOT_WIDTH - 1)
        if min(found) < first or max(found) > last:
            text = f"a key of slot {min(found)} or {max(found)} came between slots {first} and {last}"
            raise Disordered(text, self._node)
        these = (1 << (last - first + 1)) - 1
        wanted = (self.slots >> first) & these  # few bits, where all slots are thousands
        if wanted == these:
            self.came.update(found)
            return keys
        mine = {slot for slot in found if wanted >> (slot - first) & 1}
        self.came |= mine
        if len(mine) == len(set(found)):
            return keys
        return [key for key in keys if keyslot(key) in mine]


def _are_words(keys: Any) -> bool:
    try:
        return size_of(keys) >= 0
    except TypeError:
        return False


def _lowest_bit(place: int) -> int:
    return place & -place
