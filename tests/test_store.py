"""Batches into a deployment: all of it arrives, whatever befalls the servers, and every refusal is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import oneatatime
from oneatatime import Opaque, Options, Record
from tests.clusters import tag
from tests.compare import assert_same, everything
from tests.nodes import Node

FAR = int(time.time() * 1000) + 3_600_000
HASTY = Options(patience=20.0, connect_timeout=2.0, timeout=5.0)


def records(count: int, kinds: tuple[str, ...] = ("string", "hash", "list", "set", "zset", "stream")) -> Any:
    made = {
        "string": lambda n: b"v%d" % n,
        "hash": lambda n: {b"f": b"%d" % n, b"": b"x"},
        "list": lambda n: [b"%d" % n, b"a", b"a"],
        "set": lambda n: {b"%d" % n, b"m"},
        "zset": lambda n: [(b"m", n / 7), (b"n", float("inf"))],
        "stream": lambda n: [(b"%d-1" % (n + 1), {b"f": b"v"})],
    }
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield Record(b"key:%d" % number, kind, made[kind](number))


async def written(target: Any, **how: Any) -> oneatatime.Loaded:
    how.setdefault("options", HASTY)
    return await oneatatime.load(records(6000), target, **how)


def keys_of(nodes: list[Any]) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for node in nodes:
        held = everything(node)
        assert not set(found) & set(held)
        found.update(held)
    return found


def check(found: dict[bytes, Any], count: int = 6000) -> None:
    wanted = {record.key: record for record in records(count)}
    assert set(found) == set(wanted)
    for key, record in wanted.items():
        one = found[key]
        assert one["type"] == record.type
        if record.type == "zset":
            assert [(member, float(score)) for member, score in one["value"]] == record.value
        elif record.type == "stream":
            assert one["value"] == [(record.value[0][0], [b"f", b"v"])]
        else:
            assert one["value"] == record.value


class TestOneServer:
    async def test_everything_arrives(self, any_server, no_leaks) -> None:
        loaded = await written(any_server.url)
        assert loaded.written == 6000 and loaded.replaced == loaded.skipped == 0
        assert loaded.types == dict.fromkeys(("string", "hash", "list", "set", "zset", "stream"), 1000)
        check(everything(any_server))

    async def test_what_was_there_is_replaced(self, any_server) -> None:
        admin = any_server.admin
        for number in range(6):
            admin.hset(f"key:{number}", "old", "old")
            admin.pexpireat(f"key:{number}", FAR)
        loaded = await written(any_server.url)
        assert loaded.written == 6000
        check(everything(any_server))
        assert all(one["expires_at"] == -1 for one in everything(any_server).values())

    async def test_when_keys_expire(self, any_server) -> None:
        before = list(records(12))
        kept = [record._replace(expires_at=FAR) for record in before]
        over = [record._replace(key=b"over" + record.key, expires_at=1000) for record in before]
        loaded = await oneatatime.load([*kept, *over], any_server.url)
        assert (loaded.written, loaded.expired) == (12, 12)
        for one in everything(any_server).values():
            assert abs(one["expires_at"] - FAR) < 1001

    @pytest.mark.parametrize("conflict", ["skip", "fail"])
    async def test_what_is_there_stays(self, conflict, server) -> None:
        admin = server.admin
        admin.set("key:3000", "mine")
        admin.set("key:7", "mine")
        if conflict == "skip":
            loaded = await written(server.url, on_conflict="skip")
            assert (loaded.written, loaded.skipped) == (5998, 2)
        else:
            with pytest.raises(oneatatime.Error, match="exists already") as caught:
                await written(server.url, on_conflict="fail")
            assert caught.value.key == b"key:7"
        assert admin.get("key:7") == b"mine" and admin.get("key:3000") == b"mine"

    async def test_a_key_twice(self, server) -> None:
        twice = [Record(b"l", "list", [b"a"]), Record(b"l", "list", [b"b"]), Record(b"l", "list", [b"c"])]
        await oneatatime.load(twice, server.url)
        assert server.admin.lrange("l", 0, -1) == [b"c"]
        server.admin.flushall()
        loaded = await oneatatime.load(twice, server.url, on_conflict="skip")
        assert (loaded.written, loaded.skipped) == (3, 0)
        assert server.admin.lrange("l", 0, -1) == [b"c"]

    async def test_a_dry_run_writes_nothing(self, server) -> None:
        server.admin.set("key:7", "mine")
        before = everything(server)
        for conflict, counts in (("replace", (6000, 1, 0)), ("skip", (5999, 0, 1))):
            loaded = await written(server.url, on_conflict=conflict, dry_run=True)
            assert (loaded.written, loaded.replaced, loaded.skipped) == counts
        assert_same(everything(server), before)

    async def test_databases(self, server) -> None:
        some = [record._replace(db=number % 3) for number, record in enumerate(records(60))]
        loaded = await oneatatime.load(some, server.url)
        assert loaded.written == 60
        for db in range(3):
            assert set(everything(server, db=db)) == {record.key for record in some if record.db == db}
            server.admin.execute_command("SELECT", db)
            server.admin.flushdb()
        server.admin.execute_command("SELECT", 0)
        loaded = await oneatatime.load(some, server.url, db=2)
        assert (loaded.written, loaded.left_out) == (20, 40)
        assert len(everything(server, db=2)) == 20 and not everything(server)


class TestRefusals:
    async def test_a_full_server(self, node) -> None:
        node.ask("CONFIG", "SET", "maxmemory", "4mb")
        big = (Record(b"key:%d" % number, "string", b"x" * 10_000) for number in range(2000))
        with pytest.raises(oneatatime.ServerFailure, match=r"OOM.*maxmemory") as caught:
            await oneatatime.load(big, f"redis://localhost:{node.port}")
        assert caught.value.command == "SET" and caught.value.key and caught.value.node

    async def test_a_replica(self, sentinel) -> None:
        with pytest.raises(oneatatime.ServerFailure, match="import into its primary"):
            await oneatatime.load(records(10), f"redis://localhost:{sentinel.replica().port}")

    async def test_the_key_is_named(self, server) -> None:
        mixed = [*records(30), Record(b"bad", "dump", Opaque("dump", b"nonsense")), *records(30)]
        with pytest.raises(oneatatime.ServerFailure, match="JSON lines and Parquet") as caught:
            await oneatatime.load(mixed, server.url)
        assert caught.value.key == b"bad" and caught.value.command == "RESTORE"

    @pytest.mark.parametrize(
        ("kind", "value"),
        [("hash", b"x"), ("list", [None]), ("zset", [b"m"]), ("string", None), ("stream", [(b"1-1", {})])],
    )
    async def test_a_value_that_is_none(self, kind, value, server) -> None:
        with pytest.raises(oneatatime.InvalidInput) as caught:
            await oneatatime.load([Record(b"bad", kind, value)], server.url)
        assert caught.value.key == b"bad"

    async def test_fields_that_expire_where_they_cannot(self, redis_server) -> None:
        if redis_server.admin.info()["redis_version"] >= "7.4":
            pytest.skip("it can")
        record = Record(b"h", "hash", {b"f": b"v"}, details={b"f": FAR})
        with pytest.raises(oneatatime.InvalidInput, match="fields of this hash expire") as caught:
            await oneatatime.load([record], redis_server.url)
        assert caught.value.key == b"h" and not redis_server.admin.exists("h")
        await oneatatime.load(
            [record._replace(details={b"f": 1000}, value={b"g": b"v", b"f": b"v"})], redis_server.url
        )
        assert redis_server.admin.hgetall("h") == {b"g": b"v"}


async def slowly(count: int = 6000, pause: float = 0.02) -> Any:
    some: list[Record] = []
    for record in records(count):
        some.append(record)
        if len(some) == 100:
            yield some
            some = []
            await asyncio.sleep(pause)
    yield some


class TestFailures:
    async def test_connections_that_are_cut(self, node, no_leaks) -> None:
        async def cut() -> None:
            for _ in range(15):
                await asyncio.sleep(0.05)
                node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        loading = oneatatime.load(slowly(), f"redis://localhost:{node.port}", options=HASTY)
        loaded, _ = await asyncio.gather(loading, cut())
        assert loaded.written == 6000
        check(everything(node))

    async def test_a_server_that_is_restarted(self, node) -> None:
        async def restart() -> None:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(node.kill, save=True)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(node.restart, keep_data=True)

        loading = oneatatime.load(slowly(), f"redis://localhost:{node.port}", options=HASTY)
        loaded, _ = await asyncio.gather(loading, restart())
        assert loaded.written == 6000
        assert len(everything(node)) >= 5900  # what was acknowledged after the save went with the process

    async def test_a_server_that_stays_away(self, node) -> None:
        url = f"redis://localhost:{node.port}"
        node.kill()
        with pytest.raises(oneatatime.Unreachable):
            await oneatatime.load(records(10), url, options=Options(patience=0.3))

    async def test_a_failover(self, sentinel) -> None:
        async def fail_over() -> None:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(sentinel.failover)

        loading = oneatatime.load(slowly(pause=0.05), sentinel.url, options=HASTY)
        loaded, _ = await asyncio.gather(loading, fail_over())
        assert loaded.written == 6000
        found = everything(sentinel.primary())
        # what the old primary acknowledged and could not pass on went with it: that is Redis's replication
        assert b"key:0" in found and b"key:5999" in found
        for record in records(6000):
            assert record.key not in found or found[record.key]["type"] == record.type


class TestClusters:
    async def test_everything_arrives(self, any_cluster, no_leaks) -> None:
        loaded = await written(any_cluster.url)
        assert loaded.written == 6000
        check(keys_of(any_cluster.primaries()))
        loaded = await written(any_cluster.url, on_conflict="skip")
        assert (loaded.written, loaded.skipped) == (0, 6000)

    async def test_slots_that_move_meanwhile(self, any_cluster) -> None:
        source, _, target = any_cluster.primaries()
        slots = any_cluster.slots(source)[:40]

        def move() -> None:
            for slot in slots:
                any_cluster.migration(slot, target, source).run()

        def both() -> list[Any]:
            return [
                record._replace(key=b"{%s}" % tag(slots[n % 40]).encode() + record.key)
                for n, record in enumerate(records(6000))
            ]

        some = both()

        async def feed() -> Any:
            for start in range(0, len(some), 100):
                yield some[start : start + 100]
                await asyncio.sleep(0.02)

        loaded, _ = await asyncio.gather(
            oneatatime.load(feed(), any_cluster.url, options=HASTY), asyncio.to_thread(move)
        )
        assert loaded.written == 6000
        found = keys_of(any_cluster.primaries())
        check({key.partition(b"}")[2]: one for key, one in found.items()})

    async def test_an_open_slot(self, cluster) -> None:
        slot = 9
        name = tag(slot).encode()
        some = [record._replace(key=b"{%b}%b" % (name, record.key)) for record in records(600)]
        await oneatatime.load(some[:300], cluster.url)
        migration = cluster.migration(slot, cluster.primaries()[2]).begin()
        migration.move(100)
        loaded = await oneatatime.load(some, cluster.url, options=HASTY)
        assert loaded.written == 600
        migration.move()
        migration.finish()
        found = keys_of(cluster.primaries())
        check({key.partition(b"}")[2]: one for key, one in found.items()}, 600)

    async def test_a_primary_that_dies(self, cluster_with_replicas) -> None:
        cluster = cluster_with_replicas
        victim: Node = cluster.primaries()[0]

        async def kill() -> None:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(victim.kill)

        loading = oneatatime.load(slowly(pause=0.06), cluster.url, options=HASTY)
        loaded, _ = await asyncio.gather(loading, kill())
        assert loaded.written == 6000
        assert len(keys_of([node for node in cluster.primaries() if node.alive])) >= 5900
