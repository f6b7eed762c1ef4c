"""Endpoint as a value: shown, compared, sent elsewhere, made from the wrong things."""

from __future__ import annotations

import copy
import pickle
import ssl
import subprocess
import sys
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from oneatatime._endpoint import TLS, Endpoint
from oneatatime._errors import InvalidInput

SECRET = "s3cr3tpassw0rd"


@pytest.mark.parametrize(
    ("endpoint", "shown", "node"),
    [
        (Endpoint(), "<Endpoint redis://localhost:6379/0>", "localhost:6379"),
        (Endpoint("::1", db=2), "<Endpoint redis://[::1]:6379/2>", "[::1]:6379"),
        (Endpoint("h", username="u", password="p"), "<Endpoint redis://u:***@h:6379/0>", "h:6379"),
        (Endpoint("h", password="p", tls=TLS()), "<Endpoint rediss://:***@h:6379/0>", "h:6379"),
        (Endpoint("h", username="forgotten-colon"), "<Endpoint redis://***@h:6379/0>", "h:6379"),
        (
            Endpoint(path="/run/r.sock", password="p"),
            "<Endpoint unix://:***@/run/r.sock?db=0>",
            "unix:/run/r.sock",
        ),
    ],
    ids=["default", "IPv6", "user", "TLS", "user alone", "unix"],
)
def test_repr_and_node(endpoint: Endpoint, shown: str, node: str) -> None:
    assert repr(endpoint) == str(endpoint) == shown
    assert endpoint.node == node


def test_endpoint_is_a_value() -> None:
    one, two = Endpoint.of("rediss://u:p@h?ssl_ca_data=PEM"), Endpoint.of("rediss://u:p@h?ssl_ca_data=PEM")
    assert one == two
    assert hash(one) == hash(two)
    assert one != Endpoint.of("rediss://u:q@h")
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    with pytest.raises(AttributeError):
        one.host = "other"  # type: ignore[misc]


def test_tls_repr_hides_secrets() -> None:
    shown = repr(TLS(keyfile="/k", key_password=SECRET, ca_data="PEM", context=ssl.create_default_context()))
    assert "/k" in shown
    assert all(hidden not in shown for hidden in (SECRET, "PEM", "Context"))


@pytest.mark.parametrize(
    ("source", "db", "expected"),
    [
        ("redis://h/1", 5, Endpoint("h", db=5)),
        ("redis://h/1", None, Endpoint("h", db=1)),
        ("redis://h/1", 0, Endpoint("h", db=0)),
        ("unix:///x?db=1", 2, Endpoint(path="/x", db=2)),
        (Endpoint("h", db=1), 3, Endpoint("h", db=3)),
        (Endpoint("h", db=1), None, Endpoint("h", db=1)),
    ],
)
def test_db_of_the_caller_wins(source: object, db: int | None, expected: Endpoint) -> None:
    assert Endpoint.of(source, db=db) == expected


@pytest.mark.parametrize("db", [-1, True, "x", 1.5])
def test_db_that_makes_no_sense(db: Any) -> None:
    with pytest.raises(InvalidInput, match="db must be a number"):
        Endpoint.of("redis://h", db=db)


def test_tls_over_a_path_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no TLS over the socket"):
        Endpoint(path="/x", tls=TLS())


@pytest.mark.parametrize(
    "source",
    [
        None,
        6379,
        True,
        b"redis://h",
        ["redis://h"],
        object(),
        redis.Redis,
        redis.ConnectionPool(password=SECRET),
    ],
    ids=["None", "int", "bool", "bytes", "list", "object", "class", "pool"],
)
def test_source_of_another_kind(source: object) -> None:
    with pytest.raises(InvalidInput, match=r"a source is a URL .* or a client of redis-py") as caught:
        Endpoint.of(source)
    assert type(source).__name__ in str(caught.value)
    assert SECRET not in str(caught.value)


def test_import_loads_neither_ssl_nor_a_client() -> None:
    # what asyncio itself imports, the ssl module among it, is not our doing
    program = (
        "import asyncio, sys; before = set(sys.modules); import oneatatime._endpoint; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert not {"ssl", "redis", "valkey", "coredis", "glide"} & set(loaded.split())


@given(password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_password_is_in_no_repr(password: str) -> None:
    password = f"<{password}>"  # longer than what a repr has in it by chance
    for endpoint in (
        Endpoint("h", username="u", password=password),
        Endpoint("h", username=password, password=""),
        Endpoint(path="/x", password=password, tls=None),
    ):
        for text in (repr(endpoint), str(endpoint), f"{endpoint}", endpoint.node):
            assert password not in text
            assert quote(password, safe="") not in text
