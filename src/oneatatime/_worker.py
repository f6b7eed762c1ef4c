"""What each task of a stream does: read one partition, or the keys that somebody gives.

The write order is what keeps the server busy: as soon as a page of keys has come, one write asks for
the next page and for this page's values, and the server works on them while this side unpacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ._connection import Connection
from ._endpoint import Endpoint
from ._errors import fitting
from ._fetch import Batches, Fetch
from ._flow import Flow
from ._guard import Guard
from ._options import KiB, Options, Selection
from ._pace import Pace, Turn
from ._partition import POSITIONS, plan
from ._parts import BigValues
from ._record import Batch
from ._request import Burst, ReplyTooBig
from ._scan import Border, Scan
from ._session import Pending, Session
from ._shape import LONGEST_BURST, SECONDS_PER_BUCKET, WRITTEN_AT_ONCE, Shapes
from ._source import KeySource
from ._survey import Survey
from ._width import Width
from .datatypes import datatype

Spawn = Callable[[Coroutine[Any, Any, None]], None]

log = logging.getLogger("oneatatime")

_LEAST_TO_SPLIT = 4000  # keys that a range must have left to be worth another connection
_LEAST_BURST = 16 * KiB  # below that the cost of a burst weighs more than what it saves
_CAUTION = 8  # a server that evicts when it is full is asked for so many times less at once


@dataclass(eq=False, repr=False)
class Work:
    """What the workers of one stream share. It knows nothing of the stream, which may be dropped."""

    endpoint: Endpoint
    options: Options
    selection: Selection
    names_only: bool = False
    keep_missing: bool = False
    flow: Flow = field(init=False)
    values: BigValues = field(init=False)
    shapes: Shapes = field(init=False)
    server: Survey = field(default_factory=Survey)
    width: Width = field(init=False)
    pace: Pace = field(init=False)
    guard: Guard = field(default_factory=Guard)
    scans: list[Scan] = field(default_factory=list)
    way: float = float("inf")  # seconds to the server and back
    done: int = 0  # positions of the scans that have come to their end
    fetches: list[Fetch] = field(default_factory=list)

    def __post_init__(self) -> None:
        types = self.selection.types
        self.flow = Flow(self.options.ahead)
        self.width = Width(self.options.ranges, self.options.most_ranges)
        told = self.selection.keys is None and len(types) == 1
        self.shapes = Shapes(datatype(types[0]) if told else None)
        traffic = self.flow.traffic
        self.pace = Pace(self.options, self.shapes, traffic)
        self.values = BigValues(self.endpoint, self.options, self.selection, traffic, self.pace)

    def session(self) -> Session:
        return Session(self.endpoint, self.options, self.flow.traffic)

    def fetch(self) -> Fetch:
        # the functions hold none of self, or a dropped stream would wait for the collector
        options, server, scans, pace = self.options, self.server, self.scans, self.pace
        fetch = Fetch(
            self.selection,
            self.options,
            self.shapes,
            node=self.endpoint.node,
            parts=self.values.parts,
            roomy=lambda: server.roomy,
            burst=lambda: pace.chunk(_burst(options, server, len(scans))),
            keep_missing=self.keep_missing,
        )
        self.fetches.append(fetch)
        return fetch

    @property
    def page(self) -> int:
        """How many keys to take at a time."""
        most = self.options.count if self.names_only else self.shapes.page(self.options.count)
        return self.pace.page(max(1, int(most * self.guard.ease)))

    def work(self, scanned: int, read: int) -> float:
        """Seconds of server time that a page takes, about."""
        values = 0.0 if self.names_only else read * self.shapes.work_per_key
        return scanned * SECONDS_PER_BUCKET + values

    async def turn(self, connection: Connection, scanned: int, read: int) -> Turn:
        """Waits until a page may be read: so many keys looked at by SCAN, so many values."""
        if self.guard.pause:
            await asyncio.sleep(self.guard.pause)
        size = 0.0 if self.names_only else read * self.shapes.bytes_per_key
        return await self.pace.turn(connection, keys=read, size=size, work=self.work(scanned, read))

    @property
    def fraction(self) -> float:
        """How much of the database has been scanned, from 0 to 1."""
        return (self.done + sum(scan.done for scan in self.scans)) / POSITIONS

    async def read_database(self, spawn: Spawn) -> None:
        """Looks at the server, then reads it: the first partition here, `spawn` for each of the others."""
        session, border = self.session(), Border()
        try:
            await session.open()
            await self.server.look(session)
            first, *others = [
                Scan(
                    partition,
                    self.selection,
                    self.options.count,
                    before=border,
                    after=border,
                    node=session.node,
                )
                for partition in plan(self.options.ranges)
            ]
            self.scans += [first, *others]
            for scan in others:
                spawn(self.read_partition(scan, spawn))
            await read_partition(self, first, session, spawn)
        finally:
            session.abort()

    async def read_partition(self, scan: Scan, spawn: Spawn) -> None:
        """Reads one partition over a connection of its own."""
        session = self.session()
        try:
            await session.open()
            await session.check(self.server.run_id)
            await read_partition(self, scan, session, spawn)
        finally:
            session.abort()

    def measure(self, scanned: int, read: int, bursts: int, round_trip: float) -> None:
        """After a page: how many such pages should be under way."""
        self.way = min(self.way, round_trip)  # of all connections: a busy loop makes a short way look long
        weight = int(read * self.shapes.bytes_per_key) if not self.names_only else 0
        fitting = self.options.ahead // max(weight, 1)
        self.width.saw(
            self.work(scanned, read), self.way, fitting, max(bursts, 1 + weight // WRITTEN_AT_ONCE)
        )
        self.width.ease(self.guard.ease)

    def watch(self, answered: Pending) -> None:
        """After an answer: whether the server has got slower."""
        # while the loop works on a batch it is the loop that takes its time, and the answer may lie here
        waited = min(answered.waited, self.flow.hungry)
        under_way = LONGEST_BURST * max(len(self.scans), self.width.target)
        self.guard.saw(waited, under_way, self.way)

    def widen(self, spawn: Spawn) -> None:
        """Splits a range where more of them are needed to keep the server busy."""
        if self.options.ranges == 1 or self.flow.full or self.pace.waited:
            return
        if len(self.scans) >= self.width.target:
            return
        widest = max(self.scans, key=lambda scan: scan.left)
        if widest.left / POSITIONS * (self.server.keys or 0) > max(_LEAST_TO_SPLIT, 8 * self.options.count):
            other = widest.split()
            self.scans.append(other)
            spawn(self.read_partition(other, spawn))

    async def read_keys(self, source: KeySource, spawn: Spawn) -> None:
        """Reads the keys that somebody gives, in their order."""
        session = self.session()
        begun = Begun(self.width)
        try:
            await session.open()
            await self.server.look(session)
            if source.needs_pulling:
                spawn(pull(source))
            spawn(begin_pages(self, source, session, begun))
            await finish_pages(self, session, begun)
        finally:
            session.abort()


def _burst(options: Options, server: Survey, ranges: int) -> int:
    """Bytes to ask for at a time: what may be read ahead is shared by all ranges."""
    shared = max(_LEAST_BURST, min(options.burst, options.ahead // max(ranges, 1)))
    return shared if server.roomy else shared // _CAUTION


async def read_partition(work: Work, scan: Scan, session: Session, spawn: Spawn) -> None:
    """SCAN and fetch over one cursor range, page by page, to its end."""
    fetch = work.fetch()
    scan.count = work.pace.page(scan.count)
    (asked,) = session.send(scan.request())
    while not scan.finished:
        count, keys = scan.count, await _page(session, scan, asked)
        scan.aim(work.page, work.options.count)
        turn = await work.turn(session.connection, count, len(keys))
        steps = _steps(work, fetch, keys, by_type=scan.by_type)
        first = next(steps, None)
        asking = [] if scan.finished else [scan.request()]
        if isinstance(first, Burst):
            asking.append(first)
        sent = session.send(*asking) if asking else []
        if not scan.finished:
            asked = sent[0]
        bursts = await drive(work, session, steps, first, sent[-1] if isinstance(first, Burst) else None)
        turn.end()
        work.measure(count, len(keys), bursts, session.connection.round_trip)
        work.widen(spawn)
        await work.server.look_again(session.connection)
    work.scans.remove(scan)
    work.done += scan.done


async def _page(session: Session, scan: Scan, asked: Pending) -> list[bytes]:
    """The next page of keys; smaller ones where the keys themselves are too much for one reply."""
    while True:
        try:
            return scan.take((await session.answer(asked)).replies[0])
        except ReplyTooBig:
            await session.reopen()
            scan.count = max(1, scan.count // 16)
            (asked,) = session.send(scan.request(bounded=scan.count > 1))


def _steps(work: Work, fetch: Fetch, keys: list[bytes], *, by_type: bool) -> Batches:
    if not keys:
        return _nothing()
    if work.names_only:
        return fetch.names(keys, check_types=bool(work.selection.types) and not by_type)
    return fetch.batches(keys)


def _nothing() -> Batches:
    yield from ()


async def drive(
    work: Work, session: Session, steps: Batches, item: Burst | Batch | None, sent: Pending | None
) -> int:
    """Runs a fetch to its end: sends its bursts, gives it the answers, hands its batches over.

    Returns how many bursts there were. `item` is what it yielded first; `sent` the same, where it has been
    sent already.
    """
    bursts = 0
    with fitting(session.node), contextlib.suppress(StopIteration):
        while item is not None:
            if isinstance(item, Batch):
                await work.flow.put(item)
                item = next(steps)
                continue
            bursts += 1
            if sent is None:
                await work.pace.turn(session.connection, work=item.replies * work.shapes.work_per_key)
                (sent,) = session.send(item)
            try:
                answer = await session.answer(sent)
                work.watch(sent)
            except ReplyTooBig as surprise:
                limit = work.options.reply_limit
                log.debug("%s: a reply of more than %d bytes was refused", session.node, limit)
                await session.reopen()
                item = steps.throw(surprise)
            else:
                item = steps.send(answer)
            sent = None
    return bursts


# The keys that somebody gives: one task begins pages, the other finishes them in order


@dataclass(eq=False, repr=False)
class Begun:
    """Pages that have been asked for, in their order: as many under way as `width` says."""

    width: Width
    pages: asyncio.Queue[_BegunPage | Exception | None] = field(default_factory=asyncio.Queue)
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
class _BegunPage:
    keys: int
    turn: Turn
    steps: Batches
    first: Burst | Batch | None
    sent: Pending | None


async def pull(source: KeySource) -> None:
    """Pulls an async source; closes it in the same task, for nobody else can while it runs."""
    try:
        await source.pull()
    finally:
        await source.aclose()


async def begin_pages(work: Work, source: KeySource, session: Session, begun: Begun) -> None:
    """Asks for a page of values as soon as there are keys and room for another page."""
    fetch = work.fetch()
    try:
        while True:
            await begun.room.acquire()
            if source.slow:  # it would hold up the loop: first let go what has been asked for
                await begun.pages.join()
                await asyncio.sleep(0)
            keys = await source.take(work.page, work.options.burst)
            if not keys:
                break
            turn = await work.turn(session.connection, 0, len(keys))
            steps = _steps(work, fetch, keys, by_type=False)
            first = next(steps, None)
            sent = session.send(first)[0] if isinstance(first, Burst) else None
            begun.pages.put_nowait(_BegunPage(len(keys), turn, steps, first, sent))
    except Exception as error:  # noqa: BLE001 - raised when the pages before it are finished
        begun.pages.put_nowait(error)
    else:
        begun.pages.put_nowait(None)


async def finish_pages(work: Work, session: Session, begun: Begun) -> None:
    """Hands over the values of one page after the other."""
    while (page := await begun.pages.get()) is not None:
        if isinstance(page, Exception):
            raise page
        bursts = await drive(work, session, page.steps, page.first, page.sent)
        page.turn.end()
        work.measure(0, page.keys, bursts, session.connection.round_trip)
        begun.pages.task_done()
        begun.finished_one()
        await work.server.look_again(session.connection)
