"""docs/permissions.md says what each feature needs: it works with exactly that, and not with less."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime import Options, PermissionDenied

PAGE = Path(__file__).parent.parent / "docs" / "permissions.md"
SMALL_PARTS = Options(parts_over=2000, chunk=1000)

Read = Callable[[str], Awaitable[Any]]


def rules() -> dict[str, list[str]]:
    table = PAGE.read_text().split("| feature | rules |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([\w ]+) \| `(.*)` \|$", table, re.M)
    return {feature: words.replace("\\|", "|").split() for feature, words in rows}


RULES = rules()


def values_of(kind: str) -> Read:
    async def read(url: str) -> Any:
        stream = oneatatime.stream(url, match=f"{kind}*", options=SMALL_PARTS)
        return {key: value async for key, value in stream}

    return read


def parts_of(key: str) -> Read:
    async def read(url: str) -> Any:
        (value,) = [value async for value in oneatatime.OneAtATime(url, [key], options=SMALL_PARTS)]
        assert isinstance(value, oneatatime.Parts)
        return [part async for part in value]

    return read


def metadata(name: str) -> Read:
    async def read(url: str) -> Any:
        stream = oneatatime.stream(url, match="string:*", metadata=name)
        return [getattr(record, name) async for record in stream.records()]

    return read


async def names(url: str) -> Any:
    return [key async for key in oneatatime.stream(url).keys()]


async def names_of_types(url: str) -> Any:
    return [key async for key in oneatatime.stream(url, types=["hash", "zset"]).keys()]


async def names_of_db_1(url: str) -> Any:
    return [key async for key in oneatatime.stream(url + "?db=1").keys()]


async def names_at_half_load(url: str) -> Any:
    return [key async for key in oneatatime.stream(url, max_load=0.5).keys()]


# What reads each feature, and the features that it stands on.
FEATURES: dict[str, tuple[Read, list[str]]] = {
    "names": (names, []),
    "another database than 0": (names_of_db_1, ["names"]),
    "several types": (names_of_types, ["names"]),
    "strings": (values_of("string"), ["names"]),
    "long strings": (parts_of("big:string"), ["strings"]),
    "empty strings": (values_of("empty:string"), ["names", "strings"]),
    "hashes": (values_of("hash"), ["names"]),
    "lists": (values_of("list"), ["names"]),
    "sets": (values_of("set"), ["names"]),
    "sorted sets": (values_of("zset"), ["names"]),
    "streams": (values_of("stream"), ["names"]),
    "empty streams": (values_of("empty:stream"), ["names", "streams"]),
    "big collections": (parts_of("big:hash"), ["hashes"]),
    "big sorted sets": (parts_of("big:zset"), ["sorted sets", "big collections"]),
    "big streams": (parts_of("big:stream"), ["streams", "big collections"]),
    "metadata ttl": (metadata("ttl"), ["names", "strings"]),
    "metadata memory": (metadata("memory"), ["names", "strings"]),
    "metadata idle": (metadata("idle"), ["names", "strings"]),
    "metadata freq": (metadata("freq"), ["names", "strings"]),
    "metadata encoding": (metadata("encoding"), ["names", "strings"]),
    "max_load": (names_at_half_load, ["names"]),
}

# Not needed by the little that the test reads: MGET is for strings that have proven short.
SPARED = {("strings", "+mget"), ("long strings", "+get")}


@pytest.fixture
def data(tcp_server):
    admin = tcp_server.admin
    for number in range(40):
        admin.set(f"string:{number}", "x")
        admin.hset(f"hash:{number}", "f", "v")
        admin.rpush(f"list:{number}", "e")
        admin.sadd(f"set:{number}", "m")
        admin.zadd(f"zset:{number}", {"m": 1})
        admin.xadd(f"stream:{number}", {"f": "v"})
    admin.set("empty:string", "")
    admin.xgroup_create("empty:stream", "group", mkstream=True)
    admin.set("big:string", "x" * 100_000)
    admin.hset("big:hash", mapping={f"f{number}": "v" * 100 for number in range(100)})
    admin.zadd("big:zset", {"m" * 100 + str(number): number for number in range(100)})
    for _ in range(100):
        admin.xadd("big:stream", {"f": "v" * 100})
    return tcp_server


def as_user(server: Any, allowed: list[str]) -> str:
    words = ["ACL", "SETUSER", "reader", "reset", "on", ">secret", "%R~*", "-@all", *allowed]
    server.admin.execute_command(*words)
    return str(server.url).replace("redis://", "redis://reader:secret@")


def needed(feature: str) -> list[str]:
    _, standing_on = FEATURES[feature]
    return [rule for other in standing_on for rule in needed(other)] + RULES[feature]


def prepare(server: Any, feature: str) -> None:
    if feature == "metadata freq":
        server.admin.config_set("maxmemory-policy", "allkeys-lfu")


@pytest.mark.parametrize("feature", FEATURES)
async def test_a_feature_works_with_exactly_its_rules(feature, data) -> None:
    prepare(data, feature)
    read, _ = FEATURES[feature]
    as_admin = await read(str(data.url))
    assert await read(as_user(data, needed(feature))) == as_admin


@pytest.mark.parametrize(
    ("feature", "rule"),
    [(feature, rule) for feature in FEATURES for rule in RULES[feature] if (feature, rule) not in SPARED],
)
async def test_each_rule_is_needed_and_its_lack_is_named(feature, rule, data) -> None:
    prepare(data, feature)
    read, _ = FEATURES[feature]
    allowed = [other for other in needed(feature) if other != rule]
    with pytest.raises(PermissionDenied) as caught:
        await read(as_user(data, allowed))
    name = rule[1:].split("|")[0].upper()
    assert name in (caught.value.command or "").upper() or name.lower() in str(caught.value).lower()


async def test_mget_is_needed_where_strings_have_proven_short(data) -> None:
    data.admin.mset({f"string:{number}": "x" for number in range(5000)})
    allowed = [rule for rule in [*needed("strings"), "+info"] if rule != "+mget"]
    with pytest.raises(PermissionDenied):
        await values_of("string")(as_user(data, allowed))


async def test_the_general_user_of_the_page_may_do_everything(data) -> None:
    line = re.search(r"ACL SETUSER reader on >password (.*)", PAGE.read_text())
    assert line is not None
    data.admin.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">secret", *line[1].split())
    data.admin.execute_command("ACL", "LOG", "RESET")
    url = str(data.url).replace("redis://", "redis://reader:secret@")
    for feature, (read, _) in FEATURES.items():
        if feature != "metadata freq":
            await read(url)
    denied = [entry for entry in data.admin.execute_command("ACL", "LOG") if b"reader" in str(entry).encode()]
    assert denied == []


def test_every_row_is_run() -> None:
    assert set(RULES) - set(FEATURES) == {"other types"}  # needs a module: tests/test_types.py reads them
