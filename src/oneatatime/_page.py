"""The rows of one page, from key to value: rounds in which every unsettled row is asked about.

A row waits in exactly one list: for its type, for its value, for another look because it seemed
empty, or to be measured because it is bigger than what was asked for. One round is one burst about
all of them, and each reply settles its row, moves it to another list, or finds it heavy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final

from ._connection import server_error
from ._errors import ServerFailure
from ._options import ATOMIC
from ._request import Answer, Burst, ReplyError, ReplyTooBig, for_each
from ._shape import Shape
from .datatypes import STRING, Datatype, Odd, OddRows, datatype

Bursts = Generator[Burst, Answer, None]
Ask = tuple[Burst, Callable[[list[Any]], None]]

_MOST_ROUNDS = 12
_CAUTIOUS_LIMIT = 2


class _Gone:
    """In place of a datatype: there was no such key."""

    name: Final = "none"


GONE: Final = _Gone()


class Page:
    """Keys on their way to their values.

    `kinds` holds, of each settled row, its datatype, GONE, or None where its type is not wanted; `heavy`
    the rows that are too big for a round, with their datatype and bytes; `size` the bytes of all replies.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        shapes: Sequence[Shape],
        *,
        wanted: Callable[[Datatype], bool],
        roomy: bool,
        node: str,
    ) -> None:
        self.keys = keys
        self.shapes = shapes
        self.kinds: list[Datatype | _Gone | None] = [None] * len(keys)
        self.values: list[Any] = [None] * len(keys)
        self.heavy: dict[int, tuple[Datatype, int]] = {}
        self.metadata: dict[str, list[Any]] = {}
        self.size = 0
        self._wanted = wanted
        self._roomy = roomy
        self._node = node
        self._untyped: list[int] = []
        self._unread: dict[Datatype, list[int]] = defaultdict(list)
        self._unsure: dict[Datatype, list[int]] = defaultdict(list)
        self._unmeasured: dict[Datatype, list[int]] = defaultdict(list)

    # Where rows begin

    def ask_type(self, row: int) -> None:
        self._untyped.append(row)

    def plan(self, row: int, kind: Datatype) -> None:
        """A row whose type is known is read at once, or measured first where a read would have no bound."""
        shape = self.shapes[row]
        if shape.big or not (kind.bounded or shape.proven):
            self._unmeasured[kind].append(row)
        else:
            self._unread[kind].append(row)

    def take(self, kind: Datatype, rows: Sequence[int], values: list[Any], odd: OddRows) -> None:
        """Takes over what a read of some rows gave: values, and reasons to look again."""
        for place, row in enumerate(rows):
            if place in odd:
                self._look_again(row, kind, odd[place])
                continue
            value = values[place]
            self.kinds[row], self.values[row] = kind, value
            self.shapes[row].measured(kind, len(value) if kind.bounded else 0)

    # Rounds

    def rounds(self, metadata: Sequence[str] = ()) -> Bursts:
        """Asks until every row is settled or heavy; the first burst asks for `metadata` too."""
        for _ in range(_MOST_ROUNDS):
            asks = [*self._metadata_asks(metadata), *self._asks()]
            if not asks:
                return
            try:
                answer = yield joined(burst for burst, _ in asks)
            except ReplyTooBig:
                yield from self.one_by_one()
                continue
            metadata = ()
            self._untyped = []
            self._unread, self._unsure, self._unmeasured = (
                defaultdict(list),
                defaultdict(list),
                defaultdict(list),
            )
            self._hand_out(asks, answer)
        row = self._unsettled()
        if row is not None:
            text = f"the key changed its type in each of {_MOST_ROUNDS} looks at it"
            raise ServerFailure(text, node=self._node, key=self.keys[row])

    def types(self) -> Bursts:
        """Settles every row by its type alone."""
        ask = for_each((b"TYPE",), self.keys)
        for row, reply in enumerate((yield ask).replies):
            if reply.__class__ is not bytes:
                raise self._refused(reply, row, "TYPE")
            kind = datatype(reply.decode())
            if reply == b"none":
                self.kinds[row] = GONE
            elif self._wanted(kind):
                self.kinds[row] = kind

    def one_by_one(self) -> Bursts:
        """After a surprise: each row in a burst of its own, so that the surprising one shows itself."""
        for shape in self.shapes:
            shape.surprised()
        unread, self._unread = self._unread, defaultdict(list)
        for kind, rows in unread.items():
            for row in rows:
                try:
                    answer = yield kind.ask([self.keys[row]], _CAUTIOUS_LIMIT)
                except ReplyTooBig:
                    self._unmeasured[kind].append(row)
                    continue
                odd: OddRows = {}
                self.size += answer.size
                self.take(kind, [row], kind.take(answer.replies, _CAUTIOUS_LIMIT, odd), odd)

    def _hand_out(self, asks: list[Ask], answer: Answer) -> None:
        self.size += answer.size
        start = 0
        for burst, take in asks:
            take(answer.replies[start : start + burst.replies])
            start += burst.replies

    def _unsettled(self) -> int | None:
        lists = [self._untyped, *self._unread.values(), *self._unsure.values(), *self._unmeasured.values()]
        return next((row for rows in lists for row in rows), None)

    def _look_again(self, row: int, kind: Datatype, reason: Odd | ReplyError) -> None:
        self.kinds[row] = self.values[row] = None
        if reason is Odd.MORE:
            self.shapes[row].was_more()
            self._unmeasured[kind].append(row)
        elif reason is Odd.EMPTY:
            self._unsure[kind].append(row)
        elif reason is Odd.GONE:
            self.kinds[row] = GONE
        elif reason is Odd.UNSURE or str(reason).startswith("WRONGTYPE"):
            self._untyped.append(row)
        else:
            raise self._refused(reason, row, kind.command)

    def _refused(self, reply: Any, row: int, command: str) -> Exception:
        return server_error(reply, node=self._node, key=self.keys[row], command=command)

    # What a round asks

    def _asks(self) -> list[Ask]:
        asks = [self._type_ask(self._untyped)] if self._untyped else []
        asks += [self._read_ask(kind, rows) for kind, rows in self._unread.items()]
        asks += [self._confirm_ask(kind, rows) for kind, rows in self._unsure.items()]
        asks += [self._measure_ask(kind, rows) for kind, rows in self._unmeasured.items()]
        return asks

    def _keys(self, rows: Iterable[int]) -> list[bytes]:
        return [self.keys[row] for row in rows]

    def _type_ask(self, rows: list[int]) -> Ask:
        def take(replies: list[Any]) -> None:
            for row, reply in zip(rows, replies):
                if reply.__class__ is not bytes:
                    raise self._refused(reply, row, "TYPE")
                if reply == b"none":
                    self.kinds[row] = GONE
                    continue
                kind = datatype(reply.decode())
                if self._wanted(kind):
                    self.shapes[row].expect(kind)
                    self.plan(row, kind)

        return for_each((b"TYPE",), self._keys(rows)), take

    def _read_ask(self, kind: Datatype, rows: list[int]) -> Ask:
        keys = self._keys(rows)
        limit = max(self.shapes[row].limit for row in rows)
        many = kind is STRING and self._roomy and not any(self.shapes[row].careful for row in rows)

        def take(replies: list[Any]) -> None:
            odd: OddRows = {}
            values = STRING.take_many(replies, len(rows), odd) if many else kind.take(replies, limit, odd)
            self.take(kind, rows, values, odd)

        return STRING.ask_many(keys) if many else kind.ask(keys, limit), take

    def _confirm_ask(self, kind: Datatype, rows: list[int]) -> Ask:
        def take(replies: list[Any]) -> None:
            odd: OddRows = {}
            self.take(kind, rows, kind.take_confirmed(replies, odd), odd)

        return kind.confirm(self._keys(rows)), take

    def _measure_ask(self, kind: Datatype, rows: list[int]) -> Ask:
        def take(replies: list[Any]) -> None:
            for row, size in zip(rows, replies):
                if size.__class__ is int and size:
                    self.heavy[row] = (kind, size)
                    if size > ATOMIC and not kind.bounded:
                        self.shapes[row].was_more()
                else:  # nil or 0: it is gone, or something else by now
                    self._look_again(row, kind, size if isinstance(size, ReplyError) else Odd.UNSURE)

        return kind.measure(self._keys(rows)), take

    def _metadata_asks(self, names: Sequence[str]) -> list[Ask]:
        return [self._metadata_ask(name) for name in names]

    def _metadata_ask(self, name: str) -> Ask:
        words = _METADATA_COMMANDS[name]

        def take(replies: list[Any]) -> None:
            column: list[Any] = []
            for row, reply in enumerate(replies):
                if isinstance(reply, ReplyError) and "no such key" not in str(reply):
                    raise self._refused(reply, row, b" ".join(words).decode())
                column.append(_metadata_value(name, reply))
            self.metadata[name] = column

        return for_each(words, self.keys), take


def joined(bursts: Iterable[Burst]) -> Burst:
    """Several bursts as one."""
    payloads, replies = zip(*((burst.payload, burst.replies) for burst in bursts))
    return Burst(b"".join(payloads), sum(replies))


_METADATA_COMMANDS = {
    "ttl": (b"PTTL",),
    "memory": (b"MEMORY", b"USAGE"),
    "idle": (b"OBJECT", b"IDLETIME"),
    "freq": (b"OBJECT", b"FREQ"),
    "encoding": (b"OBJECT", b"ENCODING"),
}


def _metadata_value(name: str, reply: Any) -> Any:
    if reply is None or isinstance(reply, ReplyError):
        return None
    if name == "encoding":
        return reply.decode()
    return None if reply < 0 else reply  # PTTL: -1 does not expire, -2 is gone
