"""Exports: whole files under their names or none, folders that go on, and every key that was there."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import random
import resource
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import redis

import oneatatime
from oneatatime import ConnectionLost, FileFailure, InvalidInput, Parts, Record, Undecodable
from oneatatime._manifest import Manifest
from oneatatime.server import EmbeddedServer
from tests.commandline import run, spawn
from tests.compare import everything
from tests.nodes import until
from tests.servers import Server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def filled(admin: redis.Redis) -> set[str]:
    keys = [f"user:{number}" for number in range(20_000)]
    admin.mset(dict.fromkeys(keys, "x" * 20))
    return set(keys)


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def keys_in(folder: Path) -> list[str]:
    """The keys in all parts that the manifest names, as often as they stand there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return [record["key"] for part in manifest["parts"] for record in records(folder / part["name"])]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# One file ----------------------------------------------------------------------------------------


async def test_everything_is_in_the_file(server: Server, filled: set[str], tmp_path: Path) -> None:
    done = await oneatatime.export(server.url, tmp_path / "all.jsonl")
    assert sorted(record["key"] for record in records(tmp_path / "all.jsonl")) == sorted(filled)
    assert (done.records, done.files, done.complete, dict(done.unfit)) == (20_000, 1, True, {})
    assert done.bytes == (tmp_path / "all.jsonl").stat().st_size
    assert done.statistics is not None and done.statistics.keys == 20_000
    assert names(tmp_path) == {"all.jsonl"}


async def test_arguments_of_a_stream_choose(server: Server, filled: set[str], tmp_path: Path) -> None:
    server.admin.sadd("set", "a")
    await oneatatime.export(server.url, tmp_path / "some.jsonl", match="user:1*", types="string")
    assert {record["key"] for record in records(tmp_path / "some.jsonl")} == {
        key for key in filled if key.startswith("user:1")
    }


async def test_an_empty_database_is_an_empty_file(server: Server, tmp_path: Path) -> None:
    done = await oneatatime.export(server.url, tmp_path / "none.jsonl")
    assert (done.records, done.complete) == (0, True)
    assert (tmp_path / "none.jsonl").read_bytes() == b""


async def test_a_run_that_fails_leaves_what_was_there(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    (tmp_path / "all.jsonl").write_text("before")

    async def failing(batches: AsyncIterator[Any]) -> AsyncIterator[Any]:
        seen = 0
        async for batch in batches:
            yield batch
            seen += len(batch)
            if seen > 10_000:
                raise RuntimeError("a step of the user's own")

    stream = oneatatime.stream(server.url, metadata=oneatatime.LOSSLESS)
    with pytest.raises(RuntimeError, match="own"):
        await oneatatime.export(failing(stream.batches()), tmp_path / "all.jsonl")
    await stream.aclose()
    assert (tmp_path / "all.jsonl").read_text() == "before"
    assert names(tmp_path) == {"all.jsonl"}


async def test_one_that_is_cancelled_leaves_nothing(server: Server, filled: set[str], tmp_path: Path) -> None:
    running = asyncio.ensure_future(oneatatime.export(server.url, tmp_path / "all.jsonl", rate=20_000))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert names(tmp_path) == set()


async def test_into_a_file_that_is_open(server: Server, filled: set[str]) -> None:
    file = io.BytesIO()
    done = await oneatatime.export(server.url, file, format="jsonl.gz")
    assert not file.closed
    assert done.records == 20_000
    assert file.getvalue()[:2] == b"\x1f\x8b"


# Values too big to hold --------------------------------------------------------------------------


class Failing:
    """Parts of a value that fail once, when some of them have come."""

    def __init__(self, parts: Parts, error: Exception) -> None:
        self._source, self._error = parts._source, error
        self.failures = 0

    async def chunks(self, parts: Parts) -> AsyncIterator[list[Any]]:
        came = 0
        async for chunk in self._source.chunks(parts):
            yield chunk
            came += 1
            if came == 5 and not self.failures:
                self.failures += 1
                raise self._error


def filled_with_big(admin: redis.Redis) -> dict[bytes, Any]:
    admin.set("string", os.urandom(50_000))
    admin.hset("hash", mapping={f"f{n}": "v" * 20 for n in range(2000)})
    admin.rpush("list", *range(5000))
    admin.zadd("zset", {f"m{n}": n / 7 for n in range(2000)})
    return {key: admin.dump(key) for key in admin.keys()}


async def failing(url: str, error: Exception, **how: Any) -> AsyncIterator[Record]:
    small = oneatatime.Options(parts_over=3000, chunk=1000)
    async for record in oneatatime.stream(url, metadata=oneatatime.LOSSLESS, options=small, **how).records():
        if isinstance(record.value, Parts):
            record.value._source = Failing(record.value, error)
        yield record


@pytest.mark.parametrize("name", ["all.jsonl", "all.parquet", "all.dump"])
async def test_what_breaks_off_is_read_once_more(server: Server, name: str, tmp_path: Path) -> None:
    filled_with_big(server.admin)
    before = everything(server)
    given = failing(server.url, ConnectionLost("cut"), dump=name.endswith("dump"))
    done = await oneatatime.export(given, tmp_path / name)
    if name == "all.jsonl":
        assert [record["part"] for record in records(tmp_path / name)].count(0) == 2 * len(before)
    server.admin.flushall()
    loaded = await oneatatime.load(tmp_path / name, server.url, on_conflict="fail")
    assert done.records == loaded.written == len(before) == 4
    assert everything(server) == before


async def test_what_cannot_be_taken_back_is_not_written_twice(server: Server, tmp_path: Path) -> None:
    server.admin.rpush("list", *range(5000))
    with pytest.raises(ConnectionLost, match=r"cut.*key b'list'"):
        await oneatatime.export(failing(server.url, ConnectionLost("cut")), tmp_path / "all.csv")
    assert names(tmp_path) == set()


async def test_a_part_of_a_folder_holds_no_half_value(server: Server, tmp_path: Path) -> None:
    filled_with_big(server.admin)
    with pytest.raises(oneatatime.PermissionDenied):
        await oneatatime.export(
            failing(server.url, oneatatime.PermissionDenied("no more")), tmp_path, format="jsonl"
        )
    assert names(tmp_path) == {"manifest.json"}


async def test_a_key_that_is_deleted_meanwhile_is_not_written(server: Server, tmp_path: Path) -> None:
    server.admin.hset("hash", mapping={f"f{n}": "v" * 20 for n in range(2000)})
    server.admin.set("k", "v")
    small = oneatatime.Options(parts_over=3000, chunk=1000)

    async def deleted() -> AsyncIterator[Record]:
        stream = oneatatime.stream(server.url, metadata=oneatatime.LOSSLESS, options=small)
        async for record in stream.records():
            server.admin.delete(record.key)
            yield record

    done = await oneatatime.export(deleted(), tmp_path / "all.jsonl")
    assert [record["key"] for record in records(tmp_path / "all.jsonl")] == ["k"]
    assert done.records == 1


async def test_text_in_pieces_is_bytes_in_a_file_of_bytes(server: Server, tmp_path: Path) -> None:
    server.admin.set("text", "é€𝄞x" * 3000)
    server.admin.hset("hash", mapping={f"ü{n}": "é" * 20 for n in range(2000)})
    before = everything(server)
    small = oneatatime.Options(parts_over=3000, chunk=1000)
    stream = oneatatime.stream(server.url, metadata=oneatatime.LOSSLESS, encoding="utf-8", options=small)
    await oneatatime.export(stream, tmp_path / "stream.jsonl")
    again = oneatatime.stream(server.url, metadata=oneatatime.LOSSLESS, encoding="utf-8", options=small)
    await oneatatime.export(again.records(), tmp_path / "records.jsonl")
    for name in ("stream.jsonl", "records.jsonl"):
        server.admin.flushall()
        await oneatatime.load(tmp_path / name, server.url)
        assert everything(server) == before


# Records of one's own ----------------------------------------------------------------------------


async def test_a_generator_between(server: Server, filled: set[str], tmp_path: Path) -> None:
    closed = []

    async def masked(given: AsyncIterator[Record]) -> AsyncIterator[Record]:
        try:
            async for record in given:
                yield record._replace(value=b"*")
        finally:
            closed.append(True)

    stream = oneatatime.stream(server.url, metadata=oneatatime.LOSSLESS)
    done = await oneatatime.export(masked(stream.records()), tmp_path / "masked.jsonl")
    found = records(tmp_path / "masked.jsonl")
    assert len(found) == done.records == 20_000
    assert {record["value"] for record in found} == {"*"}
    assert closed == [True]


async def test_text_of_a_generator_is_utf8(tmp_path: Path) -> None:
    async def made() -> AsyncIterator[Record]:
        yield Record("ключ", "hash", {"a": "ü"})
        yield Record("l", "zset", [("m", 1.5)])

    await oneatatime.export(made(), tmp_path / "made.jsonl")
    assert [(record["key"], record["value"]) for record in records(tmp_path / "made.jsonl")] == [
        ("ключ", {"a": "ü"}),
        ("l", [["m", 1.5]]),
    ]


async def test_what_are_no_records(server: Server, filled: set[str], tmp_path: Path) -> None:
    async def pairs() -> AsyncIterator[Any]:
        yield b"key", b"value"

    with pytest.raises(InvalidInput, match=r"not tuple.*stream\.records"):
        await oneatatime.export(pairs(), tmp_path / "pairs.jsonl")
    assert names(tmp_path) == set()


async def test_a_stream_that_reads_less_than_all_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="begin it with metadata"):
        await oneatatime.export(oneatatime.stream(server.url), tmp_path / "all.jsonl")
    stream = oneatatime.stream(server.url, metadata=oneatatime.LOSSLESS)
    with pytest.raises(InvalidInput, match="match: a stream has been selected"):
        await oneatatime.export(stream, tmp_path / "all.jsonl", match="x*")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "out/"}, "folder does not tell the format"),
        ({"target": "x.doc"}, "format"),
        ({"target": "x.jsonl", "flatten": True}, "whole records"),
        ({"target": "x.jsonl", "columns": {"a": "int64"}}, "whole records"),
        ({"target": "x.csv", "columns": {"a": "int64"}}, "elements alone"),
        ({"target": "x.parquet", "columns": {"a": "int64"}, "flatten": True}, "choose one"),
        ({"target": "x.parquet", "columns": "all"}, "infer"),
        ({"target": "x.jsonl", "encoding": "utf-8"}, "Parquet and Arrow"),
        ({"target": "x.jsonl", "metadata": "ttl"}, "metadata it needs"),
        ({"target": "x.jsonl", "unfit": "maybe"}, "unfit"),
        ({"target": "x.jsonl", "matching": "x"}, "matching"),
        ({"target": 17}, "no target"),
    ],
)
async def test_arguments_that_make_no_sense(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InvalidInput, TypeError), match=message):
        await oneatatime.export(server.url, **arguments)
    assert names(tmp_path) == set()


# A folder of parts -------------------------------------------------------------------------------


async def test_a_folder_is_proven_by_its_manifest(server: Server, filled: set[str], tmp_path: Path) -> None:
    done = await oneatatime.export(server.url, f"{tmp_path}/out/", format="jsonl", part_bytes=300_000)
    assert done.files > 2
    assert sorted(keys_in(tmp_path / "out")) == sorted(filled)
    assert names(tmp_path / "out") == {"manifest.json", *(f"part-{n:05}.jsonl" for n in range(done.files))}
    found = oneatatime.verify(tmp_path / "out")
    assert (found.parts, found.records, found.bytes) == (done.files, 20_000, done.bytes)
    assert found.problems == ()


async def test_any_damage_is_found(server: Server, filled: set[str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    await oneatatime.export(server.url, f"{folder}/", format="jsonl", part_bytes=300_000)
    part = folder / "part-00001.jsonl"
    good = part.read_bytes()
    middle = len(good) // 2
    for bad in (good[:-1], good + b"x", good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]):
        part.write_bytes(bad)
        (problem,) = oneatatime.verify(folder).problems
        assert "part-00001.jsonl" in problem
    part.unlink()
    assert "missing" in oneatatime.verify(folder).problems[0]
    part.write_bytes(good)
    (folder / "part-00099.jsonl").write_bytes(good)
    assert "part-00099.jsonl is not part of" in oneatatime.verify(folder).problems[0]


async def test_a_manifest_that_was_touched_is_refused(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.json"
    await oneatatime.export(server.url, tmp_path, format="jsonl")
    text = manifest.read_text()
    for bad, message in (
        (text.replace("20000", "20001"), "digest"),
        (text[:-10], "damaged"),
        ("{}", "is not of an export"),
        (text.replace('"version": 1', '"version": 2'), "version 2"),
    ):
        manifest.write_text(bad)
        with pytest.raises(InvalidInput, match=message):
            oneatatime.verify(tmp_path)
        with pytest.raises(InvalidInput, match=message):
            await oneatatime.export(server.url, tmp_path, format="jsonl")
    manifest.unlink()
    with pytest.raises(InvalidInput, match="not there"):
        oneatatime.verify(tmp_path)


async def test_when_all_is_done_nothing_is_left_to_do(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    first = await oneatatime.export(server.url, tmp_path, format="jsonl")
    again = await oneatatime.export(server.url, tmp_path, format="jsonl")
    assert (again.records, again.files, again.complete) == (first.records, first.files, True)
    assert again.statistics is not None and again.statistics.keys == 0


@pytest.mark.parametrize(
    "other", [{"match": "user:1*"}, {"types": "hash"}, {"format": "jsonl.gz"}, {"db": 1}, {"unique": True}]
)
async def test_another_export_is_refused(
    server: Server, filled: set[str], tmp_path: Path, other: dict[str, Any]
) -> None:
    await oneatatime.export(server.url, tmp_path, format="jsonl")
    with pytest.raises(InvalidInput, match="take another folder"):
        await oneatatime.export(server.url, tmp_path, **{"format": "jsonl", **other})


async def test_what_was_done_before_an_error_stays(server: Server, filled: set[str], tmp_path: Path) -> None:
    async def stop(export: oneatatime.Export) -> None:
        running = asyncio.ensure_future(export.run())
        await asyncio.sleep(0.5)
        running.cancel()
        await asyncio.wait([running])

    ready = await oneatatime.Export.opened(server.url, tmp_path, format="jsonl", rate=15_000, count=100)
    await stop(ready)
    first = keys_in(tmp_path)
    assert first
    assert not [name for name in names(tmp_path) if name.endswith(".new")]
    done = await oneatatime.export(server.url, tmp_path, format="jsonl")
    assert done.complete
    assert set(keys_in(tmp_path)) == filled
    assert len(keys_in(tmp_path)) < len(filled) + len(first)  # it went on, and did not begin anew
    assert oneatatime.verify(tmp_path).problems == ()


def test_a_full_disk_costs_only_the_part_it_met(server: Server, filled: set[str], tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))

    command = ("export", server.url, f"{tmp_path}/out/", "--format", "jsonl", "--count", "100")
    done = spawn(*command, "--part-size", "200k", preexec_fn=small_files)
    _, errors = done.communicate(timeout=60)
    if done.returncode:  # a page may fit or not: what matters is what is said and what stays
        assert b"cannot be written: File too large" in errors
    assert not [name for name in names(tmp_path / "out") if name.endswith(".new")]
    assert run(*command, "-q").exit_code == 0
    assert set(keys_in(tmp_path / "out")) == filled
    assert run("export", "--verify", f"{tmp_path}/out").exit_code == 0


def test_killed_at_any_moment_it_goes_on(server: Server, filled: set[str], tmp_path: Path) -> None:
    """Each run is killed a while after it began; the same command, again and again, gets every key."""
    folder = tmp_path / "out"
    command = ("export", server.url, f"{folder}/", "--format", "jsonl", "--count", "50", "-q")
    kills = 0
    for _ in range(60):
        run_ = spawn(*command, "--part-size", "60k", "--rate", "12000")
        try:
            run_.wait(timeout=random.uniform(0.25, 0.7))
        except subprocess.TimeoutExpired:
            os.kill(run_.pid, signal.SIGKILL)
            run_.wait()
            kills += 1
        finally:
            assert run_.stdout is not None and run_.stderr is not None
            run_.stdout.close()
            errors = run_.stderr.read()
            run_.stderr.close()
        for path in folder.glob("part-*"):  # under its name a part is whole
            assert path.read_bytes().endswith(b"\n")
        if run_.returncode == 0:
            break
        assert run_.returncode == -signal.SIGKILL, errors
    assert run(*command).exit_code == 0
    assert kills > 1
    assert set(keys_in(folder)) == filled
    assert oneatatime.verify(folder).problems == ()


# The command -------------------------------------------------------------------------------------


def test_the_command_says_what_it_did(server: Server, filled: set[str], tmp_path: Path) -> None:
    done = run("export", server.url, f"{tmp_path}/out/", "--format", "jsonl")
    assert done.exit_code == 0, done.stderr
    assert "20,000 keys in" in done.stderr and "complete" in done.stderr
    assert "1 parts, 20,000 keys" in done.stderr
    assert "as its manifest says" in run("export", "--verify", f"{tmp_path}/out").stderr
    (tmp_path / "out" / "part-00000.jsonl").write_bytes(b"")
    broken = run("export", "--verify", f"{tmp_path}/out")
    assert broken.exit_code == 1
    assert "part-00000.jsonl has 0 bytes" in broken.stderr


def test_to_standard_output(server: Server, filled: set[str]) -> None:
    done = run("export", server.url, "-", "--limit", "10")
    assert done.exit_code == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 10


def test_a_reader_that_goes_away(server: Server, filled: set[str]) -> None:
    process = spawn("export", server.url, "-")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    process.stderr.close()


@pytest.mark.parametrize("folder", [False, True])
def test_ctrl_c_says_what_another_run_does(
    server: Server, filled: set[str], tmp_path: Path, folder: bool
) -> None:
    target = f"{tmp_path}/out/" if folder else f"{tmp_path}/all.jsonl"
    process = spawn("export", server.url, target, "--format", "jsonl", "--rate", "5000")
    begun = tmp_path / "out" / "manifest.json" if folder else tmp_path / ".all.jsonl.new"
    until(begun.exists, 20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (b"the same command goes on in" if folder else b"another run begins anew") in errors
    assert not list(tmp_path.rglob("*.new"))


def test_a_limit(server: Server, filled: set[str], tmp_path: Path) -> None:
    done = run("export", server.url, str(tmp_path / "some.jsonl"), "--limit", "7")
    assert done.exit_code == 0, done.stderr
    assert len(records(tmp_path / "some.jsonl")) == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "TARGET is missing"),
        (("out/",), "does not tell the format"),
        (("x.parquet", "--columns", "age"), "FIELD:TYPE"),
        (("x.jsonl", "--part-size", "big"), "no number of bytes"),
    ],
)
def test_a_command_that_makes_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("export", *words)
    assert done.exit_code == 2
    assert message in done.stderr


async def test_a_key_that_is_no_text_is_an_error_or_left_out(server: Server, tmp_path: Path) -> None:
    server.admin.set("text", "x")
    server.admin.set(b"\xff", "x")
    with pytest.raises(Undecodable):
        await oneatatime.export(server.url, tmp_path / "x.parquet", encoding="utf-8")
    done = await oneatatime.export(server.url, tmp_path / "x.parquet", encoding="utf-8", unfit="skip")
    assert (done.records, dict(done.unfit)) == (1, {"undecodable": 1})


@pytest.mark.parametrize("flatten", [False, True])
async def test_big_values_that_are_no_text_are_left_out_whole(
    server: Server, tmp_path: Path, flatten: bool
) -> None:
    admin = server.admin
    for name, odd in (("good", b"x"), ("bad", b"\xff")):
        admin.set(f"string:{name}", b"x" * 20_000 + odd)
        admin.rpush(f"list:{name}", *range(3000), odd)
        admin.hset(f"hash:{name}", mapping={**{f"f{n}": "v" * 20 for n in range(2000)}, "odd": odd})
    small = oneatatime.Options(parts_over=3000, chunk=1000)
    how: Any = {"encoding": "utf-8", "flatten": flatten, "options": small}
    with pytest.raises(Undecodable):
        await oneatatime.export(server.url, tmp_path / "x.parquet", **how)
    done = await oneatatime.export(server.url, tmp_path / "x.parquet", unfit="skip", **how)
    assert (done.records, dict(done.unfit)) == (3, {"undecodable": 3})
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert set(table["key"].to_pylist()) == {"string:good", "list:good", "hash:good"}
    if flatten:
        assert table.num_rows == 1 + 3001 + 2001
        return
    admin.delete(*admin.keys("*:bad"))
    good = everything(server)
    admin.flushall()
    assert (await oneatatime.load(tmp_path / "x.parquet", server.url)).written == 3
    assert everything(server) == good


async def test_text_that_breaks_off_before_it_is_whole_is_read_once_more(
    server: Server, tmp_path: Path
) -> None:
    server.admin.rpush("list", *range(5000))
    given = failing(server.url, ConnectionLost("cut"), encoding="utf-8")
    await oneatatime.export(given, tmp_path / "all.csv", unfit="skip")
    assert (tmp_path / "all.csv").read_text().count("\n") == 1 + 5000


@pytest.mark.parametrize("name", ["all.csv", ""])
async def test_what_is_left_out_of_csv_is_not_counted_as_written(
    server: Server, tmp_path: Path, name: str
) -> None:
    server.admin.hset("bad", mapping={**{f"f{n}": "v" * 20 for n in range(3000)}, "odd": b"\xff"})
    server.admin.set("small and bad", b"\xff")
    server.admin.set("good", "x" * 50_000)
    small = oneatatime.Options(parts_over=3000, chunk=1000)
    target = f"{tmp_path}/{name}"
    done = await oneatatime.export(server.url, target, format="csv", unfit="skip", options=small)
    assert (done.records, dict(done.unfit), done.complete) == (1, {"records": 2}, True)
    (file,) = tmp_path.glob("*.csv")
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [(row["key"], row["value"]) for row in rows] == [("good", "x" * 50_000)]
    if not name:
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert [part["records"] for part in manifest["parts"]] == [1]
        assert oneatatime.verify(target).records == 1


async def test_a_table_of_hashes_has_the_columns_that_were_named(server: Server, tmp_path: Path) -> None:
    server.admin.hset("h", mapping={"age": 36, "name": "Ada"})
    server.admin.pexpire("h", 1_000_000)
    how: Any = {"columns": {"age": "int64"}}
    target = tmp_path / "x.parquet"
    await oneatatime.export(server.url, target, **how)
    assert pyarrow.parquet.read_table(target).to_pylist() == [{"key": b"h", "age": 36}]
    await oneatatime.export(server.url, target, db="all", **how)
    assert pyarrow.parquet.read_table(target).to_pylist() == [{"key": b"h", "db": 0, "age": 36}]
    stream = oneatatime.stream(server.url, fields=["age"])
    await oneatatime.export(stream, target, **how)
    assert pyarrow.parquet.read_table(target).to_pylist() == [{"key": b"h", "age": 36}]
    stream = oneatatime.stream(server.url, fields=["age"], db="all")
    await oneatatime.export(stream.records(), target, **how)
    assert pyarrow.parquet.read_table(target).to_pylist() == [{"key": b"h", "db": 0, "age": 36}]


@pytest.mark.parametrize("columns", [{"age": "int64"}, "infer"])
async def test_a_folder_of_tables_goes_on(server: Server, tmp_path: Path, columns: Any) -> None:
    server.admin.hset("h", "age", 36)
    for _ in range(2):
        done = await oneatatime.export(server.url, f"{tmp_path}/", format="parquet", columns=columns)
        assert (done.records, done.complete) == (1, True)


async def test_a_folder_that_cannot_be_written(server: Server, filled: set[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileFailure, match="cannot be"):
        await oneatatime.export(server.url, f"{tmp_path}/file/out/", format="jsonl")


def test_a_manifest_names_no_secret(server: Server, filled: set[str], tmp_path: Path) -> None:
    server.admin.config_set("requirepass", "s3cret")
    try:
        done = run("export", server.url, f"{tmp_path}/", "--format", "jsonl", "-a", "s3cret")
        assert done.exit_code == 0, done.stderr
    finally:
        server.admin.execute_command("AUTH", "s3cret")
        server.admin.config_set("requirepass", "")
    assert "s3cret" not in (tmp_path / "manifest.json").read_text()
    assert Manifest.read(oneatatime._files.located(tmp_path)[0]) is not None  # type: ignore[attr-defined]


# What a second reader found ----------------------------------------------------------------------


async def test_files_of_others_stay(server: Server, filled: set[str], tmp_path: Path) -> None:
    others = ("part-list.txt", "part-00000-abc.snappy.parquet", "part-00000", "notes")
    for name in others:
        (tmp_path / name).write_text("mine")
    await oneatatime.export(server.url, tmp_path, format="jsonl")
    assert all((tmp_path / name).read_text() == "mine" for name in others)


async def test_parts_without_a_manifest_are_not_ours(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    (tmp_path / "part-00000.jsonl").write_text("mine")
    with pytest.raises(InvalidInput, match=r"part-00000.jsonl is there, and no manifest.json"):
        await oneatatime.export(server.url, tmp_path, format="jsonl")
    assert (tmp_path / "part-00000.jsonl").read_text() == "mine"


@pytest.mark.parametrize("folder", [False, True])
async def test_two_at_once_do_not_meet(
    server: Server, filled: set[str], tmp_path: Path, folder: bool
) -> None:
    target = tmp_path if folder else tmp_path / "all.jsonl"
    first = asyncio.ensure_future(oneatatime.export(server.url, target, format="jsonl", rate=8_000))
    begun = (tmp_path / "manifest.json") if folder else (tmp_path / ".all.jsonl.new")
    while not begun.exists():
        await asyncio.sleep(0.02)
    with pytest.raises(InvalidInput, match="is being written by another run"):
        await oneatatime.export(server.url, target, format="jsonl")
    assert (await first).complete
    found = keys_in(tmp_path) if folder else [record["key"] for record in records(tmp_path / "all.jsonl")]
    assert sorted(found) == sorted(filled)


async def test_links_pipes_and_devices_stay_what_they_are(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "there" / "real.jsonl")
    await oneatatime.export(server.url, tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len(records(tmp_path / "there" / "real.jsonl")) == 20_000
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    reading = asyncio.ensure_future(asyncio.to_thread(pipe.read_text))
    await asyncio.sleep(0.1)
    await oneatatime.export(server.url, pipe)
    assert len((await reading).splitlines()) == 20_000
    assert pipe.is_fifo()
    await oneatatime.export(server.url, "/dev/null", format="jsonl")
    assert Path("/dev/null").is_char_device()


def test_what_was_forbidden_is_never_forgotten(server: Server, filled: set[str], tmp_path: Path) -> None:
    server.admin.execute_command("ACL", "SETUSER", "half", "on", ">secret", "~user:1*", "+@all")
    try:
        command = ("export", server.url, f"{tmp_path}/", "--format", "jsonl")
        done = run(*command, "--user", "half", "-a", "secret")
        assert done.exit_code == 3, done.stderr
        again = run(*command)
        assert again.exit_code == 3, again.stderr
        assert "forbidden" in again.stderr
        proof = run("export", "--verify", str(tmp_path))
        assert proof.exit_code == 1 and "forbidden are not in it" in proof.stderr
    finally:
        server.admin.execute_command("ACL", "DELUSER", "half")


def test_a_complete_export_of_another_server_is_none(
    server: Server, filled: set[str], tmp_path: Path
) -> None:
    assert run("export", server.url, f"{tmp_path}/", "--format", "jsonl").exit_code == 0
    with EmbeddedServer() as other:
        again = run("export", other.url, f"{tmp_path}/", "--format", "jsonl")
    assert again.exit_code != 0, again.stderr
    assert "another deployment" in again.stderr
    gone = run("export", "redis://127.0.0.1:1", f"{tmp_path}/", "--format", "jsonl", "--patience", "0.2")
    assert gone.exit_code != 0


def test_a_limit_gets_further_each_time(server: Server, filled: set[str], tmp_path: Path) -> None:
    command = ("export", server.url, f"{tmp_path}/", "--format", "jsonl", "--limit", "400")
    for _ in range(3):
        done = run(*command)
        assert done.exit_code == 0, done.stderr
        assert "400 keys in" in done.stderr
    assert len(set(keys_in(tmp_path))) > 800


async def test_small_parts_are_small_and_slow_ones_are_closed_in_time(
    server: Server, filled: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await oneatatime.export(server.url, f"{tmp_path}/small/", format="jsonl", part_bytes=50_000)
    assert done.files > 10
    monkeypatch.setattr("oneatatime._sink.PART_SECONDS", 0.3)
    running = asyncio.ensure_future(
        oneatatime.export(server.url, f"{tmp_path}/slow/", format="jsonl", rate=400, count=40)
    )
    while len(list((tmp_path / "slow").glob("part-*"))) < 2:
        await asyncio.sleep(0.05)
        assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_types_in_any_order_go_on(server: Server, filled: set[str], tmp_path: Path) -> None:
    await oneatatime.export(server.url, tmp_path, format="jsonl", types=["string", "hash"])
    again = await oneatatime.export(server.url, tmp_path, format="jsonl", types={"hash", "string"})
    assert again.complete
    assert json.loads((tmp_path / "manifest.json").read_text())["how"]["format"] == "jsonl"


def test_no_secret_of_a_target_is_told(server: Server, filled: set[str]) -> None:
    done = run("export", server.url, "memory://user:SECRET@x/y.jsonl")
    assert done.exit_code == 0, done.stderr
    assert "SECRET" not in done.stderr


async def test_an_encoding_that_columns_have_not(server: Server, filled: set[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="columns of text are UTF-8"):
        await oneatatime.export(server.url, tmp_path / "x.parquet", encoding="latin-1")
    assert names(tmp_path) == set()
