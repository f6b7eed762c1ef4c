"""Parquet and Arrow files: what goes in comes out, in constant memory, and what is no such file says so."""

from __future__ import annotations

import io
import json
import random
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneatatime import InvalidInput, MissingExtra
from oneatatime._record import Batch, Opaque, Piece, Record, RepeatedFields
from oneatatime._resp import ARRAY
from oneatatime.formats import _arrow_file, _layout, arrow, parquet
from oneatatime.formats._format import Reader, Writer
from oneatatime.formats._schema import records_schema
from tests.records import TEXT, all_same, batch_of, big_values, records, records_of

FORMATS: dict[str, Any] = {"parquet": parquet, "arrow": arrow}
every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def written(form: Any, *batches: Batch, **how: Any) -> bytes:
    file = io.BytesIO()
    writer: Writer = form.Writer(file, **how)
    for batch in batches:
        writer.write(batch)
    writer.finish()
    assert not file.closed
    return file.getvalue()


def read(form: Any, data: bytes, start: int = 0) -> tuple[list[Record], list[Piece | None]]:
    reader: Reader = form.Reader(io.BytesIO(data), "a.file")
    found: list[Record] = []
    pieces: list[Piece | None] = []
    for number, batch in reader.batches(start):
        assert number == start + len(found)
        found += records_of(batch)
        pieces += batch.pieces or [None] * len(batch)
    return found, pieces


def table(data: bytes) -> Any:
    if data[:4] == b"PAR1":
        return pq.read_table(io.BytesIO(data))
    return pa.ipc.open_file(io.BytesIO(data)).read_all()


# What goes in comes out


@every_format
@settings(deadline=None)
@given(st.lists(records(), max_size=8), st.integers(1, 4))
def test_what_goes_in_comes_out(form: Any, some: list[Record], length: int) -> None:
    batches = [batch_of(some[at : at + length]) for at in range(0, len(some), length)]
    found, pieces = read(form, written(form, *batches))
    assert all_same(found, some)
    assert not any(pieces)


@every_format
@settings(deadline=None)
@given(st.lists(records(data=TEXT), max_size=6))
def test_text_columns_come_out_as_bytes(form: Any, some: list[Record]) -> None:
    data = written(form, batch_of(some), encoding="utf-8")
    assert all_same(read(form, data)[0], some)
    assert table(data).schema.field("key").type == pa.string()


@every_format
@settings(deadline=None)
@given(big_values())
def test_pieces_come_out(form: Any, some: list[tuple[Record, Piece]]) -> None:
    file = io.BytesIO()
    writer = form.Writer(file)
    writer.write(Batch([b"before"], "string", [b"whole"]))
    for record, piece in some:
        writer.write_piece(record, piece)
    writer.finish()
    found, pieces = read(form, file.getvalue())
    assert all_same(found[1:], [record for record, _ in some])
    assert pieces == [None, *[piece for _, piece in some]]


def replies(kind: str, value: Any) -> Any:
    """A value as it waits in a batch that is raw."""
    if kind == "hash":
        return ARRAY([word for pair in value.items() for word in pair])
    if kind == "zset":
        return ARRAY([ARRAY(pair) for pair in value])
    if kind == "stream":
        entries = [
            (name, fields.pairs if isinstance(fields, RepeatedFields) else fields.items())
            for name, fields in value
        ]
        return ARRAY([ARRAY([name, ARRAY([w for pair in pairs for w in pair])]) for name, pairs in entries])
    return ARRAY(value) if kind in ("list", "set") else value


@settings(deadline=None)
@given(st.lists(records(kinds=("hash", "list", "set", "zset", "stream")), min_size=1, max_size=5))
def test_replies_are_written_as_the_values_they_become(some: list[Record]) -> None:
    raw = batch_of(some)
    raw.values = [replies(record.type, record.value) for record in some]
    raw.raw = True
    assert all_same(read(arrow, written(arrow, raw))[0], some)


def test_a_reply_that_is_no_value_says_what_the_loop_would_say() -> None:
    from oneatatime import ProtocolViolation

    with pytest.raises(ProtocolViolation, match="ZRANGE"):
        written(arrow, Batch([b"z"], "zset", [ARRAY([b"one", b"two"])], raw=True))


@every_format
def test_a_file_without_records_is_a_file(form: Any) -> None:
    assert read(form, written(form)) == ([], [])
    assert read(form, written(form, Batch([], "", []))) == ([], [])


# As docs/formats.md says


@every_format
def test_the_schema_is_that_of_the_docs(form: Any) -> None:
    schema = table(written(form)).schema
    assert json.loads(schema.metadata[b"oneatatime"]) == {"version": 1, "layout": "records"}
    first = ["key", "type", "db", "expires_at", "part", "last", "string", "hash", "fields_expire_at"]
    assert schema.names == [*first, "list", "set", "zset", "stream", "groups", "json", "dump", "torn"]


def test_sets_are_sorted_and_documents_are_text() -> None:
    some = [Record(b"s", "set", {b"c", b"a", b"b"}), Record(b"j", "ReJSON-RL", {"b": [1, 2.5, "\ud83d"]})]
    found = table(written(parquet, batch_of(some)))
    assert found.column("set").to_pylist() == [[b"a", b"b", b"c"], None]
    assert found.column("json").to_pylist() == [None, '{"b":[1,2.5,"\\ud83d"]}']


def test_text_names_the_key_that_is_none() -> None:
    batch = Batch([b"a", b"b"], "hash", [{b"f": b"v"}, {b"f": b"\xff"}])
    with pytest.raises(InvalidInput, match=r"UTF-8.*key b'b'"):
        written(parquet, batch, encoding="utf-8")
    written(parquet, Batch([b"m"], "MBbloom--", [Opaque("MBbloom--", b"\xff")]), encoding="utf-8")


# Groups, and what is skipped


def strings(rows: int, length: int = 20) -> list[Batch]:
    content = random.Random(7).randbytes(length)
    keys = [b"k:%d" % n for n in range(rows)]
    pages = [keys[at : at + 100] for at in range(0, rows, 100)]
    return [Batch(page, "string", [content] * len(page)) for page in pages]


@every_format
def test_reading_from_the_middle_skips_whole_groups(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_arrow_file, "GROUP_ROWS", 300)
    data = written(form, *strings(1000))
    for start in (0, 1, 299, 300, 301, 650, 999, 1000, 1001):
        reader = form.Reader(io.BytesIO(data), "a.file")
        found = [(number, batch.keys) for number, batch in reader.batches(start)]
        assert [key for _, keys in found for key in keys] == [b"k:%d" % n for n in range(start, 1000)]
        assert all(keys[0] == b"k:%d" % number for number, keys in found)
        assert reader.place(1199) == "row 1,200"


def test_groups_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_arrow_file.ArrowWriter, "group_bytes", 100_000)
    about = pq.ParquetFile(io.BytesIO(written(parquet, *strings(1000, length=1000))))
    rows = [about.metadata.row_group(group).num_rows for group in range(about.num_row_groups)]
    assert sum(rows) == 1000
    assert max(rows) <= 200


@every_format
def test_a_value_of_megabytes_comes_whole(form: Any) -> None:
    big = random.Random(7).randbytes(5_000_000)
    assert read(form, written(form, Batch([b"a", b"b"], "string", [big, b""])))[0][0].value == big


def test_what_one_array_cannot_hold_becomes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    [batch] = strings(10)
    written(arrow, batch)  # the column of types is made once for all batches, and is longer than this limit
    monkeypatch.setattr(_layout, "_MOST_BYTES", 200)
    assert [one.value for one in read(arrow, written(arrow, batch))[0]] == batch.values
    with pytest.raises(InvalidInput, match=r"2 GiB.*key b'big'"):
        written(arrow, Batch([b"big"], "string", [b"x" * 200]))


# Other layouts


def test_elements_are_rows() -> None:
    some = [
        Record(b"s", "string", b"v", expires_at=5),
        Record(b"h", "hash", {b"f": b"1", b"g": b"2"}, details={b"g": 7}),
        Record(b"l", "list", [b"x", b"y"]),
        Record(b"z", "zset", [(b"m", 1.5)]),
        Record(b"x", "stream", [(b"1-0", {b"f": b"v"}), (b"2-0", {})]),
        Record(b"e", "stream", []),
        Record(b"t", "set", {b"b", b"a"}),
        Record(b"j", "ReJSON-RL", [1]),
        Record(b"m", "MBbloom--", Opaque("MBbloom--", b"\xff")),
    ]
    data = written(parquet, batch_of(some), layout="elements")
    found = [
        tuple(row[name] for name in ("key", "index", "id", "field", "value", "score", "field_expires_at"))
        for row in table(data).to_pylist()
    ]
    assert found == [
        (b"s", None, None, None, b"v", None, None),
        (b"h", None, None, b"f", b"1", None, None),
        (b"h", None, None, b"g", b"2", None, 7),
        (b"l", 0, None, None, b"x", None, None),
        (b"l", 1, None, None, b"y", None, None),
        (b"z", None, None, None, b"m", 1.5, None),
        (b"x", None, "1-0", b"f", b"v", None, None),
        (b"x", None, "2-0", None, None, None, None),
        (b"e", None, None, None, None, None, None),
        (b"t", None, None, None, b"a", None, None),
        (b"t", None, None, None, b"b", None, None),
        (b"j", None, None, None, b"[1]", None, None),
        (b"m", None, None, None, b"\xff", None, None),
    ]
    assert table(data).column("expires_at").to_pylist() == [5, *[None] * 12]
    with pytest.raises(InvalidInput, match=r"a\.file has the layout 'elements'.*--flatten"):
        read(parquet, data)


def test_elements_of_pieces_go_on_counting_and_strings_are_put_together() -> None:
    file = io.BytesIO()
    writer = parquet.Writer(file, layout="elements", encoding="utf-8")
    some = {"list": [[b"a", b"b"], [b"c"]], "string": [b"a", b"b"], "set": [[b"x"], [b"y"]]}
    for kind, values in some.items():
        for number, value in enumerate(values):
            writer.write_piece(Record(kind.encode(), kind, value), Piece(number, number == len(values) - 1))
    writer.finish()
    found = table(file.getvalue()).select(["key", "index", "value"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("list", 0, "a"),
        ("list", 1, "b"),
        ("list", 2, "c"),
        ("string", None, "ab"),
        ("set", None, "x"),
        ("set", None, "y"),
    ]


# What is no such file


@every_format
@settings(deadline=None)
@given(st.data())
def test_a_file_that_is_cut_off_or_damaged_says_so(form: Any, data: st.DataObject) -> None:
    whole = written(form, *strings(500))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(InvalidInput, match=r"a\.file"):
        read(form, cut)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        read(form, bytes(changed))  # in a place that nothing stands in it may go unnoticed
    except InvalidInput as error:
        assert "a.file" in str(error)


@every_format
@pytest.mark.parametrize(
    "about", [None, b"{", b'{"version":2,"layout":"records"}', b'{"version":1,"layout":"x"}']
)
def test_a_foreign_or_newer_file_is_refused(form: Any, about: bytes | None) -> None:
    schema = records_schema(False).with_metadata(None if about is None else {b"oneatatime": about})
    file = io.BytesIO()
    if form is parquet:
        pq.write_table(schema.empty_table(), file)
    else:
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_table(schema.empty_table())
    with pytest.raises(
        InvalidInput, match=r"a\.file (was not|says of itself|is of version 2|has the layout)"
    ):
        read(form, file.getvalue())


@every_format
def test_other_columns_are_named(form: Any) -> None:
    schema = records_schema(False)
    schema = schema.remove(schema.get_field_index("zset")).append(pa.field("bag", pa.int8()))
    file = io.BytesIO()
    if form is parquet:
        pq.write_table(schema.empty_table(), file)
    else:
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_table(schema.empty_table())
    with pytest.raises(InvalidInput, match=r"missing zset.*not known bag"):
        read(form, file.getvalue())


@every_format
def test_a_row_without_a_value_says_which(form: Any) -> None:
    schema = records_schema(False)
    rows = [{"key": b"a", "type": "string", "string": b"v"}, {"key": b"b", "type": "hash"}]
    hole = pa.Table.from_pylist(rows, schema)
    file = io.BytesIO()
    if form is parquet:
        pq.write_table(hole, file)
    else:
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_table(hole)
    with pytest.raises(InvalidInput, match=r"a\.file, row 2: the column 'hash' is null"):
        read(form, file.getvalue())


@every_format
def test_a_writer_that_is_dropped_leaves_no_whole_file(form: Any) -> None:
    file = io.BytesIO()
    writer = form.Writer(file)
    writer.write(strings(10)[0])
    writer._flush()
    del writer
    with pytest.raises(InvalidInput):
        read(form, file.getvalue())


@every_format
@pytest.mark.parametrize(
    "how",
    [
        {"codec": "zip"},
        {"layout": "rows"},
        {"unfit": "skip"},
        {"encoding": "latin-1"},
        {"columns": {"a": "int64"}},
        {"layout": "columns"},
        {"layout": "columns", "columns": {"a": "number"}},
        {"layout": "columns", "columns": {"key": "int64"}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(form: Any, how: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        form.Writer(io.BytesIO(), **how)


@every_format
def test_every_codec_comes_out(form: Any) -> None:
    for codec in form.Writer.codecs:
        assert len(read(form, written(form, *strings(50), codec=codec))[0]) == 50


@every_format
def test_pyarrows_own_files_will_do(form: Any, tmp_path: Any) -> None:
    with pa.OSFile(str(tmp_path / "a"), "wb") as file:
        writer = form.Writer(file)
        writer.write(strings(10)[0])
        writer.finish()
        assert not file.closed
    with pa.OSFile(str(tmp_path / "a"), "rb") as file:
        assert sum(len(batch) for _, batch in form.Reader(file, "a").batches()) == 10


def test_columns_of_a_table() -> None:
    columns = {"age": "int64", "name": "string", "born": "date32", "raw": "binary"}
    values = [
        {b"age": b"36", b"name": b"Ada", b"born": b"1815-12-10", b"raw": b"\xff", b"other": b"x"},
        {b"age": b"many", b"name": b"\xff"},
    ]
    batch = Batch([b"u:1", b"u:2"], "hash", values, metadata={"expires_at": [None, 9]})
    file = io.BytesIO()
    writer = parquet.Writer(file, layout="columns", columns=columns)
    writer.write(batch)
    writer.finish()
    found = table(file.getvalue())
    assert found.schema.names == ["key", "db", "expires_at", "age", "name", "born", "raw"]
    assert [str(row["born"]) for row in found.to_pylist()] == ["1815-12-10", "None"]
    assert found.select(["key", "expires_at", "age", "name", "raw"]).to_pylist() == [
        {"key": b"u:1", "expires_at": None, "age": 36, "name": "Ada", "raw": b"\xff"},
        {"key": b"u:2", "expires_at": 9, "age": None, "name": None, "raw": None},
    ]
    assert dict(writer.unfit) == {"age": 1, "name": 1}
    with pytest.raises(InvalidInput, match=r"field 'age' holds b'many', which is no int64.*key b'u:2'"):
        written(parquet, batch, layout="columns", columns=columns, unfit="error")
    with pytest.raises(InvalidInput, match=r"this is a list: choose types=.*key b'l'"):
        written(parquet, Batch([b"l"], "list", [[b"x"]]), layout="columns", columns=columns)


def test_a_big_hash_is_one_row_of_a_table() -> None:
    file = io.BytesIO()
    writer = parquet.Writer(file, layout="columns", columns={"a": "int64", "b": "bool"}, beside=())
    writer.write_piece(Record(b"k", "hash", {b"a": b"1", b"x": b"y"}), Piece(0))
    writer.write_piece(Record(b"k", "hash", {b"b": b"true"}), Piece(1, last=True))
    writer.write_piece(Record(b"l", "hash", {}), Piece(0, last=True))
    writer.finish()
    assert table(file.getvalue()).to_pylist() == [
        {"key": b"k", "a": 1, "b": True},
        {"key": b"l", "a": None, "b": None},
    ]


@settings(deadline=None)
@given(st.lists(st.lists(records(), min_size=1, max_size=3), max_size=6))
def test_pages_that_are_put_together_keep_their_order(some: list[list[Record]]) -> None:
    batches = [batch_of(page) for page in some]
    for batch in batches:
        batch.size = 100  # of unknown size each would go by itself
    found, _ = read(arrow, written(arrow, *batches))
    assert all_same(found, [record for page in some for record in page])


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "oneatatime\[arrow\]"'):
        parquet.Writer(io.BytesIO())
