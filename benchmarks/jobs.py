"""Exports by several processes beside one: `python -m benchmarks.jobs --help`.

Exports the same strings to a folder of JSON lines and of Parquet, with one process and with several, from one
server and from a cluster of three primaries. They take turns, each time in a process of its own; the clock
starts after the imports, so that the start of the processes counts. Prints keys a second, how many times that
of one process it is, and what a key costs the servers and all processes of the export: together they are busy
cores, and cannot be more than the machine has.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import oneatatime

from ._machine import machine
from ._table import short, table
from ._workloads import strings
from .processes import Row, _cpu, _of_cluster, _of_server

_ROOT = Path(__file__).parent.parent
_FORMATS = ("jsonl", "parquet")
_PATIENCE = 600  # seconds for one export

Result = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keys", type=int, default=4_000_000)
    parser.add_argument("--mover", nargs=3, metavar=("URL", "FORMAT", "JOBS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mover:
        _export(options.mover[0], options.mover[1], int(options.mover[2]))
        return 0
    print(machine())
    print(f"{short(options.keys)} strings of 100 B, medians of {options.rounds} rounds, taking turns")
    row = Row("strings of 100 B", strings(100), options.keys, {})
    rows = []
    for place in (_of_server, _of_cluster):
        with place(row, options.keys) as (title, url, pids):
            rows += _lines(title, _measure(url, pids, options), options.jobs)
    head = ["", "keys/s", "times", "server us/key", "export us/key", "busy cores"]
    print(f"\n{table(head, rows)}\n{os.cpu_count()} cores")
    return 0


def _measure(url: str, pids: list[int], options: argparse.Namespace) -> dict[tuple[str, int], list[Result]]:
    seen: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for turn in range(options.rounds):
        for form in _FORMATS:
            for jobs in (1, options.jobs):
                seen[form, jobs].append(_run(url, form, jobs, pids))
                rate = short(seen[form, jobs][-1]["rate"])
                print(f"round {turn + 1}, {form}, {jobs} jobs: {rate}", file=sys.stderr)
    return seen


def _lines(title: str, seen: dict[tuple[str, int], list[Result]], jobs: int) -> list[list[str]]:
    found = []
    for form in _FORMATS:
        for several in (1, jobs):
            runs, beside = seen[form, several], seen[form, 1]
            one = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            times = statistics.median(run["rate"] / other["rate"] for run, other in zip(runs, beside))
            costs = [one["server"], one["export"]]
            busy = f"{one['rate'] * sum(costs) / 1e6:.2f}"
            name = f"{title}, .{form}, jobs={several}"
            found.append([name, short(one["rate"]), f"{times:.2f}", *(f"{cost:.2f}" for cost in costs), busy])
    return found


def _run(url: str, form: str, jobs: int, pids: list[int]) -> Result:
    before = _cpu(pids)
    command = [sys.executable, "-m", "benchmarks.jobs", "--mover", url, form, str(jobs)]
    done = subprocess.run(
        command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=_PATIENCE
    )
    told = json.loads(done.stdout)
    costs = {"server": _cpu(pids) - before, "export": told["cpu"]}
    each = {name: seconds / told["keys"] * 1e6 for name, seconds in costs.items()}
    return {"rate": told["keys"] / told["elapsed"], **each}


def _export(url: str, form: str, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        done = asyncio.run(oneatatime.export(url, f"{folder}/out/", format=form, jobs=jobs))
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert done.complete, "nothing is missing"
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += children.ru_utime + children.ru_stime
    print(json.dumps({"keys": done.records, "elapsed": elapsed, "cpu": cpu}))


if __name__ == "__main__":
    sys.exit(main())
