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
from ._resp import alike
from .datatypes import SMALL, STRING, Datatype

FIRST_LIMIT = 8
MOST_ELEMENTS = 1000
"""Elements of a collection asked for at once: about a third of a millisecond of server time."""

SMALL_VALUE = 4 * KiB
"""Bytes up to which a value that was measured need not have been."""

_MOST_SHAPES = 4096
_UNIFORM_AFTER = 256  # keys of one type in a row
_MIXED_SHARE = 0.03  # wrong guesses in a page from which on shapes are worth their while
_PAGE_BYTES = 48 * KiB
WRITTEN_AT_ONCE = 64 * KiB
"""Bytes of replies that a server writes before it looks after others."""
_LEAST_PAGE = 32  # keys: below that the cost of a burst weighs more
LONGEST_BURST = 0.001
"""Seconds of server time."""

_SECONDS_PER_KEY, _SECONDS_PER_ELEMENT = 0.000_001, 0.000_000_25
SECONDS_PER_BUCKET = 0.000_000_2
"""Of SCAN, for each key that COUNT asks for."""
_PROVEN = 32  # values to have seen before trusting them to be small
_FIRST_WORD = re.compile(rb"[^:/|.\-_]*[:/|.\-_]?")
FIRST_BYTES = 16.0 * KiB
"""What a key's replies are taken to weigh before any was seen."""


class Size:
    """How big the values of one type were, in keys of one shape.

    `limit` is how many elements of a collection are asked for: twice the most seen, so that a surprise
    stays small.
    """

    __slots__ = ("limit", "long", "more", "seen")

    def __init__(self) -> None:
        self.limit = FIRST_LIMIT
        self.long = False
        self.seen = 0
        self.more = 0

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

    def measured(self, kind: Datatype, longest: int, values: int) -> None:
        """Some values were read, the longest of them this long."""
        self.seen += values
        if kind is STRING:
            self.long = self.long or longest >= SMALL
        elif 2 * longest > self.limit:
            self.limit = min(MOST_ELEMENTS, 2 * longest)

    def surprised(self) -> None:
        """A burst with such values passed the limit on replies."""
        self.long = True
        self.limit = FIRST_LIMIT


class Shape:
    """What the keys of one shape were: their type, if they agree, and how big of each type."""

    __slots__ = ("_sizes", "last", "right", "wrong")

    def __init__(self, expected: Datatype | None = None) -> None:
        self.last = expected
        self.right = 0
        self.wrong = 0
        self._sizes: dict[Datatype, Size] = {}

    @property
    def guess(self) -> Datatype | None:
        """The type to expect, or None where too many guesses have been wrong."""
        return self.last if self.wrong * 4 <= self.right else None

    def size(self, kind: Datatype) -> Size:
        """How big the values of a type were in keys of this shape."""
        return self._sizes.get(kind) or self._sizes.setdefault(kind, Size())

    def saw(self, kind: Datatype, keys: int) -> None:
        """Some keys of this shape were of this type."""
        if kind is self.last or self.last is None:
            self.right += keys
        else:
            self.wrong += keys
        self.last = kind

    def surprised(self) -> None:
        for size in self._sizes.values():
            size.surprised()


class Shapes:
    """The shapes of one stream, shared by its workers.

    `uniform` is the one shape of all keys, while all have been of one type. `bytes_per_key` and
    `elements_per_key` are what a key's replies held lately.
    """

    def __init__(self, expected: Datatype | None = None) -> None:
        self.uniform = Shape(expected) if expected is not None else None
        self.bytes_per_key = FIRST_BYTES
        self.elements_per_key = 0.0
        self._known: dict[bytes, Shape] = {}
        self._by_first_word: dict[bytes, Shape] = {}
        self._last: Datatype | None = None
        self._in_a_row = 0

    def groups(self, keys: Sequence[bytes]) -> list[tuple[Shape, list[int]]]:
        """The rows of a page of keys, shape by shape.

        A key that nothing is like has an id that is no number (`session:af3c`): its first word counts.
        """
        known = self._known
        alone: list[int] = []
        groups: list[tuple[Shape, list[int]]] = []
        for name, rows in alike(keys, False).items():
            shape = known.get(name)
            if shape is None:
                if len(rows) == 1 or len(known) >= _MOST_SHAPES:
                    alone += rows
                    continue
                shape = known[name] = Shape()
            groups.append((shape, rows))
        words = self._by_first_word
        firsts = [_FIRST_WORD.match(keys[row])[0] for row in alone]  # type: ignore[index]
        for name, places in alike(firsts, True).items():
            rows = [alone[place] for place in places]
            shape = words.get(name) or words.setdefault(name if len(words) < _MOST_SHAPES else b"", Shape())
            groups.append((shape, rows))
        return groups

    @property
    def work_per_key(self) -> float:
        """Seconds of server time that reading a key takes, about: enough to know what is much."""
        return _SECONDS_PER_KEY + _SECONDS_PER_ELEMENT * self.elements_per_key

    def fitting(self, burst: int) -> int:
        """How many keys to read at once: about `burst` bytes come, and nobody waits over a millisecond."""
        return max(1, int(min(burst / self.bytes_per_key, LONGEST_BURST / self.work_per_key)))

    def page(self, most: int) -> int:
        """How many keys make a page: their replies fit what a server writes to a socket in one go.

        A longer reply is written in pieces, and between them the server works on other bursts while its
        reader waits: hashes came at 0.72 of a busy server with 70 kB a page, at 0.95 with 48 KiB.
        """
        at_once = max(_LEAST_PAGE, int(_PAGE_BYTES / self.bytes_per_key))
        return max(1, min(most, at_once, int(LONGEST_BURST / self.work_per_key)))

    def weighed(self, size: int, elements: int, keys: int) -> None:
        """What the replies of some keys were. Growth counts at once, shrinking by halves."""
        weight, elements_each = size / keys + 1, elements / keys
        self.bytes_per_key = max(weight, (self.bytes_per_key + weight) / 2)
        self.elements_per_key = max(elements_each, (self.elements_per_key + elements_each) / 2)

    def was_uniform(self, keys: int, wrong: int) -> None:
        """So many keys of a page read as of one type were of another: gives up one shape for all."""
        if wrong > keys * _MIXED_SHARE:
            self.uniform, self._in_a_row = None, 0

    def was_mixed(self, kinds: Iterable[Datatype], keys: int, shapes: Iterable[Shape]) -> None:
        """The types in a page: finds that one shape would do for all."""
        found = set(kinds)
        if len(found) != 1:
            self._in_a_row = 0 if found else self._in_a_row
            return
        (kind,) = found
        self._in_a_row = keys + (self._in_a_row if kind is self._last else 0)
        self._last = kind
        if self._in_a_row >= _UNIFORM_AFTER:
            self.uniform = Shape(kind)
            size = self.uniform.size(kind)
            for one in [shape.size(kind) for shape in shapes]:
                size.limit = max(size.limit, one.limit)
                size.long = size.long or one.long
                size.seen += one.seen
                size.more += one.more
