"""Which slots of a cluster are still to be read, which are being read, and which are done.

Sets of slots are bits. A slot is done when its node owned it without a break from before its first key
was read until after its last: only then is it sure that no key of it was anywhere else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from ._slot import SLOTS, bits, by_slot, keyslot, named, runs
from ._statistics import Account
from ._unique import Seen, seen

_MOST_REMEMBERED, _MOST_REMEMBERED_IN_ALL = 10_000, 500_000
"""Keys of a slot, and of all slots, that are remembered, in case they have to be read again."""
_FIRST_REST, _LONGEST_REST = 0.01, 1.0  # seconds until a slot that moved is read again


class Ledger:
    """The slots of one database. `skipped` are given up, as asked."""

    def __init__(self, wanted: int, *, unique: bool, account: Account, db: int) -> None:
        self.db = db
        self.wanted = wanted
        self.pending = wanted
        self.reading = 0
        self.done = 0
        self.skipped = 0
        self.settled = 0  # done, and the loop has finished with all of it
        self._attempts: Counter[int] = Counter()
        self._troubled_since: dict[int, float] = {}
        self._why: dict[int, str] = {}  # they had to be read again, the last time
        self._resting: list[tuple[float, int]] = []  # until when, which slots
        self._account = account
        self.unique = unique
        self._seen: dict[int, Seen] = {}  # keys that came of slots that are not done
        self._remembered = 0  # of all slots together
        self._forgotten: dict[int, int] = {}  # how many came, where they were too many to remember
        self._reread = 0

    @property
    def open(self) -> int:
        """What is not done yet."""
        return self.wanted & ~self.done & ~self.skipped

    @property
    def resting(self) -> int:
        """Those that moved a moment ago, and are left alone for a moment more."""
        now = time.monotonic()
        self._resting = [(until, slots) for until, slots in self._resting if until > now]
        total = 0
        for _, slots in self._resting:
            total |= slots
        return total

    def claim(self, here: int, most: int = SLOTS) -> tuple[int, int, int] | None:
        """The next slots to read at a node that owns `here`: first, last, and which of them.

        Between the first and the last there may be slots of others, which cost nothing here.
        """
        here &= ~self.resting
        mine = self.pending & here
        if not mine:
            return None
        first = (mine & -mine).bit_length() - 1
        not_wanted = (here & ~self.pending) >> first
        last = first + (not_wanted & -not_wanted).bit_length() - 2 if not_wanted else mine.bit_length() - 1
        last = min(last, first + most - 1)
        slots = mine & ((1 << (last + 1)) - (1 << first))
        self.pending &= ~slots
        self.reading |= slots
        return first, slots.bit_length() - 1, slots

    def give_back(self, slots: int) -> None:
        """They were not begun."""
        self.reading &= ~slots
        self.pending |= slots & ~self.done & ~self.skipped

    def again(self, slots: int, came: Iterable[int], why: str, node: str, *, read: int = 0) -> None:
        """They have to be read once more; `came` are slots of which keys came.

        `read` are those that were read to their end, even if they turned out to be empty.
        """
        self.give_back(slots)
        came = [slot for slot in came if slots >> slot & 1]
        read = read & slots | bits(came)
        if not read:
            return
        begun = [slot for first, last in runs(read) for slot in range(first, last + 1)]
        self._attempts.update(begun)
        now = time.monotonic()
        for slot in begun:
            self._troubled_since.setdefault(slot, now)
            self._why[slot] = why
        attempts = min(max(self._attempts[slot] for slot in begun), 10)
        self._resting.append((now + min(_LONGEST_REST, _FIRST_REST * 2**attempts), read))
        self._reread |= read
        if came:
            keys = sum(self._forgotten.pop(slot, 0) for slot in came)
            self._account.again(f"{named(bits(came))} of {node}", why, keys)

    def troubled(self, seconds: float) -> int:
        """Those that have been read again and again for longer than that."""
        long_ago = time.monotonic() - seconds
        return bits(slot for slot, since in self._troubled_since.items() if since < long_ago) & self.open

    def why(self, slots: int) -> str:
        """Why these had to be read again."""
        return "; ".join(sorted({why for slot, why in self._why.items() if slots >> slot & 1}))

    def finish(self, slots: int) -> None:
        """They are done."""
        self.done |= slots
        self.reading &= ~slots
        self._reread &= ~slots
        for slot in [slot for slot in self._forgotten if slots >> slot & 1]:
            del self._forgotten[slot]
        for slot in [slot for slot in self._troubled_since if slots >> slot & 1]:
            del self._troubled_since[slot], self._why[slot]
        for slot in [slot for slot in self._seen if slots >> slot & 1]:
            self._forget(slot)

    def skip(self, slots: int) -> None:
        """They are given up, where nobody is reading them just now."""
        slots &= self.pending
        self.pending &= ~slots
        self.skipped |= slots

    def undelivered(self, names: list[bytes], unwanted: int, undecided: int) -> list[int] | None:
        """The rows of keys that are to be delivered, None for all; from now on they were.

        None of `unwanted` slots, and none that came before, as far as that is remembered: of all slots
        that are not done where keys are to be unique, else of those that are `undecided` and have to be
        delivered in part, while they have not too many keys.
        """
        last = keyslot(names[-1]) if names else 0
        several = undecided & (undecided - 1)
        if not (self.unique or unwanted or self._reread or several or undecided >> last & 1):
            return None
        found: list[int] = []
        for slot, rows in by_slot(names).items():
            if unwanted >> slot & 1:
                continue
            remembered = self.unique or (undecided | self._reread) >> slot & 1
            found += self._fresh(slot, names, rows) if remembered else rows
        return sorted(found)

    def _fresh(self, slot: int, names: list[bytes], rows: list[int]) -> list[int]:
        if slot in self._forgotten:
            self._forgotten[slot] += len(rows)
            return rows
        if slot not in self._seen:
            self._seen[slot] = seen("memory")
        here = self._seen[slot]
        before = here.size
        fresh = set(here.fresh([names[row] for row in rows]))
        found = []
        for row in rows:
            if names[row] in fresh:
                fresh.remove(names[row])
                found.append(row)
        self._remembered += here.size - before
        if self.unique:
            self._account.repeats += len(rows) - len(found)
        elif here.size > _MOST_REMEMBERED or self._remembered > _MOST_REMEMBERED_IN_ALL:
            self._forgotten[slot] = self._forget(slot)
        return found

    def _forget(self, slot: int) -> int:
        """Gives back the memory of a slot's keys. Returns how many they were."""
        gone = self._seen.pop(slot)
        size = gone.size
        self._remembered -= size
        gone.close()
        return size

    def loop_reached(self, slots: int) -> None:
        """The loop has finished with these."""
        self.settled |= slots

    def close(self) -> None:
        """Nothing more will be read."""
        for one in self._seen.values():
            one.close()
        self._seen.clear()

    @property
    def fraction(self) -> float:
        """How much is done, of what is wanted."""
        return (self.wanted & ~self.open).bit_count() / (self.wanted.bit_count() or 1)
