"""What the same data costs the server, asked for in different ways: `python -m benchmarks.ways --help`.

Raw on sockets, without this package: what counts is the server's CPU time a key, which is what limits a
reader of small values. Every way uses commands that only read. The ways take turns, round after round; each
must bring every key, with as many bytes as were written. Shown are medians, and the ratio to the first way of
its keyspace, which is how this package reads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from oneatatime.server import EmbeddedServer

from ._admin import Admin, Command
from ._machine import machine
from ._table import table
from ._workloads import of_type, strings

_POSITIONS = 2**64
_FIELDS = [b"field:%d" % number for number in range(5)]
_VALUES, _WHOLE = 5 * 20, 5 * (7 + 20)  # bytes of a hash: its values, its fields and values

Ask = Callable[[list[bytes]], list[Command]]
"""Keys of a page -> the commands that read their values."""


@dataclass
class Seen:
    """What came."""

    keys: set[bytes] = field(default_factory=set)
    read: int = 0
    size: int = 0

    def add(self, keys: list[bytes], replies: Iterable[Any]) -> None:
        self.keys.update(keys)
        self.read += len(keys)
        self.size += sum(map(_size, replies))


Steps = Generator[list[Command], list[Any], None]
Read = Callable[[int, int, int, Seen], Steps]
"""First cursor, position of the end, keys a page, what came -> commands of one write after the other."""


@dataclass(frozen=True)
class Way:
    """`each`: bytes of a key's replies. The rest is how this package does it where nothing else is said."""

    title: str
    read: Read
    each: int
    page: int = 440
    connections: int = 2
    unix: bool = False
    protocol: int = 3
    touch: bool = False


def _size(reply: Any) -> int:
    if isinstance(reply, bytes):
        return len(reply)
    if isinstance(reply, dict):
        return sum(map(len, reply)) + sum(map(len, reply.values()))
    return sum(map(_size, reply))


# How to ask


def by_page(ask: Ask, scanned: bool = False) -> Read:
    """SCAN, and in one write with the next SCAN what `ask` says; `scanned`: replies begin with a cursor."""

    def read(cursor: int, end: int, page: int, seen: Seen) -> Steps:
        (found,) = yield [("SCAN", cursor, "COUNT", page)]
        while True:
            cursor, keys = int(found[0]), found[1]
            last = _position(cursor) >= end
            scan = [] if last else [("SCAN", cursor, "COUNT", page)]
            replies = yield scan + ask(keys)
            values = replies[len(scan) :]
            seen.add(keys, [reply[1] for reply in values] if scanned else values)
            if last:
                return
            found = replies[0]

    return read


def by_script(*call: str) -> Read:
    """SCAN and values by a script on the server: one command a page."""

    def read(cursor: int, end: int, page: int, seen: Seen) -> Steps:
        while True:
            ((told, keys, values),) = yield [(*call, 0, cursor, page)]
            seen.add(keys, [values])
            cursor = int(told)
            if _position(cursor) >= end:
                return

    return read


def one_each(*words: bytes | str) -> Ask:
    """One command a key; the key follows its name."""
    name, *rest = words
    return lambda keys: [(name, key, *rest) for key in keys]


def mget(most: int = sys.maxsize) -> Ask:
    """So many keys in one MGET."""
    return lambda keys: [("MGET", *keys[start : start + most]) for start in range(0, len(keys), most) if keys]


def keys_and_values(keys: list[bytes]) -> list[Command]:
    return [command for key in keys for command in (("HKEYS", key), ("HVALS", key))]


_PAGE = "local page = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2])\n"
_STRINGS = _PAGE + "return {page[1], page[2], redis.call('MGET', unpack(page[2]))}"
_HASHES = (
    _PAGE
    + """local values = {}
for i, key in ipairs(page[2]) do values[i] = redis.call('HGETALL', key) end
return {page[1], page[2], values}"""
)


def _library(body: str) -> str:
    """The script as a function; loading one needs permission to write."""
    register = "server.register_function{function_name='page', flags={'no-writes'}, callback="
    return f"#!lua name=ways\n{register}function(keys, ARGV)\n{body}\nend}}"


_MGET, _HSCAN = by_page(mget()), by_page(one_each("HSCAN", b"0"), scanned=True)
_COUNT_SAID = by_page(one_each("HSCAN", b"0", b"COUNT", b"10"), scanned=True)
_HGETALL = by_page(one_each("HGETALL"))
_HRANDFIELD = by_page(one_each("HRANDFIELD", b"10", b"WITHVALUES"))  # all of them where there are no more

_STRING_WAYS = [
    Way("SCAN 440 + MGET, 2 connections", _MGET, 100),
    Way("the same, again", _MGET, 100),
    Way("pages of 100", _MGET, 100, page=100),
    Way("pages of 1,000", _MGET, 100, page=1000),
    Way("pages of 3,000", _MGET, 100, page=3000),
    Way("pages of 10,000", _MGET, 100, page=10_000),
    Way("SCAN 1,760, 4 MGETs of 440", by_page(mget(440)), 100, page=1760),
    Way("SCAN 440, 4 MGETs of 110", by_page(mget(110)), 100),
    Way("1 connection", _MGET, 100, connections=1),
    Way("4 connections", _MGET, 100, connections=4),
    Way("unix socket", _MGET, 100, unix=True),
    Way("RESP2", _MGET, 100, protocol=2),
    Way("without NO-TOUCH", _MGET, 100, touch=True),
    Way("GET, pipelined", by_page(one_each("GET")), 100),
    Way("EVAL_RO", by_script("EVAL_RO", _STRINGS), 100),
    Way("FCALL_RO", by_script("FCALL_RO", "page"), 100),
    Way("SCAN alone, no values", by_page(lambda keys: []), 0),
]
_HASH_WAYS = [
    Way("SCAN 270 + HSCAN, 2 connections", _HSCAN, _WHOLE, page=270),
    Way("the same, again", _HSCAN, _WHOLE, page=270),
    Way("pages of 100", _HSCAN, _WHOLE, page=100),
    Way("pages of 1,000", _HSCAN, _WHOLE, page=1000),
    Way("1 connection", _HSCAN, _WHOLE, page=270, connections=1),
    Way("4 connections", _HSCAN, _WHOLE, page=270, connections=4),
    Way("unix socket", _HSCAN, _WHOLE, page=270, unix=True),
    Way("RESP2", _HSCAN, _WHOLE, page=270, protocol=2),
    Way("without NO-TOUCH", _HSCAN, _WHOLE, page=270, touch=True),
    Way("HGETALL", _HGETALL, _WHOLE, page=270),
    Way("HGETALL, RESP2", _HGETALL, _WHOLE, page=270, protocol=2),
    Way("HGETALL, pages of 1,000", _HGETALL, _WHOLE, page=1000),
    Way("HSCAN with COUNT 10", _COUNT_SAID, _WHOLE, page=270),
    Way("HRANDFIELD", _HRANDFIELD, _WHOLE, page=270),
    Way("HRANDFIELD, RESP2", _HRANDFIELD, _WHOLE, page=270, protocol=2),
    Way("HKEYS and HVALS", by_page(keys_and_values), _WHOLE, page=270),
    Way("HMGET, fields known", by_page(one_each("HMGET", *_FIELDS)), _VALUES, page=270),
    Way("EVAL_RO", by_script("EVAL_RO", _HASHES), _WHOLE, page=270),
    Way("FCALL_RO", by_script("FCALL_RO", "page"), _WHOLE, page=270),
    Way("SCAN alone, no values", by_page(lambda keys: []), 0, page=270),
]


# Asking


class _Range:
    """One range of cursors over one connection: what is asked, and what is still to be taken."""

    def __init__(self, admin: Admin, steps: Steps) -> None:
        self._admin = admin
        self._steps = steps
        self._asked = 0
        self.over = False

    def ask(self, replies: list[Any] | None) -> None:
        try:
            commands = self._steps.send(replies) if replies is not None else next(self._steps)
        except StopIteration:
            self.over = True
            return
        self._admin.send(commands)
        self._asked = len(commands)

    def step(self) -> None:
        self.ask(self._admin.replies(self._asked))


def _position(cursor: int) -> int:
    """Where a cursor is between 0 and 2^64: its bits the other way round; 0 after the last."""
    return int(f"{cursor:064b}"[::-1], 2) or _POSITIONS


def _cursor(position: int) -> int:
    return int(f"{position:064b}"[::-1], 2)


def _read(way: Way, server: EmbeddedServer) -> Seen:
    """Reads everything; while one connection's replies are taken, the server works for the others."""
    seen = Seen()
    url = f"unix://{server.path}" if way.unix else server.url
    edges = [_POSITIONS * number // way.connections for number in range(way.connections + 1)]
    admins = [Admin(url) for _ in edges[1:]]
    try:
        for admin in admins:
            admin.call("HELLO", way.protocol)
            admin.call("CLIENT", "NO-TOUCH", "OFF" if way.touch else "ON")
        ranges = [
            _Range(admin, way.read(_cursor(start), end, way.page, seen))
            for admin, start, end in zip(admins, edges, edges[1:], strict=False)
        ]
        for one in ranges:
            one.ask(None)
        while ranges := [one for one in ranges if not one.over]:
            for one in ranges:
                one.step()
    finally:
        for admin in admins:
            admin.close()
    return seen


def _cost(way: Way, server: EmbeddedServer, admin: Admin, keys: int) -> float:
    """The server's CPU seconds a key."""
    before = admin.cpu_seconds()
    seen = _read(way, server)
    cost = (admin.cpu_seconds() - before) / seen.read
    if len(seen.keys) != keys or seen.size != way.each * seen.read:
        raise SystemExit(f"{way.title}: {len(seen.keys)} keys of {keys}, {seen.size / seen.read} bytes each")
    return cost


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ways", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="times to read each way (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the keys")
    parser.add_argument("--only", choices=("strings", "hashes"))
    options = parser.parse_args()
    print(machine())
    for title, fill, keys, script, ways in [
        ("strings of 100 B", strings(100), 1_000_000, _STRINGS, _STRING_WAYS),
        ("hashes of 5 fields", of_type("hash"), 300_000, _HASHES, _HASH_WAYS),
    ]:
        if options.only and options.only not in title:
            continue
        keys = int(keys * options.scale)
        costs: dict[str, list[float]] = {way.title: [] for way in ways}
        with EmbeddedServer(tcp=True) as server, Admin(server.url) as admin:
            version = server.version
            admin.load(fill(keys))
            admin.settle()
            admin.call("FUNCTION", "LOAD", _library(script))
            _read(ways[0], server)  # the first reading of all costs more
            for _ in range(options.rounds):
                for way in ways:
                    costs[way.title].append(_cost(way, server, admin, keys))
                    print(f"{way.title}: {costs[way.title][-1] * 1e6:.3f} us", file=sys.stderr, flush=True)
        ours = costs[ways[0].title]
        lines = [_line(way, costs[way.title], ours) for way in ways]
        print(f"\n{title}, Valkey {version}; medians of {options.rounds} rounds, taking turns\n")
        print(table(["way", "server us/key", "times ours", "lowest", "highest", "ms a page"], lines))
    return 0


def _line(way: Way, costs: list[float], ours: list[float]) -> list[str]:
    times = [cost / our for cost, our in zip(costs, ours, strict=True)]
    cost = statistics.median(costs)
    figures = [cost * 1e6, statistics.median(times), min(times), max(times), cost * way.page * 1e3]
    return [way.title, f"{figures[0]:.3f}", *(f"{figure:.2f}" for figure in figures[1:])]


if __name__ == "__main__":
    sys.exit(main())
