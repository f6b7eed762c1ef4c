"""Cursor arithmetic: where a SCAN cursor stands, and ranges of a keyspace that can be read alone.

A cursor counts in reverse binary, so its `position` (its bits the other way round) strictly grows from 0
towards 2**64 during one scan of one server process, whatever resizes its tables see meanwhile. A call
with cursor v emits at least every key whose hash has a position in [position(v), position(v_next)).
Hence any range of positions can be read alone, from the cursor that stands at its start.

A cluster node since Valkey 8.0 and Redis 7.4 has a table for each slot, and the slot in the lowest 14
bits of the cursor; slots come in ascending order. There a position is the slot, then the rest reversed,
which grows in the same way: slot s is the range [s << 50, (s + 1) << 50).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ._slot import SLOTS

POSITIONS = 1 << 64
_SLOT_BITS = 14
_REST_BITS = 50
SLOT_WIDTH = 1 << _REST_BITS
"""Positions of one slot."""


class Range(NamedTuple):
    """The keys whose hash has a position in [start, end)."""

    start: int = 0
    end: int = POSITIONS

    @classmethod
    def of_slots(cls, first: int, last: int) -> Range:
        """All of some slots in a row, where there is a table for each."""
        return cls(first * SLOT_WIDTH, (last + 1) * SLOT_WIDTH)

    def within(self, other: Range) -> Range:
        """What of it lies in another one."""
        return Range(max(self.start, other.start), min(self.end, other.end))


class Layout(NamedTuple):
    """Which position a cursor stands at, and the other way round."""

    position: Callable[[int], int]
    cursor: Callable[[int], int]


def position(cursor: int) -> int:
    """Where a cursor stands in the order of a scan; position and cursor are each other's reverse.

    >>> position(1) == POSITIONS // 2
    True
    """
    return int(f"{cursor:064b}"[::-1], 2)


def slot_position(cursor: int) -> int:
    """The same where the cursor's lowest 14 bits are a slot.

    >>> slot_position(5) == 5 << 50
    True
    """
    return (cursor & (SLOTS - 1)) << _REST_BITS | int(f"{cursor >> _SLOT_BITS:050b}"[::-1], 2)


def slot_cursor(place: int) -> int:
    """The cursor that stands at a position, where its lowest 14 bits are a slot."""
    rest = int(f"{place & (SLOT_WIDTH - 1):050b}"[::-1], 2)
    return rest << _SLOT_BITS | place >> _REST_BITS


ONE_TABLE = Layout(position, position)
TABLE_A_SLOT = Layout(slot_position, slot_cursor)


def cut(whole: Range, pieces: int) -> list[Range]:
    """`pieces` ranges of about equal width that together are the whole.

    >>> [piece.start for piece in cut(Range(), 2)] == [0, POSITIONS // 2]
    True
    """
    width = whole.end - whole.start
    edges = [whole.start + index * width // pieces for index in range(pieces + 1)]
    return [Range(start, end) for start, end in itertools.pairwise(edges)]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same positions as the fewest ranges, in order.

    >>> joined([Range(4, 9), Range(0, 4), Range(20, 30)])
    [Range(start=0, end=9), Range(start=20, end=30)]
    """
    found: list[Range] = []
    for one in sorted(ranges):
        if one.end <= one.start:
            continue
        if found and one.start <= found[-1].end:
            found[-1] = Range(found[-1].start, max(found[-1].end, one.end))
        else:
            found.append(one)
    return found


def without(whole: Range, done: Iterable[Range]) -> list[Range]:
    """What of the whole lies in none of the ranges `done`, in order.

    >>> without(Range(0, 10), [Range(2, 4)])
    [Range(start=0, end=2), Range(start=4, end=10)]
    """
    left, start = [], whole.start
    for one in joined(done):
        if start < min(one.start, whole.end):
            left.append(Range(start, min(one.start, whole.end)))
        start = max(start, one.end)
    if start < whole.end:
        left.append(Range(start, whole.end))
    return left
