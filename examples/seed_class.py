"""The class that started it all: an async iterator that awaits one key's value at each step.

Needs redis-py. Run it with a URL: python examples/seed_class.py redis://localhost
"""

import asyncio
import sys
from collections.abc import Iterable

from redis.asyncio import Redis


class OneAtATime:
    def __init__(self, redis: Redis, keys: Iterable[str]) -> None:
        self.redis = redis
        self.keys = keys

    def __aiter__(self) -> "OneAtATime":
        self.ikeys = iter(self.keys)
        return self

    async def __anext__(self) -> bytes | None:
        try:
            key = next(self.ikeys)
        except StopIteration:
            raise StopAsyncIteration from None
        return await self.redis.get(key)


async def main(url: str) -> None:
    async with Redis.from_url(url) as redis:
        async for value in OneAtATime(redis, ["Americas", "Africa", "Europe", "Asia"]):
            print(value)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost"))
