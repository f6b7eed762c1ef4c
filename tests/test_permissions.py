"""docs/permissions.md says what each feature needs: it works with exactly that, and not with less."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime import Group, Opaque, Options, Pending, PermissionDenied, Record, StreamDetails
from tests.clusters import Cluster, caught_up
from tests.importing import Canned, piece, take
from tests.nodes import until

PAGE = Path(__file__).parent.parent / "docs" / "permissions.md"
SMALL_PARTS = Options(parts_over=2000, chunk=1000)

Read = Callable[[str], Awaitable[Any]]


def rules(head: str) -> dict[str, list[str]]:
    table = PAGE.read_text().split(f"| {head} | rules |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([\w ,]+) \| `(.*)` \|$", table, re.M)
    return {feature: words.replace("\\|", "|").split() for feature, words in rows}


RULES = rules("feature")
IN_A_CLUSTER = rules("in a cluster")


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


def details(kind: str) -> Read:
    async def read(url: str) -> Any:
        stream = oneatatime.stream(url, match=f"{kind}:*", metadata="details")
        return {record.key: record.details async for record in stream.records()}

    return read


async def some_fields(url: str) -> Any:
    return [value async for _, value in oneatatime.stream(url, match="hash:*", fields=["other"])]


async def dumps(url: str) -> Any:
    return {key: value async for key, value in oneatatime.stream(url, dump=True)}


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
    "metadata expires_at": (metadata("expires_at"), ["names", "strings"]),
    "metadata details of hashes": (details("hash"), ["names", "hashes"]),
    "metadata details of streams": (details("stream"), ["names", "streams"]),
    "some fields of hashes": (some_fields, ["names"]),
    "values as dumps": (dumps, ["names"]),
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
    admin.xgroup_create("stream:0", "group")
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


ALL_TYPES = [
    *("strings", "long strings", "empty strings", "hashes", "lists", "sets", "sorted sets", "streams"),
    *("empty streams", "big collections", "big sorted sets", "big streams"),
]
AS_RECORDS = [*ALL_TYPES, "metadata expires_at", "metadata details of hashes", "metadata details of streams"]
EXPORTS = {
    "jsonl": AS_RECORDS,
    "parquet": AS_RECORDS,
    "arrow": AS_RECORDS,
    "dump": ["values as dumps", "metadata expires_at"],
}


@pytest.mark.parametrize("form", EXPORTS)
async def test_an_export_needs_what_the_page_says(form, data, tmp_path) -> None:
    allowed = [rule for feature in ["names", *EXPORTS[form]] for rule in RULES[feature]]
    options = None if form == "dump" else SMALL_PARTS
    data.admin.xgroup_create("big:stream", "group")
    done = await oneatatime.export(as_user(data, allowed), tmp_path / f"all.{form}", options=options)
    assert done.complete
    assert done.records == data.admin.dbsize()


@pytest.mark.parametrize("form", EXPORTS)
async def test_without_its_moments_there_is_no_export(form, data, tmp_path) -> None:
    features = [feature for feature in ["names", *EXPORTS[form]] if feature != "metadata expires_at"]
    allowed = [rule for feature in features for rule in RULES[feature]]
    with pytest.raises(PermissionDenied, match="pexpiretime"):
        await oneatatime.export(as_user(data, allowed), tmp_path / f"all.{form}")
    assert list(tmp_path.iterdir()) == []


async def test_the_clock_of_a_big_stream(data) -> None:
    """Its lack was a TypeError."""
    data.admin.xgroup_create("big:stream", "group")
    rules = [*ALL_TYPES, "metadata details of streams"]
    allowed = [rule for one in rules for rule in RULES[one] if rule != "+time"]
    url = as_user(data, ["+scan", *allowed])
    (big,) = [
        record.value
        async for record in oneatatime.stream(
            url, match="big:stream", metadata="details", options=SMALL_PARTS
        ).records()
    ]
    with pytest.raises(PermissionDenied, match="time"):
        [part async for part in big]


# In a cluster


def in_cluster(cluster: Cluster, allowed: list[str]) -> str:
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "reader", "reset", "on", ">secret", "%R~*", "-@all", *allowed)
    return cluster.url.replace("://", "://reader:secret@")


async def everything(url: str) -> Any:
    return [key async for key, _ in oneatatime.stream(url, options=Options(patience=2.0))]


async def names_from_replicas(url: str) -> Any:
    return [key async for key in oneatatime.stream(url, read_from="replica").keys()]


# What reads each row, what it stands on, and the kind of cluster.
CLUSTERS: dict[str, tuple[Read, list[str], str]] = {
    "names": (names, [], "cluster"),
    "open slots": (everything, ["names"], "cluster"),
    "replicas": (names_from_replicas, ["names"], "cluster_with_replicas"),
    "names, old nodes": (names, [], "old_cluster"),
}
ALSO = {"names, old nodes": ["+cluster|nodes", "+cluster|info"]}


def all_of(row: str) -> list[str]:
    standing_on = [rule for other in CLUSTERS[row][1] for rule in IN_A_CLUSTER[other]]
    values = RULES["strings"] if CLUSTERS[row][0] is everything else []
    return standing_on + values + IN_A_CLUSTER[row] + ALSO.get(row, [])


@pytest.fixture
def prepared(request: pytest.FixtureRequest) -> Callable[[str], tuple[Cluster, list[bytes]]]:
    def prepare(row: str) -> tuple[Cluster, list[bytes]]:
        cluster: Cluster = request.getfixturevalue(CLUSTERS[row][2])
        keys = cluster.fill(300) + cluster.fill(20, slots=[9])
        if row == "open slots":
            cluster.migration(9, cluster.primaries()[2]).begin().move(10)
        for primary in cluster.primaries():
            for replica in cluster.replicas(primary):
                until(lambda p=primary, r=replica: caught_up(p, r), 5)  # type: ignore[misc]
        return cluster, sorted(keys)

    return prepare


@pytest.mark.parametrize("row", CLUSTERS)
async def test_a_cluster_is_read_with_exactly_these_rules(row, prepared) -> None:
    cluster, keys = prepared(row)
    assert sorted(await CLUSTERS[row][0](in_cluster(cluster, all_of(row)))) == keys


@pytest.mark.parametrize(
    ("row", "rule"),
    [(row, rule) for row in CLUSTERS for rule in IN_A_CLUSTER[row]],
)
async def test_each_rule_of_a_cluster_is_needed_and_its_lack_is_named(row, rule, prepared) -> None:
    cluster, _ = prepared(row)
    allowed = [other for other in all_of(row) if other != rule]
    with pytest.raises(PermissionDenied) as caught:
        await CLUSTERS[row][0](in_cluster(cluster, allowed))
    assert rule[1:].split("|")[0] in str(caught.value).lower()


async def test_the_user_of_the_page_reads_a_cluster_and_nothing_is_denied(prepared) -> None:
    cluster, keys = prepared("open slots")
    (line,) = re.findall(r"ACL SETUSER reader on >password (.*cluster.*)", PAGE.read_text())
    url = in_cluster(cluster, line.split())
    for node in cluster.nodes:
        node.ask("ACL", "LOG", "RESET")
    assert sorted([key async for key, _ in oneatatime.stream(url)]) == keys
    assert [node.ask("ACL", "LOG") for node in cluster.nodes] == [[]] * 3


def test_every_row_of_a_cluster_is_run() -> None:
    assert set(IN_A_CLUSTER) == set(CLUSTERS)


# Writing

WRITING = rules("writing")
FAR = 9_793_923_100_000

Write = Callable[[str], Awaitable[Any]]


def load(kind: str, value: Any, *, how: dict[str, Any] | None = None, **more: Any) -> Write:
    async def write(url: str) -> Any:
        return await oneatatime.load([Record(b"k", kind, value, **more)], url, **(how or {}))

    return write


async def in_pieces(url: str) -> Any:
    return await take(
        Canned([piece(b"k", "string", b"a", 0), piece(b"k", "string", b"b", 1, last=True)]), url
    )


ENTRIES = [(b"2-0", {b"f": b"v"}), (b"4-0", {b"f": b"v"})]
GROUPS = (Group(b"g", b"2-0", 1, (b"c",)),)
OWN = StreamDetails(b"4-0", 2, b"0-0", GROUPS, (Pending(b"g", b"2-0", b"c", 1000, 1),))
GONE = OWN._replace(pending=tuple(Pending(b"g", entry, b"c", 1000, 1) for entry in (b"1-0", b"3-0")))

WRITES: dict[str, Write] = {
    "strings": load("string", b"v"),
    "strings in pieces": in_pieces,
    "hashes": load("hash", {b"f": b"v"}),
    "lists": load("list", [b"e"]),
    "sets": load("set", {b"m"}),
    "sorted sets": load("zset", [(b"m", 1.0)]),
    "streams": load("stream", ENTRIES),
    "empty streams": load("stream", []),
    "groups of streams": load("stream", ENTRIES, details=OWN),
    "pending entries that are gone": load("stream", ENTRIES, details=GONE),
    "hashes that expire": load("hash", {b"f": b"v"}, expires_at=FAR),
    "fields that expire": load("hash", {b"f": b"v"}, details={b"f": FAR}),
    "on_conflict, dry_run": load("string", b"v", how={"on_conflict": "skip"}),
    "into another database than 0": load("string", b"v", db=1),
}


def as_writer(server: Any, allowed: list[str]) -> str:
    server.admin.execute_command(
        "ACL", "SETUSER", "writer", "reset", "on", ">secret", "%W~*", "-@all", *allowed
    )
    return str(server.url).replace("redis://", "redis://writer:secret@")


async def dumped(server: Any) -> Write:
    server.admin.sadd("model", "a")
    dump = server.admin.dump("model")
    return load("set", Opaque("set", dump))


@pytest.mark.parametrize("feature", WRITING)
async def test_writing_works_with_exactly_its_rules(feature, tcp_server) -> None:
    write = WRITES.get(feature) or await dumped(tcp_server)
    loaded = await write(as_writer(tcp_server, WRITING[feature]))
    assert loaded.written == 1
    assert tcp_server.admin.exists("k") or feature == "into another database than 0"


@pytest.mark.parametrize(("feature", "rule"), [(one, rule) for one in WRITING for rule in WRITING[one]])
async def test_each_rule_of_writing_is_needed_and_its_lack_is_named(feature, rule, tcp_server) -> None:
    write = WRITES.get(feature) or await dumped(tcp_server)
    with pytest.raises(PermissionDenied) as caught:
        await write(as_writer(tcp_server, [other for other in WRITING[feature] if other != rule]))
    assert rule[1:].split("|")[0].upper() in (caught.value.command or "").upper()
    assert caught.value.key == b"k" or caught.value.command.startswith("SELECT")


async def test_the_writer_of_the_page_may_write_everything(tcp_server) -> None:
    (line,) = re.findall(r"ACL SETUSER writer on >password (.*)", PAGE.read_text())
    tcp_server.admin.execute_command("ACL", "SETUSER", "writer", "reset", "on", ">secret", *line.split())
    url = str(tcp_server.url).replace("redis://", "redis://writer:secret@")
    for feature in WRITING:
        tcp_server.admin.delete("k")
        await (WRITES.get(feature) or await dumped(tcp_server))(url)


def test_every_row_of_writing_is_run() -> None:
    assert set(WRITING) == {*WRITES, "dumps"}
