"""A deployment cut into partitions, for workers that each read one."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ._blocking import iterate
from ._cursor import SLOT_WIDTH, Range, cut
from ._deployment import Deployment
from ._errors import InvalidInput, PermissionDenied
from ._node import Node
from ._options import Options, Selection
from ._partition import Partition
from ._request import ReplyError, command, joined
from ._scan import Disordered, Scan
from ._session import Identity, Session
from ._slot import SLOTS, bits, runs
from ._survey import mode_of
from ._work import Work

_MOST = 100_000
_TRIED_PAGES = 4  # of SCAN, to see how a server's cursors move
_TRIED_COUNT = 1000
_ASKED_AT_ONCE = 512  # slots
_GIANT = 1.5  # times a partition's fair share, from which on a slot is cut into pieces


def plan(
    source: object, partitions: int, *, db: int | str | None = None, options: Options | None = None
) -> list[Partition]:
    """Disjoint partitions of a deployment that together hold every key.

    `source` is as for `stream`, `partitions` how many there shall be: there are fewer where the keyspace
    cannot be cut so often, one where its cursors are the server's own affair. `db` is a database's number,
    or "all". In a cluster they have about as many keys each. For code without an event loop, and for code in
    one that may wait for a moment; `aplan` is the same as a coroutine.

    Raises what `stream` raises.

    >>> import oneatatime
    >>> def keys(url):
    ...     return [key for part in oneatatime.plan(url, 4) for key in oneatatime.stream(part).keys()]
    """

    async def once() -> AsyncIterator[list[Partition]]:
        yield await aplan(source, partitions, db=db, options=options)

    return next(iterate(once))


async def aplan(
    source: object, partitions: int, *, db: int | str | None = None, options: Options | None = None
) -> list[Partition]:
    """The same as a coroutine."""
    if not isinstance(partitions, int) or isinstance(partitions, bool) or not 0 < partitions <= _MOST:
        raise InvalidInput(f"partitions={partitions!r} must be a number from 1 to {_MOST:,}")
    if isinstance(db, str) and db != "all":
        raise InvalidInput(f'db={db!r} must be the number of a database, or "all"')
    deployment = Deployment.of(source, db=None if isinstance(db, str) else db)
    work = Work(deployment, options or Options(), Selection())
    if deployment.kind == "cluster":
        return await _of_cluster(work, partitions, all_dbs=db == "all")
    if work.options.read_from == "replica":
        raise InvalidInput("partitions of one server are read where they were cut, and not at a replica")
    if deployment.kind == "sentinel":
        from ._discovery import watched  # here: it takes its time, as in `_reader`

        node = work.node(await watched(deployment, work.options, work.asides))
    else:
        node = work.node(deployment.login)
    session = node.session()
    try:
        await session.open()
        if await mode_of(session.connection) == "cluster":
            return await _of_cluster(work, partitions, all_dbs=db == "all")
        identity = await session.identify()
        ordered = not identity.own_cursors and await _is_ordered(session, node)
        ranges = cut(Range(), partitions if ordered else 1)
    finally:
        session.abort()
    if identity.run_id is None and len(ranges) > 1:
        text = "partitions of one server need its run id: allow the user +info, or make one partition"
        raise PermissionDenied(text, node=node.name, command="INFO")
    return [
        Partition(
            deployment, index, len(ranges), one.start, one.end, run_id=identity.run_id, all_dbs=db == "all"
        )
        for index, one in enumerate(ranges)
    ]


async def _is_ordered(session: Session, node: Node) -> bool:
    """Whether its cursors move as Redis's do, as far as a few pages show."""
    for part in cut(Range(), 2):
        scan = Scan(part, Selection(), _TRIED_COUNT, node=node.name)
        try:
            for _ in range(_TRIED_PAGES):
                if not scan.finished:
                    (asked,) = session.send(scan.request())
                    scan.take((await session.answer(asked)).replies)
        except Disordered:
            return False
    return True


# Clusters


async def _of_cluster(work: Work, partitions: int, *, all_dbs: bool) -> list[Partition]:
    from ._discovery import ClusterMap

    found = ClusterMap(work)
    topology = await found.find()
    keys = [1] * SLOTS  # for slots that nobody serves now, and where it is not told
    ids: dict[int, Identity] = {}
    for member in topology.primaries.values():
        node = work.node(found.endpoint(member))
        session = node.session()
        try:
            await session.open()
            identity = await session.identify()
            own = [slot for first, last in runs(member.slots) for slot in range(first, last + 1)]
            for slot, count in zip(own, await _counts(session, own)):
                keys[slot] += count
                ids[slot] = identity
        finally:
            session.abort()
    pieces = _cut_evenly(keys, partitions, ids)
    return [
        Partition(work.deployment, index, len(pieces), one.start, one.end, slots, run_id, all_dbs=all_dbs)
        for index, (one, slots, run_id) in enumerate(pieces)
    ]


async def _counts(session: Session, slots: list[int]) -> list[int]:
    found: list[int] = []
    for start in range(0, len(slots), _ASKED_AT_ONCE):
        bursts = [
            command(b"CLUSTER", b"COUNTKEYSINSLOT", slot) for slot in slots[start : start + _ASKED_AT_ONCE]
        ]
        (pending,) = session.send(joined(bursts))
        replies = (await session.answer(pending)).replies
        found += [0 if isinstance(reply, ReplyError) else reply for reply in replies]
    return found


def _cut_evenly(
    keys: list[int], partitions: int, ids: dict[int, Identity]
) -> list[tuple[Range, int, str | None]]:
    """Runs of slots with about as many keys each; a giant slot is cut into pieces of its own."""
    share = sum(keys) / partitions
    found: list[tuple[Range, int, str | None]] = []
    here: list[int] = []
    weight = 0.0
    for slot, count in enumerate(keys):
        pieces = round(count / share) if slot in ids and ids[slot].slot_tables and ids[slot].run_id else 1
        if count > _GIANT * share and pieces > 1:
            if here:
                found.append((Range(), bits(here), None))
            whole = Range(slot * SLOT_WIDTH, (slot + 1) * SLOT_WIDTH)
            found += [(piece, 1 << slot, ids[slot].run_id) for piece in cut(whole, pieces)]
            here, weight = [], 0.0
            continue
        if here and weight + count / 2 > share and len(found) < partitions - 1:
            found.append((Range(), bits(here), None))
            here, weight = [], weight - share
        here.append(slot)
        weight += count
    if here:
        found.append((Range(), bits(here), None))
    return found
