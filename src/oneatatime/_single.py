"""Reading one database of one server, or of the primary that Sentinel names: ranges of one process's cursors.

A cursor means something only to the process that gave it. So every connection is asked for its run id;
where another process answers, the database is read again from the start. At the end, and about once a
second, the server is asked whether it still is what it was: a primary that became a replica is filled
anew, and what it has then says nothing of what it had.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from ._cursor import POSITIONS, Range, cut, joined, without
from ._errors import ConnectionLost, Incomplete, PlanOutdated, ServerUnready
from ._node import OUT_OF_REACH, Node, Outage
from ._pages import Between, read_pages
from ._scan import Border, Disordered, Scan
from ._session import Identity, Session
from ._survey import count
from ._unique import Seen, seen
from ._work import Spawn, Work

log = logging.getLogger("oneatatime")

_LOOK_EVERY = 1.0  # seconds between looks at who answers
_MOST_RESTARTS = 20
_NEARLY = 0.999  # done, when all has been asked for, but not all has been answered

Find = Callable[[], Awaitable[Node]]
"""Which server to read: always the same one, or whom Sentinel names now."""


class _Replaced(Exception):
    """What was being read has become meaningless: another process answers by now."""


class Database:
    """One database, and what of it is still to be read.

    `part` is the range that is wanted; `done` what was read of it before, in the process `run_id`. Where
    `part` is not everything, only that process can give it. `first` is a connection that there is already.
    """

    def __init__(
        self,
        work: Work,
        find: Find,
        db: int,
        *,
        part: Range | None = None,
        done: list[Range] | None = None,
        run_id: str | None = None,
        first: Session | None = None,
    ) -> None:
        self.db = db
        self.over = False
        self._work = work
        self._find = find
        self._part = part or Range()
        self._done = done or []
        self._bound_to = run_id
        self._first = first
        self._identity: Identity | None = None
        self._ordered = True  # its cursors move as Redis's do
        self._node: Node | None = None
        self._scans: list[Scan] = []  # all of this process, read or not
        self._waiting: list[Scan] = []
        self._live = self._workers = 0
        self._restarts = 0
        self._outage = Outage(work.options.patience)
        self._in_doubt = ""  # why whoever answers next may not have what was read
        self._looked = 0.0
        self._seen: Seen | None = seen(_where(work)) if work.selection.unique else None
        self._ended: asyncio.Future[None] | None = None

    # How far it is

    @property
    def fraction(self) -> float:
        """How much has been read, of what is wanted."""
        if self.over:
            return 1.0
        read = sum(scan.done for scan in self._scans) + sum(one.end - one.start for one in self._done)
        return min(read / (self._part.end - self._part.start), _NEARLY)

    @property
    def settled(self) -> tuple[str | None, list[Range]]:
        """The process, and the ranges of it that the loop has finished with."""
        whole = all(scan.settled >= scan.range.end for scan in self._scans)
        read = [scan.range if whole else scan.proven for scan in self._scans if whole or self._ordered]
        run_id = self._identity.run_id if self._identity is not None else self._bound_to
        return run_id, joined([*self._done, *read])

    @property
    def all_settled(self) -> bool:
        """Whether the loop has finished with all of it."""
        return self.over and self.settled[1] == [self._part]

    # Workers

    async def read(self, spawn: Spawn) -> None:
        """Reads it to its end, here and in as many workers as that takes."""
        self._ended = asyncio.get_running_loop().create_future()
        self._workers += 1
        await self._worker(spawn)
        if not self.over:
            await self._ended

    def _send(self, spawn: Spawn) -> None:
        self._workers += 1
        spawn(self._worker(spawn))

    async def _worker(self, spawn: Spawn) -> None:
        """Reads ranges, until there are none that nobody reads."""
        session: Session | None = None
        scan: Scan | None = None
        try:
            while not self.over:
                try:
                    if session is None:
                        session = await self._connect(spawn)
                    if session is None:
                        return
                    scan = scan if scan in self._scans else self._next()
                    if scan is not None:
                        await self._read(scan, session, spawn)
                        scan = None
                    elif self._busy:
                        return  # the others are at the rest of it
                    else:
                        await self._conclude(session, spawn)
                except _Replaced:
                    scan = None
                    if self._identity is not None and self._identity.run_id is None:
                        self._lost(session)  # nothing tells whether it leads to the process that is read now
                        session = None
                except Disordered as error:
                    if scan in self._scans:  # or another worker has met the same
                        self._take_whole(error, spawn)
                    scan = None
                except OUT_OF_REACH as error:
                    self._lost(session)
                    session = None
                    await self._wait(error)
        finally:
            if scan is not None and scan in self._scans:
                self._waiting.append(scan)
            self._lost(session)
            self._workers -= 1
            if self.over and not self._workers and self._seen is not None:
                self._seen.close()  # not before: who gave up may not have been the last

    def _lost(self, session: Session | None) -> None:
        if session is not None:
            if session.connection.dead and self._identity is not None and self._identity.run_id is None:
                self._in_doubt = "another server process answers, for all that can be known without INFO"
            session.abort()
            self._live -= 1

    async def _wait(self, error: Exception) -> None:
        """Before another attempt at a server that is out of reach. Raises what ends the attempts."""
        outage = self._outage
        outage.noted(error)
        if self._node is not None:
            self._node.outage.noted(error)
        if self._work.options.on_unreachable == "fail" or outage.too_long:
            where = self._node.name if self._node is not None else self._work.deployment.name
            self._work.gives_up(f"database {self.db} of {where}", error)
            self._end()
        elif not self.over:
            log.debug("out of reach: %s", error)
            await outage.rest()

    def _next(self) -> Scan | None:
        return self._waiting.pop(0) if self._waiting else None

    @property
    def _busy(self) -> bool:
        """Whether somebody is still reading a range."""
        return any(not scan.finished or scan.in_hand for scan in self._scans)

    async def _read(self, scan: Scan, session: Session, spawn: Spawn) -> None:
        node = self._node
        assert node is not None, "connected before it is read"
        fetch = self._work.fetch(node, fresh=self._seen.fresh if self._seen is not None else None)

        async def after_page() -> None:
            self._outage.over()
            node.outage.over()
            if self.over or scan not in self._scans:
                raise _Replaced
            if scan.disordered:
                self._is_not_ordered()
            self._work.flow.note(scan, scan.reached)
            self._widen(node, spawn)
            if time.monotonic() - self._looked > _LOOK_EVERY:
                await self._look(session, spawn)

        node.scans.append(scan)
        try:
            await read_pages(self._work, node, scan, session, fetch, db=self.db, between=Between(after_page))
        finally:
            node.scans.remove(scan)

    def _widen(self, node: Node, spawn: Spawn) -> None:
        if self._work.idle or not self._ordered:
            return
        node.workers = self._workers
        widest = node.widest(1 / POSITIONS)
        other = widest.split() if widest is not None else None
        if other is not None:
            self._scans.append(other)
            self._waiting.append(other)
            self._send(spawn)

    # Who answers

    async def _connect(self, spawn: Spawn) -> Session | None:
        """A connection to the server, if it is the process whose cursors these are; else all begins anew.

        None where this connection is not needed: the others have the right one.
        """
        session, self._first = self._first, None
        node = await self._find()
        session = session or node.session()
        try:
            if not session.opened:
                await session.open()
            identity = await session.identify()
            self._check_role(identity, node)
            if self._identity is None:
                await node.survey.look(session)
                self._begin(node, identity)
                self._plan(spawn)
            elif why := self._in_doubt or identity.changed(self._identity):
                if self._live and not self._in_doubt:
                    session.abort()
                    return None
                self._node, self._in_doubt = node, ""
                self._restart(identity, why, spawn)
            self._node = node
            self._live += 1
        except BaseException:
            session.abort()
            raise
        return session

    def _begin(self, node: Node, identity: Identity) -> None:
        self._node = node
        self._recognise(identity)
        account = self._work.account
        account.nodes[node.name] = None
        if node.survey.keys is not None:
            account.keys_at_start = (account.keys_at_start or 0) + node.survey.keys
        if identity.run_id is None or identity.run_id != self._bound_to:
            if self._bound_to is not None and self._part != Range():
                self._outdated(node)
            if self._done:
                why = "the server was restarted meanwhile"
                why += "" if identity.run_id else ", for all that can be known without INFO"
                account.again(f"database {self.db} of {node.name}", why)
            self._done = []
        if not self._ordered and self._done != [self._part]:
            self._done = []

    def _recognise(self, identity: Identity) -> None:
        self._identity = identity
        if identity.own_cursors:
            self._is_not_ordered()

    @property
    def _known(self) -> Identity:
        assert self._identity is not None, "connected before it is looked at"
        return self._identity

    def _outdated(self, node: Node) -> None:
        text = (
            f"database {self.db} of {node.name} is served by another process than when it was cut into "
            "partitions, and they mean nothing to it: plan them again"
        )
        raise PlanOutdated(text, node=node.name, missing=(f"a part of database {self.db} of {node.name}",))

    def _check_role(self, identity: Identity, node: Node) -> None:
        """Raises ServerUnready for a server that may not have what its primary has."""
        if identity.is_replica and not identity.in_sync:
            if self._identity is not None:
                self._in_doubt = "it was out of sync meanwhile, and may have been emptied"
            raise ServerUnready("this replica is not in sync with its primary", node=node.name)
        known, work = self._identity, self._work
        from_replica = work.options.read_from == "replica" or work.deployment.replica
        if identity.is_replica and work.deployment.kind == "sentinel" and not from_replica:
            raise ServerUnready("Sentinel names it the primary, and it is a replica", node=node.name)
        if known is not None and identity.is_replica and not known.is_replica:
            raise ServerUnready("the server has become a replica, and follows another one", node=node.name)

    async def _look(self, session: Session, spawn: Spawn) -> None:
        """Makes sure that the server is what it was. Raises _Replaced where it is not."""
        self._looked = time.monotonic()
        identity = await session.identify()
        assert self._node is not None, "connected before it is looked at"
        if await self._find() is not self._node:
            raise ConnectionLost("another server is the primary of this service by now", node=self._node.name)
        self._check_role(identity, self._node)
        if why := identity.changed(self._known):
            self._restart(identity, why, spawn)
            raise _Replaced
        self._identity = identity

    async def _conclude(self, session: Session, spawn: Spawn) -> None:
        """At the end: it has been the same server all the time, or all begins anew."""
        await self._look(session, spawn)
        keys = await count(session.connection)
        account = self._work.account
        if self.over:  # another worker was quicker
            return
        if keys is not None:
            account.keys_at_end = (account.keys_at_end or 0) + keys
        self._end()

    def _end(self) -> None:
        self.over = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # What is to be read

    def _plan(self, spawn: Spawn) -> None:
        wanted = without(self._part, self._done)
        ranges = self._work.options.ranges if self._ordered else 1
        if len(wanted) < ranges and wanted:
            widest = max(wanted, key=lambda one: one.end - one.start)
            wanted.remove(widest)
            wanted += cut(widest, ranges - len(wanted))
        self._scans = self._bordered(sorted(wanted))
        self._waiting = list(self._scans)
        for _ in range(min(ranges, len(self._scans)) - self._workers):
            self._send(spawn)

    def _bordered(self, ranges: list[Range]) -> list[Scan]:
        """A scan of each range. They share one border: a page of a small table may run over several."""
        assert self._node is not None, "connected before it is planned"
        selection, most, node = self._work.selection, self._work.options.count, self._node.name
        border = Border()
        scans = []
        for part in ranges:
            before = border if any(other.end == part.start for other in ranges) else None
            after = border if any(other.start == part.end for other in ranges) else None
            outer = next(one.end for one in joined(ranges) if part.start < one.end)
            scans.append(Scan(part, selection, most, before=before, after=after, outer=outer, node=node))
        return scans

    def _restart(self, identity: Identity, why: str, spawn: Spawn) -> None:
        """What was read means nothing to this process: everything again."""
        node = self._node
        assert node is not None, "connected before it is read again"
        self._restarts += 1
        if self._part != Range() and self._bound_to is not None:
            self._outdated(node)
        missing = f"database {self.db} of {node.name}"
        if self._restarts > _MOST_RESTARTS:
            text = f"{missing} was begun {_MOST_RESTARTS} times, and given up each time: {why}"
            raise Incomplete(text, node=node.name, missing=(missing,))
        read = 0 if self._seen is not None else sum(scan.seen for scan in self._scans)
        self._work.account.again(missing, why, read)
        log.info("%s is read again from the start: %s", missing, why)
        self._done = []
        self._recognise(identity)
        self._work.account.nodes[node.name] = None
        self._plan(spawn)

    def _is_not_ordered(self) -> None:
        self._ordered, self._work.account.best_effort = False, True

    def _take_whole(self, error: Disordered, spawn: Spawn) -> None:
        """This server's cursors cannot be cut into ranges: the database is one, and its own affair."""
        if not self._ordered or self._part != Range():
            raise error.violation
        self._is_not_ordered()
        log.warning("%s", error)
        self._done = []
        self._plan(spawn)


def _where(work: Work) -> str:
    return "disk" if work.selection.unique == "disk" else "memory"
