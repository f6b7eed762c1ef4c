"""The simulation behind docs/scale.md, at a reduced size: nothing is lost, and the right thing is slow."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import _facts
from benchmarks._crowded import measured
from benchmarks._fleet import Fleet, counted, cut, parts
from benchmarks._simulation import simulate
from benchmarks.scale import whole
from oneatatime._cursor import SLOT_WIDTH, Range
from oneatatime._slot import ALL_SLOTS

SMALL = Fleet(keys=5 * 10**8, primaries=10, replicas=10, partitions=100, workers=5, slow_nodes=0.0, tags=5000)
CALM = replace(SMALL, worker_life=1e12, failovers=0.0, moved=0.0)
WILD = replace(SMALL, worker_life=60.0, failovers=1 / 600, moved=100.0, slow_nodes=0.1)


@pytest.mark.parametrize("partitions", [20, 200, 5000])
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("order", ["neighbours", "planned", "shuffled"])
def test_partitions_are_disjoint_and_hold_every_key(partitions: int, scattered: bool, order: str) -> None:
    fleet = replace(SMALL, partitions=partitions, scattered=scattered, order=order, tagged=0.5)
    found = parts(fleet)
    assert sorted(part.index for part in found) == list(range(len(found)))
    assert sum(part.keys for part in found) == sum(counted(fleet))
    covered: Counter[int] = Counter()
    positions: Counter[int] = Counter()
    for piece, slots, run_id in cut(fleet, counted(fleet)):
        if run_id is None:
            assert piece == Range()
            covered[slots] += 1
        else:
            positions[slots] += piece.end - piece.start
    assert sum(covered) + sum(positions) == ALL_SLOTS  # as sums of bits: none twice, none left out
    assert set(covered.values()) <= {1} and set(positions.values()) <= {SLOT_WIDTH}
    assert positions or partitions == 20


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("limit", [None, 0.2])
def test_every_key_is_read_whatever_happens(checkpoints: bool, scattered: bool, limit: float | None) -> None:
    fleet = replace(WILD, checkpoints=checkpoints, scattered=scattered, max_load=limit)
    cuts = parts(fleet)
    outcome = simulate(fleet, cuts)
    assert outcome.deaths and outcome.failovers and outcome.moved and outcome.again > 0
    assert whole(fleet, cuts, outcome)


def test_a_run_that_is_not_whole_is_told() -> None:
    cuts = parts(CALM)
    outcome = simulate(CALM, cuts)
    assert whole(CALM, cuts, outcome) and outcome == simulate(CALM, cuts)
    assert not whole(CALM, cuts, replace(outcome, read=outcome.read * 0.9999))
    assert not whole(CALM, cuts, replace(outcome, finished=[0, *outcome.finished[1:]]))
    assert not whole(CALM, cuts, replace(outcome, finished=[2, *outcome.finished[1:]]))


def test_without_checkpoints_more_comes_again() -> None:
    fleet = replace(WILD, partitions=40)
    with_them, without = (
        simulate(one, parts(one)) for one in (fleet, replace(fleet, checkpoints=False, moved=0.0))
    )
    assert without.again > 1.5 * with_them.again


def test_twice_the_workers_take_half_as_long_where_workers_are_the_limit() -> None:
    one, two = (simulate(fleet, parts(fleet)) for fleet in (CALM, replace(CALM, workers=10)))
    assert one.again == two.again == 0
    assert 0.45 < two.seconds / one.seconds < 0.6


def test_no_number_of_workers_is_quicker_than_the_fullest_node() -> None:
    fleet = replace(CALM, workers=2000)
    cuts = parts(fleet)
    at = Counter[int]()
    for part in cuts:
        for node, slots in part.at.items():
            at[node] += sum(slots)
    fullest = max(at.values()) * fleet.server
    assert fullest < simulate(fleet, cuts).seconds < 1.5 * fullest


def test_the_other_tables_can_be_made() -> None:
    rows = [_facts.of_plan(SMALL, parts(SMALL)), *_facts.of_keys(SMALL), *_facts.of_checkpoints(SMALL)]
    rows += [*_facts.of_memory(SMALL), *_facts.of_turns(SMALL)]
    assert all(all(row) for row in rows)
    asked, read = measured(SMALL, 2000, 1)
    assert len(asked) == 10 and len(read) == 4
