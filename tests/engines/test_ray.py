"""The real Ray: it reads what is there, whatever dies meanwhile, and writes what it was given."""

from __future__ import annotations

import os
import pickle
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import oneatatime
from oneatatime import InvalidInput, Options
from oneatatime.engines import ray as engine
from oneatatime.server import EmbeddedServer
from tests.clusters import Cluster
from tests.every_type import KEYS, SMALL, content, fill, put_together
from tests.nodes import until
from tests.servers import Server

ray = pytest.importorskip("ray", reason="not on this machine: ray (make test-engines)")

pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore")]

PASSWORD, VARIABLE = "hush-hush-0815", "ONEATATIME_TEST_PASSWORD"


@pytest.fixture(scope="module")
def session() -> Iterator[Path]:
    """A Ray of two CPUs, whose workers have the password in their environment; where it keeps its logs."""
    import ray.data

    os.environ[VARIABLE] = PASSWORD
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield Path(folder)
        finally:
            ray.shutdown()
            del os.environ[VARIABLE]


@pytest.fixture(autouse=True)
def _session(session: Path) -> None:
    """Every test has it."""


def rows_of(dataset: Any) -> list[dict[str, Any]]:
    return [row for block in dataset.iter_internal_ref_bundles() for row in _rows(block)]


def _rows(bundle: Any) -> Iterator[dict[str, Any]]:
    for reference in bundle.block_refs:
        block = ray.get(reference)
        yield from block.to_pylist()


def of_stream(source: str, **arguments: Any) -> dict[Any, dict[str, Any]]:
    """The same rows, read by one stream here."""
    return put_together(pa.table(oneatatime.stream(source, **arguments).arrow()).to_pylist())


# Reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 7])
@pytest.mark.parametrize("arguments", [{}, {"options": SMALL}, {"db": "all"}])
def test_it_reads_what_a_stream_reads(server: Server, partitions: int, arguments: Any) -> None:
    fill(server.admin)
    dataset = engine.read(server.url, partitions=partitions, **arguments)
    assert dataset.count() == KEYS
    found = put_together(rows_of(dataset))
    assert found == of_stream(server.url, **arguments) and len(found) == KEYS


def test_text_and_elements_and_hashes(server: Server) -> None:
    fill(server.admin)
    for key in ("hash:1", "zset", "hyper", "big:string"):
        server.admin.delete(key)
    for number in range(300):
        server.admin.hdel(f"hash:{number}", b"\xff")
    text = engine.read(server.url, encoding="utf-8", partitions=3)
    assert put_together(rows_of(text)) == of_stream(server.url, encoding="utf-8")
    elements = oneatatime.stream(server.url).arrow(flatten=True)
    assert engine.read(server.url, flatten=True, partitions=3).count() == pa.table(elements).num_rows
    columns = {"name": "string", "age": "int64"}
    people = engine.read(server.url, match="hash:*", columns=columns, partitions=3).to_pandas()
    assert len(people) == 299 and people["age"].sum() == sum(range(300)) - 1


def test_a_cluster(cluster: Cluster, server: Server) -> None:
    fill(server.admin)
    sink = engine.datasink(cluster.url)
    engine.read(server.url, options=SMALL).write_datasink(sink)
    assert sink.loaded.written == KEYS and content(cluster.url) == content(server.url)
    dataset = engine.read(cluster.url, partitions=5)
    assert dataset.count() == KEYS
    assert put_together(rows_of(dataset)) == of_stream(server.url)


def asked(server: Server) -> dict[str, int]:
    found: Any = server.admin.info("commandstats")
    return {name.removeprefix("cmdstat_"): said["calls"] for name, said in found.items()}


def test_what_is_not_needed_is_not_read(server: Server) -> None:
    fill(server.admin)
    server.ask("CONFIG", "RESETSTAT")
    dataset = engine.read(server.url, partitions=3)
    assert dataset.count() == KEYS and dataset.select_columns(["key"]).count() == KEYS
    assert sorted(row["key"] for row in dataset.select_columns(["key"]).take_all()) == sorted(
        server.admin.keys()
    )
    strings = engine.read(server.url, partitions=3, types="string", match="string:*")
    assert strings.select_columns(["type", "key"]).count() == 300
    assert not asked(server).keys() & {"get", "mget", "getrange", "hgetall", "hscan", "dump", "type"}
    ages = engine.read(server.url, partitions=3, columns={"age": "int64", "name": "string"}, match="hash:*")
    assert ages.select_columns(["age"]).sum("age") == sum(range(300))
    assert asked(server).get("hmget", 0) and not asked(server).keys() & {"hgetall", "hscan", "get"}


def test_a_limit_stops_early(tcp_server: Server) -> None:
    tcp_server.admin.mset({f"key:{number}": "x" * 100 for number in range(50_000)})
    tcp_server.ask("CONFIG", "RESETSTAT")
    hits = lambda: tcp_server.admin.info("stats")["keyspace_hits"]  # noqa: E731
    dataset = engine.read(tcp_server.url, partitions=2, limit=7)
    assert dataset.count() == 7 and len(dataset.take_all()) == 7
    assert engine.read(tcp_server.url, partitions=2).map(lambda row: row).limit(9).count() == 9
    assert hits() < 10_000  # and not 50,000, some pages ahead included
    before = hits()
    assert len(engine.read(tcp_server.url, partitions=20).take(5)) == 5
    assert hits() - before < 20_000  # the partitions that had begun


def test_what_makes_no_sense_is_told_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"colour": 1}, {"types": "nonsense"}, {"keys": ["a"]}, {"partitions": 0}):
        with pytest.raises((InvalidInput, TypeError)):
            engine.read(server.url, **wrong)
    with pytest.raises(InvalidInput):
        engine.datasink(server.url, on_conflict="perhaps")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    for call in (engine.read, engine.datasink, lambda url: engine.apply(url, len)):
        with pytest.raises(oneatatime.MissingExtra, match=r'pip install "oneatatime\[ray\]"'):
            call(server.url)


# What befalls it -----------------------------------------------------------------------------------


def workers(name: str) -> list[int]:
    """The processes of our own Ray that do a task of this name now."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"ray::{name}" in (folder / "cmdline").read_text() and _is_ours(int(folder.name)):
                    found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


def _is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def in_the_background(work: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_a_worker_that_is_killed_in_the_middle_is_done_again(server: Server) -> None:
    names = {f"key:{number}".encode() for number in range(12_000)}
    server.admin.mset(dict.fromkeys(names, "x" * 200))
    server.ask("CONFIG", "RESETSTAT")
    hits = lambda: server.admin.info("stats")["keyspace_hits"]  # noqa: E731
    dataset = engine.read(server.url, partitions=2, rate=1_000)
    thread, found = in_the_background(lambda: [row["key"] for row in rows_of(dataset)])
    until(lambda: len(workers("ReadOneatatime")) == 2, 60)
    begun = hits()
    until(lambda: hits() > begun + 3_000, 20)
    assert not found
    os.kill(workers("ReadOneatatime")[0], signal.SIGKILL)
    thread.join(100)
    assert len(found[0]) == len(names) and set(found[0]) == names
    assert hits() > len(names) + 500  # what the one had read was read again


def test_a_node_that_fails_over_in_the_middle(cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    names = set(cluster.fill(9_000))
    dataset = engine.read(cluster.url, partitions=2, rate=1_500)
    thread, found = in_the_background(lambda: [row["key"] for row in rows_of(dataset)])
    until(lambda: workers("ReadOneatatime"), 60)
    time.sleep(1.5)
    assert not found
    cluster.primaries()[1].kill()
    thread.join(120)
    assert len(found[0]) == len(names) and set(found[0]) == names


def test_a_partition_that_cannot_be_read_is_an_error(node: Any) -> None:
    for number in range(2_000):
        node.ask("SET", f"key:{number}", "x")
    dataset = engine.read(f"redis://127.0.0.1:{node.port}", partitions=2, options=Options(patience=2))
    node.restart(keep_data=True)
    with pytest.raises(Exception, match="process") as caught:
        dataset.count()
    assert "PlanOutdated" in repr(caught.value) + str(caught.value)


# Writing -------------------------------------------------------------------------------------------


def test_what_is_written_is_what_was_read(server: Server) -> None:
    fill(server.admin)
    with EmbeddedServer() as other:
        sink = engine.datasink(other.url)
        dataset = engine.read(server.url, partitions=3, options=SMALL)
        dataset.write_datasink(sink)
        assert content(other.url) == content(server.url) and len(content(other.url)) == KEYS
        assert sink.loaded.written == KEYS and sink.loaded.types["string"] == 302
        dataset.materialize().write_datasink(sink)
        assert content(other.url) == content(server.url) and sink.loaded.replaced
        skip = engine.datasink(other.url, on_conflict="skip")
        dataset.write_datasink(skip)
        assert (skip.loaded.written, skip.loaded.skipped) == (0, KEYS)


def test_a_table_becomes_hashes(server: Server) -> None:
    import ray.data

    sink = engine.datasink(server.url, prefix="user:")
    people = ray.data.range(1_000).map(lambda row: {"key": f"user:{row['id']}", "age": row["id"], "a": True})
    people.write_datasink(sink)
    assert sink.loaded.written == 1_000
    assert server.admin.hgetall("user:7") == {b"age": b"7", b"a": b"true"}
    nested = ray.data.from_items([{"key": "a", "tags": ["x"]}])
    with pytest.raises(Exception, match="tags"):
        nested.write_datasink(engine.datasink(server.url))


# A function for each partition ---------------------------------------------------------------------


def test_a_function_for_each_partition(server: Server) -> None:
    fill(server.admin)
    assert sum(engine.apply(server.url, lambda stream: len(list(stream.keys())), partitions=5)) == KEYS
    first = engine.apply(server.url, lambda stream: repr(stream), partitions=5)
    assert len(first) == 5 and first == engine.apply(server.url, lambda stream: repr(stream), partitions=5)

    def dies_once(stream: Any) -> int:
        import redis

        client = redis.Redis(unix_socket_path=path, db=1)
        seen = sum(1 for _ in stream.keys())
        if client.incr("attempts") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return seen

    path = server.path
    assert sum(engine.apply(server.url, dies_once, partitions=3)) == KEYS


def test_a_function_that_fails_ends_it_early(server: Server) -> None:
    fill(server.admin)
    path = server.path

    def fails(stream: Any) -> None:
        import redis

        redis.Redis(unix_socket_path=path, db=1).incr("attempts")
        raise ZeroDivisionError("on purpose")

    for retries in (0, 1, 1):
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            engine.apply(server.url, fails, partitions=16, retries=retries)
    time.sleep(1)
    import redis

    attempts = int(redis.Redis(unix_socket_path=path, db=1).get("attempts") or 0)
    assert 1 + 2 + 2 <= attempts <= 3 * 2 * 6  # of 16 + 32 + 32: a few at a time


# Passwords -----------------------------------------------------------------------------------------


def test_passwords_are_nowhere(server: Server, session: Path) -> None:
    fill(server.admin)
    server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@all")
    server.ask("ACL", "SETUSER", "default", "off")
    url = server.url.replace("unix://", f"unix://reader:{PASSWORD}@")
    with pytest.raises(InvalidInput, match="secret="):
        engine.read(url)
    dataset = engine.read(url, partitions=3, secret=VARIABLE)
    tasks = dataset._logical_plan.dag.datasource.get_read_tasks(3)
    from ray import cloudpickle

    assert PASSWORD.encode() not in cloudpickle.dumps(tasks) and PASSWORD not in repr(dataset)
    assert dataset.count() == KEYS
    with EmbeddedServer() as other:
        dataset.write_datasink(engine.datasink(other.url))
    sink = engine.datasink(url, secret=VARIABLE)
    assert PASSWORD.encode() not in pickle.dumps(sink)
    dataset.limit(3).write_datasink(sink)
    assert sum(engine.apply(url, lambda stream: len(list(stream)), secret=VARIABLE, partitions=2)) == KEYS
    with pytest.raises(Exception, match="environment variable"):
        engine.read(url, partitions=3, secret="NOT_THERE").count()
    files = [path for path in session.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_a_runtime_env_reaches_it_too(server: Server) -> None:
    fill(server.admin)
    server.ask("ACL", "SETUSER", "default", "resetpass", ">another")
    with pytest.raises(Exception, match="environment variable"):
        engine.read(server.url, secret="ANOTHER", partitions=2)
    os.environ["ANOTHER"] = "another"
    try:
        options = {"runtime_env": {"env_vars": {"ANOTHER": "another"}}}
        dataset = engine.read(server.url, secret="ANOTHER", partitions=2, ray_options=options)
        assert dataset.count() == KEYS
    finally:
        del os.environ["ANOTHER"]


# The guide -----------------------------------------------------------------------------------------


def test_the_guide_is_true(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    admin = server.admin
    for number in range(40):
        admin.hset(f"user:{number}", mapping={"name": f"user {number}", "age": number})
    admin.set("greeting", "hello")
    admin.set("order:1", "x")
    server.ask("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@all")
    monkeypatch.setenv("REDIS_PASSWORD", "")
    text = (Path(__file__).parents[2] / "docs" / "guides" / "ray.md").read_text()
    for place in ("redis://localhost/1", "redis://localhost", "redis://reader@localhost"):
        text = text.replace(f'"{place}"', repr(_here(server, place)))
    text = text.replace('"REDIS_PASSWORD", match', f'"{VARIABLE}", match')
    names: dict[str, Any] = {"__name__": "docs"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M):
        exec(compile(block, "ray.md", "exec"), names)
    assert names["everything"].count() == 142 and names["orders"].count() == 1
    assert names["sink"].loaded.written == 40 and len(content(server.url, db=1)) == 40
    assert admin.hgetall("score:7") == {b"points": b"70", b"level": b"new"}


def _here(server: Server, place: str) -> str:
    if "@" in place:
        return server.url.replace("unix://", "unix://reader@")
    return server.url + ("?db=1" if place.endswith("/1") else "")


def test_a_partition_is_one_block_whatever_the_context_says(server: Server) -> None:
    import ray.data

    server.admin.mset({f"key:{number}": "x" * 100 for number in range(20_000)})
    context = ray.data.DataContext.get_current()
    before, context.target_max_block_size = context.target_max_block_size, 100_000
    try:
        dataset = engine.read(server.url, partitions=3)
        assert dataset.materialize().num_blocks() == 3
        assert dataset.map_batches(lambda batch: batch).materialize().num_blocks() == 3
    finally:
        context.target_max_block_size = before
