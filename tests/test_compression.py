"""Compressed files: what was written is read; what is cut off or damaged is said to be."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tracemalloc

import pytest
import zstandard

from oneatatime import InvalidInput, MissingExtra
from oneatatime._record import Batch, Opaque
from oneatatime.formats import Format, compressed, decompressed, format_of, reader, writer

DATA = b"".join(b"line %d\n" % number for number in range(2000)) + os.urandom(3000)
COMPRESSIONS = ["gz", "zst"]


def packed(data: bytes, compression: str) -> bytes:
    file = io.BytesIO()
    into = compressed(file, compression)
    for start in range(0, len(data), 700):
        into.write(data[start : start + 700])
    into.close()
    into.close()
    return file.getvalue()


def unpacked(data: bytes, compression: str) -> bytes:
    return decompressed(io.BytesIO(data), compression, "keys").read()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_was_written_is_read(compression: str) -> None:
    for data in (b"", b"x", DATA):
        assert unpacked(packed(data, compression), compression) == data


def test_other_programs_read_it_and_theirs_is_read() -> None:
    assert gzip.decompress(packed(DATA, "gz")) == DATA
    assert unpacked(gzip.compress(DATA), "gz") == DATA
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed(DATA, "zst")) == DATA
    assert unpacked(zstandard.ZstdCompressor(level=9, write_checksum=True).compress(DATA), "zst") == DATA


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_several_one_behind_the_other_are_one(compression: str) -> None:
    several = packed(DATA, compression) + packed(b"", compression) + packed(b"end", compression)
    assert unpacked(several, compression) == DATA + b"end"


def test_zeros_may_stand_behind_gzip() -> None:
    assert unpacked(packed(b"x", "gz") + b"\0" * 200_000 + packed(b"y", "gz") + b"\0", "gz") == b"xy"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cut_off_anywhere_it_is_said_so(compression: str) -> None:
    whole = packed(b"some text " * 50 + os.urandom(100), compression)
    for end in range(len(whole)):
        with pytest.raises(InvalidInput, match=r"keys is cut off"):
            unpacked(whole[:end], compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cut_off_in_the_second_it_is_said_so_too(compression: str) -> None:
    first, second = packed(b"one", compression), packed(b"two", compression)
    for end in range(1, len(second)):
        with pytest.raises(InvalidInput, match=r"keys is"):
            unpacked(first + second[:end], compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_something_else_is_refused(compression: str) -> None:
    for data in (b'{"key":"a"}\n', b"\0" * 100, packed(b"x", compression) + b"and this"):
        with pytest.raises(InvalidInput, match=r"keys is (no \w+ file|cut off)"):
            unpacked(data, compression)


def test_a_damaged_byte_is_found_by_the_sum() -> None:
    whole = bytearray(packed(DATA, "gz"))
    whole[len(whole) // 2] ^= 1
    with pytest.raises(InvalidInput, match="is damaged"):
        unpacked(bytes(whole), "gz")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_gigabyte_of_nothing_takes_little_memory(compression: str) -> None:
    file = io.BytesIO()
    into = compressed(file, compression)
    for _ in range(200):
        into.write(bytes(1 << 20))
    into.close()
    file.seek(0)
    tracemalloc.start()
    source = decompressed(file, compression, "keys")
    size = 0
    while chunk := source.read(1 << 16):
        size += len(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 200 << 20
    assert peak < 80 << 20


def test_none_is_the_file_itself() -> None:
    file = io.BytesIO()
    assert compressed(file, None) is file
    assert decompressed(file, None, "keys") is file


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_nobody_closed_stays_cut_off(compression: str) -> None:
    file = io.BytesIO()
    into = compressed(file, compression)
    into.write(DATA)
    del into
    with pytest.raises(InvalidInput, match="cut off"):
        unpacked(file.getvalue(), compression)


def test_without_zstandard_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for call in (
        lambda: compressed(io.BytesIO(), "zst"),
        lambda: decompressed(io.BytesIO(), "zst", "keys"),
    ):
        with pytest.raises(MissingExtra, match=r'pip install "oneatatime\[zstd\]"'):
            call()


# Which format a file has


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("keys.jsonl", None, Format("jsonl")),
        ("keys.ndjson", None, Format("jsonl")),
        ("s3://bucket/2026.01/KEYS.JSONL.ZST", None, Format("jsonl", "zst")),
        ("keys.dump.gz", None, Format("dump", "gz")),
        ("keys.resp", None, Format("dump")),
        ("keys.parquet", None, Format("parquet")),
        ("keys.feather", None, Format("arrow")),
        ("keys.csv.gz", None, Format("csv", "gz")),
        ("keys.tsv", None, Format("tsv")),
        ("-", "jsonl.zst", Format("jsonl", "zst")),
        ("keys", "ndjson", Format("jsonl")),
        ("keys.gz", ".csv", Format("csv", "gz")),
        ("keys.jsonl", "dump", Format("dump")),
    ],
)
def test_a_format_by_its_ending_or_by_name(name: str, given: str | None, expected: Format) -> None:
    assert format_of(name, given) == expected


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("keys.txt", None, r"'keys.txt' does not end .*JSON lines \(.jsonl, .ndjson\)"),
        ("keys", None, "does not end"),
        ("jsonl", None, "does not end"),
        ("some.jsonl/keys", None, "does not end"),
        ("keys.zst", None, "does not end"),
        ("-", "jsnol", "no format 'jsnol'; did you mean 'jsonl'?"),
        ("-", "", "there is no format ''"),
        ("keys.parquet.gz", None, "Parquet compresses inside: .* end with .parquet, without .gz"),
        ("-", "arrow.zst", "Arrow IPC compresses inside"),
    ],
)
def test_no_format_and_what_there_is(name: str, given: str | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        format_of(name, given)


def test_extensions_lead_back() -> None:
    for name in ("jsonl", "dump", "parquet", "arrow", "csv", "tsv"):
        assert format_of(f"keys{Format(name).extension}") == Format(name)
        assert Format(name).lossless is (name not in ("csv", "tsv"))


def test_wishes_that_a_format_has_no_place_for() -> None:
    for name, wish, message in (
        ("jsonl", {"layout": "elements"}, "JSON lines has no layout 'elements', only 'records'"),
        ("csv", {"layout": "records"}, "CSV has no layout 'records', only 'elements'"),
        ("dump", {"columns": ["a"]}, "a dump has no columns"),
        ("jsonl", {"encoding": "utf-8"}, "JSON lines has no encoding"),
        ("csv", {"unfit": "guess"}, 'unfit is "error" or "skip"'),
        ("csv", {"colour": "red"}, "CSV has no colour"),
    ):
        with pytest.raises(InvalidInput, match=message):
            writer(Format(name), io.BytesIO(), **wish)
    with pytest.raises(InvalidInput, match=r"keys\.csv: CSV cannot be read back"):
        reader(Format("csv"), io.BytesIO(), "keys.csv")


def test_what_is_optional_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, oneatatime.formats; print({'zstandard', 'pyarrow', 'csv'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", ["jsonl", "dump"])
def test_records_through_compression_and_back(name: str, compression: str) -> None:
    format_ = format_of(f"keys.{name}.{compression}")
    dump = Opaque("string", b"\x00\x03abc\x0b\x00" + bytes(8))
    value = dump if name == "dump" else b"value"
    batch = Batch([b"key %d" % number for number in range(5000)], "string", [value] * 5000)
    file = io.BytesIO()
    into = compressed(file, compression)
    records = writer(format_, into)
    records.write(batch)
    records.finish()
    into.close()
    whole = file.getvalue()

    def read(data: bytes) -> list[bytes]:
        source = decompressed(io.BytesIO(data), compression, "keys")
        return [key for _, some in reader(format_, source, "keys").batches() for key in some.keys]

    assert read(whole) == batch.keys
    for end in range(0, len(whole), max(len(whole) // 100, 1)):
        with pytest.raises(InvalidInput, match=r"^keys is cut off"):
            read(whole[:end])
