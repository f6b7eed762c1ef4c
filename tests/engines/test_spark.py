"""The real Spark: it reads what is there, whatever dies meanwhile, and writes what it was given."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import oneatatime
from oneatatime.server import EmbeddedServer
from tests.clusters import Cluster
from tests.every_type import KEYS, content, fill, put_together
from tests.nodes import until
from tests.servers import Server

pytest.importorskip("pyspark", reason="not on this machine: pyspark (make test-engines)")

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession

from oneatatime.engines import spark as engine

pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore")]

PASSWORD, VARIABLE = "hush-hush-0815", "ONEATATIME_TEST_PASSWORD"
HUGE = 3_000_000
LOGGING = """
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {folder}/spark.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %m%n%ex
"""


@pytest.fixture(scope="module")
def session() -> Iterator[tuple[Any, Path]]:
    """A Spark with two workers that does failed tasks again, and the folder that all of its logs are in."""
    from pyspark import SparkContext

    with tempfile.TemporaryDirectory(prefix="spark-") as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv(VARIABLE, PASSWORD)
        (Path(name) / "log4j2.properties").write_text(LOGGING.format(folder=name))
        builder = SparkSession.builder.master("local[2,4]").appName("oneatatime")
        for setting, value in {
            "spark.ui.enabled": "false",
            "spark.driver.memory": "1g",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={name}/log4j2.properties",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": name,
            "spark.local.dir": name,
            "spark.sql.warehouse.dir": f"{name}/warehouse",
            "spark.sql.shuffle.partitions": "2",
            "spark.ui.showConsoleProgress": "false",
        }.items():
            builder = builder.config(setting, value)
        spark = builder.getOrCreate()
        spark.sparkContext.setLogLevel("INFO")
        engine.register(spark)
        try:
            yield spark, Path(name)
        finally:
            spark.stop()
            gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
            gateway.shutdown()
            gateway.proc.stdin.close()  # by which Java notices that nobody wants it any more
            gateway.proc.wait(30)


@pytest.fixture
def spark(session: tuple[Any, Path]) -> Any:
    return session[0]


def read(spark: Any, url: str, schema: str | None = None, **options: Any) -> Any:
    reader = spark.read.format("oneatatime").option("url", url).option("partitions", 3).options(**options)
    return reader.load() if schema is None else reader.schema(schema).load()


def write(frame: Any, url: str, mode: str = "append", **options: Any) -> None:
    frame.write.format("oneatatime").option("url", url).options(**options).mode(mode).save()


def rows_of(frame: Any) -> dict[Any, dict[str, Any]]:
    return put_together(frame.toArrow().to_pylist())


def of_stream(source: str, **arguments: Any) -> dict[Any, dict[str, Any]]:
    """The same rows, read by one stream here."""
    return put_together(pa.table(oneatatime.stream(source, **arguments).arrow()).to_pylist())


def asked(server: Server) -> dict[str, int]:
    """How often each command was sent since the last look."""
    found: Any = server.admin.info("commandstats")
    server.ask("CONFIG", "RESETSTAT")
    return {name.removeprefix("cmdstat_"): said["calls"] for name, said in found.items()}


# Reading -------------------------------------------------------------------------------------------


def test_it_reads_what_a_stream_reads(spark: Any, server: Server) -> None:
    fill(server.admin)
    server.admin.set("huge", bytes(range(250)) * (HUGE // 250))
    frame = read(spark, server.url)
    found = rows_of(frame)
    assert found == of_stream(server.url) and len(found) == KEYS + 1
    assert read(spark, server.url, "key binary").count() == KEYS + 1
    assert frame.count() > KEYS + 1  # the pieces of the huge one
    assert read(spark, server.url, partitions=7).where("type = 'hash'").count() == 301


def test_every_database(spark: Any, server: Server) -> None:
    fill(server.admin)
    for number in range(50):
        server.ask("SET", f"string:{number}", "here")
    server.ask("COPY", "list", "list", "DB", "3")
    frame = read(spark, server.url, db="all")
    assert rows_of(frame) == of_stream(server.url, db="all")
    assert read(spark, server.url, "key binary", db="all").count() == KEYS + 1
    assert frame.where("db = 3").select("key").collect()[0].key == b"list"


def test_text_and_elements_and_hashes(spark: Any, server: Server) -> None:
    fill(server.admin)
    for key in ("hash:1", "zset", "hyper", "big:string"):
        server.admin.delete(key)
    for number in range(300):
        server.admin.hdel(f"hash:{number}", b"\xff")
    text = read(spark, server.url, encoding="utf-8")
    assert rows_of(text) == of_stream(server.url, encoding="utf-8")
    elements = oneatatime.stream(server.url).arrow(flatten=True)
    assert read(spark, server.url, flatten="true").count() == pa.table(elements).num_rows
    people = read(spark, server.url, match="hash:*", columns="name:string, age:int64")
    assert people.schema.simpleString() == "struct<key:binary,name:string,age:bigint>"
    assert people.count() == 299
    assert people.agg({"age": "sum"}).collect()[0][0] == sum(range(300)) - 1
    inferred = read(spark, server.url, match="hash:*", columns="age,name")
    assert dict(inferred.dtypes)["age"] == "bigint"


def test_a_schema_chooses_columns_or_fields(spark: Any, server: Server) -> None:
    fill(server.admin)
    server.ask("CONFIG", "RESETSTAT")
    names = read(spark, server.url, "key string", match="hash:*").collect()
    assert sorted(row.key for row in names) == sorted(f"hash:{n}" for n in range(300))
    typed = read(spark, server.url, "type string, key binary", types="hash", match="hash:*")
    assert {row.type for row in typed.collect()} == {"hash"}
    assert not asked(server).keys() & {"hgetall", "hscan", "hmget", "type"}
    people = read(spark, server.url, "key string, age long", match="hash:*")
    assert people.where("age > 297").count() == 2 and people.schema["age"].dataType.typeName() == "long"
    commands = asked(server)
    assert commands.get("hmget") and not commands.keys() & {"hgetall", "hscan"}
    with pytest.raises(PySparkException, match="says that 'expires_at' is"):
        read(spark, server.url, "key string, expires_at timestamp").count()


def test_a_cluster(spark: Any, cluster: Cluster, server: Server) -> None:
    fill(server.admin)
    write(read(spark, server.url), cluster.url)
    assert content(cluster.url) == content(server.url)
    frame = read(spark, cluster.url, partitions=5)
    assert frame.count() == KEYS and rows_of(frame) == of_stream(server.url)


CONDITIONS = {  # and whether a scan leaves out what they leave out
    "type = 'hash'": True,
    "type in ('list', 'zset')": True,
    "type = 'hash' and type = 'list'": True,
    "type = 'hash' or key = 'list'": False,
    "not type = 'hash'": False,
    "type = 'bag'": False,
    "key = 'hash:7'": True,
    "key like 'hash:1%'": True,
    "key like 'l[1%'": True,
    "startswith(key, 'string:2') and type = 'string'": True,
    "key like '%7'": False,
    "key > 'hash:7' and type <> 'list'": False,
    "type is null": False,
    "string = 'value 7'": False,
}


def scans(server: Server) -> list[list[bytes]]:
    """The SCANs since the last look."""
    lines = [line[3] for line in server.ask("SLOWLOG", "GET", "-1")]
    server.ask("SLOWLOG", "RESET")
    return [words for words in lines if words[0].upper() == b"SCAN"]


def _narrowed(found: list[list[bytes]]) -> int:
    return sum(b"TYPE" in words or b"MATCH" in words for words in found)


def test_filters_reach_scan_and_find_the_same(spark: Any, server: Server) -> None:
    for number in range(60):
        server.admin.set(f"string:{number}", f"value {number}")
        server.admin.hset(f"hash:{number}", mapping={"a": number})
        server.admin.rpush(f"l[{number}]*", "a")
    server.admin.zadd("zset", {"a": 1})
    everything = read(spark, server.url, encoding="utf-8").cache()
    assert everything.count() == 181
    server.ask("CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "100000")
    oneatatime.plan(server.url, 3)
    planning = len(scans(server))  # which every query begins with, to see what cursors do
    for condition, reaches in CONDITIONS.items():
        scans(server)
        narrow = read(spark, server.url, encoding="utf-8", pushdown="true").where(condition)
        found = sorted(row.key for row in narrow.select("key").collect())
        expected = sorted(row.key for row in everything.where(condition).select("key").collect())
        assert found == expected, condition
        seen = scans(server)
        if condition == "type = 'hash' and type = 'list'":
            assert not seen
        elif not condition.startswith("type in"):  # for which SCAN has no word
            assert len(seen) > planning
            assert _narrowed(seen) == (len(seen) - planning if reaches else 0), condition
    as_bytes = read(spark, server.url, pushdown="true").where("key = X'686173683A37'")  # hash:7
    scans(server)
    assert as_bytes.count() == 1
    patterns = [words for words in scans(server) if b"MATCH" in words]
    assert patterns and all(b"hash:7" in words for words in patterns)
    server.ask("CONFIG", "RESETSTAT")
    assert read(spark, server.url, pushdown="true").where("type in ('list', 'zset')").count() == 61
    assert not asked(server).keys() & {"get", "mget", "getrange", "hgetall", "hscan"}
    pattern = read(spark, server.url, match="hash:1*", encoding="utf-8").where("key like '%:12'")
    assert pattern.count() == 1
    server.ask("CONFIG", "SET", "slowlog-log-slower-than", "10000")


def test_a_field_may_have_the_name_type(spark: Any, server: Server) -> None:
    server.admin.hset("a", mapping={"type": "list"})
    server.admin.hset("b", mapping={"type": "hash"})
    frame = read(spark, server.url, columns="type:string", encoding="utf-8", pushdown="true")
    assert [row.key for row in frame.where("type = 'list'").collect()] == ["a"]


def test_several_filters_of_one_frame(spark: Any, server: Server) -> None:
    fill(server.admin)
    total = read(spark, server.url).count()
    frame = read(spark, server.url)
    hashes, strings = frame.where("type = 'hash'"), frame.where("type = 'string'")
    assert (hashes.count(), frame.count(), strings.count()) == (301, total, 302)
    assert hashes.union(strings).count() == 603 and hashes.union(frame).count() == total + 301


def test_a_limit_stops_early(spark: Any, tcp_server: Server) -> None:
    tcp_server.admin.mset({f"key:{number}": "x" * 1_000 for number in range(50_000)})
    tcp_server.ask("CONFIG", "RESETSTAT")
    assert len(read(spark, tcp_server.url, partitions=5).limit(7).collect()) == 7
    until(lambda: not _reading(tcp_server), 10)
    few = asked(tcp_server)["scan"]
    assert read(spark, tcp_server.url, partitions=5).count() == 50_000
    assert few * 4 < asked(tcp_server)["scan"]  # of one partition, and not all of that


def _reading(server: Server) -> bool:
    return b"name=oneatatime" in server.ask("CLIENT", "LIST")


# What befalls it -----------------------------------------------------------------------------------


def workers() -> list[int]:
    """The processes of our own Spark that do its tasks in Python: children of its daemon."""
    daemons = {pid for pid in _descendants(os.getpid()) if b"pyspark.daemon" in _about(pid, "cmdline")}
    return [pid for pid in daemons if _parent(pid) in daemons]


def _descendants(pid: int) -> set[int]:
    every = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = {pid}
    while more := {one for one in every - found if _parent(one) in found}:
        found |= more
    return found - {pid}


def _parent(pid: int) -> int:
    said = _about(pid, "stat").rpartition(b")")[2].split()
    return int(said[1]) if said else 0


def _about(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def in_the_background(work: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_a_worker_that_is_killed_in_the_middle_is_done_again(spark: Any, server: Server) -> None:
    names = {f"key:{number}".encode() for number in range(12_000)}
    server.admin.mset(dict.fromkeys(names, "x" * 200))
    server.ask("CONFIG", "RESETSTAT")
    frame = read(spark, server.url, partitions=2, rate=2_000)
    thread, found = in_the_background(lambda: frame.select("key").toArrow()["key"].to_pylist())
    until(lambda: server.admin.info("stats")["keyspace_hits"] > 4_000, 60)
    victims = workers()
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    thread.join(100)
    assert len(found[0]) == len(names) and set(found[0]) == names
    assert server.admin.info("stats")["keyspace_hits"] > len(names) + 1_000  # some came twice, here


def test_a_node_that_fails_over_in_the_middle(spark: Any, cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    names = set(cluster.fill(9_000))
    frame = read(spark, cluster.url, partitions=2, rate=1_500)
    hits = lambda: sum(int(node.info("stats")["keyspace_hits"]) for node in cluster.primaries())  # noqa: E731
    before = hits()
    thread, found = in_the_background(lambda: frame.select("key").toArrow()["key"].to_pylist())
    until(lambda: hits() > before + 2_000, 60)
    assert not found
    cluster.primaries()[1].kill()
    thread.join(120)
    assert len(found[0]) == len(names) and set(found[0]) == names


def test_a_partition_that_cannot_be_read_is_an_error(spark: Any, node: Any) -> None:
    for number in range(2_000):
        node.ask("SET", f"key:{number}", "x" * 1000)
    frame = read(spark, f"redis://127.0.0.1:{node.port}", partitions=2, rate=300)
    failed: list[str] = []

    def count() -> None:
        try:
            frame.count()
        except PySparkException as error:
            failed.append(str(error))

    thread, _ = in_the_background(count)
    until(lambda: int(node.info("stats")["keyspace_hits"]) > 200, 60)
    node.restart(keep_data=True)
    thread.join(120)
    assert failed and "Incomplete" in failed[0]


# Writing -------------------------------------------------------------------------------------------


def test_what_is_written_is_what_was_read(spark: Any, server: Server) -> None:
    fill(server.admin)
    server.admin.set("huge", bytes(range(250)) * (HUGE // 250))
    with EmbeddedServer() as other:
        frame = read(spark, server.url)
        write(frame, other.url)
        assert content(other.url) == content(server.url) and len(content(other.url)) == KEYS + 1
        some = frame.where("type = 'hash'")
        write(some, other.url, on_conflict="skip")
        with pytest.raises(PySparkException, match="on_conflict"):
            write(some, other.url, on_conflict="fail")
        text = read(spark, server.url, types="list,stream", encoding="utf-8")
        write(text, other.url + "?db=1")
        assert sorted(key for _, key in content(other.url, db=1)) == [b"big:list", b"list", b"stream"]


def test_a_table_becomes_hashes(spark: Any, server: Server) -> None:
    people = spark.range(1_000).selectExpr("concat('user:', id) as key", "id as age", "id > 5 as old")
    write(people, server.url)
    assert server.admin.dbsize() == 1_000
    assert server.admin.hgetall("user:7") == {b"age": b"7", b"old": b"true"}
    with pytest.raises(PySparkException, match="tags"):
        write(spark.sql("select 'a' as key, array('x') as tags"), server.url)


def test_modes_and_options_that_make_no_sense(spark: Any, server: Server) -> None:
    server.admin.set("a", "b")
    frame = spark.sql("select 'a' as key, 'x' as field")
    with pytest.raises(AnalysisException, match=r"overwrite.*would mean to empty the deployment"):
        write(frame, server.url, "overwrite")
    for mode in ("errorifexists", "ignore"):
        with pytest.raises(AnalysisException, match="cannot be written"):
            write(frame, server.url, mode)
    assert server.admin.get("a") == b"b"
    for wrong, said in {
        "colour": "no option 'colour'",
        "type": "did you mean 'types'",
        "flatten": "true or false",
        "rate": "a number",
        "db": "a number, or all",
        "types": "nonsense",
        "columns": "name:type",
    }.items():
        value = "a,b:int64" if wrong == "columns" else "nonsense"
        with pytest.raises(AnalysisException, match=said):
            read(spark, server.url, **{wrong: value})
    with pytest.raises(AnalysisException, match="say which server"):
        spark.read.format("oneatatime").load()
    with pytest.raises(PySparkException, match="partitions=0 must be"):
        read(spark, server.url, partitions=0).count()


def test_without_pyspark_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("pyspark") or name == "oneatatime.engines.spark":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(oneatatime.MissingExtra, match=r'pip install "oneatatime\[spark\]".*default-jre'):
        __import__("oneatatime.engines.spark")


# Passwords -----------------------------------------------------------------------------------------


def test_passwords_are_nowhere(
    spark: Any, session: tuple[Any, Path], server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(server.admin)
    server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@all")
    server.ask("ACL", "SETUSER", "default", "off")
    named = server.url.replace("unix://", "unix://reader@")
    with_password = server.url.replace("unix://", f"unix://reader:{PASSWORD}@")
    with pytest.raises(AnalysisException, match=r'option\("secret", "NAME"\)') as refused:
        read(spark, with_password)
    frame = read(spark, named, secret=VARIABLE)
    frame.explain(True)
    assert frame.where("type = 'hash'").count() == 301
    with EmbeddedServer() as other:
        write(frame, other.url)
        assert len(content(other.url)) == KEYS
    write(frame.limit(3), named, secret=VARIABLE)
    with pytest.raises(PySparkException, match="environment variable") as missing:
        read(spark, named, secret="NOT_THERE").count()
    with pytest.raises(AnalysisException, match=r'option\("secret", "NAME"\)'):
        write(frame, with_password)
    reader = engine.OneatatimeDataSource({"url": named, "secret": VARIABLE, "partitions": "2"})
    for partition in reader.reader(reader.schema()).partitions():
        from pyspark import cloudpickle

        assert PASSWORD not in repr(partition)
        assert PASSWORD.encode() not in cloudpickle.dumps(partition)
    said = capfd.readouterr()
    for text in (said.out, said.err, str(refused.value), repr(refused.value), str(missing.value)):
        assert PASSWORD not in text
    files = [path for path in session[1].rglob("*") if path.is_file()]
    log = session[1] / "spark.log"
    assert log in files and len(files) > 2 and "oneatatime" in log.read_text()
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


# The guide -----------------------------------------------------------------------------------------


def test_the_guide_is_true(spark: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = server.admin
    for number in range(40):
        admin.hset(f"user:{number}", mapping={"name": f"user {number}", "age": number})
    admin.set("greeting", "hello")
    admin.set("order:1", "x")
    server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@all")
    text = (Path(__file__).parents[2] / "docs" / "guides" / "spark.md").read_text()
    for place in ("redis://localhost/1", "redis://localhost", "redis://reader@localhost"):
        text = text.replace(f'"{place}"', repr(_here(server, place)))
    text = text.replace('"REDIS_PASSWORD"', f'"{VARIABLE}"')
    names: dict[str, Any] = {"__name__": "docs"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M):
        exec(compile(block, "spark.md", "exec"), names)
    assert names["everything"].count() == 42 + 100 and names["orders"].count() == 1
    assert len(content(server.url, db=1)) == 40
    assert admin.hgetall("score:7") == {b"points": b"70", b"level": b"new"}


def _here(server: Server, place: str) -> str:
    if "@" in place:
        return server.url.replace("unix://", "unix://reader@")
    return server.url + ("?db=1" if place.endswith("/1") else "")
