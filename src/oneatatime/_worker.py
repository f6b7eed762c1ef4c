"""What each task of a stream does: read one partition, or the keys that somebody gives.

The write order is what keeps the server busy: as soon as a page of keys has come, one write asks for
the next page and for this page's values, and the server works on them while this side unpacks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ._connection import Connection
from ._endpoint import Endpoint
from ._errors import Error, InvalidInput, PermissionDenied, ProtocolViolation, ServerFailure
from ._fetch import Batches, Fetch
from ._flow import Flow
from ._options import MiB, Options, Selection
from ._partition import POSITIONS, plan
from ._parts import BigValues
from ._record import Batch
from ._request import Burst, ReplyTooBig
from ._scan import Border, Scan
from ._session import Pending, Session, info
from ._shape import SECONDS_PER_BUCKET, Shapes
from ._source import KeySource
from ._width import Width
from .datatypes import datatype

Spawn = Callable[[Coroutine[Any, Any, None]], None]

log = logging.getLogger("oneatatime")

_LEAST_TO_SPLIT = 4000  # keys that a range must have left to be worth another connection
_MEMORY_CHECK = 1.0  # seconds between looks at a server that evicts when it is full
_CAUTION = 8  # a server that evicts when it is full is asked for so many times less at once
_HEADROOM = 0.1  # share of maxmemory that must be free before a reply is asked for that nobody bounds
_LEAST_HEADROOM = 256 * MiB

_MISFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What Python raises over a reply that is valid RESP and nothing that the command asked for could give."""


@dataclass
class Server:
    """What was found out about the server when the stream began, and is looked at again."""

    keys: int | None = None
    run_id: bytes | None = None
    evicts: bool = False
    roomy: bool = True
    looked: float = 0.0

    def take_memory(self, fields: dict[str, str]) -> None:
        """Whether it has memory to spare: a reply counts as used memory, and can evict keys."""
        if not fields:  # it does not tell: better slow than sorry
            self.roomy = False
            return
        most = int(fields.get("maxmemory", 0))
        self.evicts = most > 0 and fields.get("maxmemory_policy", "noeviction") != "noeviction"
        free = most - int(fields.get("used_memory", 0))
        self.roomy = not self.evicts or free > max(_HEADROOM * most, _LEAST_HEADROOM)
        self.looked = time.monotonic()


@dataclass
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
    server: Server = field(default_factory=Server)
    width: Width = field(init=False)
    scans: list[Scan] = field(default_factory=list)
    way: float = float("inf")  # seconds to the server and back
    done: int = 0  # positions of the scans that have come to their end
    fetches: list[Fetch] = field(default_factory=list)

    def __post_init__(self) -> None:
        types = self.selection.types
        self.flow = Flow(self.options.ahead)
        self.values = BigValues(self.endpoint, self.options, self.selection, self.flow.traffic)
        self.width = Width(self.options.ranges, self.options.most_ranges)
        told = self.selection.keys is None and len(types) == 1
        self.shapes = Shapes(datatype(types[0]) if told else None)

    def session(self) -> Session:
        return Session(self.endpoint, self.options, self.flow.traffic)

    def fetch(self) -> Fetch:
        # the functions hold none of self, or a dropped stream would wait for the collector
        options, server, scans = self.options, self.server, self.scans
        fetch = Fetch(
            self.selection,
            self.options,
            self.shapes,
            node=self.endpoint.node,
            parts=self.values.parts,
            roomy=lambda: server.roomy,
            burst=lambda: _burst(options, server, len(scans)),
            keep_missing=self.keep_missing,
        )
        self.fetches.append(fetch)
        return fetch

    @property
    def fraction(self) -> float:
        """How much of the database has been scanned, from 0 to 1."""
        return (self.done + sum(scan.done for scan in self.scans)) / POSITIONS

    async def read_database(self, spawn: Spawn) -> None:
        """Looks at the server, then reads it: the first partition here, `spawn` for each of the others."""
        session, border = self.session(), Border()
        try:
            await self.look(session, await session.open())
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

    def measure(self, scanned: int, read: int, round_trip: float) -> None:
        """After a page: how many such pages should be under way."""
        self.way = min(self.way, round_trip)  # of all connections: a busy loop makes a short way look long
        weight = int(read * self.shapes.bytes_per_key) if not self.names_only else 0
        work = scanned * SECONDS_PER_BUCKET + read * self.shapes.work_per_key
        self.width.saw(work, self.way, self.options.ahead // max(weight, 1))

    def widen(self, spawn: Spawn) -> None:
        """Splits a range where more of them are needed to keep the server busy."""
        if self.options.ranges == 1 or self.flow.full or len(self.scans) >= self.width.target:
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
            await self.look(session, await session.open())
            if source.needs_pulling:
                spawn(pull(source))
            spawn(begin_pages(self, source, session, begun))
            await finish_pages(self, session, begun)
        finally:
            session.abort()

    async def look(self, session: Session, connection: Connection) -> None:
        """Finds out what the server is. Raises InvalidInput for a part of a bigger deployment."""
        try:
            await self._look(session, connection)
        except Error:
            raise
        except _MISFIT as error:
            raise _not_fitting(error, session.node) from error

    async def _look(self, session: Session, connection: Connection) -> None:
        mode = connection.hello.get("mode")
        if mode is None:
            mode = await _mode(connection)
        if mode == "cluster":
            text = (
                "this is one node of a cluster and holds only a part of its keys; clusters are not read yet"
            )
            raise InvalidInput(text, node=connection.node)
        if mode == "sentinel":
            text = "this is a Sentinel, which holds no keys; give the address of the server it watches"
            raise InvalidInput(text, node=connection.node)
        if connection.touches:
            log.info("%s has no CLIENT NO-TOUCH: reading values moves its LRU clock", connection.node)
        self.server.run_id = await session.identify()
        try:
            self.server.keys = await connection.call(b"DBSIZE")
        except PermissionDenied:
            log.debug("DBSIZE is not allowed: the total can only be estimated")
        self.server.take_memory(await _info(connection, "memory"))

    async def look_at_memory(self, connection: Connection) -> None:
        """Looks again whether a server that evicts has memory to spare, about once a second."""
        if self.server.evicts and time.monotonic() - self.server.looked > _MEMORY_CHECK:
            self.server.take_memory(await _info(connection, "memory"))


def _burst(options: Options, server: Server, ranges: int) -> int:
    """Bytes to ask for at a time: what may be read ahead is shared by all ranges."""
    shared = min(options.burst, options.ahead // max(ranges, 1))
    return shared if server.roomy else shared // _CAUTION


async def read_partition(work: Work, scan: Scan, session: Session, spawn: Spawn) -> None:
    """SCAN and fetch over one cursor range, page by page, to its end."""
    fetch = work.fetch()
    (asked,) = session.send(scan.request())
    while not scan.finished:
        count, keys = scan.count, await _page(session, scan, asked)
        if not work.names_only:
            scan.aim(work.shapes.page(work.options.count), work.options.count)
        steps = _steps(work, fetch, keys, by_type=scan.by_type)
        first = next(steps, None)
        bursts = [] if scan.finished else [scan.request()]
        if isinstance(first, Burst):
            bursts.append(first)
        sent = session.send(*bursts) if bursts else []
        if not scan.finished:
            asked = sent[0]
        await drive(work, session, steps, first, sent[-1] if isinstance(first, Burst) else None)
        work.measure(count, len(keys), session.connection.round_trip)
        work.widen(spawn)
        await work.look_at_memory(session.connection)
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
) -> None:
    """Runs a fetch to its end: sends its bursts, gives it the answers, hands its batches over.

    `item` is what it yielded first; `sent` the same, where it has been sent already.
    """
    try:
        while item is not None:
            if isinstance(item, Batch):
                await work.flow.put(item)
                item = next(steps)
                continue
            if sent is None:
                (sent,) = session.send(item)
            try:
                answer = await session.answer(sent)
            except ReplyTooBig as surprise:
                log.debug(
                    "%s: a reply of more than %d bytes was refused", session.node, work.options.reply_limit
                )
                await session.reopen()
                item = steps.throw(surprise)
            else:
                item = steps.send(answer)
            sent = None
    except StopIteration:
        return
    except Error:
        raise
    except _MISFIT as error:
        raise _not_fitting(error, session.node) from error


# The keys that somebody gives: one task begins pages, the other finishes them in order


@dataclass
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


@dataclass
class _BegunPage:
    keys: int
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
            keys = await source.take(work.shapes.page(work.options.count), work.options.burst)
            if not keys:
                break
            steps = _steps(work, fetch, keys, by_type=False)
            first = next(steps, None)
            sent = session.send(first)[0] if isinstance(first, Burst) else None
            begun.pages.put_nowait(_BegunPage(len(keys), steps, first, sent))
    except Exception as error:  # noqa: BLE001 - raised when the pages before it are finished
        begun.pages.put_nowait(error)
    else:
        begun.pages.put_nowait(None)


async def finish_pages(work: Work, session: Session, begun: Begun) -> None:
    """Hands over the values of one page after the other."""
    while (page := await begun.pages.get()) is not None:
        if isinstance(page, Exception):
            raise page
        await drive(work, session, page.steps, page.first, page.sent)
        work.measure(0, page.keys, session.connection.round_trip)
        begun.pages.task_done()
        begun.finished_one()
        await work.look_at_memory(session.connection)


def _not_fitting(error: Exception, node: str) -> ProtocolViolation:
    return ProtocolViolation(f"a reply does not fit the question: {error!r}", node=node)


async def _mode(connection: Connection) -> str:
    """What a server greeted in RESP2 is: INFO tells, or a HELLO without a number, which only asks."""
    mode = (await _info(connection, "server")).get("redis_mode")
    if mode is None:
        try:
            told = await connection.call(b"HELLO")
        except (PermissionDenied, ServerFailure) as error:
            text = "it cannot be told whether this is a node of a cluster: allow the user +info"
            raise PermissionDenied(text, node=connection.node, command="INFO") from error
        mode = dict(zip(told[::2], told[1::2])).get(b"mode", b"standalone").decode()
    return mode


async def _info(connection: Connection, section: str) -> dict[str, str]:
    try:
        return info(await connection.call(b"INFO", section.encode()))
    except (PermissionDenied, ServerFailure) as error:
        log.debug("INFO %s: %s", section, error)
        return {}
