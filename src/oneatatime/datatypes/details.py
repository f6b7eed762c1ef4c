"""What values have beside their elements: of hashes when fields expire, of streams their groups.

Asked and read here for values of any size: of small ones at once, of big ones chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._record import Group, Pending, StreamDetails
from .._request import Burst, Reply, ReplyError, ReplyTooBig, command, joined
from ._datatype import Steps

MOST_PENDING = 1000
"""Pending entries in one reply."""

_GONE = -2


def is_unknown(reply: Reply) -> bool:
    """Whether a server says that it has no such command."""
    return isinstance(reply, ReplyError) and "unknown command" in str(reply)


def now_of(reply: Reply) -> int:
    """The server's clock in ms, of its reply to TIME."""
    seconds, micros = reply
    return int(seconds) * 1000 + int(micros) // 1000


# Hashes


def fields_expire(key: bytes, names: Sequence[bytes]) -> Burst:
    """Asks when these fields expire."""
    return command(b"HPEXPIRETIME", key, b"FIELDS", len(names), *names)


def expiring(names: Sequence[bytes], moments: Sequence[int]) -> dict[bytes, int]:
    """The fields that do, and when."""
    return {name: moment for name, moment in zip(names, moments) if moment >= 0}


def over(names: Sequence[bytes], moments: Sequence[int]) -> set[bytes]:
    """The fields that are gone by now."""
    return {name for name, moment in zip(names, moments) if moment == _GONE}


def with_expiry(steps: Steps, key: bytes) -> Steps:
    """Steps over a hash whose parts say when each field expires: (field, value, ms or None)."""
    out: list[Any] = []
    _, burst = next(steps)
    known = True
    while burst is not None:
        try:
            answer = yield out, burst
        except ReplyTooBig as surprise:
            out, (_, burst) = [], steps.throw(surprise)
            continue
        parts, burst = steps.send(answer)
        out = [(name, value, None) for name, value in parts]
        if parts and known:
            names = [name for name, _ in parts]
            moments = (yield [], _whatever(fields_expire(key, names))).replies[0]
            known = not is_unknown(moments)
            if known:
                out = _dated(parts, _whole(moments))
    yield out, None


def _dated(parts: list[Any], moments: list[int]) -> list[Any]:
    return [
        (name, value, moment if moment >= 0 else None)
        for (name, value), moment in zip(parts, moments)
        if moment != _GONE
    ]


# Streams


def stream_details(stream: Reply, groups: Reply) -> StreamDetails:
    """What XINFO STREAM and XINFO GROUPS say, still without consumers and pending entries."""
    said = told(stream)
    return StreamDetails(
        said[b"last-generated-id"],
        said.get(b"entries-added"),
        said.get(b"max-deleted-entry-id"),
        tuple([_group(told(group)) for group in groups]),
    )


def _group(said: dict[bytes, Any]) -> Group:
    return Group(said[b"name"], said[b"last-delivered-id"], said.get(b"entries-read"))


def pending_of(key: bytes, group: bytes, first: bytes, last: bytes) -> Burst:
    """Asks for the clock, and for the entries pending in a group from an id to another."""
    pending = command(b"XPENDING", key, group, first, last, MOST_PENDING)
    return joined([command(b"TIME"), pending])


def taken_pending(group: bytes, replies: Sequence[Reply]) -> list[Pending]:
    """The entries in the replies to that."""
    now, rows = now_of(_whole(replies[0])), _whole(replies[1])
    return [Pending(group, entry, consumer, now - idle, times) for entry, consumer, idle, times in rows]


def names_of(reply: Reply) -> list[bytes]:
    """The names that XINFO GROUPS or XINFO CONSUMERS tells."""
    return [told(one)[b"name"] for one in _whole(reply)]


def pending_count(groups: Reply) -> int:
    """How many entries are pending, as XINFO GROUPS tells of each group."""
    return sum([told(group)[b"pending"] for group in groups])


def told(reply: Reply) -> dict[bytes, Any]:
    """A reply of names and values: a map in RESP3, a flat list before."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))


def by_id(one: Any) -> tuple[int, int]:
    """The id of an entry or of what is pending, as numbers, which sort."""
    milliseconds, _, number = (one.id if isinstance(one, Pending) else one[0]).partition(b"-")
    return int(milliseconds), int(number or 0)


def with_pending(steps: Steps, key: bytes) -> Steps:
    """Steps over a stream whose parts have, among the entries, what is pending for its groups.

    Each is behind its entry, or in its place where that one is deleted.
    """
    groups = (yield [], command(b"XINFO", b"GROUPS", key, bounded=False)).replies[0]
    if isinstance(groups, ReplyError):
        raise groups
    names = names_of(groups)
    out: list[Any] = []
    start = b"-"
    _, burst = next(steps)
    while burst is not None:
        try:
            answer = yield out, burst
        except ReplyTooBig as surprise:
            out, (_, burst) = [], steps.throw(surprise)
            continue
        out, burst = steps.send(answer)
        if not names or not (out or burst is None):
            continue
        end = out[-1][0] if burst is not None else b"+"
        out = yield from _among(key, names, out, start, end)
        start = b"(" + end
    yield out, None


def _among(key: bytes, names: list[bytes], entries: list[Any], start: bytes, end: bytes) -> Any:
    """Entries with what is pending in their range; returns what has not been handed out on the way.

    A page of each group is held at a time, and handed out as far as all of them are known.
    """
    out: list[Any] = []
    while True:
        found: list[Pending] = []
        known: tuple[int, int] | None = None
        for name in names:
            replies = (yield out, _whatever(pending_of(key, name, start, end))).replies
            out = []
            if isinstance(replies[1], ReplyError) and str(replies[1]).startswith("NOGROUP"):
                continue  # deleted meanwhile
            some = taken_pending(name, replies)
            found += some
            if len(some) == MOST_PENDING:
                known = by_id(some[-1]) if known is None else min(known, by_id(some[-1]))
        out = sorted([*entries, *found], key=by_id)  # which leaves an entry before what is pending of it
        if known is None:
            return out
        entries = [one for one in out if by_id(one) > known and not isinstance(one, Pending)]
        out = [one for one in out if by_id(one) <= known]
        start = b"(%d-%d" % known


def _whatever(burst: Burst) -> Burst:
    """The same, whose replies may be of any size: there is no smaller one to ask for."""
    return burst._replace(bounded=False)


def _whole(reply: Reply) -> Any:
    if isinstance(reply, ReplyError):
        raise reply
    return reply
