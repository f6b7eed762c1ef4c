"""Lazy frames of polars: what a query leaves out is not read, and what it finds is what polars would find."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oneatatime
from oneatatime import polars_scan
from oneatatime._polars import _asked
from oneatatime._pushed import escaped
from tests.leaks import assert_no_connections, threads
from tests.servers import Server

col = pl.col


@pytest.fixture
def filled(server: Server) -> Server:
    pipeline: Any = server.admin.pipeline(transaction=False)
    for n in range(300):
        pipeline.set(f"s:{n}", n)
        pipeline.hset(f"h:{n}", mapping={"age": n, "name": f"name {n}"})
        pipeline.rpush(f"l[{n}]*", "a", "b")
    pipeline.execute()
    server.admin.config_resetstat()
    return server


def asked(server: Server) -> dict[str, int]:
    """How often each command of reading was sent since the last look."""
    found: Any = server.admin.info("commandstats")
    server.admin.config_resetstat()
    names = ("scan", "hscan", "hmget", "lrange", "mget", "get", "getrange", "type")
    return {name: int(found[f"cmdstat_{name}"]["calls"]) for name in names if f"cmdstat_{name}" in found}


def test_all_of_it(filled: Server) -> None:
    found = polars_scan(filled.url).collect()
    assert found.height == 900
    assert found.schema == polars_scan(filled.url).collect_schema()


def test_keys_alone_are_read_alone(filled: Server) -> None:
    assert polars_scan(filled.url).select("key").collect().height == 900
    assert set(asked(filled)) == {"scan"}
    assert polars_scan(filled.url, encoding="utf-8").select("key").collect()["key"].dtype == pl.String


def test_types_are_asked_of_the_server(filled: Server) -> None:
    scan = polars_scan(filled.url, encoding="utf-8")
    assert scan.filter(col("type") == "hash").collect().height == 300
    assert set(asked(filled)) <= {"scan", "hscan"}
    assert scan.filter(col("type").is_in(["hash", "list"])).collect().height == 600
    assert not set(asked(filled)) & {"mget", "get", "getrange"}
    assert scan.filter(col("type") == "hash").select("key").collect().height == 300
    assert set(asked(filled)) == {"scan"}
    both = (col("type") == "hash") & (col("type") == "list")
    assert scan.filter(both).collect().height == 0
    assert not asked(filled)
    assert scan.filter(col("type") == "bag").collect().height == 0
    assert polars_scan(filled.url, types="list").filter(col("type") == "hash").collect().height == 0


def test_prefixes_are_patterns_and_keys_are_read_by_name(filled: Server) -> None:
    scan = polars_scan(filled.url, encoding="utf-8")
    assert scan.filter(col("key").str.starts_with("l[1")).collect().height == 111
    assert asked(filled)["lrange"] == 111
    as_bytes = polars_scan(filled.url)
    assert as_bytes.filter(col("key").bin.starts_with(b"l[1")).collect().height == 111
    assert asked(filled)["lrange"] == 111
    assert scan.filter(col("key") == "l[7]*").collect()["list"].to_list() == [["a", "b"]]
    assert "scan" not in asked(filled)
    assert scan.filter(col("key") == "nothing").collect().height == 0
    given = polars_scan(filled.url, match="h:1*", encoding="utf-8")
    assert given.filter(col("key").str.starts_with("h:12")).collect().height == 11


def test_columns_and_what_polars_filters_itself(filled: Server) -> None:
    scan = polars_scan(filled.url, columns={"age": "int64", "name": "string"}, encoding="utf-8")
    old = scan.filter(col("age") > 296).sort("age")
    assert old.select("name").collect()["name"].to_list() == ["name 297", "name 298", "name 299"]
    assert set(asked(filled)) <= {"scan", "hscan", "hmget"}
    assert scan.select("key").collect().height == 300
    assert set(asked(filled)) == {"scan"}
    mixed = scan.filter(col("key").str.starts_with("h:29") & (col("age") > 298))
    assert mixed.select("key").collect()["key"].to_list() == ["h:299"]
    assert polars_scan(filled.url, columns=["age"]).collect_schema()["age"] == pl.Int64


def test_a_head_ends_the_scan(filled: Server) -> None:
    options = oneatatime.Options(count=10, ahead=1)
    scan = polars_scan(filled.url, options=options)
    assert scan.head(5).collect().height == 5
    few = asked(filled)["scan"]
    assert not threads()
    assert_no_connections(filled.admin)
    assert scan.collect().height == 900
    assert few * 3 < asked(filled)["scan"]


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans give their rows in order of the keys, which no scan has by itself."""
    found = oneatatime._polars._frames  # type: ignore[attr-defined]

    def ordered(*args: Any) -> Any:
        *rest, needed = args
        yield from pl.concat(list(found(*rest, needed | {"key"}))).sort("key").iter_slices(70)

    monkeypatch.setattr(oneatatime._polars, "_frames", ordered)  # type: ignore[attr-defined]


_AGED = {
    "age": col("age") > 100,
    "key": col("key").str.starts_with("h:1"),
    "one": col("key") == "h:7",
    "type": col("key").str.starts_with("h:") & (col("age") < 250),
}
_STEPS: list[Any] = [lambda frame, some=some: frame.filter(some) for some in _AGED.values()]
_STEPS += [lambda frame, n=n: frame.head(n) for n in (0, 5, 150, 1000)]
_STEPS += [lambda frame: frame.select("key", "age"), lambda frame: frame.slice(3, 40)]
_ENDS: dict[str, Any] = {
    "all": lambda frame: frame,
    "index": lambda frame: frame.with_row_index().select("index"),
    "late": lambda frame: frame.with_row_index().filter(col("index") > 2),
    "count": lambda frame: frame.select(pl.len()),
    "key": lambda frame: frame.select("key"),
}


@pytest.mark.parametrize("end", _ENDS)
def test_queries_find_what_they_find_in_a_frame_that_was_read(
    filled: Server, in_order: None, end: str
) -> None:
    scan = polars_scan(filled.url, columns={"age": "int64"}, types="hash", encoding="utf-8")
    read = scan.collect().lazy()
    for steps in itertools.product(_STEPS, repeat=2):
        found, expected = scan, read
        for step in (*steps, _ENDS[end]):
            found, expected = step(found), step(expected)
        assert found.collect().equals(expected.collect()), expected.explain()


def test_rows_are_counted_before_the_filter_by_type(filled: Server, in_order: None) -> None:
    scan = polars_scan(filled.url, encoding="utf-8")
    read = scan.collect()
    some = col("type") == "hash"
    assert scan.head(500).filter(some).collect().equals(read.head(500).filter(some))
    assert scan.with_row_index().select("index").collect().height == 900


def test_a_head_never_comes_before_a_filter(filled: Server) -> None:
    scan = polars_scan(filled.url, columns={"age": "int64"}, options=oneatatime.Options(count=10))
    assert scan.filter(col("age") == 17).head(1).collect().height == 1
    typed = polars_scan(filled.url).filter(col("type") == "list")
    assert typed.head(7).collect().height == 7
    assert scan.head(20).filter(col("age") >= 0).collect().height == 20


def test_counts_and_elements(filled: Server) -> None:
    assert polars_scan(filled.url).select(pl.len()).collect().item() == 900
    elements = polars_scan(filled.url, flatten=True)
    assert elements.select("key").collect().height == 300 + 600 + 600
    assert elements.filter(col("type") == "list").select(pl.len()).collect().item() == 600
    groups = polars_scan(filled.url).group_by("type").len().collect()
    assert dict(groups.iter_rows()) == {"string": 300, "hash": 300, "list": 300}


def test_the_streaming_engine_sees_the_same(filled: Server) -> None:
    scan = polars_scan(filled.url).filter(col("type") == "hash").select("key")
    assert scan.collect(engine="streaming").height == 300


FILTERS = [
    col("type") == "hash",
    col("type") != "hash",
    col("type").is_in(["hash", "string"]),
    ~col("type").is_in(["hash"]),
    (col("type") == "hash") | (col("type") == "list"),
    (col("type") == "hash") | (col("key") == "s:1"),
    col("key") == "h:7",
    col("key") > "h:7",
    col("key").str.starts_with("h:2"),
    ~col("key").str.starts_with("h:2"),
    col("key").str.ends_with("7"),
    col("key").str.contains("1"),
    pl.lit("hash") == col("type"),
    col("type").is_null(),
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.sampled_from(range(len(FILTERS))), min_size=1, max_size=3))
def test_every_filter_finds_what_polars_finds(filled: Server, chosen: list[int]) -> None:
    predicate = pl.all_horizontal([]) if not chosen else FILTERS[chosen[0]]
    for number in chosen[1:]:
        predicate = predicate & FILTERS[number]
    scan = polars_scan(filled.url, encoding="utf-8").select("key", "type")
    everything = scan.collect()
    found = scan.filter(predicate).collect()
    assert found.sort("key").equals(everything.filter(predicate).sort("key"))


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_an_escaped_key_means_itself_alone(key: bytes, other: bytes) -> None:
    from oneatatime._glob import matcher

    assert matcher(escaped(key))(key)
    assert matcher(escaped(key))(other) == (key == other)
    assert matcher(escaped(key) + b"*")(key + other)


def test_what_is_not_certain_is_not_asked() -> None:
    for predicate in (
        col("key") == "text where keys are bytes",
        col("type").str.starts_with("h"),
        col("type").eq_missing("hash"),
        (col("type") == "hash") | (col("age") == 1),
        col("type") == "no such type",
    ):
        assert _asked(predicate, {}) == ({}, False)
    assert _asked(col("key") == b"k", {"match": "m*"}) == ({}, False)
    for errors in ("ignore", "replace", "surrogateescape"):  # of keys that are no text several look alike
        assert _asked(col("key") == "k", {"encoding": "utf-8", "errors": errors}) == ({}, False)
    assert _asked(col("key") == b"k", {"db": "all"}) == ({"match": b"k"}, True)
    assert _asked((col("type") == "hash") & (col("age") == 1), {}) == ({"types": ["hash"]}, False)


def test_a_field_may_have_the_name_type(server: Server) -> None:
    server.admin.hset("a", mapping={"type": "list"})
    server.admin.hset("b", mapping={"type": "hash"})
    scan = polars_scan(server.url, columns={"type": "string"}, encoding="utf-8")
    assert dict(scan.select("key", "type").collect().iter_rows()) == {"a": "list", "b": "hash"}
    assert scan.filter(col("type") == "list").collect()["key"].to_list() == ["a"]


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(oneatatime.InvalidInput):
        polars_scan("redis://localhost", types="bag")
    with pytest.raises(oneatatime.InvalidInput):
        polars_scan("redis://localhost", flatten=True, columns={"a": "int64"})


def test_without_polars_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(oneatatime.MissingExtra, match=r'pip install "oneatatime\[polars\]"'):
        polars_scan("redis://localhost")
