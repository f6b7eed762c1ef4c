"""`oneatatime items`: every key with its value, as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from ._source import (
    Care,
    Chosen,
    Command,
    Source,
    care_options,
    choice_options,
    several,
    source_options,
    talk_options,
)

if TYPE_CHECKING:
    from .. import Record, Stream
    from ._job import Job


@click.command(cls=Command)
@source_options
@choice_options
@click.option(
    "--with",
    "metadata",
    metavar="WHAT",
    multiple=True,
    callback=several,
    help="Show this too: ttl (ms), memory (bytes), idle (s), freq, encoding. "
    "Repeat it, or separate by commas.",
)
@care_options
@talk_options
def items(
    source: Source,
    chosen: Chosen,
    care: Care,
    metadata: tuple[str, ...],
    progress: bool | None,
    quiet: bool,
) -> None:
    """Print every key with its value, as JSON lines.

    A line is {"key":..., "type":..., "value":...}. Where something is not UTF-8, all strings of the line
    are base64 and it says "enc":"base64". A value too big to hold takes several lines, "part":0 and so on.

    Exit codes: 0 complete, 1 not complete, 2 usage, 3 finished but something was forbidden, failed or
    skipped, 130 interrupted.
    """
    import oneatatime

    from ..formats.jsonl import line
    from ._run import begun

    if "details" in metadata:
        raise click.UsageError("--with details: the lines of `oneatatime export` have them")
    job = begun(source, chosen, care, {"command": "items", "with": list(metadata)}, progress, quiet)
    shown = ("db", *metadata) if source.all_dbs else metadata

    async def write_items() -> None:
        write = job.output.write_json
        batches = job.stream.batches()
        while True:
            try:
                async for batch in batches:
                    for record in batch:
                        if isinstance(record.value, oneatatime.Parts):
                            await _write_big(record, shown, care.patience, job)
                        else:
                            write(line(record, shown))
                            job.done += 1
                        if job.done == chosen.limit:
                            return
                return
            except (oneatatime.PermissionDenied, oneatatime.Undecodable) as error:
                job.row_failed(error)

    job.run(write_items)


async def _write_big(record: Record, shown: Sequence[str], patience: float, job: Job[Stream]) -> None:
    """The lines of a value too big to hold; or it is counted among the failures."""
    from .. import Error
    from ..formats.jsonl import part_lines

    written = False
    try:
        async with aclosing(part_lines(record, shown, patience=patience)) as lines:
            async for text in lines:
                job.output.write_json(text)
                written = True
    except Error as error:
        job.failures.add(error)
    else:
        job.done += written  # what is gone has no lines
