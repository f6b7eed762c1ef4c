"""When keys expire, and what values have beside their elements: nothing is missed, and it costs little."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest
import redis

import oneatatime
from oneatatime import (
    LOSSLESS,
    Group,
    Options,
    Parts,
    Pending,
    Record,
    StreamDetails,
    Undecodable,
)
from oneatatime._request import ReplyError, ReplyTooBig
from tests.clusters import Cluster
from tests.fake import FakeServer, bulk
from tests.reading import gathered
from tests.records import records_of
from tests.servers import Server
from tests.test_fetch import Step, fetch, talked
from tests.test_lossless import fields_expire

NOW = int(time.time() * 1000)
SOON, LATER = NOW + 3_600_001, NOW + 86_399_999
SMALL_PARTS = Options(parts_over=3000, chunk=1000)

NONE_EXPIRES = b"# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0,subexpiry=0\r\n"
SOME_EXPIRE = b"# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=9,subexpiry=0\r\n"
FIELDS_EXPIRE = b"# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0,subexpiry=1\r\n"
UNKNOWN = ReplyError("ERR unknown command 'PEXPIRETIME', with args beginning with: 'a'")
LOOK = "INFO keyspace"


def read(keys: list[bytes], *script: Step, kind: str = "string", **how: Any) -> list[Record]:
    """What a fetch makes of these keys in a conversation, each with when it expires, and its details."""
    steps = fetch(kind=kind, metadata=how.pop("metadata", LOSSLESS), **how).batches(keys)
    return [record for batch in talked(steps, *script) for record in records_of(batch)]


async def all_of(source: Any, **how: Any) -> dict[bytes, Record]:
    """Every record that there is, by its key."""
    found = await gathered(oneatatime.stream(source, metadata=LOSSLESS, **how).records())
    assert len({record.key for record in found}) == len(found)
    return {record.key: record for record in found}


# Word for word ----------------------------------------------------------------------------------


class TestWhenKeysExpire:
    def test_two_looks_that_find_none_tell_all(self) -> None:
        found = read([b"a"], ([LOOK, "GETRANGE a 0 65535", LOOK], [NONE_EXPIRES, b"1", NONE_EXPIRES]))
        assert found == [Record(b"a", "string", b"1")]

    def test_where_some_expire_every_key_is_asked_behind_its_value(self) -> None:
        found = read(
            [b"a", b"b"],
            (
                [LOOK, "GETRANGE a 0 65535", "GETRANGE b 0 65535", LOOK],
                [NONE_EXPIRES, b"1", b"2", SOME_EXPIRE],
            ),
            (["PEXPIRETIME a", "PEXPIRETIME b", LOOK], [-1, 77, SOME_EXPIRE]),
        )
        assert [(record.value, record.expires_at) for record in found] == [(b"1", None), (b"2", 77)]

    def test_a_key_that_has_expired_between_its_value_and_its_moment_is_gone(self) -> None:
        found = read(
            [b"a", b"b"],
            (
                [LOOK, "GETRANGE a 0 65535", "GETRANGE b 0 65535", LOOK],
                [SOME_EXPIRE, b"1", b"2", NONE_EXPIRES],
            ),
            (["PEXPIRETIME a", "PEXPIRETIME b", LOOK], [-2, -1, NONE_EXPIRES]),
        )
        assert found == [Record(b"b", "string", b"2")]

    def test_of_mixed_types_too(self) -> None:
        reader = fetch(metadata=LOSSLESS)
        batches = talked(
            reader.batches([b"a", b"b"]),
            (["TYPE a", "TYPE b"], [b"string", b"list"]),
            (
                [LOOK, "GETRANGE a 0 65535", "LRANGE b 0 8", LOOK],
                [NONE_EXPIRES, b"1", [b"e"], SOME_EXPIRE],
            ),
            (["PEXPIRETIME a", "PEXPIRETIME b", LOOK], [-2, 5, SOME_EXPIRE]),
        )
        assert [one for batch in batches for one in records_of(batch)] == [
            Record(b"b", "list", [b"e"], expires_at=5)
        ]
        assert reader._account.vanished == 1

    def test_once_some_have_been_met_no_look_goes_before(self) -> None:
        reader = fetch(kind="string", metadata=LOSSLESS)
        values = [b"1", b"2"]
        talked(
            reader.batches([b"a"]),
            ([LOOK, "GETRANGE a 0 65535", LOOK], [SOME_EXPIRE, b"1", SOME_EXPIRE]),
            (["PEXPIRETIME a", LOOK], [-1, SOME_EXPIRE]),
        )
        (batch,) = talked(
            reader.batches([b"a", b"b"]),
            (
                ["GETRANGE a 0 65535", "GETRANGE b 0 65535", "PEXPIRETIME a", "PEXPIRETIME b", LOOK],
                [*values, -1, -2, NONE_EXPIRES],
            ),
        )
        assert records_of(batch) == [Record(b"a", "string", b"1")]
        (batch,) = talked(  # none is left: cheap again
            reader.batches([b"a"]),
            ([LOOK, "GETRANGE a 0 65535", LOOK], [NONE_EXPIRES, b"1", NONE_EXPIRES]),
        )

    def test_a_server_that_knows_no_moments_is_asked_for_its_clock(self) -> None:
        clock = [b"100", b"999999"]
        found = read(
            [b"a", b"b", b"c"],
            (
                [LOOK, *(f"GETRANGE {key} 0 65535" for key in "abc"), LOOK],
                [SOME_EXPIRE, b"1", b"2", b"3", SOME_EXPIRE],
            ),
            ([*(f"PEXPIRETIME {key}" for key in "abc"), LOOK], [UNKNOWN, UNKNOWN, UNKNOWN, SOME_EXPIRE]),
            (["TIME", *(f"PTTL {key}" for key in "abc"), LOOK], [clock, 1, -1, -2, SOME_EXPIRE]),
        )
        assert [(one.key, one.expires_at) for one in found] == [(b"a", 101_000), (b"b", None)]

    def test_where_info_is_forbidden_every_key_is_asked(self) -> None:
        denied = ReplyError("NOPERM this user has no permissions to run the 'info' command")
        reader = fetch(kind="string", metadata=LOSSLESS)
        (batch,) = talked(
            reader.batches([b"a"]),
            ([LOOK, "GETRANGE a 0 65535", LOOK], [denied, b"1", denied]),
            (["PEXPIRETIME a"], [7]),
        )
        assert records_of(batch) == [Record(b"a", "string", b"1", expires_at=7)]
        (batch,) = talked(reader.batches([b"a"]), (["GETRANGE a 0 65535", "PEXPIRETIME a"], [b"1", -1]))
        assert records_of(batch) == [Record(b"a", "string", b"1")]

    def test_a_moment_that_may_not_be_asked_for_leaves_the_key_out(self) -> None:
        reader = fetch(kind="string", metadata=LOSSLESS)
        denied = ReplyError("NOPERM No permissions to access a key")
        batches = talked(
            reader.batches([b"a"]),
            ([LOOK, "GETRANGE a 0 65535", LOOK], [SOME_EXPIRE, b"1", SOME_EXPIRE]),
            (["PEXPIRETIME a", LOOK], [denied, SOME_EXPIRE]),
        )
        assert [len(batch) for batch in batches] == [0]
        assert reader._account.forbidden == 1

    def test_nothing_of_a_reply_too_big_is_taken_for_known(self) -> None:
        found = read(
            [b"a", b"b"],
            ([LOOK, "GETRANGE a 0 65535", "GETRANGE b 0 65535", LOOK], ReplyTooBig),
            (["GETRANGE a 0 65535"], [b"1"]),
            (["GETRANGE b 0 65535"], [b"2"]),
            (["PEXPIRETIME a", "PEXPIRETIME b", LOOK], [9, -1, SOME_EXPIRE]),
        )
        assert [(record.key, record.expires_at) for record in found] == [(b"a", 9), (b"b", None)]

    def test_the_line_of_another_database_says_nothing(self) -> None:
        others = b"# Keyspace\r\ndb10:keys=2,expires=0,avg_ttl=0\r\n"
        found = read([b"a"], ([LOOK, "GETRANGE a 0 65535", LOOK], [others, b"1", others]))
        assert found == [Record(b"a", "string", b"1")]  # it had no key at all before and after


class TestFieldsThatExpire:
    HASH: ClassVar[Any] = [b"0", [b"f", b"1", b"g", b"2"]]

    def test_hashes_alone_are_asked(self) -> None:
        found = read(
            [b"a"],
            ([LOOK, "HSCAN a 0", LOOK], [FIELDS_EXPIRE, self.HASH, FIELDS_EXPIRE]),
            (["HPEXPIRETIME a FIELDS 2 f g", "PEXPIRETIME a", LOOK], [[-1, 5], -1, FIELDS_EXPIRE]),
            kind="hash",
        )
        assert found == [Record(b"a", "hash", {b"f": b"1", b"g": b"2"}, details={b"g": 5})]

    def test_a_field_that_is_gone_by_now_is_left_out(self) -> None:
        found = read(
            [b"a"],
            ([LOOK, "HSCAN a 0", LOOK], [FIELDS_EXPIRE, self.HASH, FIELDS_EXPIRE]),
            (["HPEXPIRETIME a FIELDS 2 f g", "PEXPIRETIME a", LOOK], [[-2, -1], -1, FIELDS_EXPIRE]),
            kind="hash",
        )
        assert found == [Record(b"a", "hash", {b"g": b"2"})]

    def test_with_its_last_field_the_hash_is_gone(self) -> None:
        found = read(
            [b"a"],
            ([LOOK, "HSCAN a 0", LOOK], [FIELDS_EXPIRE, self.HASH, FIELDS_EXPIRE]),
            (["HPEXPIRETIME a FIELDS 2 f g", "PEXPIRETIME a", LOOK], [[-2, -2], -2, FIELDS_EXPIRE]),
            kind="hash",
        )
        assert found == []

    def test_a_server_that_knows_no_such_fields_is_asked_once(self) -> None:
        reader = fetch(kind="hash", metadata=LOSSLESS)
        unknown = ReplyError("ERR unknown command 'HPEXPIRETIME', with args beginning with: 'a'")
        talked(
            reader.batches([b"a"]),
            ([LOOK, "HSCAN a 0", LOOK], [SOME_EXPIRE, self.HASH, SOME_EXPIRE]),
            (["HPEXPIRETIME a FIELDS 2 f g", "PEXPIRETIME a", LOOK], [unknown, 5, SOME_EXPIRE]),
        )
        (batch,) = talked(
            reader.batches([b"a"]), (["HSCAN a 0", "PEXPIRETIME a", LOOK], [self.HASH, 5, SOME_EXPIRE])
        )
        assert [one.details for one in records_of(batch)] == [None]


# What it costs ------------------------------------------------------------------------------------


def called(server: Server) -> dict[str, int]:
    """How often each command was called."""
    found = server.admin.info("commandstats")
    return {name.removeprefix("cmdstat_"): said["calls"] for name, said in found.items()}


async def cost(server: Server, **how: Any) -> dict[str, int]:
    """The commands of one stream, but for those that open connections."""
    server.ask("CONFIG", "RESETSTAT")
    await gathered(oneatatime.stream(server.url, **how).records())
    return {
        name: calls for name, calls in called(server).items() if name not in ("hello", "config|resetstat")
    }


async def test_where_nothing_expires_two_looks_a_page_are_all(any_server: Server) -> None:
    for kind in ("string", "hash", "list", "zset"):
        fill_one(any_server.admin, kind, 6000)
    plain = await cost(any_server, options=Options(ranges=1))
    lossless = await cost(any_server, metadata=LOSSLESS, options=Options(ranges=1))
    more = {name: calls - plain.get(name, 0) for name, calls in lossless.items()}
    info = more.pop("info")
    assert {name: calls for name, calls in more.items() if calls} == {}
    # a page of several types may take a few bursts to find out which
    assert info <= 2 * lossless["scan"] + 20


def fill_one(admin: redis.Redis, kind: str, number: int) -> None:
    pipeline = admin.pipeline(transaction=False)
    words = {
        "string": ("SET", "v"),
        "hash": ("HSET", "f", "v"),
        "list": ("RPUSH", "e"),
        "zset": ("ZADD", 1, "m"),
    }
    command, *rest = words[kind]
    for at in range(number):
        pipeline.execute_command(command, f"{kind}:{at}", *rest)
    pipeline.execute()


async def test_keys_that_expire_are_each_asked_once(any_server: Server) -> None:
    fill_one(any_server.admin, "string", 5000)
    any_server.ask("PEXPIREAT", "string:77", LATER)
    found = await all_of(any_server.url)
    ((key, at),) = [(key, record.expires_at) for key, record in found.items() if record.expires_at]
    assert key == b"string:77" and abs(at - LATER) <= slack(any_server)
    asked = await cost(any_server, metadata=LOSSLESS, options=Options(ranges=1))
    assert 5000 <= asked.get("pexpiretime", asked.get("pttl", 0)) <= 5000 + 2


async def test_keys_that_begin_to_expire_in_the_middle(any_server: Server) -> None:
    """Whatever is read from then on says so, and what went before had none."""
    fill_one(any_server.admin, "string", 20_000)
    seen: dict[bytes, int | None] = {}
    begun: set[bytes] = set()
    options = Options(count=100, ahead=20_000)
    async for record in oneatatime.stream(any_server.url, metadata=LOSSLESS, options=options).records():
        seen[record.key] = record.expires_at
        if len(seen) == 5000:
            begun = {b"string:%d" % at for at in range(20_000)} - set(seen)
            for key in begun:
                any_server.ask("PEXPIREAT", key, LATER)
    dated = {key for key, at in seen.items() if at == LATER}
    assert len(seen) == 20_000
    assert dated <= begun
    assert len(begun - dated) < 3000  # of these the value was read before


async def test_it_is_known_to_the_millisecond_everywhere(any_server: Server) -> None:
    any_server.admin.set("a", "v")
    any_server.ask("PEXPIREAT", "a", LATER)
    (record,) = (await all_of(any_server.url)).values()
    assert record.expires_at is not None
    assert abs(record.expires_at - LATER) <= slack(any_server)


def slack(server: Server) -> int:
    """By how much a moment may be off: before Redis 7.0 TIME and PTTL tell it, which look at two."""
    return 0 if server.version_info >= (7, 0) else 5


async def test_each_database_by_its_own_count(any_server: Server) -> None:
    for db, at in ((0, None), (1, LATER), (2, None), (10, SOON)):
        with redis.Redis(unix_socket_path=any_server.path, db=db) as admin:
            admin.set("key", db)
            if at:
                admin.execute_command("PEXPIREAT", "key", at)
    stream = oneatatime.stream(any_server.url, db="all", metadata=LOSSLESS)
    found = {record.db: record.expires_at for record in await gathered(stream.records())}
    assert [at and round(at / 10) for at in (found[0], found[1], found[2], found[10])] == [
        None,
        round(LATER / 10),
        None,
        round(SOON / 10),
    ]


async def test_in_a_cluster_each_node_by_its_own(cluster: Cluster) -> None:
    keys = cluster.fill(600)
    owner = cluster.primaries()[1]
    dated = owner.scan(cursor=0)[:5] if hasattr(owner, "scan") else []
    for number, key in enumerate(dated):
        owner.ask("PEXPIREAT", key, LATER + number)
    found = await all_of(cluster.url)
    assert set(found) == set(keys)
    assert {key: one.expires_at for key, one in found.items() if one.expires_at} == {
        key: LATER + number for number, key in enumerate(dated)
    }


async def test_without_info_it_is_all_the_same(any_server: Server) -> None:
    fill_one(any_server.admin, "string", 2000)
    any_server.ask("PEXPIREAT", "string:7", LATER)
    any_server.ask("XGROUP", "CREATE", "stream", "g", "$", "MKSTREAM")
    words = ("reset", "on", ">secret", "%R~*" if any_server.version_info >= (7, 0) else "~*")
    any_server.ask("ACL", "SETUSER", "reader", *words, "-@all", "+@read", "+@connection", "+time")
    as_admin = await all_of(any_server.url)
    url = f"unix://reader:secret@{any_server.path}"
    found = await all_of(url)
    assert {key: one._replace(expires_at=None) for key, one in found.items()} == {
        key: one._replace(expires_at=None) for key, one in as_admin.items()
    }
    at, wanted = found[b"string:7"].expires_at, as_admin[b"string:7"].expires_at
    assert at is not None and wanted is not None and abs(at - wanted) <= 2


@pytest.mark.parametrize("info", [NONE_EXPIRES, b""])
async def test_the_word_of_another_product_is_not_believed(info: bytes) -> None:
    """It says that no key expires, and one does."""
    said = b"run_id:aaaa\r\nredis_version:7.4.0\r\ndragonfly_version:df-1.0\r\n"
    answers: Any = {
        b"INFO": lambda words: bulk(info if words[1:] == [b"keyspace"] else said),
        b"PEXPIRETIME": lambda words: b":%d\r\n" % LATER,
    }
    async with FakeServer(answers) as server:
        found = await all_of(server.url)
    assert [record.expires_at for record in found.values()] == [LATER]


# Groups of streams --------------------------------------------------------------------------------


def grouped(
    server: Any, key: str, entries: int, *, group: bytes | str = "g", consumer: bytes | str = "c"
) -> None:
    """A stream all of whose entries are pending."""
    pipeline = server.admin.pipeline(transaction=False)
    for number in range(1, entries + 1):
        pipeline.execute_command("XADD", key, f"{number}-0", "f", "v")
    pipeline.execute_command("XGROUP", "CREATE", key, group, "0")
    pipeline.execute_command("XREADGROUP", "GROUP", group, consumer, "STREAMS", key, ">")
    pipeline.execute()


async def test_what_a_group_is_told_as(any_server: Server) -> None:
    grouped(any_server, "s", 3)
    any_server.ask("XACK", "s", "g", "2-0")
    any_server.ask("XDEL", "s", "3-0")
    any_server.ask("XCLAIM", "s", "g", "d", 0, "1-0", "TIME", NOW - 500, "RETRYCOUNT", 7)
    any_server.ask("XGROUP", "CREATE", "s", "h", "$")
    details = (await all_of(any_server.url))[b"s"].details
    assert isinstance(details, StreamDetails)
    counted = any_server.version_info >= (7, 0)
    assert details.last_id == b"3-0"
    assert (details.entries_added, details.max_deleted_id) == ((3, b"3-0") if counted else (None, None))
    assert [group._replace(entries_read=None) for group in details.groups] == [
        Group(b"g", b"3-0", None, (b"c", b"d")),
        Group(b"h", b"3-0", None, ()),
    ]
    one, other = details.pending
    assert one[:3] == (b"g", b"1-0", b"d") and one.deliveries == 7 and abs(one.delivered_at - NOW + 500) < 50
    assert other[:3] == (b"g", b"3-0", b"c") and other.deliveries == 1


@pytest.mark.parametrize("pending", [999, 1000, 1001, 2500])
async def test_pending_entries_come_page_by_page(pending: int, any_server: Server) -> None:
    grouped(any_server, "s", pending)
    grouped(any_server, "t", 3)
    whole = Options(parts_over=100_000_000)  # some servers count a kilobyte for each that is pending
    found = await all_of(any_server.url, options=whole)
    for key, count in ((b"s", pending), (b"t", 3)):
        details = found[key].details
        assert [one.id for one in details.pending] == [b"%d-0" % number for number in range(1, count + 1)]


async def test_many_streams_with_much_pending_do_not_lose_any(any_server: Server) -> None:
    """Their replies together are too many for one burst, and it was only an end to all attempts."""
    for number in range(40):
        grouped(any_server, f"s:{number}", 300, consumer="c" * 100)
        any_server.ask("XTRIM", f"s:{number}", "MAXLEN", 0)
    found = await all_of(any_server.url, options=Options(reply_limit=100_000, burst=50_000))
    assert {len(record.details.pending) for record in found.values()} == {300}
    assert {record.details.groups[0].consumers for record in found.values()} == {(b"c" * 100,)}


async def test_big_streams_with_long_names_in_parts(any_server: Server) -> None:
    grouped(any_server, "s", 2500, group="g" * 1000, consumer="c" * 1000)
    options = Options(parts_over=3000, chunk=1000, reply_limit=100_000)
    (record,) = (await all_of(any_server.url, options=options)).values()
    assert isinstance(record.value, Parts)
    found = await gathered(record.value)
    assert [one.id for one in found if isinstance(one, Pending)] == [b"%d-0" % n for n in range(1, 2501)]


async def test_big_values_have_their_details_in_parts(any_server: Server) -> None:
    grouped(any_server, "stream", 2000)
    any_server.ask("XDEL", "stream", "1-0", "1000-0", "2000-0")
    fields = {f"field:{number}": "v" * 20 for number in range(1000)}
    any_server.admin.hset("hash", mapping=fields)
    if fields_expire(any_server):
        any_server.ask("HPEXPIREAT", "hash", LATER, "FIELDS", 2, "field:1", "field:999")
    found = await all_of(any_server.url, options=SMALL_PARTS)
    log, table = found[b"stream"], found[b"hash"]
    assert isinstance(log.value, Parts) and isinstance(table.value, Parts)
    assert log.details.groups[0].consumers == (b"c",)
    assert log.details.pending == ()
    parts = await gathered(log.value)
    pending = [one for one in parts if isinstance(one, Pending)]
    assert [one.id for one in pending] == [b"%d-0" % number for number in range(1, 2001)]
    order = [int((one.id if isinstance(one, Pending) else one[0]).partition(b"-")[0]) for one in parts]
    assert order == sorted(order)
    assert len(await log.value.load()) == 1997  # without them
    dated = {field: at for field, _, at in await gathered(table.value)}
    expected = {b"field:1": LATER, b"field:999": LATER} if fields_expire(any_server) else {}
    assert {field: at for field, at in dated.items() if at} == expected
    assert len(dated) == 1000


async def test_a_group_that_is_destroyed_meanwhile() -> None:
    gone = ReplyError("NOGROUP No such consumer group 'g' for key name 's'")
    info: Any = {b"last-generated-id": b"1-0", b"length": 1}
    group: Any = {b"name": b"g", b"last-delivered-id": b"1-0", b"pending": 1}
    found = read(
        [b"s"],
        ([LOOK, "XRANGE s - + COUNT 9", LOOK], [NONE_EXPIRES, [[b"1-0", [b"f", b"v"]]], NONE_EXPIRES]),
        (["XINFO STREAM s", "XINFO GROUPS s"], [info, [group]]),
        (["XINFO CONSUMERS s g", "TIME", "XPENDING s g - + 1000"], [gone, [b"1", b"1"], gone]),
        kind="stream",
    )
    assert [record.details for record in found] == [StreamDetails(b"1-0")]


# Text ---------------------------------------------------------------------------------------------


async def test_details_are_text_where_text_was_asked_for(any_server: Server) -> None:
    grouped(any_server, "s", 2, group="ü", consumer="ж")
    any_server.admin.hset("h", "ключ", "v")
    if fields_expire(any_server):
        any_server.ask("HPEXPIREAT", "h", LATER, "FIELDS", 1, "ключ")
    found = await all_of(any_server.url, encoding="utf-8")
    details = found["s"].details  # type: ignore[index]
    assert details.groups[0].name == "ü" and details.groups[0].consumers == ("ж",)
    assert [(one.group, one.consumer) for one in details.pending] == [("ü", "ж")] * 2
    assert found["h"].details == ({"ключ": LATER} if fields_expire(any_server) else None)  # type: ignore[index]
    big = await all_of(any_server.url, encoding="utf-8", match="s", options=Options(parts_over=1, chunk=100))
    parts = await gathered(big["s"].value)  # type: ignore[index]
    assert [(one.group, one.consumer) for one in parts if isinstance(one, Pending)] == [("ü", "ж")] * 2


async def test_a_name_that_is_no_text_fails_its_own_record(any_server: Server) -> None:
    grouped(any_server, "bad", 2, group=b"\xff")
    grouped(any_server, "good", 2)
    any_server.admin.set("k", "v")
    stream = oneatatime.stream(any_server.url, metadata=LOSSLESS, encoding="utf-8").records()
    found, failed = [], []
    while True:
        try:
            found.append((await anext(stream)).key)
        except Undecodable as error:
            failed.append(error.key)
        except StopAsyncIteration:
            break
    assert (sorted(found), failed) == (["good", "k"], [b"bad"])


# More than one reply may be -----------------------------------------------------------------------


def test_details_too_many_for_a_burst_are_asked_stream_by_stream() -> None:
    """They were asked for together again and again, and then left out without a word."""
    info: Any = {b"last-generated-id": b"1-0", b"length": 1}
    group: Any = {b"name": b"g", b"last-delivered-id": b"1-0", b"pending": 1}
    entries = [[b"1-0", [b"f", b"v"]]]
    clock, row = [b"1", b"1000"], [b"1-0", b"c", 1, 1]
    asked = [["XINFO CONSUMERS a g", "TIME", "XPENDING a g - + 1000"]]
    asked.append([line.replace(" a ", " b ") for line in asked[0]])
    found = read(
        [b"a", b"b"],
        (
            [LOOK, "XRANGE a - + COUNT 9", "XRANGE b - + COUNT 9", LOOK],
            [NONE_EXPIRES, entries, entries, NONE_EXPIRES],
        ),
        (["XINFO STREAM a", "XINFO STREAM b", "XINFO GROUPS a", "XINFO GROUPS b"], ReplyTooBig),
        (["XINFO STREAM a", "XINFO GROUPS a"], [info, [group]]),
        (["XINFO STREAM b", "XINFO GROUPS b"], [info, [group]]),
        (asked[0], [[{b"name": b"c"}], clock, [row]]),
        (asked[1], [[{b"name": b"c"}], clock, [row]]),
        kind="stream",
    )
    assert [record.details.pending for record in found] == [(Pending(b"g", b"1-0", b"c", 1000, 1),)] * 2
    assert [record.details.groups[0].consumers for record in found] == [(b"c",)] * 2


async def test_an_entry_too_big_for_a_reply_is_no_end_to_the_groups(any_server: Server) -> None:
    """XINFO shows the first and the last entry: its reply was refused a hundred times, and then forgotten."""
    any_server.admin.xadd("s", {"f": b"x" * 9_000_000}, id="1-0")
    any_server.admin.xadd("s", {"f": b"v"}, id="2-0")
    any_server.ask("XGROUP", "CREATE", "s", "g", "0")
    any_server.ask("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "s", ">")
    (record,) = (await all_of(any_server.url)).values()
    assert [(group.name, group.consumers) for group in record.details.groups] == [(b"g", (b"c",))]
    assert [one.id for one in await gathered(record.value) if isinstance(one, Pending)] == [b"1-0"]


async def test_pending_in_parts_with_names_longer_than_a_reply(any_server: Server) -> None:
    """It was an error that no caller knows."""
    grouped(any_server, "s", 1500, consumer="c" * 30_000)
    options = Options(parts_over=3000, chunk=100_000)
    (record,) = (await all_of(any_server.url, options=options)).values()
    assert len([one for one in await gathered(record.value) if isinstance(one, Pending)]) == 1500


async def test_fields_too_big_for_a_reply_with_their_moments(any_server: Server) -> None:
    if not fields_expire(any_server):
        pytest.skip("its fields do not expire")
    for number in range(3):
        any_server.admin.hset("h", f"f{number}", b"x" * 9_000_000)
    any_server.ask("HPEXPIREAT", "h", LATER, "FIELDS", 2, "f0", "f2")
    (record,) = (await all_of(any_server.url)).values()
    found = {field: (len(value), at) for field, value, at in await gathered(record.value)}
    assert found == {
        b"f0": (9_000_000, LATER),
        b"f1": (9_000_000, None),
        b"f2": (9_000_000, LATER),
    }


async def test_a_reply_much_longer_than_the_value_in_the_server(any_server: Server) -> None:
    """It became parts when all had been asked, and so did not expire, and had no groups."""
    pipeline = any_server.admin.pipeline(transaction=False)
    fields = [word for number in range(20) for word in (f"a rather long name of a field {number}", number)]
    for number in range(1, 9001):
        pipeline.execute_command("XADD", "s", f"{number}-0", *fields)
    pipeline.execute_command("XGROUP", "CREATE", "s", "g", "0")
    pipeline.execute_command("PEXPIREAT", "s", LATER)
    pipeline.execute()
    size = any_server.ask("MEMORY", "USAGE", "s")
    options = Options(parts_over=size + 1000)
    (record,) = (await all_of(any_server.url, options=options)).values()
    assert isinstance(record.value, Parts)
    assert abs((record.expires_at or 0) - LATER) <= slack(any_server)
    assert record.details is not None and [group.name for group in record.details.groups] == [b"g"]


@pytest.mark.parametrize("parts_over", [1 << 20, 1 << 30])
async def test_more_is_pending_than_a_hundred_replies_hold(parts_over: int, server: Server) -> None:
    """What came after the hundredth was left out without a word."""
    pipeline = server.admin.pipeline(transaction=False)
    pipeline.execute_command("XGROUP", "CREATE", "s", "g", "0", "MKSTREAM")
    pipeline.execute_command("XGROUP", "CREATE", "s", "h", "0")
    pipeline.eval("for i = 1, 120000 do redis.call('XADD', 's', i .. '-0', 'f', 'v') end", 0)
    for group, count in (("g", 110_000), ("h", 2500)):
        words = f"'XREADGROUP', 'GROUP', '{group}', 'c', 'COUNT', 500, 'STREAMS', 's', '>'"
        pipeline.eval(f"for i = 1, {count // 500} do redis.call({words}) end", 0)
    pipeline.execute_command("XTRIM", "s", "MAXLEN", 3)
    pipeline.execute()
    (record,) = (await all_of(server.url, options=Options(parts_over=parts_over))).values()
    found = record.details.pending
    if isinstance(record.value, Parts):
        chunks = [chunk async for chunk in record.value.chunks()]
        assert max(map(len, chunks)) <= 2003  # a page of each group, and entries
        found = [one for chunk in chunks for one in chunk if isinstance(one, Pending)]
    assert isinstance(record.value, Parts) == (parts_over == 1 << 20)
    assert [one.id for one in found if one.group == b"g"] == [b"%d-0" % at for at in range(1, 110_001)]
    assert [one.id for one in found if one.group == b"h"] == [b"%d-0" % at for at in range(1, 2501)]
    assert [(int(one.id[:-2]), one.group) for one in found] == sorted(
        (int(one.id[:-2]), one.group) for one in found
    )
