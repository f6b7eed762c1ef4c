"""What another client feels: `python -m benchmarks.probe --help`.

A probe sends a GET every millisecond: first while the server is quiet, then while a
reader streams at full speed, round and round. On a machine of few cores, server, reader and probe wait for
each other's cores too. How much of what the probe feels is that, a control shows: in place of the reader a
process that computes and leaves the server alone. Exit status 1 where streaming adds over 3 ms to the 99th
percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import oneatatime
from oneatatime.server import EmbeddedServer

from ._admin import Admin, Command
from ._cases import big_collection
from ._machine import machine
from ._table import table
from ._workloads import mixed, of_type, strings

_ROOT = Path(__file__).parent.parent
_EVERY = 0.001
_MOST = 3.0  # ms that streaming may add
_KEY = b"probe"
_LONGEST = time.perf_counter() + 120  # seconds that a process beside the probe lives, should nobody end it
_MODULE = [sys.executable, "-m", "benchmarks.probe"]


def _big_hashes() -> Iterator[Command]:
    for number in range(20):
        yield from big_collection("HSET", b"hash:%d" % number, 100_000)


def _middling_hashes() -> Iterator[Command]:
    for number in range(2000):
        yield from big_collection("HSET", b"hash:%d" % number, 1000)


ROWS: dict[str, Callable[[], Iterator[Command]]] = {
    "strings of 100 B": lambda: strings(100)(1_000_000),
    "strings of 10 kB": lambda: strings(10_000)(50_000),
    "hashes of 5 fields": lambda: of_type("hash")(300_000),
    "hashes of 1,000 fields": _middling_hashes,
    "hashes of 100,000 fields": _big_hashes,
    "a set of 5 million": lambda: big_collection("SADD", b"big", 5_000_000),
    "all types, by prefix": lambda: mixed(prefixes=True)(300_000),
    "all types, no prefix": lambda: mixed(prefixes=False)(300_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="rows whose name holds TEXT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--probe", nargs=2, metavar=("URL", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--stream", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--compute", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps(_probe(options.probe[0], float(options.probe[1]))))
        return 0
    if options.stream:
        asyncio.run(_stream(options.stream))
        return 0
    if options.compute:
        _compute()
        return 0
    lines = []
    worst = 0.0
    for name, fill in ROWS.items():
        if options.only in name:
            quiet, computing, streaming = _row(fill, options.rounds, options.seconds)
            added = streaming[1] - quiet[1]
            worst = max(worst, added)
            figures = [*quiet, computing[1], *streaming, added]
            verdict = "ok" if added <= _MOST else "MISSED"
            lines.append([name, *(f"{figure:.2f}" for figure in figures), verdict])
            print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    print(machine())
    print(f"ms; medians of {options.rounds} rounds of {options.seconds:g} s each, taking turns\n")
    head = ["streamed", "quiet p50", "quiet p99", "computing p99", "streaming p50", "streaming p99", "added"]
    print(table([*head, "verdict"], lines))
    return 1 if worst > _MOST else 0


Felt = tuple[float, float]
"""Median and 99th percentile, in ms."""


def _row(fill: Callable[[], Iterator[Command]], rounds: int, seconds: float) -> list[Felt]:
    """What the probe felt: quiet, beside a process that computes, beside one that streams."""
    with EmbeddedServer(tcp=True) as server, Admin(server.url) as admin:
        admin.load(fill())
        admin.call("SET", _KEY, b"x" * 100)
        admin.settle()
        beside: list[list[str]] = [[], ["--compute"], ["--stream", server.url]]
        felt: list[list[Felt]] = [[], [], []]
        for _ in range(rounds):
            for place, arguments in enumerate(beside):
                felt[place].append(_felt(server.url, seconds, arguments))
    return [
        (statistics.median(one[0] for one in several), statistics.median(one[1] for one in several))
        for several in felt
    ]


def _felt(url: str, seconds: float, beside: list[str]) -> Felt:
    other = subprocess.Popen([*_MODULE, *beside], cwd=_ROOT) if beside else None
    try:
        if other is not None:
            time.sleep(1.0)  # until it is under way
        done = subprocess.run(
            [*_MODULE, "--probe", url, str(seconds)], cwd=_ROOT, capture_output=True, text=True, check=True
        )
        if other is not None and other.poll() is not None:
            raise SystemExit(f"the process beside the probe ended: {beside}")
    finally:
        if other is not None:
            other.kill()
            other.wait()
    latencies = sorted(json.loads(done.stdout))
    return latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]


def _probe(url: str, seconds: float) -> list[float]:
    """Milliseconds until each GET was answered, from when it was due: a late one makes the next late."""
    latencies = []
    with Admin(url) as admin:
        start = time.perf_counter()
        for number in range(int(seconds / _EVERY)):
            began = start + number * _EVERY
            early = began - time.perf_counter()
            if early > 0:
                time.sleep(early)
                began = time.perf_counter()  # that it wakes late is not the server's
            admin.call("GET", _KEY)
            latencies.append((time.perf_counter() - began) * 1000)
    return latencies


async def _stream(url: str) -> None:
    """Reads everything round and round, big values in parts, until it is ended."""
    while time.perf_counter() < _LONGEST:
        async for _, value in oneatatime.stream(url):
            if isinstance(value, oneatatime.Parts):
                async for _ in value:
                    pass


def _compute() -> None:
    while time.perf_counter() < _LONGEST:
        sum(range(1000))


if __name__ == "__main__":
    sys.exit(main())
