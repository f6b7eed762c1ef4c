"""One job with files in a fresh interpreter: prints one JSON line of what was moved and what it took.

The jobs of peers are what people write or install today: a script of redis-py's pipeline and pandas, and
redis-dump-load, whose pages and pipelines are its own.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._admin import Admin
from ._machine import forget_peak, peak_rss
from ._peers import PAGE


@dataclass(frozen=True)
class Job:
    """What to do: `url` is read, or written from `path`."""

    url: str
    path: str
    limit: int | None


async def _loop(job: Job) -> int:
    import oneatatime

    keys = 0
    async for _, _ in oneatatime.stream(job.url):
        keys += 1
    return keys


async def _export(job: Job, **how: Any) -> int:
    import oneatatime

    return (await oneatatime.export(job.url, job.path, **how)).records


async def _load(job: Job) -> int:
    import oneatatime

    return (await oneatatime.load(job.path, job.url)).written


async def _script(job: Job) -> int:
    """SCAN and a pipeline of GETs or HGETALLs a page, gathered in a list, then pandas writes Parquet."""
    import pandas
    import redis

    client = redis.Redis.from_url(job.url)
    kind = client.type(client.randomkey() or b"")
    rows: list[tuple[bytes, Any]] = []
    cursor = 0
    while True:
        cursor, page = client.scan(cursor, count=PAGE)
        pipeline = client.pipeline(transaction=False)
        for key in page:
            pipeline.get(key) if kind == b"string" else pipeline.hgetall(key)
            pipeline.pttl(key)
        replies = pipeline.execute()
        values = replies[::2] if kind == b"string" else [list(value.items()) for value in replies[::2]]
        rows += zip(page, values, strict=True)
        if cursor == 0 or (job.limit is not None and len(rows) >= job.limit):
            break
    pandas.DataFrame(rows, columns=["key", "value"]).to_parquet(job.path)
    return len(rows)


async def _dump_load(job: Job) -> int:
    """redis-dump-load as its own documentation calls it, made to understand today's redis-py."""
    import redisdl

    def client(*, unix_socket_path: str, encoding: str = "utf-8", **_: Any) -> Any:
        return redisdl.RedisWrapper(unix_socket_path=unix_socket_path, encoding=encoding)

    redisdl.client = client
    with open(job.path, "w", encoding="utf-8") as file:  # noqa: ASYNC230 - nothing else runs
        redisdl.dump(file, unix_socket_path=job.url.removeprefix("unix://"))
    with open(job.path, encoding="utf-8") as file:  # noqa: ASYNC230
        return len(json.load(file))


JOBS: dict[str, Callable[[Job], Any]] = {
    "loop": _loop,
    "export": _export,
    "load": _load,
    "script": _script,
    "dump-load": _dump_load,
}
_NEEDS = {"script": "pandas", "dump-load": "redisdl"}


def _warm_up(path: str) -> None:
    """Imports all that will be needed, and has it used once: that is not what is measured."""
    from oneatatime._record import Batch
    from oneatatime.formats import format_of, reader, writer

    if not path.endswith((".parquet", ".arrow")):
        return
    file, how = io.BytesIO(), format_of(path)
    some = writer(how, file)
    some.write(Batch([b"key"], "string", [b"value"], 100))
    some.finish()
    list(reader(how, file, path).batches())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._mover")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("url")
    parser.add_argument("path")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    job = Job(options.url, options.path, options.limit)
    __import__("oneatatime")
    _warm_up(options.path)
    if options.job in _NEEDS:
        __import__(_NEEDS[options.job])
    with Admin(options.url) as admin:
        server = admin.cpu_seconds()
        forget_peak()
        before = peak_rss()
        clock, cpu = time.perf_counter(), time.process_time()
        keys = asyncio.run(JOBS[options.job](job))
        elapsed, cpu = time.perf_counter() - clock, time.process_time() - cpu
        server = admin.cpu_seconds() - server
    figures = {"keys": keys, "elapsed": elapsed, "cpu": cpu, "server_cpu": server}
    print(json.dumps({**figures, "growth": peak_rss() - before}))


if __name__ == "__main__":
    main()
