"""A cluster's 16,384 slots: which one a key is in (CRC16 of its hash tag), and sets of them.

A set of slots is the bits of an int: slot s is `1 << s`. What is done for each key is compiled where there
was a compiler when this was installed (`_compiled.c`); the same in Python here.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

try:
    from . import _compiled
except ImportError:  # installed without a compiler
    _compiled = None  # type: ignore[assignment]

SLOTS = 16_384
ALL_SLOTS = (1 << SLOTS) - 1


def _keyslot(key: bytes) -> int:
    if (start := key.find(b"{") + 1) and (end := key.find(b"}", start)) > start:
        key = key[start:end]
    return crc_hqx(key, 0) & 16_383


def _by_slot(keys: Sequence[bytes]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row, slot in enumerate(map(_keyslot, keys)):
        if slot in found:
            found[slot].append(row)
        else:
            found[slot] = [row]
    return found


keyslot: Callable[[bytes], int] = _compiled.keyslot if _compiled is not None else _keyslot
"""The slot of a key. What is between its first `{` and the next `}` counts alone, unless that is nothing."""

by_slot: Callable[[Sequence[bytes]], dict[int, list[int]]] = (
    _compiled.by_slot if _compiled is not None else _by_slot
)
"""The rows (places in `keys`) of each slot that there is; slots in the order in which they come first."""


def _slot_runs(keys: Sequence[bytes]) -> list[int]:
    return [slot for slot, _ in groupby(keys, _keyslot)]


slot_runs: Callable[[Sequence[bytes]], list[int]] = (
    _compiled.slot_runs if _compiled is not None else _slot_runs
)
"""The slot of each run of keys of one slot, in their order."""


def _slot_commands(name: bytes, keys: Sequence[bytes]) -> tuple[bytes, list[int]]:
    lengths: list[int] = []
    packed: list[bytes] = []
    head = b"$%d\r\n%b\r\n" % (len(name), name)
    for _, run in groupby(keys, _keyslot):
        words = [b"$%d\r\n%b\r\n" % (len(key), key) for key in run]
        packed += [b"*%d\r\n" % (len(words) + 1), head, *words]
        lengths.append(len(words))
    return b"".join(packed), lengths


slot_commands: Callable[[bytes, Sequence[bytes]], tuple[bytes, list[int]]] = (
    _compiled.slot_commands if _compiled is not None else _slot_commands
)
"""One command of that name for each run of keys of one slot, in RESP, and how many keys each has."""


# Sets of slots


def bits(slots: Iterable[int]) -> int:
    """A set of slots as bits."""
    total = 0
    for slot in slots:
        total |= 1 << slot
    return total


def runs(slots: int) -> Iterator[tuple[int, int]]:
    """The slots of some bits as (first, last) of each run, ascending.

    >>> list(runs(0b1011))
    [(0, 1), (3, 3)]
    """
    start = 0
    while slots:
        gap = (slots & -slots).bit_length() - 1
        slots >>= gap
        length = (~slots & (slots + 1)).bit_length() - 1
        yield start + gap, start + gap + length - 1
        start += gap + length
        slots >>= length


def named(slots: int, most: int | None = 20) -> str:
    """Slots in words: `slot 5`, `slots 0-99, 200`; at most so many runs of them, None: all."""
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in runs(slots)]
    shown = ", ".join(parts[:most])
    if most is not None and len(parts) > most:
        shown += f" and {len(parts) - most} more runs"
    return f"slot{'' if slots.bit_count() == 1 else 's'} {shown}"
