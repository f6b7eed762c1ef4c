"""Requests as bytes, and what is sent and awaited together.

A *burst* is what one write carries: the server executes it back to back. The logic of reading
(datatypes, `_fetch`) is written as plain generators that yield a `Burst` and are sent its `Answer`;
only `_connection` waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hiredis import ReplyError as ReplyError
from hiredis import pack_command

from ._resp import commands

Reply = Any
"""bytes, int, float, bool, None, list, dict or ReplyError, as hiredis makes it of RESP."""


class Burst(NamedTuple):
    """Packed commands, how many replies they will have, and whether the reply limit holds."""

    payload: bytes
    replies: int
    bounded: bool = True

    def __add__(self, other: Burst) -> Burst:  # type: ignore[override]
        return Burst(
            self.payload + other.payload, self.replies + other.replies, self.bounded and other.bounded
        )


class Answer(NamedTuple):
    """The replies to a burst, in order, and how many bytes they were."""

    replies: list[Reply]
    size: int


class ReplyTooBig(Exception):
    """A burst's replies passed the limit and were dropped; ask again in smaller steps."""


class Dropped(Exception):
    """The connection was given up because of another burst's replies; ask the same again."""


def each_after(word: bytes, burst: Burst) -> Burst:
    """The same commands with a command of one word before each: for every reply wanted come two.

    >>> each_after(b"ASKING", command(b"GET", b"k")).replies
    2
    """
    before, start, pieces = command(word).payload, 0, []
    payload = burst.payload
    for _ in range(burst.replies):
        end = _end_of_command(payload, start)
        pieces += [before, payload[start:end]]
        start = end
    return Burst(b"".join(pieces), 2 * burst.replies, burst.bounded)


def _end_of_command(payload: bytes, start: int) -> int:
    line = payload.index(b"\r\n", start)
    words, at = int(payload[start + 1 : line]), line + 2
    for _ in range(words):
        line = payload.index(b"\r\n", at)
        at = line + 2 + int(payload[at + 1 : line]) + 2
    return at


def command(*words: bytes | int, bounded: bool = True) -> Burst:
    """One command."""
    return Burst(pack_command(words), 1, bounded)  # type: ignore[arg-type]


def for_each(before: tuple[bytes, ...], keys: Iterable[bytes], after: tuple[bytes | int, ...] = ()) -> Burst:
    """One command a key, the same words before and after it."""
    keys = keys if isinstance(keys, list) else list(keys)
    words = len(before) + 1 + len(after)
    head = b"*%d\r\n%b" % (words, commands(b"", before, b""))
    return Burst(commands(head, keys, commands(b"", [_word(word) for word in after], b"")), len(keys))


def one_for_all(name: bytes, keys: Sequence[bytes]) -> Burst:
    """One command that takes all the keys."""
    return Burst(b"*%d\r\n%b" % (len(keys) + 1, commands(b"", [name, *keys], b"")), 1)


def joined(bursts: Iterable[Burst]) -> Burst:
    """Several bursts as one."""
    payloads, replies, bounded = zip(*bursts)
    return Burst(b"".join(payloads), sum(replies), all(bounded))


def _word(word: bytes | int) -> bytes:
    return word if isinstance(word, bytes) else b"%d" % word
