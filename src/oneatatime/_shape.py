"""What keys of a shape have held so far: the guess that saves asking TYPE and length for every key.

Every extra command a key halves the speed, so the type of a key is guessed and the read itself
proves the guess. Real keyspaces name types by prefix (`user:17`, `session:af3c`): the shape of a key
is what remains of it without its digits. While a whole database holds one type, not even that is
computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ._options import KiB
from .datatypes import SMALL, STRING, Datatype

FIRST_LIMIT = 16
MOST_ELEMENTS = 1000
"""Elements of a collection asked for at once: about a third of a millisecond of server time."""

_MOST_SHAPES = 4096
_UNIFORM_AFTER = 256  # keys of one type in a row
_MIXED_SHARE = 0.03  # wrong guesses in a page from which on shapes are worth their while
_PAGE_BYTES = 40 * KiB
_LEAST_PAGE = 32  # keys: below that the cost of a burst weighs more
_PROVEN = 32  # values of a shape to have seen before trusting it
_FIRST_WORD = re.compile(rb"[^:/|.\-_]*[:/|.\-_]?")
FIRST_BYTES = 16.0 * KiB
"""Bytes a key's replies are taken to weigh before any was seen."""


class Shape:
    """What the keys of one shape were: their type, if they agree, and how big.

    `limit` is how many elements of a collection are asked for: twice the most seen, so that a surprise
    stays small.
    """

    __slots__ = ("datatype", "limit", "long", "more", "right", "seen", "wrong")

    def __init__(self, expected: Datatype | None = None) -> None:
        self.datatype = expected
        self.limit = FIRST_LIMIT
        self.long = False
        self.right = 0
        self.wrong = 0
        self.seen = 0
        self.more = 0

    @property
    def guess(self) -> Datatype | None:
        """The type to expect, or None where too many guesses have been wrong."""
        return self.datatype if self.wrong * 4 <= self.right else None

    @property
    def big(self) -> bool:
        """Most values had to be measured, so the next one is measured at once."""
        return self.more > _PROVEN // 4 and self.more * 2 > self.seen

    @property
    def proven(self) -> bool:
        """Enough values have been small to ask for one without a bound."""
        return self.seen >= _PROVEN and not self.more

    @property
    def careful(self) -> bool:
        """Strings are asked for with a bound on each."""
        return self.long or self.seen < _PROVEN

    def expect(self, kind: Datatype) -> None:
        """A first key of this shape is of this type."""
        if self.datatype is None:
            self.datatype = kind

    def saw(self, kind: Datatype) -> None:
        """A key of this shape was of this type."""
        if kind is self.datatype:
            self.right += 1
        else:
            self.wrong += 1
            self.datatype, self.limit, self.long, self.seen, self.more = kind, FIRST_LIMIT, False, 0, 0

    def measured(self, kind: Datatype, length: int, keys: int = 1) -> None:
        """Some values of this shape were read, the longest of them this long."""
        if kind is not self.datatype:
            return
        self.seen += keys
        if kind is STRING:
            self.long = self.long or length >= SMALL
        elif 2 * length > self.limit:
            self.limit = min(MOST_ELEMENTS, 2 * length)

    def was_more(self) -> None:
        """A value was bigger than what was asked for."""
        self.more += 1

    def surprised(self) -> None:
        """A burst with keys of this shape passed the limit on replies."""
        self.long = True
        self.limit = FIRST_LIMIT


class Shapes:
    """The shapes of one stream, shared by its workers.

    `uniform` is the one shape of all keys, while all have been of one type. `bytes_per_key` is what a
    key's replies weighed lately.
    """

    def __init__(self, expected: Datatype | None = None) -> None:
        self.uniform = Shape(expected) if expected is not None else None
        self.bytes_per_key = FIRST_BYTES
        self._by_digits: dict[bytes, Shape] = {}
        self._by_prefix: dict[bytes, Shape] = {}
        self._last: object = None
        self._in_a_row = 0

    def of(self, keys: Iterable[bytes]) -> list[Shape]:
        """The shape of each key."""
        known = self._by_digits
        if len(known) < _MOST_SHAPES:
            return [
                known.get(rest) or known.setdefault(rest, Shape())
                for rest in [key.translate(None, b"0123456789") for key in keys]
            ]
        return [known.get(key.translate(None, b"0123456789")) or self._by_first_word(key) for key in keys]

    def _by_first_word(self, key: bytes) -> Shape:
        """Where ids are no numbers every key would be a shape of its own: only the first word counts."""
        found = _FIRST_WORD.match(key)
        word = found[0] if found and len(self._by_prefix) < _MOST_SHAPES else b""
        return self._by_prefix.get(word) or self._by_prefix.setdefault(word, Shape())

    def fitting(self, burst: int) -> int:
        """How many keys to read at once, so that about `burst` bytes come."""
        return max(1, int(burst / self.bytes_per_key))

    def page(self, most: int) -> int:
        """How many keys make a page: their replies fit what a server writes to a socket in one go.

        A longer reply is written in pieces, and between them the server works on other bursts while its
        reader waits: hashes came at 0.72 of a busy server with 70 kB a page, at 0.92 with 40 kB.
        """
        return max(min(_LEAST_PAGE, most), min(most, int(_PAGE_BYTES / self.bytes_per_key)))

    def weighed(self, size: int, keys: int) -> None:
        """The replies of some keys weighed this much. Growth counts at once, shrinking by halves."""
        now = size / keys + 1
        self.bytes_per_key = max(now, (self.bytes_per_key + now) / 2)

    def learn(self, shapes: Sequence[Shape], kinds: Sequence[object], expected: Datatype | None) -> None:
        """What a page turned out to be: gives up one shape for all, or finds that there is one."""
        if expected is not None:
            wrong = sum(1 for kind in kinds if isinstance(kind, Datatype) and kind is not expected)
            if wrong > len(kinds) * _MIXED_SHARE:
                self.uniform, self._in_a_row = None, 0
            return
        for shape, kind in zip(shapes, kinds):
            if not isinstance(kind, Datatype):
                continue
            shape.saw(kind)
            if kind is self._last:
                self._in_a_row += 1
            else:
                self._last, self._in_a_row = kind, 1
        if self._in_a_row >= _UNIFORM_AFTER and isinstance(self._last, Datatype):
            self.uniform = Shape(self._last)
            self.uniform.limit = max(shape.limit for shape in shapes)
            self.uniform.long = any(shape.long for shape in shapes)
            self.uniform.seen = sum(shape.seen for shape in set(shapes))
