"""A guest in somebody's server: it touches nothing, says who it is, and asks only what reads."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import redis

import oneatatime
from oneatatime import Options
from tests.leaks import connections
from tests.servers import Server

MINIMUM = ["+@read", "+@connection", "+@transaction", "+info", "+scan"]


def fill(admin: Any) -> None:
    admin.mset({f"string:{n}": n for n in range(50)})
    admin.set("empty", "")
    admin.set("long", b"x" * 200_000)
    for n in range(5):
        admin.hset(f"hash:{n}", mapping={"a": n})
        admin.rpush(f"list:{n}", "a", "b")
        admin.sadd(f"set:{n}", "a")
        admin.zadd(f"zset:{n}", {"a": n})
        admin.xadd(f"stream:{n}", {"a": n})
    admin.xgroup_create("stream:empty", "group", mkstream=True)
    members = [f"member {n}" for n in range(3000)]
    admin.hset("big:hash", mapping=dict.fromkeys(members, "x"))
    admin.rpush("big:list", *members)
    admin.sadd("big:set", *members)
    admin.zadd("big:zset", dict.fromkeys(members, 1))
    pipeline = admin.pipeline()
    for member in members:
        pipeline.xadd("big:stream", {"name": member})
    pipeline.execute()


async def read_in_every_way(source: Any) -> int:
    """All that a stream can ask: pages, names, types, metadata, parts, given keys, whole big values."""
    small = Options(parts_over=2000, chunk=1000, count=20)
    seen = 0
    async for _, value in oneatatime.stream(source, options=small):
        seen += 1
        if isinstance(value, oneatatime.Parts):
            assert [part async for part in value]
            await value.load()
    async for _ in oneatatime.stream(
        source, count=20, metadata=("ttl", "memory", "idle", "encoding")
    ).records():
        seen += 1
    async for _ in oneatatime.stream(source, types=["hash", "set"], match="*").keys():
        seen += 1
    async for _ in oneatatime.stream(source, types="zset"):
        seen += 1
    async for _ in oneatatime.OneAtATime(source, ["string:1", "long", "hash:1", "none"], options=small):
        seen += 1
    return seen


async def test_reading_needs_no_more_than_to_read(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    server.admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "%R~*", *MINIMUM)
    server.admin.execute_command("ACL", "LOG", "RESET")
    for protocol in (2, 3):
        assert await read_in_every_way(f"unix://guest:pw@{server.path}?protocol={protocol}") > 150
    denied: Any = server.admin.execute_command("ACL", "LOG")
    assert not denied, denied


async def test_a_user_without_info(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    server.admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "%R~*", "+@read", "+hello", "+auth")
    assert await read_in_every_way(f"unix://guest:pw@{server.path}") > 150


async def test_every_command_only_reads(redis_server: Server, no_leaks: None) -> None:
    """What MONITOR shows is, to the last command, read-only for the server itself."""
    fill(redis_server.admin)
    watcher: Any = redis.Redis(unix_socket_path=redis_server.path, protocol=2)
    commands: set[str] = set()
    with watcher.monitor() as monitor:
        lines = monitor.listen()
        thread = threading.Thread(target=lambda: commands.update(_until_quit(lines)))
        thread.start()
        await read_in_every_way(redis_server.url)
        redis_server.admin.execute_command("ECHO", "that was all")
        thread.join()
    watcher.close()
    assert {"SCAN", "MGET", "HSCAN", "LRANGE", "SSCAN", "ZRANGE", "XRANGE", "WATCH"} <= commands
    for command in commands - {"HELLO", "SELECT", "CLIENT", "INFO", "MULTI", "EXEC", "WATCH", "ECHO"}:
        if command not in ("OBJECT", "MEMORY", "XINFO"):  # only their subcommands have flags
            (about,) = redis_server.ask("COMMAND", "INFO", command).values()
            assert "readonly" in about["flags"], command


def _until_quit(lines: Any) -> set[str]:
    seen = set()
    for line in lines:
        words = line["command"].split()
        if words[:1] == ["ECHO"]:
            return seen
        seen.add(words[0].upper())
    return seen


async def test_it_says_who_it_is(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=Options(count=5, ahead=1))
    await anext(stream)
    async for _ in stream:
        if len(connections(server.admin)) == 2:
            break
    for line in connections(server.admin):
        assert " name=oneatatime " in line and " lib-name=oneatatime " in line
        assert f" lib-ver={oneatatime.__version__} " in line + " "
        assert "T" in dict(word.split("=", 1) for word in line.split())["flags"]  # no-touch
    await stream.aclose()


async def test_idle_times_and_counters_stay(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    small = Options(parts_over=2000, chunk=1000, count=20)
    server.admin.config_set("maxmemory-policy", "allkeys-lfu")
    server.admin.config_set("lfu-log-factor", 0)  # each touch counts
    try:
        for n in range(50):
            server.admin.mget(["string:1"] * n)
            server.admin.get(f"string:{n}")
        before = _frequencies(server)
        assert len(set(before.values())) > 1
        for _ in range(3):
            assert len([item async for item in oneatatime.stream(server.url, options=small)]) > 70
        assert _frequencies(server) == before
        found = {
            record.key: record.freq
            async for record in oneatatime.stream(server.url, metadata="freq").records()
        }
        assert found == before
    finally:
        server.admin.config_set("maxmemory-policy", "noeviction")


def _frequencies(server: Server) -> dict[bytes, int]:
    return {key: server.ask("OBJECT", "FREQ", key) for key in server.ask("KEYS", "*")}


async def test_a_server_without_no_touch_is_told_of_once(
    redis_server: Server, caplog: pytest.LogCaptureFixture, no_leaks: None
) -> None:
    fill(redis_server.admin)
    has = redis_server.version_info >= (7, 2)
    with caplog.at_level(logging.INFO, logger="oneatatime"):
        names = oneatatime.stream(redis_server.url, count=10).keys()
        assert [key async for key in names]
        assert [
            item async for item in oneatatime.stream(redis_server.url, count=10, options=Options(ranges=3))
        ]
    said = [record.getMessage() for record in caplog.records if "NO-TOUCH" in record.getMessage()]
    assert len(said) == (0 if has else 2)  # once a stream


async def test_a_server_with_no_touch_is_not_told_of(
    server: Server, caplog: pytest.LogCaptureFixture, no_leaks: None
) -> None:
    with caplog.at_level(logging.INFO, logger="oneatatime"):
        assert [item async for item in oneatatime.stream(server.url)] == []
    assert not caplog.records
