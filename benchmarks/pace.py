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


@dataclass(frozen=True)
class Row:
    """One limit on one keyspace; `busy`: another client reads meanwhile."""

    name: str
    fill: Callable[[], Iterator[Command]]
    limit: dict[str, float]
    ask: str = "items"
    busy: bool = False


def _set() -> Iterator[Command]:
    yield from big_collection("SADD", b"big", 3_000_000)


def _string() -> Iterator[Command]:
    yield big_string(b"big", 400 * 2**20)


def _rows() -> list[Row]:
    small: Callable[[], Iterator[Command]] = lambda: strings(100)(300_000)  # noqa: E731
    hashes: Callable[[], Iterator[Command]] = lambda: of_type("hash")(150_000)  # noqa: E731
    plain: Callable[[], Iterator[Command]] = lambda: mixed(prefixes=False)(150_000)  # noqa: E731
    return [
        Row("strings", small, {"rate": 1000}),
        Row("strings", small, {"rate": 100_000}),
        Row("strings", small, {"rate": 50_000}, ask="keys"),
        Row("strings", small, {"rate": 50_000}, ask="these"),
        Row("all types", plain, {"rate": 20_000}),
        Row("strings", small, {"bandwidth": 1e6}),
        Row("strings", small, {"bandwidth": 20e6}),
        Row("hashes", hashes, {"bandwidth": 5e6}),
        Row("one set, in parts", _set, {"bandwidth": 5e6}),
        Row("one string, in parts", _string, {"bandwidth": 20e6}),
        Row("strings", small, {"max_load": 0.1}),
        Row("strings", small, {"max_load": 0.4}),
        Row("hashes", hashes, {"max_load": 0.3}),
        Row("all types", plain, {"max_load": 0.2}),
        Row("strings", small, {"max_load": 0.2}, ask="keys"),
        Row("strings", small, {"max_load": 0.2}, busy=True),
        Row("one set, in parts", _set, {"max_load": 0.2}),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pace", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look (default: 10)")
    parser.add_argument("--only", choices=("rate", "bandwidth", "max_load"))
    parser.add_argument("--reader", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        url, ask, limit = options.reader
        asyncio.run(_read(url, ask, json.loads(limit), options.seconds))
        return 0
    lines, worst = [], 0.0
    for row in _rows():
        ((name, limit),) = row.limit.items()
        if options.only in (None, name):
            kept = _kept(row, options.seconds)
            off = kept / limit - 1
            worst = max(worst, abs(off))
            others = "a busy GET loop" if row.busy else "-"
            ask = {"keys": "keys()", "these": "OneAtATime"}.get(row.ask, "items")
            lines.append([name, row.name, ask, others, f"{limit:,g}", f"{kept:,.4g}", f"{off:+.1%}"])
            print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    print(machine())
    print(f"over {options.seconds:g} s, after {_WARM_UP:g} s\n")
    print(table(["limit", "keyspace", "read by", "others", "asked", "kept", "off by"], lines))
    return 1 if worst > _TOLERANCE else 0


def _kept(row: Row, seconds: float) -> float:
    """What came of the limit, a second."""
    with EmbeddedServer(tcp=True) as server, Admin(server.url) as admin:
        admin.load(row.fill())
        admin.settle()
        command = [sys.executable, "-m", "benchmarks.pace", "--seconds", str(seconds), "--reader"]
        if row.busy:
            load = multiprocessing.get_context("spawn").Process(target=_load, args=(server.url,), daemon=True)
            load.start()
        try:
            others = _others(admin)  # an idle server takes some too, to look after itself
            arguments = [server.url, row.ask, json.dumps(row.limit)]
            done = subprocess.run(
                [*command, *arguments], cwd=_ROOT, capture_output=True, timeout=seconds + 60
            )
            if done.returncode:
                raise SystemExit(done.stderr.decode())
            seen: dict[str, float] = json.loads(done.stdout)
            others = statistics.mean([others, _others(admin)])
        finally:
            if row.busy:
                load.kill()
                load.join()
    figure = {"rate": "keys", "bandwidth": "bytes", "max_load": "server"}[next(iter(row.limit))]
    return seen[figure] / seen["elapsed"] - (others if figure == "server" else 0.0)


def _load(url: str) -> None:
    """Another client: twenty GETs one after the other, then 2 ms of rest, again and again."""
    with Admin(url) as admin:
        while True:
            for _ in range(20):
                admin.call("GET", b"string:1")
            time.sleep(0.002)


def _others(admin: Admin) -> float:
    time.sleep(1.0)  # until it is under way
    clock, began = admin.cpu_seconds(), time.perf_counter()
    time.sleep(2.0)
    return (admin.cpu_seconds() - clock) / (time.perf_counter() - began)


async def _read(url: str, ask: str, limit: dict[str, Any], seconds: float) -> None:
    """Reads round and round; prints what came between the warm-up and the end."""
    given = [b"string:%d" % number for number in range(300_000)] if ask == "these" else []
    looks: list[dict[str, float]] = []
    start = time.perf_counter()
    keys = received = 0
    with Admin(url) as admin:
        while len(looks) < 2:
            stream = oneatatime.OneAtATime(url, given, **limit) if given else oneatatime.stream(url, **limit)
            async for _ in _items(stream, ask):
                keys += 1
                now = time.perf_counter()
                if now - start > (_WARM_UP + seconds if looks else _WARM_UP):
                    seen = received + _received(stream)
                    looks.append({"keys": keys, "bytes": seen, "server": admin.cpu_seconds(), "elapsed": now})
                    if len(looks) == 2:
                        break
            received += _received(stream)
            await stream.aclose()
    before, after = looks
    print(json.dumps({name: after[name] - before[name] for name in before}))


def _received(stream: Any) -> int:
    return int(stream.statistics().bytes) if hasattr(stream, "statistics") else 0


async def _items(stream: Any, ask: str) -> Any:
    if ask == "keys":
        async for key in stream.keys():
            yield key
    elif ask == "these":
        async for value in stream:
            yield value
    else:
        async for _, value in stream:
            if isinstance(value, oneatatime.Parts):
                async for part in value:
                    yield part
            else:
                yield value


if __name__ == "__main__":
    sys.exit(main())
