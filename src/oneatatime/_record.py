"""What is delivered: a record a key, and the value types that Python has no word for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ._errors import Error
from ._loop import Skin
from ._resp import size_of

_OBJECTS = 100  # bytes that Python adds to a key and its value, at least


class Record(NamedTuple):
    """One key with what was read of it.

    `key` and `value` are bytes, or str where an `encoding` was asked for; `type` is Redis's name.
    The rest is None unless `metadata=` asked for it: `ttl` in ms (None also for a key that does not
    expire), `memory` in bytes, `idle` in seconds, `freq` the LFU counter (0-255), `encoding` the
    server's name for how the value is stored. `db` is the number of the database where several are read.
    `expires_at` is when the key expires, in ms since 1970 by the server's clock (None: never). `details` is
    what the value has beside its elements: of a hash {field: ms since 1970} for fields that expire, of a
    stream `StreamDetails`; None where there is nothing of the kind.
    """

    key: Any
    type: str
    value: Any
    ttl: int | None = None
    memory: int | None = None
    idle: int | None = None
    freq: int | None = None
    encoding: str | None = None
    db: int | None = None
    expires_at: int | None = None
    details: Any = None


class Pending(NamedTuple):
    """An entry of a stream that a consumer of a group has been given and has not acknowledged.

    `delivered_at` in ms since 1970, `deliveries` how often. The entry itself may be deleted by now.
    """

    group: Any
    id: Any
    consumer: Any
    delivered_at: int
    deliveries: int


class Group(NamedTuple):
    """A consumer group of a stream: where it stands, and its consumers.

    `entries_read` is the server's logical count, None where it has none (before Redis 7.0, or not known).
    """

    name: Any
    last_delivered_id: Any
    entries_read: int | None = None
    consumers: tuple[Any, ...] = ()


class StreamDetails(NamedTuple):
    """What a stream has beside its entries.

    `entries_added` and `max_deleted_id` are None before Redis 7.0. `pending` is sorted by (id, group). It is
    empty where the value is `Parts`: there each `Pending` comes among the entries, after its own entry, or
    in its place where that one is deleted.
    """

    last_id: Any
    entries_added: int | None = None
    max_deleted_id: Any = None
    groups: tuple[Group, ...] = ()
    pending: tuple[Pending, ...] = ()

    def going_on(self, details: StreamDetails | None, piece: Piece) -> StreamDetails:
        """Those of a later piece, with what these of the first one tell: all of it where it is the last."""
        pending = () if details is None else details.pending
        if piece.last:
            return self._replace(pending=pending)
        return StreamDetails(None, max_deleted_id=self.max_deleted_id, pending=pending)


def mapped(details: Any, text: Callable[[Any], Any]) -> Any:
    """Details with each string in them made another by `text`; ids of entries stay as they are."""
    if isinstance(details, dict):
        return {text(field): moment for field, moment in details.items()}
    if not isinstance(details, StreamDetails):
        return details
    groups = [
        group._replace(name=text(group.name), consumers=tuple(map(text, group.consumers)))
        for group in details.groups
    ]
    pending = [mapped_pending(one, text) for one in details.pending]
    return details._replace(groups=tuple(groups), pending=tuple(pending))


def mapped_pending(one: Pending, text: Callable[[Any], Any]) -> Pending:
    """The same of one entry that is pending."""
    return one._replace(group=text(one.group), consumer=text(one.consumer))


class Piece(NamedTuple):
    """Which piece of a big value a row of a file is: its number from 0, and whether it is the last one.

    `torn`: the value was changed while it was read, so that its pieces may not fit together.
    """

    number: int
    last: bool = False
    torn: bool = False


@dataclass(eq=False, repr=False)
class Batch:
    """The records of one page, column by column: what travels between worker and loop.

    `types` is one name where all records share it. `metadata` maps a name to its column. `failed`
    maps a row to the error that the loop meets in its place. `size` is the bytes of the replies.
    `values` is empty where only keys were asked for; `raw`: each becomes a value when the loop gets there.
    `names` are the keys as bytes, where `keys` are text. `covers`: how many keys of its page it settles,
    with those that were gone or are not wanted; `rows`: which of them these are, where it is not all.
    `before`: how far what is read has come when the loop takes this, and so has finished with all before.
    `pieces`, of what is read from a file: of each row which piece of a value it is, or None for a whole one.
    """

    keys: list[Any]
    types: str | list[str]
    values: list[Any]
    size: int = 0
    metadata: dict[str, list[Any]] | None = None
    failed: dict[int, Error] | None = None
    raw: bool = False
    covers: int = 0
    rows: list[int] | None = None
    names: list[bytes] | None = None
    before: dict[Any, Any] | None = None
    pieces: list[Piece | None] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def continues(self) -> bool:
        """Whether it goes on with a value that a batch before it has begun."""
        first = self.pieces[0] if self.pieces else None
        return first is not None and first.number > 0

    @property
    def goes_on(self) -> bool:
        """Whether a batch after it goes on with the value that this one ends in."""
        last = self.pieces[-1] if self.pieces else None
        return last is not None and not last.last

    def record(self, row: int) -> Record:
        """One of its records, where values are made already."""
        kind = self.types if isinstance(self.types, str) else self.types[row]
        columns = self.metadata or {}
        return Record(
            self.keys[row], kind, self.values[row], **{name: column[row] for name, column in columns.items()}
        )

    @property
    def whole(self) -> int:
        """How many records end in it: a value in pieces does with its last one."""
        return len(self) if self.pieces is None else sum(piece is None or piece.last for piece in self.pieces)

    def of(self, rows: list[int]) -> Batch:
        """The records in these rows."""
        types = self.types if isinstance(self.types, str) else [self.types[row] for row in rows]
        some = Batch([self.keys[row] for row in rows], types, [], self.size, raw=self.raw, covers=self.covers)
        if self.values:
            some.values = [self.values[row] for row in rows]
        if self.metadata is not None:
            some.metadata = {name: [column[row] for row in rows] for name, column in self.metadata.items()}
        if self.names is not None:
            some.names = [self.names[row] for row in rows]
        if self.failed is not None:
            failed = {place: self.failed[row] for place, row in enumerate(rows) if row in self.failed}
            some.failed = failed or None
        if self.pieces is not None:
            some.pieces = [self.pieces[row] for row in rows]
        return some

    @property
    def weight(self) -> int:
        """About the bytes it takes here: the replies, the keys, and what Python needs for each."""
        try:
            names = size_of(self.keys)
        except TypeError:  # str by now
            names = sum(map(len, self.keys))
        return self.size + names + _OBJECTS * len(self.keys)


class Opaque(NamedTuple):
    """A value of a type that only its own module understands: `RESTORE` takes the `dump` back.

    `type` is the name that TYPE gives, `dump` the bytes that DUMP gives.
    """

    type: str
    dump: bytes


class Commands(NamedTuple):
    """A piece of a value as the commands that write it, packed, one by one: sent as they are.

    `type` is the name that TYPE gives the value.
    """

    type: str
    commands: tuple[bytes, ...]


class RepeatedFields(dict[Any, Any]):
    """The fields of a stream entry in which a field name stands more than once.

    As a dict it holds the last value of each name; `pairs` holds every (field, value) in order.
    """

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class PartsSource(Protocol):
    """How a `Parts` gets at its data: made by the room that owns connections, called by the value."""

    def chunks(self, parts: Parts, /) -> AsyncIterator[list[Any]]:
        """Its parts, as many at a time as come in one reply."""

    def blocking_chunks(self, parts: Parts, /) -> Iterator[list[Any]]:
        """The same for code without an event loop."""

    async def load(self, parts: Parts, /) -> Any:
        """All of it."""


class Parts:
    """A value too big to hold, read a part at a time by `async for` (or `for`).

    The parts are: of a string, `bytes` of at most `Options.chunk`; of a hash, (field, value); of a
    list, elements; of a set, members; of a zset, (member, score); of a stream, (id, fields). Where
    `metadata` asked for details: of a hash (field, value, when it expires or None), and of a stream `Pending`
    among the entries, each behind its own; `load` gives the value without them. Each
    loop starts at the beginning, over a connection of its own that ends with the loop, so a value may
    be read, read in part, or left alone, and the stream it came from goes on undisturbed.

    `key`: always bytes; `type`: as in the record; `size`: bytes it takes in the server, about. `torn`:
    None until a loop has come to its end; then whether the value was gone by then, or a string, list or
    document was changed while it was read, so that the parts may not fit together (hashes, sets and
    zsets: every element that was there all along was delivered, perhaps twice; streams: exactly once).

    >>> async def total(parts):
    ...     return sum([len(chunk) async for chunk in parts])
    """

    __slots__ = ("_source", "key", "size", "torn", "type")

    def __init__(self, key: bytes, kind: str, size: int, source: PartsSource) -> None:
        self.key = key
        self.type = kind
        self.size = size
        self.torn: bool | None = None
        self._source = source

    def __aiter__(self) -> AsyncIterator[Any]:
        return _Elements(self._source.chunks(self))

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._source.blocking_chunks(self):
            yield from chunk

    def chunks(self) -> AsyncIterator[list[Any]]:
        """The same parts, as many at a time as came in one reply: lists of parts, never empty."""
        return self._source.chunks(self)

    async def load(self) -> Any:
        """The whole value, as a small one of its type would be delivered.

        It is as big as it is: nothing bounds the memory that this takes.
        """
        return await self._source.load(self)

    def __repr__(self) -> str:
        return f"<Parts of {self.type} {self.key[:60]!r}, about {self.size} bytes>"


class _Elements(Skin):
    """Parts that are looped over, of chunks that travel."""

    def __init__(self, chunks: AsyncIterator[list[Any]]) -> None:
        self.items = iter(())
        self._chunks = chunks

    async def refill(self) -> Any:
        while True:
            self.items = iter(await self._chunks.__anext__())
            for element in self.items:
                return element
