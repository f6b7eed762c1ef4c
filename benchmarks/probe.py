"""What another client feels while we read: `python -m benchmarks.probe --help`.

A process of its own does GET every millisecond: while nothing else happens, while a process burns CPU and
never touches the server, and while we read the whole server at full speed, round and round. These three
take turns on the same server. The table shows medians of the rounds' percentiles. Exit status 1 when the
99th percentile is more than 3 ms above the quiet one. The burner tells how much of that comes from sharing
the machine's cores: probe, server and reader are three processes that want to run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from oneatatime.server import EmbeddedServer

from ._admin import Admin, Command
from ._cases import big_collection
from ._machine import machine, versions
from ._table import short, table
from ._workloads import mixed, of_type, strings

_ROOT = Path(__file__).parent.parent
_TARGET = 3.0  # ms that p99 may rise
_PROBED = b"probed"
_BURN = "while True: pass"


@dataclass(frozen=True)
class Keyspace:
    """What is read meanwhile."""

    name: str
    title: str
    fill: Callable[[float], Iterator[Command]]


def _many(fill: Callable[[int], Iterator[Command]], keys: int) -> Callable[[float], Iterator[Command]]:
    return lambda scale: fill(max(100, int(keys * scale)))


def _big_hashes(scale: float) -> Iterator[Command]:
    """Each of more than 1 MiB, so that they are read in parts."""
    value = b"v" * 50
    for number in range(max(1, int(100 * scale))):
        for start in range(0, 20_000, 1000):
            fields = (part for i in range(start, start + 1000) for part in (b"field:%d" % i, value))
            yield "HSET", b"big:%d" % number, *fields


_ROWS = [
    Keyspace("strings-100", "strings of 100 B", _many(strings(100), 1_000_000)),
    Keyspace("strings-10k", "strings of 10 kB", _many(strings(10_000), 100_000)),
    Keyspace("hashes-5", "hashes of 5 fields", _many(of_type("hash"), 300_000)),
    Keyspace("hashes-1000", "hashes of 1,000 fields", _many(of_type("hash", 1000), 3_000)),
    Keyspace("hashes-20k", "hashes of 20,000, in parts", _big_hashes),
    Keyspace(
        "set-5m", "a set of 5M, in parts", lambda scale: big_collection("SADD", b"big", int(5e6 * scale))
    ),
    Keyspace("mixed", "all types", _many(mixed(prefixes=False), 600_000)),
]
_KEYSPACES = {row.name: row for row in _ROWS}


@dataclass
class Felt:
    """The probe's answers in one situation, round after round, in ms."""

    rounds: list[list[float]] = field(default_factory=list)

    def percentile(self, which: float) -> float:
        """The median of what each round says."""
        return statistics.median(sorted(several)[int(len(several) * which)] for several in self.rounds)


def main() -> int:
    options = _arguments()
    rows, missed = [], False
    for keyspace in options.keyspaces:
        felt, read, slowest = _measured(keyspace, options)
        quiet, burner, ours = (felt[name].percentile(0.99) for name in ("quiet", "burner", "streaming"))
        hit = ours - quiet <= _TARGET
        missed |= not hit
        rows.append(
            [
                keyspace.title,
                *(f"{felt[name].percentile(at):.2f}" for name in felt for at in (0.5, 0.99)),
                f"{burner - quiet:+.2f}",
                f"{ours - quiet:+.2f}",
                "ok" if hit else "MISSED",
                f"{felt['streaming'].percentile(0.999):.1f}",
                short(read) + "/s",
                slowest,
            ]
        )
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(machine())
    print(versions())
    print(f"ms; medians of {options.rounds} rounds of {options.seconds:g} s, {options.burners} burner(s)\n")
    head = ["read meanwhile", "quiet p50", "p99", "burner p50", "p99", "streaming p50", "p99"]
    head += ["burner - quiet p99", "streaming - quiet p99", "verdict", "streaming p99.9", "read"]
    print(table([*head, "longest command"], rows))
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description=__doc__)
    names = ", ".join(_KEYSPACES)
    parser.add_argument("--only", action="append", metavar="KEYSPACE", help=f"repeatable; one of {names}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each situation in a round")
    parser.add_argument("--burners", type=int, default=1, help="processes that burn CPU, for the control")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the data")
    options = parser.parse_args()
    wanted = options.only or list(_KEYSPACES)
    if unknown := [name for name in wanted if name not in _KEYSPACES]:
        parser.error(f"no keyspace {unknown[0]!r}; there are {names}")
    options.keyspaces = [_KEYSPACES[name] for name in wanted]
    return options


def _measured(keyspace: Keyspace, options: argparse.Namespace) -> tuple[dict[str, Felt], float, str]:
    """What the probe felt, keys and parts read a second, and the longest command of a reading."""
    felt: dict[str, Felt] = defaultdict(Felt)
    rates = []
    longest: tuple[float, str] = (0.0, "-")
    with EmbeddedServer(tcp=True) as server, Admin(server.url) as admin:
        print(f"{keyspace.title}: loading", file=sys.stderr, flush=True)
        admin.call("CONFIG", "SET", "latency-tracking-info-percentiles", "100")
        admin.load(keyspace.fill(options.scale))
        admin.call("SET", _PROBED, b"x" * 100)
        admin.settle()
        for _ in range(options.rounds):
            felt["quiet"].rounds.append(_probe(server.url, options.seconds))
            with _burning(options.burners):
                felt["burner"].rounds.append(_probe(server.url, options.seconds))
            admin.call("CONFIG", "RESETSTAT")
            with _streaming(server.url) as so_far:
                before = so_far()
                felt["streaming"].rounds.append(_probe(server.url, options.seconds))
                after = so_far()
            rates.append((after[0] + after[1] - before[0] - before[1]) / (after[3] - before[3]))
            longest = max(longest, _longest(admin))
    return felt, statistics.median(rates), f"{longest[1]} {longest[0]:.2f}"


def _probe(url: str, seconds: float) -> list[float]:
    command = [sys.executable, "-m", "benchmarks._prober", url, _PROBED.decode(), str(seconds)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=seconds + 30, check=True)
    took: list[float] = json.loads(done.stdout)
    return took


@contextlib.contextmanager
def _burning(processes: int) -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(processes)]
    try:
        time.sleep(0.2)  # until they are under way
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@contextlib.contextmanager
def _streaming(url: str) -> Iterator[Callable[[], list[float]]]:
    """Reads for as long as the block runs; what it gives says keys, parts, CPU seconds and the time."""
    command = [sys.executable, "-m", "benchmarks._streamer", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        asking, answers = process.stdin, process.stdout
        assert asking and answers

        def so_far() -> list[float]:
            asking.write("\n")
            asking.flush()
            said: list[float] = json.loads(answers.readline())
            return said

        try:
            answers.readline()
            yield so_far
        finally:
            process.kill()


def _longest(admin: Admin) -> tuple[float, str]:
    """The longest time that one command took since the last reset, in ms, and which."""
    found = [
        (float(percentiles.partition("p100=")[2]) / 1000, name.removeprefix("latency_percentiles_usec_"))
        for name, percentiles in admin.info("latencystats").items()
        if "info" not in name and "config" not in name
    ]
    return max(found, default=(0.0, "-"))


if __name__ == "__main__":
    sys.exit(main())
