"""What must fit into little memory: a table of keyspaces. A new case is one entry of `CASES`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ._admin import Admin, Command
from ._workloads import strings

MIB = 2**20
_TOGETHER = 1000  # elements in one command


@dataclass(frozen=True)
class Case:
    """One keyspace and how it is read.

    `fill`       scale -> the commands that write it
    `keys`       how many keys the consumer must see at least, at scale 1
    `length`     and of what length, all values together: elements, and bytes of strings
    `asleep`     seconds that the consumer sleeps after half of the keys
    `blocking`   it sleeps without letting the event loop run
    `settings`   done to the filled server
    `surprise`   no client can know what the server is about to hold for it, so that is shown and not judged
    """

    name: str
    title: str
    fill: Callable[[float], Iterator[Command]]
    keys: int
    length: int
    asleep: float = 0.0
    blocking: bool = False
    settings: Callable[[Admin], None] | None = None
    surprise: bool = False


def many(fill: Callable[[int], Iterator[Command]], keys: int) -> Callable[[float], Iterator[Command]]:
    return lambda scale: fill(int(keys * scale))


def one(command: str, elements: int) -> Callable[[float], Iterator[Command]]:
    """One big collection, written by so many elements at a time."""

    def fill(scale: float) -> Iterator[Command]:
        yield from big_collection(command, b"big", int(elements * scale))

    return fill


def big_collection(command: str, key: bytes, elements: int) -> Iterator[Command]:
    element: dict[str, Callable[[int], tuple[object, ...]]] = {
        "HSET": lambda number: (b"field:%d" % number, b"value:%d" % number),
        "SADD": lambda number: (b"member:%d" % number,),
        "ZADD": lambda number: (number, b"member:%d" % number),
        "RPUSH": lambda number: (b"element:%d" % number,),
    }
    made = element[command]
    for start in range(0, elements, _TOGETHER):
        several = range(start, min(start + _TOGETHER, elements))
        yield command, key, *(part for number in several for part in made(number))


def big_string(key: bytes, size: int) -> Command:
    """Nearly all zeros; sent as one short command."""
    return "SETRANGE", key, size - 1, b"x"


def _one_string(scale: float) -> Iterator[Command]:
    yield big_string(b"big", int(512 * MIB * scale))


_SURPRISES = 6
_SURPRISE = 64 * MIB
_SURPRISES_LENGTH = 300_000 * 100 + _SURPRISES * _SURPRISE


def _surprises(scale: float) -> Iterator[Command]:
    """Among keys that have all proven small, a few with the same prefix that are not."""
    keys = int(300_000 * scale)
    yield from strings(100)(keys)
    for number in range(_SURPRISES):
        yield big_string(b"string:%d" % (keys + number), int(_SURPRISE * scale))


def _cache(scale: float) -> Iterator[Command]:
    """What a cache holds: small values, middling ones, and some big enough to hurt.

    A page of it, read without a thought for its size, is a few MiB of replies.
    """
    yield from strings(500)(int(180_000 * scale))
    elements = [b"%0100d" % number for number in range(500)]
    for number in range(int(20_000 * scale)):
        yield "RPUSH", b"list:%d" % number, *elements
    for number in range(20):
        yield big_string(b"page:%d" % number, int(8 * MIB * scale))
        yield from big_collection("HSET", b"index:%d" % number, int(50_000 * scale))


_CACHE_LENGTH = 180_000 * 500 + 20_000 * 500 + 20 * (8 * MIB + 50_000)

HEADROOM = 4 * MIB
"""What the full server has left: any client at all takes some of it, so none left would prove nothing."""


def _full(admin: Admin) -> None:
    time.sleep(3)  # until the server has given back the buffers through which it was filled
    used = int(admin.info("memory")["used_memory"])
    admin.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    admin.call("CONFIG", "SET", "maxmemory", used + HEADROOM)


_MILLIONS = 5_000_000
_KILOBYTES = many(strings(1024), 1_000_000)

_ROWS = [
    Case("strings", "5M small strings", many(strings(20), _MILLIONS), _MILLIONS, _MILLIONS * 20),
    Case("dozer", "2M of 10 B, sleeps 5 s", many(strings(10), 2_000_000), 2_000_000, 20_000_000, asleep=5.0),
    Case("sleeper", "1M of 1 KB, sleeps 10 s", _KILOBYTES, 1_000_000, 1_024_000_000, asleep=10.0),
    Case(
        "blocker", "1M of 1 KB, blocks 10 s", _KILOBYTES, 1_000_000, 1_024_000_000, asleep=10.0, blocking=True
    ),
    Case("string", "one string of 512 MB", _one_string, 1, 512 * MIB),
    Case("hash", "a hash of 5M fields", one("HSET", _MILLIONS), 1, _MILLIONS),
    Case("set", "a set of 5M members", one("SADD", _MILLIONS), 1, _MILLIONS),
    Case("zset", "a zset of 5M members", one("ZADD", _MILLIONS), 1, _MILLIONS),
    Case("list", "a list of 5M elements", one("RPUSH", _MILLIONS), 1, _MILLIONS),
    Case("full", "a cache at maxmemory", _cache, 200_040, _CACHE_LENGTH, settings=_full),
    Case("surprise", "64 MB strings among small", _surprises, 300_006, _SURPRISES_LENGTH, surprise=True),
]

CASES = {row.name: row for row in _ROWS}
