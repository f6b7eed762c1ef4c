"""Values too big to hold: chunk after chunk, each loop over a connection of its own."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ._blocking import iterate
from ._connection import server_error
from ._errors import ConnectionLost, Error, ServerFailure, StreamClosed, ValueGone
from ._options import Options, Selection
from ._pace import Load, Pace
from ._record import Parts
from ._request import Answer, Burst, ReplyError, ReplyTooBig, command
from ._resp import ARRAY
from ._session import Pending, Session
from ._text import text_of, undecodable
from .datatypes import STRING, Datatype, Odd, OddRows, Steps, datatype, details

_MOST_TRIES = 3
_MOST_REDIRECTIONS = 8
_CHUNK_WORK = 0.0003  # seconds of server time, about: a thousand elements, or 256 KiB


class At(Protocol):
    """The server that has a key."""

    load: Load | None

    def session(self, *, asking: bool = False) -> Session:
        """A connection to it, still to be opened."""


Locate = Callable[[bytes, "str | None"], Coroutine[Any, Any, "tuple[At, bool]"]]
"""Which server has a key, and whether it is still on its way there; told what the last one said."""


class BigValues:
    """Makes the `Parts` of one stream, and reads them when they are looped over."""

    locate: Locate
    redirected = False  # by a cluster, whose nodes send us on to where a key is

    def __init__(self, options: Options, selection: Selection, pace: Pace) -> None:
        self.torn = self.vanished = 0
        self.pace = pace
        self._options = options
        self._selection = selection

    def parts(self, key: bytes, kind: Datatype, size: int) -> Parts:
        """The value that stands for a big one."""
        # where it is now: the stream may be in another database when the loop over it begins
        return Parts(key, kind.name, size, _Source(self, self.locate))

    def chunks(self, parts: Parts, locate: Locate) -> AsyncIterator[list[Any]]:
        detailed = "details" in self._selection.metadata
        return _Decoded(self._raw(parts, locate, detailed=detailed), parts, self._selection)

    async def load(self, parts: Parts, locate: Locate) -> Any:
        """The whole value: put together from its chunks, or read by one command where it keeps changing."""
        kind = datatype(parts.type)
        value = await self._put_together(parts, kind, locate)
        text = text_of(self._selection)
        if text is None:
            return value
        try:
            return kind.decoded(value, text)
        except UnicodeError as error:
            raise undecodable(f"{kind.name} value", self._selection, error, parts.key) from error

    async def _put_together(self, parts: Parts, kind: Datatype, locate: Locate) -> Any:
        for _ in range(_MOST_TRIES if kind.bounded else 0):
            gathered = [part async for chunk in self._raw(parts, locate) for part in chunk]
            if not gathered:
                break  # empty or gone, which one command tells
            if parts.torn is False:
                return kind.assembled(gathered)
            if parts.torn is None:
                break  # not known whether it fits together: then in one piece
        return await self._read_whole(parts, kind, locate)

    def _raw(self, parts: Parts, locate: Locate, *, detailed: bool = False) -> _Chunks:
        return _Chunks(parts, self, locate, self.pace.chunk(self._options.chunk), detailed=detailed)

    async def reach(self, key: bytes, locate: Locate) -> tuple[At, Session]:
        """A connection to the server that has a key, ready to read it."""
        said: str | None = None
        for attempt in range(_MOST_REDIRECTIONS):
            if attempt > 1:  # nodes may need a moment to agree on who has what
                await asyncio.sleep(0.02 * 2**attempt)
            at, arriving = await locate(key, said)
            session = at.session(asking=arriving)
            await session.open()
            if not self.redirected:
                return at, session
            (pending,) = session.send(command(b"EXISTS", key))
            reply = (await session.answer(pending)).replies[0]
            if not (isinstance(reply, ReplyError) and str(reply).startswith(("MOVED", "ASK"))):
                return at, session
            session.abort()
            said = str(reply)
        text = f"{_MOST_REDIRECTIONS} nodes in a row sent us on: {said}"
        raise ServerFailure(text, node=session.node, key=key)

    def gone(self, parts: Parts) -> None:
        """Nothing of a value has come, and it is gone: counted once, however often it is asked for."""
        self.vanished += parts.torn is not True
        parts.torn = True

    async def _read_whole(self, parts: Parts, kind: Datatype, locate: Locate) -> Any:
        _, session = await self.reach(parts.key, locate)
        odd: OddRows = {}
        try:
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
            self.gone(parts)
            text = "the value is gone: its key was deleted, or holds another type by now"
            raise ValueGone(text, node=session.node, key=parts.key)
        parts.torn = False
        return kind.made(values[0])


@dataclass(eq=False, repr=False)
class _Source:
    """How one `Parts` gets at its data: it is where `locate` says."""

    values: BigValues
    locate: Locate

    def chunks(self, parts: Parts) -> AsyncIterator[list[Any]]:
        return self.values.chunks(parts, self.locate)

    def blocking_chunks(self, parts: Parts) -> Iterator[list[Any]]:
        return iterate(lambda: self.chunks(parts))

    async def load(self, parts: Parts) -> Any:
        return await self.values.load(parts, self.locate)


class _Chunks:
    """One loop over one big value.

    The next chunk is asked for before the last is handed out, so the server works while the loop body
    does; its reply waits here, not in the server. WATCH tells at the end whether the value was touched.
    """

    def __init__(
        self, parts: Parts, values: BigValues, locate: Locate, chunk: int, *, detailed: bool
    ) -> None:
        self._parts = parts
        self._values = values
        self._locate = locate
        self._load: Load | None = None
        self._open: Session | None = None
        self._kind = datatype(parts.type)
        self._steps = _steps(self._kind, parts.key, chunk, detailed=detailed)
        self._pending: Pending | None = None
        self._who: asyncio.Future[Answer] | None = None  # whose cursors these are
        self._watching = False
        self._replaced = False  # another value took the place of this one
        self._came = False  # any part of it
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
        self._abort()

    def abort(self) -> None:
        """Ends the loop here."""
        self._state = "over"
        self._abort()

    @property
    def _session(self) -> Session:
        assert self._open is not None, "opened before use"
        return self._open

    def _abort(self) -> None:
        if self._open is not None:
            self._open.abort()

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
                await self._values.pace.turn(self._session.connection, self._load, work=_CHUNK_WORK)
                (self._pending,) = self._session.send(burst)
            if parts:
                self._came = True
                return parts
        raise StopAsyncIteration

    async def _begin(self) -> None:
        at, self._open = await self._values.reach(self._parts.key, self._locate)
        self._load = at.load
        if self._kind.watched:
            answer = await self._ask(command(b"WATCH", self._parts.key))
            self._watching = not isinstance(answer.replies[0], ReplyError)
        _, burst = next(self._steps)
        assert burst is not None, "a value is read by at least one command"
        if not self._kind.watched:  # it is read by a cursor
            self._who = self._session.ask_who()
        await self._values.pace.turn(self._session.connection, self._load, work=_CHUNK_WORK)
        (self._pending,) = self._session.send(burst)

    async def _ask(self, burst: Burst) -> Answer:
        (pending,) = self._session.send(burst)
        return await self._session.answer(pending)

    async def _advance(self, pending: Pending) -> tuple[list[Any], Burst | None]:
        try:
            try:
                answer: Answer = await self._session.answer(pending)
            except ReplyTooBig as surprise:
                await self._reopen()
                return self._steps.throw(surprise)
            return self._steps.send(answer)
        except ReplyError as reply:
            if not _is_another(reply):
                raise server_error(
                    reply, node=self._session.node, key=self._parts.key, command=self._kind.command
                ) from reply
            self._replaced = True
            return [], None

    async def _reopen(self) -> None:
        """After a reply that was too big. Raises ConnectionLost where another process answers by now."""
        session = self._session
        before = await session.identified(self._who) if self._who is not None else None
        session.identity = None  # where the server does not tell, the loop goes on all the same
        await session.reopen()
        self._watching = False
        if before is not None and before.run_id is not None:
            self._who = session.ask_who()
            if (await session.identified(self._who)).run_id != before.run_id:
                text = "the server was restarted while a big value was read; its cursors are lost"
                raise ConnectionLost(text, node=session.node, key=self._parts.key)

    async def _end(self) -> None:
        """Says in `torn` whether what was delivered may not fit together."""
        torn = True if self._replaced else await self._touched()
        if torn and not self._came and (self._replaced or await self._is_gone()):
            self._values.gone(self._parts)
        else:
            self._parts.torn = torn
            self._values.torn += bool(torn)
        self.abort()

    async def _is_gone(self) -> bool:
        return bool((await self._ask(command(b"EXISTS", self._parts.key))).replies[0] == 0)

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
        if self._open is not None:
            self._open.drop()


def _steps(kind: Datatype, key: bytes, chunk: int, *, detailed: bool) -> Steps:
    """The steps over a big value, with what its elements have beside them where that is wanted."""
    steps = kind.parts(key, chunk)
    if not detailed or kind.name not in ("hash", "stream"):
        return steps
    return details.with_expiry(steps, key) if kind.name == "hash" else details.with_pending(steps, key)


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
