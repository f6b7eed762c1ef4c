"""Several logical databases in one run: `db="all"`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import Incomplete, InvalidInput, Options, Parts
from tests.nodes import Node
from tests.reading import gathered
from tests.servers import Server

DATABASES = (0, 3, 7)


def fill(server: Server) -> dict[tuple[int, bytes], bytes]:
    """The same names in three databases, with other values."""
    written = {}
    for db in DATABASES:
        with redis.Redis(unix_socket_path=server.path, db=db) as admin:
            values = {b"key:%d" % n: b"%d in %d" % (n, db) for n in range(700 + db)}
            admin.mset(values)  # type: ignore[arg-type]
        written.update({(db, key): value for key, value in values.items()})
    return written


async def test_all_databases_are_read_and_each_record_knows_its_own(any_server: Server) -> None:
    written = fill(any_server)
    stream = oneatatime.stream(any_server.url, db="all")
    records = await gathered(stream.records())
    assert {(record.db, record.key): record.value for record in records} == written
    assert len(records) == len(written)
    done = stream.statistics()
    assert (done.complete, done.fraction) == (True, 1.0)
    assert (done.keys_at_start, done.keys_at_end) == (len(written), len(written))


async def test_databases_that_were_not_begun_are_missing_too(node: Node) -> None:
    for db in (0, 1, 4):
        node.many([("SELECT", db), *(("SET", f"key:{n}", "v") for n in range(100)), ("SELECT", 0)])
    options = Options(count=10, ahead=1, patience=0.3)
    with pytest.raises(Incomplete) as caught:
        async for _ in oneatatime.stream(node.url, db="all", options=options):
            if node.alive:
                await asyncio.to_thread(node.kill)
    name = f"127.0.0.1:{node.port}"
    assert caught.value.missing == tuple(f"database {db} of {name}" for db in (0, 1, 4))


async def test_keys_alone_and_one_database_by_its_number(server: Server) -> None:
    written = fill(server)
    assert sorted(await gathered(oneatatime.stream(server.url, db="all").keys())) == sorted(
        key for _, key in written
    )
    records = await gathered(oneatatime.stream(server.url, db=3).records())
    assert {record.key for record in records} == {key for db, key in written if db == 3}
    assert {record.db for record in records} == {None}


async def test_a_big_value_is_read_where_it_is_though_the_stream_has_gone_on(server: Server) -> None:
    for db in DATABASES:
        with redis.Redis(unix_socket_path=server.path, db=db) as admin:
            admin.rpush("big", *[f"{db} " + "x" * 100] * 20_000)
    records = await gathered(oneatatime.stream(server.url, db="all").records())
    assert [record.db for record in records] == list(DATABASES)
    for record in records:
        assert isinstance(record.value, Parts)
        elements = [element async for element in record.value]
        assert len(elements) == 20_000 and elements[0].startswith(b"%d " % record.db)


async def test_unique_keys_are_so_in_each_database(server: Server) -> None:
    written = fill(server)
    records = await gathered(oneatatime.stream(server.url, db="all", unique=True).records())
    assert sorted((record.db, record.key) for record in records) == sorted(written)


async def test_it_goes_on_after_a_stop_in_any_of_them(server: Server) -> None:
    written = fill(server)
    checkpoint: Any = None
    seen: set[tuple[int, bytes]] = set()
    for _ in range(60):
        stream = oneatatime.stream(server.url, db="all", resume=checkpoint, count=50)
        async with stream:
            left = 300
            async for record in stream.records():
                seen.add((record.db, record.key))
                left -= 1
                if not left:
                    break
            else:
                break
            checkpoint = json.loads(json.dumps(stream.checkpoint()))
    assert seen == set(written)


async def test_a_cluster_has_one_at_least(cluster: Any) -> None:
    keys = cluster.fill(500)
    records = await gathered(oneatatime.stream(cluster.url, db="all").records())
    assert sorted(record.key for record in records) == sorted(keys)
    assert {record.db for record in records} == {0}


@pytest.mark.parametrize("db", ["some", "0", ""])
def test_what_is_no_database(db: str) -> None:
    with pytest.raises(InvalidInput, match="all"):
        oneatatime.stream("redis://localhost", db=db)
