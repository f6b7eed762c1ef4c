"""One run over a stream: its signals, its progress, its last words, its exit code.

Signals are taken with `signal.signal`, not with the event loop's own handlers, for one case: a reader of
our output that does not read. Then the loop stands still in a write and would never run a handler; here
the write itself is interrupted. In every other place the task is cancelled, so that the stream closes
its connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ._output import BROKEN_PIPE, Output
from ._progress import Progress, summary

if TYPE_CHECKING:
    from .. import Stream

_TICK_SECONDS = 0.2


class _Interrupted(Exception):
    """A signal came while a write was waiting."""


class Job:
    """`work` over `stream`, with everything around it that belongs to a command line.

    `work` counts the keys it has done in `done`.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        progress: bool | None,
        quiet: bool,
        limit: int | None = None,
    ) -> None:
        self.stream = stream
        self.output = Output()
        self.done = 0
        self._limit = limit
        self._quiet = quiet
        if progress is None:
            progress = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self.progress = Progress(shown=progress, limit=limit)
        self.output.before_terminal = self.progress.wipe
        self._signal = 0
        self._failure: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def run(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Run `work` to its end; leave through click's Exit with 130, 141 or 143 if it comes to another."""
        try:
            asyncio.run(self._run(work))
        except BrokenPipeError:
            self.output.abandon()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except (_Interrupted, asyncio.CancelledError):
            if not self._signal:
                raise
            self.output.abandon()
            self._say(f"oneatatime: interrupted after {self._reached()}")
            raise click.exceptions.Exit(128 + self._signal) from None
        except OSError as error:  # those of connections are translated: this one is the output's
            self.output.abandon()
            self._say(f"oneatatime: the output cannot be written: {error.strerror}")
            raise click.exceptions.Exit(1) from None
        except BaseException:
            self.progress.wipe()
            raise
        if not self._quiet:
            self._say(summary(self.stream.statistics(), self.done, self._ending()))

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        with self._signals(loop, task):
            self._tick(loop, task)
            try:
                await work()
                self.output.flush()
            except asyncio.CancelledError:
                if self._failure is not None:
                    raise self._failure from None
                raise
            finally:
                if self._timer is not None:
                    self._timer.cancel()
                await self.stream.aclose()

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may take signals, and only it gets them
            return

        def interrupt(number: int, _: FrameType | None) -> None:
            self._signal = number
            if self.output.writing:
                raise _Interrupted
            loop.call_soon_threadsafe(task.cancel)

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _tick(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Five times a second: let out lines that wait for a full block, and draw the bar."""
        self._timer = loop.call_later(_TICK_SECONDS, self._tick, loop, task)
        try:
            self.output.flush()
        except (OSError, _Interrupted) as failure:  # it would reach the loop here, not the work
            self._failure = failure
            task.cancel()
        self.progress.draw(self.stream.statistics(), self.done)

    def _reached(self) -> str:
        statistics = self.stream.statistics()
        return f"{self.done:,} {'key' if self.done == 1 else 'keys'} ({statistics.fraction:.0%})"

    def _ending(self) -> str:
        if self._limit is not None and self.done >= self._limit:
            return f"stopped at --limit {self._limit:,}"
        return "complete" if self.stream.statistics().complete else "not complete"

    def _say(self, text: str) -> None:
        self.progress.wipe()
        click.echo(text, err=True)
