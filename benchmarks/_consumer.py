"""Reads everything in a fresh interpreter and prints by how much its peak of memory grew."""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import oneatatime

from ._machine import forget_peak, peak_rss


async def consume(url: str, half: int, asleep: float, *, blocking: bool) -> tuple[int, int]:
    """Keys seen, and the length of all values: elements, and bytes of strings."""
    keys = length = 0
    async for _, value in oneatatime.stream(url):
        keys += 1
        if isinstance(value, oneatatime.Parts):
            if value.type == "string":
                async for chunk in value:
                    length += len(chunk)
            else:
                async for _ in value:
                    length += 1
        else:
            length += len(value)
        if asleep and keys == half:
            if blocking:
                time.sleep(asleep)  # noqa: ASYNC251 - a careless loop body is the case
            else:
                await asyncio.sleep(asleep)
    return keys, length


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._consumer")
    parser.add_argument("url")
    parser.add_argument("--half", type=int, default=0)
    parser.add_argument("--asleep", type=float, default=0.0)
    parser.add_argument("--blocking", action="store_true")
    options = parser.parse_args()
    forget_peak()
    before = peak_rss()
    start = time.monotonic()
    reading = consume(options.url, options.half, options.asleep, blocking=options.blocking)
    keys, length = asyncio.run(reading)
    seen = {"keys": keys, "length": length, "elapsed": time.monotonic() - start}
    print(json.dumps({**seen, "before": before, "growth": peak_rss() - before}))


if __name__ == "__main__":
    main()
