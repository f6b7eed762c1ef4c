"""Reads a whole server at full speed, round and round, until killed; prints a line when it is under way.

After that, each line that comes in is answered with how much was read so far: keys, and parts of values.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import oneatatime


class Seen:
    """What was read so far."""

    keys = parts = 0


async def read(url: str, seen: Seen) -> None:
    while True:
        async for _, value in oneatatime.stream(url):
            seen.keys += 1
            if isinstance(value, oneatatime.Parts):
                async for _ in value:
                    seen.parts += 1


async def main(url: str) -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    seen = Seen()
    reading = loop.create_task(read(url, seen))
    while not seen.keys:
        await asyncio.sleep(0.01)
        if reading.done():
            reading.result()
    print("under way", flush=True)
    while await lines.readline():
        print(json.dumps([seen.keys, seen.parts, time.process_time(), time.perf_counter()]), flush=True)
    reading.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
