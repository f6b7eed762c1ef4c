"""What nodes say of their cluster, read and put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oneatatime._deployment import Deployment
from oneatatime._discovery import ClusterMap
from oneatatime._endpoint import Endpoint
from oneatatime._errors import ProtocolViolation, Unreachable
from oneatatime._options import Options, Selection
from oneatatime._slot import ALL_SLOTS, bits, named, runs
from oneatatime._topology import Member, Topology, View, view
from oneatatime._work import Work

NODES = b"""\
aa 10.0.0.1:7000@17000,one.example,shard-id=x myself,master - 0 0 5 connected 0-2 7 [1->-bb] [9-<-bb]
bb 10.0.0.2:7000@17000 master - 0 1 6 connected 3
cc [::1]:7001@17001 slave bb 0 1 6 connected
dd :0@0 master,fail,noaddr - 0 1 2 disconnected 8
"""
INFO = b"cluster_state:%b\r\ncluster_my_epoch:%d\r\n"


def told(nodes: bytes = NODES, state: bytes = b"ok", epoch: int = 5) -> View:
    return view([nodes, INFO % (state, epoch)], "here")


def test_a_view_is_what_the_node_says_of_itself_and_the_others() -> None:
    seen = told()
    assert (seen.me.id, seen.me.host, seen.me.port, seen.me.hostname) == (
        "aa",
        "10.0.0.1",
        7000,
        "one.example",
    )
    assert (seen.is_primary, seen.ok, seen.epoch, seen.slots) == (True, True, 5, bits([0, 1, 2, 7]))
    assert (seen.leaving, seen.arriving) == ({1: "bb"}, {9: "bb"})
    assert [(one.id, one.primary) for one in seen.members] == [
        ("aa", ""),
        ("bb", ""),
        ("cc", "bb"),
        ("dd", ""),
    ]
    assert [one.serves for one in seen.members] == [True, True, False, False]
    assert not told(state=b"fail").ok


@pytest.mark.parametrize(
    "nodes", [b"", NODES.replace(b"myself,", b""), NODES.replace(b"0-2", b"0-16384"), None]
)
def test_what_no_node_says_is_refused(nodes: Any) -> None:
    with pytest.raises(ProtocolViolation):
        view([nodes, b""], "here")


def test_slots_are_kept_by_the_same_node_in_the_same_epoch_in_a_cluster_that_works() -> None:
    seen = told()
    assert seen.kept(told()) == seen.slots
    assert seen.kept(told(NODES.replace(b"0-2 7", b"0-1 7-9"))) == bits([0, 1, 7])
    assert seen.kept(told(NODES.replace(b"[9-<-bb]", b"[0-<-bb]"))) == bits([1, 2, 7])
    for other in (told(epoch=6), told(state=b"fail"), replace(seen, me=replace(seen.me, id="bb"))):
        assert not seen.kept(other) and not other.kept(seen)


def test_of_two_that_claim_a_slot_the_one_with_the_higher_epoch_has_it() -> None:
    old = Member("old", "h", 1, flags=frozenset({"master"}), epoch=3, slots=0b0111)
    new = Member("new", "h", 2, flags=frozenset({"master"}), epoch=4, slots=0b1100)
    found = Topology.of(
        [View(old, (old, replace(new, epoch=2, slots=0)), True, 3), View(new, (new,), True, 4)]
    )
    assert {one.id: one.slots for one in found.primaries.values()} == {"old": 0b0011, "new": 0b1100}
    assert found.slots == 0b1111
    owner = found.owner(2)
    assert owner is not None and owner.id == "new" and found.owner(4) is None


def test_replicas_are_listed_with_their_primary_unless_they_are_gone() -> None:
    found = Topology.of([told(), told(NODES.replace(b"slave bb", b"slave,fail bb"))])
    assert [one.id for one in found.replicas["bb"]] == ["cc"]
    assert not Topology.of([told(NODES.replace(b"slave bb", b"slave,fail bb"))]).replicas


def test_slots_in_words_and_in_runs() -> None:
    assert named(0b1) == "slot 0" and named(ALL_SLOTS) == "slots 0-16383"
    assert named(0b1011) == "slots 0-1, 3"
    assert named(bits(range(0, 100, 2))).endswith(" and 30 more runs")
    assert bits(slot for first, last in runs(0b101101) for slot in range(first, last + 1)) == 0b101101


async def test_a_key_on_its_way_is_asked_for_at_the_very_node_that_was_told() -> None:
    """10.0.0.1 was taken for 10.0.0.11, because its text begins in the same way."""
    work = Work(Deployment.of("redis+cluster://10.0.0.1:7000"), Options(), Selection())
    found = ClusterMap(work)
    members = [
        Member(host, host, port, name, frozenset({"master"}), epoch=1, slots=ALL_SLOTS)
        for host, port, name in [
            ("10.0.0.1", 7000, ""),
            ("10.0.0.11", 7000, "eleven"),
            ("10.0.0.11", 17000, ""),
        ]
    ]
    found.topology = Topology({"10.0.0.1": members[0]}, {}, dict(enumerate(members)))  # type: ignore[arg-type]

    async def refresh() -> Topology:
        return found.topology

    found.settled = refresh  # type: ignore[method-assign]
    for said, host, port in [
        ("ASK 5 10.0.0.11:7000", "10.0.0.11", 7000),
        ("ASK 5 10.0.0.11:17000", "10.0.0.11", 17000),
        ("ASK 5 eleven:7000", "10.0.0.11", 7000),
        ("MOVED 5 10.0.0.11:7000", "10.0.0.11", 7000),
    ]:
        node, asking = await found.locate(b"key", said)
        assert (node.endpoint.host, node.endpoint.port, asking) == (host, port, said.startswith("ASK"))
    for said in (None, "", "MOVED 5 10.9.9.9:7000", "ASK 5 10.9.9.9:7000"):
        node, asking = await found.locate(b"key", said)
        assert (node.endpoint.host, asking) == ("10.0.0.1", False)


async def test_the_nodes_of_a_url_are_asked_in_any_order() -> None:
    """In theirs the first three would bear the start of a thousand workers."""
    nodes = ",".join(f"10.0.0.{number}:7000" for number in range(1, 11))
    found = ClusterMap(Work(Deployment.of(f"redis+cluster://{nodes}"), Options(), Selection()))
    asked: list[str] = []

    async def ask(endpoint: Endpoint) -> View:
        asked.append(endpoint.host or "")
        raise Unreachable("nobody there")

    found._ask = ask  # type: ignore[method-assign]
    for _ in range(20):
        with pytest.raises(Unreachable):
            await found.find()
    assert len(set(asked)) == 10 and len(asked) == 200
    assert len(set(asked[::10])) > 1
