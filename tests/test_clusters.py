"""The clusters that other tests stand on: they start, do what is asked, become fresh, and leave nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clusters import SLOTS, Cluster, Sentinel, caught_up, myself, run_id, slot_of, tag
from tests.nodes import Node, Refused, until
from tests.owners import is_there


def keys_of(cluster: Cluster) -> list[bytes]:
    return sorted(key for node in cluster.primaries() for key in node.scan("COUNT", 1000))


def test_slots_are_those_of_every_cluster() -> None:
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user}:1") == slot_of(b"user") == slot_of(b"x{user}y{other}")
    assert slot_of(b"{}x") != slot_of(b"")
    assert all(slot_of(tag(slot).encode()) == slot for slot in (0, 1, 7000, SLOTS - 1))


def test_all_slots_are_served_and_keys_go_where_they_belong(any_cluster: Cluster) -> None:
    keys = any_cluster.fill(300)
    keys += any_cluster.fill(20, slots=[5, 6], prefix="here")
    assert sum(myself(node).count() for node in any_cluster.primaries()) == SLOTS
    assert keys_of(any_cluster) == sorted(keys)
    assert len(any_cluster.keys(any_cluster.owner(5), 5)) >= 10


def test_a_classic_migration_can_stop_half_way_be_finished_and_come_back(any_cluster: Cluster) -> None:
    keys = any_cluster.fill(30, slots=[9])
    source, target = any_cluster.owner(9), any_cluster.primaries()[-1]
    migration = any_cluster.migration(9, target).begin()
    migration.move(10)
    assert myself(source).migrating == {9: target.id} and myself(target).importing == {9: source.id}
    assert (len(any_cluster.keys(source, 9)), len(any_cluster.keys(target, 9))) == (20, 10)
    migration.finish()
    any_cluster.wait_ok()
    assert any_cluster.owner(9) is target and keys_of(any_cluster) == sorted(keys)
    back = any_cluster.migration(9, source).begin()
    back.move(5)
    back.cancel()
    assert any_cluster.owner(9) is target
    assert not myself(source).importing and sorted(any_cluster.keys(target, 9)) == sorted(keys)


def test_slots_migrate_atomically_and_the_migration_can_be_cancelled(cluster: Cluster) -> None:
    keys = cluster.fill(500, slots=range(10))
    target = cluster.primaries()[1]
    source = cluster.migrate_atomically(0, 9, target)
    assert cluster.wait_for_migrations(source)[0] == "success"
    cluster.wait_ok()
    assert cluster.owner(3) is target and keys_of(cluster) == sorted(keys)
    source.pause()  # so that the migration cannot go on before we cancel it
    try:
        target.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", 0, 9, "NODE", source.id)
        cluster.cancel_migrations(target)
    finally:
        source.resume()
    assert cluster.wait_for_migrations(target)[0] == "cancelled"
    assert cluster.owner(3) is target


def test_a_node_comes_and_goes(cluster: Cluster) -> None:
    keys = cluster.fill(500)
    new = cluster.add_node()
    cluster.drain(cluster.primaries()[0], [new])
    cluster.wait_ok()
    assert myself(new).count() > 5000
    cluster.drain(new, [node for node in cluster.primaries() if node is not new])
    cluster.forget(new)
    cluster.wait_ok()
    assert keys_of(cluster) == sorted(keys) and len(cluster.nodes) == 3


@pytest.mark.parametrize("how", ["", "FORCE", "TAKEOVER"])
def test_a_replica_is_promoted(cluster_with_replicas: Cluster, how: str) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(300)
    primary = cluster.primaries()[0]
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    cluster.failover(replica, how)
    cluster.wait_ok()
    assert cluster.owner(0) is replica and cluster.replicas(replica) == [primary]
    assert keys_of(cluster) == sorted(keys)


def test_a_killed_primary_is_replaced_and_comes_back_empty(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    keys = cluster.fill(300)
    primary = cluster.owner(0)
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    before = run_id(primary)
    primary.kill()
    assert not primary.alive
    until(lambda: "master" in myself(replica).flags, 10)
    primary.restart(keep_data=False)
    cluster.wait_ok()
    assert "slave" in myself(primary).flags and run_id(primary) != before
    assert keys_of(cluster) == sorted(keys)


@pytest.mark.parametrize("keep_data", [True, False])
def test_a_node_restarts_at_its_address(cluster: Cluster, keep_data: bool) -> None:
    cluster.fill(300)
    node = cluster.primaries()[1]
    pid, port, held = node.pid, node.port, node.ask("DBSIZE")
    node.restart(keep_data=keep_data)
    assert node.pid != pid and node.port == port
    assert node.ask("DBSIZE") == (held if keep_data else 0)


def test_a_frozen_node_says_nothing_until_it_thaws(cluster: Cluster) -> None:
    node = cluster.primaries()[0]
    node.pause()
    assert node.paused and node.alive
    node.resume()
    assert node.ask("PING") == b"PONG"


def test_fresh_brings_home_what_was_moved_and_makes_anew_what_was_killed(cluster: Cluster) -> None:
    cluster.fill(300)
    first = cluster.primaries()
    cluster.migration(4, first[1]).run()
    cluster.migration(5, first[2]).begin().move(3)
    first[0].ask("CONFIG", "SET", "maxmemory", 123456789)
    cluster.fresh()
    assert cluster.primaries() == first and cluster.owner(4) is first[0]
    assert keys_of(cluster) == [] and not myself(first[0]).migrating and not myself(first[2]).importing
    assert first[0].ask("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"0"]
    first[0].kill()
    cluster.fresh()
    assert len(cluster.primaries()) == 3 and first[0] not in cluster.nodes


def test_sentinels_swap_primary_and_replica(sentinel: Sentinel) -> None:
    keys = sentinel.fill(100)
    old, new = sentinel.primary(), sentinel.replica()
    until(lambda: caught_up(old, new), 5)
    sentinel.failover()
    assert sentinel.primary() is new
    assert sorted(new.scan("COUNT", 1000)) == sorted(keys)
    sentinel.wait_ok()
    assert sentinel.replica() is old


def test_sentinels_replace_a_primary_that_dies(sentinel: Sentinel) -> None:
    sentinel.fill(10)
    old = sentinel.primary()
    until(lambda: caught_up(old, sentinel.replica()), 5)
    old.kill()
    sentinel.wait_for_another(old)
    assert sentinel.primary().ask("DBSIZE") == 10
    old.start()


def test_nothing_is_left_of_a_cluster_whose_maker_is_killed() -> None:
    script = (
        "import time\nfrom tests.clusters import Cluster\n"
        "cluster = Cluster(2, node_timeout=500).start()\n"
        "print(cluster._folder.path, *[node.pid for node in cluster.nodes], flush=True)\ntime.sleep(60)\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    folder, *pids = maker.stdout.readline().split()
    assert all(is_there(int(pid)) for pid in pids) and len(pids) == 2
    maker.kill()
    maker.communicate()
    deadline = time.monotonic() + 5
    while any(is_there(int(pid)) for pid in pids) or Path(folder).exists():
        assert time.monotonic() < deadline, (folder, pids)
        time.sleep(0.01)


def test_what_a_server_refuses_is_raised(cluster: Cluster) -> None:
    node: Node = cluster.nodes[0]
    with pytest.raises(Refused, match="unknown command"):
        node.ask("NO-SUCH-COMMAND")
    assert [str(reply)[:3] for reply in node.many([("PING",), ("NO-SUCH",)])][1] == "ERR"
