"""A deployment cut into partitions, for workers that each read one."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ._blocking import iterate
from ._cursor import POSITIONS, Range, cut
from ._deployment import Deployment
from ._errors import InvalidInput, PermissionDenied
from ._node import Node
from ._options import Options, Selection
from ._partition import Partition
from ._request import ReplyError, command, joined
from ._scan import Disordered, Scan
from ._secret import Secret, has_secrets, without_secrets
from ._session import Identity, Session
from ._slot import SLOTS, bits, runs
from ._survey import count, keys_of_databases, mode_of
from ._work import Work

T = TypeVar("T")

_GOLDEN = (math.sqrt(5) - 1) / 2
_MOST = 100_000
_LEAST, _ENOUGH = 16, 4096  # partitions, where nobody says how many: more than slots would have to cut them
_KEYS_EACH = 500_000
_TRIED_PAGES = 4  # of SCAN, to see how a server's cursors move
_TRIED_COUNT = 1000
_ASKED_AT_ONCE = 512  # slots
_GIANT = 1.5  # times a partition's fair share, from which on a slot is cut into pieces
_KEYS_A_CELL = 32  # a server's table has at least one bucket for so many
_CELLS = 64  # of a partition, at most: how even the cut is


def plan(
    source: object,
    partitions: int | None = None,
    *,
    db: int | str | None = None,
    secret: Secret | None = None,
    options: Options | None = None,
) -> list[Partition]:
    """Disjoint partitions of a deployment that together hold every key.

    `source` is as for `stream`, `partitions` how many there shall be; None: one for each 500,000 keys, from
    16 to 4,096. There are fewer where the keyspace cannot be cut so often (into less than 32 keys), one where
    its cursors are the server's own affair. Read them in their order: neighbours, which are at one node, are
    far apart in it (`Partition.index` counts along the slots or cursors). On a server where nothing changes,
    each key is in exactly one; where keys are written meanwhile, a few at the borders may come in two. `db`
    is a database's number, or "all": then the small ones may share a partition, and there may be a few more
    of these. In a cluster they have about as many keys each.

    `secret` is the name of an environment variable that holds the password wherever a partition is read, or a
    callable that gives it, or (username, password): then the partitions hold nothing secret. For code
    without an event loop, and for code in one that may wait for a moment; `aplan` is the same as a coroutine.

    Raises what `stream` raises.

    >>> import oneatatime
    >>> def keys(url):
    ...     return [key for part in oneatatime.plan(url, 4) for key in oneatatime.stream(part).keys()]
    """

    async def once() -> AsyncIterator[list[Partition]]:
        yield await aplan(source, partitions, db=db, secret=secret, options=options)

    return next(iterate(once))


async def aplan(
    source: object,
    partitions: int | None = None,
    *,
    db: int | str | None = None,
    secret: Secret | None = None,
    options: Options | None = None,
) -> list[Partition]:
    """The same as a coroutine."""
    if partitions is not None and (partitions.__class__ is not int or not 0 < partitions <= _MOST):
        raise InvalidInput(f"partitions={partitions!r} must be a number from 1 to {_MOST:,}")
    if isinstance(db, str) and db != "all":
        raise InvalidInput(f'db={db!r} must be the number of a database, or "all"')
    deployment = Deployment.of(source, db=None if isinstance(db, str) else db)
    sent = deployment if secret is None else without_secrets(deployment, secret)
    if not has_secrets(deployment):
        deployment = sent  # a source that does not know it asks for it here, too
    work = Work(deployment, options or Options(), Selection(all_dbs=db == "all"))
    found = await _found(work, partitions)
    return spread(
        [
            Partition(sent, index, len(found), all_dbs=db == "all", **one._asdict())
            for index, one in enumerate(found)
        ]
    )


def spread(partitions: Sequence[T]) -> list[T]:
    """In an order in which neighbours, which are at one node, are far apart.

    Workers take them one after the other, and would meet at one node while the others wait.

    >>> spread(range(8))
    [0, 5, 2, 7, 4, 1, 6, 3]
    """
    many = len(partitions)
    step = round(many * _GOLDEN)  # each falls into the widest gap, however many nodes there are
    while math.gcd(step, many) != 1:
        step += 1
    return [partitions[index * step % many] for index in range(many)]


class _Cut(NamedTuple):
    """What one partition is of: the fields of a `Partition`."""

    start: int = 0
    end: int = POSITIONS
    slots: int | None = None
    run_id: str | None = None
    dbs: tuple[int, ...] | None = None


async def _found(work: Work, partitions: int | None) -> list[_Cut]:
    if work.deployment.kind == "cluster":
        return await _of_cluster(work, partitions)
    if work.options.read_from == "replica":
        raise InvalidInput("partitions of one server are read where they were cut, and not at a replica")
    if work.deployment.kind == "sentinel":
        from ._discovery import watched  # here: it takes its time, as in `_reader`

        node = work.node(await watched(work.deployment, work.options, work.asides))
    else:
        node = work.node(work.deployment.login)
    session = node.session()
    try:
        await session.open()
        if await mode_of(session.connection) == "cluster":
            return await _of_cluster(work, partitions)
        return await _of_server(work, session, node, partitions)
    finally:
        session.abort()


# One server


async def _of_server(work: Work, session: Session, node: Node, partitions: int | None) -> list[_Cut]:
    identity = await session.identify()
    if identity.own_cursors or not await _is_ordered(session, node):
        partitions = 1
    if work.selection.all_dbs:
        counts = await keys_of_databases(session.connection)
        found = _cut_databases(counts, partitions or _enough(sum(filter(None, counts.values()))))
    else:
        keys = await count(session.connection)
        found = [_Cut(*one) for one in _cut_on_grid(Range(), keys, partitions or _enough(keys))]
    if identity.run_id is None and any(one.end - one.start < POSITIONS for one in found):
        text = "partitions of one server need its run id: allow the user +info, or make one partition"
        raise PermissionDenied(text, node=node.name, command="INFO")
    return [one._replace(run_id=identity.run_id) for one in found]


def _enough(keys: int | None) -> int:
    """How many partitions are right for so many keys, where nobody says it."""
    return min(_ENOUGH, max(_LEAST, -(-(keys or 0) // _KEYS_EACH)))


def _cut_on_grid(whole: Range, keys: int | None, pieces: int) -> list[Range]:
    """About equal ranges of a table, with edges where buckets of it begin: those are never shared by two.

    Fewer than `pieces` where the table may have too few buckets. `keys` is None where nobody tells.
    """
    cells = _power(pieces) * _CELLS
    if keys is not None:
        cells = min(cells, _power(max(1, keys // _KEYS_A_CELL) + 1) // 2)
    pieces = min(pieces, cells)
    width = (whole.end - whole.start) // cells
    edges = [whole.start + index * cells // pieces * width for index in range(pieces + 1)]
    return [Range(start, end) for start, end in itertools.pairwise(edges)]


def _power(number: int) -> int:
    """The lowest power of two that is not below."""
    return 1 << (number - 1).bit_length()


def _cut_databases(keys: Mapping[int, int | None], partitions: int) -> list[_Cut]:
    """Databases of one server: big ones in pieces, small ones as they are, several of them together."""
    share = max(1.0, sum(filter(None, keys.values())) / partitions)
    found: list[_Cut] = []
    small: list[int] = []
    weight = 0
    for db, own in sorted(keys.items()):
        pieces = round((own or 0) / share)
        if pieces > 1:
            found += [_Cut(*one, dbs=(db,)) for one in _cut_on_grid(Range(), own, pieces)]
            continue
        small.append(db)
        weight += own or 0
        if weight >= share:
            found.append(_Cut(dbs=tuple(small)))
            small, weight = [], 0
    if small:
        found.append(_Cut(dbs=tuple(small)))
    return found or [_Cut()]


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


async def _of_cluster(work: Work, partitions: int | None) -> list[_Cut]:
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
            for slot, some in zip(own, await _counts(session, own)):
                keys[slot] += some
                if not work.selection.all_dbs:  # else each database has a table of its own for each slot
                    ids[slot] = identity
        finally:
            session.abort()
    partitions = partitions or _enough(sum(keys) - SLOTS)
    return [_Cut(*one, slots, run_id) for one, slots, run_id in _cut_evenly(keys, partitions, ids)]


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
    for slot, own in enumerate(keys):
        if own > _GIANT * share and (ranges := _pieces_of_slot(slot, own, share, ids.get(slot))):
            if here:
                found.append((Range(), bits(here), None))
            found += [(piece, 1 << slot, ids[slot].run_id) for piece in ranges]
            here, weight = [], 0.0
            continue
        if here and weight + own / 2 > share and len(found) < partitions - 1:
            found.append((Range(), bits(here), None))
            here, weight = [], weight - share
        here.append(slot)
        weight += own
    if here:
        found.append((Range(), bits(here), None))
    return found


def _pieces_of_slot(slot: int, keys: int, share: float, identity: Identity | None) -> list[Range]:
    """A slot in pieces of about a share each; none where it cannot be cut."""
    if identity is None or not identity.slot_tables or identity.run_id is None:
        return []
    ranges = _cut_on_grid(Range.of_slots(slot, slot), keys, max(1, round(keys / share)))
    return ranges if len(ranges) > 1 else []
