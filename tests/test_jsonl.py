"""JSON lines: what goes in comes out, whatever bytes it is made of."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneatatime import ValueGone
from oneatatime._record import Opaque, Parts, Record, RepeatedFields
from oneatatime.formats.jsonl import key_line, line, part_lines

# The way back, as a reader of the docs would write it. -------------------------------------------


def decoded(text: str) -> dict[str, Any]:
    """One line as the record's fields, with bytes where the record had bytes."""
    assert text.endswith("\n")
    assert text.count("\n") == 1
    fields: dict[str, Any] = json.loads(text)
    as_bytes = base64.b64decode if fields.pop("enc", None) == "base64" else str.encode
    fields["key"] = as_bytes(fields["key"])
    if "value" in fields:
        fields["value"] = _value(fields["type"], fields["value"], as_bytes)
    return fields


def _value(kind: str, value: Any, as_bytes: Any) -> Any:
    if kind == "string":
        return as_bytes(value)
    if kind == "hash":
        return {as_bytes(field): as_bytes(content) for field, content in value.items()}
    if kind == "list":
        return [as_bytes(element) for element in value]
    if kind == "set":
        return {as_bytes(member) for member in value}
    if kind == "zset":
        return [(as_bytes(member), float(score)) for member, score in value]
    if kind == "stream":
        return [(name.encode(), _fields(fields, as_bytes)) for name, fields in value]
    if kind == "ReJSON-RL":
        return value
    return Opaque(kind, base64.b64decode(value["dump"]))


def _fields(fields: Any, as_bytes: Any) -> Any:
    if isinstance(fields, list):
        return RepeatedFields([(as_bytes(field), as_bytes(content)) for field, content in fields])
    return {as_bytes(field): as_bytes(content) for field, content in fields.items()}


# Strategies: text, arbitrary bytes, and everything that has a meaning in JSON. --------------------

_data = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"", b"\x00", b"\n", b'"', b"\\", b"\x7f", b"\xc2\x85", "\u2028".encode(), b"\xed\xa0\x80"]
    ),
)
_ids = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)).map(lambda pair: b"%d-%d" % pair)
_pairs = st.lists(st.tuples(_data, _data), min_size=1, max_size=4)
_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_values: dict[str, st.SearchStrategy[Any]] = {
    "string": _data,
    "hash": st.dictionaries(_data, _data, max_size=5),
    "list": st.lists(_data, max_size=5),
    "set": st.sets(_data, max_size=5),
    "zset": st.lists(st.tuples(_data, st.floats()), max_size=5),
    "stream": st.lists(st.tuples(_ids, st.dictionaries(_data, _data, max_size=3)), max_size=3),
    "ReJSON-RL": _documents,
    "MBbloom--": st.binary(max_size=30).map(lambda dump: Opaque("MBbloom--", dump)),
}
_records = st.one_of(
    [st.builds(Record, key=_data, type=st.just(kind), value=value) for kind, value in _values.items()]
)


def _exact(value: Any) -> Any:
    """Floats as their bits, so that -0.0 is not 0.0 and nan is nan."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("d", value)
    if isinstance(value, list | tuple) and not isinstance(value, Opaque):
        return [_exact(element) for element in value]
    return value


@given(_records)
def test_what_goes_in_comes_out(record: Record) -> None:
    fields = decoded(line(record))
    assert fields["key"] == record.key
    assert fields["type"] == record.type
    assert _exact(fields["value"]) == _exact(record.value)


@given(_data, _pairs)
def test_repeated_fields_come_out_in_order(key: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    fields = decoded(line(Record(key, "stream", [(b"1-0", RepeatedFields(pairs))])))
    [(name, back)] = fields["value"]
    assert (name, back.pairs) == (b"1-0", pairs)


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_survives_everywhere(byte: int) -> None:
    data = bytes([byte])
    assert decoded(key_line(data)) == {"key": data}
    assert decoded(line(Record(data, "string", data)))["value"] == data
    assert decoded(line(Record(b"k", "hash", {data: data})))["value"] == {data: data}


@given(_data)
def test_base64_only_where_it_must_be(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert json.loads(line(Record(b"key", "string", data)))["enc"] == "base64"
    else:
        assert "enc" not in json.loads(line(Record(b"key", "string", data)))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Record(b"k", "string", "Zürich\n".encode()), '{"key":"k","type":"string","value":"Zürich\\n"}\n'),
        (Record(b"", "string", b""), '{"key":"","type":"string","value":""}\n'),
        (
            Record(b"k", "string", b"\xff"),
            '{"key":"aw==","type":"string","enc":"base64","value":"/w=="}\n',
        ),
        (
            Record(b"h", "hash", {b"a": b"1", b"b": b""}),
            '{"key":"h","type":"hash","value":{"a":"1","b":""}}\n',
        ),
        (
            Record(b"h", "hash", {b"a": b"\xff"}),
            '{"key":"aA==","type":"hash","enc":"base64","value":{"YQ==":"/w=="}}\n',
        ),
        (Record(b"l", "list", [b"b", b"a"]), '{"key":"l","type":"list","value":["b","a"]}\n'),
        (Record(b"s", "set", {b"b", b"a", b"c"}), '{"key":"s","type":"set","value":["a","b","c"]}\n'),
        (
            Record(b"z", "zset", [(b"a", -0.0), (b"b", 1.5), (b"c", math.inf), (b"d", -math.inf)]),
            '{"key":"z","type":"zset","value":[["a",-0.0],["b",1.5],["c","inf"],["d","-inf"]]}\n',
        ),
        (Record(b"z", "zset", [(b"a", math.nan)]), '{"key":"z","type":"zset","value":[["a","nan"]]}\n'),
        (
            Record(b"e", "stream", [(b"1-0", {b"f": b"v"})]),
            '{"key":"e","type":"stream","value":[["1-0",{"f":"v"}]]}\n',
        ),
        (
            Record(b"e", "stream", [(b"1-0", RepeatedFields([(b"f", b"1"), (b"f", b"2")]))]),
            '{"key":"e","type":"stream","value":[["1-0",[["f","1"],["f","2"]]]]}\n',
        ),
        (
            Record(b"e", "stream", [(b"1-0", {b"f": b"\xff"})]),
            '{"key":"ZQ==","type":"stream","enc":"base64","value":[["1-0",{"Zg==":"/w=="}]]}\n',
        ),
        (
            Record(b"j", "ReJSON-RL", {"a": [1, None, "é"]}),
            '{"key":"j","type":"ReJSON-RL","value":{"a":[1,null,"é"]}}\n',
        ),
        (
            Record(b"\xff", "ReJSON-RL", {"a": "é"}),
            '{"key":"/w==","type":"ReJSON-RL","enc":"base64","value":{"a":"é"}}\n',
        ),
        (
            Record(b"j", "ReJSON-RL", "\ud83d"),
            '{"key":"j","type":"ReJSON-RL","value":"\\ud83d"}\n',
        ),
        (
            Record(b"b", "MBbloom--", Opaque("MBbloom--", b"\x00\x01")),
            '{"key":"b","type":"MBbloom--","value":{"dump":"AAE="}}\n',
        ),
    ],
)
def test_the_form_of_each_type(record: Record, expected: str) -> None:
    assert line(record) == expected


def test_metadata_stands_in_the_order_asked_for_and_is_null_where_there_is_none() -> None:
    record = Record(b"k", "string", b"v", ttl=1500, memory=56, encoding="embstr")
    assert (
        line(record, ["memory", "ttl", "idle", "encoding"])
        == '{"key":"k","type":"string","memory":56,"ttl":1500,"idle":null,"encoding":"embstr","value":"v"}\n'
    )


# Values too big to hold. -------------------------------------------------------------------------


class Chunks:
    """The chunks of a big value, as the engine would send them; knows whether it was closed."""

    def __init__(self, chunks: list[list[Any]], *, torn: bool = False, whole: Any = None) -> None:
        self.torn = torn
        self.whole = whole
        self.closed = False
        self._chunks = iter(chunks)

    def of(self, parts: Parts) -> AsyncIterator[list[Any]]:
        self._parts = parts
        return self

    def __aiter__(self) -> AsyncIterator[list[Any]]:
        return self

    async def __anext__(self) -> list[Any]:
        for chunk in self._chunks:
            return chunk
        self._parts.torn = self.torn
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def _no_blocking(parts: Parts) -> Iterator[list[Any]]:
    raise AssertionError("lines are written on an event loop")


def big(kind: str, chunks: Chunks, key: bytes = b"big") -> Record:
    async def load(parts: Parts) -> Any:
        if chunks.whole is None:
            raise ValueGone("the value is gone", key=parts.key)
        return chunks.whole

    return Record(
        key,
        kind,
        Parts(key, kind, 10**7, SimpleNamespace(chunks=chunks.of, blocking_chunks=_no_blocking, load=load)),
    )


async def lines_of(record: Record) -> list[str]:
    return [text async for text in part_lines(record)]


async def test_parts_are_numbered_and_the_last_one_says_so() -> None:
    chunks = Chunks([[(b"a", b"1"), (b"b", b"2")], [(b"c", b"\xff")], [(b"d", b"4")]])
    assert await lines_of(big("hash", chunks)) == [
        '{"key":"big","type":"hash","part":0,"value":{"a":"1","b":"2"}}\n',
        '{"key":"Ymln","type":"hash","enc":"base64","part":1,"value":{"Yw==":"/w=="}}\n',
        '{"key":"big","type":"hash","part":2,"last":true,"value":{"d":"4"}}\n',
    ]
    assert chunks.closed


@pytest.mark.parametrize(
    ("kind", "chunk", "form"),
    [
        ("string", [b"ab", b"c"], '"abc"'),
        ("list", [b"b", b"a"], '["b","a"]'),
        ("set", [b"b", b"a"], '["a","b"]'),
        ("zset", [(b"a", math.inf)], '[["a","inf"]]'),
        ("stream", [(b"1-0", {b"f": b"v"})], '[["1-0",{"f":"v"}]]'),
    ],
)
async def test_a_part_has_the_form_of_its_type(kind: str, chunk: list[Any], form: str) -> None:
    [text] = await lines_of(big(kind, Chunks([chunk])))
    assert text == f'{{"key":"big","type":"{kind}","part":0,"last":true,"value":{form}}}\n'


@pytest.mark.parametrize(
    "kind", ["string", "hash", "list", "set", "zset", "stream", "ReJSON-RL", "TSDB-TYPE"]
)
async def test_a_value_that_is_gone_is_no_line(kind: str) -> None:
    assert await lines_of(big(kind, Chunks([]))) == []


async def test_a_value_that_is_empty_by_now_is_one_part() -> None:
    [text] = await lines_of(big("stream", Chunks([], whole=[])))
    assert text == '{"key":"big","type":"stream","part":0,"last":true,"value":[]}\n'


@pytest.mark.parametrize(
    ("kind", "whole", "form"),
    [
        ("TSDB-TYPE", Opaque("TSDB-TYPE", b"\x00\x01"), '{"dump":"AAE="}'),
        ("ReJSON-RL", {"a": 1, "b": None}, '{"a":1,"b":null}'),
        ("ReJSON-RL", ["é"], '["é"]'),
        ("ReJSON-RL", "é", '"é"'),
    ],
)
async def test_documents_and_dumps_are_never_cut(kind: str, whole: Any, form: str) -> None:
    [text] = await lines_of(big(kind, Chunks([["x"], ["y"]], whole=whole)))
    assert text == f'{{"key":"big","type":"{kind}","value":{form}}}\n'


async def test_a_value_changed_while_it_was_read_says_so() -> None:
    [text] = await lines_of(big("string", Chunks([[b"a"]], torn=True)))
    assert text == '{"key":"big","type":"string","part":0,"last":true,"torn":true,"value":"a"}\n'


async def test_metadata_stands_on_every_part() -> None:
    record = big("list", Chunks([[b"a"], [b"b"]]))._replace(ttl=5)
    assert [json.loads(text)["ttl"] async for text in part_lines(record, ["ttl"])] == [5, 5]


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode), st.integers(1, 5))
async def test_a_string_cut_anywhere_comes_back_and_text_stays_text(data: bytes, size: int) -> None:
    chunks = [[data[i : i + size]] for i in range(0, len(data), size)]
    texts = await lines_of(big("string", Chunks(chunks, whole=b"")))
    back = [decoded(text) for text in texts]
    assert b"".join(fields["value"] for fields in back) == data
    assert [fields["part"] for fields in back] == list(range(len(back)))
    assert [fields.get("last", False) for fields in back] == [False] * (len(back) - 1) + [True]
    try:
        data.decode()
    except UnicodeDecodeError:
        assert any("enc" in json.loads(text) for text in texts)
    else:
        assert not any("enc" in json.loads(text) for text in texts)


async def test_leaving_in_the_middle_closes_the_chunks() -> None:
    chunks = Chunks([[b"a"], [b"b"], [b"c"]])
    lines = part_lines(big("list", chunks))
    await lines.__anext__()
    assert not chunks.closed
    await lines.aclose()
    assert chunks.closed
