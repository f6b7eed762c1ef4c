"""CSV: elements as rows of text; null and empty are told apart, and what does not fit is named."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneatatime import InvalidInput
from oneatatime._record import Batch, Group, Opaque, Piece, Record, RepeatedFields, StreamDetails
from oneatatime._resp import ARRAY
from oneatatime.datatypes import datatype
from oneatatime.formats import Format, writer
from tests.records import TEXT, batch_of, records

NAMES = ["key", "type", "db", "expires_at", "index", "id", "field", "value", "score", "field_expires_at"]
KINDS = ("string", "hash", "list", "set", "zset", "stream")


def written(
    some: Sequence[Record], pieces: Sequence[tuple[Record, Piece]] = (), name: str = "csv", **how: Any
) -> tuple[str, int]:
    file = io.BytesIO()
    into: Any = writer(Format(name), file, **how)
    into.write(batch_of(some))
    for record, piece in pieces:
        into.write_piece(record, piece)
    into.finish()
    return file.getvalue().decode(), into.left_out


def lines(*args: Any, **how: Any) -> list[str]:
    first, *rest = written(*args, **how)[0].split("\r\n")
    assert first in (",".join(NAMES), "\t".join(NAMES))
    assert rest.pop() == ""
    return rest


def test_rows_are_as_the_docs_say() -> None:
    some = [
        Record(b"s", "string", b"", db=0),
        Record(b"h", "hash", {b"": b"1", b"f": b"2"}, expires_at=7, details={b"f": 5}),
        Record(b"l", "list", [b"b", b'say "a"']),
        Record(b"set", "set", {b"b", b"a"}),
        Record(b"z", "zset", [(b"m", 0.1), (b"n", float("inf"))]),
        Record(b"x", "stream", [(b"1-0", RepeatedFields([(b"f", b"1"), (b"f", b"2")])), (b"2-0", {})]),
        Record(b"e", "stream", [], details=StreamDetails(b"1-1")),
        Record(b"j", "ReJSON-RL", {"a": ["\ud83d"]}),
        Record(b"k", "ReJSON-RL", "ä"),
    ]
    assert lines(some) == [
        '"s","string",0,,,,,"",,',
        '"h","hash",,7,,,"","1",,',
        '"h","hash",,7,,,"f","2",,5',
        '"l","list",,,0,,,"b",,',
        '"l","list",,,1,,,"say ""a""",,',
        '"set","set",,,,,,"a",,',
        '"set","set",,,,,,"b",,',
        '"z","zset",,,,,,"m",0.1,',
        '"z","zset",,,,,,"n",inf,',
        '"x","stream",,,,"1-0","f","1",,',
        '"x","stream",,,,"1-0","f","2",,',
        '"x","stream",,,,"2-0",,,,',
        '"e","stream",,,,,,,,',
        '"j","ReJSON-RL",,,,,,"{""a"":[""\\ud83d""]}",,',
        '"k","ReJSON-RL",,,,,,"""ä""",,',
    ]


def test_tsv_has_tabs() -> None:
    rows = lines([Record(b"a\t,", "string", b"1\t2")], name="tsv")
    assert rows == ['"a\t,"\t"string"\t\t\t\t\t\t"1\t2"\t\t']


without_nul = TEXT.map(lambda data: data.replace(b"\0", b""))


@given(st.lists(records(KINDS, without_nul), max_size=4))
def test_other_readers_find_what_was_written(some: list[Record]) -> None:
    some = [record._replace(details=None) for record in some]
    text = written(some)[0]
    names, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert names == NAMES
    found = [dict(zip(NAMES, row)) for row in rows]
    expected = [(record.key.decode(), record.type, *cells) for record in some for cells in elements(record)]
    assert [
        (row["key"], row["type"], row["id"] + row["index"], row["field"], row["value"], row["score"])
        for row in found
    ] == expected


def elements(record: Record) -> list[tuple[str, str, str, str]]:
    """What a row says beside key and type: id or index, field, value, score."""
    value = record.value
    if record.type == "string":
        return [("", "", value.decode(), "")]
    if record.type == "hash":
        return [("", field.decode(), content.decode(), "") for field, content in value.items()]
    if record.type == "list":
        return [(str(index), "", element.decode(), "") for index, element in enumerate(value)]
    if record.type == "set":
        return [("", "", member.decode(), "") for member in sorted(value)]
    if record.type == "zset":
        return [("", "", member.decode(), repr(score)) for member, score in value]
    rows = [
        (name.decode(), field.decode(), content.decode(), "")
        for name, fields in value
        for field, content in (fields.pairs if isinstance(fields, RepeatedFields) else fields.items())
    ]
    return rows or [("", "", "", "")]


def test_elements_are_numbered_on_through_the_pieces() -> None:
    first = [(Record(b"l", "list", [b"a", b"b"]), Piece(0)), (Record(b"l", "list", [b"c"]), Piece(1, True))]
    second = [(Record(b"m", "list", [b"a"]), Piece(0, True))]
    assert lines([], first + second) == [
        '"l","list",,,0,,,"a",,',
        '"l","list",,,1,,,"b",,',
        '"l","list",,,2,,,"c",,',
        '"m","list",,,0,,,"a",,',
    ]


GROUPS = StreamDetails(b"0-0", groups=(Group(b"g", b"0-0"),))
UNFIT = [
    (Record(b"\xff", "string", b"a"), "a key that is not UTF-8"),
    (Record(b"k", "string", b"\xff"), "a value that is not UTF-8"),
    (Record(b"k", "hash", {b"\xff": b""}), "a field that is not UTF-8"),
    (Record(b"k", "hash", {b"a": b"\xff"}), "a value that is not UTF-8"),
    (Record(b"k", "list", [b"a", b"\xff"]), "an element that is not UTF-8"),
    (Record(b"k", "set", {b"\xff"}), "a member that is not UTF-8"),
    (Record(b"k", "zset", [(b"\xff", 1.0)]), "a member that is not UTF-8"),
    (Record(b"k", "MBbloom--", Opaque("MBbloom--", b"")), "values of type MBbloom--"),
    (Record(b"k", "stream", [], details=GROUPS), "groups of streams"),
]


@pytest.mark.parametrize(("record", "message"), UNFIT)
def test_what_does_not_fit_is_named(record: Record, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"CSV has no place for {message}.*JSON lines") as error:
        written([record])
    assert error.value.key == record.key


@pytest.mark.parametrize(("record", "message"), UNFIT)
def test_what_does_not_fit_can_be_left_out(record: Record, message: str) -> None:
    good = Record(b"good", "string", b"1")
    text, unfit = written([good, record, good], [(record, Piece(0, True))], unfit="skip")
    assert text.count("\r\n") == 3
    assert unfit == 2


def test_of_a_key_in_pieces_nothing_is_left_and_it_is_counted_once() -> None:
    pieces = [
        (Record(b"l", "list", [b"a"]), Piece(0)),
        (Record(b"l", "list", [b"\xff"]), Piece(1)),
        (Record(b"l", "list", [b"b"]), Piece(2, True)),
        (Record(b"m", "list", [b"c"]), Piece(0)),
        (Record(b"m", "list", [b"d"]), Piece(1, True)),
        (Record(b"s", "string", b"x"), Piece(0)),
        (Record(b"s", "string", b"\xff"), Piece(1, True)),
    ]
    text, unfit = written([], pieces, unfit="skip")
    assert text.split("\r\n")[1:] == ['"m","list",,,0,,,"c",,', '"m","list",,,1,,,"d",,', ""]
    assert unfit == 2


def test_pieces_that_begin_again_replace_those_that_wait() -> None:
    pieces = [
        (Record(b"l", "list", [b"a"]), Piece(0)),
        (Record(b"l", "list", [b"b", b"c"]), Piece(0)),
        (Record(b"l", "list", [b"d"]), Piece(1, True)),
    ]
    rows = lines([], pieces, unfit="skip")
    assert rows == ['"l","list",,,0,,,"b",,', '"l","list",,,1,,,"c",,', '"l","list",,,2,,,"d",,']


@pytest.mark.parametrize("unfit", ["error", "skip"])
@pytest.mark.parametrize("size", [1, 8, 3_000_000])  # the last: more than waits in memory
def test_a_string_in_pieces_is_one_cell(unfit: str, size: int) -> None:
    parts = ['"say, ', 'ä"', "\r\n" * size, ""]
    pieces = [(Record(b"k", "string", part.encode()), Piece(n, n == 3)) for n, part in enumerate(parts)]
    whole = lines([Record(b"k", "string", "".join(parts).encode(), db=1, expires_at=7)])
    pieces = [(record._replace(db=1, expires_at=7), piece) for record, piece in pieces]
    assert lines([], pieces, unfit=unfit) == whole


def test_raw_batches_are_made_values() -> None:
    file = io.BytesIO()
    raw = datatype("list").take([ARRAY([b"a"])], 10, {})
    writer(Format("csv"), file).write(Batch([b"l"], "list", raw, raw=True))
    assert file.getvalue().decode().split("\r\n")[1] == '"l","list",,,0,,,"a",,'
