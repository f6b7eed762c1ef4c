"""Dumps: what a writer wrote a reader reads, and a server takes as it is."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from oneatatime import InvalidInput
from oneatatime._record import (
    Batch,
    Commands,
    Group,
    Opaque,
    Pending,
    Piece,
    Record,
    RepeatedFields,
    StreamDetails,
)
from oneatatime.datatypes import words
from oneatatime.formats import Format, reader, writer
from oneatatime.formats._payload import type_of
from tests.records import DATA, all_same, batch_of, big_values, records_of

DUMP = Format("dump")
PAYLOAD = b"\x00\x03abc\x0b\x00" + bytes(8)


def record_of(key: bytes, dump: bytes, db: int | None = None, moment: int | None = None) -> Record:
    return Record(key, type_of(dump), Opaque(type_of(dump), dump), db=db, expires_at=moment)


dumps = st.builds(
    record_of,
    DATA,
    st.binary(max_size=30),
    st.integers(0, 3),
    st.none() | st.integers(1, 2**43),
)


def written(some: Sequence[Record] = (), pieces: Sequence[tuple[Record, Piece]] = ()) -> bytes:
    file = io.BytesIO()
    into = writer(DUMP, file)
    if some:
        into.write(batch_of(some))
    for record, piece in pieces:
        into.write_piece(record, piece)
    into.finish()
    return file.getvalue()


def rows(data: bytes, start: int = 0) -> Iterator[tuple[Record, Piece | None]]:
    expected = start
    for number, batch in reader(DUMP, io.BytesIO(data), "keys.dump").batches(start):
        assert number == expected
        expected += len(batch)
        yield from zip(records_of(batch), batch.pieces or itertools.repeat(None))


def read(data: bytes, start: int = 0) -> list[Record]:
    return [record for record, _ in rows(data, start)]


def commands(*each: tuple[bytes, ...]) -> bytes:
    return b"".join([words(*command).payload for command in each])


BEGIN, END = (b"ECHO", b"oneatatime dump 1"), (b"ECHO", b"oneatatime end 0 records")


@given(st.lists(dumps, max_size=5), st.integers(0, 6))
def test_what_was_written_is_read(some: list[Record], start: int) -> None:
    assert all_same(read(written(some), start), some[start:])


def test_commands_are_as_the_docs_say() -> None:
    some = [
        Record(b"key", "string", Opaque("string", PAYLOAD), db=0, expires_at=1793923200000),
        Record(b"other", "string", Opaque("string", PAYLOAD), db=1),
    ]
    assert written(some) == commands(
        BEGIN,
        (b"SELECT", b"0"),
        (b"RESTORE", b"key", b"1793923200000", PAYLOAD, b"ABSTTL"),
        (b"SELECT", b"1"),
        (b"RESTORE", b"other", b"0", PAYLOAD, b"ABSTTL"),
        (b"ECHO", b"oneatatime end 2 records"),
    )


@given(st.lists(big_values(databases=False), max_size=3, unique_by=lambda pieces: pieces[0][0].key))
def test_pieces_come_back_as_commands(several: list[list[tuple[Record, Piece]]]) -> None:
    data = written([], [row for pieces in several for row in pieces])
    back = list(rows(data))
    assert [record.key for record, _ in back] == [pieces[0][0].key for pieces in several]
    for (record, piece), pieces in zip(back, several):
        whole = pieces[0][0]
        assert piece == Piece(0, True)
        assert isinstance(record.value, Commands)
        assert (record.type, record.value.type) == (whole.type, whole.type)
        assert (record.db, record.expires_at) == (whole.db, whole.expires_at)
        sent = b"".join(record.value.commands)
        assert sent in data


def test_a_value_that_begins_again_takes_its_own_place() -> None:
    first, last = Record(b"list", "list", [b"x" * 300_000]), Record(b"list", "list", [b"y"])
    data = written([], [(first, Piece(0)), (first, Piece(1)), (first, Piece(0)), (last, Piece(1, True))])
    back = list(rows(data))
    assert [piece for _, piece in back] == [Piece(0), Piece(0), Piece(1, True)]
    assert b"".join(back[-1][0].value.commands) == commands((b"RPUSH", b"list", b"y"))


def test_a_big_document_is_a_command_of_its_own() -> None:
    file = io.BytesIO()
    into = writer(DUMP, file)
    document = Record(b"doc", "ReJSON-RL", {"a": [1, "é"]}, expires_at=5)
    into.write(batch_of([document]))
    into.finish()
    [(record, piece)] = rows(file.getvalue())
    assert (record.type, record.expires_at, piece) == ("ReJSON-RL", 5, Piece(0, True))
    assert record.value.commands[0] == commands((b"JSON.SET", b"doc", b"$", '{"a":[1,"é"]}'.encode()))


def test_a_big_value_comes_in_pieces_of_some_size() -> None:
    some = [
        (Record(b"list", "list", [b"x" * 1000] * 1000, expires_at=5), Piece(number, number == 4))
        for number in range(5)
    ]
    data = written([], some)
    back = list(rows(data))
    assert [piece and piece.number for _, piece in back] == list(range(len(back)))
    assert [piece is not None and piece.last for _, piece in back] == [False] * (len(back) - 1) + [True]
    assert back[-1][0].expires_at == 5
    assert b"".join([b"".join(record.value.commands) for record, _ in back]) in data
    assert list(rows(data, 3)) == back[3:]


@given(st.lists(dumps, min_size=1, max_size=3), big_values(("list", "stream")), st.data())
def test_cut_off_anywhere_it_is_said_so(some: list[Record], pieces: Any, data: Any) -> None:
    whole = written(some, pieces)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InvalidInput, match=r"^keys\.dump: it is (empty or )?cut off"):
        read(whole[:end])


def test_cut_off_at_every_byte_of_one() -> None:
    whole = written([Record(b"key", "string", Opaque("string", PAYLOAD), db=0)])
    for end in range(len(whole)):
        with pytest.raises(InvalidInput, match=r"^keys\.dump: "):
            read(whole[:end])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SET a b\r\n", "it is no dump of oneatatime"),
        (b'{"key":"a"}\n', "it is no dump of oneatatime"),
        (b"*1\r\n:5\r\n", "it is no dump of oneatatime"),
        (commands((b"SET", b"a", b"b")), "it is no dump of oneatatime"),
        (commands((b"ECHO", b"oneatatime dump 2")), "version 2 of the format"),
        (commands(BEGIN), "cut off after 0 keys"),
        (commands(BEGIN, (b"FLUSHALL", b"ASYNC")), "record 1: the command b'FLUSHALL' is none of a dump"),
        (commands(BEGIN, (b"PING",)), "something else where a command should be"),
        (commands(BEGIN) + b"*2\r\n$3\r\nDEL\r\n:1\r\n", "something else where a command should be"),
        (commands(BEGIN) + b">2\r\n$3\r\nDEL\r\n$1\r\na\r\n" + commands(END), "it is damaged"),
        (commands(BEGIN) + b"nonsense\r\n", "it is damaged: what follows is no command"),
        (commands(BEGIN, (b"RESTORE", b"a", b"0", b"")), "its RESTORE has not the form"),
        (commands(BEGIN, (b"RESTORE", b"a", b"-1", b"", b"ABSTTL")), "b'-1' where a number should be"),
        (commands(BEGIN, (b"SELECT", b"x")), "b'x' where a number should be"),
        (commands(BEGIN, (b"RPUSH", b"a", b"b")), "RPUSH of another key than the DEL before it"),
        (commands(BEGIN, (b"DEL", b"a"), (b"RPUSH", b"b", b"b")), "RPUSH of another key"),
        (commands(BEGIN, (b"DEL", b"a"), (b"RPUSH", b"a", b""), (b"SADD", b"a", b"")), "SADD of a value of"),
        (commands(BEGIN, (b"DEL", b"a"), END), "nothing follows its DEL"),
        (commands(BEGIN, (b"ECHO", b"the end")), "is not how a dump ends"),
        (commands(BEGIN, (b"ECHO", b"oneatatime end 3 records")), "it counts 3 keys, and there were 0"),
        (commands(BEGIN, END, END), "more behind the command that ends it"),
    ],
)  # fmt: skip
def test_what_nobody_wrote_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=r"^keys\.dump[:,] ") as error:
        read(data)
    assert message in str(error.value)


def test_what_has_no_place_is_refused_by_key() -> None:
    into = writer(DUMP, io.BytesIO())
    with pytest.raises(InvalidInput, match=r"what DUMP gives.*key b'k'"):
        into.write(Batch([b"k"], "string", [b"v"]))
    with pytest.raises(InvalidInput, match=r"cannot be written in pieces as commands.*key b'k'"):
        into.write_piece(Record(b"k", "ReJSON-RL", [1]), Piece(0))
    with pytest.raises(InvalidInput, match=r"cannot be written in pieces as commands.*key b'k'"):
        into.write_piece(Record(b"k", "MBbloom--", b"x"), Piece(0))


def test_a_file_of_any_size_takes_little_memory() -> None:
    record = Record(b"key", "string", Opaque("string", b"\x00" + b"x" * 1000))
    file = io.BytesIO(written([record] * 20_000))
    tracemalloc.start()
    count = sum(len(batch) for _, batch in reader(DUMP, file, "keys.dump").batches())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 4 << 20


# Servers


def replies(admin: redis.Redis, data: bytes, count: int) -> list[Any]:
    """What a server says to the bytes of a file, sent as they are: `redis-cli --pipe` does the same."""
    connection = admin.connection_pool.get_connection()
    try:
        connection.send_packed_command([data])
        found = []
        for _ in range(count):
            try:
                found.append(connection.read_response())
            except redis.ResponseError as error:
                found.append(error)
        return found
    finally:
        connection.disconnect()
        admin.connection_pool.release(connection)


def count_of(data: bytes) -> int:
    from oneatatime._resp import parser

    parsed, found = parser(), []
    parsed.feed(memoryview(data))
    while parsed.take(found, 1000, True):
        pass
    return len(found)


def test_a_server_takes_the_file_as_it_is(admin: redis.Redis) -> None:
    admin.set("string", "hello")
    admin.set("expires", "soon", px=100_000_000)
    admin.hset("hash", "field", "value")
    admin.rpush("list", *[str(number) for number in range(500)])
    admin.sadd("set", "a", "b")
    admin.zadd("zset", {"a": 0.1, "b": 5})
    admin.xadd("stream", {"a": 1})
    types = {key: admin.type(key).decode() for key in admin.keys()}
    before = {key: admin.dump(key) for key in types}
    assert {key: type_of(dump) for key, dump in before.items()} == types
    moment = admin.execute_command("PEXPIRETIME", "expires")
    data = written(
        [record_of(key, dump, 0, moment if key == b"expires" else None) for key, dump in before.items()]
    )
    admin.flushall()
    said = replies(admin, data, count_of(data))
    assert said[0] == b"oneatatime dump 1"
    assert said[-1] == b"oneatatime end 7 records"
    assert not [reply for reply in said if isinstance(reply, redis.ResponseError)]
    assert {key: admin.dump(key) for key in admin.keys()} == before
    assert admin.execute_command("PEXPIRETIME", "expires") == moment


def test_a_server_takes_values_in_pieces(admin: redis.Redis) -> None:
    soon, later = 4_000_000_000_000, 4_100_000_000_000
    groups = (Group(b"g", b"3-0", 2, (b"ann", b"idle")), Group(b"h", b"0-0", None, ()))
    details = StreamDetails(b"9-0", 7, b"4-0", groups, (Pending(b"g", b"1-0", b"ann", 1000, 3),))
    pieces = [
        (Record(b"string", "string", b"hello ", expires_at=later), Piece(0)),
        (Record(b"string", "string", b"world", expires_at=later), Piece(1, True)),
        (Record(b"hash", "hash", {b"a": b"1"}, details={b"a": soon}), Piece(0)),
        (Record(b"hash", "hash", {b"b": b"2"}), Piece(1, True)),
        (Record(b"list", "list", [b"b"]), Piece(0)),
        (Record(b"list", "list", [b"a", b"b"]), Piece(1, True)),
        (Record(b"set", "set", {b"a"}), Piece(0, True)),
        (Record(b"zset", "zset", [(b"low", float("-inf")), (b"mid", 0.1 + 0.2)]), Piece(0)),
        (Record(b"zset", "zset", [(b"high", 1e300)]), Piece(1, True)),
        (
            Record(b"stream", "stream", [(b"1-0", {b"a": b"1"})], details=details),
            Piece(0),
        ),
        (
            Record(b"stream", "stream", [(b"3-0", RepeatedFields([(b"a", b"1"), (b"a", b"2")]))],
                   details=StreamDetails(None, pending=(Pending(b"g", b"2-0", b"ann", 2000, 1),))),
            Piece(1, True),
        ),
        (Record(b"empty", "stream", [], details=StreamDetails(b"9-9", 5, b"9-9")), Piece(0, True)),
    ]  # fmt: skip
    for key in ("string", "stream"):
        admin.set(key, "something else")
    data = written([], pieces)
    said = replies(admin, data, count_of(data))
    assert [reply for reply in said if isinstance(reply, redis.ResponseError)] == []
    assert said[-1] == b"oneatatime end 7 records"
    assert admin.get("string") == b"hello world"
    assert admin.execute_command("PEXPIRETIME", "string") == later
    assert admin.hgetall("hash") == {b"a": b"1", b"b": b"2"}
    assert admin.execute_command("HPEXPIRETIME", "hash", "FIELDS", 2, "a", "b") == [soon, -1]
    assert admin.lrange("list", 0, -1) == [b"b", b"a", b"b"]
    assert admin.smembers("set") == {b"a"}
    assert admin.zrange("zset", 0, -1, withscores=True) == [
        (b"low", float("-inf")),
        (b"mid", 0.1 + 0.2),
        (b"high", 1e300),
    ]
    assert admin.execute_command("XRANGE", "stream", "-", "+") is not None
    info = admin.xinfo_stream("stream")
    assert (info["length"], info["last-generated-id"]) == (2, b"9-0")
    assert (info["entries-added"], info["max-deleted-entry-id"]) == (7, b"4-0")
    group, other = admin.xinfo_groups("stream")
    assert (group["name"], group["last-delivered-id"], group["entries-read"]) == (b"g", b"3-0", 2)
    assert (other["name"], other["last-delivered-id"], other["entries-read"]) == (b"h", b"0-0", None)
    pending = admin.xpending_range("stream", "g", "-", "+", 10)
    assert [(one["message_id"], one["consumer"], one["times_delivered"]) for one in pending] == [
        (b"1-0", b"ann", 3),
        (b"2-0", b"ann", 1),
    ]
    empty = admin.xinfo_stream("empty")
    assert (empty["length"], empty["last-generated-id"], empty["groups"]) == (0, b"9-9", 0)


@pytest.mark.parametrize("kind", ["string", "hash", "list", "set", "zset", "stream"])
def test_dumps_of_any_server_tell_their_type(any_server: Any, kind: str) -> None:
    admin = any_server.admin
    big = [str(number) for number in range(2000)]
    for name, many in (("small", big[:2]), ("big", big)):
        if kind == "string":
            admin.set(name, "x" * len(many))
        elif kind == "hash":
            admin.hset(name, mapping=dict.fromkeys(many, "x"))
        elif kind == "list":
            admin.rpush(name, *many)
        elif kind == "set":
            admin.sadd(name, *many)
            admin.sadd(f"{name} words", *[f"word {word}" for word in many])
        elif kind == "zset":
            admin.zadd(name, dict.fromkeys(many, 1.5))
        else:
            for word in many:
                admin.xadd(name, {"word": word})
    if kind == "hash":
        for name in ("small", "big"):
            try:
                admin.execute_command("HPEXPIREAT", name, 4_000_000_000_000, "FIELDS", 1, "1")
            except redis.ResponseError:  # this server's fields do not expire
                break
    for key in admin.keys():
        assert type_of(admin.dump(key)) == kind, key


def test_dumps_of_modules_tell_their_type(module_server: Any) -> None:
    admin = module_server.admin
    admin.execute_command("JSON.SET", "document", "$", "[1]")
    admin.execute_command("BF.ADD", "filter", "a")
    assert type_of(admin.dump("document")) == "ReJSON-RL"
    assert type_of(admin.dump("filter")) == "MBbloom--"


def test_a_type_of_a_later_version_is_unknown() -> None:
    assert type_of(b"") == type_of(b"\xc8abc") == type_of(b"\x07\x81abc") == "unknown"
