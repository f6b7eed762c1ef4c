"""Which command for which key: every decision by hand, without a server; then what it costs a real one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest

import oneatatime
from oneatatime import Options, Parts, PermissionDenied, ServerFailure
from oneatatime._fetch import Fetch, Where
from oneatatime._options import Selection
from oneatatime._record import Batch
from oneatatime._request import Answer, Burst, ReplyError, ReplyTooBig
from oneatatime._resp import ARRAY
from oneatatime._shape import Shapes
from oneatatime._statistics import Account
from oneatatime.datatypes import Datatype, datatype, values_of
from tests.fake import as_array
from tests.reading import everything
from tests.servers import Server

WRONGTYPE = ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
MEMORY = 1 << 20


def stand_in(key: bytes, kind: Datatype, size: int) -> Parts:
    nothing: Any = None
    return Parts(key, kind.name, size, SimpleNamespace(chunks=nothing, blocking_chunks=nothing, load=nothing))


def fetch(
    options: Options | None = None, *, kind: str | None = None, seen: int = 0, **arguments: Any
) -> Fetch:
    """A fetch; where `kind` is given, all keys so far were of it, and `seen` values were small."""
    chosen = {
        name: arguments.pop(name)
        for name in ("types", "metadata", "encoding", "keys", "fields", "dump")
        if name in arguments
    }
    shapes = Shapes(datatype(kind) if kind else None)
    if kind is not None:
        assert shapes.uniform is not None
        shapes.uniform.size(datatype(kind)).measured(datatype(kind), 1, seen)
    return Fetch(
        Selection(**chosen),
        options or Options(),
        shapes,
        Where(
            "here",
            roomy=arguments.pop("roomy", lambda: True),
            burst=arguments.pop("burst", lambda: (options or Options()).burst),
        ),
        arguments.pop("account", None) or Account(),
        parts=stand_in,
        **arguments,
    )


def asked(burst: Burst) -> list[str]:
    """The commands in a burst, readable."""
    reader = hiredis.Reader()
    reader.feed(burst.payload)
    commands = [" ".join(word.decode() for word in reader.gets()) for _ in range(burst.replies)]
    assert reader.gets() is False
    return commands


Step = tuple[list[str], Any]


def talk(steps: Any, *script: Step) -> list[tuple[list[Any], Any, list[Any]]]:
    """Drives a fetch through a script of (commands expected, replies or a surprise); what it gave."""
    return [(batch.keys, batch.types, list(values_of(batch))) for batch in talked(steps, *script)]


def talked(steps: Any, *script: Step) -> list[Batch]:
    """The same; its batches."""
    batches: list[Batch] = []
    lines: Iterator[Step] = iter(script)
    item = next(steps, None)
    while item is not None:
        if isinstance(item, Batch):
            batches.append(item)
            item = next(steps, None)
            continue
        commands = asked(item)
        expected, replies = next(lines, ([], None))
        assert commands == expected
        try:
            if replies is ReplyTooBig:
                assert item.bounded
                item = steps.throw(ReplyTooBig())
            else:
                assert len(replies) == len(commands)
                size = sum(len(repr(reply)) for reply in replies)
                item = steps.send(Answer([as_array(reply) for reply in replies], size))
        except StopIteration:
            break
    assert list(lines) == []
    return batches


# The straight ways


def test_keys_of_the_one_type_there_is_are_read_at_once() -> None:
    assert talk(
        fetch(kind="hash").batches([b"a", b"b"]),
        (["HSCAN a 0", "HSCAN b 0"], [[b"0", [b"f", b"1"]], [b"0", [b"f", b"2"]]]),
    ) == [([b"a", b"b"], "hash", [{b"f": b"1"}, {b"f": b"2"}])]


def test_strings_that_have_proven_small_are_read_by_one_command() -> None:
    assert talk(fetch(kind="string", seen=100).batches([b"a", b"b"]), (["MGET a b"], [[b"1", b""]])) == [
        ([b"a", b"b"], "string", [b"1", b""])
    ]


@pytest.mark.parametrize(("seen", "roomy"), [(0, True), (100, False)])
def test_strings_are_asked_for_with_a_bound_where_nothing_is_proven_or_memory_is_short(
    seen: int, roomy: bool
) -> None:
    steps = fetch(kind="string", seen=seen, roomy=lambda: roomy).batches([b"a"])
    assert talk(steps, (["GETRANGE a 0 65535"], [b"1"])) == [([b"a"], "string", [b"1"])]


def test_unknown_keys_are_asked_for_their_types_then_read_in_one_burst() -> None:
    assert talk(
        fetch().batches([b"a", b"b", b"c"]),
        (["TYPE a", "TYPE b", "TYPE c"], [b"string", b"none", b"list"]),
        (["GETRANGE a 0 65535", "LRANGE c 0 8"], [b"1", [b"x", b"y"]]),
    ) == [([b"a", b"c"], ["string", "list"], [b"1", [b"x", b"y"]])]


def test_what_a_shape_was_is_guessed_and_a_wrong_guess_is_mended() -> None:
    reader = fetch()
    list_step = talk(
        reader.batches([b"k1", b"k2"]),
        (["TYPE k1", "TYPE k2"], [b"list", b"list"]),
        (["LRANGE k1 0 8", "LRANGE k2 0 8"], [[b"1"], [b"2"]]),
    )
    assert list_step == [([b"k1", b"k2"], ["list", "list"], [[b"1"], [b"2"]])]
    assert talk(
        reader.batches([b"k3", b"k4"]),
        (["LRANGE k3 0 8", "LRANGE k4 0 8"], [WRONGTYPE, [b"4"]]),
        (["TYPE k3"], [b"set"]),
        (["SSCAN k3 0"], [[b"0", [b"m"]]]),
    ) == [([b"k3", b"k4"], ["set", "list"], [{b"m"}, [b"4"]])]


def test_keys_are_asked_for_in_bursts_that_fit() -> None:
    reader = fetch(Options(burst=32 * 1024), kind="hash")
    one = [b"0", [b"f", b"x" * 50]]
    batches = talk(
        reader.batches([b"a", b"b", b"c", b"d", b"e"]),
        (["HSCAN a 0", "HSCAN b 0"], [one, one]),  # each is taken to weigh 16 KiB at first
        (["HSCAN c 0", "HSCAN d 0", "HSCAN e 0"], [one, one, one]),
    )
    assert [keys for keys, _, _ in batches] == [[b"a", b"b"], [b"c", b"d", b"e"]]


# Gone, empty, unwanted


@pytest.mark.parametrize("keep_missing", [False, True])
def test_a_nil_among_strings_is_looked_at_again(keep_missing: bool) -> None:
    reader = fetch(kind="string", seen=100, keep_missing=keep_missing)
    batches = talk(
        reader.batches([b"a", b"b", b"c", b"d"]),
        (["MGET a b c d"], [[b"1", None, None, b"4"]]),
        (["TYPE b", "TYPE c"], [b"none", b"list"]),
        (["LRANGE c 0 8"], [[b"3"]]),
    )
    expected = [(b"a", "string", b"1"), (b"b", "none", None), (b"c", "list", [b"3"]), (b"d", "string", b"4")]
    if not keep_missing:
        del expected[1]
    assert [tuple(zip(*batch)) for batch in batches] == [tuple(expected)]
    assert reader._account.vanished == 1


@pytest.mark.parametrize(
    ("reply", "value", "vanished"), [(b"", b"", 0), (None, None, 1), (b"now", b"now", 0)]
)
def test_an_empty_string_is_told_from_none(reply: Any, value: Any, vanished: int) -> None:
    reader = fetch(kind="string")
    batches = talk(reader.batches([b"a"]), (["GETRANGE a 0 65535"], [b""]), (["GET a"], [reply]))
    assert batches == [([b"a"], ["string"], [value])] or vanished
    assert reader._account.vanished == vanished


def test_a_stream_without_entries_is_told_from_none() -> None:
    reader = fetch(kind="stream")
    batches = talk(
        reader.batches([b"a", b"b", b"c", b"d"]),
        ([f"XRANGE {key} - + COUNT 9" for key in "abcd"], [[], [], [], []]),
        (
            [f"XINFO STREAM {key}" for key in "abcd"],
            [ReplyError("ERR no such key"), [b"length", 0], {b"length": 0}, {b"length": 1}],
        ),
        (["TYPE d"], [b"stream"]),
        (["XRANGE d - + COUNT 9"], [[[b"1-1", [b"f", b"v"]]]]),
    )
    assert batches == [([b"b", b"c", b"d"], ["stream"] * 3, [[], [], [(b"1-1", {b"f": b"v"})]])]
    assert reader._account.vanished == 1


@pytest.mark.parametrize(
    ("kind", "reply"), [("hash", [b"0", []]), ("set", [b"0", []]), ("list", []), ("zset", [])]
)
def test_an_empty_collection_is_a_vanished_key(kind: str, reply: Any) -> None:
    reader = fetch(kind=kind)
    steps = reader.batches([b"a"])
    next(steps)
    batches = []
    with pytest.raises(StopIteration):
        batches.append(steps.send(Answer([as_array(reply)], 10)))
        batches.append(next(steps))
    assert sum(len(batch) for batch in batches if isinstance(batch, Batch)) == 0
    assert reader._account.vanished == 1


def test_types_that_are_not_wanted_are_left_out_and_not_missing() -> None:
    reader = fetch(types=("hash", "set"))
    assert talk(
        reader.batches([b"a", b"b", b"c"]),
        (["TYPE a", "TYPE b", "TYPE c"], [b"string", b"hash", b"zset"]),
        (["HSCAN b 0"], [[b"0", [b"f", b"v"]]]),
    ) == [([b"b"], ["hash"], [{b"f": b"v"}])]
    assert reader._account.vanished == 0


def test_names_are_asked_nothing_or_their_types() -> None:
    assert talk(fetch().names([b"a", b"b"], check_types=False)) == [([b"a", b"b"], "", [])]
    assert talk(
        fetch(types=("hash", "set")).names([b"a", b"b"], check_types=True),
        (["TYPE a", "TYPE b"], [b"list", b"set"]),
    ) == [([b"b"], ["set"], [])]
    assert talk(
        fetch(keys=[b"a", b"b"]).names([b"a", b"b"], check_types=False),
        (["TYPE a", "TYPE b"], [b"list", b"none"]),
    ) == [([b"a"], ["list"], [])]


def test_a_key_that_is_another_at_every_look_ends_in_an_error_and_not_in_a_circle() -> None:
    steps = fetch(kind="hash").batches([b"a"])
    item, looks = next(steps), 0
    with pytest.raises(ServerFailure, match="changed its type") as caught:
        while True:
            looks += 1
            typed = asked(item) == ["TYPE a"]  # type: ignore[arg-type]
            item = steps.send(Answer([[b"hash", b"list"][looks % 2] if typed else WRONGTYPE], 10))
    assert caught.value.key == b"a"
    assert 50 < looks < 200


# More than was asked for


def test_what_was_more_is_measured_then_read_whole_in_its_place() -> None:
    assert talk(
        fetch(kind="list").batches([b"a", b"b", b"c"]),
        (["LRANGE a 0 8", "LRANGE b 0 8", "LRANGE c 0 8"], [[b"1"], [b"2"] * 9, [b"3"]]),
        (["MEMORY USAGE b"], [5000]),
        (["LRANGE b 0 1073741824"], [[b"2"] * 40]),
    ) == [([b"a", b"b", b"c"], ["list"] * 3, [[b"1"], [b"2"] * 40, [b"3"]])]


def test_what_is_over_the_limit_is_parts_and_not_read() -> None:
    ((keys, types, values),) = talk(
        fetch(kind="hash").batches([b"a", b"b"]),
        (["HSCAN a 0", "HSCAN b 0"], [[b"77", [b"f", b"1"] * 8], [b"0", [b"f", b"2"]]]),
        (["MEMORY USAGE a"], [2 * MEMORY]),
    )
    assert (keys, types, values[1]) == ([b"a", b"b"], ["hash", "hash"], {b"f": b"2"})
    assert isinstance(values[0], Parts)
    assert (values[0].key, values[0].type, values[0].size) == (b"a", "hash", 2 * MEMORY)


def test_a_middling_hash_is_read_in_chunks_and_put_together() -> None:
    (batch,) = talk(
        fetch(kind="hash").batches([b"a"]),
        (["HSCAN a 0"], [[b"77", [b"f", b"1"] * 8]]),
        (["MEMORY USAGE a"], [200_000]),
        (["HSCAN a 0 COUNT 8"], [[b"5", [b"f", b"1"]]]),
        (["HSCAN a 5 COUNT 32"], [[b"9", [b"g", b"2", b"f", b"3"]]]),
        (["HSCAN a 9 COUNT 128"], [[b"0", []]]),
    )
    assert batch == ([b"a"], ["hash"], [{b"f": b"3", b"g": b"2"}])


def test_a_value_that_went_or_changed_between_measure_and_read_is_looked_at_again() -> None:
    reader = fetch(kind="list")
    assert talk(
        reader.batches([b"a", b"b", b"c"]),
        ([f"LRANGE {key} 0 8" for key in "abc"], [[b"1"] * 9] * 3),
        ([f"MEMORY USAGE {key}" for key in "abc"], [None, 5000, 5000]),
        (["TYPE a"], [b"none"]),
        (["LRANGE b 0 1073741824"], [[]]),
        (["LRANGE c 0 1073741824"], [WRONGTYPE]),
        (["TYPE c"], [b"string"]),
        (["GETRANGE c 0 65535"], [b"3"]),
    ) == [([b"c"], ["string"], [b"3"])]
    assert reader._account.vanished == 2


def test_heavy_rows_are_handed_out_in_pieces_that_keep_the_order() -> None:
    keys = [b"%d" % n for n in range(8)]
    sizes = {1: 600_000, 3: 600_000, 4: 300_000, 6: 900_000}
    first = [[b"x"] * (17 if n in sizes else 1) for n in range(8)]
    batches = talk(
        fetch(kind="list").batches(keys),
        ([f"LRANGE {n} 0 8" for n in range(8)], first),
        ([f"MEMORY USAGE {n}" for n in sizes], list(sizes.values())),
        *[([f"LRANGE {n} 0 1073741824"], [[b"%d" % n] * 20]) for n in sizes],
    )
    assert [batch[0] for batch in batches] == [keys[:3], keys[3:6], keys[6:]]
    assert [len(value) for batch in batches for value in batch[2]] == [1, 20, 1, 20, 20, 1, 20, 1]


@pytest.mark.parametrize("kind", ["list", "set", "hash"])
def test_few_elements_that_are_long_are_over_the_limit_too(kind: str) -> None:
    long = b"x" * 40_000
    reply: Any = {"list": [long] * 2, "set": [b"0", [long, b"y" * 40_000]], "hash": [b"0", [b"f", long * 2]]}[
        kind
    ]
    name = {"list": "LRANGE a 0 8", "set": "SSCAN a 0", "hash": "HSCAN a 0"}[kind]
    ((_, _, (value,)),) = talk(
        fetch(Options(parts_over=70_000), kind=kind).batches([b"a"]), ([name], [reply])
    )
    assert isinstance(value, Parts)
    assert 80_000 <= value.size <= 80_001


# Surprises, in each place where one can come


def test_after_a_surprise_each_key_is_asked_by_itself_and_the_big_one_shows() -> None:
    ((keys, _, values),) = talk(
        fetch(kind="string", seen=100).batches([b"a", b"b", b"c"]),
        (["MGET a b c"], ReplyTooBig),
        (["GETRANGE a 0 65535"], [b"1"]),
        (["GETRANGE b 0 65535"], [b"x" * 65536]),
        (["GETRANGE c 0 65535"], [b"3"]),
        (["STRLEN b"], [30 * MEMORY]),
    )
    assert keys == [b"a", b"b", b"c"]
    assert (values[0], values[2]) == (b"1", b"3")
    assert isinstance(values[1], Parts)


def test_after_a_surprise_strings_of_that_shape_are_asked_for_with_a_bound() -> None:
    reader = fetch(kind="string", seen=100)
    talk(reader.batches([b"a"]), (["MGET a"], ReplyTooBig), (["GETRANGE a 0 65535"], [b"1"]))
    talk(reader.batches([b"b"]), (["GETRANGE b 0 65535"], [b"2"]))


def test_elements_too_big_for_any_reply_are_measured_where_they_surprise() -> None:
    ((_, _, values),) = talk(
        fetch(kind="hash").batches([b"a", b"b"]),
        (["HSCAN a 0", "HSCAN b 0"], ReplyTooBig),
        (["HSCAN a 0 COUNT 2"], [[b"0", [b"f", b"1"]]]),
        (["HSCAN b 0 COUNT 2"], ReplyTooBig),
        (["MEMORY USAGE b"], [30 * MEMORY]),
    )
    assert values[0] == {b"f": b"1"}
    assert isinstance(values[1], Parts)


def test_a_surprise_in_a_mixed_round_loses_neither_types_nor_metadata() -> None:
    reader = fetch(metadata=("ttl",))
    talk(
        reader.batches([b"l:1", b"l:2"]),
        (["PTTL l:1", "PTTL l:2", "TYPE l:1", "TYPE l:2"], [-1, -1, b"list", b"list"]),
        (["LRANGE l:1 0 8", "LRANGE l:2 0 8"], [[b"1"], [b"2"]]),
    )
    steps = reader.batches([b"l:3", b"new"])
    batches = talk(
        steps,
        (["PTTL l:3", "PTTL new", "TYPE new", "LRANGE l:3 0 8"], ReplyTooBig),
        (["LRANGE l:3 0 2"], [[b"3"]]),
        (["PTTL l:3", "PTTL new", "TYPE new"], [50, -1, b"set"]),
        (["SSCAN new 0"], [[b"0", [b"m"]]]),
    )
    assert batches == [([b"l:3", b"new"], ["list", "set"], [[b"3"], {b"m"}])]


def test_a_surprise_where_an_empty_string_was_expected_has_it_measured() -> None:
    ((_, _, (value,)),) = talk(
        fetch(kind="string").batches([b"a"]),
        (["GETRANGE a 0 65535"], [b""]),
        (["GET a"], ReplyTooBig),
        (["STRLEN a"], [30 * MEMORY]),
    )
    assert isinstance(value, Parts)


def test_a_surprise_in_a_heavy_read_makes_parts_of_it() -> None:
    ((_, _, values),) = talk(
        fetch(kind="list").batches([b"a", b"b"]),
        (["LRANGE a 0 8", "LRANGE b 0 8"], [[b"1"] * 9, [b"2"] * 9]),
        (["MEMORY USAGE a", "MEMORY USAGE b"], [5000, 5000]),
        (["LRANGE a 0 1073741824"], ReplyTooBig),
        (["LRANGE b 0 1073741824"], [[b"2"] * 20]),
    )
    assert isinstance(values[0], Parts)
    assert values[1] == [b"2"] * 20


def test_a_surprise_in_a_chunk_makes_parts_of_it() -> None:
    ((_, _, (value,)),) = talk(
        fetch(kind="hash").batches([b"a"]),
        (["HSCAN a 0"], [[b"77", [b"f", b"1"] * 8]]),
        (["MEMORY USAGE a"], [200_000]),
        (["HSCAN a 0 COUNT 8"], ReplyTooBig),
    )
    assert isinstance(value, Parts)


# Refusals


def test_a_key_that_may_not_be_read_is_named_with_the_command() -> None:
    refused = ReplyError("NOPERM No permissions to access a key")
    account = Account()
    steps = fetch(kind="hash", account=account).batches([b"a", b"b"])
    next(steps)
    batch = steps.send(Answer([ARRAY([b"0", ARRAY([b"f", b"v"])]), refused], 10))
    assert isinstance(batch, Batch) and batch.keys == [b"a"]
    assert account.forbidden == 1
    assert all(word in account.failures[0] for word in ("key b'b'", "HSCAN", "node here"))


def test_a_command_that_is_not_allowed_ends_everything() -> None:
    refused = ReplyError("NOPERM User x has no permissions to run the 'hscan' command")
    steps = fetch(kind="hash").batches([b"a", b"b"])
    next(steps)
    with pytest.raises(PermissionDenied) as caught:
        steps.send(Answer([ARRAY([b"0", ARRAY([b"f", b"v"])]), refused], 10))
    assert (caught.value.key, caught.value.command, caught.value.node) == (b"b", "HSCAN", "here")


@pytest.mark.parametrize(
    "words", ["PTTL", "MEMORY USAGE", "OBJECT IDLETIME", "OBJECT FREQ", "OBJECT ENCODING"]
)
def test_metadata_that_is_refused_is_an_error_and_that_of_a_vanished_key_is_not(words: str) -> None:
    name = dict(
        zip(
            ("PTTL", "MEMORY USAGE", "OBJECT IDLETIME", "OBJECT FREQ", "OBJECT ENCODING"),
            oneatatime._options.METADATA,
        )
    )[words]  # type: ignore[attr-defined]
    reader = fetch(kind="hash", metadata=(name,))
    assert talk(
        reader.batches([b"a"]),
        ([f"{words} a", "HSCAN a 0"], [ReplyError("ERR no such key"), [b"0", []]]),
    ) in ([], [([], [], [])])
    assert reader._account.vanished == 1
    steps = reader.batches([b"a"])
    next(steps)
    with pytest.raises(PermissionDenied) as caught:
        steps.send(Answer([ReplyError("NOPERM"), [b"0", [b"f", b"v"]]], 10))
    assert (caught.value.key, caught.value.command) == (b"a", words)


# What it costs a real server

KEYS = 20_000


def load(server: Server, commands: Callable[[int], tuple[Any, ...]]) -> None:
    for start in range(0, KEYS, 5000):
        pipe = server.admin.pipeline(transaction=False)
        for n in range(start, start + 5000):
            pipe.execute_command(*commands(n))
        pipe.execute()


BY_KIND: dict[str, Callable[[str, int], tuple[Any, ...]]] = {
    "string": lambda key, n: ("SET", key, "x" * 100),
    "hash": lambda key, n: ("HSET", key, *[word for f in range(5) for word in (f"field{f}", f"value{n}")]),
    "list": lambda key, n: ("RPUSH", key, *range(10)),
    "set": lambda key, n: ("SADD", key, *[f"m{m}" for m in range(10)]),
    "zset": lambda key, n: ("ZADD", key, *[word for m in range(10) for word in (m, f"m{m}")]),
    "stream": lambda key, n: ("XADD", key, "1-1", "f", "v"),
}


async def cost(server: Server, **arguments: Any) -> float:
    """Commands per key."""
    stream = oneatatime.stream(server.url, **arguments)
    async for _ in stream.batches():
        pass
    done = stream.statistics()
    assert (done.keys, done.complete) == (KEYS, True)
    assert done.round_trips < KEYS / 25
    return done.commands / KEYS


@pytest.mark.parametrize("kind", BY_KIND)
async def test_one_type_costs_one_command_a_key(server: Server, kind: str) -> None:
    load(server, lambda n: BY_KIND[kind](f"key:{n}", n))
    assert await cost(server) <= (0.1 if kind == "string" else 1.05)
    assert await cost(server, types=kind) <= (0.1 if kind == "string" else 1.05)
    assert await cost(server, metadata="ttl") <= 2.05


async def test_types_told_by_prefix_cost_little_more(server: Server) -> None:
    kinds = list(BY_KIND)
    load(server, lambda n: BY_KIND[kinds[n % 6]](f"{kinds[n % 6]}:{n}", n))
    assert await cost(server) <= 1.2


async def test_types_told_by_prefix_of_ids_that_are_no_numbers_cost_little_more(server: Server) -> None:
    kinds = list(BY_KIND)
    load(server, lambda n: BY_KIND[kinds[n % 6]](f"{kinds[n % 6]}:{hash(('salt', n)) & 0xFFFFFFFFFFFF:x}", n))
    assert await cost(server) <= 1.2


async def test_types_that_nothing_tells_cost_two(server: Server) -> None:
    kinds = list(BY_KIND)
    load(server, lambda n: BY_KIND[kinds[n % 6]](f"{n * 7919 % 1_000_003}", n))
    assert await cost(server) <= 2.1


# A giant among small ones

_READ = """
    import asyncio, pathlib, sys
    import oneatatime

    def peak():
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    async def main():
        async for key, value in oneatatime.stream(sys.argv[1]):
            if isinstance(value, oneatatime.Parts):
                kinds = {"string": len, "hash": lambda part: sum(map(len, part)), "list": len}
                print(key.decode(), sum([kinds[value.type](part) async for part in value]))

    before = peak()
    asyncio.run(main())
    print(peak() - before)
"""


ELEMENTS = {"elements": [94] * 300_000, "long elements": [400_000] * 75, "one element": [30_000_000]}


def giant(server: Server, kind: str, elements: str) -> int:
    """30 MB under the same prefix as 20,000 small ones; the bytes it is."""
    load(server, lambda n: BY_KIND[kind](f"key:{n}", n))
    server.admin.delete("key:9999")
    if kind == "string":
        server.admin.set("key:9999", bytes(30_000_000))
        return 30_000_000
    pipe = server.admin.pipeline(transaction=False)
    for n, size in enumerate(ELEMENTS[elements]):
        before = ("HSET", "key:9999", b"%06d" % n) if kind == "hash" else ("RPUSH", "key:9999")
        pipe.execute_command(*before, bytes(size))
    pipe.execute()
    return sum(ELEMENTS[elements]) + (6 * len(ELEMENTS[elements]) if kind == "hash" else 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("kind", "elements"),
    [("string", "one element"), *[(kind, elements) for kind in ("hash", "list") for elements in ELEMENTS]],
)
async def test_a_giant_hidden_among_small_ones_is_bounded_here_and_in_the_server(
    server: Server, kind: str, elements: str
) -> None:
    size = giant(server, kind, elements)
    reading = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(_READ), server.url, stdout=subprocess.PIPE
    )
    output_memory, done = [0], asyncio.create_task(reading.communicate())
    while not done.done():
        lines = (await asyncio.to_thread(server.ask, "CLIENT", "LIST")).decode().splitlines()
        fields = [dict(word.split("=", 1) for word in line.split(" ") if "=" in word) for line in lines]
        output_memory += [sum(int(one["omem"]) for one in fields if one["name"] == "oneatatime")]
        await asyncio.sleep(0.002)
    assert reading.returncode == 0
    told, grown = (await done)[0].decode().splitlines()
    assert told == f"key:9999 {size}"
    print(f"{kind}: {int(grown) // 1024} MiB here, {max(output_memory) / 2**20:.1f} MiB in the server")
    # a string that nobody foresaw is one reply there, and refused here; an element is one reply at both ends
    assert int(grown) <= 64 * 1024 + (30_000 if elements == "one element" and kind != "string" else 0)
    assert max(output_memory) <= 16 * 2**20 + (30_000_000 if elements == "one element" else 0)


async def test_values_beside_a_giant_are_right(server: Server) -> None:
    load(server, lambda n: ("SET", f"key:{n}", f"value {n}"))
    server.admin.set("key:9999", bytes(30_000_000))
    started = time.monotonic()
    found = await everything(server.url)
    assert isinstance(found.pop(b"key:9999"), Parts)
    assert found == {b"key:%d" % n: b"value %d" % n for n in range(KEYS) if n != 9999}
    assert time.monotonic() - started < 10


async def test_a_guess_is_proven_before_it_is_measured(server: Server) -> None:
    """MEMORY USAGE answers for any type: big strings once came as the parts of lists, and so empty."""
    elements = [b"%0100d" % number for number in range(500)]
    for number in range(300):
        server.admin.rpush(f"list:{number}", *elements)
    for number in range(5):
        server.admin.set(f"page:{number}", b"x" * 3_000_000)
    lengths: dict[bytes, int] = {}
    async for key, value in oneatatime.stream(server.url):
        if isinstance(value, oneatatime.Parts):
            lengths[key] = sum([len(chunk) async for chunk in value])
            assert value.torn is False
        else:
            lengths[key] = len(value)
    assert lengths == {
        **{b"list:%d" % number: 500 for number in range(300)},
        **{b"page:%d" % number: 3_000_000 for number in range(5)},
    }
