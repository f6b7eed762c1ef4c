"""How well `rate`, `bandwidth` and `max_load` are kept: `python -m benchmarks.pace --help`.

A process reads round and round with a limit. What it got in a stretch of time is counted where it
cannot be talked up: keys in the loop, bytes by `statistics()`, server time by the server's own clock,
less what it takes without this reader. Exit status 1 when a limit is missed by more than 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oneatatime
from oneatatime.server import EmbeddedServer

from ._admin import Admin, Command
from ._cases import big_collection, big_string
from ._machine import machine
from ._table import table
from ._workloads import mixed, of_type, strings

_ROOT = Path(__file__).parent.parent
_TOLERANCE = 0.05
_WARM_UP = 1.0  # seconds: the first page, and the first look at the server's clock
_EVERY = 16  # items: asking for the time at each would make a slow reader of a quick one
_SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)
_OTHERS = {"": "-", "GETs": "a busy GET loop", "on and off": "the same, every other second"}


@dataclass(frozen=True)
class Row:
    """One limit on one keyspace; `others`: another client reads meanwhile, in one of the ways of _OTHERS."""

    name: str
    fill: Callable[[], Iterator[Command]]
    limit: dict[str, float]
    ask: str = "items"
    others: str = ""


def _set() -> Iterator[Command]:
    yield from big_collection("SADD", b"big", 3_000_000)


def _string() -> Iterator[Command]:
    yield big_string(b"big", 400 * 2**20)


def _rows() -> list[Row]:
    small: Callable[[], Iterator[Command]] = lambda: strings(100)(1_000_000)  # noqa: E731
    hashes: Callable[[], Iterator[Command]] = lambda: of_type("hash")(300_000)  # noqa: E731
    plain: Callable[[], Iterator[Command]] = lambda: mixed(prefixes=False)(300_000)  # noqa: E731
    return [
        Row("strings", small, {"rate": 1000}),
        Row("strings", small, {"rate": 100_000}),
        Row("strings", small, {"rate": 50_000}, ask="keys"),
        Row("strings", small, {"rate": 50_000}, ask="these"),
        Row("all types", plain, {"rate": 20_000}),
        Row("strings", small, {"bandwidth": 1e6}),
        Row("strings", small, {"bandwidth": 20e6}),
        Row("hashes", hashes, {"bandwidth": 5e6}),
        Row("one set, in parts", _set, {"bandwidth": 5e6}, ask="parts"),
        Row("one string, in parts", _string, {"bandwidth": 20e6}, ask="parts"),
        *[Row("strings", small, {"max_load": share}) for share in _SHARES],
        *[Row("hashes", hashes, {"max_load": share}) for share in _SHARES],
        *[Row("all types", plain, {"max_load": share}) for share in _SHARES],
        *[Row("strings", small, {"max_load": share}, ask="keys") for share in _SHARES],
        *[Row("one set, in parts", _set, {"max_load": share}, ask="parts") for share in _SHARES],
        Row("strings", small, {"max_load": 0.2}, others="GETs"),
        Row("strings", small, {"max_load": 0.4}, others="GETs"),
        Row("strings", small, {"max_load": 0.2}, others="on and off"),
    ]


def _numbered(rows: list[Row], only: str | None, wanted: str | None) -> list[Row]:
    """The rows of one limit, and of them those from one number to another: "3-5"."""
    rows = [row for row in rows if only in (None, *row.limit)]
    first, _, last = (wanted or f"1-{len(rows)}").partition("-")
    return rows[int(first) - 1 : int(last or first)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pace", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look (default: 10)")
    parser.add_argument("--only", choices=("rate", "bandwidth", "max_load"))
    parser.add_argument("--rounds", type=int, default=1, help="times to look; shown are medians (default: 1)")
    parser.add_argument("--rows", metavar="FROM-TO", help="some rows only, by their numbers, from 1")
    parser.add_argument("--reader", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        url, ask, limit = options.reader
        asyncio.run(_read(url, ask, json.loads(limit), options.seconds))
        return 0
    lines, worst = [], 0.0
    for row in _numbered(_rows(), options.only, options.rows):
        ((name, limit),) = row.limit.items()
        rounds = _rounds(row, options.seconds, options.rounds)
        off = [kept / limit - 1 for kept, _ in rounds]
        furthest = max(off, key=abs)
        worst = max(worst, abs(furthest))
        ask = {"keys": "keys()", "these": "OneAtATime"}.get(row.ask, "items")
        kept = statistics.median(kept for kept, _ in rounds)
        counted = statistics.median(counted for _, counted in rounds)
        lines.append([name, row.name, ask, _OTHERS[row.others], f"{limit:,g}", f"{kept:,.4g}"])
        lines[-1] += [f"{statistics.median(off):+.1%}", f"{furthest:+.1%}"]
        lines[-1].append(f"{counted / limit - 1:+.1%}" if row.others else "-")
        print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    print(machine())
    print(f"over {options.seconds:g} s, after {_WARM_UP:g} s; rounds: {options.rounds}\n")
    head = ["limit", "keyspace", "read by", "others", "asked", "kept", "off by", "furthest", "GETs counted"]
    print(table(head, lines))
    return 1 if worst > _TOLERANCE else 0


def _rounds(row: Row, seconds: float, rounds: int) -> list[tuple[float, float]]:
    """What came of the limit, a second; and the same by another account of what the others took."""
    with EmbeddedServer(tcp=True) as server, Admin(server.url) as admin:
        admin.load(row.fill())
        admin.settle()
        itself, _ = _alone(admin, 1.0)  # an idle server takes some too, to look after itself
        if not row.others:
            return [_round(row, server.url, admin, seconds, itself) for _ in range(rounds)]
        load = multiprocessing.get_context("spawn").Process(
            target=_load, args=(server.url, row.others == "on and off"), daemon=True
        )
        load.start()
        try:
            time.sleep(1.0)  # until it is under way
            return [_round(row, server.url, admin, seconds, itself) for _ in range(rounds)]
        finally:
            load.kill()
            load.join()


def _round(row: Row, url: str, admin: Admin, seconds: float, itself: float) -> tuple[float, float]:
    long = 2.0 if row.others else 0.5  # one time on and off
    before = _alone(admin, long)
    command = [sys.executable, "-m", "benchmarks.pace", "--seconds", str(seconds), "--reader"]
    arguments = [url, row.ask, json.dumps(row.limit)]
    done = subprocess.run([*command, *arguments], cwd=_ROOT, capture_output=True, timeout=seconds + 60)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    seen: dict[str, float] = json.loads(done.stdout)
    others, gets = (statistics.mean(each) for each in zip(before, _alone(admin, long)))
    figure = {"rate": "keys", "bandwidth": "bytes", "max_load": "server"}[next(iter(row.limit))]
    kept = seen[figure] / seen["elapsed"]
    if figure != "server":
        return kept, kept
    by_count = seen["gets"] / seen["elapsed"] * (others - itself) / gets if gets else 0.0
    return kept - others, kept - itself - by_count


def _load(url: str, on_and_off: bool) -> None:
    """Another client: twenty GETs one after the other, then 2 ms of rest, again and again."""
    with Admin(url) as admin:
        while True:
            if on_and_off and int(time.monotonic()) % 2:
                time.sleep(1 - time.monotonic() % 1)
            for _ in range(20):
                admin.call("GET", b"string:1")
            time.sleep(0.002)


def _alone(admin: Admin, long: float) -> tuple[float, float]:
    """Server time a second without this reader, and GETs a second."""
    clock, gets, began = admin.cpu_seconds(), _gets(admin), time.perf_counter()
    time.sleep(long)
    seconds = time.perf_counter() - began
    return (admin.cpu_seconds() - clock) / seconds, (_gets(admin) - gets) / seconds


def _gets(admin: Admin) -> int:
    told = admin.info("commandstats").get("cmdstat_get", "calls=0,")
    return int(told.split("calls=")[1].split(",")[0])


async def _read(url: str, ask: str, limit: dict[str, Any], seconds: float) -> None:
    """Reads round and round; prints what came between the warm-up and the end."""
    given = [b"string:%d" % number for number in range(1_000_000)] if ask == "these" else []
    looks: list[dict[str, float]] = []
    start = time.perf_counter()
    keys = received = 0
    with Admin(url) as admin:
        while len(looks) < 2:
            stream = oneatatime.OneAtATime(url, given, **limit) if given else oneatatime.stream(url, **limit)
            async for _ in _items(stream, ask):
                keys += 1
                if keys % _EVERY:
                    continue
                now = time.perf_counter()
                if now - start > (_WARM_UP + seconds if looks else _WARM_UP):
                    seen = received + _received(stream)
                    look = {"keys": keys, "bytes": seen, "server": admin.cpu_seconds(), "gets": _gets(admin)}
                    looks.append({**look, "elapsed": now})
                    if len(looks) == 2:
                        break
            received += _received(stream)
            await stream.aclose()
    before, after = looks
    print(json.dumps({name: after[name] - before[name] for name in before}))


def _received(stream: Any) -> int:
    return int(stream.statistics().bytes) if hasattr(stream, "statistics") else 0


def _items(stream: Any, ask: str) -> Any:
    return {"keys": lambda: stream.keys(), "parts": lambda: _parts(stream)}.get(ask, lambda: stream)()


async def _parts(stream: Any) -> Any:
    async for _, value in stream:
        async for part in value:
            yield part


if __name__ == "__main__":
    sys.exit(main())
