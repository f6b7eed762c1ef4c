"""The other end of `_child`: what runs in a process of our own, from its first line to its exit.

It is a program, so it has its own event loop, exit code, and a thread: whoever computes for minutes shall
end all the same when the parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import select
import sys
import threading
from collections import deque
from typing import Any, BinaryIO

from ._child import BYTES, END, ERROR, HEADER, frame
from ._errors import portable
from ._options import KiB, MiB

_GRACE = 2.0  # seconds for an orphan to put away what it has open
_LOOK_EVERY = 1.0  # seconds, for a parent that is gone without closing anything
_MOST_PIPE = 1 * MiB  # bytes in the pipe to the parent, where the system lets us choose
_MOST_WRITTEN = 256 * KiB  # bytes that wait for it


class Parent(asyncio.BaseProtocol):
    """Who started this process: says what there is to do, and takes what comes of it."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self.transport: asyncio.WriteTransport | None = None
        self._said: deque[tuple[int, bytes]] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        """What the parent says next. When it closes its end, this process is cancelled.

        Raises whatever unpickling it raises, to be told to the parent as any other error is.
        """
        while not self._said:
            self._news.clear()
            await self._news.wait()
        return _unpickled(*self._said.popleft())

    async def send(self, what: object) -> None:
        """Says something; returns when there is room for more."""
        await self._write(frame(what))

    async def _write(self, data: bytes) -> None:
        assert self.transport is not None, "connected before use"
        self.transport.write(data)
        await self._room.wait()

    def hear(self, kind: int, payload: bytes) -> None:
        """Something was said."""
        self._said.append((kind, payload))
        self._news.set()

    async def close(self) -> None:
        """Says no more; returns when what still waits is written, or nobody reads it any more."""
        assert self.transport is not None, "connected before use"
        self.transport.close()
        await self.gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.set_write_buffer_limits(min(self._ahead, _MOST_WRITTEN))
        self.transport = transport

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._room.set()  # nobody listens any more: stdin says the same, and ends this process
        self.gone.set()


class _Told:
    """What the parent says, as it comes.

    Where it was killed the pipe may stay open, because a process that was forked from it has that too. So its
    own end is looked for: an orphan is given another parent. (None that can be seen, 0, is another thing.)
    """

    def __init__(self, parent: int) -> None:
        self._pipe = os.fdopen(os.dup(0), "rb", 0)
        self._parents = (parent, 0)

    def next(self) -> tuple[int, bytes]:
        """What it said next. Raises EOFError where it has closed its end, or is gone."""
        size, kind = HEADER.unpack(self._exactly(HEADER.size))
        return kind, self._exactly(size)

    def close(self) -> None:
        """Nobody will ask for more."""
        self._pipe.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            while not select.select([self._pipe], [], [], _LOOK_EVERY)[0]:
                if os.getppid() not in self._parents:
                    raise EOFError("the parent is gone")
            part = self._pipe.read(size - len(data))
            if not part:
                raise EOFError("the parent says no more")
            data += part
        return data


def main() -> None:
    """Does the job that comes over stdin."""
    told = _Told(int(sys.argv[1]))
    said = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever is printed must not be taken for a frame
    job = told.next()
    try:
        work, arguments, ahead = _unpickled(*job)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        work, arguments, ahead = _raises, (error,), _MOST_WRITTEN
    _fit(said, ahead)
    with contextlib.suppress(asyncio.CancelledError):  # the parent is gone, or wants no more
        asyncio.run(_do(told, said, ahead, work, arguments))


async def _raises(_: Parent, error: Exception) -> None:
    raise error


def _fit(pipe: BinaryIO, size: int) -> None:
    """The pipe holds about so much: the one does not wait for the other, and not too much lies there."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # a user may have only so many: it works as it is
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, min(size, _MOST_PIPE))


async def _do(told: _Told, said: BinaryIO, ahead: int, work: Any, arguments: Any) -> None:
    loop, parent = asyncio.get_running_loop(), Parent(ahead)
    await loop.connect_write_pipe(lambda: parent, said)
    task = asyncio.current_task()
    assert task is not None, "it runs in one"
    worked, over = threading.Event(), threading.Event()

    def listen() -> None:
        try:
            while True:
                loop.call_soon_threadsafe(parent.hear, *told.next())
        except (EOFError, RuntimeError):  # the parent is gone, or wants no more; or the loop is closed
            pass
        finally:  # nobody listens any more, whatever it was: this process must end
            told.close()
            if not worked.is_set():
                loop.call_soon_threadsafe(task.cancel)
            if not over.wait(_GRACE):
                os._exit(1)

    threading.Thread(target=listen, name="oneatatime", daemon=True).start()
    try:
        await _worked(parent, work, arguments)
    finally:
        worked.set()
        try:
            await parent.close()
        finally:
            over.set()


async def _worked(parent: Parent, work: Any, arguments: Any) -> None:
    """Works, and says that this is done, or what came in its way."""
    try:
        await work(parent, *arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        payload = pickle.dumps(portable(error), 5)
        await parent._write(HEADER.pack(len(payload), ERROR) + payload)
    else:
        await parent._write(HEADER.pack(0, END))


def _unpickled(kind: int, payload: bytes) -> Any:
    return payload if kind == BYTES else pickle.loads(payload)
