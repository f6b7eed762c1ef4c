"""Values as JSON, compiled and in Python: one does what the other does, and both what `json` does."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneatatime import _json
from oneatatime._record import Record, RepeatedFields
from oneatatime.formats._json_row import row_of
from oneatatime.formats.jsonl import line
from tests.records import DATA, records, same

MAKERS = [_json._texts, *([_json.texts] if _json.texts is not _json._texts else [])]
needs_compiled = pytest.mark.skipif(len(MAKERS) == 1, reason="installed without a compiler")
every_maker = pytest.mark.parametrize("texts", MAKERS, ids=["python", "compiled"][: len(MAKERS)])

fragments = [b"a", b'"', b"\\", b"\n", b"\x00", b"\x1f", b"\x7f", b"plain text"]
fragments += [bytes([byte]) for byte in b"\xe2\x82\xac\xed\xa0\xf0\x9f\x98\x80\xf4\x90\xc0\xc1\xe0"]
words = DATA | st.lists(st.sampled_from(fragments), max_size=12).map(b"".join)
leaves = words | st.floats() | st.integers(-(2**70), 2**70) | st.none() | st.just('{"a":"\u20ac"}')
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(words, inner, max_size=3)
    ),
    max_leaves=8,
)


@needs_compiled
@given(st.lists(values, max_size=5), st.booleans())
def test_compiled_it_is_the_same(several: list[Any], base64: bool) -> None:
    assert _json.texts(several, base64) == _json._texts(several, base64)


@every_maker
@given(words)
def test_bytes_are_what_json_makes_of_their_text(texts: Any, word: bytes) -> None:
    (text,) = texts([word], False)
    try:
        expected = json.dumps(word.decode(), ensure_ascii=False).encode()
    except UnicodeDecodeError:
        assert text is None
    else:
        assert text == expected


@every_maker
def test_every_two_bytes_and_every_lead_of_a_character(texts: Any) -> None:
    edges = (0x00, 0x22, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    several = [bytes(pair) for pair in itertools.product(range(256), repeat=2)]
    for lead in range(0xE0, 0x100):
        several += [bytes((lead, *rest)) for rest in itertools.product(edges, repeat=2)]
        several += [bytes((lead, *rest)) for rest in itertools.product(edges, repeat=3)]
    for word, text in zip(several, texts(several, False)):
        try:
            expected = json.dumps(word.decode(), ensure_ascii=False).encode()
        except UnicodeDecodeError:
            assert text is None, word
        else:
            assert text == expected, word


@every_maker
@pytest.mark.parametrize("length", range(40))
def test_an_odd_byte_is_found_at_every_place(texts: Any, length: int) -> None:
    for place in range(length):
        for odd in (b"\n", b'"', b"\\", b"\xff", "ä".encode(), b"\x1f", b" ", b"!"):
            word = b"x" * place + odd + b"x" * (length - place)
            if odd == b"\xff":
                assert texts([word], False) == [None]
            else:
                assert texts([word], False) == [json.dumps(word.decode(), ensure_ascii=False).encode()]


@every_maker
@pytest.mark.parametrize("value", [True, {1, 2}, object(), [b"a", True], {b"a": bytearray()}])
def test_what_has_no_form_is_refused(texts: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="has no form in JSON here"):
        texts([value], False)


@every_maker
def test_half_a_character_of_json_is_refused(texts: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        texts(['"\ud83d"'], False)


# The way back. Compiled, a line is a row or itself: a row is what the careful reader makes of it too.

PLAIN = ("string", "hash", "list", "set", "zset", "stream")


def record_of(row: Any) -> Record:
    key, kind, value, db, expires_at, details, piece = row
    assert piece is None
    return Record(key, kind, value, db=db, expires_at=expires_at, details=details)


def checked(text: bytes) -> bool:
    """Whether a line comes as a row, which must be the right one."""
    (found,) = _json.rows(text)
    if found.__class__ is bytes:
        assert found == text
        return False
    assert same(record_of(found), record_of(row_of(text)))
    return True


def plain(record: Record) -> bool:
    """Whether it is of those that are to be quick."""
    repeats = record.type == "stream" and any(
        isinstance(fields, RepeatedFields) for _, fields in record.value
    )
    return record.details is None and not repeats


@needs_compiled
@given(records(PLAIN))
def test_what_we_write_comes_as_rows(record: Record) -> None:
    text = line(record, [name for name in ("db", "expires_at") if getattr(record, name) is not None])
    assert checked(text.rstrip("\n").encode()) == plain(record)


@needs_compiled
@given(records(), st.data())
def test_a_row_is_what_python_makes_of_the_line(record: Record, data: Any) -> None:
    text = bytearray(line(record).rstrip("\n").encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        new = data.draw(st.sampled_from(MARKS) | st.binary(min_size=1, max_size=2))
        text[place : place + data.draw(st.integers(0, 2))] = new.replace(b"\n", b" ")
    if text:
        checked(bytes(text))


MARKS = [bytes([mark]) for mark in b'"\\[]{},:-+.eE0123456789=A \x00\x1f\x7f\x80']
MARKS += [
    b"\\u0041",
    b"\\ud83d\\ude00",
    b"\\ud83d",
    b"\\ude00",
    b"\\u00e4",
    b"\\u20ac",
    b"\\/",
    b"\\n",
    b"\\x",
]
MARKS += [
    b'"enc":"base64",',
    b'"db":0,',
    b'"db":00,',
    b'"expires_at":17,',
    b'"inf"',
    b'"nan"',
    b"1e5",
    b"-0",
    b"01",
]


@needs_compiled
@given(st.text(st.characters(exclude_categories=[]), max_size=10))
def test_escapes_are_what_json_takes_them_for(text: str) -> None:
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    written = f'{{"key":"k","type":"string","value":{json.dumps(text)}}}'.encode()
    half = any("\ud800" <= character <= "\udfff" for character in text)
    if half:
        assert _json.rows(written) == [written]
    else:
        assert _json.rows(written) == [(b"k", "string", text.encode(), None, None, None, None)]


@needs_compiled
@given(st.from_regex(rb"-?(0|[1-9][0-9]{0,25})?(\.[0-9]{0,25})?([eE][-+]?[0-9]{0,4})?", fullmatch=True))
def test_scores_are_what_python_takes_them_for(number: bytes) -> None:
    written = b'{"key":"k","type":"zset","value":[["m",%b]]}' % number
    found = checked(written)
    try:
        score = json.loads(number)
    except ValueError:
        assert not found
    else:
        assert found or score == 0


@needs_compiled
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"key":"k","type":"string","value":"v"} ',
        b'{"key":"k","type":"string","value":"v"}}',
        b'{"key":"k","type":"string","value":"v"',
        b'{"key":"k","type":"string","value":"v","details":{}}',
        b'{"key":"k","type":"string","part":0,"value":"v"}',
        b'{"key":"k","type":"string","expires_at":1,"db":1,"value":"v"}',
        b'{"key":"k","type":"string","db":null,"value":"v"}',
        b'{"key":"k","type":"string","db":9223372036854775807,"value":"v"}',
        b'{"key":"k","type":"strings","value":"v"}',
        b'{"key":"k","type":"hash","value":{"f":"1","f":"2"}}',
        b'{"key":"k","type":"set","value":["f","f"]}',
        b'{"key":"k","type":"list","value":["f",]}',
        b'{"key":"k","type":"list","value":[,"f"]}',
        b'{"key":"k","type":"stream","value":[["1",{}]]}',
        b'{"key":"k","type":"stream","value":[["1-",{}]]}',
        b'{"key":"aw==","type":"string","enc":"base64","value":"YQ="}',
        b'{"key":"aw==","type":"string","enc":"base64","value":"YR=="}',
        b'{"key":"aw==","type":"string","enc":"base64","value":"===="}',
        b'{"key":"aw==","type":"string","enc":"base64","value":"Y\\u0051=="}',
        b'{"key":"aw==","type":"string","enc":"hex","value":"YQ=="}',
        b'{"key":"k","type":"string","value":"\xff"}',
        b'{"key":"k","type":"string","value":"\x1f"}',
    ],
)
def test_anything_else_comes_as_it_is(text: bytes) -> None:
    assert _json.rows(text + b"\n" + text + b"\n") == [text, text]
    assert _json.rows(text) == ([text] if text else [])


@needs_compiled
@given(st.lists(records(PLAIN).map(lambda record: line(record).encode()), max_size=4), st.booleans())
def test_lines_are_told_apart_as_in_python(several: list[bytes], ended: bool) -> None:
    block = b"".join(several)
    block = block if ended else block[:-1]
    found = _json.rows(block)
    assert len(found) == len(_json._rows(block)) == len(several)
