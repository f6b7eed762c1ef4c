"""Who reads: a table of readers. A new reader is one entry of `READERS`."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._admin import Admin
from ._peers import PAGE, Coredis, Glide, Peer, RedisPy, RedisPyBlocking
from ._workloads import Workload


class Tally(NamedTuple):
    """What a reader saw: keys, and the sum of len(value)."""

    keys: int
    length: int


@dataclass(frozen=True)
class Job:
    """What one reader process has to do. `keys` are those to read, found before the clock starts."""

    url: str
    workload: Workload
    limit: int | None
    keys: list[bytes]


@dataclass(frozen=True)
class Reader:
    """One reader of the table.

    `client`  whose column its figures belong to
    `module`  what it needs, imported before the clock starts
    `reads`   whether it can, or would, read this workload
    `limit`   keys after which it may stop: a slow reader shows its rate on a sample
    `rounds`  at most so many
    """

    name: str
    client: str
    module: str
    read: Callable[[Job], Awaitable[Tally]]
    reads: Callable[[Workload], bool]
    limit: int | None = None
    rounds: int | None = None
    uvloop: bool = False
    default: bool = True


# ours


async def ours(job: Job) -> Tally:
    import oneatatime

    workload = job.workload
    keys = length = 0
    if workload.ask == "these":
        async for value in oneatatime.OneAtATime(job.url, job.keys):
            keys += 1
            length += len(value)
    elif workload.ask == "keys":
        async for _ in oneatatime.stream(job.url).keys():
            keys += 1
    elif workload.ttl:
        async for record in oneatatime.stream(job.url, metadata="ttl").records():
            keys += 1
            length += len(record.value)
    else:
        async for _, value in oneatatime.stream(job.url, types=workload.only):
            keys += 1
            length += len(value)
    return Tally(keys, length)


# the seed's loop


async def seed(job: Job) -> Tally:
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(job.url)
    read: dict[str, Callable[[Any], Awaitable[Any]]] = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    keys = length = 0
    known = job.workload.types[0] if len(job.workload.types) == 1 else None
    for key in job.keys:
        kind = known or _name(await client.type(key))
        value = await read[kind](key)
        if job.workload.ttl:
            await client.pttl(key)
        keys += 1
        length += len(value)
    await client.aclose()
    return Tally(keys, length)


# what others write by hand


def by_hand(client: type[Peer], *, mget: bool) -> Callable[[Job], Awaitable[Tally]]:
    async def read(job: Job) -> Tally:
        peer = client()
        await peer.open(job.url)
        keys = length = 0
        async for page in _pages(peer, job):
            if job.workload.ask == "keys":
                for _ in page:
                    keys += 1
            else:
                values = await (peer.mget(page) if mget else _values(peer, page, job.workload))
                for _, value in zip(page, values, strict=True):
                    keys += 1
                    length += len(value)
            if job.limit is not None and keys >= job.limit:
                break
        await peer.close()
        return Tally(keys, length)

    return read


async def _pages(peer: Peer, job: Job) -> AsyncIterator[list[bytes]]:
    if job.workload.ask == "these":
        for start in range(0, len(job.keys), PAGE):
            yield job.keys[start : start + PAGE]
        return
    cursor: Any = 0
    while True:
        cursor, page = await peer.page(cursor, job.workload.only)
        if page:
            yield list(page)
        if cursor == 0:
            return


async def _values(peer: Peer, page: list[bytes], workload: Workload) -> Iterable[Any]:
    kinds: Iterable[str]
    if len(workload.types) == 1:
        kinds = workload.types * len(page)
    else:
        names = await peer.pipeline([("type", key) for key in page])
        kinds = [_name(name) for name in names]
    asked = list(zip(kinds, page, strict=True))
    if workload.ttl:
        replies = await peer.pipeline([*asked, *(("ttl", key) for key in page)])
        return list(replies[: len(page)])  # the ttls are there, as in our records
    replies = await peer.pipeline(asked)
    if workload.types == ("json",):
        return [json.loads(reply) if isinstance(reply, bytes) else reply for reply in replies]
    return list(replies)


def _name(kind: bytes | str) -> str:
    return kind.decode() if isinstance(kind, bytes) else kind


def keys_to_read(url: str, workload: Workload, limit: int | None) -> list[bytes]:
    """The first `limit` keys of the server, or all; in random order where the workload says so."""
    found: list[bytes] = []
    with Admin(url) as admin:
        cursor: Any = b"0"
        only = () if workload.only is None else ("TYPE", workload.only)
        while True:
            cursor, page = admin.call("SCAN", cursor, "COUNT", 10_000, *only)
            found += page
            if cursor == b"0" or (limit is not None and len(found) >= limit):
                break
    if workload.ask == "these":
        random.Random(1).shuffle(found)
    return found[:limit]


def _anything(_: Workload) -> bool:
    return True


def _pipelined(workload: Workload) -> bool:
    return workload.ask != "keys" or not _is_strings(workload)


def _is_strings(workload: Workload) -> bool:
    return workload.types == ("string",)


def _seed_can(workload: Workload) -> bool:
    return workload.ask != "keys" and workload.types != ("json",)


def _peer(name: str, module: str, adapter: type[Peer], client: str | None = None) -> list[Reader]:
    """The two loops one can write with a client: SCAN, then MGET or a pipeline a page."""
    mget, pipeline = by_hand(adapter, mget=True), by_hand(adapter, mget=False)
    return [
        Reader(f"{name} MGET", client or name, module, mget, _is_strings),
        Reader(f"{name} pipeline", client or name, module, pipeline, _pipelined, limit=100_000),
    ]


OURS = "oneatatime"
SEED = "the seed's loop"

_ROWS = [
    Reader(OURS, OURS, "oneatatime", ours, _anything),
    Reader(f"{OURS} on uvloop", OURS, "oneatatime", ours, _anything, uvloop=True, default=False),
    *_peer("redis-py", "redis.asyncio", RedisPy),
    *_peer("redis-py blocking", "redis", RedisPyBlocking, client="redis-py"),
    *_peer("coredis", "coredis", Coredis),
    *_peer("valkey-glide", "glide", Glide),
    Reader(SEED, SEED, "redis.asyncio", seed, _seed_can, limit=30_000, rounds=3),
]

READERS = {row.name: row for row in _ROWS}
