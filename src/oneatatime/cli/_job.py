"""One run over a stream: its signals, its progress, its checkpoint, its last words, its exit code.

Signals are taken with `signal.signal`, not with the event loop's own handlers, for one case: a reader of
our output that does not read. Then the loop stands still in a write and would never run a handler; here
the write itself is interrupted. In every other place the task is cancelled, so that the stream closes
its connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import click

from .. import Error, InvalidInput
from ._checkpoint_file import CheckpointFile, Count
from ._output import BROKEN_PIPE, Output
from ._progress import Progress
from ._report import BUT_FOR, COMPLETE, NOT_COMPLETE, Failures, counted, details, is_whole, summary

if TYPE_CHECKING:
    from .. import Statistics

LEFT_OUT = 3  # the exit code of a run that came to its end, but not with everything

_TICK_SECONDS = 0.2
_SAVE_SECONDS = 1.0


class Reads(Protocol):
    """What reads: a stream, or several processes with one each."""

    def statistics(self) -> Statistics:
        """What has been done so far."""

    def checkpoint(self) -> dict[str, Any]:
        """What is needed to go on."""

    async def aclose(self) -> None:
        """Ends it."""


class _Interrupted(Exception):
    """A signal came while a write was waiting."""


R = TypeVar("R", bound=Reads)


class Job(Generic[R]):
    """`work` over `stream`, with everything around it that belongs to a command line.

    `work` counts the keys it has done in `done`, and values that it could not have in `failures`. `file` is
    kept up to date: it counts as done only what has been written. `everything`: no key is left out by choice.
    `count` tells how many keys are done, where `work` does not; `words` what else there is to say at the end,
    told how the run ended, and `next_run` what another run would do.
    """

    def __init__(
        self,
        stream: R,
        *,
        progress: bool | None,
        quiet: bool,
        limit: int | None = None,
        file: CheckpointFile | None = None,
        everything: bool = False,
        unique: bool = False,
    ) -> None:
        self.stream = stream
        self.output = Output()
        self.done = 0
        self.count: Callable[[], int] | None = None
        self.words: Callable[[], Iterable[str]] | None = None
        self.next_run: str | None = None
        self.failures = Failures()
        self._limit = limit
        self._quiet = quiet
        self._file = file
        self._everything = everything
        self._unique = unique
        goes_on = file is not None and file.checkpoint is not None
        if file is not None:
            self.output.go_on(file.place)
            self.output.before_first = functools.partial(self._save, before_first=True)
            self.failures.forbidden_before = file.counted.forbidden
            self.failures.failed_before = file.counted.failed
        if progress is None:
            progress = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self.progress = Progress(shown=progress, limit=limit, goes_on=goes_on)
        self.output.before_terminal = self.progress.wipe
        self._goes_on = goes_on
        self._begun_at = _done(stream.checkpoint()) if file is not None else None
        self._reached: list[Any] | None = None  # what the file says is done
        self._saved = time.monotonic()
        self._row_error: Exception | None = None
        self._signal = 0
        self._failure: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def run(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Run `work` to its end; where it comes to another, click's Exit says so: 3, 130, 141 or 143."""
        try:
            asyncio.run(self._run(work))
        except BrokenPipeError:
            self.output.abandon()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except (_Interrupted, asyncio.CancelledError):
            if not self._signal:
                raise
            self.output.abandon()
            self._count()
            self._say(f"oneatatime: interrupted after {self._how_far()}{self._next_run()}")
            raise click.exceptions.Exit(128 + self._signal) from None
        except OSError as error:  # those of connections are translated: this one is the output's
            self.output.abandon()
            self._say(f"oneatatime: the output cannot be written: {error.strerror}")
            raise click.exceptions.Exit(1) from None
        except InvalidInput as error:
            self.progress.wipe()
            if not self._goes_on or self._file is None:
                raise
            raise Error(f"cannot go on from {self._file.path}: {error.message}", node=error.node) from error
        except Error:
            self.progress.wipe()
            if self.stream.statistics().nodes:  # it had begun
                self._report(NOT_COMPLETE)
            raise
        except BaseException:
            self.progress.wipe()
            raise
        self._count()
        self._report(self._ending())
        if not is_whole(self.stream.statistics(), self.failures):
            raise click.exceptions.Exit(LEFT_OUT)

    def row_failed(self, error: Error) -> None:
        """A value could not be had; the loop may go on. Raises `error` where the stream has ended by it.

        A stream that has ended by an error gives the same one each time it is asked again.
        """
        if error is self._row_error:
            self.failures.take_back()
            raise error
        self._row_error = error
        self.failures.add(error)

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        with self._signals(loop, task):
            self._tick(loop, task)
            try:
                await work()
                self.output.flush()
                self._save()
            except asyncio.CancelledError:
                if self._failure is not None:
                    raise self._failure from None
                self._save()
                raise
            except Error:
                self._save()
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
            if time.monotonic() > self._saved + _SAVE_SECONDS:
                self._save()
        except (OSError, _Interrupted, Error) as failure:  # it would reach the loop here, not the work
            self._failure = failure
            task.cancel()
        self._count()
        self.progress.draw(self.stream.statistics(), self.done)

    def _count(self) -> None:
        if self.count is not None:
            self.done = self.count()

    # The checkpoint

    def _save(self, *, before_first: bool = False) -> None:
        """Write what comes before the checkpoint, then the checkpoint.

        Not before the stream has made sure that this is the deployment that an older one is of. Once
        `before_first`, when nothing waits that is done: the file says then from where on the output is ours.
        """
        statistics = self.stream.statistics()
        if self._file is None or not statistics.nodes:
            return
        checkpoint = self.stream.checkpoint()
        place = self.output.place() if before_first else self.output.sync()
        count = Count(0 if before_first else self.done, statistics.forbidden, self.failures.count)
        self._file.save(checkpoint, count, place, complete=statistics.finished and not statistics.skipped)
        self._reached = _done(checkpoint)
        self._saved = time.monotonic()

    def _next_run(self) -> str:
        """What another run would do, where anything is kept for it."""
        if self._file is None:
            return f"; {self.next_run}" if self.next_run is not None else ""
        if self._reached is None and not self._goes_on:
            return "; nothing is kept: another run begins anew"
        return f"; the same command goes on from {self._file.path}"

    def _of_the_checkpoint(self, statistics: Statistics) -> Iterator[str]:
        file = self._file
        if file is None:
            return
        if self._goes_on and not (file.complete and self.done == 0):
            yield f"checkpoint: went on from {file.path}, after {counted(file.counted.keys)}"
        if statistics.finished and not statistics.skipped:
            if file.complete and self.done == 0:
                text = f"{counted(file.counted.keys)} were written by the runs before"
                yield f"checkpoint: nothing was left to do: {text}. To start anew, delete {file.path}"
        elif self._reached == self._begun_at:
            yield (
                f"checkpoint: nothing more than before is done with: the next run begins where this one "
                f"did{'; take a higher --limit' if self._limit is not None else ''}"
            )
        else:
            yield f"checkpoint: the same command goes on from {file.path}"

    # Last words

    def _report(self, ending: str) -> None:
        self._count()
        if self._quiet:
            return
        statistics, failures = self.stream.statistics(), self.failures
        self._say(summary(statistics, self.done, ending, failures.count))
        everything = self._everything and not self._stopped
        for line in details(statistics, failures, everything=everything, unique=self._unique):
            self._say(line)
        for line in (*self._of_the_checkpoint(statistics), *(self.words() if self.words is not None else ())):
            self._say(line)

    def _how_far(self) -> str:
        return f"{counted(self.done)} ({self.stream.statistics().fraction:.0%})"

    @property
    def _stopped(self) -> bool:
        return self._limit is not None and self.done >= self._limit

    def _ending(self) -> str:
        if self._stopped:
            return f"stopped at --limit {self._limit:,}"
        statistics = self.stream.statistics()
        if not statistics.finished:
            return NOT_COMPLETE
        return COMPLETE if is_whole(statistics, self.failures) else BUT_FOR

    def _say(self, text: str) -> None:
        self.progress.wipe()
        click.echo(text, err=True)


def _done(checkpoint: dict[str, Any]) -> list[Any]:
    """What a checkpoint counts as done: to be compared, nothing else."""
    found = []
    for db, one in checkpoint["databases"].items():
        ranges = [pair for pair in one.get("ranges", ()) if pair[0] != pair[1]]
        if one.get("done") or one.get("slots") or ranges:
            found.append((db, one.get("done"), one.get("slots"), ranges))
    return found
