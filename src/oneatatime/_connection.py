"""Endpoint -> Connection: requests out, replies in, strictly in order. The only sockets.

`_Wire` is the protocol object: it reads its socket eagerly, so that no reply waits in the server, and
hands each exchange its replies when the last of them has come, one future an exchange. After any
failure (cut, timeout, nonsense, a reply past its limit) the wire is dead: replies and questions
could no longer be matched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from hiredis import HiredisError, PushNotification, Reader

from ._endpoint import Endpoint
from ._errors import (
    AuthenticationFailed,
    ConnectionLost,
    Error,
    PermissionDenied,
    ProtocolViolation,
    ReplyTimeout,
    ServerFailure,
    ServerLoading,
    Unreachable,
)
from ._options import KiB, Options
from ._request import Answer, Burst, Dropped, ReplyError, ReplyTooBig, command
from ._version import __version__

log = logging.getLogger("oneatatime")

CLIENT_NAME = b"oneatatime"
_READ_SIZE = 256 * KiB
_FEED_SIZE = 16 * KiB  # hiredis moves the rest of what it was fed to the front after each kilobyte parsed
_OVERSLEPT = 1.0  # seconds by which a timer of a loop that is not blocked will not be late
_INCOMPLETE = object()
_NEVER = float("inf")

_HUGE_ARRAY = re.compile(rb"\*[0-9]{8}")
"""hiredis makes room for all elements at once: no memory yet, but seconds of every collection."""


@dataclass
class Traffic:
    """What went over some connections: commands and bursts sent, bytes received."""

    commands: int = 0
    round_trips: int = 0
    received: int = 0


class _Exchange:
    __slots__ = ("asked", "bounded", "future", "missing", "replies", "size")

    def __init__(self, burst: Burst, future: asyncio.Future[Answer], asked: float) -> None:
        self.asked = asked
        self.missing = burst.replies
        self.bounded = burst.bounded
        self.replies: list[Any] = []
        self.size = 0
        self.future = future


class _Wire(asyncio.BufferedProtocol):
    """The exchanges under way on one socket."""

    def __init__(self, node: str, options: Options, traffic: Traffic) -> None:
        self.node = node
        self.traffic = traffic
        self.error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._timeout = options.timeout
        self._reply_limit = options.reply_limit
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._waiting: deque[_Exchange] = deque()
        self._transport: asyncio.Transport | None = None
        self._quiet_since = 0.0
        self.round_trip = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()

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
        self._transport.write(b"".join([burst.payload for burst in bursts]))
        return futures

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.traffic.received += nbytes
        self._quiet_since = self._loop.time()
        start = 0
        for suspect in _HUGE_ARRAY.finditer(self._buffer[:nbytes]):  # hardly ever one
            self._feed(start, suspect.start())
            start = suspect.start()
            if self.error is None and not self._within_value() and self._waiting and self._waiting[0].bounded:
                text = f"an array of {suspect[0][1:].decode()}... elements cannot be what was asked for"
                self.fail(ProtocolViolation(text, node=self.node))
        self._feed(start, nbytes)

    def _within_value(self) -> bool:
        """What comes next belongs to a string that has come in part."""
        return self._reader.has_data()

    def _feed(self, start: int, stop: int) -> None:
        while start < stop and self.error is None:
            size = min(_FEED_SIZE, stop - start)
            try:
                self._reader.feed(self._buffer[start : start + size])  # type: ignore[arg-type]
                self._take_replies(size)
            except (HiredisError, TypeError, ValueError, MemoryError) as error:
                self.fail(ProtocolViolation(f"what came is not a reply of Redis: {error}", node=self.node))
            start += size

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

    def _take_replies(self, size: int) -> None:
        gets, waiting = self._reader.gets, self._waiting
        if waiting:
            waiting[0].size += size
        answered = 0
        while (reply := gets()) is not _INCOMPLETE:
            if reply.__class__ is PushNotification:
                log.debug("%s pushed %r", self.node, reply)
                continue
            if answered == len(waiting):
                self.fail(self._unasked(reply))
                return
            exchange = waiting[answered]
            exchange.replies.append(reply)
            exchange.missing -= 1
            answered += not exchange.missing
        # not before all that came has made sense: a length that lies shows in what follows it
        for _ in range(answered):
            self._answer(waiting.popleft())
        if waiting and waiting[0].bounded and waiting[0].size > self._reply_limit:
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


class _Deadline:
    """Cancels the current task when time is up. asyncio.wait_for can lose a connection, and can swallow a
    cancellation that comes as it ends (Python < 3.12); asyncio.timeout is not there before 3.11.
    """

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None, "connections are opened by tasks"
        self._task = task
        self._up = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._up = True
        self._task.cancel()

    def passed(self) -> bool:
        """Whether it was this that cancelled the task, and nobody else."""
        if not self._up:
            return False
        uncancel = getattr(self._task, "uncancel", None)
        return uncancel is None or not uncancel()

    def cancel(self) -> None:
        self._timer.cancel()


class Connection:
    """One authenticated connection with its database selected.

    `hello` holds what the server said of itself in HELLO (empty on servers before Redis 6). `touches`:
    the server has no CLIENT NO-TOUCH, so reading a value counts as using it.
    """

    def __init__(self, wire: _Wire, endpoint: Endpoint) -> None:
        self.node = endpoint.node
        self.hello: dict[str, Any] = {}
        self.touches = False
        self._wire = wire

    @classmethod
    async def open(cls, endpoint: Endpoint, options: Options, traffic: Traffic | None = None) -> Connection:
        """A connection ready for its first command.

        Raises Unreachable, AccessDenied, ProtocolViolation or ServerFailure.
        """
        wire = _Wire(endpoint.node, options, traffic or Traffic())
        connection = cls(wire, endpoint)
        deadline = _Deadline(options.connect_timeout)
        try:
            await connection._set_up(endpoint)
        except BaseException as error:
            wire.fail(
                ConnectionLost("the connection was given up while it was being set up", node=endpoint.node)
            )
            if isinstance(error, asyncio.CancelledError) and deadline.passed():
                hint = "does the server speak TLS on this port? " if endpoint.tls else ""
                text = (
                    f"no connection within {options.connect_timeout:g} s "
                    f"({hint}Options(connect_timeout=...) sets how long to wait)"
                )
                raise Unreachable(text, node=endpoint.node) from None
            raise
        finally:
            deadline.cancel()
        return connection

    @property
    def round_trip(self) -> float:
        """Seconds to the server and back: the least that any answer took."""
        return self._wire.round_trip

    @property
    def dead(self) -> bool:
        return self._wire.error is not None

    def exchange(self, *bursts: Burst) -> list[asyncio.Future[Answer]]:
        """Writes bursts now, in one write; each future has its answer."""
        self._wire.traffic.commands += sum([burst.replies for burst in bursts])
        self._wire.traffic.round_trips += 1
        return self._wire.exchange(bursts)

    async def call(self, *words: bytes | int) -> Any:
        """The reply to one command. An error reply is raised as the error it means."""
        (future,) = self.exchange(command(*words))
        reply = (await future).replies[0]
        if isinstance(reply, ReplyError):
            raise server_error(reply, node=self.node, command=_name(words))
        return reply

    def abort(self) -> None:
        """Ends the connection now, without waiting; safe at any time."""
        self._wire.fail(ConnectionLost("the connection was closed here", node=self.node))

    def drop(self) -> None:
        """Ends the connection from a destructor, in whatever thread that runs."""
        self._wire.drop()

    async def wait_closed(self) -> None:
        """Returns when the socket of an ended connection is closed."""
        await self._wire.wait_closed()

    # Setting up

    async def _set_up(self, endpoint: Endpoint) -> None:
        await self._connect(endpoint)
        user, password = endpoint.username, endpoint.password
        if endpoint.credentials is not None:
            user, password = await endpoint.credentials()
        settings = _settings(endpoint.db)
        if endpoint.protocol != 2:
            login = () if password is None else (b"AUTH", (user or "default").encode(), password.encode())
            hello = command(b"HELLO", 3, *login, b"SETNAME", CLIENT_NAME)
            greeting, *settled = await self._handshake(hello + settings)
            if not isinstance(greeting, ReplyError):
                self.hello = _as_hello(greeting, self.node)
                self._check(settled, endpoint)
                return
            if not str(greeting).startswith(("NOPROTO", "ERR", "NOPERM")):
                raise _login_error(greeting, self.node, password)
        await self._set_up_resp2(user, password, endpoint)

    async def _set_up_resp2(self, user: str | None, password: str | None, endpoint: Endpoint) -> None:
        if password is not None:
            name = (user.encode(),) if user else ()
            reply = (await self._handshake(command(b"AUTH", *name, password.encode())))[0]
            if isinstance(reply, ReplyError):
                raise _login_error(reply, self.node, password)
        named = command(b"CLIENT", b"SETNAME", CLIENT_NAME)
        first, *settled = await self._handshake(named + _settings(endpoint.db))
        if isinstance(first, ReplyError) and not str(first).startswith(("ERR", "NOPERM")):
            raise _login_error(first, self.node, password)
        self._check(settled, endpoint)

    async def _handshake(self, burst: Burst) -> list[Any]:
        try:
            (future,) = self.exchange(burst)
            return (await future).replies
        except ProtocolViolation as error:
            text = f"this is not a Redis or Valkey server: {error.message}"
            raise ProtocolViolation(text, node=self.node) from error
        except ConnectionLost as error:
            if isinstance(error, ReplyTimeout):
                raise
            text = (
                f"no hello: {error.message} "
                "(does it want TLS, or refuse this address, or have no room for more clients?)"
            )
            raise Unreachable(text, node=self.node) from error

    def _check(self, settled: list[Any], endpoint: Endpoint) -> None:
        selected, touching = settled[0], settled[1]
        if isinstance(selected, ReplyError):
            if str(selected).startswith("NOAUTH"):
                raise _login_error(selected, self.node, None)
            if endpoint.db:
                raise server_error(selected, node=self.node, command=f"SELECT {endpoint.db}")
        self.touches = isinstance(touching, ReplyError)

    async def _connect(self, endpoint: Endpoint) -> None:
        context = endpoint.tls.ssl_context() if endpoint.tls else None
        name = endpoint.tls.server_hostname if endpoint.tls else None
        loop = asyncio.get_running_loop()
        connecting: Awaitable[Any]
        if endpoint.path is not None:
            connecting = loop.create_unix_connection(lambda: self._wire, endpoint.path)
        else:
            connecting = loop.create_connection(
                lambda: self._wire,
                endpoint.host,
                endpoint.port,
                ssl=context,
                server_hostname=(name or endpoint.host) if context else None,
            )
        try:
            await connecting
        except ssl.SSLCertVerificationError as error:
            text = f"the server's certificate is not trusted: {error.verify_message or error}"
            raise Unreachable(text, node=self.node) from error
        except ssl.SSLError as error:
            text = f"no TLS connection: {error.reason or error} (does the server speak TLS on this port?)"
            raise Unreachable(text, node=self.node) from error
        except OSError as error:
            # the number says it in the fewest words; asyncio's own text repeats the address
            why = error.strerror or str(error) or type(error).__name__
            if error.errno and not isinstance(error, (socket.gaierror, ssl.SSLError)):
                why = os.strerror(error.errno)
            raise Unreachable(f"no connection: {why}", node=self.node) from error


def server_error(
    reply: ReplyError, *, node: str | None = None, key: bytes | None = None, command: str | None = None
) -> Error:
    """The error that an error reply means."""
    text = str(reply)
    kind: type[Error]
    if text.startswith("NOPERM"):
        kind, what = PermissionDenied, f"the user may not do this: {text}"
    elif text.startswith(("NOAUTH", "WRONGPASS")):
        kind, what = AuthenticationFailed, f"the server asks for a user and password: {text}"
    elif text.startswith("LOADING"):
        kind, what = ServerLoading, f"the server is still loading its data, try again later: {text}"
    else:
        kind, what = ServerFailure, f"the server answered: {text}"
    return kind(what, node=node, key=key, command=command)


def _login_error(reply: ReplyError, node: str, password: str | None) -> Error:
    text = str(reply)
    if password:  # some servers quote the words of a command they do not know
        text = text.replace(password, "***")
    if text.startswith("DENIED"):
        return Unreachable(f"the server refuses this address: {text}", node=node)
    if text.startswith(("NOAUTH", "WRONGPASS", "ERR AUTH", "ERR invalid password", "ERR Client sent AUTH")):
        what = (
            "the server does not accept this user and password"
            if password is not None
            else "the server asks for a password"
        )
        return AuthenticationFailed(f"{what}: {text}", node=node)
    return server_error(ReplyError(text), node=node)


def _settings(db: int) -> Burst:
    """What every connection is set to. SELECT fails loudly; the others are a courtesy where known."""
    return (
        command(b"SELECT", db)
        + command(b"CLIENT", b"NO-TOUCH", b"ON")
        + command(b"CLIENT", b"SETINFO", b"LIB-NAME", CLIENT_NAME)
        + command(b"CLIENT", b"SETINFO", b"LIB-VER", __version__.encode())
    )


def _as_hello(reply: Any, node: str) -> dict[str, Any]:
    if not isinstance(reply, dict):
        raise ProtocolViolation("this is not a Redis or Valkey server: HELLO answered no map", node=node)
    return {_text(name): _text(value) for name, value in reply.items()}


def _for_the_others(error: Exception | None) -> Any:
    """A reply too big is the affair of its own burst alone."""
    return Dropped() if isinstance(error, ReplyTooBig) else error


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _name(words: tuple[bytes | int, ...]) -> str:
    return str(_text(words[0]))


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # counts as looked at: who gave up waiting need not be told again by the loop
