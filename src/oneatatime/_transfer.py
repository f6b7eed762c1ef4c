"""One pass of records into a sink: those of a stream, or batches that somebody gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from ._errors import Undecodable
from ._gathered import batch_of
from ._layout import Layout
from ._options import Options
from ._pieces import whole_and_pieces
from ._record import Batch
from ._sealed import Json
from ._sink import Sink
from ._stream import Stream, batches_of, patience_of, selection_of


class Transfer:
    """What is written, of a `stream` or of `batches`; `undecodable` counts what was no text, and left out."""

    def __init__(
        self, layout: Layout, stream: Stream | None = None, batches: AsyncIterator[Batch] | None = None
    ) -> None:
        self.stream = stream
        self.undecodable = 0
        self._layout = layout
        self._batches = batches

    @property
    def all_came(self) -> bool:
        """Whether what was to come has come to its end, with nothing skipped."""
        if self.stream is None:
            return True
        statistics = self.stream.statistics()
        return statistics.finished and not statistics.skipped

    def checkpoint(self) -> Json | None:
        """What of a stream has been finished with; of other records nobody can know."""
        return self.stream.checkpoint() if self.stream is not None else None

    def left_out(self) -> dict[str, int]:
        """What the source had and could not give, by reason."""
        statistics = self.stream.statistics() if self.stream is not None else None
        forbidden = statistics.forbidden if statistics is not None else 0
        return {"forbidden": forbidden, "undecodable": self.undecodable}

    async def run(self, sink: Sink, limit: int | None = None) -> None:
        """Writes everything, or `limit` records, and closes the stream.

        Raises FileFailure, and what the records' source raises; the sink keeps what can be kept.
        """
        source_failed = True
        try:
            async with aclosing(self._without_parts()) as batches:
                async for batch in _first(batches, limit):
                    source_failed = False
                    await sink.add(batch)
                    source_failed = True
            source_failed = False
            await sink.finish(complete=self.all_came and limit is None)
        except asyncio.CancelledError:  # what was being written has been written
            await sink.break_off()
            raise
        except BaseException:
            await (sink.break_off() if source_failed else sink.abandon())
            raise
        finally:
            if self.stream is not None:
                await self.stream.aclose()

    async def _without_parts(self) -> AsyncGenerator[Batch, None]:
        """What is written: values that are held, in bytes where the file holds bytes."""
        replacing = self._layout.name == "records"  # whose rows say which piece of a value they are
        patience, decodes, of_text = Options().patience, True, False
        if self.stream is not None:
            patience = patience_of(self.stream)
            decodes = selection_of(self.stream).encoding is not None
            of_text = decodes and self._layout.encoding is None
        left_out = self._leave_out if decodes and self._layout.unfit == "skip" else None
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
                    if self._layout.unfit != "skip":
                        raise
                    self._leave_out(error)
                else:
                    yield batch

    def _leave_out(self, error: Undecodable) -> None:
        self.undecodable += 1


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
