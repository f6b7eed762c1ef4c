"""`oneatatime export`: everything, or what is chosen, into a file or a folder of parts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ._source import (
    Care,
    Chosen,
    Command,
    Size,
    Source,
    care_options_but_checkpoint,
    choice_options,
    source_options,
    talk_options,
)

if TYPE_CHECKING:
    from .. import Export, Exported
    from ._job import Job, Reads

_STDOUT = "-"
_TEXT = ("jsonl", "csv", "tsv")


@click.command(cls=Command)
@source_options
@click.argument("target", required=False)
@click.option(
    "--format",
    "format_",
    metavar="NAME",
    help="jsonl, parquet, arrow, dump, csv or tsv, some with .gz or .zst.  [default: TARGET's ending]",
)
@click.option("--flatten", is_flag=True, help="A row for each element: Parquet and Arrow.")
@click.option(
    "--columns",
    metavar="FIELD:TYPE,...",
    help="Hashes as a table: a column for each of these fields. infer: find out from a sample.",
)
@click.option("--encoding", metavar="NAME", help="Parquet and Arrow: text in place of bytes, such as utf-8.")
@click.option(
    "--on-unfit",
    type=click.Choice(("error", "skip", "null")),
    help="What to do about what the format has no place for.",
)
@click.option(
    "--part-size", type=Size(), metavar="SIZE", help="Size of a part of a folder.  [default: 256MiB]"
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    help="So many processes write the parts of a folder.  [default: 1]",
)
@click.option("--verify", is_flag=True, help="Compare the folder TARGET with its manifest; read no server.")
@choice_options
@care_options_but_checkpoint
@talk_options
def export(
    source: Source,
    target: str | None,
    verify: bool,
    chosen: Chosen,
    care: Care,
    progress: bool | None,
    quiet: bool,
    **form: Any,
) -> None:
    """Write every key with its value to TARGET: a file, a folder ("export/"), an s3:// URL, or - for stdout.

    A folder gets parts and a manifest: after a crash, the same command goes on. A single file has its name
    only when it is whole.

    Exit codes: 0 complete, 1 not complete, 2 usage, 3 finished but something was forbidden, failed or left
    out, 130 interrupted.
    """
    if target is None:
        target, source = source.url_argument, replace(source, url_argument=None)
    if target is None:
        raise click.UsageError("TARGET is missing: a file, a folder, or - for stdout")
    if verify:
        _verify(target, quiet)
        return
    _Run(source, target, chosen, care, form).run(progress, quiet)


class _Run:
    """One run of it."""

    def __init__(self, source: Source, target: str, chosen: Chosen, care: Care, form: dict[str, Any]) -> None:
        self._source = source
        self._target = target
        self._chosen = chosen
        self._care = care
        self._form = form
        self._stdout = _Stdout() if target == _STDOUT else None
        self._done: Exported | None = None

    def run(self, progress: bool | None, quiet: bool) -> None:
        from ._job import Job

        ready = asyncio.run(self._opened(quiet))
        reads: Reads | None = ready.jobs or ready.stream
        assert reads is not None, "a deployment is read by streams"
        job = Job(
            reads,
            progress=progress,
            quiet=quiet,
            limit=self._chosen.limit,
            everything=self._chosen.match is None and not self._chosen.types,
            unique=self._care.unique is not None,
        )
        job.count = lambda: self._count(reads)
        job.words = lambda: self._words(ready)
        job.next_run = self._next_run(ready)
        if self._stdout is not None:
            self._stdout.begin(job, ready.format.name)
        job.run(lambda: self._work(ready, job))

    async def _opened(self, quiet: bool) -> Export:
        import oneatatime

        from ._run import PAGES_IN_A_LIMIT

        form = self._form
        if form["jobs"] > 1 and self._chosen.limit is not None:
            raise click.UsageError("--limit is of one process: leave out --jobs")
        arguments = {
            **self._chosen.arguments(),
            **self._care.arguments(),
            "encoding": form["encoding"],
            "db": "all" if self._source.all_dbs else None,
        }
        if self._chosen.limit is not None:  # a folder counts whole pages as done
            arguments["count"] = min(arguments["count"], max(1, self._chosen.limit // PAGES_IN_A_LIMIT))
        return await oneatatime.Export.opened(
            self._source.endpoint(quiet=quiet),
            self._target if self._stdout is None else self._stdout,
            format=form["format_"] or ("jsonl" if self._stdout is not None else None),
            flatten=form["flatten"],
            columns=_columns(form["columns"]),
            unfit=form["on_unfit"],
            part_bytes=int(form["part_size"]) if form["part_size"] else None,
            jobs=form["jobs"],
            **arguments,
        )

    def _count(self, reads: Reads) -> int:
        keys = reads.statistics().keys
        return keys if self._chosen.limit is None else min(keys, self._chosen.limit)

    async def _work(self, ready: Export, job: Job[Reads]) -> None:
        from .. import Error, InvalidInput

        try:
            self._done = await ready.run(self._chosen.limit)
        except InvalidInput as error:  # it has begun: this is about data, not about the command
            raise Error(error.message, node=error.node, key=error.key) from error
        if self._form["on_unfit"] == "skip":
            forbidden = self._done.unfit.get("forbidden", 0)  # which the statistics tell by themselves
            job.failures.count += sum(self._done.unfit.values()) - forbidden
        if ready.went_on:
            job.failures.forbidden_before = self._done.unfit.get("forbidden", 0)

    def _words(self, ready: Export) -> Iterator[str]:
        done, manifest = self._done, ready.manifest
        if done is None:
            if manifest is not None:
                yield f"{ready.where}: the same command goes on after {manifest.total[0]:,} keys"
            return
        unfit = ", ".join(f"{count:,} {reason}" for reason, count in done.unfit.items())
        if unfit:
            yield f"without a place in {ready.format.name}: {unfit}"
        if manifest is not None:
            text = f"{done.files:,} parts, {done.records:,} keys, {done.bytes:,} bytes"
            yield f"{ready.where}: {text}{', with the runs before' if ready.went_on else ''}"
        elif self._stdout is None:
            yield f"{ready.where}: {done.bytes:,} bytes"

    def _next_run(self, ready: Export) -> str | None:
        if ready.manifest is not None:
            return f"the same command goes on in {ready.where}"
        return None if self._stdout is not None else f"{ready.where} is as it was: another run begins anew"


class _Stdout:
    """Standard output as a file: in big blocks, and harmless on a terminal."""

    def __init__(self) -> None:
        self._job: Job[Reads] | None = None
        self._text = False

    def begin(self, job: Job[Reads], format: str) -> None:  # noqa: A002 - the word for it
        """Lets it be written. Raises click.UsageError for what would spoil a terminal."""
        if job.output.terminal and format not in _TEXT:
            raise click.UsageError(f"{format} is no text for a terminal: write it to a file, or to a pipe")
        self._job = job
        self._text = format == "jsonl"

    def write(self, data: bytes) -> int:
        assert self._job is not None, "nothing is written before it begins"
        if self._text and self._job.output.terminal:
            self._job.output.write_json(data.decode())
        else:
            self._job.output.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Blocks are let out by the job."""


def _columns(given: str | None) -> dict[str, str] | str | None:
    if given is None or given == "infer":
        return given
    columns = {}
    for word in given.split(","):
        name, colon, kind = word.strip().rpartition(":")
        if not colon or not name or not kind:
            raise click.UsageError(f"--columns {word.strip()!r}: write FIELD:TYPE, such as age:int64")
        columns[name] = kind
    return columns


def _verify(target: str, quiet: bool) -> None:
    import oneatatime

    found = oneatatime.verify(target)
    for problem in found.problems:
        click.echo(problem, err=True)
    if found.problems:
        raise click.exceptions.Exit(1)
    if not quiet:
        text = f"{found.parts:,} parts, {found.records:,} keys, {found.bytes:,} bytes"
        click.echo(f"{found.where}: {text}, as its manifest says", err=True)
