"""How the peers are used by hand: their best idiom a type. A new client is one class and one entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

PAGE = 1000  # COUNT, and commands in a pipeline: more is not faster with any of them

Page = tuple[Any, list[bytes]]
Asked = list[tuple[str, bytes]]
"""What to ask for each key: a type, for its value; or "type"; or "ttl"."""


class Peer(Protocol):
    async def open(self, url: str) -> None: ...
    async def close(self) -> None: ...
    async def page(self, cursor: Any, only: str | None) -> Page: ...
    async def mget(self, keys: list[bytes]) -> list[Any]: ...
    async def pipeline(self, asked: Asked) -> Any: ...


Idioms = dict[str, Callable[[Any, bytes], Any]]

_REDIS_PY: Idioms = {
    "string": lambda pipe, key: pipe.get(key),
    "hash": lambda pipe, key: pipe.hgetall(key),
    "list": lambda pipe, key: pipe.lrange(key, 0, -1),
    "set": lambda pipe, key: pipe.smembers(key),
    "zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    "stream": lambda pipe, key: pipe.xrange(key),
    "json": lambda pipe, key: pipe.execute_command("JSON.GET", key),
    "type": lambda pipe, key: pipe.type(key),
    "ttl": lambda pipe, key: pipe.pttl(key),
}
_COREDIS: Idioms = {**_REDIS_PY, "json": lambda pipe, key: pipe.json.get(key)}


class RedisPy:
    """redis-py, its asyncio client."""

    async def open(self, url: str) -> None:
        import redis.asyncio

        self.client: Any = redis.asyncio.Redis.from_url(url)

    async def close(self) -> None:
        await self.client.aclose()

    async def page(self, cursor: Any, only: str | None) -> Page:
        return await self.client.scan(cursor, count=PAGE, _type=only)  # type: ignore[no-any-return]

    async def mget(self, keys: list[bytes]) -> list[Any]:
        return await self.client.mget(keys)  # type: ignore[no-any-return]

    async def pipeline(self, asked: Asked) -> Any:
        pipe = self.client.pipeline(transaction=False)
        for what, key in asked:
            _REDIS_PY[what](pipe, key)
        return await pipe.execute()


class RedisPyBlocking:
    """redis-py, its blocking client: what a script without an event loop would do."""

    async def open(self, url: str) -> None:
        import redis

        self.client: Any = redis.Redis.from_url(url)

    async def close(self) -> None:
        self.client.close()

    async def page(self, cursor: Any, only: str | None) -> Page:
        return self.client.scan(cursor, count=PAGE, _type=only)  # type: ignore[no-any-return]

    async def mget(self, keys: list[bytes]) -> list[Any]:
        return self.client.mget(keys)  # type: ignore[no-any-return]

    async def pipeline(self, asked: Asked) -> Any:
        pipe = self.client.pipeline(transaction=False)
        for what, key in asked:
            _REDIS_PY[what](pipe, key)
        return pipe.execute()


class Coredis:
    """coredis, an asyncio client; its commands are spelt as redis-py's, but for JSON and SCAN's type."""

    async def open(self, url: str) -> None:
        import coredis

        parts = urlsplit(url)
        client: Any = coredis.Redis
        if parts.scheme == "unix":
            self.client = client(unix_socket_path=parts.path)
        else:
            self.client = client(host=parts.hostname, port=parts.port)
        await self.client.__aenter__()

    async def close(self) -> None:
        await self.client.__aexit__(None, None, None)

    async def page(self, cursor: Any, only: str | None) -> Page:
        return await self.client.scan(cursor, count=PAGE, type_=only)  # type: ignore[no-any-return]

    async def mget(self, keys: list[bytes]) -> list[Any]:
        return await self.client.mget(keys)  # type: ignore[no-any-return]

    async def pipeline(self, asked: Asked) -> Any:
        async with self.client.pipeline(transaction=False) as pipe:
            for what, key in asked:
                _COREDIS[what](pipe, key)
        return pipe.results


class Glide:
    """valkey-glide, its asyncio client."""

    async def open(self, url: str) -> None:
        import glide

        parts = urlsplit(url)
        address = (
            glide.NodeAddress(unix_socket_path=parts.path)
            if parts.scheme == "unix"
            else glide.NodeAddress(parts.hostname or "localhost", parts.port or 6379)
        )
        self.client: Any = await glide.GlideClient.create(glide.GlideClientConfiguration([address]))
        self._glide: Any = glide
        whole = glide.RangeByIndex(0, -1)
        self._ask: Idioms = {
            "string": lambda batch, key: batch.get(key),
            "hash": lambda batch, key: batch.hgetall(key),
            "list": lambda batch, key: batch.lrange(key, 0, -1),
            "set": lambda batch, key: batch.smembers(key),
            "zset": lambda batch, key: batch.zrange_withscores(key, whole),
            "stream": lambda batch, key: batch.xrange(key, glide.MinId(), glide.MaxId()),
            "json": lambda batch, key: batch.custom_command(["JSON.GET", key]),
            "type": lambda batch, key: batch.type(key),
            "ttl": lambda batch, key: batch.pttl(key),
        }

    async def close(self) -> None:
        await self.client.close()

    async def page(self, cursor: Any, only: str | None) -> Page:
        of_type = None if only is None else self._glide.ObjectType[only.upper()]
        cursor, keys = await self.client.scan(str(cursor), count=PAGE, type=of_type)
        return int(cursor), keys

    async def mget(self, keys: list[bytes]) -> list[Any]:
        return await self.client.mget(keys)  # type: ignore[no-any-return]

    async def pipeline(self, asked: Asked) -> Any:
        batch = self._glide.Batch(is_atomic=False)
        for what, key in asked:
            self._ask[what](batch, key)
        return await self.client.exec(batch, raise_on_error=True)
