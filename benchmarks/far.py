"""How fast from far away: `python -m benchmarks.far --help`.

Between the reader and the server stands a proxy that delays every byte by half a round trip each way, in a
process of its own. The reader has default options: width has to follow the way. Exit status 1 below the
target.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from oneatatime.server import EmbeddedServer
from tests.proxy import FaultProxy, Plan

from ._admin import Admin
from ._machine import machine
from ._readers import OURS
from ._table import short, table
from ._workloads import WORKLOADS

_ROOT = Path(__file__).parent.parent
_TARGETS = {"strings-100": 200_000, "hashes-5": 60_000, "mixed": 0, "these": 0}
"""Keys a second that are asked for; 0: shown and not judged."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.far", description=__doc__)
    parser.add_argument("--round-trip", type=float, default=0.02, metavar="SECONDS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=_TARGETS)
    options = parser.parse_args()
    lines = []
    missed = False
    for name, target in _TARGETS.items():
        if options.only not in (None, name):
            continue
        workload = WORKLOADS[name]
        with EmbeddedServer(tcp=True) as server, Admin(server.url) as admin:
            admin.load(workload.fill(workload.keys))
            admin.settle()
            rates, shares = zip(*[_read(name, server.url, options.round_trip) for _ in range(options.rounds)])
        rate = statistics.median(rates)
        missed |= rate < target
        verdict = "-" if not target else "ok" if rate >= target else "MISSED"
        spread = f"{short(min(rates))} .. {short(max(rates))}"
        share = f"{statistics.median(shares):.2f}"
        lines.append([workload.title, short(rate), spread, share, short(target) if target else "-", verdict])
        print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    print(machine())
    print(f"{options.round_trip * 1000:g} ms there and back, medians of {options.rounds}, default options\n")
    print(table(["workload", "keys/s", "spread", "proxy busy", "target", "verdict"], lines))
    return 1 if missed else 0


def _read(name: str, url: str, round_trip: float) -> tuple[float, float]:
    """Keys a second through a proxy of its own, and the share of a core that the proxy took."""
    here, there = multiprocessing.Pipe()
    proxy = multiprocessing.get_context("spawn").Process(
        target=_proxy, args=(url, round_trip, there), daemon=True
    )
    proxy.start()
    try:
        far: str = here.recv()
        command = [sys.executable, "-m", "benchmarks._reader", OURS, name, far]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise SystemExit(done.stderr)
        seen = json.loads(done.stdout.splitlines()[-1])
        here.send("end")
        worked: float = here.recv()
    finally:
        proxy.kill()
        proxy.join()
    return seen["keys"] / seen["elapsed"], worked / seen["elapsed"]


def _proxy(url: str, round_trip: float, told: Connection) -> None:
    asyncio.run(_serve(url, round_trip, told))


async def _serve(url: str, round_trip: float, told: Connection) -> None:
    async with FaultProxy(url, Plan(round_trip=round_trip)) as proxy:
        told.send(proxy.url)
        while not told.poll():  # noqa: ASYNC110 - a pipe has no future
            await asyncio.sleep(0.05)
        used = resource.getrusage(resource.RUSAGE_SELF)
        told.send(used.ru_utime + used.ru_stime)
        await asyncio.sleep(60)  # until it is ended


if __name__ == "__main__":
    sys.exit(main())
