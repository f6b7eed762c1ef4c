"""Steps of your own between stream and print: each is an ordinary async generator.

Run it with a URL: python examples/pipeline.py redis://localhost
"""

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator

import oneatatime


async def hashes(items: AsyncIterable[tuple[str, object]]) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Lets only hashes pass."""
    async for key, value in items:
        if isinstance(value, dict):
            yield key, value


async def named(items: AsyncIterable[tuple[str, dict[str, str]]]) -> AsyncIterator[str]:
    """Makes a line of text of each hash that has a name."""
    async for key, fields in items:
        if "name" in fields:
            yield f"{key} is {fields['name']}"


async def main(url: str) -> None:
    everything = oneatatime.stream(url, encoding="utf-8", errors="replace")
    async for line in named(hashes(everything)):
        print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost"))
