"""Reading a big collection by HSCAN, SSCAN or ZSCAN, in steps sized by what the last one weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._request import Burst, Reply, ReplyError, ReplyTooBig, command, for_each
from .._resp import ARRAY
from ._datatype import Odd, Steps, odd_reply

FIRST_COUNT = 8
MOST_COUNT = 1000
"""Elements asked for at a time: about 0.3 ms of server time, whatever a chunk would have room for."""

_UNSAID = range(8, 11)  # the server's own COUNT is 10, and not saying it costs the server an eighth less


def scanned(name: bytes, key: bytes, chunk: int, elements: Callable[[list[Any]], list[Any]]) -> Steps:
    """Steps over a collection: every element that is there all along is in at least one of them."""
    cursor, count = b"0", FIRST_COUNT
    parts: list[Any] = []
    while True:
        try:
            answer = yield parts, command(name, key, cursor, b"COUNT", count, bounded=count > 1)
        except ReplyTooBig:
            parts, count = [], 1
            continue
        reply = answer.replies[0]
        if isinstance(reply, ReplyError):
            raise reply
        cursor, flat = reply
        parts = elements(flat)
        if cursor == b"0":
            yield parts, None
            return
        count = next_count(count, len(parts), answer.size, chunk)


def from_the_start(name: bytes, keys: Sequence[bytes], limit: int) -> Burst:
    """The beginning of each collection, of about `limit` elements: all of it where it has no more."""
    return for_each((name,), keys, (b"0",) if limit in _UNSAID else (b"0", b"COUNT", limit))


def next_count(count: int, got: int, size: int, chunk: int) -> int:
    """How many elements to ask for so that about `chunk` bytes come, grown at most fourfold a step."""
    fitting = chunk * max(got, 1) // max(size, 1)
    return max(1, min(fitting, count * 4, MOST_COUNT))


def odd_scan(reply: Reply) -> Odd | ReplyError:
    """Why a bounded HSCAN or SSCAN gave no value: an empty collection and no key are the same thing."""
    if reply.__class__ is not ARRAY or len(reply) != 2:
        return odd_reply(reply)
    return Odd.GONE if reply[0] == b"0" else Odd.MORE
