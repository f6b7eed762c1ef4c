"""Given keys, in their order, wherever in a cluster they are."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import oneatatime
from tests.clusters import Cluster, Sentinel, caught_up
from tests.nodes import until
from tests.reading import gathered


async def test_values_come_in_the_order_of_their_keys(any_cluster: Cluster) -> None:
    keys = any_cluster.fill(3000)
    asked = [*reversed(keys), b"no such key", keys[7], keys[7], "key:11"]
    expected = [*reversed(keys), None, keys[7], keys[7], b"key:11"]
    assert await gathered(oneatatime.OneAtATime(any_cluster.url, asked)) == expected
    assert list(oneatatime.OneAtATime(any_cluster.url, asked[:50])) == expected[:50]


async def test_a_stream_of_given_keys_has_types_and_metadata(cluster: Cluster) -> None:
    keys = cluster.fill(300)
    asked = [*keys, b"no such key"]
    stream = oneatatime.stream(cluster.url, keys=asked, metadata="ttl", encoding="utf-8")
    records = await gathered(stream.records())
    assert [record.key for record in records] == [key.decode() for key in keys]
    assert {(record.type, record.ttl) for record in records} == {("string", None)}
    assert stream.statistics().vanished == 1


async def test_a_source_that_waits_is_read_key_by_key(cluster: Cluster) -> None:
    keys = cluster.fill(30)

    async def slowly() -> Any:
        for key in keys:
            yield key
            await asyncio.sleep(0.002)

    assert await gathered(oneatatime.OneAtATime(cluster.url, slowly())) == keys


async def test_an_open_slot_is_read_on_both_sides(any_cluster: Cluster) -> None:
    keys = any_cluster.fill(300, slots=[9000])
    migration = any_cluster.migration(9000, any_cluster.primaries()[0]).begin()
    migration.move(150)
    assert await gathered(oneatatime.OneAtATime(any_cluster.url, keys)) == keys
    migration.move()
    migration.finish()
    assert await gathered(oneatatime.OneAtATime(any_cluster.url, keys)) == keys


async def test_a_slot_that_moves_meanwhile(cluster: Cluster) -> None:
    keys = cluster.fill(2000, slots=[9000, 9001])
    one_at_a_time = oneatatime.OneAtATime(cluster.url, keys, count=20)
    found = []
    async for value in one_at_a_time:
        found.append(value)
        if len(found) == 200:
            migration = cluster.migration(9000, cluster.primaries()[0])
            await asyncio.to_thread(migration.run)
    assert found == keys


async def test_connections_that_are_killed(cluster: Cluster) -> None:
    """Each page that was under way took four seconds once: every key of it asked who has it by now."""
    keys, began = cluster.fill(2000), time.monotonic()
    found = []
    async for value in oneatatime.OneAtATime(cluster.url, keys, count=20):
        found.append(value)
        if len(found) in (100, 700, 1500):
            for node in cluster.primaries():
                node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert found == keys
    assert time.monotonic() - began < 8


async def test_a_big_value_is_found_again_after_its_slot_has_moved(cluster: Cluster) -> None:
    key = cluster.fill(1, slots=[9000])[0]
    cluster.owner(9000).ask("DEL", key)
    cluster.owner(9000).many([("RPUSH", key, *["x" * 100] * 500)] * 40)
    ((_, value),) = await gathered(oneatatime.stream(cluster.url))
    assert isinstance(value, oneatatime.Parts)
    assert len([element async for element in value]) == 20_000
    cluster.migration(9000, cluster.primaries()[0]).run()
    assert len([element async for element in value]) == 20_000
    assert len(await value.load()) == 20_000


async def test_the_primary_that_sentinel_names_by_then_is_asked(sentinel: Sentinel) -> None:
    keys = sentinel.fill(600)
    old, new = sentinel.primary(), sentinel.replica()
    until(lambda: caught_up(old, new), 5)
    found = []
    async for value in oneatatime.OneAtATime(sentinel.url, keys, count=20):
        found.append(value)
        if len(found) == 100:
            await asyncio.to_thread(old.kill)
            await asyncio.to_thread(sentinel.wait_for_another, old)
            await asyncio.to_thread(old.start)  # empty
    assert found == keys
