"""What is read: a table of keyspaces. A new workload is one entry of `WORKLOADS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ._admin import Command

TYPES = ("string", "hash", "list", "set", "zset", "stream")
_DAY = 86_400_000

Fill = Callable[[int], Iterator[Command]]
"""How many keys -> the commands that write them."""


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    `keys`     at scale 1
    `fill`     writes them
    `types`    the types of the keys, as the peers' hand-written loops may know them beforehand
    `length`   the mean of len(value), by which a reader shows that it has read the values
    `ask`      "items", only the "keys", or "these": the values of a list of keys in random order
    `only`     read just this type, found by the server's SCAN
    `ttl`      ask for the time to live too; every second key has one
    `needs`    a command that the server must have, else the row is left out
    """

    name: str
    title: str
    keys: int
    fill: Fill
    types: tuple[str, ...]
    length: float | None
    ask: str = "items"
    only: str | None = None
    ttl: bool = False
    needs: str | None = None

    def expected(self, loaded: int) -> int:
        """Keys that a complete reading finds when `loaded` keys were written."""
        if self.only is None:
            return loaded
        share = len(TYPES)
        return len(range(TYPES.index(self.only), loaded, share))


def strings(size: int) -> Fill:
    value = b"x" * size

    def fill(keys: int) -> Iterator[Command]:
        for number in range(keys):
            yield "SET", b"string:%d" % number, value

    return fill


def of_type(kind: str, elements: int = 5) -> Fill:
    def fill(keys: int) -> Iterator[Command]:
        for number in range(keys):
            yield from _write(kind, b"%s:%d" % (kind.encode(), number), elements)

    return fill


def mixed(*, prefixes: bool, ttl: bool = False) -> Fill:
    """All types in turn; SCAN's order is that of hashes, so the turns are not to be seen in it."""

    def fill(keys: int) -> Iterator[Command]:
        for number in range(keys):
            kind = TYPES[number % len(TYPES)]
            key = b"%s:%d" % (kind.encode() if prefixes else b"item", number)
            yield from _write(kind, key, 5)
            if ttl and number % 2:
                yield "PEXPIRE", key, _DAY

    return fill


def documents(keys: int) -> Iterator[Command]:
    for number in range(keys):
        yield "JSON.SET", b"json:%d" % number, "$", b'{"id":%d,"tags":["a","b"],"open":true}' % number


def _write(kind: str, key: bytes, elements: int) -> Iterator[Command]:
    several = range(elements)
    if kind == "string":
        yield "SET", key, b"x" * 100
    elif kind == "hash":
        yield "HSET", key, *(part for i in several for part in (b"field:%d" % i, b"a value of 20 bytes."))
    elif kind == "list":
        yield "RPUSH", key, *(b"element %d" % i for i in several)
    elif kind == "set":
        yield "SADD", key, *(b"member %d" % i for i in several)
    elif kind == "zset":
        yield "ZADD", key, *(part for i in several for part in (i + 0.5, b"member %d" % i))
    else:
        for i in several:
            yield "XADD", key, b"%d-1" % (i + 1), b"field", b"a value of 20 bytes."


_MIXED = (100 + 5 * 5) / 6  # mean len(): a string of 100 B and five collections of 5

_ROWS = [
    Workload("strings-100", "strings of 100 B", 1_000_000, strings(100), ("string",), 100),
    Workload("hashes-5", "hashes of 5 fields", 300_000, of_type("hash"), ("hash",), 5),
    Workload("strings-10", "strings of 10 B", 1_000_000, strings(10), ("string",), 10),
    Workload("strings-10k", "strings of 10 kB", 100_000, strings(10_000), ("string",), 10_000),
    Workload("hashes-50", "hashes of 50 fields", 50_000, of_type("hash", 50), ("hash",), 50),
    Workload("lists-5", "lists of 5", 300_000, of_type("list"), ("list",), 5),
    Workload("sets-5", "sets of 5", 300_000, of_type("set"), ("set",), 5),
    Workload("zsets-5", "zsets of 5", 300_000, of_type("zset"), ("zset",), 5),
    Workload("streams-5", "streams of 5", 300_000, of_type("stream"), ("stream",), 5),
    Workload("json", "JSON documents", 200_000, documents, ("json",), None, needs="JSON.SET"),
    Workload("mixed", "all types, by prefix", 600_000, mixed(prefixes=True), TYPES, _MIXED),
    Workload("plain", "all types, no prefix", 600_000, mixed(prefixes=False), TYPES, _MIXED),
    Workload("mixed-ttl", "by prefix, ttl", 600_000, mixed(prefixes=True, ttl=True), TYPES, _MIXED, ttl=True),
    Workload(
        "plain-ttl", "no prefix, ttl", 600_000, mixed(prefixes=False, ttl=True), TYPES, _MIXED, ttl=True
    ),
    Workload("mixed-hashes", "mixed, only hashes", 600_000, mixed(prefixes=True), ("hash",), 5, only="hash"),
    Workload("keys", "keys only", 1_000_000, strings(100), ("string",), 0, ask="keys"),
    Workload("these", "1M keys in random order", 1_000_000, strings(100), ("string",), 100, ask="these"),
]

WORKLOADS = {row.name: row for row in _ROWS}
