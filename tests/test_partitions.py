"""Partitions of real servers: together they hold every key, each exactly once while nothing changes."""

from __future__ import annotations

import asyncio
import functools
import pickle
import random
from collections import Counter
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import AuthenticationFailed, Incomplete, InvalidInput, Partition
from oneatatime.server import EmbeddedServer
from tests.clusters import Cluster
from tests.nodes import Node
from tests.servers import Server


def keys_of(partitions: list[Partition], **arguments: Any) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for part in partitions:
        found.update(oneatatime.stream(part, **arguments).keys())
    return found


def exactly(names: list[str]) -> Counter[bytes]:
    return Counter(name.encode() for name in names)


def fill(server: Server, keys: int) -> list[str]:
    names = [f"key:{number}" for number in range(keys)]
    server.admin.mset(dict.fromkeys(names, "x"))
    return names


@pytest.mark.parametrize("partitions", [2, 3, 8, 37, 500])
@pytest.mark.parametrize("keys", [1, 40, 1_000, 70_000])
def test_each_key_of_a_quiet_server_is_in_exactly_one_partition(
    any_server: Server, keys: int, partitions: int
) -> None:
    names = fill(any_server, keys)
    parts = oneatatime.plan(any_server.url, partitions)
    assert len(parts) == partitions or keys < partitions * 64
    assert keys_of(parts) == exactly(names)


@pytest.mark.parametrize("count", [1, 10, 100_000])
def test_whatever_count_is(server: Server, count: int) -> None:
    names = fill(server, 5_000)
    parts = oneatatime.plan(server.url, 7)
    assert keys_of(parts, options=oneatatime.Options(count=count)) == exactly(names)
    assert keys_of(parts, match="*7", options=oneatatime.Options(count=count)) == exactly(
        [name for name in names if name.endswith("7")]
    )
    assert keys_of(parts, types="hash") == Counter()


def test_a_table_that_has_become_sparse_or_is_being_resized(any_server: Server) -> None:
    """Buckets that are empty make pages run far over an end; a resize keeps two tables for a while."""
    names = fill(any_server, 60_000)
    for size in (50_000, 20_000, 4_000, 900):
        gone, names = names[: len(names) - size], names[len(names) - size :]
        any_server.admin.delete(*gone)
        found = keys_of(oneatatime.plan(any_server.url, 16))
        assert set(found) == set(exactly(names))
        assert found.total() <= len(names) + 16


def test_no_key_is_missed_while_tables_grow_and_shrink_between_the_partitions(any_server: Server) -> None:
    """What is trimmed at an end must come in the next partition, whatever size the table has by then."""
    for seed in range(12):
        rng = random.Random(seed)
        any_server.admin.flushall()
        kept = fill(any_server, rng.choice([40, 700, 3_000]))
        noise = [f"noise:{number}" for number in range(30_000)]
        parts = oneatatime.plan(any_server.url, rng.choice([2, 8, 21]))
        found: Counter[bytes] = Counter()
        for part in rng.sample(parts, len(parts)):
            if rng.random() < 0.5:
                any_server.admin.mset(dict.fromkeys(rng.sample(noise, rng.choice([10, 1_000, 29_000])), "x"))
            else:
                any_server.admin.delete(*noise)
            found += keys_of([part], match="key:*")
        assert set(found) == set(exactly(kept)), f"seed {seed}"


def test_all_databases_big_and_small(server: Server) -> None:
    """A database of three keys has four buckets: cut into ranges, each key would be in several."""
    sizes = {0: 9_000, 1: 3, 2: 1, 5: 2_000, 9: 200}
    for db, size in sizes.items():
        with redis.Redis.from_url(f"{server.url}?db={db}") as admin:
            admin.mset({f"{db}:{number}": "x" for number in range(size)})
    parts = oneatatime.plan(server.url, 8, db="all")
    found = Counter((record.db, record.key) for part in parts for record in oneatatime.stream(part).records())
    assert found == Counter((db, b"%d:%d" % (db, n)) for db, size in sizes.items() for n in range(size))
    assert 8 <= len(parts) <= 11
    assert "of databases 1, 2" in " ".join(map(repr, parts))


def test_one_database_that_is_not_the_first(server: Server) -> None:
    """With db="all" the connection of the first look was taken, which is in another database."""
    with redis.Redis.from_url(f"{server.url}?db=7") as admin:
        admin.set("only", "x")
    assert list(oneatatime.stream(server.url, db="all").keys()) == [b"only"]
    assert keys_of(oneatatime.plan(server.url, 4, db="all")) == Counter([b"only"])


def test_pieces_of_a_giant_slot(cluster: Cluster) -> None:
    giant = cluster.fill(30_000, [77])
    others = cluster.fill(3_000, prefix="other")
    parts = oneatatime.plan(cluster.url, 12)
    pieces = [part for part in parts if part.run_id is not None]
    assert len(pieces) >= 7
    assert keys_of(parts) == Counter(giant + others)
    assert sum(keys_of(pieces).values()) == len(giant)


# Secrets


@pytest.fixture
def locked() -> Any:
    with EmbeddedServer() as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.mset({f"key:{number}": "x" for number in range(1_000)})
            admin.config_set("requirepass", "s3cret-of-mine")
        yield server


def test_a_partition_with_a_secret_holds_no_password(locked: EmbeddedServer, monkeypatch: Any) -> None:
    url = locked.url.replace("unix://", "unix://:s3cret-of-mine@")
    parts = oneatatime.plan(url, 4, secret="TEST_PASSWORD")
    for part in parts:
        assert b"s3cret" not in pickle.dumps(part) and "s3cret" not in repr(part)
    monkeypatch.setenv("TEST_PASSWORD", "s3cret-of-mine")
    assert keys_of(pickle.loads(pickle.dumps(parts))).total() == 1_000
    monkeypatch.setenv("TEST_PASSWORD", "another")
    with pytest.raises(AuthenticationFailed):
        keys_of(parts)
    monkeypatch.delenv("TEST_PASSWORD")
    with pytest.raises(AuthenticationFailed, match="TEST_PASSWORD is not set here"):
        keys_of(parts)


def password() -> str:
    return "s3cret-of-mine"


async def user_and_password() -> tuple[str, str]:
    return "default", "s3cret-of-mine"


@pytest.mark.parametrize("secret", [password, user_and_password])
def test_a_secret_may_be_a_callable(locked: EmbeddedServer, secret: Any) -> None:
    """And a source that has no password asks for it where it is planned, too."""
    parts = oneatatime.plan(locked.url, 4, secret=secret)
    assert keys_of(pickle.loads(pickle.dumps(parts))).total() == 1_000


@pytest.mark.parametrize(("secret", "says"), [("", "secret="), (7, "not int")])
def test_a_secret_that_is_none(locked: EmbeddedServer, secret: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        oneatatime.plan(locked.url, 4, secret=secret)


def test_a_secret_is_shown_nowhere(locked: EmbeddedServer) -> None:
    (part,) = oneatatime.plan(locked.url, 1, secret=functools.partial(str, "s3cret-of-mine"))
    assert part.deployment.login.credentials is not None
    assert "s3cret" not in repr(part.deployment.login.credentials) + repr(vars(part))


def test_a_secret_that_gives_none(locked: EmbeddedServer) -> None:
    with pytest.raises(AuthenticationFailed, match="gave no password, but int"):
        oneatatime.plan(locked.url, 4, secret=lambda: 7)


def test_a_secret_cannot_stand_for_two() -> None:
    url = "redis+sentinel://:one@127.0.0.1:1/service?sentinel_password=two"
    with pytest.raises(InvalidInput, match="passwords of their own"):
        oneatatime.plan(url, 4, secret="NAME")
    with pytest.raises(InvalidInput, match="TLS key"):
        oneatatime.plan("rediss://127.0.0.1:1?ssl_keyfile=x&ssl_password=y", 4, secret="NAME")


# Servers that are away


async def test_a_server_that_is_away_when_a_partition_begins_is_waited_for(node: Node) -> None:
    """It was there when the plan was made: a worker that begins meanwhile failed for nothing."""
    node.many([("SET", f"key:{number}", "x") for number in range(1_000)])
    (part,) = await oneatatime.aplan(f"redis://127.0.0.1:{node.port}", 1)
    node.kill(save=True)
    with pytest.raises(Incomplete, match="Partition 1 of 1"):
        [key async for key in oneatatime.stream(part, on_unreachable="fail").keys()]

    async def read() -> int:
        return len([key async for key in oneatatime.stream(part).keys()])

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.5)
    assert not reading.done()
    await asyncio.to_thread(node.start)
    assert await reading == 1_000
