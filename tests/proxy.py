"""A proxy that breaks connections on purpose, at the byte or after the time that a test asks for.

    async with FaultProxy(server.url) as proxy:
        proxy.plan = Plan(to_client=Fault(cut=117))     # every connection from now on
        proxy.upcoming.append(Plan(refuse=True))        # only the next one, before `plan` is asked
        ... oneatatime.stream(proxy.url) ...
        proxy.links[-1].to_client.passed                # bytes that came through

A plan is a frozen value and a connection costs about as much as without proxy, so a test can cut at every
byte of a conversation. It listens on TCP whatever the server listens on, and passes TLS through as bytes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import cast, final
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What happens to the bytes of one direction; positions count from the first byte of the connection.

    `cut`: so many bytes pass, then the connection ends, both ways, by a FIN or, with `reset`, by an RST.
    `stall`: so many pass, then none, and the connection stays open. `replace`: (position, bytes written
    over what passes there). `dribble`: each byte arrives alone.
    """

    cut: int | None = None
    reset: bool = False
    stall: int | None = None
    replace: tuple[int, bytes] | None = None
    dribble: bool = False


@dataclass(frozen=True)
class Plan:
    """What happens to one connection.

    `refuse`: it is accepted and reset at once (for a closed port there is `FaultProxy.close_port`).
    `round_trip`: seconds, half each way; a delay, not a limit: any number of bytes can be under way.
    """

    to_client: Fault = Fault()
    to_server: Fault = Fault()
    refuse: bool = False
    round_trip: float = 0.0


@final
class FaultProxy:
    """An async context manager with a `url` to give to the client under test in place of the server's."""

    def __init__(self, upstream_url: str, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.upcoming: deque[Plan] = deque()
        self.links: list[Link] = []
        self._upstream = urlsplit(upstream_url)
        self._listener: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """The upstream's url with our address in it: same scheme, user, password and database."""
        at = self._upstream.netloc.rpartition("@")[0]
        where = f"{at}{'@' if at else ''}127.0.0.1:{self.port}"
        query = f"?{self._upstream.query}" if self._upstream.query else ""
        if self._upstream.scheme == "unix":
            return f"redis://{where}{query}"
        return f"{self._upstream.scheme}://{where}{self._upstream.path}{query}"

    async def __aenter__(self) -> FaultProxy:
        await self.open_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close_port()
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for link in self.links:
            link.abandon()
        while any(link.open for link in self.links):
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # a socket is closed just after its protocol was told

    async def open_port(self) -> None:
        """Listen, on the same port as before if it was closed in between."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Link(self)._client, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close_port(self) -> None:
        """Stop listening: a new connection is refused, those that are there go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await asyncio.sleep(0)

    def drop(self, *, reset: bool = False) -> None:
        """End every connection that is there now."""
        for link in self.links:
            link.end(reset=reset)

    def _next_plan(self) -> Plan:
        return self.upcoming.popleft() if self.upcoming else self.plan

    def _connect(self, link: Link) -> None:
        task = asyncio.get_running_loop().create_task(self._connect_upstream(link))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_upstream(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._upstream.scheme == "unix":
                await loop.create_unix_connection(lambda: link._server, self._upstream.path)
            else:
                where = self._upstream.hostname or "localhost", self._upstream.port or 6379
                await loop.create_connection(lambda: link._server, *where)
        except OSError:
            link.end(reset=True)


class Link:
    """One connection through the proxy: `to_client` and `to_server` count the bytes `passed`."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.plan = proxy._next_plan()
        self.ending = False
        self._client = _Side(self)
        self._server = _Side(self)
        one_way = self.plan.round_trip / 2
        self.to_client = _Way(self, self.plan.to_client, self._client, one_way)
        self.to_server = _Way(self, self.plan.to_server, self._server, one_way)
        self._client.outgoing, self._server.outgoing = self.to_server, self.to_client
        proxy.links.append(self)

    @property
    def open(self) -> bool:
        """Whether a side of it is still connected."""
        return self._client.transport is not None or self._server.transport is not None

    def end(self, *, reset: bool) -> None:
        """Close both sides when what is already written has left."""
        if not self.ending:
            self.ending = True
            self._client.close(reset)
            self._server.close(reset)

    def abandon(self) -> None:
        """Close both sides now, whatever is still to be written."""
        self.ending = True
        for side in (self._client, self._server):
            if side.transport is not None:
                side.transport.abort()

    def _made(self, side: _Side) -> None:
        if self.ending:  # while we were connecting to the server
            side.close(reset=True)
        elif side is self._client:
            if self.plan.refuse:
                self.end(reset=True)
            else:
                self._proxy._connect(self)
        else:
            self.to_client.begin()
            self.to_server.begin()


class _Side(asyncio.Protocol):
    """The socket towards the client, or the one towards the server."""

    outgoing: _Way

    def __init__(self, link: Link) -> None:
        self._link = link
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._link._made(self)

    def data_received(self, data: bytes) -> None:
        self.outgoing.send(data)

    def eof_received(self) -> bool:
        self.outgoing.send(None)
        return True  # we close it ourselves, in our own time

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.outgoing.send(None)

    def pause_writing(self) -> None:
        self.outgoing.target.pause(True)

    def resume_writing(self) -> None:
        self.outgoing.target.pause(False)

    def pause(self, paused: bool) -> None:
        if self.transport is not None and not self.transport.is_closing():
            (self.transport.pause_reading if paused else self.transport.resume_reading)()

    def close(self, reset: bool) -> None:
        transport = self.transport
        if transport is None:
            return
        if not reset:
            transport.close()
        elif transport.get_write_buffer_size():  # an abort would take back what a test was promised
            asyncio.get_running_loop().call_later(0.001, self.close, reset)
        else:
            connection = transport.get_extra_info("socket")
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()


class _Way:
    """One direction of a link: a delay line, then the fault, then the other socket. None is the end."""

    def __init__(self, link: Link, fault: Fault, target: _Side, delay: float) -> None:
        self.passed = 0
        self.target = target
        self._link = link
        self._fault = fault
        self._delay = delay
        self._under_way: deque[bytes | None] = deque()
        self._drops: deque[bytes | None] = deque()
        self._dripping = False
        self._early: list[bytes | None] | None = []  # what came before there was anybody to pass it on to

    def begin(self) -> None:
        self._check_cut()
        early, self._early = self._early or [], None
        for data in early:
            self.send(data)

    def send(self, data: bytes | None) -> None:
        if self._early is not None:
            self._early.append(data)
        elif self._delay:
            self._under_way.append(data)
            asyncio.get_running_loop().call_later(self._delay, self._arrive)
        else:
            self._pass(data)

    def _arrive(self) -> None:
        # Whichever timer fires, what was sent first arrives first.
        self._pass(self._under_way.popleft())

    def _pass(self, data: bytes | None) -> None:
        if not self._fault.dribble:
            self._deliver(data)
            return
        self._drops.extend([None] if data is None else [bytes((byte,)) for byte in data])
        if not self._dripping:
            self._dripping = True
            self._drip()

    def _drip(self) -> None:
        if self._drops and not self._link.ending:
            self._deliver(self._drops.popleft())
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._drip)  # a reader on this loop has its turn in between
        else:
            self._dripping = False

    def _deliver(self, data: bytes | None) -> None:
        stall, cut = self._fault.stall, self._fault.cut
        if self._link.ending or self.passed == stall:
            return
        if data is None:
            self._link.end(reset=False)
            return
        ends = [end for end in (stall, cut) if end is not None]
        data = self._replaced(data)[: min(ends) - self.passed if ends else None]
        self.passed += len(data)
        if self.target.transport is not None and not self.target.transport.is_closing():
            self.target.transport.write(data)
        self._check_cut()

    def _check_cut(self) -> None:
        if self.passed == self._fault.cut:
            self._link.end(reset=self._fault.reset)

    def _replaced(self, data: bytes) -> bytes:
        if self._fault.replace is None:
            return data
        position, new = self._fault.replace
        first, last = max(position, self.passed), min(position + len(new), self.passed + len(data))
        if first >= last:
            return data
        return (
            data[: first - self.passed] + new[first - position : last - position] + data[last - self.passed :]
        )
