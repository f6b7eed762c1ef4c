"""A stream made again: its entries under their own ids, its groups, and what is pending in them.

Everything goes by ids, which must grow. So entries that are gone, and pending all the same, are added in
their places for the moment in which a consumer claims them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from .._record import Pending, RepeatedFields, StreamDetails
from .._request import Burst
from .._resp import writes
from ._written import MOST_ELEMENTS, together, words

_NOWHERE = b"0-0"
_PLACEHOLDER = (b"", b"")  # a field and its content


def rebuilt(
    key: bytes, entries: list[Any], details: StreamDetails | None, *, first: bool, last: bool
) -> Burst:
    """The commands that make this stream, or a piece of it.

    The details of the first piece say which groups there are, those of the last one where they stand, and
    those of all the greatest id deleted. Raises ValueError for an entry without fields: there is no command
    that would add one.
    """
    if details is None:
        bursts = [] if entries or not first else list(_begun(key, StreamDetails(None), empty=True))
        return together([*bursts, _added(key, [(name, _pairs(name, fields)) for name, fields in entries])])
    bursts = []
    if first:
        bursts += _begun(key, details, empty=not entries)
    there = {name for name, _ in entries}
    gone = sorted({one.id for one in details.pending if one.id not in there}, key=_place)
    oldest = _place(entries[0][0]) if entries else None
    before = [name for name in gone if oldest is None or _place(name) < oldest]
    trimmed = [name for name in before if first or _was_trimmed(name, details)]
    if trimmed:
        claimed = set(trimmed)
        bursts.append(_added(key, [(name, _PLACEHOLDER) for name in trimmed]))
        bursts += _claims(key, [one for one in details.pending if one.id in claimed])
        bursts.append(words(b"XTRIM", key, b"MAXLEN", b"0"))  # unlike XDEL it moves no id that is told
    deleted = gone[len(trimmed) :]
    rows = [(name, _pairs(name, fields)) for name, fields in entries]
    if deleted:
        rows = sorted([*rows, *[(name, _PLACEHOLDER) for name in deleted]], key=lambda row: _place(row[0]))
    bursts.append(_added(key, rows))
    bursts += _claims(key, [one for one in details.pending if one.id not in trimmed])
    for start in range(0, len(deleted), MOST_ELEMENTS):
        bursts.append(words(b"XDEL", key, *deleted[start : start + MOST_ELEMENTS]))
    if last:
        bursts += _ended(key, entries, details)
    return together(bursts)


def _was_trimmed(name: bytes, details: StreamDetails) -> bool:
    """Whether an entry that is gone was trimmed, and with it all before it: those deleted have lower ids."""
    deleted = details.max_deleted_id
    return deleted is not None and _place(name) > _place(deleted)


def _begun(key: bytes, details: StreamDetails, *, empty: bool) -> Iterable[Burst]:
    """The groups and their consumers; an empty stream by a group that it does not keep."""
    for group in details.groups:
        yield words(b"XGROUP", b"CREATE", key, group.name, b"0", b"MKSTREAM")
        for consumer in group.consumers:
            yield words(b"XGROUP", b"CREATECONSUMER", key, group.name, consumer)
    if empty and not details.groups:
        yield words(b"XGROUP", b"CREATE", key, b"oneatatime", b"0", b"MKSTREAM")
        yield words(b"XGROUP", b"DESTROY", key, b"oneatatime")


def _added(key: bytes, rows: list[tuple[bytes, tuple[bytes, ...]]]) -> Burst:
    payload = writes(b"XADD", [key] * len(rows), [(name, *pairs) for name, pairs in rows])
    return Burst(payload, len(rows), False)


def _claims(key: bytes, pending: Iterable[Pending]) -> Iterable[Burst]:
    """Entries given to consumers: those that were given together, together."""
    together_: dict[tuple[bytes, bytes, int, int], list[bytes]] = {}
    for group, name, consumer, at, deliveries in pending:
        together_.setdefault((group, consumer, at, deliveries), []).append(name)
    for (group, consumer, at, deliveries), names in together_.items():
        for start in range(0, len(names), MOST_ELEMENTS):
            since = (b"TIME", b"%d" % at, b"RETRYCOUNT", b"%d" % deliveries)
            some = names[start : start + MOST_ELEMENTS]
            yield words(b"XCLAIM", key, group, consumer, b"0", *some, *since, b"FORCE", b"JUSTID")


def _ended(key: bytes, entries: list[Any], details: StreamDetails) -> Iterable[Burst]:
    """Where the stream and its groups stand, which nothing that came before may have moved."""
    reached = details.last_id
    if reached is not None and entries:
        reached = max(reached, entries[-1][0], key=_place)  # it may have grown while it was read
    if reached not in (None, _NOWHERE):
        added: tuple[bytes, ...] = ()
        if details.entries_added is not None:
            added = (b"ENTRIESADDED", b"%d" % max(details.entries_added, len(entries)))
        if details.max_deleted_id is not None:
            added += (b"MAXDELETEDID", details.max_deleted_id)
        yield words(b"XSETID", key, reached, *added)
    for group in details.groups:
        read = () if group.entries_read is None else (b"ENTRIESREAD", b"%d" % group.entries_read)
        yield words(b"XGROUP", b"SETID", key, group.name, group.last_delivered_id, *read)


def _pairs(name: bytes, fields: dict[bytes, bytes]) -> tuple[bytes, ...]:
    if fields and fields.__class__ is dict:
        return tuple(chain.from_iterable(fields.items()))
    pairs = fields.pairs if isinstance(fields, RepeatedFields) else fields.items()
    if not pairs:
        shown = name.decode("ascii", "replace")
        raise ValueError(f"its entry {shown} has no fields, and no command adds an entry without any")
    return tuple([word for pair in pairs for word in pair])


def _place(name: bytes) -> tuple[int, int]:
    """An id in its order: as text, 10-1 would come before 9-1."""
    ms, _, sequence = name.partition(b"-")
    return int(ms), int(sequence or 0)
