"""Into files and back, beside the bare loop and what others do: `python -m benchmarks.files --help`.

Every job is a fresh process, and the jobs take turns, round after round; the table shows medians. The
columns: keys a second; the share of the bare loop's (1 is as fast as `async for key, value in stream(url)`
over the same server); how busy the server was; client CPU a key. Exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneatatime.server import EmbeddedServer

from ._admin import Admin
from ._machine import machine, versions
from ._table import short, table
from ._workloads import WORKLOADS

ROOT = Path(__file__).parent.parent
_PATIENCE = 600  # seconds for one job

Result = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One row of a table: `job` of `_mover`, the file it writes or reads. `least`: of the bare loop's speed.

    `slow`: a peer that is measured on a sample of `limit` keys, or (`small`) on a server of as many.
    """

    title: str
    job: str
    file: str
    least: float | None = None
    limit: int | None = None
    small: bool = False
    busy: float | None = None
    times: float | None = None


LOOP = Row("the bare loop", "loop", "-")
OUT = [
    LOOP,
    Row("export .parquet", "export", "out.parquet", least=0.6),
    Row("export .jsonl", "export", "out.jsonl", least=0.4),
    Row("export .jsonl.zst", "export", "out.jsonl.zst"),
    Row("export .arrow", "export", "out.arrow"),
    Row("export .dump", "export", "out.dump"),
    Row("redis-py pipeline + pandas", "script", "script.parquet", limit=200_000, times=5),
    Row("redis-dump-load", "dump-load", "dumped.json", small=True, times=10),
]
BACK = [
    Row("import .parquet", "load", "out.parquet", busy=0.9),
    Row("import .jsonl", "load", "out.jsonl", busy=0.9),
    Row("import .dump", "load", "out.dump", busy=0.9),
]
_SMALL = 50_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the keys, for a quick look")
    parser.add_argument("--only", action="append", metavar="TEXT", help="rows whose title holds TEXT")
    options = parser.parse_args()
    print(machine())
    print(f"{versions()}; medians of {options.rounds} rounds, taking turns")
    missed = False
    for name in ("strings-100", "hashes-5"):
        missed |= _workload(name, options, judged=name == "strings-100")
    return 1 if missed else 0


def _workload(name: str, options: argparse.Namespace, *, judged: bool) -> bool:
    workload = WORKLOADS[name]
    keys = int(workload.keys * options.scale)
    results: dict[str, list[Result]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer() as server,
        EmbeddedServer() as small,
        EmbeddedServer() as target,
    ):
        _fill(server.url, workload.fill(keys))
        _fill(small.url, workload.fill(min(keys, _SMALL)))
        for _ in range(options.rounds):
            for row in (*OUT, *BACK):
                if options.only and row is not LOOP and not any(text in row.title for text in options.only):
                    continue
                if row.job == "dump-load" and name != "strings-100":
                    continue
                url = target.url if row in BACK else small.url if row.small else server.url
                if row in BACK:
                    with Admin(target.url) as admin:
                        admin.call("FLUSHALL", "SYNC")
                done = _done(row, url, Path(folder) / row.file)
                if done is None:
                    continue
                expected = min(keys, _SMALL) if row.small else keys if row.limit is None else 1
                if done["keys"] < expected:
                    print(f"FAILED {row.title}: {done['keys']} keys of {expected}")
                    return True
                results[row.title].append(done)
    rate = _medians(results)
    print(f"\n{workload.title}, {short(keys)} keys\n")
    print(_table(results, rate))
    missed = list(_missed(rate, results)) if judged else []
    for text in missed:
        print(f"MISSED {text}")
    return bool(missed)


def _fill(url: str, commands: Any) -> None:
    with Admin(url) as admin:
        admin.load(commands)
        admin.settle()


def _done(row: Row, url: str, path: Path) -> Result | None:
    command = [sys.executable, "-m", "benchmarks._mover", row.job, url, str(path)]
    command += ["--limit", str(row.limit)] if row.limit is not None else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        print(f"{row.title}: left out: {last}", file=sys.stderr)
        return None
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(results: list[Result], of: Callable[[Result], float]) -> float:
    return statistics.median([of(result) for result in results])


def _medians(results: dict[str, list[Result]]) -> dict[str, float]:
    return {
        title: _median(all_of, lambda one: one["keys"] / one["elapsed"]) for title, all_of in results.items()
    }


def _table(results: dict[str, list[Result]], rate: dict[str, float]) -> str:
    rows = []
    for title, all_of in results.items():
        busy = _median(all_of, lambda one: one["server_cpu"] / one["elapsed"])
        cpu = _median(all_of, lambda one: one["cpu"] / one["keys"] * 1e6)
        part = rate[title] / rate[LOOP.title]
        rows.append([title, short(rate[title]), f"{part:.2f}", f"{busy:.2f}", f"{cpu:.2f}"])
    return table(["", "keys/s", "of the loop", "busy", "us/key"], rows)


def _missed(rate: dict[str, float], results: dict[str, list[Result]]) -> Any:
    ours = rate.get("export .parquet", 0.0)
    for row in (*OUT, *BACK):
        if row.title not in rate:
            continue
        part = rate[row.title] / rate[LOOP.title]
        if row.least is not None and part < row.least:
            yield f"{row.title}: {part:.2f} of the bare loop, not {row.least}"
        if row.times is not None and ours and ours / rate[row.title] < row.times:
            yield f"export .parquet is {ours / rate[row.title]:.1f} times {row.title}, not {row.times:g}"
        if row.busy is not None:
            busy = _median(results[row.title], lambda one: one["server_cpu"] / one["elapsed"])
            if busy < row.busy:
                yield f"{row.title}: the server was {busy:.2f} busy, not {row.busy}"


if __name__ == "__main__":
    sys.exit(main())
