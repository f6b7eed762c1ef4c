"""A connection that is opened anew after a reply was too big, and who answers at its other end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from ._connection import Connection, server_error
from ._endpoint import Endpoint
from ._errors import AuthenticationFailed, ConnectionLost, fitting
from ._options import Options
from ._request import Answer, Burst, Dropped, ReplyError, command, each_after
from ._wire import Traffic

_OWN_CURSORS = ("dragonfly", "kvrocks", "garnet")  # they also tell which Redis they resemble
_WHO = command(b"INFO", b"server") + command(b"INFO", b"replication")


class Identity(NamedTuple):
    """Which server process answers, and in what role. What is None or "" was not told.

    `lineage` is another after every promotion; `in_sync`: a replica whose link to its primary is up and that
    is not being filled; `history` and `offset`: how far it is in which stream of replication; `backlog`: from
    which offset on it has that stream without a gap; `filled`: bytes from its primary beside it.
    `slot_tables`: as a node of a cluster it is known to have a table for each slot; `own_cursors`: it is
    neither Redis nor Valkey, and what its cursors mean is its own affair.
    """

    run_id: str | None = None
    role: str | None = None
    lineage: tuple[str, str] = ("", "")
    in_sync: bool = True
    history: str = ""
    offset: int = 0
    backlog: int = 0
    filled: str = ""
    slot_tables: bool = False
    own_cursors: bool = False

    @classmethod
    def told(cls, server: dict[str, str], replication: dict[str, str]) -> Identity:
        """What these sections of INFO say."""
        role = replication.get("role")
        link = replication.get("master_link_status", "up") == "up"
        filling = replication.get("master_sync_in_progress", "0") != "0"
        offset = replication.get("slave_repl_offset" if role == "slave" else "master_repl_offset", "0")
        history = replication.get("master_replid", "")
        backlog = replication.get("repl_backlog_first_byte_offset", "0")
        second = (replication.get("master_replid2", ""), replication.get("second_repl_offset", ""))
        own_cursors = any(f"{product}_version" in server for product in _OWN_CURSORS)
        return cls(
            run_id=server.get("run_id") or None,
            role=role,
            lineage=(history, "") if role == "slave" else second,
            in_sync=link and not filling,
            history=history,
            offset=int(offset) if offset.lstrip("-").isdigit() else 0,
            backlog=int(backlog) if backlog.isdigit() else 0,
            slot_tables=not own_cursors and _has_slot_tables(server),
            own_cursors=own_cursors,
        )

    @property
    def is_replica(self) -> bool:
        return self.role == "slave"

    def changed(self, before: Identity) -> str:
        """Why what was read while it was `before` may say nothing of what it has now; "" where it does."""
        if self.run_id != before.run_id:
            return "another server process answers"
        if (self.role, self.lineage) != (before.role, before.lineage):
            return "it follows another history" if self.is_replica else "it was a replica meanwhile"
        return "it was filled anew meanwhile" if self._filled_since(before) else ""

    def _filled_since(self, before: Identity) -> bool:
        """A filling makes the backlog anew, and brings what is no part of the stream of changes.

        Each by itself happens for other reasons too: many changes push out the beginning of the backlog, and
        a command whose connection was cut comes twice.
        """
        return self.filled != before.filled and not 0 < self.backlog <= before.offset


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
    server process if that has been identified: cursors mean nothing to another one.

    `asking` reads what a slot that is on its way to this node holds here already; `from_replica` tells a
    node of a cluster that what it has of its primary will do.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: Options,
        traffic: Traffic,
        *,
        asking: bool = False,
        from_replica: bool = False,
    ) -> None:
        self.node = endpoint.node
        self.identity: Identity | None = None
        self._endpoint = endpoint
        self._options = options
        self._traffic = traffic
        self._asking = asking
        self._from_replica = from_replica
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        assert self._connection is not None, "opened before use"
        return self._connection

    @property
    def run_id(self) -> str | None:
        """Of the process that answers, as far as it is known."""
        return self.identity.run_id if self.identity is not None else None

    @property
    def opened(self) -> bool:
        """Whether it has been connected, and lives."""
        return self._connection is not None and not self._connection.dead

    async def open(self) -> Connection:
        """Connects. Raises as Connection.open does."""
        self._connection = await Connection.open(self._endpoint, self._options, self._traffic)
        if self._from_replica:
            await self._connection.call(b"READONLY")
        return self._connection

    async def identify(self) -> Identity:
        """Asks who answers, and a replica, what it got from its primary."""
        identity = await self.identified(self.ask_who())
        if identity.is_replica:
            self.identity = identity = identity._replace(filled=await self._filled())
        return identity

    def ask_who(self) -> asyncio.Future[Answer]:
        """Asks who answers, for `identified`."""
        return self.connection.exchange(_WHO)[0]

    async def identified(self, asked: asyncio.Future[Answer]) -> Identity:
        """Who answers. Where the server does not tell, nothing of it is known."""
        answer = await asked
        with fitting(self.node):
            server, replication = (_fields(reply, self.node) for reply in answer.replies)
        if not server and "version" in self.connection.hello:  # or an older one: never newer
            product = "valkey" if self.connection.hello.get("server") == "valkey" else "redis"
            server = {f"{product}_version": str(self.connection.hello["version"])}
        if "role" not in replication and "role" in self.connection.hello:
            role = self.connection.hello["role"]
            replication = {"role": "slave" if role == "replica" else role}
        self.identity = Identity.told(server, replication)
        return self.identity

    async def _filled(self) -> str:
        """The bytes that a replica got that were no stream of changes."""
        # in one reply, or what comes in between is in one number and not in the other
        (future,) = self.connection.exchange(command(b"INFO", b"replication", b"stats"))
        told = _fields((await future).replies[0], self.node)  # nothing before Redis 7.0
        received = told.get("total_net_repl_input_bytes", "")
        streamed = told.get("slave_read_repl_offset", "")
        return str(int(received) - int(streamed)) if received.isdigit() and streamed.isdigit() else ""

    def send(self, *bursts: Burst) -> list[Pending]:
        """Writes bursts now, all in one write."""
        if self._asking:
            bursts = tuple(each_after(b"ASKING", burst) for burst in bursts)
        return [Pending(burst, future) for burst, future in zip(bursts, self.connection.exchange(*bursts))]

    async def answer(self, pending: Pending) -> Answer:
        """The answer to a burst. Raises ReplyTooBig, ConnectionLost or ProtocolViolation."""
        while True:
            try:
                answer = await pending.future
                return self._answered(answer) if self._asking else answer
            except Dropped:
                await self.reopen()
                (pending.future,) = self.connection.exchange(pending.burst)

    def _answered(self, answer: Answer) -> Answer:
        """Without what was said to ASKING. Raises PermissionDenied where that is not allowed."""
        for reply in answer.replies[::2]:
            if isinstance(reply, ReplyError):
                raise server_error(reply, node=self.node, command="ASKING")
        return Answer(answer.replies[1::2], answer.size)

    async def reopen(self) -> None:
        """Connects again after a reply that was too big, unless that has been done for another burst."""
        if not self.connection.dead:
            return
        known = self.identity
        await self.open()
        if known is not None and (known.run_id is None or (await self.identify()).run_id != known.run_id):
            self.identity = known  # that is whose cursors these are, whoever answers by now
            text = "the server was restarted while it was read; its cursors are lost"
            self.abort()
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


def _has_slot_tables(server: dict[str, str]) -> bool:
    if "valkey_version" in server:
        return _version(server, "valkey_version") >= (8, 0)
    return _version(server, "redis_version") >= (7, 4)


def _version(server: dict[str, str], name: str) -> tuple[int, ...]:
    numbers = server.get(name, "0").split(".")[:2]
    return tuple(int(number) for number in numbers) if all(n.isdigit() for n in numbers) else (0,)


def _fields(reply: bytes | ReplyError, node: str) -> dict[str, str]:
    if isinstance(reply, ReplyError):
        if str(reply).startswith(("NOAUTH", "WRONGPASS")):
            raise AuthenticationFailed(f"the server asks for a user and password: {reply}", node=node)
        return {}  # not allowed, or not known
    return info(reply)


def info(text: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
