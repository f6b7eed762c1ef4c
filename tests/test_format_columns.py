"""Hashes as tables: which types fields seem to have, and what does not fit them."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneatatime._options import MiB
from oneatatime._record import Batch
from oneatatime.formats._table import Columns, Inference, infer


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        ([b"1", b"-2", b"0"], "int64"),
        ([b"007"], "string"),
        ([b"99999999999999999999"], "float64"),
        ([b"1", b"2.5", b"1e9"], "float64"),
        ([b"true", b"False"], "bool"),
        ([b"2024-02-29"], "date32"),
        ([b"2024-02-30"], "string"),
        ([b"2024-02-29T10:00:00.123"], "timestamp[us]"),
        ([b"2024-02-29 10:00"], "timestamp[us]"),
        ([b"2024-02-29T10:00:00Z", b"2024-02-29T10:00:00+01:00"], "timestamp[us, tz=UTC]"),
        ([b"1", b"one"], "string"),
        ([b""], "string"),
        ([b"\xff"], "binary"),
    ],
    ids=str,
)
def test_the_type_of_a_field_is_seen_in_samples(contents: list[bytes], kind: str) -> None:
    assert infer([{b"f": content} for content in contents]) == {"f": kind}


contents = st.one_of(
    st.integers().map(lambda n: b"%d" % n),
    st.floats().map(lambda x: repr(x).encode()),
    st.booleans().map(lambda b: str(b).lower().encode()),
    st.dates().map(lambda d: d.isoformat().encode()),
    st.datetimes().map(lambda d: d.isoformat().encode()),
    st.binary(max_size=8),
)
hashes = st.lists(st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), contents), max_size=12)


@settings(deadline=None)
@given(hashes)
def test_what_was_inferred_fits_all_it_was_inferred_from(values: list[dict[bytes, bytes]]) -> None:
    layout = Columns(infer(values), text=False, unfit="null", beside=())
    found = layout.table(Batch([b"k"] * len(values), "hash", values))
    assert not layout.unfit
    for name in layout.schema.names[1:]:
        there = [name.encode() in value for value in values]
        assert [one is not None for one in found.column(name).to_pylist()] == there


@settings(deadline=None)
@given(hashes, st.integers(0, 12))
def test_what_is_inferred_as_hashes_come_is_what_all_of_them_say(
    values: list[dict[bytes, bytes]], first: int
) -> None:
    inference = Inference()
    inference.add(values[:first])
    inference.add(values[first:])
    assert inference.columns() == infer(values)
    only = Inference([b"b", b"never"])
    only.add(values)
    assert only.columns() == {name: kind for name, kind in infer(values).items() if name == "b"}


def test_inference_keeps_no_hashes_and_ends_early() -> None:
    inference, read = Inference(), 0
    tracemalloc.start()
    while not inference.enough:
        value = {b"%d" % n: random.randbytes(9000) for n in range(100)}
        inference.add_batch(Batch([b"k"], "hash", [value], size=900_000))
        read += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 30 < read < 50
    assert peak < 8 * MiB
    many = Inference()
    for _ in range(3):
        many.add_batch(Batch([b"k"] * 600, "hash", [{b"f": b"1"}] * 600))
    assert many.hashes == 1000


@settings(deadline=None)
@given(st.lists(contents, max_size=20), st.sampled_from(["int64", "float64", "bool", "date32", "string"]))
def test_what_does_not_fit_is_null_row_by_row(found: list[bytes], kind: str) -> None:
    layout = Columns({"f": kind}, text=False, unfit="null")
    together = layout.table(Batch([b"k"] * len(found), "hash", [{b"f": one} for one in found])).column("f")
    alone: list[Any] = []
    for one in found:
        alone += layout.table(Batch([b"k"], "hash", [{b"f": one}])).column("f").to_pylist()
    assert str(together.to_pylist()) == str(alone)
    assert layout.unfit["f"] == 2 * together.null_count


def test_text_that_holds_bytes_is_unfit() -> None:
    layout = Columns({"f": "string"}, text=True, unfit="null")
    batch = Batch(["a", "b"], "hash", [{"f": "ok"}, {"f": "\udcff"}])
    assert layout.table(batch).column("f").to_pylist() == ["ok", None]
    assert layout.schema.field("key").type == pa.string()
