"""Keys that are deleted, expire, change their type or become empty between SCAN and fetch."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import Options, Stream
from tests.servers import Server

ONE = Options(ranges=1)

WRITERS: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda redis, key: redis.set(key, "text"),
    "empty string": lambda redis, key: redis.set(key, ""),
    "hash": lambda redis, key: redis.hset(key, mapping={"a": "1", "b": "2"}),
    "list": lambda redis, key: redis.rpush(key, "a", "b"),
    "set": lambda redis, key: redis.sadd(key, "a", "b"),
    "zset": lambda redis, key: redis.zadd(key, {"a": 1, "b": 2}),
    "stream": lambda redis, key: redis.xadd(key, {"a": "1"}, id="1-1"),
    "empty stream": lambda redis, key: redis.xgroup_create(key, "group", mkstream=True),
}
VALUES: dict[str, Any] = {
    "string": b"text",
    "empty string": b"",
    "hash": {b"a": b"1", b"b": b"2"},
    "list": [b"a", b"b"],
    "set": {b"a", b"b"},
    "zset": [(b"a", 1.0), (b"b", 2.0)],
    "stream": [(b"1-1", {b"a": b"1"})],
    "empty stream": [],
}

Change = Callable[[Any, str, str], Any]
CHANGES: dict[str, Change] = {
    "deleted": lambda redis, key, kind: redis.delete(key),
    "expired": lambda redis, key, kind: redis.pexpire(key, 1),
    "moved": lambda redis, key, kind: redis.rename(key, "new:" + key),
    "emptied": lambda redis, key, kind: EMPTIERS[kind.removeprefix("empty ")](redis, key),
}
EMPTIERS: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda redis, key: redis.set(key, ""),
    "hash": lambda redis, key: redis.hdel(key, "a", "b"),
    "list": lambda redis, key: redis.ltrim(key, 1, 0),
    "set": lambda redis, key: redis.srem(key, "a", "b"),
    "zset": lambda redis, key: redis.zremrangebyrank(key, 0, -1),
    "stream": lambda redis, key: redis.xtrim(key, 0),
}


class Interruption:
    """Does something just when a page of keys has come and before their values are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[bytes]], None]) -> None:
        from oneatatime import _fetch

        batches = _fetch.Fetch.batches

        def interrupted(fetch: Any, keys: list[bytes]) -> Any:
            change(keys)
            return batches(fetch, keys)

        monkeypatch.setattr(_fetch.Fetch, "batches", interrupted)


async def read(stream: Stream) -> dict[bytes, Any]:
    return {key: value async for key, value in stream}


@pytest.mark.parametrize("guessed", [False, True], ids=["types unknown", "types known"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", WRITERS)
async def test_gone_between_scan_and_fetch(
    server: Server, monkeypatch: pytest.MonkeyPatch, kind: str, change: str, guessed: bool, no_leaks: None
) -> None:
    for n in range(20):
        WRITERS[kind](server.admin, f"key:{n}")
    changed = {f"key:{n}".encode() for n in range(0, 20, 3)}

    def interrupt(keys: list[bytes]) -> None:
        for key in changed & set(keys):
            CHANGES[change](server.admin, key.decode(), kind)
        if change == "expired":
            time.sleep(0.003)

    Interruption(monkeypatch, interrupt)
    types = kind.removeprefix("empty ") if guessed else None
    stream = oneatatime.stream(server.url, options=ONE, types=types)
    found = await read(stream)
    stays = change == "emptied" and kind.removeprefix("empty ") in ("string", "stream")
    expected = {b"key:%d" % n: VALUES[kind] for n in range(20) if n % 3}
    if stays:
        expected |= dict.fromkeys(changed, VALUES["empty " + kind.removeprefix("empty ")])
    found = {key: value for key, value in found.items() if not key.startswith(b"new:")}
    assert found == expected
    done = stream.statistics()
    assert done.vanished == (0 if stays else len(changed))
    assert done.complete


@pytest.mark.parametrize("after", WRITERS)
@pytest.mark.parametrize("before", WRITERS)
async def test_another_type_between_scan_and_fetch(
    server: Server, monkeypatch: pytest.MonkeyPatch, before: str, after: str, no_leaks: None
) -> None:
    for n in range(30):
        WRITERS[before](server.admin, f"key:{n}")
    changed = {f"key:{n}".encode() for n in range(0, 30, 4)}

    def interrupt(keys: list[bytes]) -> None:
        for key in sorted(changed & set(keys)):
            server.admin.delete(key)
            WRITERS[after](server.admin, key.decode())

    Interruption(monkeypatch, interrupt)
    for types in (None, before.removeprefix("empty ")):
        stream = oneatatime.stream(server.url, options=Options(ranges=1, count=10), types=types)
        found = await read(stream)
        expected = {b"key:%d" % n: VALUES[before] for n in range(30) if n % 4}
        if types is None or types == after.removeprefix("empty "):
            expected |= dict.fromkeys(changed, VALUES[after])
        assert found == expected
        assert stream.statistics().complete
        for key in changed:
            server.admin.delete(key)
            WRITERS[before](server.admin, key.decode())


async def test_given_keys_that_go_stay_in_their_place(
    server: Server, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    server.admin.mset({f"key:{n}": n for n in range(100)})

    def interrupt(keys: list[bytes]) -> None:
        server.admin.delete(*(key for key in keys if int(key[4:]) % 7 == 0), "no key")

    Interruption(monkeypatch, interrupt)
    keys = [f"key:{n}" for n in range(100)]
    found = [value async for value in oneatatime.OneAtATime(server.url, keys, count=100)]
    assert found == [None if n % 7 == 0 else b"%d" % n for n in range(100)]


@pytest.mark.parametrize("ranges", [1, 3])
async def test_everything_goes_in_the_middle(server: Server, ranges: int, no_leaks: None) -> None:
    server.admin.mset({f"key:{n}": n for n in range(3000)})
    stream = oneatatime.stream(server.url, options=Options(ranges=ranges, count=50, ahead=1))
    await anext(stream)
    server.admin.flushall()
    rest = [item async for item in stream]
    assert all(key == b"key:" + value for key, value in rest)
    done = stream.statistics()
    assert done.complete and done.keys == len(rest) + 1 < 3000


async def test_a_key_that_changes_its_type_all_the_time(server: Server, no_leaks: None) -> None:
    """Each look finds another type: in the end a value that it had, or an error that names it."""
    server.admin.mset({f"key:{n}": n for n in range(200)})
    admin = redis.Redis(unix_socket_path=server.path, protocol=2)
    over = threading.Event()

    def change() -> None:
        for kind in itertools.cycle(WRITERS):
            if over.is_set():
                return
            pipeline = admin.pipeline()
            pipeline.delete("key:restless")
            WRITERS[kind](pipeline, "key:restless")
            pipeline.execute()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(60):
            try:
                found = await read(oneatatime.stream(server.url))
            except oneatatime.ServerFailure as error:
                assert error.key == b"key:restless"
                continue
            value = found.pop(b"key:restless", VALUES["string"])
            assert value in VALUES.values()
            assert found == {b"key:%d" % n: b"%d" % n for n in range(200)}
    finally:
        over.set()
        thread.join()
        admin.close()


# A writer that never rests


class Writer(threading.Thread):
    """Writes, deletes, expires and retypes volatile keys; the value of each says whose it is."""

    def __init__(self, path: str, seed: int) -> None:
        super().__init__()
        self.over = threading.Event()
        self._redis: Any = redis.Redis(unix_socket_path=path, protocol=2)
        self._random = random.Random(seed)

    def run(self) -> None:
        while not self.over.is_set():
            pipeline = self._redis.pipeline(transaction=True)
            for _ in range(50):
                self._change(pipeline, f"volatile:{self._random.randrange(3000)}")
            pipeline.execute()
        self._redis.close()

    def _change(self, pipeline: Any, key: str) -> None:
        pipeline.delete(key)
        choice = self._random.randrange(9)
        big = 1 if self._random.random() < 0.9 else 300
        if choice == 0:
            pipeline.set(key, key * big)
        elif choice == 1:
            pipeline.hset(key, mapping={f"{key}/{n}": key for n in range(big)})
        elif choice == 2:
            pipeline.rpush(key, *[key] * big)
        elif choice == 3:
            pipeline.sadd(key, *(f"{key}/{n}" for n in range(big)))
        elif choice == 4:
            pipeline.zadd(key, {f"{key}/{n}": 1 for n in range(big)})
        elif choice == 5:
            pipeline.xadd(key, {key: key})
        elif choice == 6:
            pipeline.set(key, key, px=self._random.randrange(1, 20))


def belongs(key: str, value: Any) -> bool:
    """Whether it is a value that the writer wrote under this very key."""
    if isinstance(value, str):
        return value.replace(key, "") == ""
    if isinstance(value, dict):
        return set(value.values()) == {key} and all(field.startswith(f"{key}/") for field in value)
    if isinstance(value, set):
        return bool(value) and all(member.startswith(f"{key}/") for member in value)
    pairs = [pair for pair in value if isinstance(pair, tuple)]
    if not pairs:
        return set(value) == {key}
    return all(first.startswith(f"{key}/") or second == {key: key} for first, second in pairs)


@pytest.mark.parametrize(
    "options",
    [Options(), Options(count=20), Options(ranges=4, count=100, burst=5000, ahead=20_000)],
    ids=repr,
)
async def test_a_writer_that_never_rests(server: Server, options: Options, no_leaks: None) -> None:
    stable = {f"stable:{n}": f"stable:{n}" * (1 + n % 50) for n in range(2000)}
    server.admin.mset(stable)  # type: ignore[arg-type]
    writers = [Writer(server.path, seed) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        deadline = time.monotonic() + 1.5
        vanished = rounds = 0
        while time.monotonic() < deadline:
            stream = oneatatime.stream(server.url, options=options, encoding="utf-8")
            found: dict[str, Any] = {}
            async for key, value in stream:
                found[key] = value
                if key.startswith("volatile:"):
                    assert belongs(key, value), (key, value)
                await asyncio.sleep(0)
            assert {key: value for key, value in found.items() if key in stable} == stable
            assert all(key in stable or key.startswith("volatile:") for key in found)
            vanished += stream.statistics().vanished
            rounds += 1
        assert rounds > 1 and vanished
    finally:
        for writer in writers:
            writer.over.set()
        for writer in writers:
            writer.join()
