"""`oneatatime keys`: the names of the keys, one a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ._source import Chosen, Source, choice_options, source_options, talk_options

if TYPE_CHECKING:
    from ._job import Job


@click.command()
@source_options
@choice_options
@click.option("--json", "as_json", is_flag=True, help='Write each key as a line of JSON: {"key":"..."}.')
@talk_options
def keys(source: Source, chosen: Chosen, as_json: bool, progress: bool | None, quiet: bool) -> None:
    """Print the keys of a database, one a line.

    Keys are written as they are, byte for byte, as redis-cli --scan does; on a terminal a key that
    cannot be printed is quoted. Only with --json can a key with a newline in it be told from two keys.
    """
    import oneatatime

    from ._job import Job

    stream = oneatatime.stream(source.endpoint(quiet=quiet), **chosen.arguments())
    job = Job(stream, progress=progress, quiet=quiet, limit=chosen.limit)
    write = _writer(job, as_json)

    async def write_keys() -> None:
        async for key in stream.keys():
            write(key)
            job.done += 1
            if job.done == chosen.limit:
                return

    job.run(write_keys)


def _writer(job: Job, as_json: bool) -> Callable[[bytes], None]:
    output = job.output
    if as_json:
        from ..sinks.jsonl import key_line

        return lambda key: output.write_json(key_line(key))
    if output.terminal:
        from ._output import readable

        return lambda key: output.write(readable(key) + b"\n")
    return lambda key: output.write(key + b"\n")
