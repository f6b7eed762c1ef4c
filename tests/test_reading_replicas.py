"""Reading from replicas, on request: only from those that have what their primary had at the beginning."""

from __future__ import annotations

import asyncio
import threading

import pytest

import oneatatime
from tests.clusters import Cluster, Sentinel, caught_up
from tests.nodes import Folder, Node, free_ports, until
from tests.promise import assert_promise, read, slowly
from tests.servers import Server

pytestmark = pytest.mark.timeout(90)


def settle(cluster: Cluster) -> None:
    for primary in cluster.primaries():
        for replica in cluster.replicas(primary):
            until(lambda p=primary, r=replica: caught_up(p, r), 5)  # type: ignore[misc]


async def test_replicas_in_sync_deliver_everything_and_primaries_are_spared(
    cluster_with_replicas: Cluster,
) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1500)
    settle(cluster)
    for node in cluster.nodes:
        node.ask("CONFIG", "RESETSTAT")
    assert_promise(await read(cluster.url, read_from="replica"), keys, unique=True)
    for node in cluster.primaries():
        stats = node.ask("INFO", "commandstats").decode()
        assert "cmdstat_scan:" not in stats and "cmdstat_mget:" not in stats


async def test_a_replica_that_never_synced_is_not_believed(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1000)
    settle(cluster)
    primary = cluster.primaries()[0]
    (replica,) = cluster.replicas(primary)
    primary.ask("ACL", "SETUSER", "default", "-psync", "-sync", "-replconf")
    replica.restart(keep_data=False)
    assert replica.scan() == []  # "complete, and empty"
    try:
        times = await read(cluster.url, read_from="replica", options=slowly(patience=2.0))
    except oneatatime.Incomplete as error:
        assert error.missing
    else:
        assert_promise(times, keys)
    finally:
        primary.ask("ACL", "SETUSER", "default", "+@all")


async def test_a_replica_that_lags_is_waited_for_or_not_read(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    settle(cluster)
    primary = cluster.primaries()[0]
    (replica,) = cluster.replicas(primary)
    replica.pause()  # what is written now is on its way only
    try:
        keys = cluster.fill(600, slots=[1])
    finally:
        replica.resume()
    assert_promise(await read(cluster.url, read_from="replica"), keys)


@pytest.mark.parametrize("load", ["disabled", "swapdb", "on-empty-db"])
async def test_a_replica_syncs_anew_meanwhile(cluster_with_replicas: Cluster, load: str) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1500, slots=[1])
    settle(cluster)
    primary = cluster.owner(1)
    (replica,) = cluster.replicas(primary)
    replica.ask("CONFIG", "SET", "repl-diskless-load", load)

    def resync() -> None:
        primary.ask("DEBUG", "CHANGE-REPL-ID")
        replica.ask("CLIENT", "KILL", "TYPE", "primary")

    assert_promise(await read(cluster.url, {400: resync}, read_from="replica"), keys)


async def test_a_replica_is_promoted_while_it_is_read(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(1500, slots=[1])
    settle(cluster)
    (replica,) = cluster.replicas(cluster.owner(1))
    times = await read(cluster.url, {400: lambda: cluster.failover(replica)}, read_from="replica")
    assert_promise(times, keys)


async def test_a_replica_under_sentinels(sentinel: Sentinel) -> None:
    keys = sentinel.fill(1000)
    until(lambda: caught_up(sentinel.primary(), sentinel.replica()), 5)
    sentinel.primary().ask("CONFIG", "RESETSTAT")  # what the test before did there
    assert_promise(await read(sentinel.url, read_from="replica"), keys, unique=True)
    assert "cmdstat_scan:" not in sentinel.primary().ask("INFO", "commandstats").decode()


async def test_a_replica_that_was_emptied_meanwhile_is_read_anew(sentinel: Sentinel) -> None:
    """It comes back in sync, in the same process, with the same history: only its absence tells."""
    keys = sentinel.fill(3000)
    primary, replica = sentinel.primary(), sentinel.replica()
    until(lambda: caught_up(primary, replica), 5)

    def empty() -> None:  # as a replica is that fails to load what its primary sends
        primary.ask("CONFIG", "SET", "repl-backlog-size", 16_384)
        primary.ask("ACL", "SETUSER", "default", "-psync", "-sync")
        primary.ask("CLIENT", "KILL", "TYPE", "replica")
        replica.ask("CONFIG", "SET", "replica-read-only", "no")
        replica.ask("FLUSHALL", "SYNC")
        replica.ask("CONFIG", "SET", "replica-read-only", "yes")
        primary.many(
            [("SET", "filler", b"x" * 200_000), ("DEL", "filler")]
        )  # too much to send the rest alone
        allow = threading.Timer(3, primary.ask, ["ACL", "SETUSER", "default", "+@all"])
        allow.start()

    assert_promise(await read(sentinel.url, {600: empty}, read_from="replica"), keys)


@pytest.mark.parametrize("under", ["server", "cluster"])
async def test_a_replica_that_was_filled_anew_between_two_looks(
    sentinel: Sentinel, cluster_with_replicas: Cluster, monkeypatch: pytest.MonkeyPatch, under: str
) -> None:
    """In sync before and after, the same process, the same history: what it had in between says nothing."""
    monkeypatch.setattr("oneatatime._single._LOOK_EVERY", 1000.0)
    monkeypatch.setattr("oneatatime._post._SHORTEST_WINDOW", 1000.0)
    monkeypatch.setattr("oneatatime._post._LONGEST_WINDOW", 1000.0)
    if under == "server":
        keys = sentinel.fill(1000)
        primary, replica, url = sentinel.primary(), sentinel.replica(), sentinel.url
    else:
        keys, url = cluster_with_replicas.fill(2000, slots=[1]), cluster_with_replicas.url
        primary = cluster_with_replicas.owner(1)
        (replica,) = cluster_with_replicas.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    primary.ask("CONFIG", "SET", "repl-backlog-size", 16_384)

    def fill_anew() -> None:
        begun = int(primary.info("stats")["sync_full"])
        more_than_the_backlog_holds = [("SET", keys[0], b"x" * 200_000), ("SET", keys[0], keys[0])]
        primary.many([("CLIENT", "KILL", "TYPE", "replica"), *more_than_the_backlog_holds])
        until(lambda: int(primary.info("stats")["sync_full"]) > begun, 10)
        until(lambda: caught_up(primary, replica), 10)

    stream = oneatatime.stream(url, read_from="replica", options=slowly())
    found = set()
    async for key in stream.keys():
        found.add(key)
        if len(found) == 300:
            await asyncio.to_thread(fill_anew)
    assert set(keys) <= found
    assert stream.statistics().read_again


async def test_a_replica_that_kept_its_data_is_read_on(
    sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics that are set back, and a link that is cut within a command, are no filling."""
    monkeypatch.setattr("oneatatime._single._LOOK_EVERY", 0.0)
    keys = sentinel.fill(2000)
    primary, replica = sentinel.primary(), sentinel.replica()
    for one in (primary, replica):
        one.ask("CONFIG", "SET", "repl-backlog-size", 10_000_000)  # another test may have left less
    until(lambda: caught_up(primary, replica), 5)

    def disturb() -> None:
        replica.ask("CONFIG", "RESETSTAT")
        primary.ask("SET", "filler", b"x" * 100_000)
        replica.ask("CLIENT", "KILL", "TYPE", "primary")
        primary.ask("DEL", "filler")
        until(lambda: caught_up(primary, replica), 5)

    events = {200 * turn: disturb for turn in range(1, 9)}
    stream = oneatatime.stream(sentinel.url, read_from="replica", options=slowly())
    found, seen = set(), 0
    async for key in stream.keys():
        found.add(key)
        seen += 1
        if seen in events:
            events[seen]()  # nobody looks meanwhile: a link that is down is doubt enough
    assert set(keys) <= found
    assert not stream.statistics().read_again


async def test_what_a_primary_calls_its_replica_is_not_believed_to_be_one(
    tcp_server: Server, node: Node
) -> None:
    """Where the address it announces leads to another server, that one was read, and called complete."""
    folder = Folder()
    (port,), other = free_ports(1), int(tcp_server.url.rpartition(":")[2])
    wrong = {**node.options, "port": port, "replicaof": f"127.0.0.1 {node.port}"}
    replica = Node(node.binary, folder.path / "replica", port, {**wrong, "replica-announce-port": other})
    node.many([("SET", f"key:{number}", "v") for number in range(300)])
    try:
        replica.start()
        until(lambda: f"port={other},state=online" in node.ask("INFO", "replication").decode(), 10)
        with pytest.raises(oneatatime.ServerUnready):
            async for _ in oneatatime.stream(node.url, read_from="replica", on_unreachable="fail"):
                pass
    finally:
        replica.close()
        folder.close()


async def test_a_big_value_with_big_elements_is_read_from_a_replica(sentinel: Sentinel) -> None:
    """A second question went over the connection that the first big reply had ended."""
    primary, replica = sentinel.primary(), sentinel.replica()
    fields = {b"field:%d" % number: b"x" * 200_000 for number in range(12)}
    primary.ask("HSET", "big", *[word for pair in fields.items() for word in pair])
    until(lambda: caught_up(primary, replica), 5)
    options = oneatatime.Options(parts_over=100_000, chunk=50_000, reply_limit=300_000)
    found = {}
    async for _, value in oneatatime.stream(replica.url, types="hash", options=options):
        assert isinstance(value, oneatatime.Parts)
        found = {field: content async for field, content in value}
    assert found == fields


async def test_replicas_that_cannot_be_checked_are_not_believed(cluster_with_replicas: Cluster) -> None:
    cluster_with_replicas.fill(100)
    for node in cluster_with_replicas.nodes:
        node.ask("ACL", "SETUSER", "reader", "reset", "on", ">secret", "~*", "+@all", "-info")
    url = cluster_with_replicas.url.replace("://", "://reader:secret@")
    with pytest.raises(oneatatime.PermissionDenied, match="info"):
        await read(url, read_from="replica")
