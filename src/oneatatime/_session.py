"""A connection that is opened anew after a reply was too big, and never after anything else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from ._connection import Connection
from ._endpoint import Endpoint
from ._errors import ConnectionLost, PermissionDenied, ServerFailure
from ._options import Options
from ._request import Answer, Burst, Dropped
from ._wire import Traffic


@dataclass(eq=False, repr=False)
class Pending:
    """A burst that has been written, and the future that has its answer."""

    burst: Burst
    future: asyncio.Future[Answer]
    _asked: float = field(default_factory=time.perf_counter)
    _busy: float = field(default_factory=time.thread_time)

    @property
    def waited(self) -> float:
        """Seconds since then in which this thread had nothing to do."""
        return time.perf_counter() - self._asked - (time.thread_time() - self._busy)


class Session:
    """What one worker reads over.

    A reply past its limit ends its connection: that is how the rest of it is refused. The burst that
    asked for it fails with ReplyTooBig; the others are sent again over a new connection, to the same
    server process: cursors mean nothing to another one.
    """

    def __init__(self, endpoint: Endpoint, options: Options, traffic: Traffic) -> None:
        self.node = endpoint.node
        self._endpoint = endpoint
        self._options = options
        self._traffic = traffic
        self._connection: Connection | None = None
        self._run_id: bytes | None = None

    @property
    def connection(self) -> Connection:
        assert self._connection is not None, "opened before use"
        return self._connection

    async def open(self) -> Connection:
        """Connects. Raises as Connection.open does."""
        self._connection = await Connection.open(self._endpoint, self._options, self._traffic)
        return self._connection

    async def identify(self) -> bytes | None:
        """The run id of the server process, or None if it does not tell."""
        try:
            told: bytes = await self.connection.call(b"INFO", b"server")
        except (PermissionDenied, ServerFailure):
            return None
        self._run_id = info(told).get("run_id", "").encode() or None
        return self._run_id

    def send(self, *bursts: Burst) -> list[Pending]:
        """Writes bursts now, all in one write."""
        return [Pending(burst, future) for burst, future in zip(bursts, self.connection.exchange(*bursts))]

    async def answer(self, pending: Pending) -> Answer:
        """The answer to a burst. Raises ReplyTooBig, ConnectionLost or ProtocolViolation."""
        while True:
            try:
                return await pending.future
            except Dropped:
                await self.reopen()
                (pending.future,) = self.connection.exchange(pending.burst)

    async def reopen(self) -> None:
        """Connects again after a reply that was too big, unless that has been done for another burst."""
        if not self.connection.dead:
            return
        known = self._run_id
        await self.open()
        await self.check(known)

    async def check(self, known: bytes | None) -> None:
        """Makes sure that this is the server process with that run id, where it is known."""
        if known is not None and await self.identify() != known:
            text = "the server was restarted while it was read; its cursors are lost"
            raise ConnectionLost(text, node=self.node)

    def abort(self) -> None:
        """Ends the connection now."""
        if self._connection is not None:
            self._connection.abort()

    def drop(self) -> None:
        """Ends the connection from a destructor, in whatever thread that runs."""
        if self._connection is not None:
            self._connection.drop()

    async def wait_closed(self) -> None:
        if self._connection is not None:
            await self._connection.wait_closed()


def info(text: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
