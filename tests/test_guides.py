"""The guides, followed as a user would: every block in its order, in one folder.

A block that begins with `# name.py` is the file of that name, and `$ python name.py` runs it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime._load import load
from oneatatime.server import EmbeddedServer
from tests.commandline import run
from tests.test_docs import GUIDES, ROOT, run_in_a_thread

pytestmark = pytest.mark.timeout(180)

_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.S | re.M)


@pytest.fixture
def url() -> Iterator[str]:
    with EmbeddedServer() as server:
        fill(server.url)
        yield server.url


def fill(url: str) -> None:
    load(url, [("HSET", f"user:{n}", "name", f"user {n}", "age", n) for n in range(40)])
    load(url, [("SET", "greeting", "hello"), ("RPUSH", "list", "a", "b")])
    load(url, [("ZADD", "rank", 1.5, "a"), ("SADD", "set", "x"), ("XADD", "log", "1-1", "f", "v")])
    load(url, [("XGROUP", "CREATE", "log", "readers", "0"), ("PEXPIRE", "greeting", 3_600_000)])


@pytest.mark.parametrize("page", GUIDES)
def test_every_block_runs(
    page: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if page == "files.md":  # which has something to say about it
        load(url, [("SET", b"\xff", b"\xfe")])
    with EmbeddedServer() as other:
        names: dict[str, Any] = {"oneatatime": oneatatime, "url": url, "other_url": other.url}
        names["__name__"] = "docs"
        for block in _BLOCK.finditer((ROOT / "docs" / page).read_text()):
            if block[1] == "console":
                console(block[2], url)
            elif file := re.match(r"# (\w+\.py)\n", block[2]):
                Path(file[1]).write_text(block[2])
            else:
                run_in_a_thread(block[2], names)
    assert page != "files.md" or {"everything.jsonl", "export", "users.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }


def console(block: str, url: str) -> None:
    """Runs its commands that are ours: `oneatatime ...`, and `python` with a file of the guide."""
    for program, line in re.findall(r"^\$ (oneatatime|python) (.*)$", block, re.M):
        words = shlex.split(re.split(r"\s+[|#>]", line)[0])
        words = [url if word == "redis://localhost" else word for word in words]
        if program == "python":
            subprocess.run([sys.executable, *words], check=True, timeout=60)
        else:
            done = run(*words)
            assert done.exit_code in (0, 3 if "skip" in words else 0), f"{line}: {done.stderr}"
