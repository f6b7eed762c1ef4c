"""Does it stay small: `python -m benchmarks.memory --help`. Exit status 1 when a limit is broken.

For each case a server of its own is filled, and a fresh process reads all of it, big values in parts.
Three figures: by how much the peak of that process's memory grew over what it held with the package just
imported; the most memory that the server held for its connections at any look, a look every 20 ms over
another connection; and the keys that the server evicted meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneatatime.server import EmbeddedServer

from ._admin import Admin
from ._cases import CASES, Case
from ._machine import machine, versions
from ._table import mib, table

ROOT = Path(__file__).parent.parent
MIB = 2**20
CLIENT_LIMIT = 64 * MIB
SERVER_LIMIT = 16 * MIB
_LOOK = 0.02  # seconds between two looks at the connections
_PATIENCE = 600  # seconds for one case
_ID, _OMEM, _TOTAL = (re.compile(rb" ?\b%s=(\d+)" % name) for name in (b"id", b"omem", b"tot-mem"))


@dataclass
class Watched:
    """The most that the server held for the connections of the consumer, summed over them at one look."""

    omem: int = 0
    total: int = 0
    looks: int = 0


@dataclass(frozen=True)
class Outcome:
    """One case: its figures, and what is wrong with them."""

    case: Case
    growth: int
    elapsed: float
    watched: Watched
    evicted: int
    wrong: list[str]


def main() -> int:
    options = _arguments()
    outcomes = []
    for case in options.cases:
        _say(f"{case.title}: filling the server")
        outcome = _run(case, options.scale)
        outcomes.append(outcome)
        _say(f"{case.title}: {_verdict(outcome)}")
    print(_report(outcomes, options.scale))
    if options.json:
        _write_json(options.json, outcomes, options.scale)
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    names = ", ".join(CASES)
    parser.add_argument("--only", action="append", metavar="CASE", help=f"repeatable; one of {names}")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the data, for a quick look")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    wanted = options.only or list(CASES)
    if unknown := [name for name in wanted if name not in CASES]:
        parser.error(f"no case {unknown[0]!r}; there are {names}")
    options.cases = [CASES[name] for name in wanted]
    return options


def _run(case: Case, scale: float) -> Outcome:
    with EmbeddedServer() as server, Admin(server.url) as admin:
        admin.load(case.fill(scale))
        admin.settle()
        if case.settings:
            case.settings(admin)
        before = _evicted(admin)
        watched = Watched()
        seen = _consumed(case, scale, server.url, admin, watched)
        evicted = _evicted(admin) - before
    wrong = _judged(case, scale, seen, watched, evicted)
    return Outcome(case, seen.get("growth", 0), seen.get("elapsed", 0.0), watched, evicted, wrong)


def _consumed(case: Case, scale: float, url: str, admin: Admin, watched: Watched) -> dict[str, Any]:
    """What the consumer process says, watched from here while it runs."""
    command = [sys.executable, "-m", "benchmarks._consumer", url]
    command += ["--half", str(int(case.keys * scale) // 2), "--asleep", str(case.asleep)]
    command += ["--blocking"] if case.blocking else []
    own = admin.call("CLIENT", "ID")
    end = time.monotonic() + _PATIENCE
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            _look(admin, own, watched)
            if time.monotonic() > end:
                process.kill()
            time.sleep(_LOOK)
        out.seek(0)
        said = out.read().strip().splitlines() or ["nothing"]
    if process.returncode:
        return {"failed": f"exit status {process.returncode}: {said[-1]}"}
    seen: dict[str, Any] = json.loads(said[-1])
    return seen


def _look(admin: Admin, own: int, watched: Watched) -> None:
    omem = total = 0
    for line in admin.call("CLIENT", "LIST").splitlines():
        if _field(_ID, line) != own:
            omem += _field(_OMEM, line)
            total += _field(_TOTAL, line)
    watched.omem = max(watched.omem, omem)
    watched.total = max(watched.total, total)
    watched.looks += 1


def _field(pattern: re.Pattern[bytes], line: bytes) -> int:
    found = pattern.search(line)
    return int(found[1]) if found else 0


def _evicted(admin: Admin) -> int:
    return int(admin.info("stats")["evicted_keys"])


def _judged(case: Case, scale: float, seen: dict[str, Any], watched: Watched, evicted: int) -> list[str]:
    if "failed" in seen:
        return [seen["failed"]]
    wrong = []
    keys = case.keys if case.keys == 1 else int(case.keys * scale * 0.99)
    length = case.length * scale * 0.99  # scaled numbers are rounded
    if seen["keys"] < keys:
        wrong.append(f"saw {seen['keys']:,} keys of {keys:,}")
    if seen["length"] < length:
        wrong.append(f"saw values of {seen['length']:,} elements and bytes, of {length:,.0f}")
    if seen["growth"] > CLIENT_LIMIT:
        wrong.append(f"client over {mib(CLIENT_LIMIT)} MiB")
    if watched.omem > SERVER_LIMIT and not case.surprise:
        wrong.append(f"server over {mib(SERVER_LIMIT)} MiB")
    if evicted:
        wrong.append(f"{evicted:,} keys evicted")
    return wrong


def _report(outcomes: list[Outcome], scale: float) -> str:
    head = ["case", "client growth MiB", "server omem MiB", "server tot-mem MiB", "evicted", "s", "verdict"]
    rows = [
        [
            outcome.case.title,
            mib(outcome.growth),
            mib(outcome.watched.omem),
            mib(outcome.watched.total),
            f"{outcome.evicted:,}",
            f"{outcome.elapsed:.1f}",
            "ok" if not outcome.wrong else "BROKEN",
        ]
        for outcome in outcomes
    ]
    broken = [f"BROKEN {row.case.name}: {'; '.join(row.wrong)}" for row in outcomes if row.wrong]
    limits = f"limits: client {mib(CLIENT_LIMIT)} MiB, server's omem {mib(SERVER_LIMIT)} MiB, nothing evicted"
    return "\n".join([machine(), versions(), f"{limits}; scale {scale:g}", "", table(head, rows), *broken])


def _verdict(outcome: Outcome) -> str:
    if outcome.wrong:
        return "; ".join(outcome.wrong)
    watched = outcome.watched
    return f"client +{mib(outcome.growth)} MiB, server {mib(watched.omem)} MiB, {watched.looks} looks"


def _write_json(path: Path, outcomes: list[Outcome], scale: float) -> None:
    rows = [
        {
            "case": outcome.case.name,
            "growth": outcome.growth,
            "omem": outcome.watched.omem,
            "tot_mem": outcome.watched.total,
            "looks": outcome.watched.looks,
            "evicted": outcome.evicted,
            "elapsed": outcome.elapsed,
            "wrong": outcome.wrong,
        }
        for outcome in outcomes
    ]
    path.write_text(json.dumps({"machine": machine(), "scale": scale, "cases": rows}, indent=1) + "\n")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
