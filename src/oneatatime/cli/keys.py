"""`oneatatime keys`: the names of the keys, one a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ._source import (
    Care,
    Chosen,
    Command,
    Source,
    care_options,
    choice_options,
    source_options,
    talk_options,
)

if TYPE_CHECKING:
    from .. import Stream
    from ._job import Job


@click.command(cls=Command)
@source_options
@choice_options
@click.option("--json", "as_json", is_flag=True, help='Write each key as a line of JSON: {"key":"..."}.')
@care_options
@talk_options
def keys(
    source: Source, chosen: Chosen, care: Care, as_json: bool, progress: bool | None, quiet: bool
) -> None:
    """Print the keys of a database, one a line.

    Keys are written as they are, byte for byte, as redis-cli --scan does; on a terminal a key that
    cannot be printed is quoted. Only with --json can a key with a newline in it be told from two keys.

    Exit codes: 0 complete, 1 not complete, 2 usage, 3 finished but something was forbidden, failed or
    skipped, 130 interrupted.
    """
    import oneatatime

    from ._run import begun

    job = begun(source, chosen, care, {"command": "keys", "json": as_json}, progress, quiet)
    write = _writer(job, as_json)

    async def write_keys() -> None:
        names = job.stream.keys()
        while True:
            try:
                async for key in names:
                    write(key)
                    job.done += 1
                    if job.done == chosen.limit:
                        return
                return
            except (oneatatime.PermissionDenied, oneatatime.Undecodable) as error:
                job.row_failed(error)

    job.run(write_keys)


def _writer(job: Job[Stream], as_json: bool) -> Callable[[bytes], None]:
    output = job.output
    if as_json:
        from ..formats.jsonl import key_line

        return lambda key: output.write_json(key_line(key))
    if output.terminal:
        from ._output import readable

        return lambda key: output.write(readable(key) + b"\n")
    return lambda key: output.write(key + b"\n")
