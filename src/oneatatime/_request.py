"""Requests as bytes, and what is sent and awaited together.

A *burst* is what one write carries: the server executes it back to back. The logic of reading
(datatypes, `_fetch`) is written as plain generators that yield a `Burst` and are sent its `Answer`;
only `_connection` waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from hiredis import ReplyError as ReplyError
from hiredis import pack_command

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


def command(*words: bytes | int, bounded: bool = True) -> Burst:
    """One command."""
    return Burst(pack_command(words), 1, bounded)  # type: ignore[arg-type]


def for_each(before: tuple[bytes, ...], keys: Iterable[bytes], after: tuple[bytes | int, ...] = ()) -> Burst:
    """One command a key, the same words before and after it.

    The template costs a quarter of packing each command by itself.
    """
    head = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in before)
    tail = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in map(_word, after))
    frame = b"*%d\r\n%b$%%d\r\n%%b\r\n%b" % (
        len(before) + 1 + len(after),
        head.replace(b"%", b"%%"),
        tail.replace(b"%", b"%%"),
    )
    commands = [frame % (len(key), key) for key in keys]
    return Burst(b"".join(commands), len(commands))


def _word(word: bytes | int) -> bytes:
    return word if isinstance(word, bytes) else b"%d" % word
