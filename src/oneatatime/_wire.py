"""Requests out, replies in, strictly in order: the protocol object under a connection.

It reads its socket eagerly, so that no reply waits in the server, and hands each exchange its replies
when the last of them has come, one future an exchange. After any failure (cut, timeout, nonsense, a
reply past its limit) the wire is dead: replies and questions could no longer be matched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hiredis import HiredisError

from ._errors import ConnectionLost, Error, ProtocolViolation, ReplyTimeout
from ._options import KiB, Options
from ._request import Answer, Burst, Dropped, ReplyError, ReplyTooBig
from ._resp import parser

log = logging.getLogger("oneatatime")

_READ_SIZE = 64 * KiB
_OVERSLEPT = 1.0  # seconds by which a timer of a loop that is not blocked will not be late
_NEVER = float("inf")


@dataclass(eq=False, repr=False)
class Traffic:
    """What went over some connections: commands and bursts sent, bytes received."""

    commands: int = 0
    round_trips: int = 0
    received: int = 0

    @classmethod
    def sum(cls, several: Iterable[Traffic]) -> Traffic:
        total = cls()
        for one in several:
            total.commands += one.commands
            total.round_trips += one.round_trips
            total.received += one.received
        return total


class _Exchange:
    __slots__ = ("asked", "bounded", "future", "missing", "replies", "size")

    def __init__(self, burst: Burst, future: asyncio.Future[Answer], asked: float) -> None:
        self.asked = asked
        self.missing = burst.replies
        self.bounded = burst.bounded
        self.replies: list[Any] = []
        self.size = 0
        self.future = future


class Wire(asyncio.BufferedProtocol):
    """The exchanges under way on one socket.

    `error` is why it is dead, if it is; `round_trip` the least seconds that any answer took.
    """

    def __init__(self, node: str, options: Options, traffic: Traffic) -> None:
        self.node = node
        self.traffic = traffic
        self.error: Exception | None = None
        self.round_trip = _NEVER
        self._loop = asyncio.get_running_loop()
        self._timeout = options.timeout
        self._reply_limit = options.reply_limit
        self._parser = parser()
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._waiting: deque[_Exchange] = deque()
        self._transport: asyncio.Transport | None = None
        self._quiet_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()
        self._guard: AsyncGenerator[None, None] | None = None

    # Asking

    def exchange(self, bursts: Sequence[Burst]) -> list[asyncio.Future[Answer]]:
        """Writes bursts at once; each future has all its replies, or why they did not come."""
        futures: list[asyncio.Future[Answer]] = [self._loop.create_future() for _ in bursts]
        if self.error is not None or self._transport is None:
            for future in futures:
                _fail(future, _for_the_others(self.error) or ConnectionLost("not connected", node=self.node))
            return futures
        now = self._loop.time()
        if not self._waiting:
            self._quiet_since = now
            if self._timer is None:
                self._timer = self._loop.call_later(self._timeout, self._check_silence)
        self._waiting.extend([_Exchange(burst, future, now) for burst, future in zip(bursts, futures)])
        if not self._transport.is_closing():  # else they fail when the loop tells of it, in a moment
            self._transport.write(b"".join([burst.payload for burst in bursts]))
        return futures

    async def end_with_loop(self) -> None:
        """Ends with its event loop, whoever may still hold it then: asyncio.run closes async generators."""
        self._guard = _guard(weakref.ref(self))
        await self._guard.asend(None)

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.error is not None:
            return
        self.traffic.received += nbytes
        self._quiet_since = self._loop.time()
        try:
            self._parser.feed(self._buffer[:nbytes])
            self._take_replies()
        except (HiredisError, TypeError, ValueError, MemoryError) as error:
            self.fail(ProtocolViolation(f"what came is not a reply of Redis: {error}", node=self.node))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.error is None:
            said = self._waiting[0].replies if self._waiting else []
            parting = said[0] if len(said) == 1 and isinstance(said[0], ReplyError) else exc
            why = f": {parting}" if parting else ""
            owed = sum(exchange.missing for exchange in self._waiting)
            text = f"the server closed the connection{why}, {owed} replies still to come"
            self.fail(ConnectionLost(text, node=self.node))
        if not self._closed.done():
            self._closed.set_result(None)

    # Within

    def _take_replies(self) -> None:
        parser, waiting, answered = self._parser, self._waiting, 0
        while answered < len(waiting):
            exchange, before = waiting[answered], parser.consumed
            exchange.missing -= parser.take(exchange.replies, exchange.missing, exchange.bounded)
            if self.error is not None:  # what was built has run a destructor that ended this
                return
            exchange.size += parser.consumed - before
            if exchange.missing:
                break
            answered += 1
        else:
            before, stray = parser.consumed, list[Any]()
            if parser.take(stray, 1, True):
                self.fail(self._unasked(stray[0]))
                return
            if answered:
                waiting[answered - 1].size += parser.consumed - before
        while parser.pushed:
            log.debug("%s pushed %r", self.node, parser.pushed.pop())
        # not before all that came has made sense: a length that lies shows in what follows it
        for _ in range(answered):
            self._answer(waiting.popleft())
        if waiting and waiting[0].bounded and waiting[0].size + parser.buffered > self._reply_limit:
            self.fail(ReplyTooBig())

    def _answer(self, exchange: _Exchange) -> None:
        self.round_trip = min(self.round_trip, self._loop.time() - exchange.asked)
        if not exchange.future.done():  # whoever asked may have given up
            exchange.future.set_result(Answer(exchange.replies, exchange.size))

    def _unasked(self, reply: Any) -> Error:
        if isinstance(reply, ReplyError):  # the last word of a server that is about to hang up
            return ConnectionLost(f"the server ended the connection: {reply}", node=self.node)
        return ProtocolViolation("a reply came that nobody asked for", node=self.node)

    def _check_silence(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        remaining = self._quiet_since + self._timeout - self._loop.time()
        if remaining < -_OVERSLEPT:  # the loop was busy, and has not looked what came meanwhile
            self._quiet_since, remaining = self._loop.time(), self._timeout
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._check_silence)
        else:
            text = (
                f"the server sent nothing for {self._timeout:g} s while it owed a reply "
                "(Options(timeout=...) sets how long to wait)"
            )
            self.fail(ReplyTimeout(text, node=self.node))

    def fail(self, error: Exception) -> None:
        """Ends the connection now: whoever still waits gets `error`."""
        if self.error is None:
            self.error = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()
        if self._waiting:
            _fail(self._waiting.popleft().future, error)
        while self._waiting:
            _fail(self._waiting.popleft().future, _for_the_others(error))
        guard, self._guard = self._guard, None
        if guard is not None:
            # it awaits nothing, so it ends at once; or it is what is calling
            with contextlib.suppress(StopIteration, RuntimeError):
                guard.aclose().send(None)

    def drop(self) -> None:
        if self._loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        gone = ConnectionLost("whoever read over this connection is gone", node=self.node)
        if here:
            self.fail(gone)
        else:
            with contextlib.suppress(RuntimeError):  # it is being closed just now
                self._loop.call_soon_threadsafe(self.fail, gone)

    async def wait_closed(self) -> None:
        if self._transport is not None:
            await asyncio.shield(self._closed)


async def _guard(wire: weakref.ref[Wire]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        left = wire()
        if left is not None and left.error is None:
            left.fail(ConnectionLost("the event loop of this connection has ended", node=left.node))


def _for_the_others(error: Exception | None) -> Any:
    """A reply too big is the affair of its own burst alone."""
    return Dropped() if isinstance(error, ReplyTooBig) else error


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # counts as looked at: who gave up waiting need not be told again by the loop
