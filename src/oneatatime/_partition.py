"""Cursor arithmetic: a database cut into ranges of SCAN's cursor, each read by itself.

A cursor counts in reverse binary, so `position` (its bits the other way round) strictly grows from 0
towards 2**64 during one scan of one server process, whatever resizes its tables see meanwhile. A call
with cursor v emits at least every key whose hash has a position in [position(v), position(v_next)).
Hence any range of positions can be read alone, from the cursor that stands at its start.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

POSITIONS = 1 << 64


@dataclass(frozen=True)
class Partition:
    """The keys whose hash has a position in [start, end): read by one worker."""

    start: int = 0
    end: int = POSITIONS


def position(cursor: int) -> int:
    """Where a cursor stands in the order of a scan; position and cursor are each other's reverse.

    >>> position(1) == POSITIONS // 2
    True
    """
    return int(f"{cursor:064b}"[::-1], 2)


def plan(ranges: int) -> list[Partition]:
    """`ranges` partitions of equal width that together hold every key.

    >>> [partition.start for partition in plan(2)] == [0, POSITIONS // 2]
    True
    """
    edges = [index * POSITIONS // ranges for index in range(ranges + 1)]
    return [Partition(start, end) for start, end in itertools.pairwise(edges)]
