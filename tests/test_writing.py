"""Values written back: on every server, what the commands make is what was there."""

from __future__ import annotations

from typing import Any

import pytest
from hiredis import pack_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneatatime import Group, Opaque, Pending, RepeatedFields, StreamDetails
from oneatatime._request import Burst
from oneatatime._resp import _writes, writes
from oneatatime.datatypes import datatype
from tests.compare import Everything, assert_same, everything
from tests.servers import Server

FAR = 9_793_923_100_000  # ms since 1970

words = st.binary(max_size=20)
doubles = st.floats(allow_nan=False)


def send(server: Server, burst: Burst) -> None:
    """Sends a burst, and sees that no reply is an error."""
    connection = server.admin.connection_pool.get_connection()
    try:
        connection.send_packed_command([burst.payload])
        for _ in range(burst.replies):
            connection.read_response(disable_decoding=True)
    finally:
        server.admin.connection_pool.release(connection)


def details_of(one: dict[str, Any]) -> Any:
    """The details of a record, as the comparison has them."""
    if one["type"] == "hash":
        return one["fields_expire_at"] or None
    if one["type"] != "stream":
        return None
    groups = tuple(
        Group(name, group["last-delivered-id"], group["entries-read"], tuple(group["consumers"]))
        for name, group in one["consumer_groups"].items()
    )
    pending = tuple(
        Pending(group, entry, consumer, at, deliveries)
        for group, entry, consumer, deliveries, at in one["pending"]
    )
    info = one["info"]
    return StreamDetails(
        info["last-generated-id"],
        info.get("entries-added"),
        info.get("max-deleted-entry-id"),
        groups,
        tuple(sorted(pending, key=lambda one: (one.id, one.group))),
    )


def value_of(one: dict[str, Any]) -> Any:
    """The value of a record, as a stream would deliver it."""
    if one["type"] == "zset":
        return [(member, float(score)) for member, score in one["value"]]
    if one["type"] == "stream":
        return [(entry, fields_of(flat)) for entry, flat in one["value"]]
    return one["value"]


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    pairs = list(zip(flat[::2], flat[1::2]))
    return RepeatedFields(pairs) if len(dict(pairs)) < len(pairs) else dict(pairs)


def rewrite(server: Server, before: Everything) -> None:
    """Writes everything again into the emptied server."""
    server.admin.flushall()
    for key, one in before.items():
        send(server, datatype(one["type"]).written(key, value_of(one), details_of(one)))


def rewritten(server: Server) -> None:
    before = everything(server)
    rewrite(server, before)
    assert_same(everything(server), before)


def make_stream(ask: Any) -> None:
    for number in range(1, 13):
        ask("XADD", "s", f"{number}-{number}", "f", number, "f", "again")
    ask("XGROUP", "CREATE", "s", "g", "0")
    ask("XGROUP", "CREATE", "s", "idle", "3-3")
    ask("XGROUP", "CREATECONSUMER", "s", "idle", "nobody")
    ask("XREADGROUP", "GROUP", "g", "one", "COUNT", 5, "STREAMS", "s", ">")
    ask("XREADGROUP", "GROUP", "g", "two", "COUNT", 5, "STREAMS", "s", ">")
    ask("XREADGROUP", "GROUP", "g", "one", "COUNT", 5, "STREAMS", "s", "0")  # delivered again
    ask("XACK", "s", "g", "3-3")


class TestStreams:
    async def test_groups_and_what_is_pending(self, any_server) -> None:
        make_stream(any_server.admin.execute_command)
        rewritten(any_server)

    async def test_pending_entries_that_are_deleted(self, any_server) -> None:
        make_stream(any_server.admin.execute_command)
        for entry in ("1-1", "4-4", "10-10", "12-12"):
            any_server.admin.execute_command("XDEL", "s", entry)
        rewritten(any_server)

    async def test_pending_entries_that_were_trimmed(self, any_server) -> None:
        make_stream(any_server.admin.execute_command)
        any_server.admin.execute_command("XTRIM", "s", "MAXLEN", 6)
        rewritten(any_server)

    @pytest.mark.parametrize("how", ["XDEL", "XTRIM"])
    async def test_all_entries_gone_and_still_pending(self, how, any_server) -> None:
        ask = any_server.admin.execute_command
        make_stream(ask)
        if how == "XTRIM":
            ask("XTRIM", "s", "MAXLEN", 0)
        else:
            ask("XDEL", "s", *[f"{number}-{number}" for number in range(1, 13)])
        rewritten(any_server)

    async def test_an_empty_stream(self, any_server) -> None:
        ask = any_server.admin.execute_command
        ask("XADD", "s", "5-1", "f", "v")
        ask("XDEL", "s", "5-1")
        ask("XGROUP", "CREATE", "never", "g", "0", "MKSTREAM")
        ask("XGROUP", "DESTROY", "never", "g")
        rewritten(any_server)

    async def test_a_group_that_is_ahead_of_what_was_read(self, any_server) -> None:
        ask = any_server.admin.execute_command
        ask("XADD", "s", "5-1", "f", "v")
        ask("XGROUP", "CREATE", "s", "g", "$")
        ask("XADD", "s", "5-2", "f", "v")
        rewritten(any_server)

    async def test_in_pieces(self, any_server) -> None:
        ask = any_server.admin.execute_command
        make_stream(ask)
        ask("XDEL", "s", "5-5", "7-7")
        before = everything(any_server)
        details, entries = details_of(before[b"s"]), value_of(before[b"s"])
        any_server.admin.flushall()
        half = len(entries) // 2
        border = int(entries[half][0].partition(b"-")[0])
        early = tuple(one for one in details.pending if int(one.id.partition(b"-")[0]) < border)
        late = tuple(one for one in details.pending if one not in early)
        kind = datatype("stream")
        first = details._replace(pending=early)
        send(any_server, kind.written(b"s", entries[:half], first, last=False))
        send(any_server, kind.written(b"s", entries[half:], details._replace(pending=late), first=False))
        assert_same(everything(any_server), before)

    def test_an_entry_without_fields_is_refused(self) -> None:
        with pytest.raises(ValueError, match="5-0 has no fields"):
            datatype("stream").written(b"s", [(b"5-0", {})], None)


groups, consumers = st.sampled_from(["g", "h"]), st.sampled_from(["c", "d"])
numbers = st.integers(1, 12)
steps = st.one_of(
    st.tuples(st.just("XADD"), st.just("s"), st.just("*"), st.just("f"), numbers),
    st.tuples(
        st.just("XADD"), st.just("s"), st.just("MAXLEN"), numbers, st.just("*"), st.just("f"), st.just("v")
    ),
    st.tuples(st.just("XDEL"), numbers),
    st.tuples(st.just("XTRIM"), st.just("s"), st.just("MAXLEN"), numbers),
    st.tuples(st.just("XREADGROUP"), groups, consumers, numbers),
    st.tuples(st.just("XACK"), groups, numbers),
    st.tuples(st.just("SETID"), groups, numbers),
)


def play(ask: Any, step: Any, ids: list[bytes]) -> None:
    """One step in the life of a stream; entries are named by the order in which they came."""
    name, *rest = step
    if name == "XADD":
        ids.append(ask(*step))
    elif name == "XTRIM":
        ask(*step)
    elif name == "XREADGROUP":
        group, consumer, count = rest
        ask("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", "s", ">")
    elif len(ids) >= rest[-1]:
        entry = ids[rest[-1] - 1]
        if name == "XDEL":
            ask("XDEL", "s", entry)
        elif name == "XACK":
            ask("XACK", "s", rest[0], entry)
        else:
            ask("XGROUP", "SETID", "s", rest[0], entry)


class TestLivesOfStreams:
    def test_whatever_happened_to_it(self, any_server) -> None:
        @settings(max_examples=60, deadline=None, database=None)
        @given(life=st.lists(steps, max_size=30))
        def check(life: list[Any]) -> None:
            any_server.admin.flushall()
            ask = any_server.admin.execute_command
            for group in ("g", "h"):
                ask("XGROUP", "CREATE", "s", group, "0", "MKSTREAM")
            ids: list[bytes] = []
            for step in life:
                play(ask, step, ids)
            rewritten(any_server)

        check()


class TestElements:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        string=words,
        fields=st.dictionaries(words, words, min_size=1),
        elements=st.lists(words, min_size=1),
        scores=st.dictionaries(words, doubles, min_size=1),
    )
    async def test_small_values(self, string, fields, elements, scores, server) -> None:
        ordered = sorted(scores.items(), key=lambda pair: (pair[1], pair[0]))
        values = {
            "string": string,
            "hash": fields,
            "list": elements,
            "set": set(elements),
            "zset": ordered,
            "stream": [(b"1-0", fields)],
        }
        for way in ("written", "written_each"):
            server.admin.flushall()
            for name, value in values.items():
                kind, key = datatype(name), name.encode()
                if way == "written" or name == "stream":
                    send(server, kind.written(key, value, None))
                else:
                    send(server, kind.written_each([key], [value]))
            found = everything(server)
            assert found[b"string"]["value"] == string
            assert found[b"hash"]["value"] == fields
            assert found[b"list"]["value"] == elements
            assert found[b"set"]["value"] == set(elements)
            assert {m: float(s) for m, s in found[b"zset"]["value"]} == scores
            assert fields_of(found[b"stream"]["value"][0][1]) == fields

    async def test_many_elements_are_several_commands(self, server) -> None:
        for name, value in (
            ("hash", {b"f%d" % n: b"v" * (n % 2000) for n in range(3000)}),
            ("list", [b"e" * (n % 3000) for n in range(3000)]),
            ("set", {b"m%d" % n for n in range(5000)}),
            ("zset", [(b"m%06d" % n, n / 7) for n in range(5000)]),
        ):
            burst = datatype(name).written(name.encode(), value, None)
            assert burst.replies > 2
            send(server, burst)
            found = everything(server)[name.encode()]
            assert value_of(found) == value

    async def test_a_string_in_pieces(self, server) -> None:
        kind = datatype("string")
        send(server, kind.written(b"s", b"one ", None, last=False))
        send(server, kind.written(b"s", b"two", None, first=False))
        assert server.admin.get("s") == b"one two"

    async def test_fields_that_expire(self, server) -> None:
        server.admin.hset("h", mapping={"a": 1, "b": 2, "c": 3, "d": 4})
        ask = server.admin.execute_command
        ask("HPEXPIREAT", "h", FAR, "FIELDS", 2, "a", "b")
        ask("HPEXPIREAT", "h", FAR + 1, "FIELDS", 1, "c")
        rewritten(server)

    async def test_a_dump(self, server) -> None:
        server.admin.rpush("l", *range(100))
        dump = server.admin.dump("l")
        send(server, datatype("module-xy").written(b"copy", Opaque("module-xy", dump), None))
        assert server.admin.lrange("copy", 0, -1) == server.admin.lrange("l", 0, -1)


DOCUMENT = {"'": 1, '"': 2, "a": [1, 2.5, None, True, "\x01"], 'b"\\c': {"": -0.0}, "ü": 2**60, "x\ny": "z"}


class TestDocuments:
    async def test_a_document(self, module_server) -> None:
        kind = datatype("ReJSON-RL")
        send(module_server, kind.written(b"d", DOCUMENT, None))
        send(module_server, kind.written_each([b"e"], [DOCUMENT]))
        found = everything(module_server)
        assert found[b"d"]["value"] == found[b"e"]["value"] == DOCUMENT

    async def test_in_pieces(self, module_server) -> None:
        kind = datatype("ReJSON-RL")
        for number, (name, member) in enumerate(DOCUMENT.items()):
            piece = {name: member}
            send(module_server, kind.written(b"d", piece, None, first=not number, last=False))
        elements = [*range(50)]
        for start in range(0, 50, 10):
            send(module_server, kind.written(b"l", elements[start : start + 10], None, first=not start))
        found = everything(module_server)
        assert found[b"d"]["value"] == DOCUMENT
        assert found[b"l"]["value"] == elements

    def test_what_no_piece_can_say_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no path"):
            datatype("ReJSON-RL").written(b"d", {"\\": None}, None, first=False)
        with pytest.raises(ValueError, match="not JSON compliant"):
            datatype("ReJSON-RL").written(b"d", float("nan"), None)


values = words | st.dictionaries(words, words) | st.lists(words) | st.sets(words) | st.tuples(words, words)


class TestPacking:
    @given(name=words, pairs=st.lists(st.tuples(words, values)))
    def test_both_ways_pack_what_hiredis_packs(self, name, pairs) -> None:
        keys, contents = [key for key, _ in pairs], [value for _, value in pairs]
        packed = writes(name, keys, contents)
        assert packed == _writes(name, keys, contents)
        by_hiredis = []
        for key, value in pairs:
            flat = [word for pair in value.items() for word in pair] if isinstance(value, dict) else value
            flat = [flat] if isinstance(flat, bytes) else list(flat)
            by_hiredis.append(pack_command((name, key, *flat)))
        assert packed == b"".join(by_hiredis)

    @pytest.mark.parametrize("pack", [writes, _writes])
    @pytest.mark.parametrize(
        "value", ["text", None, 1, {b"f": "v"}, {"f": b"v"}, [b"e", 1], {b"m", "t"}, (None,)]
    )
    def test_what_is_not_of_bytes_is_refused(self, pack, value) -> None:
        with pytest.raises(TypeError):
            pack(b"SET", [b"k"], [value])
        with pytest.raises(TypeError):
            pack(b"SET", ["k"], [b"v"])
        with pytest.raises(ValueError, match="value for each key"):
            pack(b"SET", [b"k"], [])
