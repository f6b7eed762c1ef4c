"""`oneatatime import`: what an export wrote, into a server, a service or a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ._source import Command, Source, several, talk_options, target_options

if TYPE_CHECKING:
    from .. import Import, Loaded

_TICK_SECONDS = 0.2
_WAIT_SECONDS = 0.1  # for more of a pipe, before looking whether it is still wanted
_STDIN = "-"


@click.command("import", cls=Command)
@click.argument("path", metavar="SOURCE")
@target_options
@click.option(
    "--format", "format_", metavar="NAME", help="The format, where the file's ending does not say it."
)
@click.option(
    "--on-conflict",
    type=click.Choice(("replace", "skip", "fail")),
    default="replace",
    show_default=True,
    help="What to do with keys that exist.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; count what would be written.")
@click.option("--match", "--pattern", "match", metavar="GLOB", help="Only keys that match, as in SCAN.")
@click.option("--prefix", metavar="TEXT", help="Only keys that begin with it.")
@click.option(
    "--type",
    "types",
    metavar="TYPE",
    multiple=True,
    callback=several,
    help="Only keys of this type. Repeat it, or separate by commas.",
)
@click.option("--db", "from_db", type=click.IntRange(0), metavar="N", help="Only records of this database.")
@click.option("--checkpoint", metavar="FILE", help="Keep in FILE what is done, and go on from there.")
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    default=60.0,
    show_default="60",
    help="How long to wait for a server that is gone.",
)
@talk_options
def load(
    path: str,
    source: Source,
    match: str | None,
    prefix: str | None,
    format_: str | None,
    patience: float,
    progress: bool | None,
    quiet: bool,
    **given: Any,
) -> None:
    """Write the records of SOURCE, a file, a folder of files, an s3:// URL, or - for stdin, into a server.

    When a key expires is kept; one whose time is over is not written. Records of a database go into the one
    of the same number, all others into the one of -n or the URL.

    Exit codes: 0 complete, 1 not complete, 2 usage, 130 interrupted.
    """
    with _Signals() as signals:
        from .. import Import, Options

        how = {
            "format": format_,
            "on_conflict": given["on_conflict"],
            "dry_run": given["dry_run"],
            "match": None if match is None else os.fsencode(match),
            "types": given["types"] or None,
            "prefix": None if prefix is None else os.fsencode(prefix),
            "db": given["from_db"],
            "checkpoint": given["checkpoint"],
            "options": Options(patience=patience),
        }
        where = _stdin(signals) if path == _STDIN else path
        loading = Import(where, source.endpoint(quiet=quiet), **how)
        _Run(loading, how, signals, progress=progress, quiet=quiet).run()


class _Signals:
    """SIGINT and SIGTERM, from the beginning of a command to its last words.

    Before there is a task to cancel they end it by click's Exit. `number` is the one that came.
    """

    def __init__(self) -> None:
        self.number = 0
        self._cancel: Any = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():  # only it may take signals, and gets them
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt and self.number:
            click.echo("oneatatime: interrupted", err=True)
            raise click.exceptions.Exit(128 + self.number) from None

    @contextlib.contextmanager
    def cancelling(self) -> Iterator[None]:
        """Meanwhile a signal cancels this task; afterwards, what is done is done."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)

        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = _nothing

    def _came(self, number: int, _: FrameType | None) -> None:
        self.number = number
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()


def _nothing() -> None:
    """It is over: the last words are being said."""


def _stdin(signals: _Signals) -> Any:
    """Standard input as a file that a signal ends, where it could make us wait."""
    plain = sys.stdin.buffer
    try:
        kept = stat.S_ISREG(os.fstat(plain.fileno()).st_mode)
    except OSError:  # it is none of the system's
        return plain
    return plain if kept or os.name != "posix" else io.BufferedReader(_Pipe(plain.fileno(), signals))


class _Pipe(io.RawIOBase):
    """A pipe that is at its end when a signal came: a thread that waits in a read could not be stopped."""

    def __init__(self, number: int, signals: _Signals) -> None:
        self._number = number
        self._signals = signals

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._signals.number:
            if select.select([self._number], [], [], _WAIT_SECONDS)[0]:
                return os.readv(self._number, [buffer])
        return 0


class _Run:
    """An import with its signals, its progress and its last words."""

    def __init__(
        self,
        loading: Import,
        how: dict[str, Any],
        signals: _Signals,
        *,
        progress: bool | None,
        quiet: bool,
    ) -> None:
        from ._progress import Progress

        if progress is None:
            progress = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._loading = loading
        self._dry = bool(how["dry_run"])
        self._checkpoint = how["checkpoint"]
        self._quiet = quiet
        self._progress = Progress(shown=progress)
        self._timer: asyncio.TimerHandle | None = None
        self._signals = signals

    def run(self) -> None:
        """Imports; where that ends early, an error or click's Exit says so."""
        from .. import Error
        from ._report import COMPLETE, NOT_COMPLETE, counted

        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            if not self._signals.number:
                raise
            self._progress.wipe()
            done = counted(self._loading.so_far().written)
            more = f"; the same command goes on from {self._checkpoint}" if self._checkpoint else ""
            click.echo(f"oneatatime: interrupted after {done}{more}", err=True)
            raise click.exceptions.Exit(128 + self._signals.number) from None
        except Error:
            self._progress.wipe()
            if self._loading.so_far().seconds:
                self._say(summary(self._loading.so_far(), NOT_COMPLETE, dry=self._dry))
            raise
        except BaseException:
            self._progress.wipe()
            raise
        self._progress.wipe()
        loaded = self._loading.so_far()
        self._say(summary(loaded, COMPLETE, dry=self._dry))
        if loaded.before:
            self._say(f"checkpoint: went on from {self._checkpoint}, after {loaded.before:,} records")

    async def _run(self) -> None:
        with self._signals.cancelling():
            self._tick(asyncio.get_running_loop())
            try:
                await self._loading.run()
            finally:
                if self._timer is not None:
                    self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        from ._progress import rate
        from ._report import counted

        self._timer = loop.call_later(_TICK_SECONDS, self._tick, loop)
        so_far = self._loading.so_far()
        text = counted(so_far.written)
        if so_far.seconds > _TICK_SECONDS:
            text += f"  {rate(so_far.written + so_far.skipped, so_far.seconds)}"
        self._progress.say(text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(text, err=True)


def summary(loaded: Loaded, ending: str, *, dry: bool) -> str:
    """`1,234 keys written in 1.3 s (950 keys/s), 20 replaced, 3 expired, complete`."""
    from ._progress import rate, seconds, shortest_rate
    from ._report import counted

    text = (
        f"{counted(loaded.written)} {'would be written' if dry else 'written'} in {seconds(loaded.seconds)}"
    )
    if loaded.seconds >= shortest_rate:
        text += f" ({rate(loaded.written, loaded.seconds).replace('/s', ' keys/s')})"
    for count, what in (
        (loaded.replaced, "replaced"),
        (loaded.skipped, "skipped"),
        (loaded.expired, "expired"),
        (loaded.left_out, "left out"),
        (loaded.torn, "torn"),
    ):
        if count:
            text += f", {count:,} {what}"
    return f"{text}, {ending}"
