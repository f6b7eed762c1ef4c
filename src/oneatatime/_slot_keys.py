"""Slots -> pages, where a node has one table for all of them: Redis before 7.4, Valkey before 8.0.

There a cursor knows nothing of slots. GETKEYSINSLOT gives all keys of a slot at once, which costs the
server less than SCAN does, but blocks it for as long as that takes: a giant slot is left to `GiantScan`.
"""

from __future__ import annotations

from typing import Any

from ._connection import server_error
from ._cursor import Range
from ._errors import ProtocolViolation
from ._glob import matcher
from ._options import Selection
from ._request import Burst, ReplyError, command, joined
from ._resp import ARRAY
from ._scan import Disordered, Scan
from ._slot import by_slot, runs

_GIANT = 100_000  # keys of a slot
_COUNTED_AT_ONCE = 64  # slots
_GROWTH = 100  # keys that may have come since a slot was counted


class SlotKeys:
    """The keys of `slots` (bits), some slots at a time.

    `came` are the slots of which keys came; `giants` the slots with too many keys for this.
    """

    by_type = False

    def __init__(self, slots: int, selection: Selection, count: int, *, node: str) -> None:
        self.slots = slots
        self.count = count
        self.finished = not slots
        self.in_hand: list[bytes] = []
        self.giants = 0
        self.came: set[int] = set()
        self._read = 0
        self._node = node
        self._matches = matcher(selection.match) if selection.match is not None else None
        self._uncounted = [slot for first, last in runs(slots) for slot in range(first, last + 1)]
        self._counted: list[tuple[int, int]] = []  # slot, keys
        self._counting: list[int] = []
        self._getting: list[tuple[int, int]] = []

    @property
    def read(self) -> int:
        """The slots that have been read whole, as bits."""
        return self._read

    @property
    def under_way(self) -> int:
        """A slot comes whole or not at all."""
        return 0

    def aim(self, keys: int, most: int) -> None:
        """About so many keys should come next: slots are taken until they are."""
        self.count = keys

    def request(self, *, bounded: bool = True) -> Burst:
        """Asks for the keys of some slots, and how many the next ones have."""
        # what was asked for and never answered is asked for once more
        self._counted[:0], self._uncounted[:0] = self._getting, self._counting
        self._getting, expected = [], 0
        while self._counted and (not self._getting or expected + self._counted[0][1] <= self.count):
            slot, keys = self._counted.pop(0)
            self._getting.append((slot, keys))
            expected += keys
        self._counting = []
        if len(self._counted) < _COUNTED_AT_ONCE:
            self._counting = self._uncounted[:_COUNTED_AT_ONCE]
            del self._uncounted[:_COUNTED_AT_ONCE]
        bursts = [
            command(b"CLUSTER", b"GETKEYSINSLOT", slot, keys, bounded=False) for slot, keys in self._getting
        ]
        bursts += [command(b"CLUSTER", b"COUNTKEYSINSLOT", slot) for slot in self._counting]
        return joined(bursts)

    def take(self, replies: list[Any]) -> list[bytes]:
        """The keys that came. Raises what an error reply means."""
        found: list[bytes] = []
        for (slot, most), keys in zip(self._getting, replies):
            if isinstance(keys, ReplyError):
                raise self._refused(keys, "CLUSTER GETKEYSINSLOT")
            if keys.__class__ is not ARRAY:
                raise ProtocolViolation("GETKEYSINSLOT answered no keys", node=self._node, command="CLUSTER")
            if len(keys) >= most:  # there may be more by now
                self._plan(slot, 2 * most)
                continue
            self._read |= 1 << slot
            if self.slots >> slot & 1:
                self.came.add(slot)
                found += keys if self._matches is None else filter(self._matches, keys)
        for slot, keys in zip(self._counting, replies[len(self._getting) :]):
            if isinstance(keys, ReplyError):
                raise self._refused(keys, "CLUSTER COUNTKEYSINSLOT")
            if keys:
                self._plan(slot, keys)
            else:
                self._read |= 1 << slot
        self._getting, self._counting = [], []
        self.finished = not self._counted and not self._uncounted
        self._read &= self.slots
        self.in_hand = found
        return found

    def _refused(self, reply: ReplyError, name: str) -> Exception:
        if str(reply).startswith("ERR "):
            return Disordered(f"slots cannot be asked for by {name}: {reply}", self._node)
        return server_error(reply, node=self._node, command=name)

    def _plan(self, slot: int, keys: int) -> None:
        if keys > _GIANT:
            self.giants |= 1 << slot
        else:
            self._counted.append((slot, keys + _GROWTH))


class GiantScan(Scan):
    """All keys of a node, for the sake of some slots: where these have too many keys to be given at once, or
    where the node's cursors are its own affair."""

    def __init__(self, slots: int, selection: Selection, count: int, *, node: str) -> None:
        super().__init__(Range(), selection, count, node=node)
        self.slots = slots
        self.came: set[int] = set()

    @property
    def read(self) -> int:
        """The slots that have been read whole, as bits."""
        return self.slots if self.finished else 0

    @property
    def under_way(self) -> int:
        """All of them, until the end."""
        return 0 if self.finished else self.slots

    def _own(self, keys: list[bytes], reached: int) -> list[bytes]:
        found: list[bytes] = []
        for slot, rows in by_slot(keys).items():
            if self.slots >> slot & 1:
                self.came.add(slot)
                found += [keys[row] for row in rows]
        return found
