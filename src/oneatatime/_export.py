"""A stream, or any async iterable of records, into files: one, or a folder of parts that can go on.

A folder's parts and its manifest are written so that at any instant the folder holds only whole parts, and
the manifest a checkpoint of what is in those it names: what a kill leaves beside is deleted by the next run.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from ._blocking import aside
from ._errors import InvalidInput, Undecodable
from ._gathered import batch_of, gathered
from ._layout import INFER, Layout
from ._manifest import Manifest
from ._options import EXPORT_AHEAD, PART_BYTES, Options
from ._pieces import whole_and_pieces
from ._record import Batch
from ._sealed import Json
from ._sink import OneFile, OpenFile, Parts, Sink
from ._statistics import Statistics
from ._stream import Stream, batches_of, patience_of, selection_of, stream
from ._target import Target
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
    `encoding="utf-8"` Parquet and Arrow hold text.

    Raises InvalidInput for arguments that make no sense, FileFailure where a file cannot be written, and what
    a stream raises.

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
        **selected,
    )
    return await ready.run()


class Export:
    """An export that is ready to run. `stream` is what it reads; None where that is not a stream.

    `manifest` is that of the folder it writes, with the parts that are there by now; None for a single file.
    `went_on`: runs before this one had written some of them.
    """

    def __init__(self, target: Target, format: Format, layout: Layout, part_bytes: int) -> None:  # noqa: A002
        self.format = format
        self.layout = layout
        self.stream: Stream | None = None
        self._target = target
        self._part_bytes = part_bytes
        self._batches: AsyncIterator[Batch] | None = None
        self._undecodable = 0
        self.went_on = False
        self._sink: Sink

    @classmethod
    async def opened(
        cls,
        source: object,
        target: object,
        *,
        format: str | None = None,  # noqa: A002
        flatten: bool = False,
        columns: Mapping[str, str] | str | None = None,
        unfit: str | None = None,
        part_bytes: int | None = None,
        **selected: Any,
    ) -> Export:
        """The export that these arguments of `export` mean, with what its folder has by now.

        Nothing is written yet.

        Raises InvalidInput, MissingExtra or FileFailure for what cannot be begun.
        """
        where = Target.of(target)
        form = where.format(format)
        encoding = selected.get("encoding")
        layout = Layout.checked(flatten=flatten, columns=columns, unfit=unfit, encoding=encoding).of(form)
        self = cls(where, form, layout, part_bytes or PART_BYTES)
        before = await aside(Manifest.read, where.folder) if where.folder is not None else None
        if self.layout.columns == INFER:
            known = before.how.get("columns") if before is not None else None
            self.layout = replace(self.layout, columns=known or await _columns_of(source, selected))
        how = self.layout.how(form, several=_several(source, selected))
        self._sink = self._sink_to(where, before, how, _said(selected))
        self._take_source(source, selected, before.checkpoint if before is not None else None)
        self.went_on = before is not None and bool(before.parts)
        return self

    @property
    def where(self) -> str:
        """The target, for messages: without secrets."""
        files = self._target.files
        return (
            "the open file"
            if files is None
            else files.path(self._target.name)
            if self._target.name
            else files.where
        )

    @property
    def manifest(self) -> Manifest | None:
        return self._sink.manifest if isinstance(self._sink, Parts) else None

    async def run(self, limit: int | None = None) -> Exported:
        """Writes everything, or `limit` records. In a folder, what was done before an error stays.

        Raises FileFailure, and what the records' source raises.
        """
        began = time.perf_counter()
        folder = self._target.folder
        with folder.alone() if folder is not None else nullcontext():
            await self._write(limit)
        records, size, files = self._sink.written
        unfit = +Counter({**self._sink.unfit, "undecodable": self._undecodable})
        if self.manifest is not None:
            unfit = +Counter(self.manifest.left_out) | unfit
        statistics = self.stream.statistics() if self.stream is not None else None
        return Exported(
            records,
            size,
            files,
            dict(unfit),
            self._is_complete(),
            time.perf_counter() - began,
            statistics,
        )

    async def _write(self, limit: int | None) -> None:
        sink = self._sink
        if isinstance(sink, Parts):
            await sink.begin()
        source_failed = True
        try:
            async with aclosing(self._without_parts()) as batches:
                async for batch in _first(batches, limit):
                    source_failed = False
                    await sink.add(batch)
                    source_failed = True
            source_failed = False
            await sink.finish(complete=self._is_complete() and limit is None)
        except asyncio.CancelledError:  # what was being written has been written
            await sink.break_off()
            raise
        except BaseException:
            await (sink.break_off() if source_failed else sink.abandon())
            raise
        finally:
            if self.stream is not None:
                await self.stream.aclose()

    def _is_complete(self) -> bool:
        if self.manifest is not None and self.manifest.complete:
            return True
        if self.stream is None:
            return True
        statistics = self.stream.statistics()
        return statistics.finished and not statistics.skipped

    def left_out(self) -> dict[str, int]:
        """What the source had and could not give, by reason."""
        statistics = self.stream.statistics() if self.stream is not None else None
        forbidden = statistics.forbidden if statistics is not None else 0
        return {"forbidden": forbidden, "undecodable": self._undecodable}

    # What is read

    def _take_source(self, source: object, selected: Mapping[str, Any], checkpoint: Json | None) -> None:
        asked = self.layout.asked(self.format)
        if isinstance(source, Stream):
            _check_stream(source, asked, selected)
            self.stream = source
        elif isinstance(source, AsyncIterable):
            if selected:
                raise InvalidInput(f"{', '.join(selected)}: records that are made already cannot be selected")
            self._batches = gathered(source)
        else:
            if "metadata" in selected or "resume" in selected:
                raise InvalidInput(
                    "an export asks for the metadata it needs, and resumes by its folder's manifest"
                )
            options = selected.get("options") or Options(ahead=EXPORT_AHEAD)
            self.stream = stream(source, **{**selected, **asked, "options": options}, resume=checkpoint)
            return
        if checkpoint is not None:
            text = "what an export has read can be known of a URL or client alone, which it selects itself"
            raise InvalidInput(f"the folder holds a part of an export already: {text}; take another folder")

    async def _without_parts(self) -> AsyncGenerator[Batch, None]:
        """What is written: values that are held, in bytes where the file holds bytes."""
        replacing = self.layout.name == "records"  # whose rows say which piece of a value they are
        patience, decodes, of_text = Options().patience, True, False
        if self.stream is not None:
            patience = patience_of(self.stream)
            decodes = selection_of(self.stream).encoding is not None
            of_text = decodes and self.layout.encoding is None
        left_out = self._leave_out if decodes and self.layout.unfit == "skip" else None
        held = whole_and_pieces(self._decodable(), patience, replacing=replacing, left_out=left_out)
        async with aclosing(held) as batches:
            async for batch in batches:
                if of_text or (self.stream is None and batch.pieces is not None):
                    yield batch_of(map(batch.record, range(len(batch))), batch.pieces)
                else:
                    yield batch

    async def _decodable(self) -> AsyncIterator[Batch]:
        """The batches, without the rows that are no text in the encoding asked for, where that is wanted."""
        batches = self._batches
        if batches is None:
            assert self.stream is not None, "an export reads a stream, or batches"
            batches = batches_of(self.stream)
        async with _closing(batches):
            while True:
                try:
                    batch = await anext(batches)
                except StopAsyncIteration:
                    return
                except Undecodable as error:
                    if self.layout.unfit != "skip":
                        raise
                    self._leave_out(error)
                else:
                    yield batch

    def _leave_out(self, error: Undecodable) -> None:
        self._undecodable += 1

    # Where it goes

    def _sink_to(self, target: Target, before: Manifest | None, how: Json, what: Json) -> Sink:
        if target.file is not None:
            return OpenFile(target.file, self.format, how, closes=target.files is not None)
        assert target.files is not None, "what is not open is in a folder"
        if target.name:
            return OneFile(target.files, target.name, self.format, how)
        said: Json = {"format": self.format.title, "layout": self.layout.name, **how, "what": what}
        if before is not None and before.how != said:
            text = f"{target.files.path('manifest.json')} is of an export with {_differing(before.how, said)}"
            raise InvalidInput(f"{text}: go on with the same, or take another folder")
        manifest = before or Manifest(said)
        return Parts(target.files, manifest, self.format, how, self._part_bytes, self)

    def checkpoint(self) -> Json | None:
        """What of a stream has been finished with; of other records nobody can know."""
        return self.stream.checkpoint() if self.stream is not None else None


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


async def _first(batches: AsyncIterator[Batch], limit: int | None) -> AsyncIterator[Batch]:
    """The batches up to so many records; a value in pieces counts at its last one."""
    left = limit
    async for batch in batches:
        if left is not None and batch.pieces is None and len(batch) >= left:
            yield batch.of(list(range(left)))
            return
        yield batch
        if left is not None:
            left -= batch.whole
            if not left:
                return


@asynccontextmanager
async def _closing(iterator: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Closes an iterator at the end, if it can be."""
    try:
        yield
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
