"""Servers whose cursors are their own affair: read in one piece, and the statement says best effort."""

from __future__ import annotations

import random

import pytest

import oneatatime
from oneatatime import Options
from oneatatime._slot import SLOTS, keyslot
from tests.fake import Answers, FakeServer, bulk, page

KEYS = [b"key%d" % number for number in range(50)]


def counting_up(words: list[bytes]) -> bytes:
    cursor = int(words[1])
    return page(cursor + 1 if cursor < 49 else 0 if cursor == 49 else 3, b"key%d" % cursor)


@pytest.mark.parametrize("ranges", [1, 2, 4])
async def test_cursors_that_count_up_are_followed_to_their_end(ranges: int) -> None:
    """With several workers, the second that met them ended the stream."""
    async with FakeServer({b"SCAN": counting_up}) as server:
        stream = oneatatime.stream(server.url, options=Options(ranges=ranges))
        found = {key async for key in stream.keys()}
    assert set(KEYS) <= found
    assert stream.statistics().best_effort


@pytest.mark.parametrize("product", ["dragonfly", "kvrocks"])
async def test_a_server_that_says_it_is_another_product_is_not_cut_into_ranges(product: str) -> None:
    """Its cursors may happen to grow for a while."""
    info = b"run_id:aaaa\r\nredis_version:7.4.0\r\n%b_version:1.0\r\n" % product.encode()
    async with FakeServer({b"SCAN": counting_up, b"INFO": bulk(info)}) as server:
        stream = oneatatime.stream(server.url)
        found = [key async for key in stream.keys()]
        parts = await oneatatime.aplan(server.url, 4)
        asked = {words[1] for words in server.asked if words[0] == b"SCAN"}
    assert found == KEYS and len(parts) == 1
    assert asked == {b"%d" % cursor for cursor in range(50)}
    assert stream.statistics().best_effort and stream.statistics().complete


# Clusters


def cluster(port: int, info: bytes) -> Answers:
    """One node that has all slots, and knows nothing of them but their keys."""
    order = random.Random(1).sample(range(1, 1000), 49)

    def scan(words: list[bytes]) -> bytes:
        cursor = int(words[1])
        at = order.index(cursor) + 1 if cursor in order else 0
        return page(order[at] if at < 49 else 0, KEYS[at])

    def about_cluster(words: list[bytes]) -> bytes:
        if words[1] == b"NODES":
            return bulk(b"%b 127.0.0.1:%d@1 myself,master - 0 0 1 connected 0-16383\n" % (b"a" * 40, port))
        if words[1] == b"INFO":
            return bulk(b"cluster_state:ok\r\n")
        return b"-ERR unknown subcommand\r\n"

    return {b"SCAN": scan, b"CLUSTER": about_cluster, b"INFO": bulk(b"run_id:aaaa\r\n" + info)}


@pytest.mark.parametrize(
    "info",
    [
        b"redis_version:7.4.0\r\ndragonfly_version:df-1.0\r\n",
        b"redis_version:7.4.0\r\n",  # and its cursors hold no slots, which shows
        b"redis_version:6.2.0\r\n",
    ],
)
async def test_a_cluster_that_only_looks_like_one_is_read_node_by_node(info: bytes) -> None:
    """It ended in an error."""
    async with FakeServer() as server:
        port = int(server.url.rpartition(":")[2])
        server.answers.update(cluster(port, info))
        stream = oneatatime.stream(f"redis+cluster://127.0.0.1:{port}")
        found = [key async for key in stream.keys()]
        parts = await oneatatime.aplan(f"redis+cluster://127.0.0.1:{port}", 2)
        split = [key for part in parts async for key in oneatatime.stream(part).keys()]
    assert sorted(found) == sorted(split) == sorted(KEYS)
    assert {keyslot(key) * 2 // SLOTS for key in KEYS} == {0, 1}
    done = stream.statistics()
    assert done.best_effort and done.complete
