"""Cutting the database into ranges of cursors: nothing falls between them, and nothing comes twice."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oneatatime
from oneatatime import Options, ProtocolViolation
from oneatatime._cursor import (
    POSITIONS,
    Range,
    cut,
    position,
)
from oneatatime._options import Selection
from oneatatime._scan import Border, Disordered, Scan
from tests.fake import as_array
from tests.servers import Server

cursors = st.integers(0, POSITIONS - 1)
RANGES = [1, 2, 3, 5, 7, 16]


# Arithmetic


@given(cursors)
def test_position_and_cursor_are_each_others_reverse(cursor: int) -> None:
    assert position(position(cursor)) == cursor
    assert 0 <= position(cursor) < POSITIONS


@given(cursors, st.integers(1, 63))
def test_the_servers_next_cursor_stands_further_on(cursor: int, bits: int) -> None:
    """What dictScan does: fill the high bits, add one to the number read backwards."""
    filled = cursor | (POSITIONS - 1) ^ ((1 << bits) - 1)
    after = (position(filled) + 1) % POSITIONS
    assert after == 0 or after > position(cursor)


@given(st.integers(1, 1000))
def test_ranges_cover_every_position_once(ranges: int) -> None:
    partitions = cut(Range(), ranges)
    assert len(partitions) == ranges
    assert (partitions[0].start, partitions[-1].end) == (0, POSITIONS)
    assert all(one.end == following.start for one, following in itertools.pairwise(partitions))
    widths = {partition.end - partition.start for partition in partitions}
    assert max(widths) - min(widths) <= 1


# Against a server


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("keys", [0, 1, 2, 3, 10, 40, 600, 5000])
async def test_a_quiet_database_is_delivered_exactly_once(any_server: Server, ranges: int, keys: int) -> None:
    for turn in range(3 if keys < 100 else 1):
        any_server.admin.flushall()
        if keys:
            names = [f"{turn}:{n * 7919 % 100_003}" for n in range(keys)]
            any_server.admin.mset(dict.fromkeys(names, "v"))
            any_server.admin.mget(
                *names, *names
            )  # each look at a key goes on with a resize that is under way
        for count in (1, 10, 500) if keys < 1000 else (100, 500):
            stream = oneatatime.stream(any_server.url, options=Options(ranges=ranges, count=count))
            found = [key async for key, _ in stream]
            assert len(found) == any_server.admin.dbsize() == keys
            assert len(set(found)) == keys
            done = stream.statistics()
            assert (done.keys, done.vanished, done.fraction, done.complete) == (keys, 0, 1.0, True)


@pytest.mark.parametrize("ranges", [2, 3, 7])
async def test_patterns_and_types_cut_into_ranges_miss_nothing(server: Server, ranges: int) -> None:
    for n in range(2000):
        server.admin.set(f"s:{n}", n) if n % 5 else server.admin.rpush(f"l:{n}", n)
    options = Options(ranges=ranges, count=50)
    for arguments, expected in (
        ({"match": "l:*"}, 400),
        ({"types": "list"}, 400),
        ({"types": ("list", "set")}, 400),
        ({"match": "*1"}, 200),
        ({"match": "none*"}, 0),
    ):
        stream = oneatatime.stream(server.url, options=options, **arguments)  # type: ignore[arg-type]
        found = [key async for key, _ in stream]
        assert len(found) == len(set(found)) == expected


@pytest.mark.parametrize("ranges", [1, 2, 5])
@pytest.mark.parametrize("how", ["grows", "shrinks", "turns over"])
async def test_keys_that_are_there_all_along_come_while_the_table_changes(
    server: Server, ranges: int, how: str
) -> None:
    """The table is made to resize again and again in mid-scan; ours must all come, twice at most rarely."""
    stable = [b"stable:%d" % n for n in range(3000)]
    server.admin.mset(dict.fromkeys(stable, b"v"))
    others = [f"other:{n}" for n in range(60_000)]
    if how == "shrinks":
        server.admin.mset(dict.fromkeys(others, "v"))
    randomness = random.Random(7)
    stream = oneatatime.stream(server.url, options=Options(ranges=ranges, count=40, ahead=1))
    seen: Counter[bytes] = Counter()
    start = 0
    async for batch in stream.batches():
        seen.update(record.key for record in batch if record.key.startswith(b"stable:"))
        part = others[start : start + 3000]
        start += 3000
        if how == "grows" and part:
            server.admin.mset(dict.fromkeys(part, "v"))
        elif how == "shrinks" and part:
            server.admin.delete(*part)
        elif how == "turns over":
            some = randomness.sample(others, 3000)
            server.admin.mset(dict.fromkeys(some[:1500], "v"))
            server.admin.delete(*some[1500:])
        await asyncio.sleep(0)
    assert set(seen) == set(stable)
    assert stream.statistics().complete


async def test_a_key_overwritten_all_the_time_is_delivered(server: Server) -> None:
    server.admin.mset({f"k{n}": n for n in range(3000)})
    stop = False

    def overwrite() -> None:
        while not stop:
            server.admin.set("k7", "again")

    overwriting = asyncio.create_task(asyncio.to_thread(overwrite))
    try:
        for _ in range(5):
            assert b"k7" in {key async for key, _ in oneatatime.stream(server.url, count=50)}
    finally:
        stop = True
        await overwriting


# The SCAN calls of one range, by hand


def scan(partition: Range | None = None, border: Border | None = None) -> Scan:
    border = border or Border()
    return Scan(partition or Range(), Selection(), 10, before=border, after=border, node="here")


def cursor_at(fraction: float) -> bytes:
    return b"%d" % position(int(fraction * POSITIONS))


def test_a_range_is_asked_for_from_its_start_to_its_end() -> None:
    first, second = cut(Range(), 2)
    one = scan(second)
    assert one.request().payload == b"*4\r\n$4\r\nSCAN\r\n$1\r\n1\r\n$5\r\nCOUNT\r\n$2\r\n10\r\n"
    assert one.take([as_array([cursor_at(0.75), [b"a"]])]) == [b"a"]
    assert (one.finished, one.done) == (False, POSITIONS // 4)
    assert one.take([as_array([b"0", [b"b"]])]) == [b"b"]
    assert (one.finished, one.done) == (True, POSITIONS // 2)
    other = scan(first)
    other.take([as_array([cursor_at(0.25), []])])
    assert (other.finished, other.done) == (False, POSITIONS // 4)
    other.take([as_array([cursor_at(0.6), []])])
    assert (other.finished, other.done) == (True, POSITIONS // 2)


def test_what_two_ranges_see_at_their_border_comes_once() -> None:
    border = Border()
    first, second = (scan(partition, border) for partition in cut(Range(), 2))
    assert second.take([as_array([cursor_at(0.75), [b"c", b"d"]])]) == [b"c", b"d"]
    assert first.take([as_array([cursor_at(0.3), [b"a"]])]) == [b"a"]
    assert first.take([as_array([cursor_at(0.6), [b"b", b"c"]])]) == [b"b"]
    assert second.take([as_array([b"0", [b"d", b"e"]])]) == [b"e"]


def test_a_page_at_both_edges_of_its_range_is_kept() -> None:
    """A range so narrow that one page spans it once claimed its keys twice, and lost them."""
    middle = scan(cut(Range(), 5)[2])
    assert middle.take([as_array([cursor_at(0.9), [b"a", b"b"]])]) == [b"a", b"b"]
    assert middle.finished


def test_a_range_that_is_split_leaves_nothing_out_and_gives_nothing_twice() -> None:
    one = scan()
    assert one.take([as_array([cursor_at(0.25), [b"a"]])]) == [b"a"]
    other = one.split()
    assert one.range == Range(0, POSITIONS * 5 // 8)
    assert other.range == Range(POSITIONS * 5 // 8, POSITIONS)
    assert other.take([as_array([cursor_at(0.7), [b"c"]])]) == [b"c"]
    assert one.take([as_array([cursor_at(0.65), [b"b", b"c"]])]) == [b"b"]  # under way at the split
    assert other.take([as_array([b"0", [b"d"]])]) == [b"d"]
    assert (one.finished, other.finished) == (True, True)
    assert one.done + other.done == POSITIONS


def test_an_empty_page_is_not_the_end() -> None:
    one = scan()
    assert one.take([as_array([cursor_at(0.5), []])]) == []
    assert not one.finished


@pytest.mark.parametrize(
    "reply",
    [None, b"OK", [], [b"0"], [b"0", [], []], [b"x", []], [b"-1", []], [0, []], [b"0", b"k"], [b"0", [1]]],
    ids=repr,
)
def test_a_reply_that_no_scan_gives_is_refused(reply: object) -> None:
    with pytest.raises(ProtocolViolation, match="SCAN"):
        scan().take([reply])
    with pytest.raises(ProtocolViolation):
        scan().take([as_array([b"%d" % POSITIONS, []])])


def test_a_cursor_that_goes_back_ends_a_range_with_an_error_and_not_in_silence() -> None:
    one = scan(cut(Range(), 2)[1])
    one.take([as_array([cursor_at(0.9), [b"a"]])])
    with pytest.raises(Disordered, match="cannot be cut into ranges"):
        one.take([as_array([cursor_at(0.8), [b"b"]])])


def test_a_whole_database_may_have_cursors_in_any_order_but_not_in_a_circle() -> None:
    one = scan()
    assert one.take([as_array([cursor_at(0.9), [b"a"]])]) == [b"a"]
    assert one.take([as_array([cursor_at(0.2), [b"b"]])]) == [b"b"]
    with pytest.raises(ProtocolViolation, match="circle"):
        one.take([as_array([cursor_at(0.2), []])])
