"""Rows of an engine into real servers: what was read comes back as it was, and tables become hashes."""

from __future__ import annotations

import asyncio
import datetime
import pickle
import threading
import time
from typing import Any

import pyarrow as pa
import pytest
import redis

import oneatatime
from oneatatime import InvalidInput
from oneatatime._record import Batch
from oneatatime.engines._table import Table
from oneatatime.engines._written import Destination, Rows, together, write
from oneatatime.server import EmbeddedServer
from tests.clusters import Cluster
from tests.compare import assert_same, everything
from tests.every_type import KEYS, SMALL, content, fill
from tests.importing import piece, take
from tests.servers import Server


def rows(url: str, **arguments: Any) -> Any:
    table = Table.of(url, partitions=4, **{"options": SMALL, **arguments})
    for partition in table.partitions:
        yield from table.batches(partition)


@pytest.fixture
def other() -> Any:
    with EmbeddedServer() as other:
        yield other


@pytest.mark.parametrize("shape", ["batches", "tables", "wide", "one row"])
def test_what_was_read_comes_back_as_it_was(server: Server, other: EmbeddedServer, shape: str) -> None:
    fill(server.admin)
    given = rows(server.url)
    if shape == "tables":
        given = iter([pa.Table.from_batches(given)])
    elif shape == "wide":  # as some engines have it
        given = (batch.set_column(0, "key", batch.column("key").cast(pa.large_binary())) for batch in given)
    elif shape == "one row":
        given = (batch.slice(row, 1) for batch in given for row in range(batch.num_rows))
    loaded = write(given, other.url)
    expected = content(server.url)
    assert content(other.url) == expected and len(expected) == KEYS
    with redis.Redis(unix_socket_path=other.path, protocol=2) as admin:
        assert_same(everything(admin), everything(server))
    assert loaded.written == len(expected) and loaded.types["hash"] == 301
    assert pickle.loads(pickle.dumps(loaded)) == loaded


def test_and_as_text(server: Server, other: EmbeddedServer) -> None:
    server.admin.hset("h", mapping={"name": "Ærø", "n": 1})
    server.admin.xadd("s", {"f": "ø"}, id="1-1")
    server.admin.set("k", "v", px=100_000)
    write(rows(server.url, encoding="utf-8"), other.url)
    assert content(other.url) == content(server.url)


def test_into_a_cluster_and_every_database(cluster: Cluster, server: Server, other: EmbeddedServer) -> None:
    fill(server.admin)
    assert write(rows(server.url), cluster.url).written == len(content(server.url))
    assert content(cluster.url) == content(server.url)
    second = redis.Redis(unix_socket_path=server.path, db=3)
    second.set("third", "x")
    second.close()
    write(rows(server.url, db="all"), other.url)
    assert len(content(other.url)) == len(content(server.url))
    assert redis.Redis(unix_socket_path=other.path, db=3).get("third") == b"x"


def test_columns_that_are_missing_are_null_and_a_row_is_a_hash_without_a_type(server: Server) -> None:
    admin = server.admin
    table = pa.table({"key": ["a", "b"], "type": ["string", "string"], "string": [b"1", b"2"]})
    assert write([table], server.url).written == 2
    assert admin.get("a") == b"1"
    soon = int(time.time() * 1000) + 100_000
    table = pa.table(
        {
            "key": [b"u:1", b"u:2"],
            "name": ["Ada", None],
            "age": pa.array([36, 7], pa.int8()),
            "score": [0.1, 1e22],
            "small": pa.array([0.1, 2.0], pa.float32()),
            "well": [True, False],
            "raw": [b"\xff", b""],
            "born": [datetime.date(1815, 12, 10), None],
            "word": pa.array(["x", "y"]).dictionary_encode(),
            "never": pa.nulls(2),
            "expires_at": [soon, None],
        }
    )
    assert write([table, table], server.url).written == 4
    expected = {b"name": b"Ada", b"age": b"36", b"score": b"0.1", b"small": b"0.1", b"well": b"true"}
    expected |= {b"raw": b"\xff", b"born": b"1815-12-10", b"word": b"x"}
    assert admin.hgetall("u:1") == expected
    assert admin.hgetall("u:2")[b"score"] == b"1e+22" and b"name" not in admin.hgetall("u:2")
    assert admin.pexpiretime("u:1") == soon and admin.ttl("u:2") == -1
    columns = {"name": "string", "age": "int8", "score": "float64", "well": "bool", "born": "date32"}
    back = pa.table(oneatatime.stream(server.url, match="u:1").arrow(columns=columns)).to_pylist()
    assert back == [
        {
            "key": b"u:1",
            "name": "Ada",
            "age": 36,
            "score": 0.1,
            "well": True,
            "born": table["born"][0].as_py(),
        }
        | {name: back[0][name] for name in back[0] if name not in {"key", *columns}}
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": ["x"]}, "no column 'key'"),
        ({"key": [None], "name": ["x"]}, "null"),
        ({"key": ["k"], "tags": [["a"]]}, "'tags' is list"),
        ({"key": ["k"], "at": [datetime.timedelta(1)]}, "'at' is duration"),
        ({"key": ["k"], "name": pa.array([None], pa.string())}, "key 'k'"),
        ({"key": ["k"], "f": ["x"], "expires_at": ["soon"]}, "'expires_at' is string"),
        ({"key": ["k"], "type": ["string"], "name": ["x"]}, "'name'"),
        ({"key": ["k"], "type": ["string"]}, "key 'k'"),
        ({"key": ["k"], "type": ["hash"], "hash": ["x"]}, "'hash' is string"),
        ({"key": ["k"], "type": ["string"], "string": [b"x"], "part": [1]}, "piece 1"),
        ({"key": ["k"], "type": ["string"], "string": [b"x"], "part": [0]}, "last piece"),
    ],
)
def test_rows_that_make_no_sense_are_refused_by_name(server: Server, table: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        write([pa.table(table)], server.url)
    assert said in str(caught.value).replace("key b'k'", "key 'k'")
    assert not server.admin.exists("k")


def test_what_is_done_with_keys_that_exist_and_with_others(server: Server) -> None:
    table = pa.table({"key": ["a:1", "b:1"], "f": [1, 2]})
    server.admin.set("a:1", "old")
    skipped = write([table], server.url, on_conflict="skip")
    assert (skipped.written, skipped.skipped) == (1, 1)
    with pytest.raises(oneatatime.Error, match="exists already"):
        write([table], server.url, on_conflict="fail")
    replaced = write([table], server.url, match="a:*")
    assert (replaced.written, replaced.replaced, replaced.left_out) == (1, 1, 1)
    assert together([skipped, replaced]).written == 2
    for wrong in ({"on_conflict": "maybe"}, {"checkpoint": "x"}, {"colour": 1}, {"match": 7}):
        with pytest.raises(InvalidInput):
            Destination.of(server.url, **wrong)


async def test_it_works_where_an_event_loop_runs(server: Server) -> None:
    await asyncio.sleep(0)
    assert write([pa.table({"key": ["a"], "f": [1]})], server.url).written == 1


def test_passwords_do_not_travel(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.ask("ACL", "SETUSER", "writer", "on", ">hush-hush", "~*", "+@all")
    url = server.url.replace("unix://", "unix://writer:hush-hush@")
    with pytest.raises(InvalidInput, match="secret="):
        Destination.of(url)
    where = Destination.of(url, secret="WRITER_PASSWORD")
    sent = pickle.dumps(where)
    assert b"hush" not in sent and "hush" not in repr(where)
    monkeypatch.setenv("WRITER_PASSWORD", "hush-hush")
    assert pickle.loads(sent).write([pa.table({"key": ["a"], "f": [1]})]).written == 1


async def test_it_goes_back_to_the_first_piece_of_a_value(server: Server) -> None:
    """As after a connection that was lost in its middle."""
    columns = {"key": ["w", "k", "k", "k"], "type": ["string"] * 4, "string": [b"0", b"1", b"2", b"3"]}
    columns |= {"part": [None, 0, 1, 2], "last": [None, False, False, True]}
    batches = pa.table(columns).to_batches(max_chunksize=2)
    for slices in (batches, [batches[0].slice(0, 2), batches[1].slice(0, 1), batches[1].slice(1, 1)]):
        feed = Rows(slices)
        before = [number async for number in _numbers(feed)]
        await feed.go_back(1)
        after = [number async for number in _numbers(feed)]
        assert before[0] == (0, [b"w", b"k"], [b"0", b"1"])
        assert after == [(1, [b"k"], [b"1"]), *before[1:]]
        await feed.close()
    await take(Rows(batches), server.url)
    assert server.admin.get("k") == b"123"
    assert len(piece(b"k", "string", b"", 0)) == 1


async def _numbers(feed: Rows) -> Any:
    while (found := await feed.next()) is not None:
        batch: Batch = found[1]
        yield found[0], batch.keys, batch.values


def test_connections_that_are_lost_all_the_time(server: Server, other: EmbeddedServer) -> None:
    fill(server.admin)
    server.admin.set("huge", b"0123456789abcdef" * (1 << 19))
    batches = list(rows(server.url))
    admin = redis.Redis(unix_socket_path=other.path)
    over, killed = threading.Event(), 0

    def kill() -> None:
        nonlocal killed
        while killed < 20 and not over.wait(0.05):  # or a slow machine would never get through
            killed += admin.client_kill_filter(_type="normal", skipme=True)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        loaded = [write(batches, other.url) for _ in range(3)]
    finally:
        over.set()
        thread.join()
    assert killed >= 3 and loaded[0].written == KEYS + 1
    assert content(other.url) == content(server.url)


async def test_of_a_value_too_big_to_be_kept_it_does_not(server: Server) -> None:
    chunk = b"x" * (8 << 20)
    rows = [
        pa.record_batch({"key": ["k"], "type": ["string"], "string": [chunk], "part": [n], "last": [n == 11]})
        for n in range(12)
    ]
    feed = Rows(rows)
    for _ in range(11):
        await feed.next()
    with pytest.raises(oneatatime.ConnectionLost, match="too big to be kept"):
        await feed.go_back(0)
    await feed.close()
    assert write(rows, server.url).written == 1 and server.admin.strlen("k") == 12 * len(chunk)
