"""Processes of our own: started, spoken with over pipes, and gone with whoever started them.

A child is a new interpreter that imports this package, whatever `__main__` is here. Its job comes over its
stdin, so nothing secret stands in its arguments or its environment; what it has to say comes over its
stdout, its stderr is ours. It has a session of its own: Ctrl-C is its parent's affair. Where stdin ends,
because its parent closes it or is gone, it ends too, and where the parent is gone while another, forked by
it, holds that pipe: `_in_child` sees to that.

Both sides speak in frames: length, kind, payload. Bytes travel as they are, anything else as a pickle.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import os
import pickle
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import FunctionType, TracebackType
from typing import Any

from ._errors import InvalidInput, ProcessLost
from ._options import MiB

HEADER = struct.Struct("<IB")
OBJECT, BYTES, ERROR, END = range(4)

# Not `-m`: modules are found where they are found here, and not in whatever folder this was started from.
_BOOT = (
    "import sys; sys.path[:] = eval(open(0, 'rb', 0, closefd=False).readline()); "
    "from oneatatime._in_child import main; main()"
)
_GRACE = 5.0  # seconds that a child has to end by itself, once it is asked to
_MAIN = ("__main__", "__mp_main__")
_OF_CLIENTS = ("Deployment", "Endpoint")  # what a client is made into, by name: they are of rooms below
_DEEPEST = 30  # steps into what cannot be pickled
_MOST_WAITED = 30.0  # seconds for the end of one that is killed, on a machine that has much else to do


def frame(what: object) -> bytes:
    """What is said, as it travels. Raises InvalidInput for what cannot."""
    kind, payload = (BYTES, what) if isinstance(what, bytes) else (OBJECT, _pickled(what))
    return HEADER.pack(len(payload), kind) + payload


class _Pickler(pickle.Pickler):
    """Refuses what would be looked for in `__main__`, which is another module in another process."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType) and obj.__module__ in _MAIN:
            text = f"{obj.__qualname__} cannot be sent to another process, for it is of __main__"
            raise InvalidInput(f"{text}: put it into a module that the processes can import")
        return NotImplemented


def _pickled(what: object) -> bytes:
    data = io.BytesIO()
    try:
        _Pickler(data, 5).dump(what)
    except InvalidInput:  # it says itself what to do
        raise
    except Exception as error:
        named, of_client = _named(what)
        instead = "a URL in place of the client" if of_client else "something that can be, in place of it"
        raise InvalidInput(f"{named} cannot be sent to another process: {error}; give {instead}") from error
    return data.getvalue()


def _named(what: object) -> tuple[str, bool]:
    """The innermost of it that cannot be pickled, in words; and whether that came with a client.

    Of what it is only the kind is said: it may be a secret, or hold one.
    """
    way: list[str] = []
    of_client = False
    for _ in range(_DEEPEST):
        of_client |= type(what).__name__ in _OF_CLIENTS
        for name, part in _parts(what):
            if not _travels(part):
                what, way = part, [*way, name] if name else way
                break
        else:
            break
    kind = f"a {type(what).__name__}"
    return (f"{'.'.join(way)}, {kind}," if way else kind), of_client


def _parts(what: object) -> list[tuple[str, object]]:
    """What it is made of, and what that is called there."""
    if isinstance(what, Mapping):
        return [(name if isinstance(name, str) else "", part) for name, part in what.items()]
    if isinstance(what, list | tuple | set | frozenset):
        return [("", part) for part in what]
    return [] if isinstance(what, type | FunctionType) else list(getattr(what, "__dict__", {}).items())


def _travels(what: object) -> bool:
    try:
        _Pickler(io.BytesIO(), 5).dump(what)
    except Exception:  # noqa: BLE001 - that is the question
        return False
    return True


class _Pipes(asyncio.SubprocessProtocol):
    """What comes from a child: frames that wait, bounded; and its end.

    The event loop holds this, and it holds nothing of whoever asks.
    """

    def __init__(self, ahead: int) -> None:
        self.transport: asyncio.SubprocessTransport | None = None
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.frames: deque[tuple[int, bytes]] = deque()
        self.silent = False  # nothing more will come
        self._waiter: asyncio.Future[None] | None = None
        self._buffer = bytearray()
        self._waiting = 0  # bytes in frames
        self._ahead = ahead
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self.transport = transport

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER.size:
            size, kind = HEADER.unpack_from(buffer)
            end = HEADER.size + size
            if len(buffer) < end:
                break
            self.frames.append((kind, bytes(memoryview(buffer)[HEADER.size : end])))
            del buffer[:end]
            self._waiting += end
        if self._waiting > self._ahead and not self._paused:
            self._paused = True
            self._pipe(1).pause_reading()
        self._tell()

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        if fd == 1:
            self.silent = True
            self._tell()

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def _pipe(self, fd: int) -> Any:
        return self.transport.get_pipe_transport(fd) if self.transport is not None else None

    def write(self, data: bytes) -> None:
        """To its stdin; where that is closed, nobody will read it, and its end tells why."""
        if not self._pipe(0).is_closing():
            self._pipe(0).write(data)

    def close_stdin(self) -> None:
        self._pipe(0).close()

    def close(self) -> None:
        """Ends it at once: it has nothing that would have to be put away."""
        for fd in (0, 1):
            self._pipe(fd).close()
        transport = self.transport
        if transport is not None and transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                # not transport.kill(), which may reap it in place of the loop, and makes that complain
                os.kill(transport.get_pid(), signal.SIGKILL)

    async def take(self) -> tuple[int, bytes] | None:
        """The next frame, or None where there will be none."""
        while not self.frames:
            if self.silent:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        kind, payload = self.frames.popleft()
        self._waiting -= HEADER.size + len(payload)
        if self._paused and self._waiting <= self._ahead // 2:
            self._paused = False
            self._pipe(1).resume_reading()
        return kind, payload

    @property
    def has_news(self) -> bool:
        """Whether something waits to be taken, if only its end."""
        return bool(self.frames) or self.silent

    def tells(self, waiter: asyncio.Future[None]) -> None:
        """This is told when there is news."""
        self._waiter = waiter

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Child:
    """A process that does `work(parent, *arguments)`: see `started`."""

    def __init__(self, pipes: _Pipes, what: str) -> None:
        assert pipes.transport is not None, "it is started"
        self.pid = pipes.transport.get_pid()
        self._transport = pipes.transport
        self._pipes = pipes
        self._what = what

    def send(self, what: object) -> None:
        """Says something to it; what it is told must be little, for it waits here until it is read."""
        self._pipes.write(frame(what))

    async def receive(self) -> Any:
        """What it said next, or None when its work is done.

        Raises the error that its work has failed with, as it is; ProcessLost where it ended before its time.
        """
        got = await self._pipes.take()
        if got is None:
            await asyncio.wait([self._pipes.exited])  # awaited by itself, it would be cancelled with us
            raise ProcessLost(f"a process that {self._what} {self._how_it_ended()}")
        kind, payload = got
        if kind == ERROR:
            raise pickle.loads(payload)
        if kind == END:
            return None
        return payload if kind == BYTES else pickle.loads(payload)

    def _how_it_ended(self) -> str:
        code = self._transport.get_returncode()
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed: {signal.Signals(-code).name}"
        return f"ended before its time, with exit code {code}: see what it wrote to stderr"

    @property
    def has_news(self) -> bool:
        """Whether `receive` has something to give, or to raise, at once."""
        return self._pipes.has_news

    def wants_no_more(self) -> None:
        """Tells it so: it puts away what it has in hand, says what came of that, and ends."""
        self._pipes.close_stdin()

    async def finished(self) -> None:
        """Lets it come to its end, in some seconds at most: it is told that nothing more will be said."""
        self._pipes.close_stdin()
        await asyncio.wait([self._pipes.exited], timeout=_GRACE)

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipes.close()
        try:
            await _surely(self._pipes.exited, _MOST_WAITED)
        finally:
            self._transport.close()


async def news(children: Iterable[Child]) -> None:
    """Returns when one of them has said something, or has ended."""
    children = list(children)
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for child in children:
        child._pipes.tells(waiter)
    if not any(child.has_news for child in children):
        await waiter


Work = Callable[..., Awaitable[None]]
"""What a child does: an async function of a module, given its `_in_child.Parent` and arguments."""


async def started(work: Work, *arguments: object, what: str = "works", ahead: int = 1 * MiB) -> Child:
    """A new process that does `work(parent, *arguments)`, to be used by `async with`, which ends it.

    `work` and what it is given are pickled. `what` says in errors what the process does. What it says waits
    here in about `ahead` bytes at most, and one frame; about as much in the pipe, and at its other end.

    Raises InvalidInput where something cannot be sent to another process, and in a frozen program;
    ProcessLost where none can be started.
    """
    if getattr(sys, "frozen", False):  # its executable is no Python, but itself: it would start without end
        text = "a frozen program (PyInstaller and the like) has no Python to start other processes by"
        raise InvalidInput(f"{text}: read by one process, or run the program by a Python interpreter")
    job = frame((work, arguments, ahead))
    if not sys.executable:
        raise ProcessLost("this Python does not know its own program, so no process of it can be started")
    loop = asyncio.get_running_loop()
    starting = loop.create_task(_start(loop, ahead))
    try:
        await _surely(starting)
    except asyncio.CancelledError:
        if not starting.cancelled() and starting.exception() is None:
            async with Child(starting.result(), what):
                raise
        raise
    pipes = starting.result()
    path = [where for where in sys.path if isinstance(where, str)]  # imports heed nothing else
    pipes.write(repr(path).encode() + b"\n" + job)
    return Child(pipes, what)


async def _start(loop: asyncio.AbstractEventLoop, ahead: int) -> _Pipes:
    try:
        _, pipes = await loop.subprocess_exec(
            lambda: _Pipes(ahead),
            *(sys.executable, "-c", _BOOT, str(os.getpid()), "oneatatime"),
            stderr=None,
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessLost(f"no process can be started: {error}") from error
    return pipes


async def _surely(ended: asyncio.Future[Any], within: float = math.inf) -> None:
    """Waits for what takes a moment, even when it is cancelled: who ends the loop shall see no process left.

    It is cancelled afterwards. A start that is broken off in the middle leaves what the loop complains of.
    """
    again, deadline = None, time.monotonic() + within
    while not ended.done() and (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.wait([ended], timeout=None if left == math.inf else left)
        except asyncio.CancelledError as cancelled:
            again = cancelled
    if again is not None:
        raise again
