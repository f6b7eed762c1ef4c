"""The keys: stable ones that nobody deletes, and others that come and go to make tables grow and shrink.

A stable key has a claim to be delivered by an iteration that begins at t0 when it was there without a break
from t0 on. Servers lose keys (they die without their data, or a replica is promoted that had not all), and
that is not the reader's fault. So each stable key has a `since`: when it was last seen to be back, infinity
while it is gone. A key that was lost for a moment gets a new `since`, even if nobody wrote it again.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable

from tests.clusters import SLOTS, slot_of, tag

from .history import History, now
from .sites import Site

NEVER = float("inf")
HOT = (100, 8000, 16300)
"""Slots with many keys each: the nemesis likes to move them."""


class Keyspace:
    """`stable` keys over all slots with many in HOT; `churn` names that may or may not be there."""

    def __init__(self, site: Site, history: History, *, stable: int = 9000, churn: int = 30_000) -> None:
        self._site, self._history = site, history
        spread = [b"stable:%d" % number for number in range(stable * 2 // 3)]
        hot = [f"stable:{{{tag(HOT[number % len(HOT)])}}}:{number}".encode() for number in range(stable // 3)]
        self.stable = spread + hot
        self._slots = {key: slot_of(key) for key in self.stable}
        self._is_stable = frozenset(self.stable)
        self.since = dict.fromkeys(self.stable, NEVER)
        randomly = random.Random(7)
        crowded = [*HOT, *(randomly.randrange(SLOTS) for _ in range(5))]
        self._churn = [
            (f"churn:{{{tag(crowded[n % 8])}}}:{n}" if n % 2 else f"churn:{n}").encode() for n in range(churn)
        ]
        self._written: set[bytes] = set()
        self._lock = threading.Lock()  # between audits, and who asks what is owed

    def fill(self) -> None:
        """Write every stable key."""
        self._write(self.stable)
        missing = [key for key, since in self.since.items() if since == NEVER]
        if missing:
            raise RuntimeError(f"{len(missing)} keys could not be written")

    # What is owed

    def snapshot(self) -> dict[bytes, float]:
        """`since` of every stable key, now."""
        with self._lock:
            return dict(self.since)

    def ever(self, key: bytes) -> bool:
        """Whether such a key has ever existed."""
        return key in self._is_stable or key in self._written

    def there(self, keys: Iterable[bytes], began: float) -> list[bytes]:
        """Those of `keys` that are there now and have been since `began`: asked for what seems missed."""
        wanted = list(keys)
        existing = self._site.existing(wanted, patience=30.0)
        with self._lock:
            return [key for key in wanted if existing.get(key) and self.since[key] <= began]

    # What befalls it

    def suspend(self, slots: Iterable[int]) -> None:
        """Keys of these slots have no claim from now until they are seen again by `audit`."""
        gone = set(slots)
        with self._lock:
            for key, slot in self._slots.items():
                if slot in gone:
                    self.since[key] = NEVER

    def audit(self) -> int:
        """Find out which stable keys are there, and write those anew that are lost; how many were."""
        existing = self._site.existing(self.stable, patience=20.0)
        moment = now()
        lost = [key for key in self.stable if existing.get(key) is False]
        unknown = [key for key in self.stable if existing.get(key) is None]
        with self._lock:
            for key in (*lost, *unknown):
                self.since[key] = NEVER
            for key, there in existing.items():
                if there and self.since[key] == NEVER:
                    self.since[key] = moment
        if lost:
            self._write(lost)
        if lost or unknown:
            self._history.write("lost", keys=len(lost), unknown=len(unknown), first=lost[:3])
        return len(lost)

    def _write(self, keys: list[bytes]) -> None:
        written = self._site.send([("SET", key, key) for key in keys])
        moment = now()
        with self._lock:
            for key, ok in zip(keys, written, strict=True):
                if ok:
                    self.since[key] = moment

    # Others that come and go

    def churn(self, going_on: Callable[[], bool]) -> None:
        """Let tables grow and shrink until told to stop."""
        randomly = random.Random()
        while going_on():
            for write, rounds in ((True, randomly.randrange(4, 16)), (False, randomly.randrange(4, 16))):
                for _ in range(rounds):
                    if not going_on():
                        return
                    names = randomly.sample(self._churn, 1000)
                    if write:
                        self._written.update(names)
                    self._site.send([("SET", name, name) if write else ("UNLINK", name) for name in names])
                    self._site.rest(randomly.uniform(0.02, 0.2))
