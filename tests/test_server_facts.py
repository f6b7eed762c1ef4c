"""What the reader relies on, proven on real servers without it: cursors, slots, migrations, epochs, replicas.

When one of these fails on a new server version, the reader's promise has to be thought through again there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.clusters import Cluster, Sentinel, caught_up, in_sync, myself, run_id, slot_of, tag
from tests.nodes import Node, Refused, free_ports, until

LAST_SLOT = 16383


def has_slot_cursors(cluster: Cluster) -> bool:
    """Since Redis 7.4 and Valkey 8.0 each slot has a table of its own, and the cursor says which."""
    return cluster.version_info >= ((8, 0) if cluster.product == "Valkey" else (7, 4))


def reversed_bits(number: int, width: int) -> int:
    return int(f"{number:0{width}b}"[::-1], 2)


def place(cursor: int) -> int:
    """Where a cursor of a cluster node stands: slot first, then the hash within the slot."""
    return (cursor & LAST_SLOT) << 50 | reversed_bits(cursor >> 14, 50)


def pages(node: Node, cursor: int = 0, count: int = 10) -> Iterator[tuple[int, int, list[bytes]]]:
    """(cursor asked, cursor answered, keys) until the end."""
    while True:
        answered, keys = node.ask("SCAN", cursor, "COUNT", count)
        yield cursor, int(answered), keys
        cursor = int(answered)
        if not cursor:
            return


def half_scanned(node: Node, enough: int) -> tuple[set[bytes], int]:
    """`enough` keys or some more, and the cursor to go on at."""
    found: set[bytes] = set()
    for _, answered, page in pages(node, count=100):
        found.update(page)
        if len(found) > enough:
            assert answered
            return found, answered
    raise AssertionError(f"only {len(found)} keys")


# Cursors of a cluster node


def test_low_bits_of_the_cursor_are_the_slot(any_cluster: Cluster) -> None:
    any_cluster.fill(3000)
    wrong = 0
    for node in any_cluster.primaries():
        for asked, answered, keys in pages(node):
            last = answered & LAST_SLOT if answered else LAST_SLOT
            wrong += sum(not (asked & LAST_SLOT) <= slot_of(key) <= last for key in keys)
    assert (wrong == 0) is has_slot_cursors(any_cluster)


def test_before_7_4_the_cursor_knows_no_slots_and_the_first_replies_show_it(old_cluster: Cluster) -> None:
    old_cluster.fill(3000)
    node = old_cluster.primaries()[1]
    asked, answered, keys = next(pages(node, count=100))
    low, high = asked & LAST_SLOT, answered & LAST_SLOT
    assert not all(low <= slot_of(key) <= high for key in keys)


def test_places_strictly_increase_while_tables_grow_and_shrink(cluster: Cluster) -> None:
    stable = cluster.fill(2000, slots=range(40))
    node = cluster.owner(0)
    names = [f"churn:{{{tag(slot)}}}:{number}" for slot in range(40) for number in range(100)]
    randomly = random.Random(1)
    for _ in range(5):
        found: set[bytes] = set()
        before = -1
        for asked, _, keys in pages(node, count=20):
            assert place(asked) > before
            before = place(asked)
            found.update(keys)
            some = randomly.sample(names, 400)
            node.many([("SET", name, "") if randomly.random() < 0.5 else ("UNLINK", name) for name in some])
        assert set(stable) <= found


def test_a_scan_can_begin_at_any_slot_and_end_after_any(any_cluster: Cluster) -> None:
    if not has_slot_cursors(any_cluster):
        pytest.skip("no slots in this server's cursors")
    keys = any_cluster.fill(2000, slots=range(0, 400, 3))
    node = any_cluster.owner(0)
    for first, last in ((0, 0), (1, 1), (0, 399), (17, 250), (300, 399), (398, 5000)):
        found: set[bytes] = set()
        for asked, _, page in pages(node, first):
            if asked & LAST_SLOT > last:
                break
            found.update(key for key in page if first <= slot_of(key) <= last)
        assert found == {key for key in keys if first <= slot_of(key) <= last}


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_scan_can_begin_and_end_anywhere_inside_a_slot(any_cluster: Cluster, parts: int) -> None:
    if not has_slot_cursors(any_cluster):
        pytest.skip("no slots in this server's cursors")
    keys = any_cluster.fill(3000, slots=[7])
    any_cluster.fill(100, slots=[6, 8], prefix="beside")
    node = any_cluster.owner(7)
    edges = [part * (1 << 50) // parts for part in range(parts + 1)]
    found: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        for asked, _, page in pages(node, reversed_bits(start, 50) << 14 | 7):
            if place(asked) >= (7 << 50) + end:
                break
            found += [key for key in page if slot_of(key) == 7]
    assert set(found) == set(keys)
    assert len(found) < len(keys) * 1.2


def test_getkeysinslot_lists_a_slot_at_once(old_cluster: Cluster) -> None:
    keys = old_cluster.fill(600, slots=[1, 2, 3])
    node = old_cluster.owner(1)
    for slot in (1, 2, 3, 4):
        listed = old_cluster.keys(node, slot)
        assert sorted(listed) == sorted(key for key in keys if slot_of(key) == slot)
        assert len(listed) == node.ask("CLUSTER", "COUNTKEYSINSLOT", slot)


# Processes


def test_a_cursor_of_another_process_loses_keys_without_an_error(node: Node) -> None:
    keys = [b"key:%d" % number for number in range(20_000)]
    node.many([("SET", key, "") for key in keys])
    found, cursor = half_scanned(node, 10_000)
    before = run_id(node)
    node.restart(keep_data=True)
    assert run_id(node) != before and node.ask("DBSIZE") == len(keys)
    found.update(node.scan("COUNT", 100, cursor=cursor))
    assert len(set(keys) - found) > 1000  # about a quarter; nobody said anything


def test_a_cursor_survives_a_reload_in_the_same_process(node: Node) -> None:
    keys = [b"key:%d" % number for number in range(5000)]
    node.many([("SET", key, "") for key in keys])
    found, cursor = half_scanned(node, 2500)
    before = run_id(node)
    node.ask("DEBUG", "RELOAD")
    found.update(node.scan("COUNT", 100, cursor=cursor))
    assert run_id(node) == before and found == set(keys)


def test_a_client_id_does_not_tell_processes_apart_but_the_run_id_does(node: Node) -> None:
    client, process = node.ask("CLIENT", "ID"), run_id(node)
    node.hang_up()
    assert run_id(node) == process
    node.restart(keep_data=False)
    node.hang_up()
    assert node.ask("CLIENT", "ID") <= client + 1 and run_id(node) != process


def test_the_node_id_survives_a_restart_and_the_run_id_does_not(cluster: Cluster) -> None:
    node = cluster.primaries()[0]
    process = run_id(node)
    node.restart(keep_data=False)
    assert node.ask("CLUSTER", "MYID").decode() == node.id and run_id(node) != process


def test_a_loading_server_refuses_scan_and_is_the_same_process_afterwards(node: Node) -> None:
    node.many([("SET", f"key:{number}", "x" * 100) for number in range(20_000)])
    node.save()
    node.kill()
    node.start(wait=False, key_load_delay=100, loading_process_events_interval_bytes=1024)
    refused = ""

    def loading() -> bool:
        nonlocal refused
        try:
            node.ask("SCAN", 0)
        except Refused as error:
            refused = str(error)
        except OSError:
            return False
        return True

    until(loading, 5, every=0.002)
    assert refused.startswith("LOADING")
    process = run_id(node)  # INFO is answered
    node.ask("CONFIG", "SET", "key-load-delay", 0)
    node.wait_until_it_answers()
    assert run_id(node) == process and node.ask("DBSIZE") == 20_000


# Slots on the move


def test_source_then_target_misses_nothing_of_an_open_slot(any_cluster: Cluster) -> None:
    keys = set(any_cluster.fill(400, slots=[9]))
    source, target = any_cluster.owner(9), any_cluster.primaries()[2]
    migration = any_cluster.migration(9, target).begin()
    migration.move(150)
    found = set(source.scan("COUNT", 10))
    assert len(found) == 250
    migration.move(150)  # meanwhile
    assert found | set(target.scan("COUNT", 10)) == keys


def test_target_then_source_misses_what_moves_in_between(any_cluster: Cluster) -> None:
    keys = set(any_cluster.fill(400, slots=[9]))
    source, target = any_cluster.owner(9), any_cluster.primaries()[2]
    migration = any_cluster.migration(9, target).begin()
    migration.move(150)
    found = set(target.scan("COUNT", 10))
    moved = set(migration.move(150))
    assert keys - found - set(source.scan("COUNT", 10)) == moved


def test_plain_scan_of_the_owners_misses_nothing_only_while_nothing_moves(cluster: Cluster) -> None:
    keys = set(cluster.fill(600, slots=range(30)))
    source, target = cluster.owner(0), cluster.primaries()[1]
    found: set[bytes] = set(target.scan())
    process = pages(source, count=50)
    found.update(next(process)[2])
    cluster.migrate_atomically(0, 29, target)
    assert cluster.wait_for_migrations(source)[0] == "success"
    for _, _, page in process:  # to its end, without an error
        found.update(page)
    assert len(keys - found) > 300


def test_open_slots_are_told_by_the_node_itself_and_by_no_other(any_cluster: Cluster) -> None:
    source, target, third = any_cluster.primaries()
    any_cluster.migration(9, target).begin()
    assert myself(source).migrating == {9: target.id} and myself(source).owns(9)
    assert myself(target).importing == {9: source.id} and not myself(target).owns(9)
    assert b"[" not in third.ask("CLUSTER", "NODES")


@pytest.mark.parametrize("order", [(0, 2), (2, 0)])
def test_a_slot_that_left_and_came_back_has_changed_the_epoch_of_its_owner(
    any_cluster: Cluster, order: tuple[int, int]
) -> None:
    home, away = (any_cluster.primaries()[index] for index in order)
    slot = any_cluster.slots(home)[9]
    any_cluster.fill(10, slots=[slot])
    before = myself(home).epoch
    any_cluster.migration(slot, away).run()
    any_cluster.wait_ok()
    assert myself(home).epoch == before < myself(away).epoch
    any_cluster.migration(slot, home).run()
    assert myself(home).epoch > max(before, myself(away).epoch)


def test_an_importer_that_has_the_highest_epoch_keeps_it(any_cluster: Cluster) -> None:
    any_cluster.fill(10, slots=[9])
    target = any_cluster.primaries()[2]
    target.ask("CLUSTER", "BUMPEPOCH")
    any_cluster.wait_ok()
    before = myself(target).epoch
    any_cluster.migration(9, target).run()
    assert myself(target).epoch == before  # so an unchanged epoch does not say that nothing was imported


def test_atomic_migration_gives_the_importer_a_new_epoch(cluster: Cluster) -> None:
    cluster.fill(100, slots=range(10))
    target = cluster.primaries()[1]
    before = myself(target).epoch
    source = cluster.migrate_atomically(0, 9, target)
    cluster.wait_for_migrations(source)
    cluster.wait_ok()
    assert myself(target).epoch > max(before, myself(source).epoch)


def test_keys_left_behind_in_a_slot_given_away_are_still_scanned(any_cluster: Cluster) -> None:
    keys = any_cluster.fill(20, slots=[9])
    source, target = any_cluster.owner(9), any_cluster.primaries()[2]
    any_cluster.reassign(9, target)
    assert any_cluster.owner(9) is target and not target.scan()
    assert sorted(source.scan("COUNT", 100)) == sorted(keys)


def test_a_promoted_replica_gets_a_new_epoch(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    primary = cluster.primaries()[0]
    (replica,) = cluster.replicas(primary)
    before = myself(primary).epoch
    cluster.failover(replica)
    assert myself(replica).epoch > before


# Replicas


def test_a_replica_that_never_synced_answers_that_it_is_empty(node: Node) -> None:
    node.ask("REPLICAOF", "127.0.0.1", free_ports(1)[0])
    assert node.ask("SCAN", 0) == [b"0", []]
    said = node.info("replication")
    assert said["role"] == "slave" and said["master_link_status"] == "down"
    assert node.ask("ROLE")[3] in (b"connect", b"connecting")
    assert not in_sync(node)


def test_a_lagging_replica_says_it_is_up_and_only_its_offset_tells(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    primary = cluster.primaries()[0]
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    replica.pause()
    cluster.fill(500, slots=[1])
    wanted = int(primary.info("replication")["master_repl_offset"])
    replica.resume()
    until(lambda: caught_up(primary, replica), 5)
    said = replica.info("replication")
    assert said["master_link_status"] == "up" and int(said["slave_repl_offset"]) >= wanted
    assert len(replica.scan("COUNT", 1000)) == 500  # no READONLY needed
    state, offset = replica.ask("ROLE")[3:]
    assert state == b"connected" and offset >= wanted
    assert primary.info("replication")["master_replid"] == said["master_replid"]


def test_what_tells_that_a_replica_was_filled_anew(sentinel: Sentinel) -> None:
    sentinel.fill(500)
    primary, replica = sentinel.primary(), sentinel.replica()

    def look() -> tuple[int, int, int]:
        """Its offset, where its backlog begins, and the bytes it got beside the stream of changes."""
        until(lambda: caught_up(primary, replica), 5)
        said = {**replica.info("stats"), **replica.info("replication")}
        names = ("slave_repl_offset", "repl_backlog_first_byte_offset", "total_net_repl_input_bytes")
        offset, backlog, received = (int(said[name]) for name in names)
        return offset, backlog, received - int(said["slave_read_repl_offset"])

    for one in (primary, replica):
        one.ask("CONFIG", "SET", "repl-backlog-size", 1_000_000)  # another test may have left less
    first = look()
    sentinel.fill(500, prefix="more")
    replica.ask("CLIENT", "KILL", "TYPE", "primary")
    second = look()
    assert second[1] <= first[0] and second[2] == first[2]  # the stream went on where it was
    replica.ask("CONFIG", "RESETSTAT")
    third = look()
    assert third[1] <= second[0] and third[2] != second[2]  # one of them is not enough
    primary.ask("CONFIG", "SET", "repl-backlog-size", 16_384)
    primary.many(
        [("CLIENT", "KILL", "TYPE", "replica"), ("SET", "filler", b"x" * 200_000), ("DEL", "filler")]
    )
    until(lambda: look()[2] != third[2], 5)
    fourth = look()
    assert fourth[1] > third[0] and fourth[2] != third[2]


def test_cursors_are_not_the_replica_s_though_the_replication_id_is(
    cluster_with_replicas: Cluster,
) -> None:
    cluster = cluster_with_replicas
    keys = set(cluster.fill(4000, slots=[1]))
    primary = cluster.owner(1)
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    found, cursor = half_scanned(primary, 2000)
    found.update(replica.scan("COUNT", 100, cursor=cursor))
    assert len(keys - found) > 200


def test_a_primary_that_was_replaced_serves_scan_until_it_is_told(sentinel: Sentinel) -> None:
    sentinel.fill(50)
    old, new = sentinel.primary(), sentinel.replica()
    until(lambda: caught_up(old, new), 5)
    sentinel.failover()
    assert new.ask("ROLE")[0] == b"master"
    assert len(old.scan("COUNT", 1000)) == 50  # one of two primaries for a while, or already a replica
    until(lambda: old.ask("ROLE")[0] == b"slave", 15)


def test_scan_is_answered_by_a_node_whose_cluster_is_down(cluster: Cluster) -> None:
    keys = cluster.fill(300)
    first, second, _ = cluster.primaries()
    second.kill()
    until(lambda: b"cluster_state:fail" in first.ask("CLUSTER", "INFO"), 10)
    own = {key for key in keys if slot_of(key) in set(cluster.slots(first))}
    assert set(first.scan("COUNT", 1000)) == own
    with pytest.raises(Refused, match="CLUSTERDOWN"):
        first.ask("EXISTS", next(iter(own)))
