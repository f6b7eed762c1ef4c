"""The loop that this project began with, on a sample of the demo's keys: one await, one round trip a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

_SAMPLE_SECONDS = 3.0
_SAMPLE_KEYS = 100_000  # more than it can do in that time

_READ: dict[str, Callable[[Any, bytes], Awaitable[Any]]] = {
    "string": lambda redis, key: redis.get(key),
    "hash": lambda redis, key: redis.hgetall(key),
    "list": lambda redis, key: redis.lrange(key, 0, -1),
    "set": lambda redis, key: redis.smembers(key),
    "zset": lambda redis, key: redis.zrange(key, 0, -1, withscores=True),
    "stream": lambda redis, key: redis.xrange(key),
}


class OneAtATime:
    """The seed's class, reading each key with the command of its type."""

    def __init__(self, redis: Any, keys: list[tuple[bytes, str]]) -> None:
        self.redis = redis
        self.keys = keys

    def __aiter__(self) -> OneAtATime:
        self.ikeys = iter(self.keys)
        return self

    async def __anext__(self) -> Any:
        try:
            key, kind = next(self.ikeys)
        except StopIteration:
            raise StopAsyncIteration from None
        return await _READ[kind](self.redis, key)


@dataclass(frozen=True)
class Sample:
    """How far the seed's loop came: `keys` in `elapsed` seconds."""

    keys: int
    elapsed: float


def measure(url: str) -> Sample | None:
    """The seed's loop over a few seconds' worth of keys, as they come; None without redis-py."""
    try:
        import redis.asyncio as redis_asyncio
    except ImportError:
        return None
    return asyncio.run(_measure(redis_asyncio.Redis.from_url(url), url))


async def _measure(redis: Any, url: str) -> Sample:
    keys = await _sample(url)
    count = 0
    try:
        begin = time.perf_counter()
        async for _ in OneAtATime(redis, keys):
            count += 1
            if time.perf_counter() - begin > _SAMPLE_SECONDS:
                break
        return Sample(count, time.perf_counter() - begin)
    finally:
        await redis.aclose()


async def _sample(url: str) -> list[tuple[bytes, str]]:
    """Keys with their types, small values only: SCAN gives them in an order like a random one."""
    import oneatatime

    keys: list[tuple[bytes, str]] = []
    async with oneatatime.stream(url) as stream:
        async for record in stream.records():
            if record.type in _READ and not isinstance(record.value, oneatatime.Parts):
                keys.append((record.key, record.type))
            if len(keys) == _SAMPLE_KEYS:
                break
    return keys
