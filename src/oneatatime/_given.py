"""Reading the keys that somebody gives, in their order: one task begins pages, another finishes them.

In a cluster each page is read at all the nodes that have keys of it, and put together again. A node that
is gone is asked again when it is back, or whoever has its keys by then: nothing here depends on a cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ._errors import ServerFailure
from ._fetch import Batches, Fetch
from ._node import OUT_OF_REACH, Node
from ._pace import Turn
from ._pages import drive, steps_of
from ._record import Batch
from ._request import Burst
from ._session import Pending, Session
from ._slot import keyslot
from ._source import KeySource
from ._width import Width
from ._work import Spawn, Work
from .datatypes import values_of

log = logging.getLogger("oneatatime")

_MOST_ATTEMPTS, _AT_ONCE = 50, 2

Locate = Callable[[bytes, "str | None"], Awaitable["tuple[Node, bool]"]]


@dataclass(eq=False, repr=False)
class Begun:
    """Pages that have been asked for, in their order: as many under way as `width` says."""

    width: Width
    pages: asyncio.Queue[_Page | Exception | None] = field(default_factory=asyncio.Queue)
    room: asyncio.Semaphore = field(init=False)
    granted: int = field(init=False)

    def __post_init__(self) -> None:
        self.granted = self.width.target
        self.room = asyncio.Semaphore(self.granted)

    def finished_one(self) -> None:
        """Makes room for another page, or for several where the width has grown, or for none."""
        self.granted -= 1
        while self.granted < self.width.target:
            self.granted += 1
            self.room.release()


@dataclass(eq=False, repr=False)
class _Part:
    """What of a page is read at one node; `rows` says where its keys stand in the page."""

    at: _Place
    rows: list[int]
    keys: list[bytes]
    steps: Batches
    first: Burst | Batch | None
    sent: Pending | None


@dataclass(eq=False, repr=False)
class _Page:
    keys: list[bytes]
    parts: list[_Part]
    turn: Turn | None = None


@dataclass(eq=False, repr=False)
class _Place:
    """A node, the connection to it, and what reads there."""

    node: Node
    session: Session
    fetch: Fetch


class Given:
    """The reading of given keys. `home` is the only node, or in a cluster any of them."""

    def __init__(self, work: Work, source: KeySource, locate: Locate, home: Node, *, slotted: bool) -> None:
        self._work = work
        self._source = source
        self._locate = locate
        self._home = home
        self._slotted = slotted
        self._places: dict[tuple[Node, bool], _Place] = {}

    async def read(self, spawn: Spawn, first: Session | None = None) -> None:
        """Reads all of them; over `first`, where there is a connection already."""
        begun = Begun(self._home.width)
        try:
            await self._first_place(first)
            if self._source.needs_pulling:
                spawn(pull(self._source))
            spawn(self._begin(begun))
            await self._finish(begun)
        finally:
            for place in self._places.values():
                place.session.abort()

    async def _first_place(self, opened: Session | None) -> None:
        while True:
            try:
                await self._place(self._home, opened=opened)
            except OUT_OF_REACH as error:
                opened = None
                await self._wait(self._home, error)
            else:
                return

    async def _place(self, node: Node, *, asking: bool = False, opened: Session | None = None) -> _Place:
        """The connection to a node, opened where there is none that lives."""
        place = self._places.get((node, asking))
        if place is not None and not place.session.connection.dead:
            return place
        session = opened or node.session(asking=asking)
        place = _Place(node, session, self._work.fetch(node, slotted=self._slotted))
        try:
            if not session.opened:
                await session.open()
            session.identity = None  # no cursor binds these reads to one process
            if node.name not in self._work.account.nodes:
                await node.survey.look(session)
                self._work.account.nodes[node.name] = None
        except BaseException:
            session.abort()
            raise
        self._places[node, asking] = place
        return place

    # Beginning pages

    async def _begin(self, begun: Begun) -> None:
        """Asks for a page of values as soon as there are keys and room for another page."""
        work, source = self._work, self._source
        try:
            while True:
                await begun.room.acquire()
                if source.slow:  # it would hold up the loop: first let go what has been asked for
                    await begun.pages.join()
                    await asyncio.sleep(0)
                keys = await source.take(work.page(self._home), work.options.burst)
                if not keys:
                    break
                begun.pages.put_nowait(await self._ask(keys))
        except Exception as error:  # noqa: BLE001 - raised when the pages before it are finished
            begun.pages.put_nowait(error)
        else:
            begun.pages.put_nowait(None)

    async def _ask(self, keys: list[bytes]) -> _Page:
        page = _Page(keys, [])
        try:
            for node, rows in (await self._at_nodes(keys)).items():
                part = self._part(await self._place(node), keys, rows)
                page.parts.append(part)
                if page.turn is None:
                    page.turn = await self._work.turn(node, part.at.session.connection, 0, len(keys))
                if isinstance(part.first, Burst):
                    (part.sent,) = part.at.session.send(part.first)
        except OUT_OF_REACH as error:  # whoever finishes the page asks again
            log.debug("a page of keys could not be asked for: %s", error)
            page.parts = []
        return page

    async def _at_nodes(self, keys: list[bytes]) -> dict[Node, list[int]]:
        """The rows of a page at each node."""
        if not self._slotted:
            return {self._home: list(range(len(keys)))}
        owners: dict[int, Node] = {}
        found: dict[Node, list[int]] = {}
        for row, key in enumerate(keys):
            slot = keyslot(key)
            if slot not in owners:
                owners[slot], _ = await self._locate(key, None)
            found.setdefault(owners[slot], []).append(row)
        return found

    def _part(self, place: _Place, keys: list[bytes], rows: list[int], *, ask: bool = False) -> _Part:
        own = keys if len(rows) == len(keys) else [keys[row] for row in rows]
        steps = steps_of(self._work, place.fetch, own, by_type=False)
        part = _Part(place, rows, own, steps, next(steps, None), None)
        if ask and isinstance(part.first, Burst):
            (part.sent,) = place.session.send(part.first)
        return part

    # Finishing them

    async def _finish(self, begun: Begun) -> None:
        """Hands over the values of one page after the other."""
        work = self._work
        while (page := await begun.pages.get()) is not None:
            if isinstance(page, Exception):
                raise page
            finish = self._finish_split if self._slotted else self._finish_simple
            bursts = await finish(page)
            if page.turn is not None:
                page.turn.end()
            begun.pages.task_done()
            if (place := self._places.get((self._home, False))) is not None:
                connection = place.session.connection
                work.measure(self._home, 0, len(page.keys), bursts, connection.round_trip)
                if not connection.dead:
                    await self._look_again(place)
            begun.finished_one()

    async def _look_again(self, place: _Place) -> None:
        try:
            await place.node.look_again(place.session.connection)
        except OUT_OF_REACH as error:
            log.debug("%s is out of reach: %s", place.node.name, error)

    async def _finish_simple(self, page: _Page) -> int:
        """A page that is read at one server: its batches go straight to the loop."""
        left = page.keys

        async def put(batch: Batch) -> None:
            nonlocal left
            left = left[batch.covers :]
            self._home.outage.over()
            await self._work.flow.put(batch)

        part = page.parts[0] if page.parts else await self._once_more(left, None)
        while True:
            try:
                return await self._drive(part, put)
            except OUT_OF_REACH as error:
                part = await self._once_more(left, error)

    async def _drive(self, part: _Part, put: Callable[[Batch], Awaitable[None]]) -> int:
        place = part.at
        return await drive(self._work, place.node, place.session, part.steps, part.first, part.sent, put)

    async def _once_more(self, keys: list[bytes], error: Exception | None) -> _Part:
        """The rest of a page, asked again when the server is back."""
        while True:
            if error is not None:
                await self._wait(self._home, error)
            try:
                if error is not None:  # Sentinel may name another one by now
                    self._home, _ = await self._locate(keys[0] if keys else b"", None)
                return self._part(await self._place(self._home), keys, list(range(len(keys))))
            except OUT_OF_REACH as failure:
                error = failure

    async def _wait(self, node: Node, error: Exception) -> None:
        """Before another attempt at a server that is out of reach. Raises what ends the attempts."""
        node.outage.noted(error)
        if self._work.options.on_unreachable != "wait" or node.outage.too_long:
            raise error  # a key that is left out of a list would shift all others
        await node.outage.rest()

    async def _finish_split(self, page: _Page) -> int:
        """A page that is read at several nodes, put together in its order."""
        found: dict[int, tuple[Batch, int]] = {}
        parts, left, bursts = page.parts, dict.fromkeys(range(len(page.keys)), ""), 0
        for attempt in range(_MOST_ATTEMPTS):
            if attempt > _AT_ONCE:  # nodes may need a moment to agree on who has what
                await asyncio.sleep(min(1.0, 0.01 * 2**attempt))
            for part in parts:
                batches: list[Batch] = []
                try:
                    bursts += await self._drive(part, _collector(batches))
                    part.at.node.outage.over()
                except OUT_OF_REACH as error:
                    await self._lost(part.at, error)
                self._gather(batches, part, found, left)
            if not left:
                await self._work.flow.put(_put_together(page.keys, found))
                return bursts
            parts = await self._elsewhere(page.keys, left)
        row, said = next(iter(left.items()))
        said = said or "connections were lost"
        text = f"the key could not be read at any node in {_MOST_ATTEMPTS} attempts: {said}"
        raise ServerFailure(text, key=page.keys[row])

    async def _lost(self, place: _Place, error: Exception) -> None:
        """A connection that is gone is opened anew at once; a server that does not answer is left alone."""
        if place.session.connection.dead:
            self._places = {where: one for where, one in self._places.items() if one is not place}
        else:
            await self._wait(place.node, error)

    def _gather(
        self, batches: list[Batch], part: _Part, found: dict[int, tuple[Batch, int]], left: dict[int, str]
    ) -> None:
        """What has come of a part: only what did not come is still left, with what was said of it."""
        covered = 0
        for batch in batches:
            rows = range(batch.covers) if batch.rows is None else batch.rows
            for place, row in enumerate(rows):
                found[part.rows[covered + row]] = (batch, place)
            covered += batch.covers
        strays = part.at.fetch.strays
        for row, key in zip(part.rows[:covered], part.keys):
            if key in strays and row not in found:
                left[row] = strays[key]
            else:
                left.pop(row, None)
        for key in part.keys:
            strays.pop(key, None)

    async def _elsewhere(self, keys: list[bytes], left: dict[int, str]) -> list[_Part]:
        """The rest of a page, at the nodes that have it by now."""
        places: dict[tuple[Node, bool], list[int]] = {}
        asked = False  # who has what by now: once for all keys that got no answer
        try:
            for row, said in left.items():
                again = not said and asked
                place = await self._locate(keys[row], None if again else said)
                places.setdefault(place, []).append(row)
                asked = asked or not said
            return [
                self._part(await self._place(node, asking=arriving), keys, rows, ask=True)
                for (node, arriving), rows in places.items()
            ]
        except OUT_OF_REACH as error:
            await self._wait(self._home, error)
            return []


def _collector(batches: list[Batch]) -> Callable[[Batch], Awaitable[None]]:
    async def put(batch: Batch) -> None:
        batches.append(batch)

    return put


def _put_together(keys: list[bytes], found: dict[int, tuple[Batch, int]]) -> Batch:
    """One batch of what was read at several nodes."""
    whole = Batch([], [], [], covers=len(keys))
    values = {id(batch): list(values_of(batch)) for batch, _ in found.values()}
    assert isinstance(whole.types, list), "made here"
    for row in sorted(found):
        batch, place = found[row]
        whole.keys.append(batch.keys[place])
        whole.types.append(batch.types if isinstance(batch.types, str) else batch.types[place])
        if batch.values:
            whole.values.append(values[id(batch)][place])
        for name, column in (batch.metadata or {}).items():
            whole.metadata = whole.metadata or {}
            whole.metadata.setdefault(name, []).append(column[place])
        if batch.failed is not None and place in batch.failed:
            whole.failed = {**(whole.failed or {}), len(whole.keys) - 1: batch.failed[place]}
    whole.size = sum({id(batch): batch.size for batch, _ in found.values()}.values())
    return whole


async def pull(source: KeySource) -> None:
    """Pulls an async source; closes it in the same task, for nobody else can while it runs."""
    try:
        await source.pull()
    finally:
        await source.aclose()
