"""Streams as tables: what pyarrow, polars, pandas and DuckDB see, how often, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import redis

import oneatatime
from oneatatime import InvalidInput
from tests.leaks import assert_no_connections, assert_nothing_left, threads
from tests.servers import Server
from tests.test_parts import SMALL, write

READING = {f"cmdstat_{name}" for name in ("scan", "mget", "get", "getrange", "hscan", "lrange")}


def fill(admin: redis.Redis, keys: int = 2000) -> None:
    pipeline: Any = admin.pipeline(transaction=False)
    for n in range(keys):
        pipeline.set(f"s:{n}", n)
        if n % 10 == 0:
            pipeline.hset(f"h:{n}", mapping={"n": n, "name": f"name {n}", "m": "x" if n % 20 else n})
            pipeline.rpush(f"l:{n}", "a", "b", "c")
    pipeline.execute()


def commands(server: Server) -> int:
    found: Any = server.admin.info("commandstats")
    return sum(int(said["calls"]) for name, said in found.items() if name in READING)


@pytest.fixture
def filled(server: Server) -> Any:
    fill(server.admin)
    yield server
    gc.collect()
    deadline = time.monotonic() + 2
    while threads():
        assert time.monotonic() < deadline, threads()
        time.sleep(0.005)
    assert_no_connections(server.admin)


CONSUMERS: dict[str, Any] = {
    "pyarrow": lambda s: pa.table(s).num_rows,
    "a reader of pyarrow": lambda s: sum(len(batch) for batch in pa.RecordBatchReader.from_stream(s)),
    "polars": lambda s: pl.DataFrame(s).height,
    "pandas": lambda s: len(pd.DataFrame.from_arrow(s)),
    "duckdb": lambda s: duckdb.sql("select count(*) from s").fetchall()[0][0],
}
if hasattr(pl, "scan_arrow_c_stream"):
    CONSUMERS["a lazy polars"] = lambda s: pl.scan_arrow_c_stream(s).collect().height


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS)
def test_everybody_sees_every_row_each_time(filled: Server, consumer: Any) -> None:
    stream = oneatatime.stream(filled.url)
    assert consumer(stream) == 2400
    next(iter(stream))  # one that was looped over in part is still scanned whole
    assert consumer(stream) == 2400
    assert consumer(stream.arrow(flatten=True)) == 2000 + 200 * 3 + 200 * 3
    assert consumer(stream.arrow(columns={"n": "int64"})) == 200
    stream.close()


def test_what_stands_in_a_table(server: Server) -> None:
    server.admin.set("s", "v")
    server.admin.hset("h", mapping={"f": "1"})
    as_bytes = pa.table(oneatatime.stream(server.url)).select(["key", "type", "string", "hash"]).to_pylist()
    assert sorted(as_bytes, key=lambda row: row["key"]) == [
        {"key": b"h", "type": "hash", "string": None, "hash": [(b"f", b"1")]},
        {"key": b"s", "type": "string", "string": b"v", "hash": None},
    ]
    as_text = pa.table(oneatatime.stream(server.url, encoding="utf-8"))
    assert sorted(as_text.column("key").to_pylist()) == ["h", "s"]
    other = pa.table(oneatatime.stream(server.url, encoding="latin-1", types="string"))
    assert other.select(["key", "string"]).to_pylist() == [{"key": "s", "string": "v"}]


def test_a_schema_that_is_asked_for_is_given(server: Server) -> None:
    server.admin.set("k", "v")
    table = oneatatime.stream(server.url).arrow(flatten=True)
    wanted = table.schema.set(0, pa.field("key", pa.large_binary()))
    assert pa.table(table, schema=wanted).schema.field("key").type == pa.large_binary()


def test_the_database_stands_there_where_there_are_several(server: Server) -> None:
    server.admin.set("a", "v")
    with redis.Redis(unix_socket_path=server.path, db=3) as other:
        other.set("b", "v")
    table = pa.table(oneatatime.stream(server.url, db="all")).select(["key", "db"])
    assert sorted(map(tuple, map(dict.values, table.to_pylist()))) == [(b"a", 0), (b"b", 3)]


def test_a_reader_that_is_left_open_keeps_no_process_alive(filled: Server) -> None:
    code = (
        "import sys, oneatatime, pyarrow\n"
        "reader = pyarrow.RecordBatchReader.from_stream(oneatatime.stream(sys.argv[1], count=10))\n"
        "reader.read_next_batch()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, filled.url], timeout=30, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_columns_of_hashes(filled: Server) -> None:
    stream = oneatatime.stream(filled.url, encoding="utf-8")
    table = stream.arrow(columns=["name", "n"])
    assert table.schema.names == ["key", "name", "n"]
    assert table.schema.field("n").type == pa.int64()
    assert repr(table) == "<ArrowStream of hashes: name, n; scanned anew each time>"
    found = pl.DataFrame(table).sort("n")
    assert found.row(1) == ("h:10", "name 10", 10)
    assert pa.table(stream.arrow(columns={"m": "int64"})).column("m").null_count == 100
    with pytest.raises(Exception, match=r"field 'm' holds b'x', which is no int64"):
        pa.table(stream.arrow(columns={"m": "int64"}, unfit="error"))


def test_duckdb_joins_a_stream_with_itself(filled: Server) -> None:
    stream = oneatatime.stream(filled.url, types="hash")
    assert stream is not None
    joined = duckdb.sql("select count(*) from stream a join stream b using (key)").fetchall()
    assert joined == [(200,)]


def test_a_limit_ends_the_scan_early(filled: Server) -> None:
    filled.admin.config_resetstat()
    stream = oneatatime.stream(filled.url, types="string", count=10, options=oneatatime.Options(ahead=1))
    assert stream is not None
    assert len(duckdb.sql("select key from stream limit 5").fetchall()) == 5
    few = commands(filled)
    filled.admin.config_resetstat()
    assert pl.DataFrame(stream).height == 2000
    assert few * 4 < commands(filled)


def test_a_reader_that_is_dropped_leaves_nothing(filled: Server) -> None:
    stream = oneatatime.stream(filled.url, count=10, options=oneatatime.Options(ahead=1))
    reader = pa.RecordBatchReader.from_stream(stream)
    assert reader.read_next_batch().num_rows > 0
    assert threads()
    del reader
    capsule = stream.__arrow_c_stream__()
    assert not threads()  # nothing begins before it is asked for
    del capsule


def test_a_reader_may_be_dropped_in_another_thread(filled: Server) -> None:
    held = [pa.RecordBatchReader.from_stream(oneatatime.stream(filled.url, count=10)) for _ in range(4)]
    for reader in held:
        reader.read_next_batch()
    reader = None  # type: ignore[assignment]
    dropping = [threading.Thread(target=held.pop) for _ in range(4)]
    for thread in dropping:
        thread.start()
    for thread in dropping:
        thread.join(5)
        assert not thread.is_alive()


async def test_within_a_running_loop(server: Server) -> None:
    fill(server.admin, 100)
    stream = oneatatime.stream(server.url)
    assert pl.DataFrame(stream).height == 120
    async for _ in stream:
        break
    assert pa.table(stream).num_rows == 120
    await stream.aclose()
    await assert_nothing_left(server.admin)


async def test_big_values_are_rows_of_pieces(server: Server) -> None:
    value = write(server, "big", "list", 3_000)
    table = pa.table(oneatatime.stream(server.url, options=SMALL))
    parts = table.column("part").to_pylist()
    assert parts == list(range(len(parts))) and len(parts) > 1
    assert [one for row in table.column("list").to_pylist() for one in row] == value
    elements = pa.table(oneatatime.stream(server.url, options=SMALL).arrow(flatten=True))
    assert elements.column("index").to_pylist() == list(range(3_000))
    assert elements.column("value").to_pylist() == value


def test_an_error_says_what_it_is(server: Server) -> None:
    server.admin.set("bad", b"\xff")
    with pytest.raises(Exception, match=r"UTF-8.*bad"):
        pa.table(oneatatime.stream(server.url, encoding="utf-8"))
    with pytest.raises(Exception, match=r"refused|connect"):
        pa.table(oneatatime.stream("redis://127.0.0.1:1", on_unreachable="fail"))
    assert not threads()


def test_keys_that_can_be_read_once_are_no_table(server: Server) -> None:
    server.admin.set("k", "v")
    assert pa.table(oneatatime.stream(server.url, keys=["k", "gone"])).num_rows == 1
    with pytest.raises(InvalidInput, match="give a list"):
        pa.table(oneatatime.stream(server.url, keys=iter(["k"])))


def test_what_makes_no_sense_is_refused() -> None:
    stream = oneatatime.stream("redis://127.0.0.1:1")
    for how in (
        {"flatten": True, "columns": {"a": "int64"}},
        {"columns": "a"},
        {"unfit": "skip"},
    ):
        with pytest.raises(InvalidInput):
            stream.arrow(**how)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no such Arrow type"):
        _ = stream.arrow(columns={"a": "number"}).schema
    assert "key, type, db" in repr(stream.arrow())


def test_the_first_batch_is_small_and_the_others_are_not(server: Server) -> None:
    server.admin.execute_command("DEBUG", "POPULATE", 30_000)
    rows = [batch.num_rows for batch in pa.RecordBatchReader.from_stream(oneatatime.stream(server.url))]
    assert sum(rows) == 30_000
    assert rows[0] <= 750 and max(rows) >= 10_000


# In a notebook


def test_a_notebook_shows_the_first_records(filled: Server) -> None:
    filled.admin.flushall()
    filled.admin.set("<b>", b"\xff<i>")
    filled.admin.rpush("l", *["x" * 30] * 5)
    stream = oneatatime.stream(filled.url)
    shown = stream._repr_html_()
    assert "<td>&lt;b&gt;</td><td>string</td><td>b&#x27;\\xff&lt;i&gt;&#x27;</td>" in shown
    assert "<td>list</td>" in shown and "…" in shown
    assert "0 keys, 0% done" in shown
    assert len(list(stream)) == 2  # nothing was taken of it
    assert "2 of about 2 keys, complete" in stream._repr_html_()


async def test_a_notebook_shows_at_most_ten_within_its_loop(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    assert oneatatime.stream(server.url)._repr_html_().count("<tr>") == 11
    await asyncio.sleep(0)


def test_a_notebook_shows_why_there_is_nothing() -> None:
    shown = oneatatime.stream("redis://127.0.0.1:1")._repr_html_()
    assert "127.0.0.1:1" in shown and "<table>" not in shown
    assert "only once" in oneatatime.stream("redis://127.0.0.1:1", keys=iter(["k"]))._repr_html_()
