"""How well `rate`, `bandwidth` and `max_load` are kept: `python -m benchmarks.pace --help`.

A process reads round and round with a limit. What it got in a stretch of time is counted where it
cannot be talked up: keys in the loop, bytes by `statistics()`, server time by the server's own clock,
less what it takes without this reader. Beside `max_load` stands what share the same reader gets with
`max_load=1`, just before: one that it cannot reach is no limit that was missed. Exit status 1 when a limit
is missed by more than 5 % (the median of the rounds).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
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
_REACH_SECONDS = 4.0
_OUT_OF_REACH = 0.95  # of what the reader gets without a limit: more than that cannot be told from it
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
    lines, missed = [], False
    for row in _numbered(_rows(), options.only, options.rows):
        ((name, limit),) = row.limit.items()
        rounds = _rounds(row, options.seconds, options.rounds)
        off = [one.kept / limit - 1 for one in rounds]
        median, furthest = statistics.median(off), max(off, key=abs)
        reach = statistics.median(one.reach for one in rounds)
        if limit > _OUT_OF_REACH * reach and median < 0:
            verdict = "out of reach"
        else:
            verdict = "ok" if abs(median) <= _TOLERANCE else "missed"
        missed = missed or verdict == "missed"
        ask = {"keys": "keys()", "these": "OneAtATime"}.get(row.ask, "items")
        kept = statistics.median(one.kept for one in rounds)
        counted = statistics.median(one.counted for one in rounds)
        lines.append([name, row.name, ask, _OTHERS[row.others], f"{limit:,g}", f"{kept:,.4g}"])
        lines[-1] += [f"{median:+.1%}", f"{furthest:+.1%}"]
        lines[-1].append(f"{counted / limit - 1:+.1%}" if row.others else "-")
        lines[-1] += [f"{reach:.2f}" if name == "max_load" else "-", verdict]
        print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    print(machine())
    print(f"over {options.seconds:g} s, after {_WARM_UP:g} s; rounds: {options.rounds}\n")
    head = ["limit", "keyspace", "read by", "others", "asked", "kept", "off by", "furthest", "GETs counted"]
    print(table([*head, "reach", "verdict"], lines))
    return 1 if missed else 0


@dataclass(frozen=True)
class Round:
    """`kept`: what came of the limit, a second.

    `counted`: the same by another account of what the others took.
    `reach`: the share that the reader got without a limit.
    """

    kept: float
    counted: float
    reach: float = math.inf


def _rounds(row: Row, seconds: float, rounds: int) -> list[Round]:
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


def _round(row: Row, url: str, admin: Admin, seconds: float, itself: float) -> Round:
    long = 2.0 if row.others else 0.5  # one time on and off
    before = _alone(admin, long)
    free = _seen(row, url, {"max_load": 1}, _REACH_SECONDS) if "max_load" in row.limit else None
    seen = _seen(row, url, row.limit, seconds)
    others, gets = (statistics.mean(each) for each in zip(before, _alone(admin, long)))
    figure = {"rate": "keys", "bandwidth": "bytes", "max_load": "server"}[next(iter(row.limit))]
    kept = seen[figure] / seen["elapsed"]
    if free is None:
        return Round(kept, kept)
    by_count = seen["gets"] / seen["elapsed"] * (others - itself) / gets if gets else 0.0
    return Round(kept - others, kept - itself - by_count, free["server"] / free["elapsed"] - others)


def _seen(row: Row, url: str, limit: dict[str, float], seconds: float) -> dict[str, float]:
    """What a reader with that limit got, by a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pace", "--seconds", str(seconds), "--reader"]
    arguments = [url, row.ask, json.dumps(limit)]
    done = subprocess.run([*command, *arguments], cwd=_ROOT, capture_output=True, timeout=seconds + 60)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


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
