"""`oneatatime import`: what it writes, what it says, how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commandline import run, spawn


@pytest.fixture
def path(tmp_path) -> Path:
    return written(tmp_path / "keys.jsonl", 300)


def written(path: Path, count: int) -> Path:
    with path.open("w") as file:
        for number in range(count):
            line = {"key": f"user:{number}", "type": "hash", "value": {"n": str(number)}}
            file.write(json.dumps(line) + "\n")
        file.write('{"key":"over","type":"string","expires_at":1000,"value":"x"}\n')
        file.write('{"key":"text","type":"string","value":"x"}\n')
    return path


def test_everything_is_written(path, server) -> None:
    result = run("import", str(path), str(server.url))
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(r"301 keys written in .*, 1 expired, complete\n", result.stderr)
    assert server.admin.dbsize() == 301
    assert server.admin.hgetall("user:7") == {b"n": b"7"}


def test_quiet_says_nothing(path, server) -> None:
    result = run("import", str(path), str(server.url), "-q")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (["--prefix", "user:1"], 111),
        (["--match", "user:?"], 10),
        (["--type", "string"], 1),
        (["--dry-run"], 0),
        (["--db", "3"], 0),
    ],
)
def test_a_selection(options, keys, path, server) -> None:
    result = run("import", str(path), str(server.url), *options)
    assert result.exit_code == 0
    assert server.admin.dbsize() == keys
    assert ("would be written" in result.stderr) == (options == ["--dry-run"])


def test_conflicts(path, server) -> None:
    server.admin.set("user:7", "mine")
    result = run("import", str(path), str(server.url), "--on-conflict", "fail")
    assert result.exit_code == 1 and "user:7" in result.stderr and "exists already" in result.stderr
    result = run("import", str(path), str(server.url), "--on-conflict", "skip")
    assert result.exit_code == 0 and server.admin.get("user:7") == b"mine"
    result = run("import", str(path), str(server.url))
    assert result.exit_code == 0 and server.admin.hgetall("user:7") == {b"n": b"7"}
    assert "replaced" in result.stderr


def test_what_makes_no_sense(path, server, tmp_path) -> None:
    for arguments in (
        ["none.jsonl", str(server.url)],
        [str(path), str(server.url), "-n", "all"],
        [str(path), str(server.url), "--type", "nonsense"],
        [str(path), str(server.url), "--format", "nonsense"],
        [str(path), str(server.url), "--dry-run", "--checkpoint", str(tmp_path / "c")],
    ):
        result = run("import", *arguments)
        assert result.exit_code == 2, result.output


def test_a_damaged_file_is_named_with_the_line(path, server) -> None:
    path.write_text(path.read_text().replace('"user:77"', "user:77"))
    result = run("import", str(path), str(server.url))
    assert result.exit_code == 2
    assert "keys.jsonl" in result.stderr and "line 78" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_interrupted_and_goes_on(number, server, tmp_path) -> None:
    path = written(tmp_path / "many.jsonl", 300_000)
    arguments = ["import", str(path), str(server.url), "--checkpoint", str(tmp_path / "checkpoint")]
    process = spawn(*arguments)
    while server.admin.dbsize() < 50_000:
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number, errors
    assert b"interrupted after" in errors and b"goes on from" in errors
    assert server.admin.dbsize() < 300_000
    result = run(*arguments)
    assert result.exit_code == 0 and "went on from" in result.stderr
    assert server.admin.dbsize() == 300_001


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pipe_in_which_nothing_comes_is_left(number, server) -> None:
    process = spawn("import", "-", str(server.url), "--format", "jsonl", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b'{"key":"a","type":"string","value":"v"}\n' * 5000)
    process.stdin.flush()
    time.sleep(1.5)
    process.send_signal(number)
    process.wait(timeout=5)  # while the pipe is open
    _, errors = process.communicate()
    assert process.returncode == 128 + number, errors
    assert b"interrupted" in errors and b"Traceback" not in errors


@pytest.mark.parametrize("moment", [0.03, 0.06, 0.1, 0.2, 0.4])
def test_a_signal_at_any_moment_ends_it_in_one_line(moment, server, tmp_path) -> None:
    path = written(tmp_path / "keys.jsonl", 200_000)
    code = (
        "import os, signal, threading; from oneatatime.cli import main\n"
        f"later = threading.Timer({moment}, os.kill, (os.getpid(), signal.SIGINT))\n"
        "later.daemon = True; later.start()\n"
        "main(prog_name='oneatatime')"
    )
    arguments = [sys.executable, "-c", code, "import", str(path), str(server.url)]
    process = subprocess.run(arguments, capture_output=True, timeout=20)
    assert process.returncode == 130, process.stderr
    assert process.stderr.count(b"\n") == 1, process.stderr


def test_what_comes_in_a_pipe_is_read_to_its_end(path, server) -> None:
    process = spawn("import", "-", str(server.url), "--format", "jsonl", stdin=subprocess.PIPE)
    _, errors = process.communicate(path.read_bytes(), timeout=20)
    assert process.returncode == 0 and b"301 keys written" in errors
