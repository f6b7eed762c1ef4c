"""Values too big to hold as pieces, each a row of a file: what is written never holds `Parts`.

A piece has the form of a whole value of its type: a string is bytes, a hash a dict, a list, set or sorted set
a list, a stream a list of entries. What the value has beside its elements comes with the piece it belongs to:
the moments when fields of a hash expire, and the pending entries of a stream; its groups come with the first.

A string is never cut inside a UTF-8 character, so that text stays text piece by piece. JSON documents and
dumps are never cut: half a document is none, and RESTORE takes a whole dump only. They are loaded whole.

A value that breaks off with its connection is read once more, and its pieces begin again at 0: those replace
the ones before. What is gone before its first part is no value at all, and nothing comes of it.
"""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from tempfile import SpooledTemporaryFile
from typing import Any

from ._blocking import aside
from ._errors import Error, Undecodable, ValueGone
from ._node import OUT_OF_REACH, Outage
from ._options import MiB
from ._record import Batch, Parts, Pending, Piece, Record, StreamDetails

_Chunks = AsyncIterator[list[Any]]
_Given = tuple[Record, "Piece | None"]
_LeftOut = Callable[[Undecodable], None]

_LONGEST_CHARACTER = 4
_MOST_READINGS = 50  # of one value, each broken off after it had come some way
_HELD = 4 * MiB  # of pieces that wait for their last one; more of them wait in a temporary file


async def whole_and_pieces(
    batches: AsyncIterator[Batch],
    patience: float = 0.0,
    *,
    replacing: bool = True,
    left_out: _LeftOut | None = None,
) -> AsyncGenerator[Batch, None]:
    """The batches without `Parts`: what is whole as it is, and in its place each big value by `pieces_of`.

    A piece is a batch of one row that says in `pieces` which one it is. Records keep their order. With
    `left_out` no piece is given before the last one has come: of a value that is no text comes nothing, and
    `left_out` is told.
    """
    async with AsyncExitStack() as stack:
        _close_with(stack, batches)
        async for batch in batches:
            start = 0
            for row in _big(batch):
                if start < row:
                    yield batch.of(list(range(start, row)))
                big = pieces_of(batch.record(row), patience, replacing=replacing or left_out is not None)
                if left_out is not None:
                    big = _held_back(big, left_out)
                async with aclosing(big) as pieces:
                    async for record, piece in pieces:
                        yield _of_one(batch, row, record, piece)
                start = row + 1
            if not start:
                yield batch
            elif start < len(batch):
                yield batch.of(list(range(start, len(batch))))


async def pieces_of(
    record: Record, patience: float = 0.0, *, replacing: bool = True
) -> AsyncGenerator[_Given, None]:
    """The pieces of a value that is `Parts`, each as a record with what belongs to it; None: it is whole.

    At most two are held at a time: which one is the last shows only when no other comes. A value whose server
    is out of reach is read once more, for at most `patience` seconds without a piece, and its pieces begin
    again at 0; not where pieces have been given and `replacing` is False, because whoever takes them cannot
    take them back. Nothing comes of a value that is gone. Raises what its reading raises, with the key.
    """
    outage, readings, given = Outage(patience), 0, 0
    while True:
        try:
            readings += 1
            async with aclosing(_read(record, given)) as pieces:
                async for one, piece in pieces:
                    outage.over()
                    given = piece.number + 1 if piece is not None else 0
                    yield one, piece
            return
        except OUT_OF_REACH as error:
            outage.noted(error)
            if outage.too_long or not patience or readings == _MOST_READINGS or (given and not replacing):
                _say_key(error, record)
                raise
            await outage.rest()
        except Error as error:
            _say_key(error, record)
            raise


async def _held_back(
    pieces: AsyncGenerator[_Given, None], left_out: _LeftOut
) -> AsyncGenerator[_Given, None]:
    """The pieces of the reading that came to its end, or none where one is no text."""
    with SpooledTemporaryFile(_HELD) as file:
        count = 0
        try:
            async with aclosing(pieces):
                async for one, piece in pieces:
                    if piece is None or piece.number == 0:
                        file.seek(0)
                        file.truncate()
                        count = 0
                    await aside(pickle.dump, (one, piece), file, pickle.HIGHEST_PROTOCOL)
                    count += 1
        except Undecodable as error:
            left_out(error)
            return
        file.seek(0)
        for _ in range(count):
            yield await aside(pickle.load, file)


async def _read(record: Record, given: int) -> AsyncGenerator[_Given, None]:
    """One reading of it; `given` pieces have come of the one before."""
    parts: Parts = record.value
    form = _FORMS.get(parts.type)
    if form is not None:
        number = 0
        held: Record | None = None
        async with AsyncExitStack() as stack:
            chunks = _close_with(stack, parts.chunks())
            async for one in await stack.enter_async_context(aclosing(form(record, chunks))):
                if held is not None:
                    yield held, Piece(number)
                    number += 1
                held = one
        if held is not None:
            yield held, Piece(number, last=True, torn=bool(parts.torn))
            return
    try:  # no part came: it is gone, or there and empty
        whole = record._replace(value=await parts.load())
    except ValueGone:
        if given:  # what has come is all there will ever be
            yield _nothing_of(record), Piece(given, last=True, torn=True)
    else:
        yield whole, Piece(0, last=True) if form is not None else None


def _big(batch: Batch) -> list[int]:
    """The rows whose values are parts."""
    if batch.raw or Parts not in set(map(type, batch.values)):
        return []  # what is still to be made is whole
    failed = batch.failed or {}
    return [row for row, value in enumerate(batch.values) if isinstance(value, Parts) and row not in failed]


def _of_one(batch: Batch, row: int, record: Record, piece: Piece | None) -> Batch:
    one = batch.of([row])
    one.values, one.size = [record.value], 0
    one.pieces = None if piece is None else [piece]
    if record.details is not None or (one.metadata is not None and "details" in one.metadata):
        one.metadata = {**(one.metadata or {}), "details": [record.details]}
    return one


def _say_key(error: Error, record: Record) -> None:
    if error.key is None:
        error.key = record.key


def _close_with(stack: AsyncExitStack, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Whoever takes an iterator closes it, and with it its connection."""
    close = getattr(chunks, "aclose", None)
    if close is not None:
        stack.push_async_callback(close)
    return chunks


# The pieces of each type, with what belongs to them. ----------------------------------------------


async def _as_they_come(record: Record, chunks: _Chunks) -> AsyncGenerator[Record, None]:
    async for chunk in chunks:
        yield record._replace(value=chunk, details=None)


async def _objects(record: Record, chunks: _Chunks) -> AsyncGenerator[Record, None]:
    """Of a hash come (field, value), or (field, value, when it expires) where that was asked for."""
    known = record.details or {}
    async for chunk in chunks:
        if len(chunk[0]) == 2:
            found = dict(chunk)
            expiring = {field: moment for field, moment in known.items() if field in found}
        else:
            found = {field: content for field, content, _ in chunk}
            expiring = {field: moment for field, _, moment in chunk if moment is not None}
        yield record._replace(value=found, details=expiring or None)


async def _entries(record: Record, chunks: _Chunks) -> AsyncGenerator[Record, None]:
    """Of a stream come entries, and what is pending among them."""
    details: StreamDetails | None = record.details
    async for chunk in chunks:
        pending = tuple([one for one in chunk if isinstance(one, Pending)])
        entries = [one for one in chunk if not isinstance(one, Pending)] if pending else chunk
        if details is not None:
            details = details._replace(pending=details.pending + pending)
        elif pending:
            details = StreamDetails(None, pending=pending)
        yield record._replace(value=entries, details=details)
        details = None


async def _characters(record: Record, chunks: _Chunks) -> AsyncGenerator[Record, None]:
    cut = b""  # the first bytes of a character whose rest comes with the next chunk
    async for chunk in chunks:
        if isinstance(chunk[0], str):
            yield record._replace(value="".join(chunk))
            continue
        data = b"".join([cut, *chunk])
        end = end_of_characters(data)
        cut = data[end:]
        if end:
            yield record._replace(value=data[:end])
    if cut:
        yield record._replace(value=cut)


_FORMS: dict[str, Callable[[Record, _Chunks], AsyncGenerator[Record, None]]] = {
    "string": _characters,
    "hash": _objects,
    "list": _as_they_come,
    "set": _as_they_come,
    "zset": _as_they_come,
    "stream": _entries,
}
"""Of types that may be cut."""


def _nothing_of(record: Record) -> Record:
    """A piece without any elements."""
    nothing: dict[str, Any] = {"string": b"", "hash": {}}
    return record._replace(value=nothing.get(record.type, []), details=None)


def end_of_characters(data: bytes) -> int:
    """Where to cut `data` so that no character it ends with is cut: its length if there is none."""
    for back in range(1, min(len(data), _LONGEST_CHARACTER - 1) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # begins a character, and says how many bytes that has
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else _LONGEST_CHARACTER
            return len(data) - back if length > back else len(data)
        if byte < 0x80:
            break
    return len(data)
