"""Whether cost grows linearly: `python -m benchmarks.growth --help`.

Reads databases of 100 thousand, 1 million and 5 million keys, one after the other in each round, and
compares what one key costs: our CPU time, and beside it the server's, whose bigger tables miss its caches
more often. Small databases are read several times over, so that every reading takes about as long. Exit
status 1 where ours differ by more than 10 %.
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
from contextlib import ExitStack
from pathlib import Path

import oneatatime
from oneatatime.server import EmbeddedServer

from ._admin import Admin, Command
from ._machine import machine
from ._table import short, table
from ._workloads import of_type, strings

_ROOT = Path(__file__).parent.parent
_TOLERANCE = 0.10
_ALL: dict[str, tuple[Callable[[int], Iterator[Command]], list[int]]] = {
    "strings of 100 B": (strings(100), [100_000, 1_000_000, 5_000_000]),
    "hashes of 5 fields": (of_type("hash"), [100_000, 1_000_000]),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--reader", nargs=2, metavar=("URL", "TIMES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        asyncio.run(_read(options.reader[0], int(options.reader[1])))
        return 0
    lines = []
    worst = 0.0
    for title, (fill, sizes) in _ALL.items():
        ours, servers = _measure(fill, [int(size * options.scale) for size in sizes], options.rounds)
        spread = max(ours.values()) / min(ours.values()) - 1
        worst = max(worst, spread)
        for keys, cost in ours.items():
            last = f"{spread:.1%}" if keys == max(ours) else ""
            lines.append([title, short(keys), f"{cost:.3f}", f"{servers[keys]:.3f}", last])
    print(machine())
    print(f"medians of {options.rounds} rounds, taking turns\n")
    print(table(["workload", "keys", "client us/key", "server us/key", "client's spread"], lines))
    return 1 if worst > _TOLERANCE else 0


def _measure(
    fill: Callable[[int], Iterator[Command]], sizes: list[int], rounds: int
) -> tuple[dict[int, float], dict[int, float]]:
    """What a key costs us, and the server, by the number of keys."""
    ours: dict[int, list[float]] = {size: [] for size in sizes}
    servers: dict[int, list[float]] = {size: [] for size in sizes}
    with ExitStack() as stack:
        urls = {}
        for size in sizes:
            server = stack.enter_context(EmbeddedServer(tcp=True))
            urls[size] = server.url
            with Admin(server.url) as admin:
                admin.load(fill(size))
                admin.settle()
        for turn in range(rounds):
            for size, url in urls.items():
                times = max(1, min(10, max(sizes) // size))
                command = [sys.executable, "-m", "benchmarks.growth", "--reader", url, str(times)]
                done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
                if done.returncode:
                    raise SystemExit(done.stderr)
                seen = json.loads(done.stdout)
                ours[size].append(seen["cpu"] / seen["keys"] * 1e6)
                servers[size].append(seen["server"] / seen["keys"] * 1e6)
                print(
                    f"round {turn + 1}, {short(size)}: {ours[size][-1]:.3f} us", file=sys.stderr, flush=True
                )
    return (
        {size: statistics.median(several) for size, several in ours.items()},
        {size: statistics.median(several) for size, several in servers.items()},
    )


async def _read(url: str, times: int) -> None:
    """Reads all of it so many times, connecting included; a first time before, to be warm."""
    with Admin(url) as admin:
        async for _ in oneatatime.stream(url):
            if time.process_time() > 1.0:
                break
        server, cpu, keys = admin.cpu_seconds(), time.process_time(), 0
        for _ in range(times):
            async for _ in oneatatime.stream(url):
                keys += 1
        cpu = time.process_time() - cpu
        print(json.dumps({"keys": keys, "cpu": cpu, "server": admin.cpu_seconds() - server}))


if __name__ == "__main__":
    sys.exit(main())
