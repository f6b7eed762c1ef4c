"""What a second process is worth where the client is the limit: `python -m benchmarks.engines --help`.

A cluster of three primaries holds strings that are JSON documents of some 470 bytes, orders of eight lines.
The client decodes each and adds up what every warehouse has sold, in three ways that take turns: a plain
`for` loop, the same by `engines.processes.apply` with one process, and with two. Each is a program of its
own; that it plans and starts processes is in its time. Prints items a second, and how many cores servers,
clients and all others on the machine took, so that it shows what the limit is. Exit status 1 where two
processes are less than 1.7 times as fast as one; where the cores do not suffice for that, less than 0.9 of
what they do suffice for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oneatatime
from oneatatime.engines.processes import apply

from ._machine import busy_seconds, machine
from ._table import short, table

_ROOT = Path(__file__).parent.parent
_LEAST = 1.7
_OF_MOST = 0.9
_WAYS = {"one loop": 0, "1 process": 1, "2 processes": 2}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--run", nargs=2, metavar=("URL", "PROCESSES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        _run(options.run[0], int(options.run[1]))
        return 0
    seen = _measure(options.keys, options.rounds)
    middle = {
        way: {name: statistics.median(one[name] for one in several) for name in several[0]}
        for way, several in seen.items()
    }
    print(machine())
    print(f"{short(options.keys)} JSON documents, medians of {options.rounds} rounds, taking turns\n")
    head = ["read by", "items/s", "servers us/item", "clients us/item", "servers", "clients", "others"]
    print(table(head, [_row(way, one) for way, one in middle.items()]))
    for way in ("one loop", "1 process"):
        ratios = [two["rate"] / one["rate"] for two, one in zip(seen["2 processes"], seen[way])]
        times = statistics.median(ratios)
        print(f"\n2 processes are {times:.2f} times as fast as {way}")
    one, two, cores = middle["1 process"], middle["2 processes"], os.cpu_count() or 1
    most = min(2.0, cores * one["client"] / (one["client"] + one["server"]))
    apart = 2 * (one["client"] / one["rate"]) / (two["client"] / two["rate"])
    print(f"{cores} cores suffice for {most:.2f} times, since the servers need a part of them")
    print(f"servers elsewhere, a core for each process: {apart:.2f} times, by what an item costs the clients")
    return 0 if times >= min(_LEAST, _OF_MOST * most) else 1


def _row(way: str, one: dict[str, float]) -> list[str]:
    each = [f"{one[name] / one['rate'] * 1e6:.2f}" for name in ("server", "client")]
    busy = [f"{one[name]:.2f}" for name in ("server", "client", "others")]
    return [way, short(one["rate"]), *each, *busy]


def documents(keys: int) -> Iterator[tuple[str, str, str]]:
    """Commands that make as many JSON documents: orders with a few lines each."""
    rng = random.Random(7)
    for number in range(keys):
        lines = [
            {"from": f"store {rng.randrange(20)}", "count": rng.randrange(9), "price": rng.randrange(10**5)}
            for _ in range(8)
        ]
        order = {"id": number, "customer": f"customer {rng.randrange(10**6)}", "open": True, "lines": lines}
        yield "SET", f"order:{number}", json.dumps(order)


def sales(stream: oneatatime.Stream) -> Counter[str]:
    """What each warehouse has sold, and how many orders there are: the loop that is measured."""
    found: Counter[str] = Counter()
    for _, text in stream:
        order = json.loads(text)
        for line in order["lines"]:
            found[line["from"]] += line["count"] * line["price"]
        found["orders"] += 1
    return found


def _measure(keys: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    from tests.clusters import Cluster, slot_of  # here: processes that are started import this file, too

    with Cluster(primaries=3) as cluster:
        owners = [(node, frozenset(cluster.slots(node))) for node in cluster.primaries()]
        commands = documents(keys)
        while some := list(itertools.islice(commands, 10_000)):
            for node, own in owners:
                node.many([command for command in some if slot_of(command[1].encode()) in own])
        pids = [node.pid for node, _ in owners]
        seen: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
        answers: list[dict[str, int]] = []
        for turn in range(rounds):
            for way, processes in _WAYS.items():
                one, answer = _started(cluster.url, processes, pids)
                answers.append(answer)
                seen[way].append(one)
                print(f"round {turn + 1}, {way}: {short(one['rate'])}", file=sys.stderr)
        assert answers[0]["orders"] == keys and all(one == answers[0] for one in answers), "they differ"
        return seen


def _started(url: str, processes: int, pids: list[int]) -> tuple[dict[str, float], dict[str, int]]:
    command = [sys.executable, "-m", "benchmarks.engines", "--run", url, str(processes)]
    client = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert client.stdout is not None and client.stdin is not None
    client.stdout.readline()  # it is warm
    server, busy = _cpu(pids), busy_seconds()
    client.stdin.write("go\n")
    client.stdin.flush()
    told: dict[str, Any] = json.loads(client.stdout.readline())
    server, busy = _cpu(pids) - server, busy_seconds() - busy
    client.communicate(timeout=60)
    elapsed = told["elapsed"]
    measured = {
        "rate": told["sales"]["orders"] / elapsed,
        "server": server / elapsed,
        "client": told["cpu"] / elapsed,
        "others": (busy - server - told["cpu"]) / elapsed,
    }
    return measured, told["sales"]


def _cpu(pids: list[int]) -> float:
    """CPU seconds of processes so far, by /proc."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 for pid in pids)


def _run(url: str, processes: int) -> None:
    """Reads a part of it to be warm, and then all of it when it is told to; processes start within that."""
    for _ in itertools.islice(oneatatime.stream(url), 20_000):
        pass
    print("warm", flush=True)
    sys.stdin.readline()
    began, cpu = time.perf_counter(), _own_cpu()
    if processes:
        found: Counter[str] = sum(apply(url, sales, processes=processes), Counter())
    else:
        found = sales(oneatatime.stream(url))
    elapsed = time.perf_counter() - began
    told = {"sales": found, "elapsed": elapsed, "cpu": _own_cpu() - cpu}
    print(json.dumps(told), flush=True)


def _own_cpu() -> float:
    """CPU seconds of this process, and of those that it has started and that have ended."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    sys.exit(main())
