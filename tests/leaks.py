"""What an iteration may leave behind: nothing. How to see that, and something to iterate over."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

import oneatatime

SMALL = oneatatime.Options(count=10, ahead=1)
"""Many pages, and workers that wait for room after each."""

KEYS = [b"k:%d" % n for n in range(60)]


def fill(admin: redis.Redis, keys: int = 60) -> None:
    """Keys of several types, and one too big to hold."""
    pipeline: Any = admin.pipeline(transaction=False)
    for n in range(keys):
        pipeline.set(f"k:{n}", n)
        pipeline.hset(f"h:{n}", mapping={"n": n, "m": "x"})
        pipeline.rpush(f"l:{n}", *range(5))
    pipeline.execute()


async def endless_keys() -> AsyncIterator[bytes]:
    """An async source that never ends and can be closed."""
    n = 0
    while True:
        yield b"k:%d" % (n % 60)
        n += 1
        if not n % 7:
            await asyncio.sleep(0)


LOOPS = {
    "pairs": lambda url: oneatatime.stream(url, options=SMALL),
    "records": lambda url: oneatatime.stream(url, options=SMALL, metadata=("ttl", "memory")).records(),
    "batches": lambda url: oneatatime.stream(url, options=SMALL).batches(),
    "keys": lambda url: oneatatime.stream(url, options=SMALL).keys(),
    "given": lambda url: oneatatime.OneAtATime(url, KEYS, options=SMALL),
    "pulled": lambda url: oneatatime.OneAtATime(url, endless_keys(), options=SMALL),
}
"""Every kind of loop over a server, by name."""


def connections(admin: redis.Redis) -> list[str]:
    raw: Any = admin.execute_command("CLIENT", "LIST")
    lines = raw.decode().splitlines() if isinstance(raw, bytes) else [str(line) for line in raw]
    return [line for line in lines if "name=oneatatime" in line]


def assert_no_connections(admin: redis.Redis, within: float = 1.0) -> None:
    deadline = time.monotonic() + within
    while left := connections(admin):
        assert time.monotonic() < deadline, f"connections left behind: {left}"
        time.sleep(0.001)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "oneatatime"]


async def settled() -> None:
    """Lets what has been ended come to its end: no more than a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def assert_nothing_left(admin: redis.Redis) -> None:
    await settled()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks, f"tasks left behind: {tasks}"
    deadline = time.monotonic() + 1
    while left := connections(admin):
        assert time.monotonic() < deadline, f"connections left behind: {left}"
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def quick_collector() -> Iterator[None]:
    """Collections look only at what is made from now on, or they take most of the time of a test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def our_objects() -> Counter[str]:
    """How many objects of our classes there are, but for those that any import makes."""
    gc.collect()
    return Counter(
        type(thing).__qualname__
        for thing in gc.get_objects()
        if type(thing).__module__.startswith("oneatatime")
    )


@contextmanager
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Asyncio complains in its log, not by warnings: of tasks destroyed, exceptions nobody looked at."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        yield
        gc.collect()
    said = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert not said, said
