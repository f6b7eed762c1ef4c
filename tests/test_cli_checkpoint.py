"""`--checkpoint FILE`: nothing is lost, at whatever moment a run ends, and only the right file is taken."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from oneatatime import Error, Statistics
from oneatatime.cli._checkpoint_file import CheckpointFile, Count, Place
from oneatatime.cli._output import Output
from oneatatime.cli._progress import Progress
from oneatatime.server import EmbeddedServer
from tests.clusters import Cluster
from tests.commandline import run, sorted_lines, spawn
from tests.nodes import until
from tests.servers import Server

BIG = "x" * 1_500_000


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "export.state")


@pytest.fixture
def filled(admin: redis.Redis) -> set[str]:
    keys = [f"user:{number}" for number in range(20_000)]
    admin.mset(dict.fromkeys(keys, "x" * 20))
    return set(keys)


def keys_of(path: Path) -> Counter[str]:
    """How often each key is in a file, whose lines are whole, all of them."""
    text = path.read_bytes()
    assert not text or text.endswith(b"\n")
    records = [json.loads(line) for line in text.splitlines()]
    return Counter(record["key"] for record in records if record.get("last") or "part" not in record)


def saved(state: str) -> Any:
    return json.loads(Path(state).read_text())


# Killed at any moment ----------------------------------------------------------------------------


def killed_until_done(url: str, out: Path, state: str, *, after: Callable[[], float], rate: int) -> int:
    """Runs and kills the command over and over until a run comes to its end; returns how many were killed.

    `after`: so many seconds after its first line, however slow the machine is to start it.
    """
    for killed in range(60):
        with out.open("ab") as output:
            arguments = ("items", url, "--checkpoint", state, "--rate", str(rate), "-q")
            before = out.stat().st_size
            with spawn(*arguments, stdout=output) as process:
                while out.stat().st_size == before and process.poll() is None:
                    time.sleep(0.01)
                try:
                    assert process.wait(after()) == 0, process.communicate()
                except subprocess.TimeoutExpired:
                    process.kill()
                else:
                    return killed
    raise AssertionError("it came to no end")


def some_time() -> float:
    return random.uniform(0.9, 2.5)


@pytest.mark.timeout(120)
def test_killed_at_random_moments_nothing_is_lost(
    server: Server, admin: redis.Redis, filled: set[str], state: str, tmp_path: Path
) -> None:
    admin.set("big", BIG)
    out = tmp_path / "out.jsonl"
    killed = killed_until_done(server.url, out, state, after=some_time, rate=3000)
    assert killed >= 2
    found = keys_of(out)
    assert set(found) == filled | {"big"}
    assert sum(found.values()) < 3 * len(filled)
    assert saved(state)["complete"]


@pytest.mark.timeout(120)
def test_killed_at_random_moments_nothing_of_a_cluster_is_lost(
    cluster: Cluster, state: str, tmp_path: Path
) -> None:
    keys = {key.decode() for key in cluster.fill(20_000)}
    out = tmp_path / "out.jsonl"
    killed = killed_until_done(cluster.url, out, state, after=some_time, rate=3000)
    assert killed >= 2
    assert set(keys_of(out)) == keys
    assert saved(state)["complete"]


def test_killed_before_anything_is_done_the_end_of_the_output_is_mended(
    server: Server, filled: set[str], state: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b'{"key":"before"}\n')
    with (
        out.open("ab") as output,
        spawn("items", server.url, "--checkpoint", state, "--rate", "900", stdout=output) as process,
    ):
        until(lambda: out.stat().st_size > 100, 10.0)
        process.kill()
    assert saved(state)["place"]["size"] == 17
    with out.open("ab") as output:
        output.write(b'{"key":"user:1","ty')
    with (
        out.open("ab") as output,
        spawn("items", server.url, "--checkpoint", state, stdout=output) as process,
    ):
        assert process.wait() == 0
    assert set(keys_of(out)) == filled | {"before"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted_keeps_where_it_was(
    server: Server, filled: set[str], state: str, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "out.jsonl"
    with (
        out.open("ab") as output,
        spawn("items", server.url, "--checkpoint", state, "--rate", "10000", stdout=output) as process,
    ):
        while not out.stat().st_size:  # it has begun, however slow it was to start
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate()[1].decode()
    assert process.returncode == code
    assert errors.rstrip().endswith(f"; the same command goes on from {state}")
    first = sum(keys_of(out).values())
    assert 0 < first < len(filled)
    with (
        out.open("ab") as output,
        spawn("items", server.url, "--checkpoint", state, stdout=output) as process,
    ):
        errors = process.communicate()[1].decode()
    assert process.returncode == 0, errors
    assert f"checkpoint: went on from {state}, after {first:,} keys\n" in errors
    found = keys_of(out)
    assert set(found) == filled
    assert sum(found.values()) - len(filled) < first


def test_interrupted_while_nobody_reads_nothing_is_counted_that_was_not_written(
    server: Server, filled: set[str], state: str
) -> None:
    with spawn("items", server.url, "--checkpoint", state) as process:
        assert process.stdout is not None
        got = [process.stdout.readline()]
        time.sleep(1.5)  # the pipe is full
        process.send_signal(signal.SIGTERM)
        got += process.stdout.readlines()
        assert process.wait() == 143
    got = [line for line in got if line.endswith(b"\n")]
    result = run("items", server.url, "--checkpoint", state)
    assert result.exit_code == 0
    lines = [line.decode() for line in got] + result.stdout.splitlines()
    assert {json.loads(line)["key"] for line in lines} == filled


def test_an_error_in_the_middle_keeps_where_it_was(state: str) -> None:
    arguments = ("--checkpoint", state, "--rate", "5000", "--on-unreachable", "fail")
    with EmbeddedServer() as other:
        with redis.Redis(unix_socket_path=other.path) as client:
            client.mset({f"user:{number}": number for number in range(20_000)})
        process = spawn("items", other.url, *arguments)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
    with process:
        text = process.communicate()[1].decode()
    assert process.returncode == 1, text
    assert text.partition("\n")[0].endswith(", not complete")
    assert f"checkpoint: the same command goes on from {state}\n" in text
    assert "\noneatatime: database 0 of " in text
    assert saved(state)["checkpoint"]["databases"]["0"]["ranges"]


# A whole run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["keys", "items"])
def test_when_all_is_done_the_next_run_says_so(
    server: Server, filled: set[str], state: str, command: str
) -> None:
    first = run(command, server.url, "--checkpoint", state)
    assert (first.exit_code, len(first.stdout.splitlines())) == (0, len(filled))
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o600
    before = Path(state).read_bytes()
    second = run(command, server.url, "--checkpoint", state)
    assert (second.exit_code, second.stdout) == (0, "")
    told = "checkpoint: nothing was left to do: 20,000 keys were written by the runs before. "
    assert f"{told}To start anew, delete {state}\n" in second.stderr
    assert Path(state).read_bytes() == before
    os.unlink(state)
    assert sorted_lines(run(command, server.url, "--checkpoint", state)) == sorted_lines(first)
    assert os.listdir(Path(state).parent) == ["export.state"]


def test_a_cluster_that_is_done_is_done_from_every_node(cluster: Cluster, state: str) -> None:
    cluster.fill(300)
    assert len(run("keys", cluster.url, "--checkpoint", state).stdout.splitlines()) == 300
    for url in cluster.urls:
        result = run("keys", url, "--checkpoint", state)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "nothing was left to do" in result.stderr


def test_with_a_limit_each_run_goes_a_little_further(server: Server, filled: set[str], state: str) -> None:
    found: Counter[str] = Counter()
    for _ in range(30):
        result = run("keys", server.url, "--checkpoint", state, "--limit", "2000")
        assert result.exit_code == 0
        found.update(result.stdout.splitlines())
        if "complete" in result.stderr:
            break
        assert result.stderr.endswith(f"checkpoint: the same command goes on from {state}\n")
    assert set(found) == filled
    assert sum(found.values()) < 1.5 * len(filled)


def test_a_limit_too_low_to_get_on_is_told(server: Server, filled: set[str], state: str) -> None:
    for _ in range(2):
        result = run("keys", server.url, "--checkpoint", state, "--limit", "1")
        assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
        assert result.stderr.endswith("take a higher --limit\n")


# What is refused, and stays as it is -------------------------------------------------------------


@pytest.fixture
def begun(server: Server, filled: set[str], state: str) -> str:
    """A checkpoint of a run that was not over."""
    assert run("items", server.url, "--checkpoint", state, "--limit", "4000").exit_code == 0
    return state


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["items", "--match", "u*"], "the checkpoint was made with match=None"),
        (["items", "--type", "hash"], "the checkpoint was made with types="),
        (["items", "-n", "1"], "the checkpoint was made with db=0"),
        (["items", "-n", "all"], "the checkpoint was made with db=0"),
        (["keys"], "is of `items`, and this is `keys`"),
        (["items", "--with", "ttl"], "is of `items`, and this is `items --with ttl`"),
    ],
)
def test_a_checkpoint_of_something_else(server: Server, begun: str, arguments: list[str], told: str) -> None:
    before = Path(begun).read_bytes()
    result = run(*arguments, server.url, "--checkpoint", begun)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("oneatatime: ") and told in result.stderr and begun in result.stderr
    assert Path(begun).read_bytes() == before


def test_a_checkpoint_of_another_deployment(begun: str, tcp_server: Server, cluster: Cluster) -> None:
    before = Path(begun).read_bytes()
    for url in (tcp_server.url, cluster.url):
        result = run("items", url, "--checkpoint", begun)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"cannot go on from {begun}: the checkpoint is of another deployment" in result.stderr
    assert Path(begun).read_bytes() == before


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "other", "version", "list", "binary"])
def test_a_damaged_checkpoint(server: Server, begun: str, harm: str) -> None:
    path = Path(begun)
    whole = path.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "changed": whole.replace(b'"complete": false', b'"complete": true'),
        "empty": b"",
        "other": b'{"a": 1}',
        "version": whole.replace(b'"version": 1', b'"version": 2', 1),
        "list": b"[]",
        "binary": bytes(range(256)),
    }[harm]
    path.write_bytes(damaged)
    result = run("items", server.url, "--checkpoint", begun)
    assert (result.exit_code, result.stdout) == (1, "")
    assert begun in result.stderr and "delete it to start anew" in result.stderr
    assert "Traceback" not in result.stderr
    assert path.read_bytes() == damaged


def test_every_cut_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    lines = {"command": "keys", "json": False}
    CheckpointFile(path, lines).save({"databases": {}}, Count(3), Place(1, 2, 3), complete=True)
    again = CheckpointFile.opened(path, lines)
    assert (again.counted, again.place, again.complete) == (Count(3), Place(1, 2, 3), True)
    whole = Path(path).read_bytes()
    for length in range(len(whole) - 1):  # the last byte is a newline
        Path(path).write_bytes(whole[:length])
        with pytest.raises(Error, match="damaged"):
            CheckpointFile.opened(path, lines)


@pytest.mark.parametrize("where", ["no/such/folder/state", ".", "/dev/null"])
def test_a_checkpoint_that_cannot_be_written_is_told_before_anything_is_read(
    server: Server, filled: set[str], tmp_path: Path, where: str
) -> None:
    result = run("items", server.url, "--checkpoint", str(tmp_path / where))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("oneatatime: the checkpoint ")


def test_bad_arguments_are_told_before_the_checkpoint_is_touched(server: Server, state: str) -> None:
    result = run("items", server.url, "--checkpoint", state, "--type", "nothing")
    assert result.exit_code == 2
    assert not os.path.exists(state)


# The output --------------------------------------------------------------------------------------


def test_an_output_that_was_overwritten_is_noticed(
    server: Server, filled: set[str], state: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ("items", server.url, "--checkpoint", state, "--limit", "4000")
    for mode, code in (("wb", 0), ("wb", 1)):
        with out.open(mode) as output, spawn(*arguments, stdout=output) as process:
            errors = process.communicate()[1].decode()
        assert process.returncode == code, errors
    assert "what it held is lost" in errors


@pytest.mark.parametrize(
    "left", [b'{"key":"user:1","ty', b"x" * 200_000, b'{"key":"user:1","type":"string"}\n{"k']
)
def test_a_line_that_a_kill_cut_off_is_removed(
    server: Server, filled: set[str], state: str, tmp_path: Path, left: bytes
) -> None:
    out = tmp_path / "out.jsonl"
    with (
        out.open("ab") as output,
        spawn("items", server.url, "--checkpoint", state, "--limit", "4000", stdout=output) as process,
    ):
        assert process.wait() == 0
    with out.open("ab") as output:
        output.write(left)
    with (
        out.open("ab") as output,
        spawn("items", server.url, "--checkpoint", state, stdout=output) as process,
    ):
        assert process.wait() == 0
    assert set(keys_of(out)) == filled


def test_another_file_for_each_run_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"not ours, and no newline")
    with path.open("ab") as file:
        monkeypatch.setattr("sys.stdout", file_as_stdout(file))
        Output().go_on(Place(0, 0, 5))
    assert path.read_bytes() == b"not ours, and no newline"


def file_as_stdout(file: Any) -> Any:
    class Stdout:
        buffer = file
        fileno = file.fileno
        isatty = file.isatty

    return Stdout()


def test_a_full_disk_ends_the_run_and_the_checkpoint_stays(
    server: Server, filled: set[str], begun: str
) -> None:
    before = saved(begun)["checkpoint"]
    with (
        open("/dev/full", "wb") as full,
        spawn("items", server.url, "--checkpoint", begun, stdout=full) as process,
    ):
        errors = process.communicate()[1]
    assert process.returncode == 1
    assert b"the output cannot be written: No space left on device" in errors
    assert saved(begun)["checkpoint"] == before


# The bar -----------------------------------------------------------------------------------------


def test_the_time_left_is_reckoned_from_what_this_run_does(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(shown=True, goes_on=True)
    bar.draw(Statistics(fraction=0.0, elapsed=0.2), 0)
    bar.draw(Statistics(fraction=0.5, elapsed=1.0), 0)
    assert "ETA" not in capsys.readouterr().err
    bar.draw(Statistics(fraction=0.6, elapsed=2.0), 500)  # a tenth in a second: four more
    assert capsys.readouterr().err.endswith(" 60%  500 keys  250/s  ETA 0:04")
