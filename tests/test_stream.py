"""The loop: what it delivers, in what forms, and that its counts are true at every step."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import oneatatime
from oneatatime import InvalidInput, Options, ProtocolViolation, Record, Undecodable
from tests.fake import FakeServer, array, bulk, page
from tests.reading import everything, gathered
from tests.servers import Server

TYPES = ("string", "hash", "list", "set", "zset", "stream")


def fill(server: Server, count: int) -> dict[bytes, Any]:
    """`count` keys of all core types in turn."""
    written: dict[bytes, Any] = {}
    pipe = server.admin.pipeline(transaction=False)
    for n in range(count):
        kind = TYPES[n % len(TYPES)]
        key, one = b"%b:%d" % (kind.encode(), n), b"%d" % n
        if kind == "string":
            pipe.set(key, one)
            written[key] = one
        elif kind == "hash":
            pipe.hset(key, mapping={one: one})
            written[key] = {one: one}
        elif kind == "list":
            pipe.rpush(key, one, one)
            written[key] = [one, one]
        elif kind == "set":
            pipe.sadd(key, one)
            written[key] = {one}
        elif kind == "zset":
            pipe.zadd(key, {one: n})
            written[key] = [(one, float(n))]
        else:
            pipe.xadd(key, {one: one}, id="1-1")
            written[key] = [(b"1-1", {one: one})]
    pipe.execute()
    return written


def kind_of(key: bytes) -> str:
    return key.partition(b":")[0].decode()


# Forms


async def test_everything_comes_all_types_mixed(any_server: Server) -> None:
    written = fill(any_server, 2000)
    assert await everything(any_server.url) == written


async def test_an_empty_database_is_a_loop_without_a_turn(server: Server) -> None:
    stream = oneatatime.stream(server.url)
    assert [pair async for pair in stream] == []
    done = stream.statistics()
    assert (done.keys, done.complete, done.fraction, done.estimated_total) == (0, True, 1.0, 0)
    assert list(iter(oneatatime.stream(server.url))) == []


async def test_records_know_key_type_and_value(server: Server) -> None:
    written = fill(server, 300)
    records = [record async for record in oneatatime.stream(server.url).records()]
    assert {record.key: record.value for record in records} == written
    assert all(type(record) is Record and record.type == kind_of(record.key) for record in records)
    assert {record[3:] for record in records} == {(None,) * 8}


async def test_batches_are_lists_of_records(server: Server) -> None:
    written = fill(server, 1300)
    batches = [batch async for batch in oneatatime.stream(server.url).batches()]
    assert all(type(batch) is list and batch for batch in batches)
    assert len(batches) < 300
    records = list(itertools.chain(*batches))
    assert {record.key: record.value for record in records} == written
    assert all(record.type == kind_of(record.key) for record in records)


async def test_keys_come_without_a_value_being_read(server: Server) -> None:
    written = fill(server, 1300)
    server.admin.config_resetstat()
    stream = oneatatime.stream(server.url)
    assert sorted(await gathered(stream.keys())) == sorted(written)
    done = stream.statistics()
    assert (done.keys, done.complete, dict(done.types)) == (1300, True, {})
    ran = {name.removeprefix("cmdstat_") for name in server.admin.info("commandstats")}
    assert not ran & {
        "get",
        "mget",
        "getrange",
        "hscan",
        "hgetall",
        "lrange",
        "sscan",
        "zrange",
        "xrange",
        "type",
    }


async def test_keys_of_one_type_or_of_several_are_of_those_types(server: Server) -> None:
    written = fill(server, 1200)
    for types in (("hash",), ("hash", "stream"), TYPES):
        stream = oneatatime.stream(server.url, types=types)
        wanted = [key for key in written if kind_of(key) in types]
        assert sorted(await gathered(stream.keys())) == sorted(wanted)
        assert stream.statistics().types == Counter(map(kind_of, wanted))


async def test_a_keys_view_that_is_not_looped_over_takes_no_value_away(server: Server) -> None:
    written = fill(server, 300)
    stream = oneatatime.stream(server.url)
    stream.keys()
    assert dict([pair async for pair in stream]) == written


async def test_a_stream_begun_by_keys_does_not_invent_values(server: Server) -> None:
    fill(server, 300)
    stream = oneatatime.stream(server.url)
    first = await anext(stream.keys())
    for view in (stream, stream.records(), stream.batches()):
        with pytest.raises(InvalidInput, match="keys"):
            await anext(view)
    rest = await gathered(stream.keys())
    assert len({first, *rest}) == 300
    await stream.aclose()


async def test_keys_after_pairs_are_the_keys_that_are_left(server: Server) -> None:
    written = fill(server, 700)
    stream = oneatatime.stream(server.url)
    before = [(await anext(stream))[0] for _ in range(10)]
    after = await gathered(stream.keys())
    assert sorted(before + after) == sorted(written)


# Going on


async def test_a_second_loop_goes_on_where_the_first_stopped(server: Server) -> None:
    written = fill(server, 1500)
    stream = oneatatime.stream(server.url)
    found: list[Any] = []
    for stop in (1, 7, 500, 10_000):
        async for pair in stream:
            found.append(pair)
            if len(found) >= stop:
                break
    assert len(found) == len(written)
    assert dict(found) == written
    assert [pair async for pair in stream] == []


@pytest.mark.parametrize("steps", [1, 3, 40])
async def test_switching_between_forms_in_mid_batch_loses_nothing(server: Server, steps: int) -> None:
    written = fill(server, 1500)
    stream = oneatatime.stream(server.url, metadata="ttl")
    records = stream.records()
    found: dict[bytes, Any] = {}

    async def take(view: Any, as_pairs: Callable[[Any], list[tuple[bytes, Any]]]) -> int:
        taken = 0
        async for item in view:
            for key, value in as_pairs(item):
                assert key not in found
                found[key] = written[key] if value is _UNREAD else value
            taken += 1
            if taken == steps:
                break
        return taken

    total = -1
    while len(found) > total:
        total = len(found)
        await take(stream, lambda pair: [pair])
        await take(records, lambda record: [(record.key, record.value)])
        await take(stream.keys(), lambda key: [(key, _UNREAD)])
        await take(stream.records(), lambda record: [(record.key, record.value)])
        await take(stream.batches(), lambda batch: [(record.key, record.value) for record in batch])
        assert stream.statistics().keys == len(found)
        assert stream.statistics().types == Counter(map(kind_of, found))
    assert found == written
    assert stream.statistics().complete


_UNREAD = object()


async def test_several_tasks_share_one_stream(server: Server) -> None:
    written = fill(server, 3000)
    stream = oneatatime.stream(server.url)
    shares: list[list[Any]] = [[] for _ in range(5)]

    async def work(share: list[Any], view: Any) -> None:
        async for item in view:
            share.append(item)
            if len(share) % 10 == 0:
                await asyncio.sleep(0)

    await asyncio.gather(*(work(share, stream) for share in shares))
    found = list(itertools.chain(*shares))
    assert len(found) == 3000
    assert dict(found) == written
    assert all(shares)


async def test_several_tasks_may_share_it_in_different_forms(server: Server) -> None:
    written = fill(server, 3000)
    stream = oneatatime.stream(server.url)
    found: list[bytes] = []

    async def work(view: Any, key_of: Callable[[Any], bytes]) -> None:
        async for item in view:
            found.append(key_of(item))
            await asyncio.sleep(0)

    await asyncio.gather(
        work(stream, lambda pair: pair[0]),
        work(stream.records(), lambda record: record.key),
        work(stream.keys(), lambda key: key),
    )
    assert sorted(found) == sorted(written)


# Without an event loop, and inside one


def test_a_plain_for_works_without_a_loop(server: Server) -> None:
    written = fill(server, 1300)
    stream = oneatatime.stream(server.url)
    assert dict(iter(stream)) == written
    assert stream.statistics().complete
    assert sorted(oneatatime.stream(server.url).keys()) == sorted(written)
    assert {record.key: record.value for record in oneatatime.stream(server.url).records()} == written
    batches = list(oneatatime.stream(server.url).batches())
    assert {record.key: record.value for batch in batches for record in batch} == written


async def test_a_plain_for_works_inside_a_running_loop(server: Server) -> None:
    written = fill(server, 1300)
    assert dict(iter(oneatatime.stream(server.url))) == written  # as in a Jupyter cell


def test_a_plain_for_goes_on_after_a_break(server: Server) -> None:
    written = fill(server, 1300)
    stream = oneatatime.stream(server.url)
    found: list[Any] = []
    for stop in (1, 50, 10_000):
        for pair in stream:
            found.append(pair)
            if len(found) == stop:
                break
        assert stream.statistics().keys == len(found)
    assert len(found) == 1300
    assert dict(found) == written


def test_plain_loops_may_switch_forms(server: Server) -> None:
    written = fill(server, 1300)
    stream = oneatatime.stream(server.url)
    found = [key for key, _ in itertools.islice(stream, 100)]
    found += [record.key for record in itertools.islice(stream.records(), 100)]
    found += list(stream.keys())
    assert sorted(found) == sorted(written)


# Counts


async def test_counts_are_exact_at_every_step(server: Server) -> None:
    fill(server, 900)
    stream = oneatatime.stream(server.url)
    assert stream.statistics() == oneatatime.Statistics()
    types: Counter[str] = Counter()
    last = 0.0
    async for key, _ in stream:
        types[kind_of(key)] += 1
        so_far = stream.statistics()
        assert so_far.keys == types.total()
        assert so_far.types == types
        assert last <= so_far.fraction <= 1.0
        assert so_far.estimated_total == 900
        assert so_far.complete <= (so_far.keys == 900)
        last = so_far.fraction
    done = stream.statistics()
    assert (done.keys, done.types, done.fraction, done.complete) == (900, types, 1.0, True)
    assert (done.vanished, done.torn) == (0, 0)
    assert done.bytes > 900 * 20
    assert 0 < done.elapsed < 30
    assert stream.statistics().elapsed == done.elapsed  # the clock stops with the stream


async def test_commands_and_bytes_are_what_the_server_counted(server: Server) -> None:
    fill(server, 3000)
    server.admin.config_resetstat()
    stream = oneatatime.stream(server.url)
    async for _ in stream:
        pass
    done = stream.statistics()
    stats = server.admin.info("stats")
    ours = stats["total_commands_processed"] - 1  # CONFIG RESETSTAT is counted after it ran
    assert abs(done.commands - ours) <= 2
    assert abs(done.bytes - stats["total_net_output_bytes"]) < 6000
    assert done.round_trips < done.commands


async def test_the_total_is_estimated_under_a_pattern(server: Server) -> None:
    fill(server, 6000)
    stream = oneatatime.stream(server.url, match="hash:*")
    taken = 0
    async for _ in stream:
        taken += 1
        if taken == 500:
            total = stream.statistics().estimated_total
            assert total is not None
            assert 500 <= total <= 2500
    assert (taken, stream.statistics().estimated_total) == (1000, 1000)


# What to read


@pytest.mark.parametrize("match", ["hash:*", b"hash:*", "h?sh:[0-9]*"])
async def test_a_pattern_chooses_keys(server: Server, match: str | bytes) -> None:
    written = fill(server, 600)
    assert await everything(server.url, match=match) == {
        key: value for key, value in written.items() if kind_of(key) == "hash"
    }


async def test_types_choose_keys_one_by_scan_several_by_the_reader(server: Server) -> None:
    written = fill(server, 1800)
    for wanted in (*TYPES, ("hash",), ("zset", "string"), ["list", "set", "stream"], TYPES, "HASH"):
        names = {wanted.lower()} if isinstance(wanted, str) else set(wanted)
        stream = oneatatime.stream(server.url, types=wanted)
        assert dict([pair async for pair in stream]) == {
            k: v for k, v in written.items() if kind_of(k) in names
        }
        assert set(stream.statistics().types) == names


async def test_several_types_among_keys_that_are_all_of_another_give_nothing(server: Server) -> None:
    server.admin.mset({f"k{n}": "v" for n in range(1500)})
    stream = oneatatime.stream(server.url, types=("hash", "set"))
    assert [pair async for pair in stream] == []
    assert (stream.statistics().vanished, stream.statistics().complete) == (0, True)


async def test_keys_that_change_their_types_under_one_prefix_come_right(server: Server) -> None:
    """Runs of one type let the reader believe that all keys are of it; then they are not."""
    written: dict[bytes, Any] = {}
    pipe = server.admin.pipeline(transaction=False)
    keys = [f"k:{n}" for n in range(4000)]
    for n, key in enumerate(keys):
        if n < 2000 or n % 50:
            pipe.set(key, n)
            written[key.encode()] = b"%d" % n
        else:
            pipe.rpush(key, n)
            written[key.encode()] = [b"%d" % n]
    pipe.execute()
    found = dict([pair async for pair in oneatatime.stream(server.url, keys=keys)])
    assert found == written
    assert list(found) == list(written)
    assert await everything(server.url) == written
    only = await everything(server.url, types=("list", "set"))
    assert only == {key: value for key, value in written.items() if isinstance(value, list)}


async def test_given_keys_come_in_their_order_and_missing_ones_are_counted(server: Server) -> None:
    written = fill(server, 300)
    keys = [key for pair in zip(written, [b"missing:%d" % n for n in range(300)]) for key in pair]
    stream = oneatatime.stream(server.url, keys=keys)
    found = [pair async for pair in stream]
    assert found == list(written.items())
    done = stream.statistics()
    assert (done.keys, done.vanished, done.complete, done.estimated_total) == (300, 300, True, 600)


async def test_given_keys_may_be_chosen_by_type(server: Server) -> None:
    written = fill(server, 600)
    for types in ("hash", ("hash", "string")):
        found = [pair async for pair in oneatatime.stream(server.url, keys=list(written), types=types)]
        assert found == [(key, value) for key, value in written.items() if kind_of(key) in types]


async def test_given_keys_as_keys_are_those_that_exist(server: Server) -> None:
    fill(server, 6)
    stream = oneatatime.stream(server.url, keys=["string:0", "missing", "hash:1"])
    assert await gathered(stream.keys()) == [b"string:0", b"hash:1"]
    assert stream.statistics().vanished == 1


async def test_metadata_stands_beside_the_value(server: Server) -> None:
    written = fill(server, 900)
    for n, key in enumerate(written):
        if n % 3 == 0:
            server.admin.pexpire(key, 1_000_000 + n)
    names = ("ttl", "memory", "idle", "encoding")
    records = [record async for record in oneatatime.stream(server.url, metadata=names).records()]
    assert {record.key: record.value for record in records} == written
    for record in records:
        n = int(record.key.partition(b":")[2])
        if n % 3 == 0:
            assert 900_000 < record.ttl <= 1_000_000 + n
        else:
            assert record.ttl is None
        assert record.memory == server.admin.memory_usage(record.key)
        assert record.idle in (0, 1, 2)
        assert record.encoding == server.admin.object("encoding", record.key).decode()
        assert record.freq is None


@pytest.mark.parametrize("types", [None, "string", ("string", "hash")])
async def test_metadata_stays_with_its_key_when_others_are_missing_or_big(server: Server, types: Any) -> None:
    keys = [f"k:{n}" for n in range(500)]
    for n, key in enumerate(keys):
        if n % 7:
            server.admin.set(key, b"x" * (200_000 if n % 50 == 1 else n), px=10_000_000 + 1000 * n)
    stream = oneatatime.stream(
        server.url, keys=keys, types=types, metadata=["ttl"], options=Options(burst=300_000)
    )
    records = [record async for record in stream.records()]
    assert [record.key for record in records] == [key.encode() for n, key in enumerate(keys) if n % 7]
    for record in records:
        n = int(record.key[2:])
        assert 0 <= 10_000_000 + 1000 * n - record.ttl < 1000 * 30
        assert len(record.value) == (200_000 if n % 50 == 1 else n)
    assert stream.statistics().vanished == len([n for n in range(500) if n % 7 == 0])


async def test_access_frequency_is_told_under_an_lfu_policy_and_refused_under_another(server: Server) -> None:
    server.admin.config_set("maxmemory-policy", "allkeys-lfu")
    server.admin.set("key", "v")
    (record,) = [record async for record in oneatatime.stream(server.url, metadata="freq").records()]
    assert 0 <= record.freq <= 255
    server.admin.config_set("maxmemory-policy", "noeviction")
    with pytest.raises(oneatatime.ServerFailure, match="LFU") as caught:
        await everything(server.url, metadata="freq")
    assert (caught.value.command, caught.value.key) == ("OBJECT FREQ", b"key")


@pytest.mark.parametrize(
    "options",
    [
        Options(count=1),
        Options(count=1, ranges=7),
        Options(ranges=1),
        Options(burst=1, ahead=1),
        Options(parts_over=1, chunk=1),
        Options(reply_limit=200),
        Options(count=100_000),
    ],
    ids=repr,
)
async def test_any_options_give_the_same_values(server: Server, options: Options) -> None:
    written = fill(server, 400)
    stream = oneatatime.stream(server.url, options=options)
    found = {
        key: await value.load() if isinstance(value, oneatatime.Parts) else value
        async for key, value in stream
    }
    assert found == written
    assert stream.statistics().keys == 400


async def test_count_is_the_servers_count(server: Server) -> None:
    server.admin.mset({f"k{n}": "v" for n in range(2000)})
    few, many = (oneatatime.stream(server.url, count=count) for count in (1000, 10))
    for stream in (few, many):
        async for _ in stream.keys():
            pass
    assert many.statistics().round_trips > 20 * few.statistics().round_trips / 4


async def test_a_database_other_than_the_first_is_read_by_its_number(server: Server) -> None:
    server.ask("SET", "here", "0")
    other = server.admin.__class__(unix_socket_path=server.path, db=3, protocol=2)
    other.set("there", "3")
    other.close()
    assert await everything(f"{server.url}?db=3") == {b"there": b"3"}


# Text


async def test_text_is_text_all_the_way_down(server: Server) -> None:
    server.admin.set("ключ", "значение")
    server.admin.hset("hash", "é", "ü")
    server.admin.rpush("list", "é", "")
    server.admin.sadd("set", "é", "e")
    server.admin.zadd("zset", {"é": 1.5})
    server.ask("XADD", "stream", "1-1", "é", "ü")
    assert await everything(server.url, encoding="utf-8") == {
        "ключ": "значение",
        "hash": {"é": "ü"},
        "list": ["é", ""],
        "set": {"é", "e"},
        "zset": [("é", 1.5)],
        "stream": [("1-1", {"é": "ü"})],
    }


def mixed(server: Server, bad: set[int], count: int = 1200) -> None:
    pipe = server.admin.pipeline(transaction=False)
    for n in range(count):
        pipe.set(f"k{n}", b"\xff\xfe%d" % n if n in bad else b"%d" % n)
    pipe.execute()


@pytest.mark.parametrize("form", ["pairs", "records", "batches"])
async def test_what_is_no_text_is_raised_in_its_place_and_the_stream_goes_on(
    server: Server, form: str
) -> None:
    bad = {0, 1, 2, 500, 501, 900, 1199}
    mixed(server, bad)
    keys = [f"k{n}" for n in range(1200)]
    stream = oneatatime.stream(server.url, keys=keys, encoding="utf-8")
    view: Any = {"pairs": stream, "records": stream.records(), "batches": stream.batches()}[form]
    found: list[Any] = []
    while True:
        try:
            async for item in view:
                found += (
                    [record.value for record in item]
                    if form == "batches"
                    else [item[-1 if form == "pairs" else 2]]
                )
        except Undecodable as error:
            assert error.key is not None
            assert "utf-8" in str(error)
            assert "string value" in str(error)
            found.append(error.key)
        else:
            break
    assert found == [b"k%d" % n if n in bad else str(n) for n in range(1200)]
    done = stream.statistics()
    assert (done.keys, done.finished, done.complete) == (1200, True, False)


@pytest.mark.parametrize("steps", [1, 2, 5])
async def test_switching_forms_among_errors_loses_neither_records_nor_errors(
    server: Server, steps: int
) -> None:
    bad = set(range(0, 1200, 7)) | {1, 2, 3}
    mixed(server, bad)
    keys = [f"k{n}" for n in range(1200)]
    stream = oneatatime.stream(server.url, keys=keys, encoding="utf-8")
    found: list[Any] = []
    views: list[Any] = [stream, stream.batches(), stream.records(), stream.batches()]
    for view in itertools.cycle(views):
        before = len(found)
        with contextlib.suppress(StopAsyncIteration):
            for _ in range(steps):
                try:
                    item = await anext(view)
                except Undecodable as error:
                    found.append(error.key)
                else:
                    records = [item] if type(item) is not list else item
                    found += [record.value if type(record) is Record else record[1] for record in records]
        if len(found) == before:
            break
    assert found == [b"k%d" % n if n in bad else str(n) for n in range(1200)]


def test_what_is_no_text_is_raised_in_a_plain_for_too(server: Server) -> None:
    mixed(server, {7}, 20)
    stream = oneatatime.stream(server.url, encoding="ascii")
    found, errors = [], 0
    while True:
        try:
            found += [value for _, value in stream]
            break
        except Undecodable as error:
            errors += 1
            assert error.key == b"k7"
    assert (errors, stream.statistics().keys) == (1, 20)


async def test_a_key_that_is_no_text_is_an_error_that_names_it(server: Server) -> None:
    server.admin.set(b"\xff", "v")
    with pytest.raises(Undecodable, match="the key is not utf-8") as caught:
        await everything(server.url, encoding="utf-8")
    assert caught.value.key == b"\xff"
    with pytest.raises(Undecodable, match="the key is not utf-8"):
        await gathered(oneatatime.stream(server.url, encoding="utf-8").keys())


async def test_other_codecs_and_error_handlers_are_python_s(server: Server) -> None:
    server.admin.set(b"k\xff", b"v\xfe")
    assert await everything(server.url, encoding="latin-1") == {"kÿ": "vþ"}
    assert await everything(server.url, encoding="utf-8", errors="replace") == {"k�": "v�"}
    assert await everything(server.url, encoding="utf-8", errors="surrogateescape") == {"k\udcff": "v\udcfe"}


async def test_keys_as_text_find_what_the_stream_called_so(server: Server) -> None:
    keys = [b"k\xff", b"\xe9t\xe9", "été".encode(), b"plain"]
    for key in keys:
        server.admin.set(key, key)
    for text in ({"encoding": "utf-8", "errors": "surrogateescape"}, {"encoding": "latin-1"}):
        found = await everything(server.url, **text)
        given = oneatatime.stream(server.url, keys=list(found), **text)  # type: ignore[arg-type]
        assert dict([pair async for pair in given]) == found
        values = [value async for value in oneatatime.OneAtATime(server.url, list(found), **text)]  # type: ignore[arg-type]
        assert values == list(found.values())


async def test_a_str_key_that_the_encoding_has_no_bytes_for_is_refused(server: Server) -> None:
    with pytest.raises(InvalidInput, match="ascii"):
        await everything(server.url, keys=["é"], encoding="ascii")


# Races


async def test_keys_that_vanish_between_page_and_fetch_are_counted(server: Server) -> None:
    """Logically expired keys that nobody has removed are such keys, at every read."""
    pipe = server.admin.pipeline(transaction=False)
    for n in range(600):
        pipe.set(f"k{n}", "v")
    pipe.execute()
    keys = [f"k{n}" for n in range(600)]
    server.admin.delete(*keys[::3])
    stream = oneatatime.stream(server.url, keys=keys)
    assert len([pair async for pair in stream]) == 400
    assert stream.statistics().vanished == 200


async def test_a_keyspace_in_full_change_gives_right_values_or_none(server: Server) -> None:
    """Each key always holds a value that tells its name; whatever is read must tell the name of its key."""
    names = [f"k{n}" for n in range(400)]
    stop = False

    def change() -> None:
        pipe = server.admin.pipeline(transaction=False)
        turn = 0
        while not stop:
            turn += 1
            for n, name in enumerate(names):
                kind = (n + turn) % 5
                pipe.delete(name)
                if kind == 0:
                    pipe.set(name, name)
                elif kind == 1:
                    pipe.hset(name, name, name)
                elif kind == 2:
                    pipe.rpush(name, *[name] * (1 + n % 40))
                elif kind == 3:
                    pipe.zadd(name, {name: n})
            pipe.execute()

    changing = asyncio.create_task(asyncio.to_thread(change))
    try:
        started, turns = time.monotonic(), 0
        while time.monotonic() - started < 1.5:
            turns += 1
            stream = oneatatime.stream(server.url, options=Options(count=[5, 500][turns % 2]))
            async for record in stream.records():
                told = {
                    "string": lambda value: {value},
                    "hash": lambda value: {*value, *value.values()},
                    "list": set,
                    "zset": lambda value: {member for member, _ in value},
                }[record.type](record.value)
                assert told == {record.key}
            assert stream.statistics().complete
    finally:
        stop = True
        await changing
    assert turns > 1


# Bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"types": "strin"}, "did you mean 'string'"),
        ({"types": ["hash", "no such type"]}, "no such type"),
        ({"types": [1]}, "int"),
        ({"keys": ["a"], "match": "a*"}, "exclude each other"),
        ({"keys": "user:1"}, "one key"),
        ({"keys": 7}, "int"),
        ({"match": 7}, "match=7"),
        ({"metadata": "size"}, "'size'"),
        ({"encoding": "utf-9"}, "utf-9"),
        ({"encoding": "hex"}, "hex"),
        ({"encoding": "utf-8", "errors": "no such"}, "no such"),
        ({"count": 0}, "count"),
        ({"count": 1.5}, "count"),
        ({"count": True}, "count"),
    ],
    ids=repr,
)
def test_arguments_that_make_no_sense_are_refused_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        oneatatime.stream("redis://localhost", **arguments)
    assert isinstance(caught.value, ValueError)


async def test_a_type_the_server_does_not_know_gives_nothing_or_says_so(server: Server) -> None:
    server.admin.set("key", "v")
    for types in ("MBbloom--", "json", ("json", "hash")):
        try:
            assert await everything(server.url, types=types) == {}
        except InvalidInput as error:  # some servers check the name
            assert "has no type" in str(error)


@pytest.mark.parametrize("encoding", [None, "utf-8"])
@pytest.mark.parametrize("selection", [{"types": ["hash", "list"]}, {"keys": ["h", "l", "gone"]}, {}])
async def test_keys_alone_of_any_type_in_any_form(
    server: Server, encoding: str | None, selection: dict[str, Any]
) -> None:
    server.admin.hset("h", "f", "v")
    server.admin.rpush("l", "e")
    stream = oneatatime.stream(server.url, encoding=encoding, **selection)
    keys = [key async for key in stream.keys()]
    assert sorted(keys) == (["h", "l"] if encoding else [b"h", b"l"])


@pytest.mark.parametrize("view", ["pairs", "records", "batches"])
async def test_nonsense_that_shows_late_ends_the_stream_with_an_error(view: str) -> None:
    """A zset in which a score is none: only when the value is made does that show."""
    broken = array(array(bulk(b"m"), b",1\r\n"), array(bulk(b"n"), bulk(b"o"), bulk(b"p")))
    answers: Any = {
        b"SCAN": page(0, b"a", b"b", b"c"),
        b"TYPE": b"+zset\r\n",
        b"ZRANGE": lambda words: broken if words[1] == b"b" else array(array(bulk(b"m"), b",1\r\n")),
    }
    async with FakeServer(answers) as fake:
        stream = oneatatime.stream(fake.url, options=Options(ranges=1))
        items = {"pairs": stream, "records": stream.records(), "batches": stream.batches()}[view]
        with pytest.raises(ProtocolViolation, match="not the form"):
            async for _ in items:
                pass
        for _ in range(3):
            with pytest.raises(ProtocolViolation):
                async for _ in items:
                    pass
        assert not stream.statistics().complete
        await stream.aclose()


def test_threads_that_share_records_get_each_its_own_metadata(server: Server) -> None:
    with server.admin.pipeline() as pipe:
        for number in range(1, 20_001):
            pipe.rpush(f"l:{number}", "e")
            pipe.pexpire(f"l:{number}", number * 1_000_000)
        pipe.execute()
    records = oneatatime.stream(server.url, metadata="ttl").records()
    wrong: list[Any] = []

    def read() -> None:
        wrong.extend(record for record in records if abs(record.ttl / 1_000_000 - int(record.key[2:])) > 0.2)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
