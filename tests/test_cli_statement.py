"""What a run says at its end, and its exit code: complete, with something left out, or not complete."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import Incomplete, PermissionDenied, Record, Statistics
from oneatatime.cli import _run
from oneatatime.cli._report import Failures, details
from tests.clusters import Cluster, Sentinel
from tests.commandline import run, sorted_lines, spawn
from tests.nodes import until
from tests.servers import Server

SECRET = "s3cr3t"


def last_lines(result: Any) -> list[str]:
    return str(result.stderr).splitlines()


# When all is well: two lines ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["keys", "items"])
def test_complete(server: Server, admin: redis.Redis, command: str) -> None:
    admin.mset({f"user:{number}": number for number in range(1000)})
    result = run(command, server.url)
    assert result.exit_code == 0
    first, second = last_lines(result)
    assert first.startswith("1,000 keys in ") and first.endswith(", complete")
    assert second == "DBSIZE: 1,000 keys at the start, 1,000 at the end"


@pytest.mark.parametrize("choice", [["--match", "*"], ["--type", "string"], ["--limit", "1"]])
def test_dbsize_is_not_told_where_it_means_nothing(
    server: Server, admin: redis.Redis, choice: list[str]
) -> None:
    admin.mset({"a": 1, "b": 2})
    assert len(last_lines(run("keys", server.url, *choice))) == 1


def test_complete_in_a_cluster(cluster: Cluster) -> None:
    cluster.fill(3000)
    for url in (cluster.url, cluster.urls[1]):
        result = run("items", url)
        assert result.exit_code == 0
        assert len(set(result.stdout.splitlines())) == 3000
        first, dbsize, nodes = last_lines(result)
        assert first.startswith("3,000 keys in ") and first.endswith(", complete")
        assert dbsize == "DBSIZE: 3,000 keys at the start, 3,000 at the end"
        assert sorted(nodes.removeprefix("nodes: ").split(", ")) == sorted(
            f"127.0.0.1:{node.port}" for node in cluster.nodes
        )


def test_complete_by_sentinel(sentinel: Sentinel) -> None:
    keys = sentinel.fill(500)
    result = run("keys", sentinel.url)
    assert result.exit_code == 0
    assert sorted(result.stdout_bytes.split()) == sorted(keys)


def test_every_line_that_there_can_be() -> None:
    statistics = Statistics(
        keys_at_start=2,
        keys_at_end=1,
        repeats=3,
        forbidden=1,
        failures=("may not read a",),
        read_again=tuple(f"slot {number}: moved" for number in range(7)),
        skipped=("slots 1-5: gone",),
        nodes=("h1:1", "h2:2"),
        best_effort=True,
    )
    failures = Failures(forbidden_before=4)
    failures.add(ValueError("could not read b"))
    lines = list(details(statistics, failures, everything=True))
    assert lines == [
        "DBSIZE: 2 keys at the start, 1 at the end",
        "nodes: h1:1, h2:2",
        "delivered twice: about 3 keys",
        "read again:",
        *(f"  slot {number}: moved" for number in range(5)),
        "  and 2 more",
        "forbidden: 1 key that this user may not read, and 4 in the runs before",
        "failed: 1 key",
        "  may not read a",
        "  could not read b",
        "skipped: slots 1-5: gone",
        "best effort: " + lines[-1].removeprefix("best effort: "),
    ]
    assert "its own affair" in lines[-1]
    assert "left out: 3 keys that came again" in details(statistics, failures, everything=True, unique=True)


def test_help_tells_the_exit_codes() -> None:
    for command in ("keys", "items"):
        text = " ".join(run(command, "--help").stdout.split())
        assert "0 complete, 1 not complete, 2 usage, 3 finished but something was forbidden, failed" in text


# Something left out: 3 ---------------------------------------------------------------------------


@pytest.fixture
def partly(server: Server, admin: redis.Redis) -> dict[str, str]:
    """The environment of a user that may read only some of the keys."""
    admin.mset({f"mine:{number}": number for number in range(50)})
    admin.mset({f"theirs:{number}": number for number in range(7)})
    admin.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~mine:*", "+@all")
    return {"REDISCLI_AUTH": SECRET}


def test_what_is_forbidden_is_counted_named_and_costs_only_itself(
    server: Server, partly: dict[str, str], tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    result = run("items", server.url, "--user", "reader", "--checkpoint", state, env=partly)
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 50
    lines = last_lines(result)
    assert lines[0].endswith(", 7 forbidden, complete but for what is named here")
    assert "forbidden: 7 keys that this user may not read" in lines
    assert sum("theirs:" in line for line in lines) == 5
    again = run("items", server.url, "--user", "reader", "--checkpoint", state, env=partly)
    assert (again.exit_code, again.stdout) == (3, "")
    assert "forbidden: 0 keys that this user may not read, and 7 in the runs before" in last_lines(again)
    assert "nothing was left to do" in again.stderr
    assert run("items", server.url, "--user", "reader", "-q", env=partly).exit_code == 3


class Broken:
    """A stream in which some rows fail, and perhaps the stream itself; all the rest is a real one."""

    def __init__(self, stream: oneatatime.Stream, *, ends: bool) -> None:
        self._stream = stream
        self._end = PermissionDenied("may not", command="SCAN") if ends else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def batches(self) -> Any:
        return self._some(self._stream.batches())

    def keys(self) -> Any:
        return self._some(self._stream.keys())

    def _some(self, view: Any) -> Any:
        broken = self

        class Some:
            count = 0

            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> Any:
                self.count += 1
                if self.count in (1, 2):
                    raise PermissionDenied("may not read it", key=b"key:%d" % self.count)
                if broken._end is not None:
                    raise broken._end
                return await view.__anext__()

        return Some()


@pytest.mark.parametrize("command", ["keys", "items"])
@pytest.mark.parametrize("ends", [False, True])
def test_a_row_that_fails_does_not_end_the_export(
    server: Server, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch, command: str, ends: bool
) -> None:
    admin.mset({f"user:{number}": number for number in range(10)})
    real = oneatatime.stream
    monkeypatch.setattr(
        oneatatime, "stream", lambda *given, **named: Broken(real(*given, **named), ends=ends)
    )
    result = run(command, server.url)
    if ends:
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "oneatatime: may not [command SCAN]\n"
        return
    assert (result.exit_code, len(result.stdout.splitlines())) == (3, 10)
    lines = last_lines(result)
    assert lines[0].endswith(", 2 failed, complete but for what is named here")
    assert lines[-3:] == [
        "failed: 2 keys",
        "  may not read it [key b'key:1']",
        "  may not read it [key b'key:2']",
    ]


def test_a_big_value_that_cannot_be_read_does_not_end_the_export(
    server: Server, admin: redis.Redis, tmp_path: Path
) -> None:
    admin.set("a:big", "x" * 3_000_000)
    admin.mset({f"user:{number}": number for number in range(100)})
    admin.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@all")
    out = tmp_path / "out"
    arguments = (f"{server.url}?username=reader&password={SECRET}", "--bandwidth", "1MB")
    with out.open("wb") as output, spawn("items", *arguments, stdout=output) as process:
        until(lambda: b"a:big" in out.read_bytes(), 10.0)
        admin.execute_command("ACL", "SETUSER", "reader", "resetkeys", "~user:*")
        errors = process.communicate()[1].decode().splitlines()
    assert process.returncode == 3, errors
    records = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert sum(record["key"].startswith("user:") for record in records) == 100
    assert not any(record.get("last") for record in records)
    assert errors[1].startswith("100 keys in ") and ", 1 failed, complete but for" in errors[1]
    assert "failed: 1 key" in errors
    assert "b'a:big'" in errors[-1] and "NOPERM" in errors[-1]


def test_a_big_value_whose_connection_is_cut_is_read_again(
    server: Server, admin: redis.Redis, tmp_path: Path
) -> None:
    admin.set("big", "x" * 6_000_000)
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.25):
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            if time.monotonic() > end:
                return

    end = time.monotonic() + 1.0
    cutter = threading.Thread(target=cut)
    out = tmp_path / "out"
    with out.open("wb") as output, spawn("items", server.url, "--bandwidth", "4MB", stdout=output) as process:
        cutter.start()
        errors = process.communicate()[1].decode()
        over.set()
    cutter.join()
    assert process.returncode == 0, errors
    parts = [json.loads(line) for line in out.read_bytes().splitlines()]
    begins = [place for place, part in enumerate(parts) if part["part"] == 0]
    assert "".join(part["value"] for part in parts[begins[-1] :]) == "x" * 6_000_000
    assert parts[-1]["last"]


# A cluster with a node that is gone --------------------------------------------------------------


@pytest.fixture
def maimed(cluster: Cluster) -> Iterator[tuple[Cluster, str, int]]:
    """A cluster whose last node is dead, a url of it, and how many keys are left."""
    keys = cluster.fill(3000)
    lost = cluster.primaries()[-1]
    gone = int(lost.ask("DBSIZE"))
    url = cluster.url
    lost.kill(save=True)
    yield cluster, url, len(keys) - gone


def test_what_is_gone_is_skipped_as_asked_and_tried_again_by_the_next_run(
    maimed: tuple[Cluster, str, int], tmp_path: Path
) -> None:
    cluster, url, left = maimed
    state = str(tmp_path / "state")
    arguments = ("--on-unreachable", "skip", "--patience", "1", "--checkpoint", state)
    result = run("keys", url, *arguments)
    assert result.exit_code == 3, result.stderr
    assert len(set(result.stdout.splitlines())) == left
    assert last_lines(result)[0].endswith("complete but for what is named here")
    assert re.search(r"^skipped: slots \d+-\d+.*", result.stderr, re.M)
    assert result.stderr.endswith(f"checkpoint: the same command goes on from {state}\n")
    next(node for node in cluster.nodes if not node.alive).start()
    cluster.wait_ok()
    rest = run("keys", url, *arguments)
    assert rest.exit_code == 0, rest.stderr
    assert len({*result.stdout.splitlines(), *rest.stdout.splitlines()}) == 3000
    assert len(rest.stdout.splitlines()) == 3000 - left


@pytest.mark.parametrize("how", [["--on-unreachable", "fail"], ["--patience", "1"]])
def test_what_is_missing_is_named_where_it_ends_the_run(
    maimed: tuple[Cluster, str, int], how: list[str]
) -> None:
    result = run("keys", maimed[1], *how)
    assert result.exit_code == 1, result.stderr
    lines = last_lines(result)
    if "fail" not in how:  # which may be before anything was read
        assert lines[0].endswith(", not complete")
    assert re.match(r"oneatatime: .*slots \d+-\d+.* could not be read", lines[-1])


def test_all_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    def begun(*_: object, **__: object) -> None:
        raise Incomplete("slot 1 could not be read", missing=("slot 1", "slots 7-9"))

    monkeypatch.setattr(_run, "begun", begun)
    result = run("keys", server.url, "-q")
    assert result.exit_code == 1
    assert result.stderr == "oneatatime: slot 1 could not be read; missing: slots 7-9\n"


# Other options -----------------------------------------------------------------------------------


@pytest.fixture
def several_databases(server: Server) -> Iterator[Server]:
    for number in (0, 2, 5):
        with redis.Redis(unix_socket_path=server.path, db=number) as client:
            client.set(f"key:{number}", "x")
    yield server
    server.admin.flushall()


def test_all_databases(several_databases: Server, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    url = several_databases.url
    expected = [f'{{"key":"key:{n}","type":"string","db":{n},"ttl":null,"value":"x"}}' for n in (0, 2, 5)]
    assert sorted_lines(run("items", url, "-n", "all", "--with", "ttl")) == expected
    result = run("keys", url, "--db", "all", "--checkpoint", state)
    assert (result.exit_code, sorted_lines(result)) == (0, ["key:0", "key:2", "key:5"])
    assert last_lines(result)[1] == "DBSIZE: 3 keys at the start, 3 at the end"
    again = run("keys", url, "--db", "all", "--checkpoint", state)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "nothing was left to do" in again.stderr


@pytest.mark.parametrize("unique", [["--unique"], ["--unique", "disk"], ["--unique=memory"]])
@pytest.mark.parametrize("first", [True, False])
def test_unique(server: Server, admin: redis.Redis, unique: list[str], first: bool) -> None:
    admin.mset({f"user:{number}": number for number in range(2000)})
    arguments = [*unique, server.url] if first else [server.url, *unique]
    result = run("keys", *arguments)
    assert (result.exit_code, len(set(result.stdout.splitlines()))) == (0, 2000)
    assert len(result.stdout.splitlines()) == 2000


@pytest.mark.parametrize(
    "wrong",
    [
        ["--unique=nowhere"],
        ["--on-unreachable", "pray"],
        ["--patience", "0"],
        ["--patience", "soon"],
        ["--read-from", "anybody"],
        ["-n", "-1"],
        ["-n", "some"],
    ],
)
def test_choices_that_there_are_not(server: Server, wrong: list[str]) -> None:
    result = run("keys", server.url, *wrong)
    assert result.exit_code == 2
    assert wrong[0].split("=")[0] in result.stderr


def test_from_replicas(cluster_with_replicas: Cluster) -> None:
    keys = cluster_with_replicas.fill(1000)
    cluster_with_replicas.wait_ok()
    result = run("keys", cluster_with_replicas.url, "--read-from", "replica")
    assert result.exit_code == 0, result.stderr
    assert sorted(result.stdout_bytes.split()) == sorted(keys)
    replicas = {f"127.0.0.1:{node.port}" for node in cluster_with_replicas.replicas()}
    (nodes,) = [line for line in last_lines(result) if line.startswith("nodes: ")]
    assert set(nodes.removeprefix("nodes: ").split(", ")) <= replicas


# The bar over several nodes ----------------------------------------------------------------------


def test_the_bar_moves_evenly_over_the_nodes_of_a_cluster(cluster: Cluster) -> None:
    cluster.fill(12_000)
    with spawn("items", cluster.url, "--progress", "--rate", "4000") as process:
        errors = process.communicate()[1].decode()
    assert process.returncode == 0
    shown = [
        (int(done), int(keys.replace(",", "")) / 120)
        for done, keys in re.findall(r" +(\d+)%  ([\d,]+) keys", errors)
    ]
    assert len(shown) > 8
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
    off = [(done, keys) for done, keys in shown if abs(done - keys) > 25]
    assert not off, shown
    assert "ETA 0:0" in errors


def test_a_record_has_its_database() -> None:
    assert "db" in Record._fields
