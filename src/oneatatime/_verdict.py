"""Which slots did not move while they were read, by what their node said before and after.

A node answers SCAN for whatever it holds, and never says that a slot has left. But nobody can take a slot
from a node and give it back without a new epoch of that node. So a slot is done when its node owned it
before its first key was asked for and after its last one came, in the same epoch, and nobody was moving
it. A slot that is being moved by MIGRATE is open: its keys are on two nodes.
"""

from __future__ import annotations

from typing import NamedTuple

from ._fetch import Fetch
from ._record import Batch
from ._scan import SlotScan
from ._slot import bits, keyslot
from ._slot_keys import GiantScan, SlotKeys
from ._topology import View


class Window:
    """Slots that one worker reads, and what their node said before the first of them.

    `fetch` reads the values. `judged` are slots that a verdict was given on; `void` those that moved
    while they were read. `held` is what came of them and waits for the verdict, `weight` its bytes.
    """

    def __init__(self, pages: SlotScan | SlotKeys | GiantScan, view: View, fetch: Fetch) -> None:
        self.pages = pages
        self.view = view
        self.fetch = fetch
        self.judged = 0
        self.void = 0
        self.held: list[Batch] = []
        self.weight = 0

    def hold(self, batch: Batch) -> None:
        """Keeps a batch until there is a verdict on its slots."""
        self.held.append(batch)
        self.weight += batch.weight

    def released(self) -> list[Batch]:
        """What was held, which is then no longer."""
        held, self.held, self.weight = self.held, [], 0
        return held

    @property
    def left(self) -> int:
        """The slots on which no verdict has been given."""
        return self.pages.slots & ~self.judged


class Verdict(NamedTuple):
    """On the slots that have been read: `done`, `open` ones that have been read at their source, and those to
    read `again`. `gone` were not begun yet, and belong to somebody else by now."""

    done: int
    open: int
    again: int
    gone: int


def verdict(window: Window, now: View) -> Verdict:
    """What the node says now, of the slots that were read since it was asked last.

    Nothing may be under way when it is asked: what is asked for later has `now` before it. A key that was
    listed, and had moved when its value was asked for, is in an open slot or voids its slot.
    """
    before, read = window.view, window.pages.read & ~window.judged
    kept = before.kept(now)
    leaving = bits(now.leaving) & kept
    begun = (read | window.pages.under_way) & ~window.judged
    stays = bits(slot for slot, target in now.leaving.items() if before.leaving.get(slot) == target)
    moved = ~kept | (bits(before.leaving) & ~stays)
    strayed = bits({keyslot(key) for key in window.fetch.strays}) & ~leaving
    void = window.void | (begun & (moved | strayed))
    fit = read & kept & ~void
    done, opened = fit & ~leaving, fit & leaving
    gone = window.left & ~begun & ~now.slots
    window.void = void
    return Verdict(done, opened, read & ~fit, gone)
