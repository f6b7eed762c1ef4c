"""A cluster of a thousand primaries: what reading a part of it asks, of whom, and what it keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

import oneatatime
from oneatatime._deployment import Deployment
from oneatatime._discovery import ClusterMap, view_of
from oneatatime._options import Options, Selection
from oneatatime._partition import Partition
from oneatatime._slot import SLOTS, bits
from oneatatime._work import Work
from tests.clusters import tag
from tests.crowd import Crowd
from tests.nodes import Refused

KEYS = 2000


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    with Crowd() as crowd:
        yield crowd


@pytest.fixture(scope="module")
def part(crowd: Crowd) -> Partition:
    """The slots of the one node that there is, filled."""
    first, last = crowd.slots
    own = [tag(slot) for slot in range(first, last + 1)]
    written = crowd.node.many([("SET", f"key:{i}:{{{own[i % len(own)]}}}", "x") for i in range(KEYS)])
    assert not any(isinstance(reply, Refused) for reply in written)
    return Partition(Deployment.of(crowd.url), 0, 1000, slots=bits(range(first, last + 1)))


async def test_a_part_is_complete_and_asks_nobody_who_has_none_of_it(part: Partition) -> None:
    stream = oneatatime.stream(part)
    assert len({key async for key, _ in stream}) == KEYS
    done = stream.statistics()
    assert done.complete and not done.read_again
    assert (done.keys_at_start, done.keys_at_end) == (KEYS, KEYS)  # the 999 others would refuse


async def test_a_worker_keeps_little_of_what_its_node_says_of_the_others(crowd: Crowd) -> None:
    work = Work(Deployment.of(crowd.url), Options(), Selection())
    found = ClusterMap(work)
    topology = await found.find()
    assert len(topology.primaries) == 1000 and len(topology.members) == 2000
    member = topology.owner(crowd.slots[0])
    assert member is not None and member.port == crowd.node.port
    session = work.node(found.endpoint(member)).session()
    try:
        await session.open()
        await view_of(session, member)
        tracemalloc.start()
        kept = [await view_of(session, member) for _ in range(20)]
        assert tracemalloc.get_traced_memory()[0] < 500_000  # of 20 views of 250 kB
    finally:
        tracemalloc.stop()
        session.abort()
    assert all(view.slots == member.slots and view.is_primary for view in kept)


async def test_every_slot_has_the_owner_that_lists_it(crowd: Crowd) -> None:
    topology = await ClusterMap(Work(Deployment.of(crowd.url), Options(), Selection())).find()
    for slot in range(SLOTS):
        owner = topology.owner(slot)
        assert owner is not None and owner.slots >> slot & 1
    assert topology.owner(SLOTS) is None
