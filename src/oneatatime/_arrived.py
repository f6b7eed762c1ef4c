"""What of an open slot has already come to its target: read there, after all of it was read at its source.

MIGRATE moves keys from the source to the target only, and a key is never at neither. So whatever was not
at the source when that was read is at the target by then. Both have to say afterwards that they stand as
they stood.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable

from ._cursor import Range
from ._discovery import ClusterMap, look, view_of
from ._errors import Error
from ._fetch import Fetch
from ._node import OUT_OF_REACH, Node
from ._pages import Between, Pages, read_pages
from ._record import Batch
from ._scan import Disordered, SlotScan
from ._session import Identity, Session
from ._slot import bits, keyslot, runs
from ._slot_keys import GiantScan, SlotKeys
from ._topology import Member, View
from ._work import Work

log = logging.getLogger("oneatatime")


MOVED = "moved while it was read"

Hold = Callable[[Batch], Awaitable[None]]
"""What keeps batches until there is a verdict on them, and lets go some where they are too many."""


async def read_targets(
    work: Work, found: ClusterMap, slots: int, view: View, source: Session, *, db: int, hold: Hold
) -> tuple[int, dict[str, int]]:
    """Reads open slots at their targets. Returns those that are done by that, and the others by the reason.

    `view` is what the source said after they were read there.
    """
    done = 0
    left, targets = defaultdict[str, int](int), defaultdict[str, int](int)
    for slot, target in view.leaving.items():
        if slots >> slot & 1:
            targets[target] |= 1 << slot
    for target, those in targets.items():
        member = found.topology.members.get(target) or (await found.find()).members.get(target)
        if member is None:
            left[f"the node {target}, where they are being moved, is not known"] = those
            continue
        try:
            node = work.node(found.endpoint(member))
            here = await _read_target(work, node, member, those, view, source, db=db, hold=hold)
            done |= here
            left[MOVED] |= those & ~here
        except OUT_OF_REACH as error:
            if source.connection.dead:
                raise
            said = error.message if isinstance(error, Error) else str(error)
            left[f"{node.name}, where they are being moved, is out of reach: {said}"] = those
    return done, left


async def _read_target(
    work: Work,
    node: Node,
    target: Member,
    slots: int,
    view: View,
    source: Session,
    *,
    db: int,
    hold: Hold,
) -> int:
    session = node.session(asking=True)
    try:
        await session.open()
        identity = await session.identify()
        before = await view_of(session, target)
        here = _held(before) & slots
        fetch = work.fetch(node, slotted=True)
        await _read(work, here, node, session, fetch, db=db, identity=identity, hold=hold)
        after, still = await view_of(session, target), await look(source)
    finally:
        session.abort()
    # what it owned already has not left and come back: it would have a new epoch
    kept = before.slots if before.epoch == after.epoch else 0
    here &= (kept | bits(before.arriving)) & _held(after) & ~bits({keyslot(key) for key in fetch.strays})
    stands = still.is_primary and still.ok and still.epoch == view.epoch
    unmoved = bits(slot for slot, to in still.leaving.items() if to == target.id) if stands else 0
    return here & ((unmoved & still.slots) | after.slots)


def _held(view: View) -> int:
    """What a node has of the slots that are its own or on their way to it, and not on their way on."""
    return (bits(view.arriving) | view.slots) & ~bits(view.leaving)


async def _read(
    work: Work,
    slots: int,
    node: Node,
    session: Session,
    fetch: Fetch,
    *,
    db: int,
    identity: Identity,
    hold: Hold,
) -> None:
    selection, count = work.selection, work.options.count

    async def after_page() -> None:
        node.outage.over()

    between = Between(after_page, hold=hold)

    async def read(pages: Pages) -> None:
        await read_pages(work, node, pages, session, fetch, db=db, between=between)

    try:
        if identity.slot_tables:
            for first, last in runs(slots):
                run = slots & ((1 << (last + 1)) - (1 << first))
                await read(SlotScan(Range.of_slots(first, last), run, selection, count, node=node.name))
            return
    except Disordered as error:
        log.debug("%s", error)
    try:
        if not identity.own_cursors:
            keys = SlotKeys(slots, selection, count, node=node.name)
            await read(keys)
            slots = keys.giants  # they have too many to be given at once
    except Disordered as error:
        log.debug("%s", error)
    if slots:
        await read(GiantScan(slots, selection, count, node=node.name))
