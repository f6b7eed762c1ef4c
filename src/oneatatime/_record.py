"""What is delivered: a record a key, and the value types that Python has no word for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._errors import Error
from ._loop import Skin
from ._resp import size_of

_OBJECTS = 100  # bytes that Python adds to a key and its value, at least


class Record(NamedTuple):
    """One key with what was read of it.

    `key` and `value` are bytes, or str where an `encoding` was asked for; `type` is Redis's name.
    The rest is None unless `metadata=` asked for it: `ttl` in ms (None also for a key that does not
    expire), `memory` in bytes, `idle` in seconds, `freq` the LFU counter (0-255), `encoding` the
    server's name for how the value is stored.
    """

    key: Any
    type: str
    value: Any
    ttl: int | None = None
    memory: int | None = None
    idle: int | None = None
    freq: int | None = None
    encoding: str | None = None


@dataclass(eq=False, repr=False)
class Batch:
    """The records of one page, column by column: what travels between worker and loop.

    `types` is one name where all records share it. `metadata` maps a name to its column. `failed`
    maps a row to the error that the loop meets in its place. `size` is the bytes of the replies.
    `values` is empty where only keys were asked for; `raw`: each becomes a value when the loop gets there.
    """

    keys: list[Any]
    types: str | list[str]
    values: list[Any]
    size: int = 0
    metadata: dict[str, list[Any]] | None = None
    failed: dict[int, Error] | None = None
    raw: bool = False

    def __len__(self) -> int:
        return len(self.keys)

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


class RepeatedFields(dict[Any, Any]):
    """The fields of a stream entry in which a field name stands more than once.

    As a dict it holds the last value of each name; `pairs` holds every (field, value) in order.
    """

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


@dataclass(eq=False, repr=False)
class PartsSource:
    """How a `Parts` gets at its data: made by the room that owns connections, called by the value."""

    chunks: Callable[[Parts], AsyncIterator[list[Any]]]
    blocking_chunks: Callable[[Parts], Iterator[list[Any]]]
    load: Callable[[Parts], Any]


class Parts:
    """A value too big to hold, read a part at a time by `async for` (or `for`).

    The parts are: of a string, `bytes` of at most `Options.chunk`; of a hash, (field, value); of a
    list, elements; of a set, members; of a zset, (member, score); of a stream, (id, fields). Each
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
