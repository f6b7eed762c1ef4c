"""Ours: the same loop, thousands of keys at a time on the wire; then everything there is, of every type.

Run it with a URL: python examples/ours.py redis://localhost
"""

import asyncio
import sys

import oneatatime


async def main(url: str) -> None:
    async for value in oneatatime.OneAtATime(url, ["Americas", "Africa", "Europe", "Asia"]):
        print(value)

    async for key, value in oneatatime.stream(url):
        print(key, value)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost"))
