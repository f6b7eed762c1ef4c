"""Who reads a whole server how fast: `python -m benchmarks.speed --help`.

Every reading is an own fresh process. The readers of a workload take turns on the same server, round
after round, so that a noisy minute of the machine hits all of them; the table shows medians. Nobody is
credited for skipping: a reading that did not see all the keys and values fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from oneatatime.server import EmbeddedServer

from ._admin import Admin
from ._machine import machine, versions
from ._readers import OURS, READERS, Reader
from ._table import short, table
from ._workloads import WORKLOADS, Workload

ROOT = Path(__file__).parent.parent
_QUIET = 0.25  # cores that other work may take before the figures are not to be trusted
_PATIENCE = 300  # seconds for one reading


class UnfitError(Exception):
    """A reading that failed or missed keys: shown, and not counted."""


@dataclass(frozen=True)
class Reading:
    """What one reader process measured, and what follows from it."""

    keys: int
    length: int
    elapsed: float
    cpu: float
    server_cpu: float
    commands: int
    others: float

    @property
    def rate(self) -> float:
        return self.keys / self.elapsed

    @property
    def busy(self) -> float:
        return self.server_cpu / self.elapsed

    @property
    def ceiling(self) -> float:
        """Keys a second that the server could give, were it busy all of the time."""
        return self.keys / self.server_cpu if self.server_cpu else 0.0

    @property
    def microseconds(self) -> float:
        return self.cpu / self.keys * 1e6

    @property
    def disturbance(self) -> float:
        return self.others / self.elapsed

    @property
    def commands_per_key(self) -> float:
        return self.commands / self.keys


Readings = dict[str, list[Reading]]


def main() -> int:
    options = _arguments()
    results: dict[str, Readings] = {}
    failures: list[str] = []
    server_version = "?"
    modules = [word for module in options.module for word in ("--loadmodule", module)]
    for workload in options.workloads:
        with EmbeddedServer(tcp=not options.unix, arguments=modules) as server, Admin(server.url) as admin:
            server_version = f"{server.product} {server.version}"
            if workload.needs and not admin.call("COMMAND", "INFO", workload.needs)[0]:
                print(f"{workload.title}: left out, the server has no {workload.needs}", file=sys.stderr)
                continue
            loaded = max(int(workload.keys * options.scale), 100)
            _say(f"{workload.title}: loading {loaded:,} keys")
            admin.load(workload.fill(loaded))
            admin.settle()
            results[workload.name] = _rounds(workload, loaded, server.url, options, failures)
    print(_report(results, options, server_version))
    for failure in dict.fromkeys(failures):
        print(f"FAILED {failure}")
    if options.json:
        _write_json(options.json, results, options, server_version)
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    names = ", ".join(WORKLOADS)
    parser.add_argument("--only", action="append", metavar="WORKLOAD", help=f"repeatable; one of {names}")
    parser.add_argument("--readers", action="append", metavar="TEXT", help="readers whose name holds TEXT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the keys, for a quick look")
    parser.add_argument("--unix", action="store_true", help="over the unix socket, not TCP on loopback")
    parser.add_argument("--module", action="append", default=[], metavar="FILE", help="the server loads it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single reading there")
    options = parser.parse_args()
    wanted = options.only or list(WORKLOADS)
    if unknown := [name for name in wanted if name not in WORKLOADS]:
        parser.error(f"no workload {unknown[0]!r}; there are {names}")
    options.workloads = [WORKLOADS[name] for name in wanted]
    options.readers = [
        row
        for row in READERS.values()
        if (row.default if options.readers is None else any(text in row.name for text in options.readers))
    ]
    if not options.readers:
        parser.error(f"no such reader; there are {', '.join(READERS)}")
    return options


def _rounds(
    workload: Workload, loaded: int, url: str, options: argparse.Namespace, failures: list[str]
) -> Readings:
    readings: Readings = defaultdict(list)
    out: set[str] = set()
    for turn in range(options.rounds):
        for reader in options.readers:
            skip = not reader.reads(workload) or (reader.rounds is not None and turn >= reader.rounds)
            if skip or reader.name in out:
                continue
            try:
                reading = _read(reader, workload, workload.expected(loaded), url)
            except UnfitError as error:
                failures.append(f"{workload.name}, {reader.name}: {error}")
                out.add(reader.name)
                continue
            readings[reader.name].append(reading)
            _say(f"{workload.title}: round {turn + 1}, {reader.name}: {short(reading.rate)}/s")
    return dict(readings)


def _read(reader: Reader, workload: Workload, expected: int, url: str) -> Reading:
    """One reading in its own process; raises UnfitError if it failed or did not see everything."""
    command = [sys.executable, "-m", "benchmarks._reader", reader.name, workload.name, url]
    if reader.limit is not None:
        command += ["--limit", str(reader.limit)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise UnfitError(f"not done after {_PATIENCE} s") from error
    if done.returncode:
        raise UnfitError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    reading = Reading(**json.loads(done.stdout.splitlines()[-1]))
    least = expected if reader.limit is None else min(reader.limit, expected)
    if reading.keys < least:
        raise UnfitError(f"saw {reading.keys} keys of {least}")
    if reader.limit is None and reading.keys > expected * 1.02 + 1000:
        raise UnfitError(f"saw {reading.keys} keys of {expected}: repeats")
    length = reading.length / reading.keys
    if workload.length is not None and abs(length - workload.length) > 0.05 * workload.length:
        raise UnfitError(f"the mean length of the values is {length}, not {workload.length}")
    return reading


def _report(results: dict[str, Readings], options: argparse.Namespace, server_version: str) -> str:
    rounds = f"medians of {options.rounds} rounds (the seed's loop: 3 at most, on a sample), taking turns"
    where = "unix socket" if options.unix else "TCP on loopback"
    disturbed = max(
        (_median(s, "disturbance") for row in results.values() for s in row.values()), default=0.0
    )
    parts = [
        machine(),
        f"server {server_version} over {where}; {versions()}",
        f"{rounds}; scale {options.scale:g}",
        *([f"DISTURBED: other work took up to {disturbed:.1f} cores"] if disturbed > _QUIET else []),
        "",
        _summary(results),
    ]
    for name, readings in results.items():
        parts += ["", f"{WORKLOADS[name].title}, every reader", "", _details(readings)]
    return "\n".join(parts)


def _summary(results: dict[str, Readings]) -> str:
    """One row a workload: ours, then the best idiom of each peer and how many times faster we are."""
    clients = list(dict.fromkeys(row.client for row in READERS.values() if row.client != OURS))
    seen = [c for c in clients if any(_best(readings, c) for readings in results.values())]
    head = ["workload", *_FIGURES, *seen]
    rows = []
    for name, readings in results.items():
        ours = readings.get(OURS, [])
        row = [WORKLOADS[name].title, *_figures(ours)]
        for client in seen:
            rate = _best(readings, client)
            times = f" ({_median(ours, 'rate') / rate:.1f}x)" if ours and rate else ""
            row.append(f"{short(rate)}{times}" if rate else "-")
        rows.append(row)
    return table(head, rows)


def _details(readings: Readings) -> str:
    head = ["reader", *_FIGURES, "slowest", "fastest", "rounds", "keys", "others"]
    rows = []
    for name, several in readings.items():
        rates = [reading.rate for reading in several]
        spread = [short(min(rates)), short(max(rates))]
        others = f"{_median(several, 'disturbance'):.2f}"
        rows.append([name, *_figures(several), *spread, str(len(several)), f"{several[-1].keys:,}", others])
    return table(head, rows)


_FIGURES = ("keys/s", "server busy", "ceiling", "client us/key", "commands/key")


def _figures(readings: Sequence[Reading]) -> list[str]:
    if not readings:
        return ["-"] * len(_FIGURES)
    return [
        short(_median(readings, "rate")),
        f"{_median(readings, 'busy'):.2f}",
        short(_median(readings, "ceiling")),
        f"{_median(readings, 'microseconds'):.2f}",
        f"{_median(readings, 'commands_per_key'):.3f}",
    ]


def _best(readings: Readings, client: str) -> float:
    rates = [_median(several, "rate") for name, several in readings.items() if READERS[name].client == client]
    return max(rates, default=0.0)


def _median(readings: Sequence[Reading], figure: str) -> float:
    values: list[float] = [getattr(reading, figure) for reading in readings]
    return statistics.median(values)


def _write_json(
    path: Path, results: dict[str, Readings], options: argparse.Namespace, server_version: str
) -> None:
    document = {
        "machine": machine(),
        "server": server_version,
        "versions": versions(),
        "scale": options.scale,
        "unix": options.unix,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "readings": {
            name: {reader: [asdict(reading) for reading in several] for reader, several in readings.items()}
            for name, readings in results.items()
        },
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
