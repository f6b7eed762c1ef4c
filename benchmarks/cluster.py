"""What a cluster costs beside one server: `python -m benchmarks.cluster --help`.

Reads the same strings of 100 B from a cluster of three primaries, from one server, and from the cluster
twice more: with hardly any of the views that prove that nothing moved, and with the servers kept on one
processor and the reader on another. They take turns, each time in a process of its own. Prints how busy the
processors of the servers and of the reader were, keys a second, and what the views cost. Exit status 1 where
they cost more than 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import oneatatime
from oneatatime import _post
from oneatatime.server import EmbeddedServer
from tests.clusters import Cluster, slot_of

from ._admin import Admin, Command
from ._machine import machine
from ._table import short, table
from ._workloads import strings

_ROOT = Path(__file__).parent.parent
_MOST_FOR_VIEWS = 0.02
_TOGETHER = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keys", type=int, default=600_000)
    parser.add_argument("--reader", nargs=2, metavar=("URL", "VIEWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        asyncio.run(_read(options.reader[0], views=options.reader[1] == "views"))
        return 0
    seen = _measure(options.keys, options.rounds)
    middle = {
        title: {name: statistics.median(one[name] for one in several) for name in several[0]}
        for title, several in seen.items()
    }
    print(machine())
    print(f"{short(options.keys)} strings of 100 B, medians of {options.rounds} rounds, taking turns\n")
    head = ["read from", "keys/s", "server busy", "client busy", "both", "client us/key", "server us/key"]
    print(table(head, [_row(title, one) for title, one in middle.items()]))
    views = [
        1 - with_them["rate"] / without["rate"]
        for with_them, without in zip(seen["a cluster of 3"], seen["the cluster, hardly any views"])
    ]
    cost = statistics.median(views)
    slower = middle["a cluster of 3"]["rate"] / middle["one server"]["rate"]
    print(f"\nviews cost {cost:.1%} of the throughput; the cluster is read {slower:.2f} times as fast as one")
    return 1 if cost > _MOST_FOR_VIEWS else 0


def _row(title: str, one: dict[str, float]) -> list[str]:
    busy = (one["server"], one["client"], one["server"] + one["client"])
    each = [one[name] / one["rate"] * 1e6 for name in ("client", "server")]
    return [title, short(one["rate"]), *(f"{part:.2f}" for part in busy), *(f"{part:.3f}" for part in each)]


def _measure(keys: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    with Cluster(primaries=3) as cluster, EmbeddedServer(tcp=True) as server:
        with Admin(server.url) as admin:
            admin.load(strings(100)(keys))
            admin.settle()
        for node in cluster.primaries():
            own = frozenset(cluster.slots(node))
            for some in _batched(strings(100)(keys)):
                node.many([command for command in some if slot_of(_key(command)) in own])
        nodes = [node.pid for node in cluster.primaries()]
        cases = {
            "a cluster of 3": (cluster.url, nodes, "views", False),
            "one server": (server.url, [server.pid], "views", False),
            "the cluster, hardly any views": (cluster.url, nodes, "none", False),
            "the cluster, kept apart": (cluster.url, nodes, "views", True),
        }
        seen: dict[str, list[dict[str, float]]] = {title: [] for title in cases}
        for turn in range(rounds):
            for title, (url, pids, views, apart) in cases.items():
                with _apart(pids) if apart else contextlib.nullcontext():
                    seen[title].append(_run(url, pids, views))
                print(f"round {turn + 1}, {title}: {short(seen[title][-1]['rate'])}", file=sys.stderr)
        return seen


@contextlib.contextmanager
def _apart(pids: list[int]) -> Iterator[None]:
    """The servers on one processor, and what is started meanwhile on the others."""
    all_of_them = os.sched_getaffinity(0)
    first = {min(all_of_them)}
    try:
        for pid in pids:
            _keep(pid, first)
        os.sched_setaffinity(0, all_of_them - first)
        yield
    finally:
        for pid in [0, *pids]:
            _keep(pid, all_of_them)


def _keep(pid: int, processors: set[int]) -> None:
    for thread in os.listdir(f"/proc/{pid or os.getpid()}/task"):
        os.sched_setaffinity(int(thread), processors)


def _batched(commands: Iterator[Command]) -> Iterator[list[Command]]:
    while some := list(itertools.islice(commands, _TOGETHER)):
        yield some


def _key(command: Command) -> bytes:
    key = command[1]
    return key if isinstance(key, bytes) else str(key).encode()


def _run(url: str, pids: list[int], views: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.cluster", "--reader", url, views]
    reader = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert reader.stdout is not None and reader.stdin is not None
    reader.stdout.readline()  # it is warm
    before = _cpu(pids)
    reader.stdin.write("go\n")
    reader.stdin.flush()
    told = json.loads(reader.stdout.readline())
    server = _cpu(pids) - before
    reader.communicate(timeout=60)
    elapsed = told["elapsed"]
    return {"rate": told["keys"] / elapsed, "client": told["cpu"] / elapsed, "server": server / elapsed}


def _cpu(pids: list[int]) -> float:
    """CPU seconds of processes so far, by /proc."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/schedstat").read_text().split()
        total += int(fields[0]) / 1e9
    return total


async def _read(url: str, *, views: bool) -> None:
    """Reads it once to be warm, and then once more when it is told to."""
    if not views:
        _post._LONGEST_WINDOW = _post._SHORTEST_WINDOW = 3600.0
    async for _ in oneatatime.stream(url):
        pass
    print("warm", flush=True)
    sys.stdin.readline()
    began, cpu, keys = time.perf_counter(), time.process_time(), 0
    async for _ in oneatatime.stream(url):
        keys += 1
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - began
    print(json.dumps({"keys": keys, "cpu": cpu, "elapsed": elapsed}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
