"""The parser and its kin, compiled and in Python: one does what the other does, whatever comes."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import random
import tracemalloc
from array import array
from collections.abc import Callable
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneatatime import _resp
from oneatatime._resp import HiredisParser, Parser

MAKERS: list[Callable[[], Parser]] = [HiredisParser]
if _resp.COMPILED:
    from oneatatime import _compiled

    MAKERS.append(lambda: _compiled.Parser(hiredis.ReplyError))

every_parser = pytest.mark.parametrize("make", MAKERS, ids=["hiredis", "compiled"][: len(MAKERS)])
needs_compiled = pytest.mark.skipif(not _resp.COMPILED, reason="installed without a compiler")

# What a reply is, and the bytes of it

words = st.binary(max_size=20)
numbers = st.integers(min_value=-(2**63), max_value=2**63 - 1)
doubles = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 1.5, 12345.678, -3.0, 1e15, 1e16, 0.1])
leaves = st.one_of(
    words, numbers, doubles, st.booleans(), st.none(), st.builds(hiredis.ReplyError, st.just("ERR no"))
)
replies = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(words, inner, max_size=3),
    max_leaves=20,
)


def written(reply: Any) -> bytes:
    if reply is None:
        return b"_\r\n"
    if isinstance(reply, bool):
        return b"#t\r\n" if reply else b"#f\r\n"
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, float):
        return b",%b\r\n" % repr(reply).encode()
    if isinstance(reply, hiredis.ReplyError):
        return b"-%b\r\n" % str(reply).encode()
    if isinstance(reply, dict):
        return b"%%%d\r\n%b" % (len(reply), b"".join(written(k) + written(v) for k, v in reply.items()))
    return b"*%d\r\n%b" % (len(reply), b"".join(map(written, reply)))


def plain(reply: Any) -> Any:
    """Comparable: arrays as lists, numbers with their sign and type, errors as their text."""
    if isinstance(reply, list | tuple):
        return [plain(element) for element in reply]
    if isinstance(reply, dict):
        return {name: plain(content) for name, content in reply.items()}
    if isinstance(reply, hiredis.ReplyError):
        return ("error", str(reply))
    if isinstance(reply, float):
        return ("float", repr(reply))
    return (type(reply).__name__, reply)


def parsed(parser: Parser, data: bytes, cuts: list[int], bounded: bool = True) -> list[Any]:
    """The replies in what comes in pieces."""
    found: list[Any] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        parser.feed(memoryview(data[start:stop]))
        while parser.take(found, 3, bounded):
            pass
    return found


@every_parser
@given(several=st.lists(replies, max_size=6), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_what_was_written_is_read_however_it_is_cut(
    make: Callable[[], Parser], several: list[Any], cuts: list[int]
) -> None:
    data = b"".join(map(written, several))
    parser = make()
    assert plain(parsed(parser, data, cuts)) == plain(several)
    assert parser.consumed == len(data)
    assert parser.buffered == 0


@every_parser
@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b"+\r\n", b""),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b",inf\r\n", math.inf),
        (b",-inf\r\n", -math.inf),
        (b",1e300\r\n", 1e300),
        (b",-0\r\n", -0.0),
        (b",0.30000000000000004\r\n", 0.30000000000000004),
        (b"(123456789012345678901234567890\r\n", b"123456789012345678901234567890"),
        (b"=8\r\ntxt:abcd\r\n", b"abcd"),
        (b"~2\r\n:1\r\n:2\r\n", [1, 2]),
        (b":-9223372036854775808\r\n", -(2**63)),
        (b"$2\r\n\r\n\r\n", b"\r\n"),
        (b"-ERR \xff\r\n", hiredis.ReplyError("ERR \ufffd")),
    ],
)
def test_a_reply(make: Callable[[], Parser], data: bytes, reply: Any) -> None:
    for cut in range(len(data) + 1):
        assert plain(parsed(make(), data, [cut])) == [plain(reply)]


@every_parser
@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b":\r\n",
        b":1x\r\n",
        b":9223372036854775808\r\n",
        b":99999999999999999999\r\n",
        b"#x\r\n",
        b"_x\r\n",
        b",\r\n",
        b",1x\r\n",
        b"$-2\r\n",
        b"$x\r\n",
        b"$99999999999999999999\r\n",
        b"*-2\r\n",
        b"*18446744073709551615\r\n",
        b"%1\r\n*0\r\n:1\r\n",
        b"=3\r\nabc\r\n",
        b"*1000000000\r\n",
        b"*10000000\r\n",
        b"*2\r\n:1\r\n*1000000000\r\n",
    ],
)
def test_nonsense_is_refused(make: Callable[[], Parser], data: bytes) -> None:
    with pytest.raises((ValueError, TypeError, hiredis.HiredisError)):
        parsed(make(), data, [])


@needs_compiled
@pytest.mark.parametrize(
    "data",
    [
        b"$1\r\nabc\r\n",
        b"$1\nx\r\n",
        b"+OK\n\r\n",
        b"+a\rb\r\n",
        b"|1\r\n+a\r\n:1\r\n:2\r\n",
        b"$?\r\n",
        b"+" + b"x" * 1_100_000,
        b"$" + b"0" * 50,
        b"*1\r\n" * 100 + b":1\r\n",
        b"~-1\r\n",
        b"%-1\r\n",
    ],
)
def test_what_hiredis_lets_pass_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(MAKERS[-1](), data, [])


@every_parser
def test_an_unbounded_array_may_be_long(make: Callable[[], Parser]) -> None:
    parser = make()
    parser.feed(memoryview(b"*10000000\r\n:1\r\n"))
    assert parser.take([], 1, False) == 0


@every_parser
def test_what_is_pushed_is_no_reply(make: Callable[[], Parser]) -> None:
    parser = make()
    assert parsed(parser, b":1\r\n>2\r\n+push\r\n+message\r\n:2\r\n", []) == [1, 2]
    assert [list(message) for message in parser.pushed] == [[b"push", b"message"]]


@every_parser
def test_no_more_is_taken_than_was_asked_for(make: Callable[[], Parser]) -> None:
    parser, found = make(), list[Any]()
    parser.feed(memoryview(b":1\r\n:2\r\n:3\r\n"))
    assert [parser.take(found, 2, True), found] == [2, [1, 2]]
    assert [parser.take(found, 2, True), found] == [1, [1, 2, 3]]


@needs_compiled
@pytest.mark.parametrize("double", [b"x", b"", b"+", b"1e", b"1.5x"])
def test_an_error_tells_nothing_of_what_comes_behind(double: bytes) -> None:
    with pytest.raises(ValueError) as told:
        parsed(MAKERS[-1](), b",%b\r\n+secret\r\n" % double, [])
    assert "secret" not in str(told.value)


@every_parser
def test_a_long_line(make: Callable[[], Parser]) -> None:
    assert parsed(make(), b"+" + b"x" * 200_000 + b"\r\n", [70_000]) == [b"x" * 200_000]


@needs_compiled
def test_one_that_was_not_set_up() -> None:
    parser = _compiled.Parser.__new__(_compiled.Parser)
    parser.feed(b":1\r\n")
    with pytest.raises(RuntimeError):
        parser.take([], 1, True)


@needs_compiled
def test_it_counts_every_byte() -> None:
    parser = MAKERS[-1]()
    parser.feed(memoryview(b":1\r\n$5\r\nab"))
    assert parser.take([], 9, True) == 1
    assert (parser.consumed, parser.buffered) == (4, 6)


@needs_compiled
def test_a_length_makes_no_room_before_its_bytes_have_come() -> None:
    tracemalloc.start()
    try:
        parser = MAKERS[-1]()
        parser.feed(memoryview(b"*9999999\r\n$1000000000\r\nx"))
        assert parser.take([], 1, True) == 0
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@needs_compiled
def test_a_long_reply_leaves_no_long_buffer() -> None:
    parser = MAKERS[-1]()
    tracemalloc.start()
    try:
        for _ in range(2):
            assert len(parsed(parser, b"$30000000\r\n" + b"x" * 30_000_000 + b"\r\n", [7])) == 1
        parser.feed(memoryview(b":1\r\n"))
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


@needs_compiled
def test_the_collector_need_not_know_of_what_holds_only_words() -> None:
    (page,) = parsed(MAKERS[-1](), written([[b"1-1", [b"field", b"value"]], 1.5, None, []]), [])
    assert not gc.is_tracked(page)
    assert not gc.is_tracked(page[0])
    (held,) = parsed(MAKERS[-1](), written([{b"a": b"b"}]), [])
    assert gc.is_tracked(held)


@every_parser
def test_garbage_never_does_harm(make: Callable[[], Parser]) -> None:
    dice = random.Random(7)
    whole = written([b"x", [b"a" * 50, 12, 1.5], {b"n": [b"v"] * 9}, None, True] * 3)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.choice(b"\r\n$*:%,#_-+0123456789xyz\x00\xff")
        parser = make()
        with contextlib.suppress(ValueError, TypeError, hiredis.HiredisError):
            parsed(parser, bytes(data), [dice.randrange(len(data))])


# Keys and words

some_keys = st.lists(st.binary(max_size=300), max_size=30)


@needs_compiled
@given(before=words, keys=some_keys, after=words)
def test_commands_are_packed_alike(before: bytes, keys: list[bytes], after: bytes) -> None:
    expected = b"".join([before + b"$%d\r\n%b\r\n" % (len(key), key) + after for key in keys])
    assert _compiled.commands(before, keys, after) == expected
    assert _compiled.commands(before, tuple(keys), after) == expected


@needs_compiled
@given(keys=some_keys, digits=st.booleans())
def test_words_are_grouped_alike(keys: list[bytes], digits: bool) -> None:
    assert _compiled.alike(keys, digits) == _resp._alike(keys, digits)
    assert list(_compiled.alike(keys, digits)) == list(_resp._alike(keys, digits))
    assert _compiled.size_of(keys) == _resp._size_of(keys)


@needs_compiled
@given(names=st.lists(words, max_size=9))
def test_fields_are_paired_alike(names: list[bytes]) -> None:
    flat = tuple(word for name in names for word in (name, name + b"!"))
    assert _compiled.fields(flat) == _resp._fields(flat)


@needs_compiled
@given(
    several=st.lists(st.lists(words | st.none(), max_size=5).map(tuple) | leaves, max_size=6),
    shorter=st.booleans(),
)
def test_words_of_several_arrays_are_joined_alike(several: list[Any], shorter: bool) -> None:
    lengths = [len(one) if isinstance(one, tuple) else 1 for one in several][: len(several) - shorter]
    assert _compiled.words_of(several, lengths) == _resp._words_of(several, lengths)


def test_words_of_an_array_that_is_shorter_or_no_array_are_none() -> None:
    array = _resp.ARRAY
    assert _resp.words_of([array([b"a", b"b"]), array([b"c"])], [2, 1]) == [b"a", b"b", b"c"]
    for broken in (
        [array([b"a"]), array([b"c"])],
        [array([b"a", None]), array([b"c"])],
        [b"ab", array([b"c"])],
    ):
        assert _resp.words_of(broken, [2, 1]) is None


@needs_compiled
@given(values=st.lists(words | st.lists(words, max_size=5).map(tuple) | st.lists(words, max_size=5)))
def test_lengths_are_the_same(values: list[Any]) -> None:
    assert _compiled.lengths(values) == _resp._lengths(values)


@needs_compiled
def test_wrong_arguments_are_named() -> None:
    parser = MAKERS[-1]()
    for call in (
        lambda: parser.feed("text"),  # type: ignore[arg-type]
        lambda: parser.take((), 1, True),  # type: ignore[arg-type]
        lambda: parser.take([], "1", True),  # type: ignore[arg-type]
        lambda: _compiled.commands(b"", ["text"], b""),  # type: ignore[list-item]
        lambda: _compiled.commands("", [], b""),  # type: ignore[arg-type]
        lambda: _compiled.commands(b"", 1, b""),  # type: ignore[arg-type]
        lambda: _compiled.alike([1], False),  # type: ignore[list-item]
        lambda: _compiled.size_of(["text"]),  # type: ignore[list-item]
        lambda: _compiled.lengths([1]),
        lambda: _compiled.words_of((), []),  # type: ignore[arg-type]
        lambda: _compiled.words_of([()], ["1"]),  # type: ignore[list-item]
        lambda: _compiled.slot_runs(["text"]),  # type: ignore[list-item]
        lambda: _compiled.fields([]),  # type: ignore[arg-type]
        lambda: _compiled.fields((b"one",)),
        lambda: _compiled.Parser(),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            call()


@given(st.lists(st.binary(max_size=20)), st.booleans())
def test_words_as_the_buffers_of_a_column(words: list[bytes], wide: bool) -> None:
    data, ends = _resp.buffers(words, wide)
    assert (data, ends) == _resp._buffers(words, wide)
    assert data == b"".join(words)
    begins = array("q" if wide else "i", ends)
    assert [data[start:end] for start, end in itertools.pairwise(begins)] == words


@pytest.mark.parametrize("words", [["text"], [b"a", None], 3])
def test_what_are_no_words_for_a_column(words: Any) -> None:
    with pytest.raises(TypeError):
        _resp.buffers(words, False)
