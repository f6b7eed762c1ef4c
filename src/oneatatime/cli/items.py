"""`oneatatime items`: every key with its value, as JSON lines."""

from __future__ import annotations

from contextlib import aclosing

import click

from ._source import Chosen, Source, choice_options, several, source_options, talk_options


@click.command()
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
@talk_options
def items(
    source: Source, chosen: Chosen, metadata: tuple[str, ...], progress: bool | None, quiet: bool
) -> None:
    """Print every key with its value, as JSON lines.

    A line is {"key":..., "type":..., "value":...}. Where something is not UTF-8, all strings of the line
    are base64 and it says "enc":"base64". A value too big to hold takes several lines, "part":0 and so on.
    """
    import oneatatime

    from ..sinks.jsonl import line, part_lines
    from ._job import Job

    stream = oneatatime.stream(source.endpoint(quiet=quiet), metadata=metadata, **chosen.arguments())

    job = Job(stream, progress=progress, quiet=quiet, limit=chosen.limit)

    async def write_items() -> None:
        write = job.output.write_json
        async for batch in stream.batches():
            for record in batch:
                if isinstance(record.value, oneatatime.Parts):
                    async with aclosing(part_lines(record, metadata)) as lines:
                        async for text in lines:
                            write(text)
                else:
                    write(line(record, metadata))
                job.done += 1
                if job.done == chosen.limit:
                    return

    job.run(write_items)
