"""One reading in a fresh interpreter: does it, prints one JSON line of what was seen and what it took."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import time
from collections.abc import Coroutine
from typing import Any

from ._admin import Admin
from ._machine import busy_seconds
from ._readers import READERS, SEED, Job, Reader, Tally, keys_to_read
from ._workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._reader")
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("url")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    reader, workload = READERS[options.reader], WORKLOADS[options.workload]
    keys = []
    if workload.ask == "these" or reader.name == SEED:
        keys = keys_to_read(options.url, workload, options.limit)
    job = Job(options.url, workload, options.limit, keys)
    print(json.dumps(measured(reader, job)))


def measured(reader: Reader, job: Job) -> dict[str, Any]:
    """One reading, connecting included and imports not, with the server's own counters around it."""
    importlib.import_module(reader.module)
    with Admin(job.url) as admin:
        before, busy = _server(admin), busy_seconds()
        clock, cpu = time.perf_counter(), time.process_time()
        tally = _run(reader, _awaited(reader, job))
        elapsed, cpu = time.perf_counter() - clock, time.process_time() - cpu
        after, busy = _server(admin), busy_seconds() - busy
    return {
        "keys": tally.keys,
        "length": tally.length,
        "elapsed": elapsed,
        "cpu": cpu,
        "server_cpu": after[0] - before[0],
        "commands": after[1] - before[1],
        "others": max(0.0, busy - cpu - (after[0] - before[0])),
    }


async def _awaited(reader: Reader, job: Job) -> Tally:
    return await reader.read(job)


def _run(reader: Reader, reading: Coroutine[Any, Any, Tally]) -> Tally:
    if reader.uvloop:
        import uvloop

        tally: Tally = uvloop.run(reading)
        return tally
    return asyncio.run(reading)


def _server(admin: Admin) -> tuple[float, int]:
    """CPU seconds of the server so far, and the commands it has run, ours for counting left out."""
    calls = sum(
        int(fields.split("calls=", 1)[1].split(",", 1)[0])
        for name, fields in admin.info("commandstats").items()
        if name != "cmdstat_info"
    )
    return admin.cpu_seconds(), calls


if __name__ == "__main__":
    main()
