"""A stream, or any async iterable of records, into files: one, or a folder of parts that can go on.

A folder's parts and its manifest are written so that at any instant the folder holds only whole parts, and
the manifest a checkpoint of what is in those it names: what a kill leaves beside is deleted by the next run.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from ._blocking import aside
from ._errors import InvalidInput
from ._gathered import gathered
from ._in_job import Job, selected_stream
from ._jobs import Jobs, check_jobs
from ._layout import INFER, Layout
from ._manifest import NAME as MANIFEST
from ._manifest import Manifest
from ._options import PART_BYTES
from ._portions import are_portions
from ._sealed import Json
from ._sink import OneFile, OpenFile, Parts, Sink
from ._statistics import Statistics
from ._stream import Stream, batches_of, selection_of, stream
from ._target import Target
from ._transfer import Transfer
from .formats import Format, inference


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    `records` (keys) and `bytes` of all its files, those of the runs before it too; `files`, how many these
    are; `unfit`: what the format had no place for and was left out, or is null, by reason; `complete`:
    everything is there. `seconds` of this run, and what its stream has to say: `statistics`, None where the
    records were not a stream's.
    """

    records: int
    bytes: int
    files: int
    unfit: Mapping[str, int]
    complete: bool
    seconds: float
    statistics: Statistics | None = None


async def export(
    source: object,
    target: str | os.PathLike[str] | BinaryIO,
    *,
    format: str | None = None,  # noqa: A002 - the word for it
    flatten: bool = False,
    columns: Mapping[str, str] | str | None = None,
    unfit: str | None = None,
    part_bytes: int | None = None,
    jobs: int = 1,
    **selected: Any,
) -> Exported:
    """Writes everything in a deployment, or records of any async iterable, to a file or a folder of parts.

    `source`: a URL or client object as for `stream`, whose arguments are taken too (`match`, `types`, `db`,
    `rate`, ...); a `Stream`; or an async iterable of `Record`s or lists of them, such as a generator of your
    own over `stream.records()`. `target`: a path, a URL (`s3://`, `gs://`, `abfs://`, and what fsspec knows),
    or a file open for bytes. One that ends with "/" or is a folder gets parts of about `part_bytes` and a
    manifest: after a crash the same call goes on. A single file has its name only when it is whole.

    `format`: "jsonl", "parquet", "arrow", "dump", "csv" or "tsv", some with ".gz" or ".zst"; if None, the
    target's ending says. `flatten`: a row is an element. `columns`: hashes as a table, {field: Arrow type},
    or "infer". `unfit`: "error", "skip" or "null" for what the format has no place for. With
    `encoding="utf-8"` Parquet and Arrow hold text. `jobs`: so many processes of this machine read and write a
    folder's parts, each a partition at a time (`os.cpu_count()` of them use all of it); the same call goes
    on with any number of them.

    Raises InvalidInput for arguments that make no sense, FileFailure where a file cannot be written,
    ProcessLost where a process was killed over the same partition again and again, and what a stream raises.

    >>> import oneatatime
    >>> async def save(url):
    ...     done = await oneatatime.export(url, "users.jsonl", match="user:*")
    ...     print(done.records)
    """
    ready = await Export.opened(
        source,
        target,
        format=format,
        flatten=flatten,
        columns=columns,
        unfit=unfit,
        part_bytes=part_bytes,
        jobs=jobs,
        **selected,
    )
    return await ready.run()


class Export:
    """An export that is ready to run.

    `stream` is what it reads; None where that is not a stream, or several: `jobs` has these.
    `manifest` is that of the folder it writes, with the parts that are there by now; None for a single file.
    `went_on`: runs before this one had written some of them.
    """

    def __init__(self, target: Target, format: Format, layout: Layout) -> None:  # noqa: A002
        self.format = format
        self.layout = layout
        self.jobs: Jobs | None = None
        self.went_on = False
        self._target = target
        self._transfer: Transfer
        self._sink: Sink

    @classmethod
    async def opened(
        cls,
        source: object,
        target: object,
        *,
        format: str | None = None,  # noqa: A002
        part_bytes: int | None = None,
        jobs: int = 1,
        **given: Any,
    ) -> Export:
        """The export that these arguments of `export` mean, with what its folder has by now.

        Nothing is written yet.

        Raises InvalidInput, MissingExtra or FileFailure for what cannot be begun.
        """
        where = Target.of(target)
        check_jobs(jobs, source, where)
        form = where.format(format)
        shape = {name: given.pop(name) for name in ("flatten", "columns", "unfit") if name in given}
        layout = Layout.checked(**shape, encoding=given.get("encoding")).of(form)
        before = await aside(Manifest.read, where.folder) if where.folder is not None else None
        if layout.columns == INFER:
            known = before.how.get("columns") if before is not None else None
            layout = replace(layout, columns=known or await _columns_of(source, given))
        how = layout.how(form, several=_several(source, given))
        said = {"format": form.title, "layout": layout.name, **how, "what": _said(given)}
        if before is not None and before.how != said:
            text = f"{where.path(MANIFEST)} is of an export with {_differing(before.how, said)}"
            raise InvalidInput(f"{text}: go on with the same, or take another folder")
        self = cls(where, form, layout)
        self.went_on = before is not None and bool(before.parts)
        manifest = before or Manifest(said)
        if (jobs > 1 and not manifest.complete) or are_portions(manifest.checkpoint):
            assert where.files is not None, "a folder"
            job = Job(where.files, form, layout, how, part_bytes or PART_BYTES, given)
            self.jobs = Jobs(source, job, jobs, manifest)
            return self
        self._transfer = _transfer(source, given, form, layout, manifest.checkpoint)
        if where.file is not None:
            self._sink = OpenFile(where.file, form, how, closes=where.files is not None)
        elif where.name:
            assert where.files is not None, "what is not open is in a folder"
            self._sink = OneFile(where.files, where.name, form, how)
        else:
            assert where.files is not None, "a folder"
            self._sink = Parts(where.files, manifest, form, how, part_bytes or PART_BYTES, self._transfer)
        return self

    @property
    def where(self) -> str:
        """The target, for messages: without secrets."""
        return self._target.path(self._target.name)

    @property
    def stream(self) -> Stream | None:
        return self._transfer.stream if self.jobs is None else None

    @property
    def manifest(self) -> Manifest | None:
        if self.jobs is not None:
            return self.jobs.manifest
        return self._sink.manifest if isinstance(self._sink, Parts) else None

    async def run(self, limit: int | None = None) -> Exported:
        """Writes everything, or `limit` records. In a folder, what was done before an error stays.

        Raises FileFailure, and what the records' source raises.
        """
        began = time.perf_counter()
        folder = self._target.folder
        with folder.alone() if folder is not None else nullcontext():
            if self.jobs is not None:
                await self.jobs.run(limit)
            else:
                if isinstance(self._sink, Parts):
                    await self._sink.begin()
                await self._transfer.run(self._sink, limit)
        return self._exported(time.perf_counter() - began)

    def _exported(self, seconds: float) -> Exported:
        manifest, jobs = self.manifest, self.jobs
        left_out = Counter(manifest.left_out if manifest is not None else {})
        if jobs is not None:
            return Exported(
                *jobs.manifest.total, dict(+left_out), jobs.manifest.complete, seconds, jobs.statistics()
            )
        left_out |= Counter({**self._sink.unfit, "undecodable": self._transfer.undecodable})
        complete = self._transfer.all_came or (manifest is not None and manifest.complete)
        statistics = self.stream.statistics() if self.stream is not None else None
        return Exported(*self._sink.written, dict(+left_out), complete, seconds, statistics)


def _transfer(
    source: object,
    selected: Mapping[str, Any],
    format: Format,  # noqa: A002
    layout: Layout,
    checkpoint: Json | None,
) -> Transfer:
    """What is read, from where a checkpoint is."""
    asked = layout.asked(format)
    if isinstance(source, Stream):
        _check_stream(source, asked, selected)
        found = Transfer(layout, source)
    elif isinstance(source, AsyncIterable):
        if selected:
            raise InvalidInput(f"{', '.join(selected)}: records that are made already cannot be selected")
        found = Transfer(layout, batches=gathered(source))
    else:
        return Transfer(layout, selected_stream(source, selected, asked, checkpoint))
    if checkpoint is not None:
        text = "what an export has read can be known of a URL or client alone, which it selects itself"
        raise InvalidInput(f"the folder holds a part of an export already: {text}; take another folder")
    return found


def _several(source: object, selected: Mapping[str, Any]) -> bool:
    """Whether keys of several databases may come."""
    if isinstance(source, Stream):
        return selection_of(source).all_dbs
    of_part = getattr(selected.get("partition"), "all_dbs", False)
    return isinstance(source, AsyncIterable) or selected.get("db") == "all" or of_part


def _check_stream(source: Stream, asked: Mapping[str, Any], selected: Mapping[str, Any]) -> None:
    if selected:
        raise InvalidInput(f"{', '.join(selected)}: a stream has been selected already")
    lacking = [name for name in asked.get("metadata", ()) if name not in selection_of(source).metadata]
    if lacking:
        text = f"the stream does not read {', '.join(lacking)}, so that the file would not hold all there is"
        raise InvalidInput(f"{text}: begin it with metadata=oneatatime.LOSSLESS")
    if asked.get("dump") and not selection_of(source).dump:
        raise InvalidInput("a dump is of what DUMP gives: begin the stream with dump=True")


async def _columns_of(source: object, selected: Mapping[str, Any]) -> dict[str, str]:
    """The fields of the first hashes, and of what type they seem to be."""
    if isinstance(source, Stream | AsyncIterable):
        raise InvalidInput(
            "columns='infer' looks at hashes beforehand: give a URL or client, or name the columns"
        )
    found = inference()
    async with stream(source, **{**selected, "types": "hash", "encoding": None}) as sample:
        async for batch in batches_of(sample):
            found.add_batch(batch)
            if found.enough:
                break
    if not found.hashes:
        raise InvalidInput("columns='infer' has found no hash: name the columns")
    return found.columns()


def _said(selected: Mapping[str, Any]) -> Json:
    """What of the keys' choice a manifest tells apart, as plain data."""
    said: Json = {}
    for name in ("match", "types", "db", "unique"):
        value = selected.get(name)
        if value is not None and value is not False:
            said[name] = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
            said[name] = sorted(value) if isinstance(value, list | tuple | set | frozenset) else said[name]
    return said


def _differing(before: Json, now: Json) -> str:
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return ", ".join(f"{name}={before.get(name)!r}, and now {name}={now.get(name)!r}" for name in names)
