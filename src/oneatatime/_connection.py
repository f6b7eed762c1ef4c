"""Endpoint -> Connection: connected, logged in, database selected. The only sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable
from typing import Any

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
    ServerUnready,
    Unreachable,
)
from ._options import Options
from ._request import Answer, Burst, ReplyError, command
from ._resp import ARRAY
from ._version import __version__
from ._wire import Traffic, Wire

CLIENT_NAME = b"oneatatime"


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

    def __init__(self, wire: Wire, endpoint: Endpoint) -> None:
        self.node = endpoint.node
        self.hello: dict[str, Any] = {}
        self.touches = False
        self._secret: str | None = None
        self._wire = wire

    @classmethod
    async def open(cls, endpoint: Endpoint, options: Options, traffic: Traffic | None = None) -> Connection:
        """A connection ready for its first command.

        Raises Unreachable, AccessDenied, ProtocolViolation or ServerFailure.
        """
        wire = Wire(endpoint.node, options, traffic or Traffic())
        connection = cls(wire, endpoint)
        deadline = _Deadline(options.connect_timeout)
        try:
            await wire.end_with_loop()
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
        self._secret = password
        settings = _settings(endpoint.db)
        if endpoint.protocol != 2:
            login = () if password is None else (b"AUTH", (user or "default").encode(), password.encode())
            hello = command(b"HELLO", 3, *login, b"SETNAME", CLIENT_NAME)
            greeting, *settled = await self._handshake(hello + settings)
            if not isinstance(greeting, ReplyError):
                self.hello = _as_hello(greeting, self.node)
                self._check(settled, endpoint)
                await self._spare_the_server()
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
        first, *settled, told = await self._handshake(named + _settings(endpoint.db) + command(b"HELLO"))
        if isinstance(first, ReplyError) and not str(first).startswith(("ERR", "NOPERM")):
            raise _login_error(first, self.node, password)
        self._check(settled, endpoint)
        if told.__class__ is ARRAY:  # asked without a number, it only tells; who has no RESP3 may not know it
            self.hello = _as_hello(dict(zip(told[::2], told[1::2])), self.node)
        await self._spare_the_server()

    async def _spare_the_server(self) -> None:
        """Takes CLIENT NO-TOUCH back where it could be the end of a node of a cluster."""
        if not self.touches and self.hello.get("mode") == "cluster" and _crashes_by_no_touch(self.hello):
            await self._handshake(command(b"CLIENT", b"NO-TOUCH", b"OFF"))
            self.touches = True

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
                f"no hello: {_masked(error.message, self._secret)} "
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


_UNREADY = ("CLUSTERDOWN", "MASTERDOWN", "BUSY ", "TRYAGAIN", "NOREPLICAS")


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
    elif text.startswith(_UNREADY):
        kind, what = ServerUnready, f"the server cannot answer now: {text}"
    else:
        kind, what = ServerFailure, f"the server answered: {text}"
    return kind(what, node=node, key=key, command=command)


def _login_error(reply: ReplyError, node: str, password: str | None) -> Error:
    text = _masked(str(reply), password)
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


def _masked(text: str, password: str | None) -> str:
    """Some servers quote the words of a command they do not know, and so a password."""
    return text.replace(password, "***") if password else text


def _settings(db: int) -> Burst:
    """What every connection is set to. SELECT fails loudly; the others are a courtesy where known."""
    return (
        command(b"SELECT", db)
        + command(b"CLIENT", b"NO-TOUCH", b"ON")
        + command(b"CLIENT", b"SETINFO", b"LIB-NAME", CLIENT_NAME)
        + command(b"CLIENT", b"SETINFO", b"LIB-VER", __version__.encode())
    )


def _crashes_by_no_touch(hello: dict[str, Any]) -> bool:
    """Whether reading a key of a slot that is being moved may end a node over such a connection.

    Redis 8.2.3 does (a segmentation fault), by what came with 8.0 and was mended for 8.4 (redis#14415); the
    same was mended in Valkey 8.1 (valkey#2347), of which 8.1.8 was tried.
    """
    numbers = str(hello.get("version", "")).split(".")
    if not all(number.isdigit() for number in numbers):
        return True
    version = tuple(map(int, numbers))
    if hello.get("server") == "valkey":
        return (8,) <= version < (8, 1, 4)
    return (8,) <= version < (8, 4)


def _as_hello(reply: Any, node: str) -> dict[str, Any]:
    if not isinstance(reply, dict):
        raise ProtocolViolation("this is not a Redis or Valkey server: HELLO answered no map", node=node)
    return {_text(name): _text(value) for name, value in reply.items()}


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _name(words: tuple[bytes | int, ...]) -> str:
    return str(_text(words[0]))
