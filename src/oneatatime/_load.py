"""Feeding an embedded server: many commands over one blocking socket.

For demos, tests and benchmarks, which have an endless number of commands to send and nothing else to do.
Commands go out a block at a time; the replies of a block are read while the server works on the next one.
So memory is bounded by two blocks, and no side ever waits for both.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import hiredis

from ._endpoint import Endpoint
from ._errors import ConnectionLost, InvalidInput, ServerFailure, Unreachable

Command = Sequence["bytes | str | float"]

_BLOCK = 1000  # commands
_RECEIVE = 64 * 1024  # bytes
_SILENCE_SECONDS = 60.0


def load(url: str, commands: Iterable[Command]) -> int:
    """Send `commands` to the embedded server at `url` and return how many there were.

    Stops at the first command that the server refuses.

    Raises ServerFailure with the server's words and the command's name; Unreachable or ConnectionLost.

    >>> load(server.url, ((b"SET", b"key:%d" % n, n) for n in range(1_000_000)))
    1000000
    """
    return sum(len(replies) for replies in _replies(url, commands))


def ask(url: str, *command: bytes | str | float) -> Any:
    """The reply of the embedded server at `url` to one command, as hiredis reads it.

    >>> ask(server.url, "DBSIZE")
    1000000
    """
    return next(_replies(url, [command]))[0]


def _replies(url: str, commands: Iterable[Command]) -> Iterator[list[Any]]:
    """The replies to `commands`, a block at a time, each while the next block is on its way."""
    with _connected(Endpoint.of(url)) as connection:
        reader = hiredis.Reader()
        remaining = iter(commands)
        asked: list[Command] = []
        while True:
            block = list(islice(remaining, _BLOCK))
            if block:
                packed = b"".join([hiredis.pack_command(tuple(command)) for command in block])  # type: ignore[arg-type]
                with _losses(block[0]):
                    connection.sendall(packed)
            if asked:
                yield [_answer(connection, reader, command) for command in asked]
            if not block:
                return
            asked = block


def _connected(endpoint: Endpoint) -> socket.socket:
    if endpoint.path is None:
        raise InvalidInput(f"an embedded server has a unix socket, and {endpoint.node} is none")
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_SILENCE_SECONDS)
    try:
        connection.connect(endpoint.path)
    except OSError as error:
        connection.close()
        raise Unreachable(f"no embedded server answers: {error}", node=endpoint.node) from error
    return connection


def _answer(connection: socket.socket, reader: hiredis.Reader, command: Command) -> Any:
    reply = reader.gets()
    while reply is False:
        with _losses(command):
            data = connection.recv(_RECEIVE)
            if not data:
                raise ConnectionAbortedError("it ended")
        reader.feed(data)
        reply = reader.gets()
    if isinstance(reply, hiredis.ReplyError):
        raise ServerFailure(f"the embedded server refused: {reply}", command=_name(command))
    return reply


@contextmanager
def _losses(command: Command) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConnectionLost(
            f"the connection to the embedded server was lost: {error}", command=_name(command)
        ) from error


def _name(command: Command) -> str:
    return command[0].decode() if isinstance(command[0], bytes) else str(command[0])
