"""Every type: what was written is what is read, whatever it is made of, however the server stores it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oneatatime
from oneatatime import Opaque, Options, RepeatedFields
from oneatatime.datatypes.json import _reader
from tests.reading import everything, whole, with_protocol
from tests.servers import Server

ALL_BYTES = bytes(range(256))

protocols = pytest.mark.parametrize("protocol", [2, 3])


async def read(server: Server, protocol: int = 3, **arguments: Any) -> dict[Any, Any]:
    return await everything(with_protocol(server.url, protocol), **arguments)


# Strings


@protocols
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b"0",
        b"-9223372036854775808",  # stored as an integer
        b"12345678901234567890",  # one that is too long for that
        b"x" * 44,  # embstr
        b"x" * 45,  # raw
        ALL_BYTES,
        b"\r\n$-1\r\n*0\r\n",
        b"x" * 65_535,
        b"x" * 65_536,
        b"x" * 65_537,
        ALL_BYTES * 4096,  # 1 MiB, the most that comes whole
    ],
    ids=lambda value: f"{len(value)}:{value[:8]!r}",
)
async def test_a_string_comes_back_as_it_is(server: Server, protocol: int, value: bytes) -> None:
    server.admin.set("key", value)
    assert await read(server, protocol) == {b"key": value}
    assert await read(server, protocol, types="string") == {b"key": value}


@protocols
async def test_every_byte_and_every_length_may_be_a_key(server: Server, protocol: int) -> None:
    keys = [
        b"",
        ALL_BYTES,
        b"\r\n",
        b" ",
        b"%d%%s{}",
        b"*",
        b"k" * (1 << 20),
        *(bytes([n]) for n in range(256)),
    ]
    for key in keys:
        server.admin.set(key, b"of " + key[:300])
    assert await read(server, protocol) == {key: b"of " + key[:300] for key in keys}
    given = [value async for value in oneatatime.OneAtATime(server.url, keys)]
    assert given == [b"of " + key[:300] for key in keys]


async def test_many_keys_of_a_megabyte_come_through(server: Server) -> None:
    keys = [b"%d" % n + b"k" * (1 << 20) for n in range(24)]
    for key in keys:
        server.admin.set(key, b"v")
    assert await read(server) == dict.fromkeys(keys, b"v")


async def test_hundreds_of_empty_strings_are_there_and_not_vanished(server: Server) -> None:
    server.admin.mset({f"empty:{n}": b"" for n in range(700)})
    stream = oneatatime.stream(server.url)
    values = [value async for _, value in stream]
    assert values == [b""] * 700
    assert stream.statistics().vanished == 0


@protocols
async def test_a_hyperloglog_and_a_bitmap_are_strings(server: Server, protocol: int) -> None:
    server.admin.pfadd("visitors", *range(1000))
    server.admin.setbit("bits", 8_000_000, 1)
    found = await read(server, protocol)
    assert found[b"visitors"] == server.admin.get("visitors")
    assert found[b"bits"] == server.admin.get("bits")


# Collections at the sizes where the server changes how it stores them

SIZES = [1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 129, 511, 512, 513, 999, 1000, 1001, 2500]


def element(n: int) -> bytes:
    return b"%d:" % n + ALL_BYTES[n % 200 : n % 200 + 20]


@protocols
async def test_collections_of_every_boundary_size_are_whole(server: Server, protocol: int) -> None:
    written: dict[bytes, Any] = {}
    pipe = server.admin.pipeline(transaction=False)
    for size in SIZES:
        elements = [element(n) for n in range(size)]
        for name, value in (
            (b"hash", {one: one[::-1] for one in elements}),
            (b"list", elements),
            (b"set", set(elements)),
            (b"ints", {b"%d" % n for n in range(size)}),
            (b"zset", [(one, float(n)) for n, one in enumerate(elements)]),
        ):
            written[b"%b:%d" % (name, size)] = value
        pipe.hset(b"hash:%d" % size, mapping=written[b"hash:%d" % size])
        pipe.rpush(b"list:%d" % size, *elements)
        pipe.sadd(b"set:%d" % size, *elements)
        pipe.sadd(b"ints:%d" % size, *range(size))
        pipe.zadd(b"zset:%d" % size, {one: n for n, one in enumerate(elements)})
    pipe.execute()
    stored = {server.admin.object("encoding", key) for key in written}
    assert {b"listpack", b"hashtable", b"intset", b"quicklist", b"skiplist"} <= stored
    assert await read(server, protocol) == written


@protocols
@pytest.mark.parametrize("length", [63, 64, 65, 8191, 8192, 8193, 40_000])
async def test_collections_of_long_elements_are_whole(server: Server, protocol: int, length: int) -> None:
    elements = [b"%02d" % n + b"e" * (length - 2) for n in range(20)]
    server.admin.hset("hash", mapping={b"%d" % n: one for n, one in enumerate(elements)})
    server.admin.rpush("list", *elements)
    server.admin.sadd("set", *elements)
    server.admin.zadd("zset", {one: n for n, one in enumerate(elements)})
    server.admin.xadd("stream", {one: one for one in elements[:3]}, id="1-1")
    assert await read(server, protocol) == {
        b"hash": {b"%d" % n: one for n, one in enumerate(elements)},
        b"list": elements,
        b"set": set(elements),
        b"zset": [(one, float(n)) for n, one in enumerate(elements)],
        b"stream": [(b"1-1", {one: one for one in elements[:3]})],
    }


@protocols
async def test_empty_elements_are_elements(server: Server, protocol: int) -> None:
    server.admin.hset("hash", "", "")
    server.admin.rpush("list", "", "", "")
    server.admin.sadd("set", "")
    server.admin.zadd("zset", {"": 0})
    server.admin.xadd("stream", {"": ""}, id="0-1")
    assert await read(server, protocol) == {
        b"hash": {b"": b""},
        b"list": [b"", b"", b""],
        b"set": {b""},
        b"zset": [(b"", 0.0)],
        b"stream": [(b"0-1", {b"": b""})],
    }


@pytest.mark.parametrize("size", [3, 600], ids=["listpack", "table"])
async def test_a_hash_whose_fields_expire_shows_those_that_have_not(server: Server, size: int) -> None:
    if server.version_info < (9,):
        pytest.skip("this server has no field TTLs")
    fields = {b"f%d" % n: b"%d" % n for n in range(size)}
    server.admin.hset("hash", mapping=fields)
    server.ask("HPEXPIRE", "hash", "600000", "FIELDS", "1", "f1")
    server.ask("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    try:
        server.ask("HPEXPIRE", "hash", "1", "FIELDS", "1", "f0")
        while server.admin.hexists("hash", "f0"):
            pass
        del fields[b"f0"]
        assert await read(server) == {b"hash": fields}
        found = await read(server, options=Options(parts_over=20, chunk=1000))
        assert await whole(found[b"hash"]) == fields
    finally:
        server.ask("DEBUG", "SET-ACTIVE-EXPIRE", "1")


# Sorted sets


@protocols
@pytest.mark.parametrize("others", [0, 500], ids=["listpack", "skiplist"])
async def test_scores_come_back_to_the_last_bit(server: Server, protocol: int, others: int) -> None:
    scores = [
        -math.inf,
        -1e308,
        -1.5,
        -0.0,
        0.0,
        5e-324,
        0.1,
        1 / 3,
        1.0,
        2**53,
        1e17,
        1.7976931348623157e308,
        math.inf,
    ]
    members = {b"m%02d" % n: score for n, score in enumerate(scores)}
    members.update({b"x%d" % n: 7.25 for n in range(others)})
    server.admin.zadd("zset", members)
    value = (await read(server, protocol))[b"zset"]
    kept = {member: float(server.ask("ZSCORE", "zset", member)) for member in members}
    assert {member: bits(score) for member, score in value} == {m: bits(score) for m, score in kept.items()}
    assert kept == members  # a listpack does not keep the sign of -0.0, so the server is asked
    assert others == 0 or bits(kept[b"m03"]) == bits(-0.0)
    assert value == sorted(value, key=lambda pair: (pair[1], pair[0]))
    assert all(type(score) is float for _, score in value)
    in_parts = (await read(server, protocol, options=Options(parts_over=1, count=1)))[b"zset"]
    if others:
        assert list(map(repr, await in_parts.load())) == list(map(repr, value))


def bits(score: float) -> bytes:
    return struct.pack(">d", score)


@protocols
async def test_a_geo_set_is_a_sorted_set(server: Server, protocol: int) -> None:
    server.admin.geoadd("cities", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"))
    assert (await read(server, protocol))[b"cities"] == server.admin.zrange("cities", 0, -1, withscores=True)


# Streams


@protocols
async def test_streams_keep_order_ids_and_repeated_fields(server: Server, protocol: int) -> None:
    server.ask("XADD", "stream", "1-1", "a", "1", "b", "2")
    server.ask("XADD", "stream", "1-2", "a", "1", "b", "2", "a", "3")
    server.ask("XADD", "stream", "18446744073709551615-18446744073709551615", "a", "1")
    entries = (await read(server, protocol))[b"stream"]
    assert [entry for entry, _ in entries] == [b"1-1", b"1-2", b"18446744073709551615-18446744073709551615"]
    assert entries[0][1] == {b"a": b"1", b"b": b"2"}
    repeated = entries[1][1]
    assert isinstance(repeated, RepeatedFields)
    assert repeated == {b"a": b"3", b"b": b"2"}
    assert repeated.pairs == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    as_text = (await read(server, protocol, encoding="utf-8"))["stream"]
    assert as_text[1][1].pairs == [("a", "1"), ("b", "2"), ("a", "3")]


@protocols
async def test_a_stream_without_entries_is_there_with_none(server: Server, protocol: int) -> None:
    for n in range(300):
        server.ask("XADD", f"stream:{n}", "1-1", "a", "1")
        server.ask("XDEL", f"stream:{n}", "1-1")
    server.ask("XGROUP", "CREATE", "group only", "g", "$", "MKSTREAM")
    found = await read(server, protocol)
    assert len(found) == 301
    assert all(value == [] for value in found.values())


@protocols
@pytest.mark.parametrize("entries", [16, 17, 100, 101, 1500])
async def test_streams_of_boundary_sizes_are_whole(server: Server, protocol: int, entries: int) -> None:
    pipe = server.admin.pipeline(transaction=False)
    for n in range(entries + 2):
        pipe.xadd("stream", {"n": n, "more": n % 7}, id=f"{n + 1}-{n % 3}")
    pipe.xdel("stream", "1-0", f"{entries // 2}-{(entries // 2 - 1) % 3}")
    pipe.execute()
    assert (await read(server, protocol))[b"stream"] == [
        (b"%d-%d" % (n + 1, n % 3), {b"n": b"%d" % n, b"more": b"%d" % (n % 7)})
        for n in range(entries + 2)
        if n not in (0, entries // 2 - 1)
    ]


# Modules

DOCUMENTS = [
    {},
    [],
    {
        "name": "Zoë",
        "tags": ["a", "b"],
        "n": 1.5,
        "none": None,
        "yes": True,
        "nested": {"deep": [[1, [2, []]]]},
    },
    [1, "two", None, {"three": 3}],
    "text",
    "",
    17,
    -0.5,
    True,
    None,
    {"": {"": ""}, "a.b": 1, "a[0]": 2, '"quoted"': 3, "back\\slash": 4, "ünï": 5, "$": 6, "tab\t": 7},
    {"".join(map(chr, range(1, 300))): 1, "\0": 2, "😀": 3, "\u2028": 4, "\\n": 5, "\\": 6, "']": 7, '"]': 8},
]


@protocols
async def test_json_documents_come_back_as_they_are(module_server: Server, protocol: int) -> None:
    written = {b"doc:%d" % n: document for n, document in enumerate(DOCUMENTS * 5)}
    for key, document in written.items():
        module_server.ask("JSON.SET", key, "$", json.dumps(document))
    module_server.admin.set("doc:string", "no document")
    found = await read(module_server, protocol)
    assert found.pop(b"doc:string") == b"no document"
    assert found == written
    assert await read(module_server, protocol, types="json") == written


@protocols
@pytest.mark.parametrize("chunk", [200, 100_000])
async def test_big_json_documents_come_in_parts(module_server: Server, protocol: int, chunk: int) -> None:
    written: dict[bytes, Any] = {
        b"names": {
            name * 50: "x" * 5000 for name in ["\t", "\0", "\\", "']", '"]', "\\n", "😀", "$.a", "", "/"]
        },
        b"object": {f"member {n} 'ü\"\\": {"n": n, "fill": "x" * 50} for n in range(300)},
        b"array": [{"n": n, "fill": "x" * 50} for n in range(300)],
        b"text": "é" * 40_000,
    }
    for key, document in written.items():
        module_server.ask("JSON.SET", key, "$", json.dumps(document))
    found = await read(module_server, protocol, options=Options(parts_over=5000, chunk=chunk))
    assert {key: value.type for key, value in found.items()} == dict.fromkeys(written, "ReJSON-RL")
    assert dict([pair async for pair in found[b"object"]]) == written[b"object"]
    assert dict([pair async for pair in found[b"names"]]) == written[b"names"]
    assert [one async for one in found[b"array"]] == written[b"array"]
    assert [one async for one in found[b"text"]] == [written[b"text"]]
    assert {key: await value.load() for key, value in found.items()} == written
    assert not any(value.torn for value in found.values())


@protocols
async def test_other_modules_values_are_opaque_and_restore_takes_them_back(
    module_server: Server, protocol: int
) -> None:
    for n in range(200):
        module_server.ask("BF.ADD", f"bloom:{n}", f"element {n}")
        module_server.ask("TOPK.RESERVE", f"top:{n}", "3")
    if "timeseries" in module_server.modules:
        module_server.ask("TS.ADD", "series", "1000", "1.5")
    if "vectorset" in module_server.modules:
        module_server.ask("VADD", "vectors", "VALUES", "2", "0.5", "1", "a")
    if "graph" in module_server.modules:
        module_server.ask("GRAPH.QUERY", "graph", "CREATE (:City {name: 'Palermo'})")
    found = await read(module_server, protocol)
    found.pop(b"telemetry{graph}", None)  # a stream that the graph module writes beside it
    types = {name.partition(b":")[0]: value.type for name, value in found.items()}
    assert types.pop(b"series", "TSDB-TYPE") == "TSDB-TYPE"
    assert types.pop(b"vectors", "vectorset") == "vectorset"
    assert types.pop(b"graph", "graphdata") == "graphdata"
    assert types == {b"bloom": "MBbloom--", b"top": "TopK-TYPE"}
    assert len(await read(module_server, protocol, types="MBbloom--")) == 200
    for key, value in found.items():
        assert isinstance(value, Opaque)
        module_server.admin.restore(b"copy of " + key, 0, value.dump)
    assert module_server.ask("BF.EXISTS", "copy of bloom:7", "element 7") == 1


async def test_a_big_opaque_value_is_parts_of_its_dump(module_server: Server) -> None:
    module_server.ask("BF.RESERVE", "bloom", "0.0001", "200000")
    value = (await read(module_server, options=Options(parts_over=50_000, chunk=1000)))[b"bloom"]
    pieces = [piece async for piece in value]
    assert max(map(len, pieces)) == 1000
    assert b"".join(pieces) == module_server.admin.dump("bloom")
    assert await value.load() == Opaque("MBbloom--", module_server.admin.dump("bloom"))


# Everything at once

_data = st.one_of(
    st.binary(max_size=40), st.text(max_size=10).map(str.encode), st.integers().map(b"%d".__mod__)
)
_many = st.one_of(st.integers(1, 5), st.sampled_from([16, 17, 130, 520]))


@st.composite
def _values(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["string", "hash", "list", "set", "zset", "stream"]))
    if kind == "string":
        return draw(_data) * draw(st.sampled_from([1, 1, 1, 2000]))
    size, seed = draw(_many), draw(st.lists(_data, min_size=1, max_size=6))
    elements = [seed[n % len(seed)] + (b"%d" % n if n >= len(seed) else b"") for n in range(size)]
    if kind == "hash":
        return dict(zip(elements, reversed(elements)))
    if kind == "list":
        return elements
    if kind == "set":
        return set(elements)
    if kind == "zset":
        score = st.floats(allow_nan=False, width=64)
        scores = draw(st.lists(score, min_size=1, max_size=5))
        members = {one: scores[n % len(scores)] for n, one in enumerate(elements)}
        return sorted(members.items(), key=lambda pair: (pair[1], pair[0]))
    return [(b"%d-0" % (n + 1), {one: one}) for n, one in enumerate(elements)]


def type_of(value: Any) -> str:
    if isinstance(value, bytes | dict | set):
        return {bytes: "string", dict: "hash", set: "set"}[type(value)]
    if isinstance(value[0], bytes):
        return "list"
    return "zset" if isinstance(value[0][1], float) else "stream"


def write(admin: redis.Redis, key: bytes, value: Any) -> None:
    if isinstance(value, bytes):
        admin.set(key, value)
    elif isinstance(value, dict):
        admin.hset(key, mapping=value)
    elif isinstance(value, set):
        admin.sadd(key, *value)
    elif isinstance(value[0], bytes):
        admin.rpush(key, *value)
    elif isinstance(value[0][1], float):
        admin.zadd(key, dict(value))
    else:
        for entry, fields in value:
            admin.execute_command("XADD", key, entry, *[word for pair in fields.items() for word in pair])


_options = st.builds(
    Options,
    count=st.sampled_from([1, 7, 500]),
    ranges=st.sampled_from([1, 2, 5]),
    parts_over=st.sampled_from([1, 100, 5000, 1 << 20]),
    chunk=st.sampled_from([200, 1 << 18]),
    burst=st.sampled_from([1, 3000, 1 << 20]),
    ahead=st.sampled_from([1, 1 << 20]),
    reply_limit=st.sampled_from([500, 20_000, 1 << 23]),
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    written=st.dictionaries(
        st.one_of(st.binary(max_size=12), st.from_regex(rb"(user|cart):[0-9]{1,3}", fullmatch=True)),
        _values(),
        max_size=25,
    ),
    options=_options,
    protocol=st.sampled_from([2, 3]),
)
async def test_whatever_is_written_is_read_under_any_options(
    server: Server, written: dict[bytes, Any], options: Options, protocol: int
) -> None:
    server.admin.flushall()
    pipe = server.admin.pipeline(transaction=False)
    for key, value in written.items():
        write(pipe, key, value)
    pipe.execute()
    found = await read(server, protocol, options=options)
    assert {key: await whole(value) for key, value in found.items()} == written
    keys = [key for name in written for key in (name, b"missing:" + name, name)]
    values = oneatatime.OneAtATime(with_protocol(server.url, protocol), keys, options=options)
    assert [await whole(value) async for value in values] == [written.get(key) for key in keys]
    types = {"string", "stream", "hash"}
    records = oneatatime.stream(
        server.url, types=types, metadata=("ttl", "memory"), options=options
    ).records()
    found = {}
    async for record in records:
        assert record.type in types
        assert (record.ttl, record.memory > 0) == (None, True)
        found[record.key] = await whole(record.value)
    assert found == {key: value for key, value in written.items() if type_of(value) in types}


GOOD = ["{}", '{"a": [1, -0.0, 1e300, null, true]}', " [1] \n", "1" * 30, '"\\ud83d\\ude00 ä"', '"\ud800"']
BAD = ["", "{", "1 2", '{"a":1}x', "nul"]


@pytest.mark.parametrize("text", GOOD + BAD, ids=ascii)
def test_documents_are_what_json_makes_of_them(text: str) -> None:
    def made(make: Callable[[bytes], Any]) -> Any:
        try:
            return make(text.encode("utf-8", "surrogatepass"))
        except json.JSONDecodeError as error:
            return str(error)

    assert made(_reader()) == made(json.loads)
