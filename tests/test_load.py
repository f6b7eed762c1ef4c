"""Feeding an embedded server over one blocking socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneatatime import ConnectionLost, InvalidInput, ServerFailure, Unreachable
from oneatatime._load import ask, load
from tests.servers import Server


def test_everything_arrives_in_order(server: Server) -> None:
    commands = [("RPUSH", "list", n) for n in range(12_345)]
    assert load(server.url, iter(commands)) == 12_345
    assert ask(server.url, "LRANGE", "list", 0, -1) == [b"%d" % n for n in range(12_345)]


def test_bytes_text_and_numbers_are_words_of_a_command(server: Server) -> None:
    assert load(server.url, [(b"SET", "é", b"\xff"), ("SET", "n", 1.5)]) == 2
    assert ask(server.url, "MGET", "é".encode(), "n") == [b"\xff", b"1.5"]


def test_nothing_to_load_is_no_error(server: Server) -> None:
    assert load(server.url, []) == 0


def test_big_replies_and_big_commands_do_not_stop_it(server: Server) -> None:
    big = b"x" * 1_000_000
    assert load(server.url, [word for _ in range(20) for word in (("SET", "k", big), ("GET", "k"))]) == 40


def test_a_refused_command_is_named(server: Server) -> None:
    with pytest.raises(ServerFailure, match="WRONGTYPE") as caught:
        load(server.url, [("SET", "k", 1), ("RPUSH", "k", 1), ("SET", "k", 2)])
    assert caught.value.command == "RPUSH"


def test_a_server_that_ends_meanwhile_is_told(server: Server) -> None:
    with pytest.raises(ConnectionLost):
        load(server.url, [("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")] + [("PING",)] * 5000)


def test_only_an_embedded_server_is_fed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        ask("redis://localhost", "PING")
    with pytest.raises(Unreachable):
        ask(f"unix://{tmp_path}/none.sock", "PING")
