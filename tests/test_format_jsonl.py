"""JSON lines as a format: what a writer wrote a reader reads; what nobody wrote is refused."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneatatime import InvalidInput
from oneatatime._record import Batch, Group, Pending, Piece, Record, StreamDetails
from oneatatime._resp import ARRAY
from oneatatime.datatypes import datatype
from oneatatime.formats import Format, reader, writer
from tests.records import all_same, batch_of, big_values, records, records_of, same

JSONL = Format("jsonl")


def written(some: Sequence[Record] = (), pieces: Sequence[tuple[Record, Piece]] = ()) -> bytes:
    file = io.BytesIO()
    into = writer(JSONL, file)
    into.write(batch_of(some))
    for record, piece in pieces:
        into.write_piece(record, piece)
    into.finish()
    return file.getvalue()


def rows(data: bytes, start: int = 0) -> Iterator[tuple[Record, Piece | None]]:
    expected = start
    for number, batch in reader(JSONL, io.BytesIO(data), "keys.jsonl").batches(start):
        assert number == expected
        expected += len(batch)
        yield from zip(records_of(batch), batch.pieces or itertools.repeat(None))


def read(data: bytes, start: int = 0) -> list[Record]:
    return [record for record, _ in rows(data, start)]


@given(st.lists(records(), min_size=1, max_size=5))
def test_what_was_written_is_read(some: list[Record]) -> None:
    assert all_same(read(written(some)), some)


@given(big_values())
def test_pieces_come_back_as_pieces(pieces: list[tuple[Record, Piece]]) -> None:
    back = list(rows(written([Record(b"before", "string", b"")], pieces)))
    assert all_same([record for record, _ in back[1:]], [record for record, _ in pieces])
    assert [piece for _, piece in back] == [None, *[piece for _, piece in pieces]]


@given(st.lists(records(), min_size=1, max_size=5), st.integers(0, 7))
def test_a_reader_starts_where_it_is_told(some: list[Record], start: int) -> None:
    assert all_same(read(written(some), start), some[start:])


@given(st.lists(records(), min_size=1, max_size=3), st.data())
def test_cut_off_anywhere_it_is_said_so(some: list[Record], data: Any) -> None:
    whole = written(some)
    end = data.draw(st.integers(0, len(whole)))
    back: list[Record] = []
    lines = whole[:end].count(b"\n")
    complete = end in (0, len(whole)) or whole[end - 1 : end] == b"\n" or whole[end : end + 1] == b"\n"
    try:
        back = [record for record, _ in rows(whole[:end])]
    except InvalidInput as error:
        assert not complete
        assert f"keys.jsonl, line {lines + 1}: " in str(error)
        assert "cut off" in str(error)
    else:
        assert complete
        assert all_same(back, some[: len(back)])
        assert len(back) == lines + (whole[end : end + 1] == b"\n")


def test_those_before_a_bad_line_are_given() -> None:
    data = written([Record(b"a", "string", b"1"), Record(b"b", "string", b"2")]) + b"{\n" + written([])
    found = []
    with pytest.raises(InvalidInput, match=r"^keys\.jsonl, line 3: it is not JSON"):
        for record, _ in rows(data):
            found.append(record.key)
    assert found == [b"a", b"b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "it is a blank line, and each line is a record: take blank lines out"),
        (" \r", "it is a blank line"),
        ('\ufeff{"key":"a","type":"string","value":"b"}', "it begins with a byte order mark"),
        ("nonsense", "not JSON"),
        ("[]", "no JSON object"),
        ("1", "no JSON object"),
        ("{}", "no key, type and value"),
        ('{"key":"a"}', "no key, type and value"),
        ('{"key":"a","type":"string"}', "no key, type and value"),
        ('{"type":"string","value":"b"}', "no key, type and value"),
        ('{"key":"a","type":null,"value":"b"}', "no key, type and value"),
        ('{"key":"a","type":"string","value":"b"} {}', "Extra data"),
        ('{"key":"a","type":"string","value":"b","colour":"red"}', "not known here: colour"),
        ('{"key":"a","key":"b","type":"string","value":"b"}', "stands twice in an object: 'key'"),
        ('{"key":"a","type":"hash","value":{"f":"1","f":"2"}}', "stands twice in an object: 'f'"),
        ('{"key":1,"type":"string","value":"b"}', "have not the form that a string has"),
        ('{"key":"a","type":"string","value":1}', "have not the form that a string has"),
        ('{"key":"a","type":"string","value":["b"]}', "have not the form that a string has"),
        ('{"key":"a","type":"hash","value":[]}', "have not the form that a hash has"),
        ('{"key":"a","type":"hash","value":{"f":1}}', "have not the form that a hash has"),
        ('{"key":"a","type":"list","value":"abc"}', "where an array should be"),
        ('{"key":"a","type":"list","value":[null]}', "have not the form that a list has"),
        ('{"key":"a","type":"set","value":{"a":"b"}}', "where an array should be"),
        ('{"key":"a","type":"set","value":["a","a"]}', "a member stands twice"),
        ('{"key":"a","type":"zset","value":["ab"]}', "where an array should be"),
        ('{"key":"a","type":"zset","value":[["a"]]}', "have not the form that a zset has"),
        ('{"key":"a","type":"zset","value":[["a","1"]]}', "'1' is no score"),
        ('{"key":"a","type":"zset","value":[["a",true]]}', "True is no score"),
        ('{"key":"a","type":"zset","value":[["a",NaN]]}', "NaN is no number"),
        ('{"key":"a","type":"stream","value":[["1",{}]]}', "'1' is no id"),
        ('{"key":"a","type":"stream","value":[["1-1","ab"]]}', "where an array should be"),
        ('{"key":"a","type":"TSDB-TYPE","value":"abc"}', "have not the form that a TSDB-TYPE has"),
        ('{"key":"a","type":"TSDB-TYPE","value":{"dump":1}}', "where a string should be"),
        ('{"key":"a","type":"TSDB-TYPE","value":{"dump":"!"}}', "a string in it is no"),
        ('{"key":"a","type":"TSDB-TYPE","value":{"bump":""}}', "where its dump should be"),
        ('{"key":"a","type":"string","enc":"base64","value":"YQ=="}', "no base64"),
        ('{"key":"YQ==","type":"string","enc":"base64","value":"ä"}', "no base64"),
        ('{"key":"YQ==","type":"string","enc":"base64","value":"Y Q=="}', "no base64"),
        ('{"key":"a","type":"string","enc":"hex","value":"00"}', "its `enc` is 'hex'"),
        ('{"key":"a","type":"string","enc":null,"value":"00"}', "its `enc` is None"),
        ('{"key":"\\ud83d","type":"string","value":""}', "no UTF-8"),
        ('{"key":"a","type":"string","value":"b","db":"0"}', "its `db`"),
        ('{"key":"a","type":"string","value":"b","db":-1}', "its `db`"),
        ('{"key":"a","type":"string","value":"b","db":true}', "its `db`"),
        ('{"key":"a","type":"string","value":"b","expires_at":1.5}', "its `expires_at`"),
        ('{"key":"a","type":"string","value":"b","expires_at":9223372036854775808}', "its `expires_at`"),
        ('{"key":"a","type":"string","value":"b","part":"0"}', "its `part`"),
        ('{"key":"a","type":"string","value":"b","part":0,"last":1}', "not true or false"),
        ('{"key":"a","type":"string","value":"b","last":true}', "no `part`"),
        ('{"key":"a","type":"string","value":"b","details":{}}', "only hashes and streams"),
        ('{"key":"a","type":"hash","value":{"f":""},"details":{"f":"1"}}', "no whole number"),
        ('{"key":"a","type":"stream","value":[],"details":{"colour":1}}', "not known here: colour"),
        ('{"key":"a","type":"stream","value":[],"details":{"groups":[["g"]]}}', "the form that a stream has"),
        ('{"key":"a","type":"stream","value":[],"details":{"last_id":"x"}}', "'x' is no id"),
        ('{"key":"a","type":"string","value":"b","ttl":5}', "`ttl` and no `expires_at`"),
        (
            '{"version":2,"key":"a","shape":"new"}',
            "version 2 of the format, and this release reads version 1",
        ),
        ('{"key":"a","type":"string","value":"b","version":"x"}', "its version is 'x'"),
        ("[" * 100_000, "nobody writes"),
        (f'{{"key":"a","type":"ReJSON-RL","value":{"9" * 5000}}}', "nobody writes"),
    ],
)
def test_what_nobody_wrote_is_refused(line: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=r"^keys\.jsonl, line 2: ") as error:
        read(b'{"key":"a","type":"string","value":"b"}\n' + line.encode() + b"\n")
    assert message in str(error.value)


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    bom, line = b"\xef\xbb\xbf", b'{"key":"a","type":"string","value":"b"}\n'
    assert [record.key for record in read(bom + line + line)] == [b"a", b"a"]
    assert [record.key for record in read(bom + line + line, start=1)] == [b"a"]
    assert read(bom) == []
    for cut in range(1, 3):
        with pytest.raises(InvalidInput, match="line 1: it is not UTF-8"):
            read(bom[:cut])


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(InvalidInput, match="line 1: it is not UTF-8, from byte 8"):
        read(b'{"key":"\xff","type":"string","value":"b"}\n')


def test_what_others_write_the_same_way_is_read() -> None:
    line = (
        b' { "value" : [["a", 1], ["b", "inf"], ["c", -1e3]], "type" : "zset", '
        b'"key": "\\u0061\\ud83d\\ude00", "ttl": 5, "memory": 72, "idle": 1, "freq": null, '
        b'"encoding": "listpack", "expires_at": 7, "version": 1 }\r\n'
    )
    (record,) = read(line)
    value = [(b"a", 1.0), (b"b", float("inf")), (b"c", -1000.0)]
    assert same(record, Record("a😀".encode(), "zset", value, expires_at=7))


def test_the_last_line_needs_no_end() -> None:
    assert read(b'{"key":"a","type":"string","value":"b"}') == [Record(b"a", "string", b"b")]
    assert read(b"") == []


def test_lines_are_as_the_docs_say() -> None:
    details = StreamDetails(
        b"5-0", 9, b"4-0", (Group(b"g", b"5-0", 9, (b"ann",)),), (Pending(b"g", b"4-0", b"ann", 17, 2),)
    )
    some = [
        Record(
            b"user:1",
            "hash",
            {b"name": b"Ada"},
            db=0,
            expires_at=1793923200000,
            details={b"name": 1793923100000},
        ),
        Record(b"\xff", "stream", [(b"5-0", {b"a": b"1"})], details=details),
        Record(b"k", "string", b"v"),
    ]
    first, second, third = written(some).decode().splitlines()
    assert first == (
        '{"key":"user:1","type":"hash","db":0,"expires_at":1793923200000,"value":{"name":"Ada"},'
        '"details":{"name":1793923100000}}'
    )
    assert json.loads(second) == {
        "key": "/w==",
        "type": "stream",
        "enc": "base64",
        "value": [["5-0", {"YQ==": "MQ=="}]],
        "details": {
            "last_id": "5-0",
            "entries_added": 9,
            "max_deleted_id": "4-0",
            "groups": [["Zw==", "5-0", 9, ["YW5u"]]],
            "pending": [["Zw==", "4-0", "YW5u", 17, 2]],
        },
    }
    assert third == '{"key":"k","type":"string","value":"v"}'


def test_raw_batches_are_made_values() -> None:
    file = io.BytesIO()
    raw = datatype("hash").take([ARRAY((b"0", ARRAY((b"f", b"1"))))], 10, {})
    writer(JSONL, file).write(Batch([b"h"], "hash", raw, raw=True))
    assert file.getvalue() == b'{"key":"h","type":"hash","value":{"f":"1"}}\n'


def test_a_file_of_any_size_takes_little_memory() -> None:
    line = written([Record(b"key", "string", b"x" * 1000)])
    file = io.BytesIO(line * 20_000)
    tracemalloc.start()
    count = sum(len(batch) for _, batch in reader(JSONL, file, "keys.jsonl").batches())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 4 << 20
