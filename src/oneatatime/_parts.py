"""Values too big to hold: chunk after chunk, each loop over a connection of its own."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ._blocking import iterate
from ._connection import server_error
from ._endpoint import Endpoint
from ._errors import Error, ServerFailure, StreamClosed
from ._options import Options, Selection
from ._pace import Pace
from ._record import Parts, PartsSource
from ._request import Answer, Burst, ReplyError, ReplyTooBig, command
from ._resp import ARRAY
from ._session import Pending, Session
from ._text import text_of, undecodable
from ._wire import Traffic
from .datatypes import STRING, Datatype, Odd, OddRows, datatype

_MOST_TRIES = 3
_CHUNK_WORK = 0.0003  # seconds of server time, about: a thousand elements, or 256 KiB


class BigValues:
    """Makes the `Parts` of one stream, and reads them when they are looped over."""

    def __init__(
        self, endpoint: Endpoint, options: Options, selection: Selection, traffic: Traffic, pace: Pace
    ) -> None:
        self.torn = 0
        self.pace = pace
        self._endpoint = endpoint
        self._options = options
        self._selection = selection
        self._traffic = traffic

    def parts(self, key: bytes, kind: Datatype, size: int) -> Parts:
        """The value that stands for a big one."""
        source = PartsSource(self.chunks, self.blocking_chunks, self.load)
        return Parts(key, kind.name, size, source)

    def chunks(self, parts: Parts) -> AsyncIterator[list[Any]]:
        return _Decoded(self._raw(parts), parts, self._selection)

    def blocking_chunks(self, parts: Parts) -> Iterator[list[Any]]:
        return iterate(lambda: self.chunks(parts))

    async def load(self, parts: Parts) -> Any:
        """The whole value: put together from its chunks, or read by one command where it keeps changing."""
        kind = datatype(parts.type)
        value = await self._put_together(parts, kind)
        text = text_of(self._selection)
        if text is None:
            return value
        try:
            return kind.decoded(value, text)
        except UnicodeError as error:
            raise undecodable(f"{kind.name} value", self._selection, error, parts.key) from error

    async def _put_together(self, parts: Parts, kind: Datatype) -> Any:
        for _ in range(_MOST_TRIES if kind.bounded else 0):
            gathered = [part async for chunk in self._raw(parts) for part in chunk]
            if not gathered:
                break  # empty or gone, which one command tells
            if parts.torn is False:
                return kind.assembled(gathered)
            if parts.torn is None:
                break  # not known whether it fits together: then in one piece
        return await self._read_whole(parts, kind)

    def _raw(self, parts: Parts) -> _Chunks:
        return _Chunks(
            parts,
            self,
            Session(self._endpoint, self._options, self._traffic),
            self.pace.chunk(self._options.chunk),
        )

    async def _read_whole(self, parts: Parts, kind: Datatype) -> Any:
        session = Session(self._endpoint, self._options, self._traffic)
        odd: OddRows = {}
        try:
            await session.open()
            asked = kind.ask_whole([parts.key])
            (pending,) = session.send(Burst(asked.payload, asked.replies, False))
            values = kind.take_whole((await session.answer(pending)).replies, odd)
            if odd.get(0) is Odd.EMPTY:
                odd.clear()
                (pending,) = session.send(kind.confirm([parts.key]))
                values = kind.take_confirmed((await session.answer(pending)).replies, odd)
        finally:
            session.abort()
        if odd:
            reason = odd[0]
            if isinstance(reason, ReplyError) and not _is_another(reason):
                raise server_error(reason, node=session.node, key=parts.key, command=kind.command)
            text = "the value is gone: its key was deleted, or holds another type by now"
            raise ServerFailure(text, node=session.node, key=parts.key)
        parts.torn = False
        return kind.made(values[0])


class _Chunks:
    """One loop over one big value.

    The next chunk is asked for before the last is handed out, so the server works while the loop body
    does; its reply waits here, not in the server. WATCH tells at the end whether the value was touched.
    """

    def __init__(self, parts: Parts, values: BigValues, session: Session, chunk: int) -> None:
        self._parts = parts
        self._values = values
        self._session = session
        self._kind = datatype(parts.type)
        self._steps = self._kind.parts(parts.key, chunk)
        self._pending: Pending | None = None
        self._watching = False
        self._replaced = False  # another value took the place of this one
        self._state = "new"
        self._error: BaseException | None = None

    def __aiter__(self) -> AsyncIterator[list[Any]]:
        return self

    async def __anext__(self) -> list[Any]:
        try:
            return await self._next()
        except BaseException as error:
            if self._state != "over":
                self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Ends the loop here, by an error that it gives again when it is asked again."""
        self._state, self._error = "failed", error
        self._session.abort()

    def abort(self) -> None:
        """Ends the loop here."""
        self._state = "over"
        self._session.abort()

    async def _next(self) -> list[Any]:
        if self._state == "over":
            raise StopAsyncIteration
        if self._state == "failed":  # never an end that looks like one
            if isinstance(self._error, Error):
                raise self._error
            raise StreamClosed("the loop over this value was broken off", key=self._parts.key)
        if self._state == "new":
            self._state = "open"
            await self._begin()
        while self._pending is not None:
            parts, burst = await self._advance(self._pending)
            self._pending = None
            if burst is None:
                await self._end()
            else:
                await self._values.pace.turn(self._session.connection, work=_CHUNK_WORK)
                (self._pending,) = self._session.send(burst)
            if parts:
                return parts
        raise StopAsyncIteration

    async def _begin(self) -> None:
        await self._session.open()
        if self._kind.watched:
            answer = await self._ask(command(b"WATCH", self._parts.key))
            self._watching = not isinstance(answer.replies[0], ReplyError)
        _, burst = next(self._steps)
        assert burst is not None, "a value is read by at least one command"
        (self._pending,) = self._session.send(burst)

    async def _ask(self, burst: Burst) -> Answer:
        (pending,) = self._session.send(burst)
        return await self._session.answer(pending)

    async def _advance(self, pending: Pending) -> tuple[list[Any], Burst | None]:
        try:
            try:
                answer: Answer = await self._session.answer(pending)
            except ReplyTooBig as surprise:
                await self._session.reopen()
                self._watching = False
                return self._steps.throw(surprise)
            return self._steps.send(answer)
        except ReplyError as reply:
            if not _is_another(reply):
                raise server_error(
                    reply, node=self._session.node, key=self._parts.key, command=self._kind.command
                ) from reply
            self._replaced = True
            return [], None

    async def _end(self) -> None:
        """Says in `torn` whether what was delivered may not fit together."""
        torn = True if self._replaced else await self._touched()
        self._parts.torn = torn
        self._values.torn += bool(torn)
        self.abort()

    async def _touched(self) -> bool | None:
        """Whether the value changed meanwhile, or is gone; None where that is not known."""
        exists = command(b"EXISTS", self._parts.key)
        if self._watching:
            found = (await self._ask(command(b"MULTI") + exists + command(b"EXEC"))).replies[-1]
            if found is None:
                return True
            found = found[0] if found.__class__ is ARRAY else found
        else:
            found = (await self._ask(exists)).replies[0]
        if isinstance(found, ReplyError):
            return None
        if found == 0:
            return True
        return None if self._kind.watched and not self._watching else False

    def __del__(self) -> None:
        self._session.drop()


def _is_another(reply: ReplyError) -> bool:
    return str(reply).startswith("WRONGTYPE")


class _Decoded:
    """Chunks as text where text was asked for; a character cut by a chunk's end comes whole in the next."""

    def __init__(self, chunks: _Chunks, parts: Parts, selection: Selection) -> None:
        kind = datatype(parts.type)
        self._key = parts.key
        self._selection = selection
        self._chunks = chunks
        self._kind = kind
        self._text = text_of(selection)
        self._decoder = None
        if self._text is not None and kind is STRING:
            self._decoder = codecs.getincrementaldecoder(selection.encoding or "utf-8")(selection.errors)

    def __aiter__(self) -> AsyncIterator[list[Any]]:
        return self

    async def __anext__(self) -> list[Any]:
        while True:
            try:
                chunk = await self._chunks.__anext__()
            except StopAsyncIteration:
                rest = self._as_text([b""], last=True) if self._decoder is not None else []
                self._decoder = None
                if rest:
                    return rest
                raise
            if as_text := self._as_text(chunk):
                return as_text

    def _as_text(self, chunk: list[Any], last: bool = False) -> list[Any]:
        try:
            if self._decoder is not None:
                decoder = self._decoder  # a piece may be less than a character
                return [text for text in [decoder.decode(piece, last) for piece in chunk] if text]
            return chunk if self._text is None else self._kind.decoded_parts(chunk, self._text)
        except UnicodeError as error:
            failure = undecodable(f"{self._kind.name} value", self._selection, error, self._key)
            self._chunks.fail(failure)
            raise failure from error
