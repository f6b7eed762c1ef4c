"""Does it stay small with files: `python -m benchmarks.file_memory`. Exit status 1 when a limit is broken.

The cases of `benchmarks.memory`, without those that sleep: each is exported, by a fresh process, and imported
into an empty server by another. The figure is by how much the peak of each process's memory grew over what
it held when everything was imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from oneatatime.server import EmbeddedServer

from ._admin import Admin
from ._cases import CASES, Case
from ._machine import machine, versions
from ._table import mib, table

ROOT = Path(__file__).parent.parent
LIMIT = 64 * 2**20
FORMATS = ("jsonl.zst", "parquet", "dump")
_PATIENCE = 900  # seconds for one job


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.file_memory", description=__doc__)
    cases = [case for case in CASES.values() if not case.asleep and case.name != "full"]
    names = ", ".join(case.name for case in cases)
    parser.add_argument("--only", action="append", metavar="CASE", help=f"repeatable; one of {names}")
    parser.add_argument("--format", action="append", metavar="NAME", help=f"repeatable; of {FORMATS}")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the data, for a quick look")
    options = parser.parse_args()
    rows, broken = [], []
    for case in cases:
        if options.only and case.name not in options.only:
            continue
        for name in options.format or FORMATS:
            row, wrong = _case(case, name, options.scale)
            rows.append(row)
            broken += [f"BROKEN {case.name}, {name}: {text}" for text in wrong]
            print("  ".join(row), file=sys.stderr, flush=True)
    print(machine())
    print(f"{versions()}; limit {mib(LIMIT)} MiB; scale {options.scale:g}\n")
    print(table(["case", "format", "export MiB", "s", "import MiB", "s"], rows))
    for text in broken:
        print(text)
    return 1 if broken else 0


def _case(case: Case, name: str, scale: float) -> tuple[list[str], list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/out.{name}"
        with EmbeddedServer() as server:
            with Admin(server.url) as admin:
                admin.load(case.fill(scale))
                admin.settle()
                keys = int(admin.call("DBSIZE"))
            out = _job("export", server.url, path)
        with EmbeddedServer() as server:
            back = _job("load", server.url, path)
            with Admin(server.url) as admin:
                written = int(admin.call("DBSIZE"))
    wrong = [
        f"{what}: {one['failed']}" for what, one in (("export", out), ("import", back)) if "failed" in one
    ]
    wrong += [f"{written:,} keys of {keys:,} came back"] if written != keys else []
    for what, one in (("export", out), ("import", back)):
        if one.get("growth", 0) > LIMIT:
            wrong.append(f"the {what} grew by {mib(one['growth'])} MiB")
    figures = [
        text for one in (out, back) for text in (mib(one.get("growth", 0)), f"{one.get('elapsed', 0):.1f}")
    ]
    return [case.title, name, *figures], wrong


def _job(job: str, url: str, path: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks._mover", job, url, path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["nothing"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
