"""Servers die, freeze, load and hang up while they are read: every key comes, or an error says which not."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

import oneatatime
from chaos.checker import slots_named
from oneatatime import _post
from oneatatime._deployment import Deployment
from oneatatime._discovery import view_of
from oneatatime._options import Selection
from oneatatime._post import Post
from oneatatime._session import Session
from oneatatime._single import Database
from oneatatime._slot_keys import SlotKeys
from oneatatime._topology import Member, View
from oneatatime._work import Work
from tests.clusters import Cluster, Sentinel, caught_up, myself, slot_of
from tests.fake import FakeServer, as_array, bulk
from tests.nodes import Folder, Node, free_ports, until
from tests.promise import assert_promise, read, slowly
from tests.proxy import Fault, FaultProxy, Plan

pytestmark = pytest.mark.timeout(90)

once_or_more = pytest.mark.parametrize("unique", [False, True], ids=["at least once", "exactly once"])


def fill(node: Node, n: int = 3000) -> list[bytes]:
    keys = [b"key:%d" % number for number in range(n)]
    node.many([("SET", key, key) for key in keys])
    return keys


def is_loading(node: Node) -> bool:
    try:
        return node.info("persistence")["loading"] == "1"
    except OSError:
        return False


# One server


@once_or_more
@pytest.mark.parametrize("after", [1, 1000, 2900])
async def test_a_server_is_killed_and_comes_back_with_its_data(node: Node, unique: bool, after: int) -> None:
    keys = fill(node)
    times = await read(node.url, {after: lambda: node.restart(keep_data=True)}, unique=unique)
    assert_promise(times, keys, unique=unique)


async def test_a_server_is_killed_twice_and_again_while_nobody_reads(node: Node) -> None:
    keys = fill(node)

    def twice() -> None:
        node.restart(keep_data=True)
        time.sleep(0.3)
        node.restart(keep_data=True)

    events = {700: twice, 1500: lambda: node.restart(keep_data=True), 1501: lambda: time.sleep(0.5)}
    assert_promise(await read(node.url, events), keys)


async def test_a_server_is_away_for_a_while(node: Node) -> None:
    keys = fill(node)
    node.save()

    def away() -> None:
        node.kill()
        threading.Timer(1.5, node.start).start()

    assert_promise(await read(node.url, {1000: away}), keys)


async def test_a_server_that_stays_away_is_an_error_that_names_what_is_missing(node: Node) -> None:
    fill(node)
    with pytest.raises(oneatatime.Incomplete) as caught:
        await read(node.url, {1000: node.kill}, options=slowly(patience=0.5))
    assert caught.value.missing and caught.value.node


async def test_with_fail_nothing_is_waited_for(node: Node) -> None:
    fill(node)
    started = time.monotonic()
    with pytest.raises(oneatatime.Incomplete):
        await read(node.url, {1000: node.kill}, on_unreachable="fail")
    assert time.monotonic() - started < 5


async def test_a_server_that_comes_back_empty_has_nothing_to_deliver(node: Node) -> None:
    keys = fill(node)
    times = await read(node.url, {1000: lambda: node.restart(keep_data=False)})
    assert set(times) <= set(keys)


@once_or_more
async def test_a_server_loads_for_seconds(node: Node, unique: bool) -> None:
    keys = fill(node)
    node.save()

    def load() -> None:
        node.kill()
        node.start(wait=False, key_load_delay=500, loading_process_events_interval_bytes=1024)

    assert_promise(await read(node.url, {1000: load}, unique=unique), keys, unique=unique)


async def test_a_server_that_loads_at_the_beginning_is_waited_for(node: Node) -> None:
    keys = fill(node)
    node.save()
    node.kill()
    node.start(wait=False, key_load_delay=400, loading_process_events_interval_bytes=1024)
    until(lambda: is_loading(node), 5)
    assert_promise(await read(node.url), keys, unique=True)


async def test_a_reload_in_the_same_process_loses_nothing(node: Node) -> None:
    keys = fill(node)
    assert_promise(await read(node.url, {1000: lambda: node.ask("DEBUG", "RELOAD")}), keys)


async def test_a_server_that_freezes_longer_than_the_timeout(node: Node) -> None:
    keys = fill(node)

    def freeze() -> None:
        node.pause()
        threading.Timer(1.5, node.resume).start()

    options = slowly(timeout=0.4, connect_timeout=0.4)
    assert_promise(await read(node.url, {1000: freeze}, options=options), keys)


@once_or_more
async def test_connections_are_killed_again_and_again(node: Node, unique: bool) -> None:
    keys = fill(node)
    kill = lambda: node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # noqa: E731
    times = await read(node.url, dict.fromkeys(range(100, 3000, 300), kill), unique=unique)
    assert_promise(times, keys, unique=unique)
    assert len(times) == sum(times.values()) or not unique


async def test_connections_to_the_same_process_are_lost_and_next_to_nothing_comes_again(node: Node) -> None:
    keys = fill(node)
    kill = lambda: node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # noqa: E731
    times = await read(node.url, dict.fromkeys(range(100, 3000, 500), kill))
    assert_promise(times, keys)
    assert sum(times.values()) - len(times) <= 6 * 4 * 20  # a page of each range, each time


@pytest.mark.parametrize("offset", range(1, 14))
async def test_every_connection_is_cut_at_some_byte(node: Node, offset: int) -> None:
    keys = fill(node, 300)
    randomly = random.Random(offset)
    async with FaultProxy(node.url) as proxy:
        proxy.upcoming.extend(
            Plan(to_client=Fault(cut=randomly.randrange(1, 3000), reset=randomly.random() < 0.5))
            for _ in range(12)
        )
        while True:
            times: set[bytes] = set()
            try:
                async for key in oneatatime.stream(proxy.url, options=slowly()).keys():
                    times.add(key)
            except oneatatime.Error:
                assert not times, "it may fail before it has begun, and not later"
            else:
                break
    assert times == set(keys)


@pytest.mark.parametrize("ranges", [1, 4])
async def test_tables_grow_and_shrink_all_the_while(node: Node, ranges: int) -> None:
    keys = fill(node, 2000)
    names = [b"churn:%d" % number for number in range(20_000)]
    growing = itertools.cycle([True, False])

    def resize() -> None:
        grow = next(growing)
        node.many([("SET", name, name) if grow else ("UNLINK", name) for name in names])

    for _ in range(3):
        resize_often = dict.fromkeys(range(100, 2000, 250), resize)
        times = await read(node.url, resize_often, options=slowly(ranges=ranges, count=10))
        assert set(keys) <= set(times) <= {*keys, *names}


async def test_tables_grow_while_a_child_saves(node: Node) -> None:
    keys = fill(node, 2000)
    names = [b"churn:%d" % number for number in range(20_000)]
    node.ask("CONFIG", "SET", "rdb-key-save-delay", 200)

    def save_and_grow() -> None:
        node.ask("BGSAVE")
        node.many([("SET", name, name) for name in names])

    def shrink() -> None:
        node.many([("UNLINK", name) for name in names])

    times = await read(node.url, {200: save_and_grow, 1500: shrink})
    assert set(keys) <= set(times) <= {*keys, *names}


async def test_two_servers_behind_one_address_are_not_mixed_up(node: Node) -> None:
    folder = Folder()
    other = Node(node.binary, folder.path / "other", free_ports(1)[0])
    other.start()
    try:
        here, there = fill(node, 2000), [b"other:%d" % number for number in range(2000)]
        other.many([("SET", key, key) for key in there])
        async with _RoundRobin([node.port, other.port]) as url:
            times: set[bytes] = set()
            try:
                async for key in oneatatime.stream(url, options=slowly(patience=2.0)).keys():
                    times.add(key)
            except oneatatime.Error:
                return
            assert times >= set(here) or times >= set(there), "parts of two servers, and no error"
    finally:
        other.close()
        folder.close()


class _RoundRobin:
    """A port where each connection goes to the next server."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = itertools.cycle(ports)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", next(self._ports))

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(1 << 16):
                    sink.write(data)
            finally:
                sink.close()

        current = asyncio.current_task()
        assert current is not None
        self._tasks.add(current)
        await asyncio.gather(copy(reader, downstream), copy(upstream, writer), return_exceptions=True)
        self._tasks.discard(current)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


# A cluster


@once_or_more
async def test_a_primary_is_killed_replaced_and_comes_back_empty(
    cluster_with_replicas: Cluster, unique: bool
) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1500, slots=[9]) + cluster.fill(500)
    primary = cluster.owner(9)
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)

    def replace() -> None:
        primary.kill()
        cluster.failover(replica, "TAKEOVER")
        primary.restart(keep_data=False)
        cluster.wait_ok()

    assert_promise(await read(cluster.url, {500: replace}, unique=unique), keys, unique=unique)


async def test_a_primary_dies_and_is_replaced_by_election(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1500)
    primary = cluster.primaries()[2]
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    assert_promise(await read(cluster.url, {500: primary.kill}), keys)


@once_or_more
async def test_a_node_restarts_at_its_address_with_its_data(cluster: Cluster, unique: bool) -> None:
    keys = cluster.fill(1500)
    node = cluster.primaries()[1]
    times = await read(cluster.url, {400: lambda: node.restart(keep_data=True)}, unique=unique)
    assert_promise(times, keys, unique=unique)


async def test_a_frozen_primary_is_replaced_and_wakes_up_as_a_zombie(
    cluster_with_replicas: Cluster,
) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1500, slots=[9]) + cluster.fill(500)
    primary = cluster.owner(9)
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)

    def freeze() -> None:
        primary.pause()
        try:
            until(lambda: "master" in myself(replica).flags, 15)
            replica.ask("SET", keys[-1], keys[-1]) if slot_of(keys[-1]) == 9 else None
        finally:
            primary.resume()

    options = slowly(timeout=1.0)
    assert_promise(await read(cluster.url, {500: freeze}, options=options), keys)


async def test_an_incomplete_reading_names_all_that_it_did_not_deliver(cluster: Cluster) -> None:
    keys = cluster.fill(9000)
    await _names_what_is_left(cluster, keys, after=200)


async def test_so_does_one_that_gives_up_on_an_open_slot(cluster: Cluster) -> None:
    keys = cluster.fill(300, slots=[100]) + cluster.fill(6000)
    cluster.migration(100, cluster.primaries()[1]).begin().move(300)
    await _names_what_is_left(cluster, keys, after=10)


async def _names_what_is_left(cluster: Cluster, keys: list[bytes], *, after: int) -> None:
    node = cluster.primaries()[1]
    found: set[bytes] = set()
    with pytest.raises(oneatatime.Incomplete) as caught:
        async for key in oneatatime.stream(cluster.url, options=slowly(patience=2.0)).keys():
            found.add(key)
            if len(found) == after:
                await asyncio.to_thread(node.kill)
            if not len(found) % 20:
                await asyncio.sleep(0.02)
    named = slots_named(caught.value.missing)
    silent = [key for key in keys if key not in found and slot_of(key) not in named]
    assert not silent, f"{len(silent)} keys neither came nor are in {caught.value.missing}"


async def test_what_is_up_is_read_though_a_node_stays_down_if_so_asked(cluster: Cluster) -> None:
    keys = cluster.fill(1500)
    for one in cluster.nodes:
        one.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    node = cluster.primaries()[1]
    held = set(cluster.slots(node))
    node.kill()
    stream = oneatatime.stream(cluster.url, on_unreachable="skip", options=slowly(patience=2.0))
    found = {key async for key in stream.keys()}
    assert {key for key in keys if slot_of(key) not in held} <= found
    assert not stream.statistics().complete


@once_or_more
async def test_connections_to_all_nodes_are_killed_again_and_again(cluster: Cluster, unique: bool) -> None:
    keys = cluster.fill(1500)

    def kill() -> None:
        for node in cluster.nodes:
            node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    times = await read(cluster.url, dict.fromkeys(range(100, 1500, 200), kill), unique=unique)
    assert_promise(times, keys, unique=unique)


async def test_a_node_of_a_cluster_loads_for_a_while(cluster: Cluster) -> None:
    keys = cluster.fill(3000)
    node = cluster.primaries()[1]
    node.ask("CONFIG", "SET", "key-load-delay", 500)

    def reload() -> None:
        node.ask("DEBUG", "RELOAD")

    assert_promise(await read(cluster.url, {700: reload}), keys)


# Sentinel


@once_or_more
async def test_sentinels_swap_primary_and_replica_meanwhile(sentinel: Sentinel, unique: bool) -> None:
    keys = sentinel.fill(2000)
    until(lambda: caught_up(sentinel.primary(), sentinel.replica()), 5)
    assert_promise(await read(sentinel.url, {700: sentinel.failover}, unique=unique), keys, unique=unique)


async def test_a_primary_under_sentinels_dies(sentinel: Sentinel) -> None:
    keys = sentinel.fill(2000)
    old = sentinel.primary()
    until(lambda: caught_up(old, sentinel.replica()), 5)
    assert_promise(await read(sentinel.url, {700: old.kill}), keys)


async def test_the_former_primary_is_not_read_on(sentinel: Sentinel) -> None:
    """It keeps its keys and its role for a while after the sentinels chose another one."""
    keys = sentinel.fill(2000)
    old, new = sentinel.primary(), sentinel.replica()
    until(lambda: caught_up(old, new), 5)

    def swap() -> None:
        sentinel.failover()
        old.many([("DEL", key) for key in keys[:500]])  # refused, or only there: nobody knows of it

    assert_promise(await read(sentinel.url, {300: swap}), keys)


async def test_a_sentinel_that_is_down_is_no_hindrance(sentinel: Sentinel) -> None:
    keys = sentinel.fill(500)
    sentinel.sentinels[0].kill()
    assert_promise(await read(sentinel.url), keys, unique=True)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_side_of_an_open_slot_was_killed_and_replaced(
    cluster_with_replicas: Cluster, side: str
) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(600, slots=[100]) + cluster.fill(500)
    source, target = cluster.owner(100), cluster.primaries()[2]
    cluster.migration(100, target).begin().move(500)
    primary = source if side == "source" else target
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    primary.kill()
    cluster.failover(replica, "TAKEOVER")
    primary.restart(keep_data=False)
    cluster.wait_ok()
    assert_promise(await read(cluster.url, options=slowly(count=100)), keys)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_side_of_an_open_slot_restarts_with_its_data(cluster: Cluster, side: str) -> None:
    keys = cluster.fill(600, slots=[100]) + cluster.fill(500)
    source, target = cluster.owner(100), cluster.primaries()[2]
    cluster.migration(100, target).begin().move(300)
    node = source if side == "source" else target
    times = await read(cluster.url, {10: lambda: node.restart(keep_data=True)})
    assert_promise(times, keys)


# Another process answers


async def test_a_connection_that_is_opened_again_to_another_process_is_not_taken_for_the_first() -> None:
    """After a reply that was too big the new connection led to a restarted node: its run id was taken for
    that of the process whose cursors these were, and the rest of the slot was lost without a word."""
    info = lambda run_id: bulk(b"# Server\r\nrun_id:%b\r\n" % run_id)  # noqa: E731
    async with FakeServer({b"INFO": info(b"first")}) as server:
        node = Work(Deployment.of(server.url), oneatatime.Options(), Selection()).node(
            Deployment.of(server.url).login
        )
        session = node.session()
        post = Post(Member("id", "127.0.0.1", 1), node, session, session)
        await post.open()
        session.abort()
        assert await post.reopen()
        server.answers[b"INFO"] = info(b"second")
        session.abort()
        with pytest.raises(oneatatime.ConnectionLost, match="restarted"):
            await session.reopen()
        assert session.run_id == "first"
        assert not await post.reopen()
        post.abort()


def test_slots_that_were_asked_for_and_never_answered_are_asked_for_again() -> None:
    pages = SlotKeys(0b111, Selection(), 10, node="here")
    first = pages.request()
    assert pages.request() == first
    pages.take([2, 0, 3])
    second = pages.request()
    assert pages.request() == second
    pages.take([as_array([b"a"])])
    pages.take([as_array([b"b"])] if pages.request().replies == 1 else [as_array([]), as_array([b"b"])])
    assert pages.finished and pages.read == 0b111


async def test_given_keys_go_on_at_the_replica_that_took_over(cluster_with_replicas: Cluster) -> None:
    """The node that was gone was asked again and again, and nobody was asked who has its slots by now."""
    keys = cluster_with_replicas.fill(2000)
    node = cluster_with_replicas.primaries()[1]
    values = []
    async for value in oneatatime.OneAtATime(cluster_with_replicas.url, keys, options=slowly()):
        values.append(value)
        if len(values) == 300:
            await asyncio.to_thread(node.kill)
    assert values == keys


async def test_an_open_slot_whose_keys_are_all_at_a_target_that_is_gone_is_given_up(cluster: Cluster) -> None:
    """Nothing of it came any more, so its time did not run, and it was read for ever."""
    keys = cluster.fill(500) + cluster.fill(50, slots=[9])
    target = await asyncio.to_thread(cluster.add_node)
    await asyncio.to_thread(cluster.wait_ok)
    cluster.migration(9, target).begin().move()
    target.kill()
    with pytest.raises(oneatatime.Incomplete) as caught:
        await read(cluster.url, seconds=15, options=slowly(patience=1.5))
    assert slots_named(caught.value.missing) == {9}
    assert f"{target.port}, where they are being moved, is out of reach" in str(caught.value)
    assert keys


async def test_a_loop_that_takes_its_time_costs_the_nodes_next_to_nothing(cluster: Cluster) -> None:
    """Workers that waited for the loop were taken for stuck: five times a second nodes were asked why."""
    cluster.fill(2000)

    def connections() -> int:
        return sum(int(one.info("stats")["total_connections_received"]) for one in cluster.primaries())

    seen = 0
    stream = oneatatime.stream(cluster.url, options=slowly())
    async for _ in stream:
        seen += 1
        if seen == 100:
            before = connections()
            await asyncio.sleep(4)
            assert connections() - before <= 4 * 3 + 3
            break
    await stream.aclose()


async def test_a_connection_lost_at_the_verdict_costs_nothing_that_was_read(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole window was read again, and nobody said so."""
    keys, asked = cluster.fill(1500), Counter[Session]()

    async def lost_once(session: Session, member: Member) -> View:
        asked[session] += 1
        if asked[session] == 2:
            session.abort()
        return await view_of(session, member)

    monkeypatch.setattr(_post, "view_of", lost_once)
    options = slowly(count=5000, ahead=1 << 20, ranges=3)  # a window is one page
    assert_promise(await read(cluster.url, options=options), keys, unique=True)
    assert max(asked.values()) > 2


async def test_what_was_seen_is_kept_until_the_last_worker_has_left() -> None:
    """One gave up, and what another still delivered came twice."""
    work = Work(Deployment.of("redis://127.0.0.1:1"), oneatatime.Options(), Selection(unique="disk"))
    database = Database(work, None, 0)  # type: ignore[arg-type]
    database._end()
    database._workers = 2
    await database._worker(lambda _: None)
    assert database._seen is not None and database._seen.fresh([b"a"]) == [b"a"]
    await database._worker(lambda _: None)
    with pytest.raises(oneatatime.StreamClosed):
        database._seen.fresh([b"a"])
