"""The real Daft: it reads what is there, and no more than a query needs."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import oneatatime
from oneatatime import InvalidInput, Options
from tests.clusters import Cluster
from tests.every_type import KEYS, SMALL, fill, put_together
from tests.nodes import until
from tests.servers import Server

daft = pytest.importorskip("daft", reason="not on this machine: daft (make test-engines)")

from oneatatime.engines import daft as engine  # noqa: E402

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

PASSWORD, VARIABLE = "hush-hush-0815", "ONEATATIME_TEST_PASSWORD"
col = daft.col


def rows_of(frame: Any) -> dict[Any, dict[str, Any]]:
    return put_together(frame.to_arrow().to_pylist())


def of_stream(source: str, **arguments: Any) -> dict[Any, dict[str, Any]]:
    """The same rows, read by one stream here."""
    return put_together(pa.table(oneatatime.stream(source, **arguments).arrow()).to_pylist())


def asked(server: Server) -> dict[str, int]:
    """How often each command was sent since the last look."""
    found: Any = server.admin.info("commandstats")
    server.ask("CONFIG", "RESETSTAT")
    return {name.removeprefix("cmdstat_"): said["calls"] for name, said in found.items()}


@pytest.mark.parametrize("partitions", [1, 7])
@pytest.mark.parametrize("arguments", [{}, {"options": SMALL}, {"db": "all"}])
def test_it_reads_what_a_stream_reads(server: Server, partitions: int, arguments: Any) -> None:
    fill(server.admin)
    frame = engine.read(server.url, partitions=partitions, **arguments)
    found = rows_of(frame)
    assert found == of_stream(server.url, **arguments) and len(found) == KEYS
    assert frame.select("key").count_rows() == KEYS


def test_text_and_elements_and_hashes(server: Server) -> None:
    fill(server.admin)
    for key in ("hash:1", "zset", "hyper", "big:string"):
        server.admin.delete(key)
    for number in range(300):
        server.admin.hdel(f"hash:{number}", b"\xff")
    text = engine.read(server.url, encoding="utf-8", partitions=3)
    assert rows_of(text) == of_stream(server.url, encoding="utf-8")
    elements = oneatatime.stream(server.url).arrow(flatten=True)
    assert engine.read(server.url, flatten=True, partitions=3).count_rows() == pa.table(elements).num_rows
    columns = {"name": "string", "age": "int64"}
    people = engine.read(server.url, match="hash:*", columns=columns, partitions=3).to_pydict()
    assert len(people["name"]) == 299 and sum(people["age"]) == sum(range(300)) - 1


def test_a_cluster(cluster: Cluster) -> None:
    names = set(cluster.fill(5_000))
    frame = engine.read(cluster.url, partitions=5)
    assert frame.count_rows() == len(names)
    assert set(frame.to_pydict()["string"]) == names


def test_a_node_that_fails_over_in_the_middle(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    names = cluster.fill(6_000)
    frame = engine.read(cluster.url, partitions=3, rate=1_000)
    found: list[bytes] = []
    for number, batch in enumerate(frame.select("key", "string").to_arrow_iter(results_buffer_size=1)):
        found += batch["key"].to_pylist()
        if number == 1:
            assert len(found) < len(names)
            cluster.primaries()[1].kill()
    assert sorted(found) == sorted(names)


CONDITIONS: list[Any] = [
    col("type") == "hash",
    col("type").is_in(["list", "zset"]),
    (col("type") == "hash") & (col("type") == "list"),
    (col("type") == "hash") | (col("key") == "list"),
    ~(col("type") == "hash"),
    col("type") == "bag",
    col("key") == "hash:7",
    (col("key") == "hash:7") & (col("expires_at").is_null()),
    col("key").startswith("hash:1"),
    col("type").is_null(),
    (col("type") == "string") & (col("string") == "value 7"),
]


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_every_filter_finds_what_daft_finds(server: Server, condition: Any) -> None:
    for number in range(100):
        server.admin.set(f"string:{number}", f"value {number}")
        server.admin.hset(f"hash:{number}", mapping={"a": number})
    server.admin.rpush("list", "a")
    server.admin.zadd("zset", {"a": 1})
    frame = engine.read(server.url, encoding="utf-8", partitions=3)
    expected = sorted(frame.collect().where(condition).to_pydict()["key"])
    again = engine.read(server.url, encoding="utf-8", partitions=3)
    assert sorted(again.where(condition).to_pydict()["key"]) == expected
    assert sorted(again.where(condition).select("key").to_pydict()["key"]) == expected
    few = again.where(condition).limit(2).select("key").to_pydict()["key"]
    assert len(few) == min(2, len(expected)) and set(few) <= set(expected)


def test_what_is_not_needed_is_not_read(server: Server) -> None:
    fill(server.admin)
    server.ask("CONFIG", "RESETSTAT")
    frame = engine.read(server.url, partitions=3)
    assert frame.select("key").count_rows() == KEYS
    assert set(asked(server)) & {"get", "mget", "getrange", "hscan", "hgetall", "type"} == set()
    assert frame.where(col("type") == "hash").count_rows() == 301
    assert not asked(server).keys() & {"get", "mget", "getrange", "lrange", "zrange", "smembers"}
    assert frame.where(col("type").is_in(["list", "zset"])).count_rows() == 3
    assert not asked(server).keys() & {"get", "mget", "getrange", "hgetall", "hscan"}
    assert frame.where(col("key") == b"string:1").to_pydict()["string"] == [b"value 1"]
    commands = asked(server)
    assert commands["scan"] and not commands.keys() & {"hgetall", "hscan", "lrange", "dump"}
    ages = engine.read(server.url, partitions=3, columns={"age": "int64", "name": "string"}, match="hash:*")
    assert sum(ages.select("age").to_pydict()["age"]) == sum(range(300))
    commands = asked(server)
    assert commands.get("hmget") and not commands.keys() & {"hgetall", "hscan", "get"}


def test_a_limit_stops_early(tcp_server: Server) -> None:
    tcp_server.admin.mset({f"key:{number}": "x" * 1_000 for number in range(50_000)})
    tcp_server.ask("CONFIG", "RESETSTAT")
    assert len(engine.read(tcp_server.url, partitions=20).limit(7).to_pydict()["key"]) == 7
    until(lambda: b"name=oneatatime" not in tcp_server.ask("CLIENT", "LIST"), 10)
    few = asked(tcp_server)["scan"]
    assert engine.read(tcp_server.url, partitions=20).count_rows() == 50_000
    assert few * 3 < asked(tcp_server)["scan"]


def test_what_makes_no_sense_is_told_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"colour": 1}, {"types": "nonsense"}, {"keys": ["a"]}, {"partitions": 0}):
        with pytest.raises((InvalidInput, TypeError)):
            engine.read(server.url, **wrong)
    for name in list(sys.modules):
        if name.split(".")[0] == "daft" or name.startswith("oneatatime.engines."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(oneatatime.MissingExtra, match=r'pip install "oneatatime\[daft\]"'):
        __import__("oneatatime.engines.daft")


def test_a_partition_that_cannot_be_read_is_an_error(node: Any) -> None:
    for number in range(2_000):
        node.ask("SET", f"key:{number}", "x")
    frame = engine.read(f"redis://127.0.0.1:{node.port}", partitions=2, options=Options(patience=2))
    node.restart(keep_data=True)
    with pytest.raises(Exception, match="process") as caught:
        frame.to_pydict()
    assert "Incomplete" in repr(caught.value) + str(caught.value)


def test_passwords_are_nowhere(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(server.admin)
    server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@all")
    server.ask("ACL", "SETUSER", "default", "off")
    url = server.url.replace("unix://", f"unix://reader:{PASSWORD}@")
    monkeypatch.setenv(VARIABLE, PASSWORD)
    with pytest.raises(InvalidInput, match="secret="):
        engine.read(url)
    frame = engine.read(url, partitions=3, secret=VARIABLE)
    frame.explain(True)
    assert frame.select("key").count_rows() == KEYS and PASSWORD not in repr(frame)
    source = engine._Source(engine.Table.of(url, partitions=3, secret=VARIABLE))
    assert PASSWORD.encode() not in pickle.dumps(source)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(Exception, match="environment variable") as missing:
        frame.count_rows()
    said = capfd.readouterr()
    assert PASSWORD not in said.out + said.err + str(missing.value)


def test_the_guide_is_true(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        server.admin.hset(f"user:{number}", mapping={"name": f"user {number}", "age": number})
    server.admin.set("greeting", "hello")
    server.admin.set("order:1", "x")
    server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@all")
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    text = (Path(__file__).parents[2] / "docs" / "guides" / "daft.md").read_text()
    text = text.replace('"redis://localhost"', repr(server.url))
    text = text.replace('"redis://reader@localhost"', repr(server.url.replace("unix://", "unix://reader@")))
    names: dict[str, Any] = {"__name__": "docs"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M):
        exec(compile(block, "daft.md", "exec"), names)
    assert names["everything"].count_rows() == 42 and names["orders"].count_rows() == 1
