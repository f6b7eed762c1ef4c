"""Which keys a pattern means: what SCAN's MATCH does at the server, done here.

    *        any bytes, or none            [abc]  [a-c]  [^a]    one byte of these, or of all but these
    ?        any one byte                  \\x                   the byte x itself, in brackets too

And what no manual says. Brackets that nobody closes end with the pattern. The first `]` closes, so `[]` is
no byte and `[^]` is any. A range may run backwards, and ends at whatever byte comes next: `[a-]` is not
closed, and from `]` to `a`. Bytes from 128 on are negative in ranges, as they are to a server that was
compiled where C's characters are signed (x86, macOS). `**` is `*`, except that it does not match the key
without a name. A pattern of more than a thousand stars before other things matches nothing.

A pattern becomes a regular expression that never goes back: where a piece between two stars can be at
several places, the first is as good as any.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import methodcaller

_MOST_STARS = 1000
_ANY = frozenset(range(256))


def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """Tells of a key whether the pattern means it."""
    if pattern == b"*":
        return methodcaller("startswith", b"")
    first, *others = pieces = _pieces(pattern)
    if first and others == [[]] and all(len(meant) == 1 for meant in first):  # quicker, and the usual one
        return methodcaller("startswith", bytes(byte for meant in first for byte in meant))
    match = re.compile(_expression(pieces), re.DOTALL).match
    return lambda key: match(key) is not None


def _pieces(pattern: bytes) -> list[list[frozenset[int]]]:
    """What stands between the stars: of each, the bytes that each of its places can be."""
    pieces: list[list[frozenset[int]]] = [[]]
    at, end = 0, len(pattern)
    while at < end:
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            if len(pieces) == 1 or pieces[-1]:
                pieces.append([])
        elif byte == b"?":
            pieces[-1].append(_ANY)
        elif byte == b"[":
            bytes_meant, at = _bracket(pattern, at)
            pieces[-1].append(bytes_meant)
        else:
            if byte == b"\\" and at < end:
                at += 1
            pieces[-1].append(frozenset({pattern[at - 1]}))
    return pieces


def _bracket(pattern: bytes, at: int) -> tuple[frozenset[int], int]:
    """The bytes that brackets mean, and where they end; `at` is behind the one that opens them."""
    meant: set[int] = set()
    end = len(pattern)
    negated = pattern[at : at + 1] == b"^"
    at += negated
    while at < end and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and end - at >= 2:
            meant.add(pattern[at + 1])
            at += 2
        elif end - at >= 3 and pattern[at + 1] == ord("-"):
            first, last = sorted((_signed(pattern[at]), _signed(pattern[at + 2])))
            meant.update(number & 255 for number in range(first, last + 1))
            at += 3
        else:
            meant.add(pattern[at])
            at += 1
    return _ANY - meant if negated else frozenset(meant), min(at + 1, end)


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _expression(pieces: list[list[frozenset[int]]]) -> bytes:
    """The regular expression of what stands between stars. `(?=(?P<g>...))(?P=g)` is what never goes back."""
    first, *others = [b"".join(map(_one_of, piece)) for piece in pieces]
    if not others:
        return first + rb"\Z"
    if first == others[0] == b"":
        return b"."  # stars alone
    *between, last = others
    if len(between) + bool(last) > _MOST_STARS:
        return b"(?!)"
    found = [first]
    for number, piece in enumerate(between):
        found.append(rb"(?=(?P<g%d>.*?%b))(?P=g%d)" % (number, piece, number))
    if last:
        found.append(rb".{%d,}\Z(?<=%b)" % (len(pieces[-1]), last))
    return b"".join(found)


def _one_of(meant: frozenset[int]) -> bytes:
    if meant == _ANY:
        return b"."
    if not meant:
        return b"(?!)."
    return b"[%b]" % b"".join(b"\\x%02x" % byte for byte in sorted(meant))
