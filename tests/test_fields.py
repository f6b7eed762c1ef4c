"""Only some fields of hashes, and values as DUMP gives them: what travels, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import LOSSLESS, InvalidInput, Opaque, Options, Parts, Record, Undecodable
from oneatatime.datatypes import values_of
from tests.clusters import Cluster
from tests.compare import assert_same, everything
from tests.reading import gathered
from tests.records import records_of
from tests.servers import Server
from tests.test_beside import LATER, SOON, called
from tests.test_fetch import fetch, talked
from tests.test_lossless import Filling, fields_expire, other  # noqa: F401 - a fixture

SMALL_PARTS = Options(parts_over=3000, chunk=1000)


async def all_of(source: Any, **how: Any) -> dict[Any, Any]:
    found = await gathered(oneatatime.stream(source, **how).records())
    assert len({record.key for record in found}) == len(found)
    return {record.key: record.value for record in found}


# Some fields --------------------------------------------------------------------------------------


async def test_only_these_fields_travel(any_server: Server) -> None:
    big = {f"f{number}": "x" * 1000 for number in range(300)}
    for number in range(50):
        any_server.admin.hset(f"hash:{number}", mapping={**big, "name": f"n{number}", "age": number})
    any_server.ask("CONFIG", "RESETSTAT")
    found = await all_of(any_server.url, fields=["name", "age", "name"])
    assert found == {
        b"hash:%d" % number: {b"name": b"n%d" % number, b"age": b"%d" % number} for number in range(50)
    }
    said = called(any_server)
    assert said["hmget"] <= 51
    assert not {"hscan", "hgetall", "memory|usage"} & set(said)
    assert any_server.admin.info("stats")["total_net_output_bytes"] < 40_000


async def test_a_hash_without_any_of_them_is_empty(any_server: Server) -> None:
    any_server.admin.hset("none", "other", "v")
    any_server.admin.hset("one", mapping={"a": "", "other": "v"})
    assert await all_of(any_server.url, fields=["a", b"b\xff"]) == {b"none": {}, b"one": {b"a": b""}}


async def test_other_types_of_the_same_name_are_left_out(any_server: Server) -> None:
    for number in range(0, 3000, 3):
        any_server.admin.hset(f"k:{number}", "a", number)
        any_server.admin.set(f"k:{number + 1}", "v")
        any_server.admin.sadd(f"k:{number + 2}", "a")
    found = await all_of(any_server.url, fields="a")
    assert found == {b"k:%d" % number: {b"a": b"%d" % number} for number in range(0, 3000, 3)}


async def test_a_big_hash_is_not_parts(any_server: Server) -> None:
    any_server.admin.hset("big", mapping={f"f{number}": "x" * 100 for number in range(50_000)})
    found = await all_of(any_server.url, fields=["f7", "f49999", "gone"])
    assert found == {b"big": {b"f7": b"x" * 100, b"f49999": b"x" * 100}}


async def test_fields_bigger_than_a_reply_may_be(any_server: Server) -> None:
    for number in range(5):
        any_server.admin.hset(f"h:{number}", mapping={"a": b"x" * 9_000_000, "b": number})
    for number in range(5, 1000):
        any_server.admin.hset(f"h:{number}", mapping={"a": "x", "b": number})
    found = await all_of(any_server.url, fields=["a"])
    assert len(found) == 1000
    assert sorted(len(one[b"a"]) for one in found.values())[-6:] == [1] + [9_000_000] * 5


async def test_as_text(any_server: Server) -> None:
    any_server.admin.hset("ключ", mapping={"имя": "ü", "x": b"\xff"})
    assert await all_of(any_server.url, fields=["имя"], encoding="utf-8") == {"ключ": {"имя": "ü"}}
    with pytest.raises(Undecodable):
        await all_of(any_server.url, fields=["x"], encoding="utf-8")


async def test_given_keys(any_server: Server) -> None:
    any_server.admin.hset("a", mapping={"f": 1, "g": 2})
    any_server.admin.set("s", "v")
    stream = oneatatime.stream(any_server.url, keys=["a", "gone", "a"], fields=["g"])
    assert [value async for _, value in stream] == [{b"g": b"2"}, {b"g": b"2"}]


@pytest.mark.parametrize(("moments", "value"), [([-2, -1], {b"g": b"2"}), ([-2, -2], {})])
def test_fields_that_are_gone_when_their_moments_come(moments: list[int], value: dict[bytes, bytes]) -> None:
    """The hash may have others."""
    expire = b"# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0,subexpiry=1\r\n"
    (batch,) = talked(
        fetch(kind="hash", types=("hash",), fields=(b"f", b"g"), metadata=LOSSLESS).batches([b"a"]),
        (["INFO keyspace", "HMGET a f g", "INFO keyspace"], [expire, [b"1", b"2"], expire]),
        (["HPEXPIRETIME a FIELDS 2 f g", "PEXPIRETIME a", "INFO keyspace"], [moments, -1, expire]),
    )
    assert records_of(batch) == [Record(b"a", "hash", value)]


def test_a_key_that_goes_in_between_is_not_delivered() -> None:
    reader = fetch(kind="hash", types=("hash",), fields=(b"f",))
    batches = talked(
        reader.batches([b"a", b"b", b"c"]),
        (["HMGET a f", "HMGET b f", "HMGET c f"], [[b"1"], [None], [None]]),
        (["TYPE b", "TYPE c"], [b"none", b"hash"]),
    )
    assert [(batch.keys, list(values_of(batch))) for batch in batches] == [([b"a", b"c"], [{b"f": b"1"}, {}])]
    assert reader._account.vanished == 1


async def test_with_their_moments(any_server: Server) -> None:
    any_server.admin.hset("a", mapping={"f": 1, "g": 2, "h": 3})
    any_server.admin.hset("none", mapping={"x": 1})
    any_server.ask("PEXPIREAT", "a", LATER)
    if fields_expire(any_server):
        any_server.ask("HPEXPIREAT", "a", SOON, "FIELDS", 2, "f", "h")
    stream = oneatatime.stream(any_server.url, fields=["f", "g"], metadata=LOSSLESS)
    found = {record.key: record for record in await gathered(stream.records())}
    assert found[b"a"].value == {b"f": b"1", b"g": b"2"}
    assert found[b"a"].details == ({b"f": SOON} if fields_expire(any_server) else None)
    assert abs(found[b"a"].expires_at - LATER) <= 2
    assert (found[b"none"].value, found[b"none"].details) == ({}, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fields": []}, "names no field"),
        ({"fields": ["a"], "types": "string"}, "fields= are of hashes"),
        ({"fields": [1]}, "named by bytes or str"),
        ({"fields": 1}, "fields="),
        ({"fields": ["a"], "dump": True}, "dump="),
        ({"dump": True, "encoding": "utf-8"}, "dump="),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        oneatatime.stream("redis://localhost", **arguments)


@pytest.mark.parametrize("how", [{"fields": ["a"]}, {"dump": True}])
async def test_it_goes_on_where_it_stopped_and_only_with_the_same(
    server: Server, how: dict[str, Any]
) -> None:
    for number in range(5000):
        server.admin.hset(f"h:{number}", mapping={"a": number, "b": 1})
    stream = oneatatime.stream(server.url, count=50, **how)
    seen: set[bytes] = set()
    async for key, _ in stream:
        seen.add(key)
        if len(seen) == 2000:
            break
    kept = json.loads(json.dumps(stream.checkpoint()))
    await stream.aclose()
    rest = await all_of(server.url, resume=kept, **how)
    assert len(rest) < 4500
    assert seen | set(rest) == {b"h:%d" % number for number in range(5000)}
    for other_how in ({}, {"fields": ["b"]}, {"fields": ["a", "b"]}):
        with pytest.raises(InvalidInput):
            await all_of(server.url, resume=kept, **other_how)  # type: ignore[arg-type]


async def test_in_a_cluster(cluster: Cluster) -> None:
    keys = cluster.fill(300)
    for node in cluster.primaries():
        mine = [key for key in keys if node.ask("CLUSTER", "KEYSLOT", key) in set(cluster.slots(node))]
        node.many([("DEL", key) for key in mine])
        node.many([("HSET", key, "a", key, "b", "x" * 1000) for key in mine])
    assert await all_of(cluster.url, fields=["a"]) == {key: {b"a": key} for key in keys}
    dumps = await all_of(cluster.url, dump=True)
    assert {key: one.type for key, one in dumps.items()} == dict.fromkeys(keys, "hash")


# Dumps --------------------------------------------------------------------------------------------


async def test_restore_takes_back_whatever_came(any_server: Server, other: Server) -> None:  # noqa: F811
    filling = Filling(any_server)
    filling.names()
    filling.strings()
    filling.collections()
    filling.streams()
    filling.done()
    before = everything(any_server)
    found = await all_of(any_server.url, dump=True)
    assert {key: value.type for key, value in found.items()} == {
        key: one["type"] for key, one in before.items()
    }
    for key, value in found.items():
        assert isinstance(value, Opaque)
        other.ask("RESTORE", key, 0, value.dump)
    assert_same(everything(other), before)


async def test_values_of_modules(module_server: Server) -> None:
    module_server.ask("JSON.SET", "json", "$", '{"a":1}')
    module_server.ask("BF.ADD", "bloom", "a")
    module_server.admin.set("plain", "v")
    found = await all_of(module_server.url, dump=True)
    assert {key: value.type for key, value in found.items()} == {
        b"json": "ReJSON-RL",
        b"bloom": "MBbloom--",
        b"plain": "string",
    }
    assert all(value.dump == module_server.admin.dump(key) for key, value in found.items())


async def test_big_values_are_parts_of_their_own_type(any_server: Server) -> None:
    admin: redis.Redis = any_server.admin
    admin.set("string", "x" * 20_000)
    admin.hset("hash", mapping={f"f{number}": "v" * 20 for number in range(500)})
    admin.rpush("list", *[f"{number}" * 10 for number in range(500)])
    admin.sadd("set", *[f"{number}" * 10 for number in range(500)])
    admin.zadd("zset", {f"{number}" * 10: number for number in range(500)})
    for number in range(500):
        admin.xadd("stream", {"f": "v" * 20}, id=f"{number + 1}-0")
    admin.set("small", "v")
    found = await all_of(any_server.url, dump=True, options=SMALL_PARTS)
    plain = await all_of(any_server.url)
    assert found.pop(b"small").dump == admin.dump("small")
    for key, value in found.items():
        assert isinstance(value, Parts), key
        assert value.type == key.decode()
        assert await value.load() == plain[key]


async def test_types_choose_among_dumps(any_server: Server) -> None:
    for number in range(100):
        any_server.admin.set(f"k:{number}", "v")
        any_server.admin.rpush(f"l:{number}", "v")
        any_server.admin.sadd(f"k:s:{number}", "x" * 5000)
    found = await all_of(any_server.url, dump=True, types=["list", "set"], options=SMALL_PARTS)
    kinds = {key: value.type for key, value in found.items()}
    assert sorted(kinds.values()) == ["list"] * 100 + ["set"] * 100
    assert all(isinstance(value, Parts) == (value.type == "set") for value in found.values())


async def test_given_keys_are_dumped_too(any_server: Server) -> None:
    any_server.admin.set("a", "v")
    stream = oneatatime.stream(any_server.url, keys=["a", "gone"], dump=True)
    assert [value async for _, value in stream] == [Opaque("string", any_server.admin.dump("a"))]


async def test_dumps_with_their_moments(any_server: Server) -> None:
    any_server.admin.set("a", "v")
    any_server.ask("PEXPIREAT", "a", LATER)
    any_server.admin.hset("h", "f", "v")
    stream = oneatatime.stream(any_server.url, dump=True, metadata=LOSSLESS)
    found = {record.key: record for record in await gathered(stream.records())}
    assert abs(found[b"a"].expires_at - LATER) <= 2
    assert found[b"h"].expires_at is None
