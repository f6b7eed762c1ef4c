"""Reading while something befalls the servers, and what must have come of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import oneatatime


def slowly(**others: Any) -> oneatatime.Options:
    """Small pages, nothing read ahead: an event in the loop falls into the middle of the reading."""
    return oneatatime.Options(**{"count": 20, "ahead": 1, "timeout": 3.0, "patience": 25.0, **others})


Events = Mapping[int, Callable[[], object]]


async def read(
    source: Any,
    events: Events | None = None,
    *,
    seconds: float = 40.0,
    options: oneatatime.Options | None = None,
    **arguments: Any,
) -> Counter[bytes]:
    """How often each key came. `events`: what to do, beside the reading, after so many keys.

    Whether the values are the keys' own is checked here: in these tests a key's value is its name.
    """
    times: Counter[bytes] = Counter()
    waiting = dict(events or {})

    async def loop() -> None:
        seen = 0
        stream = oneatatime.stream(source, options=options or slowly(), **arguments)
        async for key, value in stream:
            assert value == key
            times[key] += 1
            seen += 1
            if seen in waiting:
                await asyncio.to_thread(waiting.pop(seen))

    await asyncio.wait_for(loop(), seconds)
    assert not waiting, "the iteration ended before everything had befallen it"
    return times


def assert_promise(times: Mapping[bytes, int], keys: Iterable[bytes], *, unique: bool = False) -> None:
    """Every key at least once, no other; with `unique`, exactly once."""
    wanted = set(keys)
    missed, phantoms = wanted - set(times), set(times) - wanted
    assert not missed, f"{len(missed)} of {len(wanted)} missed: {sorted(missed)[:3]}"
    assert not phantoms, f"{len(phantoms)} that should not be: {sorted(phantoms)[:3]}"
    if unique:
        again = {key: count for key, count in times.items() if count != 1}
        assert not again, f"{len(again)} came again: {sorted(again)[:3]}"
