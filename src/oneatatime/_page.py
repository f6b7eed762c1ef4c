"""The rows of one page, from key to value: rounds in which every unsettled row is asked about.

A row waits in exactly one list: for its type, for its value, for another look because it seemed
empty, or to be measured because it is bigger than what was asked for. One round is one burst about
all of them, and each reply settles its row, moves it to another list, or finds it heavy. Rows of one
shape move together, because a step for many keys costs little more than a step for one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from ._beside import Beside
from ._connection import server_error
from ._errors import Error, ServerFailure
from ._many_strings import MOVED, ManyStrings, is_about_key
from ._metadata import ask, column, command_of
from ._request import Answer, Burst, ReplyError, ReplyTooBig, for_each, joined
from ._resp import alike, lengths
from ._shape import SMALL_VALUE, Shape
from .datatypes import STRING, Datatype, Odd, OddRows, datatype

Bursts = Generator[Burst, Answer, None]
Ask = tuple[Burst, Callable[[list[Any]], None]]
Rows = Sequence[int]
Waiting = dict["tuple[Datatype, Shape]", "list[int]"]

GONE = "none"
"""TYPE's name for a key that is not there."""

_MOST_ROUNDS = 100  # a key may be another at each look for a while, but not for ever
_CAUTIOUS_LIMIT = 2


class Heavy(NamedTuple):
    """A value too big for a round: what it is, and the bytes it takes."""

    kind: Datatype
    shape: Shape
    size: int


class Page:
    """Keys on their way to their values.

    `types` holds, of each settled row, the name of its type, GONE, or "" where its type is not wanted;
    `heavy` the rows that are too big for a round; `size` the bytes of
    replies not yet handed on, `received` of all; `elements` of all collections; `kinds` the types met.
    `wanted` gives what values of a type are read by, None where they are not wanted.
    A value of over `most_bytes` is heavy even when it has come. `raw`: the values are still to be made.
    `forbidden` are rows that the user may not read, `strays` those that have moved to another node.
    """

    def __init__(
        self,
        keys: list[bytes],
        groups: Sequence[tuple[Shape, Rows]],
        *,
        wanted: Callable[[Datatype], Datatype | None],
        roomy: bool,
        most_bytes: int,
        node: str,
        slotted: bool = False,
    ) -> None:
        self.keys = keys
        self.groups = groups
        self.types = [""] * len(keys)
        self.values: list[Any] = [None] * len(keys)
        self.kinds: set[Datatype] = set()
        self.heavy: dict[int, Heavy] = {}
        self.forbidden: dict[int, Error] = {}
        self.strays: dict[int, str] = {}
        self.metadata: dict[str, list[Any]] = {}
        self.beside: Beside | None = None
        self.raw = True
        self.size = 0
        self.received = 0
        self.elements = 0
        self._wanted = wanted
        self._roomy = roomy
        self.most_bytes = most_bytes
        self._node = node
        self._slotted = slotted
        self._one_by_one = False  # a command for many keys failed as a whole
        self._untyped: dict[Shape, list[int]] = defaultdict(list)
        self._unread: Waiting = defaultdict(list)
        self._unsure: Waiting = defaultdict(list)
        self._unmeasured: Waiting = defaultdict(list)

    def count(self, answer: Answer) -> None:
        """Adds up what answers cost."""
        self.size += answer.size
        self.received += answer.size

    def strings(self, keys: list[bytes]) -> ManyStrings:
        """Whole strings, by as few commands as can be."""
        return ManyStrings(keys, self._slotted, self._refused_many)

    def _refused_many(self) -> None:
        self._one_by_one = True

    # Where rows begin

    def ask_type(self, shape: Shape, rows: Rows) -> None:
        self._untyped[shape] += rows

    def plan(self, kind: Datatype, shape: Shape, rows: Rows, *, proven: bool = False) -> None:
        """Rows whose type is known are read at once, or measured first where a read would have no bound.

        A type that was only guessed is proven by the read. MEMORY USAGE would answer for any type, so a
        guess that leads to it is asked for by TYPE before.
        """
        size = shape.size(kind)
        if not size.big and (kind.bounded or size.proven):
            self._unread[kind, shape] += rows
        elif proven or kind is STRING:  # STRLEN fails on another type
            self._unmeasured[kind, shape] += rows
        else:
            self._untyped[shape] += rows

    def take(
        self,
        kind: Datatype,
        shape: Shape,
        rows: Rows,
        values: list[Any],
        odd: OddRows,
        *,
        made: bool = False,
    ) -> None:
        """Takes over what a read of some rows gave: what values are made of, and reasons to look again."""
        if odd:
            for place, reason in odd.items():
                self._look_again(rows[place], kind, shape, reason)
            good = [place for place in range(len(rows)) if place not in odd]
            rows, values = [rows[place] for place in good], [values[place] for place in good]
            if not rows:
                return
        longest, elements = extent(kind, values, made=made)
        self.elements += elements
        shape.saw(kind, len(rows))
        shape.size(kind).measured(kind, longest, len(rows))
        if not (made or kind.plain) and (self.size > self.most_bytes or not self.raw):
            self.make()
            values, made = list(map(kind.made, values)), True
        types, all_values = self.types, self.values
        for row, name, value in zip(rows, self._names(kind, values), values):
            types[row] = name
            all_values[row] = value
        self.kinds.add(kind)
        if self.beside is not None:
            self.beside.read(kind, rows)
        if self.size > self.most_bytes and kind.divisible:
            for row, value in zip(rows, values):
                if (weight := kind.weight(value)) > self.most_bytes:
                    self.heavy[row] = Heavy(kind, shape, weight)

    def _names(self, kind: Datatype, values: list[Any]) -> Iterable[str]:
        """The type of each value; "" for those that are not wanted."""
        if not kind.mixed:
            return repeat(kind.name)
        names = [value.type for value in values]
        wanted = {name: name if self._wanted(datatype(name)) else "" for name in set(names)}
        return map(wanted.__getitem__, names)

    def make(self) -> None:
        """Makes the values that have come so far; those that come now are made at once."""
        if self.raw:
            self.raw = False
            for row, name in enumerate(self.types):
                if name not in ("", GONE):
                    self.values[row] = datatype(name).made(self.values[row])

    # Rounds

    def rounds(self, metadata: Sequence[str] = ()) -> Bursts:
        """Asks until every row is settled or heavy; the first burst asks for `metadata` too."""
        looks = 0
        while looks < _MOST_ROUNDS:
            asks = [*(self._metadata_ask(name) for name in metadata), *self._asks()]
            looks += bool(asks)  # what is asked beside values comes to its end, however long it is
            if self.beside is not None:
                asks = self.beside.around(asks, self._being_read())
            if not asks:
                return
            try:
                answer = yield joined(burst for burst, _ in asks)
            except ReplyTooBig:
                if self.beside is not None and not self._being_read():  # it was of what is beside values
                    self.beside.surprised()
                yield from self.one_by_one()
                continue
            metadata = ()
            self._untyped, self._unread = defaultdict(list), defaultdict(list)
            self._unsure, self._unmeasured = defaultdict(list), defaultdict(list)
            self._hand_out(asks, answer)
        row = self._unsettled()
        if row is not None:
            text = f"the key changed its type in each of {_MOST_ROUNDS} looks at it"
            raise ServerFailure(text, node=self._node, key=self.keys[row])

    def types_only(self) -> Bursts:
        """Settles every row by its type alone."""
        answer = yield for_each((b"TYPE",), self.keys)
        replies, told = self._types_told(answer.replies, range(len(self.keys)))
        for reply, places in alike(replies, True).items():
            name = str(reply, "utf-8", "replace")
            if name == GONE or self._wanted(datatype(name)):
                for place in places:
                    self.types[told[place]] = name

    def one_by_one(self) -> Bursts:
        """After a surprise: each row in a burst of its own, so that the surprising one shows itself."""
        for shape, _ in self.groups:
            shape.surprised()
        unread, self._unread = self._unread, defaultdict(list)
        for (kind, shape), rows in unread.items():
            for row in rows:
                try:
                    answer = yield kind.ask([self.keys[row]], _CAUTIOUS_LIMIT)
                except ReplyTooBig:
                    self._unmeasured[kind, shape].append(row)
                    continue
                odd: OddRows = {}
                self.count(answer)
                self.take(kind, shape, [row], kind.take(answer.replies, _CAUTIOUS_LIMIT, odd), odd)
        unsure, self._unsure = self._unsure, defaultdict(list)
        for (kind, shape), rows in unsure.items():  # empty no longer
            self._unmeasured[kind, shape] += rows

    def _hand_out(self, asks: list[Ask], answer: Answer) -> None:
        self.count(answer)
        start = 0
        for burst, take in asks:
            take(answer.replies[start : start + burst.replies])
            start += burst.replies

    def _unsettled(self) -> int | None:
        waiting = [self._untyped, self._unread, self._unsure, self._unmeasured]
        return next((row for lists in waiting for rows in lists.values() for row in rows), None)  # type: ignore[attr-defined]

    def _look_again(self, row: int, kind: Datatype, shape: Shape, reason: Odd | ReplyError) -> None:
        if reason is Odd.MORE:
            self._unmeasured[kind, shape].append(row)
        elif reason is Odd.EMPTY:
            self._unsure[kind, shape].append(row)
        elif reason is Odd.GONE:
            self.types[row] = GONE
        elif reason is Odd.UNSURE or str(reason).startswith("WRONGTYPE"):
            self._untyped[shape].append(row)
        else:
            self.refuse(reason, row, kind.command)

    def outgrown(self, row: int, size: int) -> None:
        """What a value has beside its elements is too much to hold: it is read part by part."""
        shape = next(shape for shape, rows in self.groups if row in rows)
        self.heavy[row] = Heavy(datatype(self.types[row]), shape, size)

    def gone(self, row: int) -> None:
        """There is no such key by now: what came of it is not its value any more."""
        self.types[row] = GONE
        self.heavy.pop(row, None)

    def refuse(self, reply: Any, row: int, command: str) -> None:
        """A key that has moved, or may not be read, is left out and told. Any other error is raised."""
        text = str(reply)
        if is_about_key(text):
            self.forbidden[row] = self._refused(reply, row, command)
        elif self._slotted and text.startswith(MOVED):
            self.strays[row] = text
        else:
            raise self._refused(reply, row, command)
        self.types[row] = ""

    def _refused(self, reply: Any, row: int, command: str) -> Error:
        return server_error(reply, node=self._node, key=self.keys[row], command=command)

    def _types_told(self, replies: list[Any], rows: Rows) -> tuple[list[bytes], Rows]:
        """The names of types among replies to TYPE, and the rows they are of."""
        if {bytes}.issuperset(map(type, replies)):
            return replies, rows
        told = []
        for row, reply in zip(rows, replies):
            if isinstance(reply, ReplyError):
                self.refuse(reply, row, "TYPE")
            elif reply.__class__ is not bytes:
                raise self._refused(reply, row, "TYPE")
            else:
                told.append((reply, row))
        return [name for name, _ in told], [row for _, row in told]

    # What a round asks

    def _asks(self) -> list[Ask]:
        asks = [self._type_ask(self._untyped)] if self._untyped else []
        asks += [self._read_ask(kind, shape, rows) for (kind, shape), rows in self._unread.items()]
        asks += [self._confirm_ask(kind, shape, rows) for (kind, shape), rows in self._unsure.items()]
        asks += [self._measure_ask(kind, shape, rows) for (kind, shape), rows in self._unmeasured.items()]
        return asks

    def _being_read(self) -> list[int]:
        """The rows whose values this round asks for."""
        return [row for waiting in (self._unread, self._unsure) for rows in waiting.values() for row in rows]

    def _keys(self, rows: Iterable[int]) -> list[bytes]:
        keys = self.keys
        return [keys[row] for row in rows]

    def _type_ask(self, untyped: dict[Shape, list[int]]) -> Ask:
        rows = [row for of_shape in untyped.values() for row in of_shape]

        def take(replies: list[Any]) -> None:
            start = 0
            for shape, of_shape in untyped.items():
                names, told = self._types_told(replies[start : start + len(of_shape)], of_shape)
                start += len(of_shape)
                found = alike(names, True).items()
                self._typed(
                    shape,
                    {str(name, "utf-8", "replace"): [told[at] for at in places] for name, places in found},
                )

        return for_each((b"TYPE",), self._keys(rows)), take

    def _typed(self, shape: Shape, found: dict[str, list[int]]) -> None:
        for row in found.pop(GONE, ()):
            self.types[row] = GONE
        for name, rows in found.items():
            kind = datatype(name)
            if read_by := self._wanted(kind):
                self.plan(read_by, shape, rows, proven=True)
            else:
                shape.saw(kind, len(rows))

    def _read_ask(self, kind: Datatype, shape: Shape, rows: list[int]) -> Ask:
        keys, size = self._keys(rows), shape.size(kind)
        limit = size.limit
        many = kind is STRING and self._roomy and not size.careful and not self._one_by_one
        strings = self.strings(keys) if many else None

        def take(replies: list[Any]) -> None:
            odd: OddRows = {}
            values = kind.take(replies, limit, odd) if strings is None else strings.take(replies, odd)
            self.take(kind, shape, rows, values, odd)

        return kind.ask(keys, limit) if strings is None else strings.ask(), take

    def _confirm_ask(self, kind: Datatype, shape: Shape, rows: list[int]) -> Ask:
        def take(replies: list[Any]) -> None:
            odd: OddRows = {}
            self.take(kind, shape, rows, kind.take_confirmed(replies, odd), odd)

        return kind.confirm(self._keys(rows)), take

    def _measure_ask(self, kind: Datatype, shape: Shape, rows: list[int]) -> Ask:
        def take(replies: list[Any]) -> None:
            for row, size in zip(rows, replies):
                if size.__class__ is int and size:
                    self.heavy[row] = Heavy(kind, shape, size)
                    shape.size(kind).more += size > SMALL_VALUE
                else:  # nil or 0: it is gone, or something else by now
                    reason = size if isinstance(size, ReplyError) else Odd.UNSURE
                    self._look_again(row, kind, shape, reason)

        return kind.measure(self._keys(rows)), take

    def _metadata_ask(self, name: str) -> Ask:
        def take(replies: list[Any]) -> None:
            refused: dict[int, ReplyError] = {}
            self.metadata[name] = column(name, replies, refused)
            for row, reply in refused.items():
                self.refuse(reply, row, command_of(name))

        return ask(name, self.keys), take


def extent(kind: Datatype, values: list[Any], *, made: bool = False) -> tuple[int, int]:
    """The length of the longest of some values, and how many elements they have together."""
    if not kind.bounded:
        return 0, 0
    longest, all_of_them = lengths(values)
    if kind is STRING:
        return longest, 0
    each = 1 if made else kind.words
    return longest // each, all_of_them // each
