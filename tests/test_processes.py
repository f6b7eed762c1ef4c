"""`processes=`: what several processes read is what one reads; whatever is killed, all comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime import Incomplete, InvalidInput, Options, Parts
from tests.clusters import Cluster
from tests.leaks import no_complaints, threads
from tests.nodes import Node
from tests.promise import assert_promise, read
from tests.reading import gathered, whole
from tests.servers import Server
from tests.test_child import assert_gone, open_files

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="not on this machine: /proc"),
]

SLOW = Options(count=20, ahead=20_000)
"""Many small batches, and little of them ahead: what happens in the middle meets something."""


def children() -> list[int]:
    """The processes of ours that there are just now."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
                with contextlib.suppress(OSError):
                    if b"_in_child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(int(pid))
    return found


def assert_no_children() -> None:
    assert_gone(*children())
    assert not children()


@pytest.fixture(autouse=True)
def nothing_stays(caplog: pytest.LogCaptureFixture) -> Any:
    with no_complaints(caplog):
        yield
    assert_no_children()
    assert not threads()


def fill(server: Server, keys: int = 300) -> None:
    """Keys of all types, some that expire, some too big to hold, some in another database."""
    pipeline: Any = server.admin.pipeline(transaction=False)
    for n in range(keys):
        pipeline.set(f"string:{n}", f"valué {n}", ex=1000 if n % 3 else None)
        pipeline.hset(f"hash:{n}", mapping={"n": n, "text": "täxt"})
        pipeline.rpush(f"list:{n}", *range(5))
        pipeline.sadd(f"set:{n}", *range(5))
        pipeline.zadd(f"zset:{n}", {f"member {i}": i + 0.5 for i in range(5)})
        pipeline.xadd(f"stream:{n}", {"a": n}, id=f"{n + 1}-1")
    pipeline.execute_command("SELECT", "3")
    pipeline.mset({f"other:{n}": n for n in range(keys)})
    pipeline.execute_command("SELECT", "0")
    pipeline.set("big:string", b"x" * 3_000_000)
    for part in range(40):
        pipeline.hset("big:hash", mapping={f"{part}:{n}": "y" * 1000 for n in range(100)})
    pipeline.execute()


async def records(source: Any, **arguments: Any) -> list[tuple[Any, ...]]:
    """All records but for what changes by itself, big values read whole, sorted."""
    found = []
    async for record in oneatatime.stream(source, **arguments).records():
        value = await whole(record.value)
        found.append((record.db or 0, str(record.key), record._replace(value=value, ttl=None)))
    return sorted(found, key=lambda one: one[:2])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"encoding": "utf-8"},
        {"metadata": ("ttl", "memory", "encoding", "expires_at", "details")},
        {"db": "all", "encoding": "utf-8"},
        {"match": "*:1*"},
        {"types": ["hash", "zset"]},
        {"dump": True, "match": "[^b]*"},
        {"fields": ["n"]},
        {"unique": True, "encoding": "utf-8"},
    ],
    ids=str,
)
async def test_what_several_processes_read_is_what_one_reads(server: Server, arguments: Any) -> None:
    fill(server)
    one = await records(server.url, **{**arguments, "unique": True})
    several = await records(server.url, processes=3, **arguments)
    assert several == one and len(one) >= 300


async def test_the_same_of_a_cluster(cluster: Cluster) -> None:
    keys = cluster.fill(5000)
    for arguments in ({}, {"unique": True, "encoding": "utf-8"}, {"metadata": "ttl"}):
        stream = oneatatime.stream(cluster.url, processes=2, **arguments)
        found = [record.key async for record in stream.records()]
        wanted = [key.decode() for key in keys] if "encoding" in arguments else keys
        assert sorted(found) == sorted(wanted)
        done = stream.statistics()
        assert done.complete and done.keys == 5000 and len(done.nodes) == 3
        assert done.keys_at_start == done.keys_at_end == 5000


async def test_big_values_of_a_cluster_are_read_from_here(cluster: Cluster) -> None:
    for n, node in enumerate(cluster.primaries()):
        slot = cluster.slots(node)[0]
        (key,) = cluster.fill(1, [slot], prefix=f"big{n}")
        node.ask("SET", key, b"x" * 2_000_000)
    sizes = [len(await value.load()) async for _, value in oneatatime.stream(cluster.url, processes=2)]
    assert sizes == [2_000_000] * 3


@pytest.mark.parametrize("name", ["records", "batches", "keys", "pairs"])
async def test_every_view_and_plain_loops(server: Server, name: str) -> None:
    fill(server, 100)

    def view() -> Any:
        stream = oneatatime.stream(server.url, processes=2, unique=True)
        return stream if name == "pairs" else getattr(stream, name)()

    items = await gathered(view())
    plain = await asyncio.get_running_loop().run_in_executor(None, lambda: list(view()))
    for some in (items, plain):
        if name == "batches":
            some = [record for batch in some for record in batch]
        assert len(some) == 602


def test_a_table_is_read_by_several(server: Server) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    fill(server, 50)
    stream = oneatatime.stream(server.url, processes=2, encoding="utf-8", match="[^b]*", unique=True)
    assert pyarrow.table(stream).num_rows == 300


# Whatever befalls them


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("after", [1, 1500])
async def test_a_process_is_killed_and_all_comes(server: Server, unique: bool, after: int) -> None:
    server.admin.mset({f"key:{n}": "x" * 100 for n in range(10_000)})
    times: Counter[bytes] = Counter()
    stream = oneatatime.stream(server.url, processes=2, unique=unique, options=SLOW)
    async for key, _ in stream:
        times[key] += 1
        if times.total() == after:
            os.kill(children()[0], signal.SIGKILL)
    done = stream.statistics()
    assert len(times) == 10_000 and done.complete
    assert "was killed: SIGKILL" in str(done.read_again)
    if unique:
        assert times.total() == 10_000


async def test_a_process_of_a_cluster_is_killed(cluster: Cluster) -> None:
    keys = cluster.fill(3000)
    found = set()
    stream = oneatatime.stream(cluster.url, processes=2, options=SLOW)
    async for key, _ in stream:
        found.add(key)
        if len(found) in (500, 1500):
            os.kill(children()[0], signal.SIGKILL)
    assert found == set(keys) and stream.statistics().complete


async def test_processes_that_are_always_killed_are_an_error_that_names_what_is_missing(
    server: Server,
) -> None:
    server.admin.mset({f"key:{n}": "x" * 50 for n in range(5000)})
    stream = oneatatime.stream(server.url, processes=2, options=SLOW)
    with pytest.raises(Incomplete, match="3 processes in a row ended over it") as raised:
        async for _ in stream:
            for pid in children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert raised.value.missing and not stream.statistics().complete


async def test_a_partition_that_gets_further_each_time_is_not_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one(source: Any, pieces: int, **how: Any) -> Any:
        return await oneatatime.aplan(source, 1, **how)

    monkeypatch.setattr("oneatatime._processes.aplan", one)
    server.admin.mset({f"key:{n}": "x" * 50 for n in range(12_000)})
    stream = oneatatime.stream(server.url, processes=2, options=SLOW, rate=3000)
    found, kills, before = set(), 0, None
    async for key, _ in stream:
        found.add(key)
        if kills < 5 and (now := stream.checkpoint()["databases"]) != before:
            (child,) = children()
            os.kill(child, signal.SIGKILL)
            kills, before = kills + 1, now
            await asyncio.sleep(0.2)
    assert kills == 5 and len(found) == 12_000 and stream.statistics().complete


@pytest.mark.parametrize("unique", [False, True])
async def test_a_server_restarts_in_the_middle(node: Node, unique: bool) -> None:
    keys = [b"key:%d" % number for number in range(3000)]
    node.many([("SET", key, key) for key in keys])
    restart: dict[int, Callable[[], Any]] = {1000: lambda: node.restart(keep_data=True)}
    times = await read(node.url, restart, unique=unique, processes=2)
    assert_promise(times, keys, unique=unique)


async def test_a_server_that_stays_away(node: Node) -> None:
    node.many([("SET", f"key:{n}", "x" * 100) for n in range(5000)])
    for how, kind in (("fail", Incomplete), ("wait", Incomplete)):
        options = Options(count=20, ahead=20_000, patience=1.0, on_unreachable=how)
        stream = oneatatime.stream(node.url, processes=2, options=options)
        with pytest.raises(kind) as raised:
            async for _ in stream:
                if node.alive:
                    node.save()
                    node.kill()
        assert raised.value.missing
        assert not children()
        node.start()


async def test_what_all_processes_skip_is_said_once(node: Node) -> None:
    node.many([("SET", f"key:{n}", "x" * 100) for n in range(5000)])
    options = Options(count=20, ahead=20_000, patience=1.0, on_unreachable="skip")
    stream = oneatatime.stream(node.url, processes=2, options=options, rate=2000)
    keys = 0
    async for _ in stream:
        keys += 1
        if keys == 1000:  # both are at it
            node.kill()
    done = stream.statistics()
    assert done.finished and not done.complete
    assert len(set(done.skipped)) == len(done.skipped)
    assert [what for what in done.skipped if what.startswith("database 0 of ")]


async def test_errors_of_a_process_come_as_they_are(server: Server) -> None:
    server.admin.mset({f"key:{n}": n for n in range(1000)})
    with pytest.raises(oneatatime.Unreachable):
        await gathered(oneatatime.stream("redis://127.0.0.1:1", processes=2))
    server.ask("ACL", "SETUSER", "poor", "on", ">pw", "~*", "+@all", "-mget", "-get")
    url = server.url.replace("unix://", "unix://poor:pw@")
    with pytest.raises(oneatatime.PermissionDenied) as raised:
        await gathered(oneatatime.stream(url, processes=2))
    assert raised.value.command


async def test_what_cannot_be_delivered_is_counted(server: Server) -> None:
    server.admin.mset({f"key:{n}": n for n in range(500)})
    server.admin.set("odd", b"\xff")
    stream = oneatatime.stream(server.url, processes=2, encoding="utf-8", unique=True)
    found, errors = [], []
    while True:
        try:
            async for key, _ in stream:
                found.append(key)
            break
        except oneatatime.Undecodable as error:
            errors.append(error.key)
    done = stream.statistics()
    assert len(found) == 500 and errors == [b"odd"]
    assert (done.failed, done.complete, done.finished) == (1, False, True)


# Nothing stays


async def _breaks(stream: Any) -> None:
    async for _ in stream:
        break


async def _fails(stream: Any) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async for _ in stream:
            1 / 0  # noqa: B018


async def _times_out(stream: Any) -> None:
    async def slow() -> None:
        async for _ in stream:
            await asyncio.sleep(1)

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(slow(), 1.0)


async def _is_never_taken_from(stream: Any) -> None:
    task = asyncio.ensure_future(stream.__anext__())
    await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [_breaks, _fails, _times_out, _is_never_taken_from])
@pytest.mark.parametrize("close", [True, False])
async def test_nothing_stays_however_the_loop_ends(server: Server, leave: Any, close: bool) -> None:
    server.admin.mset({f"key:{n}": "x" * 50 for n in range(5000)})
    await leave(oneatatime.stream(server.url, processes=2, options=SLOW))
    gc.collect()
    await asyncio.sleep(0.5)
    before = open_files()
    stream = oneatatime.stream(server.url, processes=2, options=SLOW)
    await leave(stream)
    if close:
        await stream.aclose()
        assert not children()
    else:
        gc.disable()
        try:
            del stream  # by its reference count
            deadline = time.monotonic() + 5
            while children():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
        finally:
            gc.enable()
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert open_files() == before


def test_a_plain_loop_that_is_left_leaves_nothing(server: Server) -> None:
    server.admin.mset({f"key:{n}": "x" * 50 for n in range(5000)})
    stream = oneatatime.stream(server.url, processes=2, options=SLOW)
    for _ in stream:
        break
    assert children()
    del stream
    assert_no_children()


async def test_a_loop_that_goes_on_later(server: Server) -> None:
    server.admin.mset({f"key:{n}": "x" * 50 for n in range(2000)})
    stream = oneatatime.stream(server.url, processes=2, unique=True, options=SLOW)
    found = []
    while len(found) < 2000:
        async for key, _ in stream:
            found.append(key)
            if not len(found) % 500:
                break
    assert len(set(found)) == 2000


async def test_no_secret_stands_in_arguments_or_environment(server: Server) -> None:
    server.admin.mset({f"key:{n}": n for n in range(3000)})
    server.ask("ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@all")
    url = server.url.replace("unix://", "unix://reader:hunter2@")
    looked = 0
    async for _ in oneatatime.stream(url, processes=2, options=SLOW):
        for pid in children() if not looked else ():
            for name in ("cmdline", "environ"):
                assert b"hunter2" not in Path(f"/proc/{pid}/{name}").read_bytes()
            looked += 1
    assert looked


def rss(pid: int | str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


async def test_memory_is_bounded_while_the_loop_sleeps(server: Server) -> None:
    pipeline: Any = server.admin.pipeline(transaction=False)
    for n in range(10_000):
        pipeline.set(f"key:{n}", b"x" * 20_000)
    pipeline.execute()  # 200 MB
    before = rss("self")
    stream = oneatatime.stream(server.url, processes=2)
    keys = 0
    async for _ in stream:
        keys += 1
        if keys == 1:
            await asyncio.sleep(2)
            assert rss("self") - before < 40 << 20
            assert all(rss(pid) < 100 << 20 for pid in children())
            lines = server.ask("CLIENT", "LIST").decode().splitlines()
            held = [line for line in lines if "name=oneatatime" in line and " omem=0 " not in line]
            assert not held, "replies lie in the server"
    assert keys >= 10_000
    assert rss("self") - before < 60 << 20


# Going on


@pytest.mark.parametrize("then", [1, 3])
async def test_a_checkpoint_of_several_is_gone_on_with_by_any_number(server: Server, then: int) -> None:
    server.admin.mset({f"key:{n}": "x" * 50 for n in range(20_000)})
    found = set()
    stream = oneatatime.stream(server.url, processes=2, options=SLOW)
    saved: Any = None
    async for key, _ in stream:
        found.add(key)
        if len(found) == 15_000:
            saved = json.loads(json.dumps(stream.checkpoint()))
            break
    await stream.aclose()
    rest = oneatatime.stream(server.url, processes=then, resume=saved)
    again = [key async for key in rest.keys()]
    assert found | set(again) == {b"key:%d" % n for n in range(20_000)}
    assert len(again) < 12_000
    assert rest.statistics().complete
    last = rest.checkpoint()
    assert last["databases"]["0"] == {"done": True}
    assert not [key async for key in oneatatime.stream(server.url, processes=2, resume=last).keys()]


async def test_a_checkpoint_of_a_cluster(cluster: Cluster) -> None:
    keys = set(cluster.fill(20_000))
    found = set()
    stream = oneatatime.stream(cluster.url, processes=2, options=SLOW)
    async for key, _ in stream:
        found.add(key)
        if len(found) == 15_000:
            break
    saved = stream.checkpoint()
    await stream.aclose()
    for processes in (1, 2):
        rest = oneatatime.stream(cluster.url, processes=processes, resume=saved)
        again = {key async for key in rest.keys()}
        assert found | again == keys and len(again) < 15_000
        assert rest.statistics().complete


async def test_one_process_may_stop_and_several_go_on(server: Server) -> None:
    server.admin.mset({f"key:{n}": "x" * 50 for n in range(20_000)})
    stream = oneatatime.stream(server.url, options=SLOW)
    found = set()
    async for key, _ in stream:
        found.add(key)
        if len(found) == 15_000:
            break
    rest = oneatatime.stream(server.url, processes=2, resume=stream.checkpoint())
    again = {key async for key in rest.keys()}
    assert len(found | again) == 20_000 and len(again) < 8_000


async def test_a_checkpoint_of_a_server_that_was_restarted_is_read_anew(node: Node) -> None:
    node.many([("SET", f"key:{n}", "x" * 50) for n in range(30_000)])
    stream = oneatatime.stream(node.url, processes=2, options=SLOW)
    keys = 0
    async for _ in stream:
        keys += 1
        if keys == 25_000:
            break
    saved = stream.checkpoint()
    await stream.aclose()
    node.restart(keep_data=True)
    rest = oneatatime.stream(node.url, processes=2, resume=saved)
    assert len({key async for key in rest.keys()}) == 30_000
    assert "restarted meanwhile" in str(rest.statistics().read_again)


# What is asked


async def given() -> AsyncIterator[bytes]:
    yield b"a"


@pytest.mark.parametrize("processes", [0, -1, True, "2", 1.5, 1001])
def test_a_number_that_there_cannot_be_is_refused(processes: Any) -> None:
    with pytest.raises(InvalidInput, match="processes="):
        oneatatime.stream("redis://localhost", processes=processes)


def test_what_makes_no_sense_with_several_is_refused(server: Server) -> None:
    for keys in (["a"], given()):
        with pytest.raises(InvalidInput, match="by one process"):
            oneatatime.stream(server.url, keys=keys, processes=2)
    (part,) = oneatatime.plan(server.url, 1)
    with pytest.raises(InvalidInput, match="a partition is what one process reads"):
        oneatatime.stream(part, processes=2)


async def test_a_source_that_cannot_travel_is_refused(server: Server) -> None:
    import redis

    class Provider(redis.CredentialProvider):
        def __init__(self) -> None:
            self.lock = (lambda: None,)

        def get_credentials(self) -> tuple[str, ...]:
            return ("default", "x")

    client = redis.Redis(unix_socket_path=server.path, credential_provider=Provider())
    server.admin.mset({f"key:{n}": n for n in range(100)})
    with pytest.raises(InvalidInput, match="cannot be sent to another process"):
        await gathered(oneatatime.stream(client, processes=2))


async def test_a_rate_holds_for_all_together(server: Server) -> None:
    server.admin.mset({f"key:{n}": n for n in range(2000)})
    began = time.monotonic()
    assert len(await gathered(oneatatime.stream(server.url, processes=2, rate=1000))) >= 2000
    assert time.monotonic() - began > 1.4


async def test_one_process_is_an_ordinary_stream(server: Server) -> None:
    fill(server, 10)
    stream = oneatatime.stream(server.url, processes=1)
    async for _, value in stream:
        assert not children()
        assert isinstance(value, bytes | dict | list | set | Parts)
