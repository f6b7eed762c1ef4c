"""Processes that own an embedded server and come to an end, and how to see that nothing is left of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import redis

from oneatatime.server import EmbeddedServer

START = "from oneatatime.server import EmbeddedServer\nserver = EmbeddedServer().start()\n"
TELL = "print(server.pid, server.path, flush=True)\n"


def ask(server: EmbeddedServer, *command: str) -> object:
    with redis.Redis.from_url(server.url, protocol=2) as client:
        return client.execute_command(*command)


def is_there(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody has asked about yet does not."""
    if not Path("/proc/self/stat").exists():  # not Linux
        command = ["ps", "-o", "stat=", "-p", str(pid)]
        state = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return state[:1] not in ("", "Z")
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in ("Z", "X")


def assert_gone(pid: int, path: str | Path, *, within: float = 3.0) -> None:
    deadline = time.monotonic() + within
    while is_there(pid) or Path(path).parent.exists():
        assert time.monotonic() < deadline, f"left behind: {pid=} {is_there(pid)=}, {path}"
        time.sleep(0.005)


class Owner:
    """Another Python that runs `script`, which starts a server and TELLs of it."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "dev", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        assert said, self.process.communicate()
        self.pid, self.path = int(said[0]), said[1]
        self.forked = [int(child) for child in said[2:]]

    def ends_in_peace(self) -> None:
        out, err = self.process.communicate("\n", timeout=20)
        assert (out, err, self.process.returncode) == ("", "", 0)


def fake(tmp_path: Path, script: str) -> str:
    """A program that tells `assert_fake_gone` its process id and socket, and runs `script`."""
    path = tmp_path / "fake-server"
    path.write_text(f"#!/bin/sh\necho $$ $6 >{tmp_path}/told\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def assert_fake_gone(tmp_path: Path) -> None:
    pid, path = (tmp_path / "told").read_text(encoding="utf-8").split()
    assert Path(path).name == "s.sock"
    assert_gone(int(pid), path)
