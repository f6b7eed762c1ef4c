"""A keyspace cut into partitions, each read in a process of its own: which string is the longest?

A few keys at the edges may come from two partitions, so what is made of them should not mind.
Run it with a URL, of a server or of a cluster: python examples/partitions.py redis://localhost
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import oneatatime


def longest_in(partition: oneatatime.Partition) -> tuple[int, bytes]:
    stream = oneatatime.stream(partition, types="string")
    longest = max(((len(value), key) for key, value in stream), default=(0, b""))
    if not stream.statistics().complete:
        raise RuntimeError(f"{partition} is not complete: {stream.statistics()}")
    return longest


def main(url: str) -> None:
    partitions = oneatatime.plan(url, 2)
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        print(*max(pool.map(longest_in, partitions)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost")
