"""A plain blocking connection that fills servers and reads their counters; never what is measured."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import hiredis

Command = tuple[Any, ...]

_TOGETHER = 256 * 1024  # bytes sent before the replies to the batch before are read
_READ = 256 * 1024


class Admin:
    """One blocking connection to the server at `url` (unix:// or redis://, no password)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(parts.path)
        else:
            self._socket = socket.create_connection((parts.hostname or "localhost", parts.port or 6379))
        self._reader = hiredis.Reader()

    def call(self, *command: Any) -> Any:
        """The reply to one command; an error reply is raised."""
        self._socket.sendall(hiredis.pack_command(command))
        return self._reply()

    def send(self, commands: Iterable[Command]) -> None:
        """Write the commands; their replies are to be taken later."""
        self._socket.sendall(b"".join([hiredis.pack_command(command) for command in commands]))

    def replies(self, number: int) -> list[Any]:
        """So many replies to what was sent."""
        return [self._reply() for _ in range(number)]

    def info(self, section: str) -> dict[str, str]:
        """The fields of one section of INFO."""
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu_seconds(self) -> float:
        """CPU time of the server so far."""
        cpu = self.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def load(self, commands: Iterable[Command]) -> None:
        """Send all the commands, many at a time; the first error reply is raised."""
        together: list[bytes] = []
        size = owed = 0
        for command in commands:
            packed = hiredis.pack_command(command)
            together.append(packed)
            size += len(packed)
            if size >= _TOGETHER:
                self._socket.sendall(b"".join(together))
                self._drain(owed)  # of the batch before: the server works on this one meanwhile
                owed = len(together)
                together.clear()
                size = 0
        self._socket.sendall(b"".join(together))
        self._drain(owed + len(together))

    def settle(self, patience: float = 20.0) -> None:
        """Wait until the server has done growing its tables: a rehash would be charged to who reads first."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.info("memory").get("mem_overhead_db_hashtable_rehashing", "0") == "0":
                return
            time.sleep(0.05)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drain(self, replies: int) -> None:
        for _ in range(replies):
            self._reply()

    def _reply(self) -> Any:
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(_READ)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply
