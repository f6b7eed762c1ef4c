"""A server that says whatever a test wants it to say, byte by byte: what no real one could be brought to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, final

from hiredis import Reader

from oneatatime._resp import ARRAY

Answers = dict[bytes, "bytes | Callable[[list[bytes]], bytes]"]

HELLO = b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(*replies: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def as_array(reply: Any) -> Any:
    """A reply written with lists, as the parser would give it."""
    return ARRAY([as_array(element) for element in reply]) if isinstance(reply, list) else reply


def page(cursor: int, *keys: bytes) -> bytes:
    return array(bulk(b"%d" % cursor), array(*map(bulk, keys)))


NORMAL: Answers = {
    b"HELLO": HELLO,
    b"INFO": bulk(b"# Server\r\nrun_id:aaaa\r\nredis_mode:standalone\r\nmaxmemory:0\r\n"),
    b"DBSIZE": b":1\r\n",
    b"SCAN": page(0, b"key"),
    b"TYPE": b"+string\r\n",
    b"STRLEN": b":5\r\n",
    b"GET": bulk(b"value"),
    b"GETRANGE": bulk(b"value"),
    b"MGET": lambda words: array(*[bulk(b"value")] * (len(words) - 1)),
}


@final
class FakeServer:
    """An async context manager. `answers` are by command; any other is answered +OK.

    `greeting` is said before anything was asked; `hang_up` closes the connection after it. `asked` is
    what came.
    """

    def __init__(
        self, answers: Answers | None = None, *, greeting: bytes = b"", hang_up: bool = False
    ) -> None:
        self.answers = {**NORMAL, **(answers or {})}
        self.asked: list[list[bytes]] = []
        self.connections = 0
        self._greeting = greeting
        self._hang_up = hang_up
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        for _turn in range(10):
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.write(self._greeting)
        if self._hang_up:
            writer.close()
            return
        commands: Any = Reader()
        try:
            while data := await reader.read(65536):
                commands.feed(data)
                while (words := commands.gets()) is not False:
                    self.asked.append(words)
                    answer = self.answers.get(words[0].upper(), b"+OK\r\n")
                    writer.write(answer(words) if callable(answer) else answer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
