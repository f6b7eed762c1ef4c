"""Dask, really: a cluster of two worker processes reads what one stream reads, whatever befalls it."""

from __future__ import annotations

import builtins
import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.dataframe as dd
import distributed
import pandas as pd
import pyarrow as pa
import pytest

import oneatatime
from oneatatime import InvalidInput, MissingExtra
from oneatatime.engines.dask import apply, read, read_bag
from tests import applied
from tests.clusters import Cluster, caught_up
from tests.nodes import until
from tests.servers import Server

pytestmark = pytest.mark.timeout(180)  # the machine may be busy, and each worker starts for seconds

PASSWORD = "open-sesame-7391"
_READING = (
    "scan",
    "hscan",
    "hmget",
    "lrange",
    "smembers",
    "zrange",
    "xrange",
    "mget",
    "get",
    "getrange",
    "type",
)


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """Two workers, each a process under a nanny; the password stands in their environment only."""
    workers: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    workers.update(dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR)  # any port
    with (
        dask.config.set({"distributed.nanny.environ.SESAME": PASSWORD}),
        distributed.LocalCluster(**workers) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture
def filled(server: Server) -> Server:
    fill(server.admin, 200)
    return server


def fill(admin: Any, keys: int, letter: str = "") -> None:
    pipeline: Any = admin.pipeline(transaction=False)
    for n in range(keys):
        pipeline.set(f"s{letter}:{n}", n)
        pipeline.hset(f"h{letter}:{n}", mapping={"age": n, "name": f"name {n}"})
        pipeline.rpush(f"l{letter}:{n}", "a", "b", n)
        pipeline.sadd(f"t{letter}:{n}", n)
        pipeline.zadd(f"z{letter}:{n}", {"a": n / 7})
        pipeline.xadd(f"x{letter}:{n}", {"f": n}, id="1-1")
    pipeline.expire(f"s{letter}:0", 1000)
    pipeline.set(f"big{letter}", b"x" * 3_000_000)
    pipeline.execute()


def asked(server: Server) -> dict[str, int]:
    """How often each command of reading was sent since the last look."""
    found: Any = server.admin.info("commandstats")
    server.admin.config_resetstat()
    return {name: int(found[f"cmdstat_{name}"]["calls"]) for name in _READING if f"cmdstat_{name}" in found}


def rows(frame: pd.DataFrame, schema: pa.Schema) -> list[Any]:
    """A frame's rows, in an order that does not depend on how they came."""
    return ordered(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


def ordered(table: pa.Table) -> list[Any]:
    return sorted(
        table.to_pylist(), key=lambda row: tuple(str(row.get(name)) for name in ("db", "key", "part"))
    )


SELECTIONS: dict[str, dict[str, Any]] = {
    "all types, binary": {},
    "all types, text": {"encoding": "utf-8"},
    "two types": {"types": ["hash", "zset"], "encoding": "utf-8"},
    "a pattern": {"match": "*:1*"},
    "columns": {"columns": {"age": "int64", "name": "string"}, "match": "h:*"},
    "columns whose types are inferred": {"columns": ["age", "name"], "encoding": "utf-8"},
    "elements": {"flatten": True, "types": ["list", "hash"]},
    "all databases": {"db": "all"},
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_frame_has_what_one_stream_has(client: distributed.Client, filled: Server, name: str) -> None:
    if name == "all databases":
        filled.ask("SELECT", "3")
        fill(filled.admin, 20)
        filled.ask("SELECT", "0")
    arguments = dict(SELECTIONS[name])
    of_rows = {key: arguments.pop(key) for key in ("columns", "flatten") if key in arguments}
    wanted = pa.table(oneatatime.stream(filled.url, **arguments).arrow(**of_rows))
    frame = read(filled.url, partitions=4, **arguments, **of_rows)
    found = frame.compute()
    assert frame.npartitions >= 4
    assert rows(found, wanted.schema) == ordered(wanted)
    assert list(found.dtypes) == list(frame.dtypes) == [pd.ArrowDtype(field.type) for field in wanted.schema]


def test_counts_are_those_of_the_server(client: distributed.Client, filled: Server) -> None:
    keys = filled.admin.dbsize()
    frame = read(filled.url, partitions=8, encoding="utf-8")
    assert len(frame) == len(frame.key) == frame.key.nunique().compute() == keys
    assert len(frame[frame.key.str.startswith("h:")]) == 200
    assert read_bag(filled.url, partitions=8).count().compute() == keys
    assert sum(apply(filled.url, lambda stream: sum(1 for _ in stream), partitions=8)) == keys


def test_a_cluster(client: distributed.Client, cluster: Cluster) -> None:
    names = cluster.fill(5000)
    frame = read(cluster.url, partitions=6)
    assert len(frame) == 5000
    found = frame[["key", "string"]].compute()
    assert sorted(zip(found.key, found.string)) == [(name, name) for name in sorted(names)]
    assert sorted(read_bag(cluster.url).compute()) == [(name, name) for name in sorted(names)]


def test_a_bag_has_the_items_of_one_stream(client: distributed.Client, filled: Server) -> None:
    def plain(items: Any) -> list[Any]:
        return sorted(((key, applied.plain(value)) for key, value in items), key=str)

    assert plain(read_bag(filled.url, partitions=4).compute()) == plain(oneatatime.stream(filled.url))
    records = read_bag(
        filled.url, records=True, metadata=["expires_at"], match="s:*", encoding="utf-8"
    ).compute()
    wanted = oneatatime.stream(filled.url, metadata=["expires_at"], match="s:*", encoding="utf-8")
    assert sorted(records) == sorted(wanted.records())


# What is not asked for is not read. It shows without workers as well, and there sooner.


def test_what_a_computation_does_not_use_is_not_read(filled: Server) -> None:
    frame = read(filled.url, partitions=4)
    asked(filled)
    for what in (
        lambda: len(frame),
        lambda: frame[["key"]].compute(scheduler="sync"),
        lambda: frame.key.compute(scheduler="sync"),
        lambda: frame.index.size.compute(scheduler="sync"),
        lambda: frame.shape[0].compute(scheduler="sync"),
        lambda: len(frame[frame.key > b"h"]),
        lambda: frame[[]].compute(scheduler="sync"),
        lambda: frame[["key"]].head(3),
    ):
        what()
        assert set(asked(filled)) == {"scan"}
    frame[["key", "string"]].compute(scheduler="sync")
    assert {"mget", "hscan"} & set(asked(filled))  # the look itself can see it


def test_fields_that_are_not_used_are_not_asked_for(filled: Server) -> None:
    frame = read(filled.url, partitions=4, columns={"age": "int64", "name": "string"})
    asked(filled)
    assert frame.age.sum().compute(scheduler="sync") == sum(range(200))
    seen = asked(filled)
    assert seen["hmget"] == 200 and not {"hscan", "mget", "getrange"} & set(seen)
    filled.admin.execute_command("SLOWLOG", "RESET")
    filled.admin.config_set("slowlog-log-slower-than", 0)
    frame.age.sum().compute(scheduler="sync")
    filled.admin.config_set("slowlog-log-slower-than", -1)
    commands = [one["command"] for one in filled.admin.slowlog_get(10_000)]
    assert any(c.startswith(b"HMGET") and c.endswith(b" age") for c in commands)
    assert not any(b" name" in c for c in commands if c.startswith(b"HMGET"))


def test_head_does_not_read_a_partition_to_its_end(server: Server) -> None:
    pipeline: Any = server.admin.pipeline(transaction=False)
    for n in range(60_000):
        pipeline.set(f"key:{n}", "x" * 500)
    pipeline.execute()
    frame = read(server.url, partitions=1)
    asked(server)
    assert len(frame.head(3)) == 3
    few = asked(server)["scan"]
    frame.string.compute(scheduler="sync")
    assert few < asked(server)["scan"] / 2


def test_each_read_is_new(filled: Server) -> None:
    """Dask takes what has the same name for the same; what a database holds changes."""
    one, other = read(filled.url), read(filled.url)
    assert one.__dask_keys__() != other.__dask_keys__()
    assert read_bag(filled.url).__dask_keys__() != read_bag(filled.url).__dask_keys__()


# What can befall it


def pids(client: distributed.Client) -> dict[str, int]:
    return dict(client.run(os.getpid))


def test_a_worker_killed_in_the_middle(client: distributed.Client, filled: Server) -> None:
    frame = read(filled.url, partitions=6, encoding="utf-8", rate=300)
    bag = read_bag(filled.url, partitions=6, rate=300)
    wanted = pa.table(oneatatime.stream(filled.url, encoding="utf-8"))
    for what in (frame, bag.map(lambda item: item[0])):
        before = pids(client)
        asked(filled)
        future = client.compute(what)
        until(lambda: filled.admin.info("commandstats").get("cmdstat_hscan", {}).get("calls", 0) > 10, 10.0)
        assert not future.done()
        os.kill(min(before.values()), signal.SIGKILL)
        found = future.result(timeout=60)
        if what is frame:
            assert rows(found, wanted.schema) == ordered(wanted)
        else:
            assert sorted(found) == sorted(oneatatime.stream(filled.url).keys())
        client.wait_for_workers(2, timeout=60)
        assert set(pids(client).values()) != set(before.values())


def test_apply_when_a_worker_is_killed(client: distributed.Client, filled: Server, tmp_path: Path) -> None:
    found = apply(filled.url, applied.KilledOnce(tmp_path), partitions=4, types="string", match="s:*")
    assert (tmp_path / "killed").exists()
    assert sorted(item for some in found for item in some) == sorted(
        oneatatime.stream(filled.url, types="string", match="s:*")
    )
    client.wait_for_workers(2, timeout=60)


def test_a_node_fails_over_in_the_middle(client: distributed.Client, cluster_with_replicas: Cluster) -> None:
    cluster = cluster_with_replicas
    names = cluster.fill(1500)
    primary = cluster.primaries()[1]
    (replica,) = cluster.replicas(primary)
    until(lambda: caught_up(primary, replica), 5)
    with ThreadPoolExecutor() as pool:
        # each on a worker of its own, so that both are in the middle
        frame = client.compute(read(cluster.url, partitions=1, rate=300)[["key", "string"]])
        results = pool.submit(apply, cluster.url, _pairs_slowly, partitions=1)
        until(lambda: all(client.processing().values()), 30.0, what="both workers to be at it")
        hits = int(primary.info("stats")["keyspace_hits"])
        until(lambda: int(primary.info("stats")["keyspace_hits"]) > hits + 100, 30.0)
        assert not frame.done() and not results.done()
        primary.kill()
        found, applied_to = frame.result(timeout=60), results.result(timeout=60)
    wanted = [(name, name) for name in sorted(names)]
    assert sorted(set(zip(found.key, found.string))) == wanted
    assert sorted({pair for some in applied_to for pair in some}) == wanted


def _pairs_slowly(stream: oneatatime.Stream) -> list[Any]:
    found = []
    for pair in stream:
        found.append(pair)
        time.sleep(0.003)
    return found


def test_retries_are_for_what_fails(client: distributed.Client, filled: Server, tmp_path: Path) -> None:
    frames = [read(filled.url, partitions=2, secret=_AtSecondSight(tmp_path)) for _ in range(2)]
    (tmp_path / "seen").unlink()
    with pytest.raises(LookupError, match="not now"):
        client.compute(frames[0]).result(timeout=60)
    (tmp_path / "seen").unlink()
    assert len(client.compute(frames[1], retries=2).result(timeout=60)) > filled.admin.dbsize()


class _AtSecondSight:
    """A secret whose callable fails the first time; here it knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "seen").touch()

    def __call__(self) -> str:
        if (self.folder / "seen").exists():
            return ""
        (self.folder / "seen").touch()
        raise LookupError("not now")


# Passwords


def test_no_password_travels(
    client: distributed.Client, filled: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.ask("CONFIG", "SET", "requirepass", PASSWORD)
    url = f"unix://:{PASSWORD}@{filled.path}"
    with pytest.raises(InvalidInput, match='secret="NAME"'):
        read(url)
    frame = read(url, secret="SESAME", partitions=3)
    bag = read_bag(url, secret="SESAME", partitions=3)
    for graph in (frame, frame.optimize().dask, bag.dask, dict(bag.dask)):
        assert PASSWORD.encode() not in cloudpickle.dumps(graph)
        assert PASSWORD not in repr(graph)
    assert PASSWORD.encode() not in pickle.dumps(frame)
    persisted = client.persist(frame)
    assert len(persisted) == filled.admin.dbsize() + 11  # rows: of the big value there are pieces
    assert len(bag.compute()) == filled.admin.dbsize()
    assert sum(apply(url, _count, secret="SESAME")) == filled.admin.dbsize()
    with pytest.raises(ZeroDivisionError):
        client.compute(bag.map(lambda _: 1 // 0)).result()
    told = [client.who_has(), client.get_worker_logs(n=1000), client.get_scheduler_logs(), client.story()]
    told.append(
        client.run_on_scheduler(lambda dask_scheduler: [repr(t) for t in dask_scheduler.tasks.values()])
    )
    told += [repr(frame), repr(bag), str(frame.expr)]
    assert PASSWORD not in repr(told)
    monkeypatch.delenv("SESAME", raising=False)
    assert "SESAME" in repr(cloudpickle.dumps(frame))  # the look itself can see it


def _count(stream: oneatatime.Stream) -> int:
    return sum(1 for _ in stream)


# Arguments


def test_without_dask_the_error_says_what_to_install(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("dask", "distributed"):
            raise ImportError(name)
        return real(name, *rest, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] in ("dask", "distributed")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", missing)
    for call in (read, read_bag, lambda url: apply(url, _count)):
        with pytest.raises(MissingExtra, match=r'pip install "oneatatime\[dask\]"$'):
            call(server.url)


def test_it_works_on_dasks_own_schedulers(filled: Server) -> None:
    with dask.config.set(scheduler="threads"):
        assert len(read(filled.url)) == filled.admin.dbsize()
    assert isinstance(read(filled.url), dd.DataFrame)


async def test_a_client_that_is_asynchronous_is_refused(server: Server) -> None:
    settings: dict[str, Any] = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    async with distributed.Client(asynchronous=True, **settings):
        with pytest.raises(InvalidInput, match="asynchronous"):
            apply(server.url, _count)


@pytest.mark.parametrize(
    "wrong", [{"keys": ["a"]}, {"partitions": 0}, {"match": 3}, {"columns": "age"}, {"nonsense": 1}]
)
def test_what_makes_no_sense_is_said_at_once(server: Server, wrong: dict[str, Any]) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        read(server.url, **wrong)
