"""How many bursts are under way: as many as the way to the server needs, and bounded."""

from __future__ import annotations

import time

import pytest

import oneatatime
from oneatatime import Options
from oneatatime._width import Width
from tests.proxy import FaultProxy, Plan


@pytest.mark.parametrize(
    ("work", "way", "fitting", "target"),
    [
        (0.001, 0.0001, 100, 2),  # a loopback
        (0.001, 0.020, 100, 22),  # another continent
        (0.001, 0.200, 100, 32),
        (0.001, 0.020, 5, 5),  # big pages: memory bounds it
        (0.001, 0.020, 0, 2),
    ],
)
def test_the_target_fills_the_way_there_and_back(work: float, way: float, fitting: int, target: int) -> None:
    width = Width(2, 32)
    width.saw(work, way, fitting)
    assert width.target == target


async def test_far_away_ranges_are_split_and_every_key_comes_once(tcp_server) -> None:
    tcp_server.admin.execute_command("DEBUG", "POPULATE", 60_000)
    async with FaultProxy(tcp_server.url) as proxy:
        proxy.plan = Plan(round_trip=0.02)
        stream = oneatatime.stream(proxy.url)
        keys = [key async for key, _ in stream]
    done = stream.statistics()
    assert len(keys) == len(set(keys)) == 60_000
    assert done.complete
    assert done.fraction == 1.0
    assert len(proxy.links) > 4
    assert done.elapsed < 0.02 * done.round_trips / 3  # many were under way at once


async def test_a_single_range_is_never_split(tcp_server) -> None:
    tcp_server.admin.execute_command("DEBUG", "POPULATE", 20_000)
    async with FaultProxy(tcp_server.url) as proxy:
        proxy.plan = Plan(round_trip=0.01)
        stream = oneatatime.stream(proxy.url, options=Options(ranges=1))
        assert len([key async for key, _ in stream]) == 20_000
    assert len(proxy.links) == 1


async def test_far_away_given_keys_are_asked_for_many_pages_ahead(tcp_server) -> None:
    tcp_server.admin.execute_command("DEBUG", "POPULATE", 20_000)
    names = [f"key:{number}" for number in range(20_000)]
    async with FaultProxy(tcp_server.url) as proxy:
        proxy.plan = Plan(round_trip=0.02)
        values = [value async for value in oneatatime.OneAtATime(proxy.url, names)]
    assert values == [f"value:{number}".encode() for number in range(20_000)]


async def test_a_slow_loop_near_the_server_needs_no_more_connections(server, admin) -> None:
    """A loop that blocks makes a short way look long, and many ranges would not help it."""
    admin.execute_command("DEBUG", "POPULATE", 60_000)
    stream = oneatatime.stream(server.url, match="*7")
    most = 0
    async for _ in stream:
        time.sleep(0.00005)
        if stream.statistics().keys % 500 == 0:
            most = max(most, sum(b"oneatatime" in name for name in _names(admin)))
    assert most <= 8  # of 32: on a slow machine the quickest answer takes as long as a few small pages


def _names(admin) -> list[bytes]:
    return [client["name"].encode() for client in admin.client_list()]


def test_pages_that_wait_for_more_than_one_answer_have_company() -> None:
    width = Width(2, 32)
    width.saw(0.001, 0.0001, 100, waits=17)  # the first pages find out what there is
    width.saw(0.001, 0.0001, 100)
    assert width.target == 2
    for _ in range(100):
        width.saw(0.001, 0.0001, 100, waits=2)
    assert width.target == 4


async def test_keys_whose_names_tell_no_type_are_read_over_more_connections(tcp_server) -> None:
    with tcp_server.admin.pipeline() as pipe:
        for number in range(60_000):
            if number % 2:
                pipe.set(f"item:{number}", "x")
            else:
                pipe.hset(f"item:{number}", "field", "x")
        pipe.execute()
    stream = oneatatime.stream(tcp_server.url)
    most = 0
    async for batch in stream.batches():
        most = max(most, sum(len(node.scans) for node in stream._reading.work.nodes.values()))
        assert batch
    assert most == 4
