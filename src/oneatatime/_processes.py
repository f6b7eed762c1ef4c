"""A deployment read by several processes: each is given one partition after the other, and sends batches.

There are more partitions than processes, so that they balance. What a process that was killed had not told
to be done is read again by another. All that costs much happens there: replies, values, text. Here batches
are unpacked and handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace

from ._checkpoint import Checkpoint, Progress
from ._child import Child, started
from ._cursor import POSITIONS
from ._deployment import Deployment
from ._discovery import ClusterMap
from ._errors import Incomplete, PlanOutdated, ProcessLost
from ._fetch import rows_of
from ._in_process import Job, Report, read_partitions
from ._node import OUT_OF_REACH, Outage
from ._options import MiB, Options
from ._packed import unpack
from ._partition import Partition
from ._parts import Locate
from ._plan import aplan
from ._reader import Reader
from ._record import Batch, Parts
from ._session import Identity
from ._share import Share, left_of, together
from ._slot import ALL_SLOTS, SLOTS, bits
from ._survey import count
from ._unique import Seen, seen
from ._work import Spawn, Work
from .datatypes import datatype

log = logging.getLogger("oneatatime")

_SHARES = 8  # partitions for each process
_LEAST_KEYS = 2000  # of a partition: below that its connections cost more than they read
MOST_LOST = 3  # processes in a row that are lost over one partition without getting further: that ends it
_MOST_PLANS = 20


class Processes(Reader):
    """The reading of all of a deployment by so many processes."""

    def __init__(self, work: Work, processes: int, resume: Checkpoint | None = None) -> None:
        super().__init__(work, None, None, resume)
        self._processes = processes
        self._shares: list[Share] = []
        self._waiting: list[Share] = []
        self._plans = 0
        self._living = 0
        self._ended: asyncio.Future[None] | None = None
        self._identity: Identity | None = None
        self._seen: dict[int, Seen] = {}
        self._places: dict[int, Locate] = {}
        self._cluster = False

    # How far it is

    @property
    def fraction(self) -> float:
        """How much has been read, from 0 to 1."""
        return sum(share.fraction for share in self._shares) / max(len(self._shares), 1)

    @property
    def not_begun(self) -> tuple[str, ...]:
        """What was not read to its end, in words, but for what has failed."""
        return tuple(str(share) for share in self._shares if not (share.over or share.failed))

    @property
    def progress(self) -> dict[int, Progress]:
        """What the loop has finished with, by database."""
        return together(self._shares, self._before)

    # Reading

    async def read(self, spawn: Spawn) -> None:
        """Reads everything, in a task for each process."""
        try:
            self._cluster = await self._first_contact() == "cluster"
        finally:
            if self._opened is not None:
                self._opened.abort()
        if self._resume is not None:
            self._resume.check_where(self._where)
        self.work.values.redirected = self._cluster
        self.work.account.keys_at_start = await self._count()
        with self._remembering():
            await self._plan()
            while True:
                self._ended = asyncio.get_running_loop().create_future()
                self._send(spawn)
                if self._living:
                    await self._ended
                self._check_all_over()
                why = await self._changed()
                if not why:
                    break
                await self._plan_again(self._plans, why)
            self.work.account.keys_at_end = await self._count()

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        finally:
            for one in self._seen.values():
                one.close()

    def _send(self, spawn: Spawn) -> None:
        """Sees to it that as many processes read as there is work for."""
        for _ in range(min(self._processes - self._living, len(self._waiting))):
            self._living += 1
            spawn(self._worker(spawn))

    def _check_all_over(self) -> None:
        if left := [str(share) for share in self._shares if not share.over]:
            raise Incomplete(f"{len(left)} partitions were not read to their end", missing=tuple(left))

    async def _worker(self, spawn: Spawn) -> None:
        """Reads partitions in a process, and in another where that is lost, until there are none."""
        try:
            while self._waiting:
                what, ahead = f"reads {self.work.deployment.name}", min(MiB, self.work.options.ahead)
                async with await started(read_partitions, self._job(), what=what, ahead=ahead) as child:
                    await self._in(child, spawn)
        finally:
            self._living -= 1
            if not self._living and self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    def _job(self) -> Job:
        work = self.work
        selection = replace(work.selection, unique=False)  # that is seen to here, where all come together
        options = shared(work.options, self._processes)
        return Job(selection, options, work.names_only, names=bool(work.selection.unique))

    async def _in(self, child: Child, spawn: Spawn) -> None:
        """Has partitions read by a process, as long as there are any and it lives."""
        while self._waiting:
            share, plan = self._waiting.pop(0), self._plans
            try:
                await self._have_read(share, child)
            except ProcessLost as error:
                self._lost(share, error)
                return
            except PlanOutdated as error:
                if share.is_piece:
                    self._take_whole_slot(share, error)
                else:
                    await self._plan_again(plan, error.message)
                    self._send(spawn)
                return
            except Exception:
                share.failed = True
                raise
        child.send(None)
        await child.finished()

    async def _have_read(self, share: Share, child: Child) -> None:
        work = self.work
        share.begin()
        child.send((share.partition, share.read))
        while not share.over:
            got = await child.receive()
            if isinstance(got, Report):
                work.values.torn += share.heard(got, work.account, work.asides)
                work.flow.note(share, got.progress)
            elif got is not None:
                batch = self._fresh(unpack(got, self._parts))
                share.since += len(batch)
                await work.flow.put(batch)
            else:
                raise ProcessLost("a process ended before it had read what it was given")

    def _lost(self, share: Share, error: ProcessLost) -> None:
        """A process was killed: what it had not told to be done is read again by another."""
        log.info("%s: %s", share, error)
        if share not in self._shares:
            return
        share.lost += 1
        if share.lost >= MOST_LOST:
            share.failed = True
            text = f"{share}: {share.lost} processes in a row ended over it: {error.message}"
            raise Incomplete(text, missing=(str(share),)) from error
        self.work.account.again(str(share), error.message, 0 if self.work.selection.unique else share.since)
        self._waiting.insert(0, share)

    # What comes

    def _fresh(self, batch: Batch) -> Batch:
        """Those of a batch that did not come before, where that is asked for."""
        unique = self.work.selection.unique
        if not unique or not len(batch):
            return batch
        db = batch.metadata["db"][0] if batch.metadata and "db" in batch.metadata else 0
        if db not in self._seen:
            self._seen[db] = seen("disk" if unique == "disk" else "memory")
        names, batch.names = batch.names or batch.keys, None
        fresh = self._seen[db].fresh(names)
        if len(fresh) == len(batch):
            return batch
        self.work.account.repeats += len(batch) - len(fresh)
        return batch.of(rows_of(fresh, names))

    def _parts(self, key: bytes, kind: str, size: int, db: int | None) -> Parts:
        """A value that was too big to hold there too: it is read over connections from here."""
        db = self.work.deployment.login.db if db is None else db
        if db not in self._places:
            self._places[db] = self._map_of(db).locate if self._cluster else self._locator(db)
        self.work.values.locate = self._places[db]
        return self.work.values.parts(key, datatype(kind), size)

    def _map_of(self, db: int) -> ClusterMap:
        return self._map if db == self.work.deployment.login.db else self._map.of(db)

    # The plan

    async def _plan(self) -> None:
        """Cuts everything into partitions, and finds out what of them was done before."""
        partitions = await self._partitions()
        if not self._cluster:
            self._identity = await self._who()
        self._forget_others(partitions)
        self._shares = []
        for partition in partitions:
            done, whole = left_of(partition, self._before)
            share = Share(partition, done)
            share.over = whole
            share.fraction = float(whole)
            self._shares.append(share)
        self._waiting = [share for share in self._shares if not share.over]

    async def _partitions(self) -> list[Partition]:
        work, outage = self.work, Outage(self.work.options.patience)
        pieces, keys = self._processes * _SHARES, work.account.keys_at_start
        if keys is not None:
            pieces = max(min(pieces, keys // _LEAST_KEYS), self._processes)
        db = "all" if work.selection.all_dbs else None
        while True:
            try:
                return await aplan(work.deployment, pieces, db=db, options=work.options)
            except OUT_OF_REACH as error:
                if self._cluster:  # its slots are known; those of a node that is gone are waited for later
                    return evenly(work.deployment, pieces, all_dbs=work.selection.all_dbs)
                outage.noted(error)
                if work.options.on_unreachable == "fail" or outage.too_long:
                    work.gives_up(f"what is in {work.deployment.name}", error)
                    return []
                await outage.rest()

    def _forget_others(self, partitions: list[Partition]) -> None:
        """What was read in another server process is worth nothing in this one."""
        run_ids = {one.run_id for one in partitions}
        for db, one in list(self._before.items()):
            if one.ranges and not one.done and one.run_id not in run_ids and partitions:
                what = f"database {db} of {self.work.deployment.name}"
                self.work.account.again(what, "the server was restarted meanwhile")
                del self._before[db]

    async def _plan_again(self, plan: int, why: str) -> None:
        """The server is another by now: everything is read again, unless somebody has seen to it."""
        if plan < self._plans:
            return
        self._plans += 1
        self._waiting = []
        what = f"what is in {self.work.deployment.name}"
        if self._plans > _MOST_PLANS:
            text = f"{what} was begun {_MOST_PLANS} times, and given up each time: {why}"
            raise Incomplete(text, missing=(what,))
        came = 0 if self.work.selection.unique else sum(share.came for share in self._shares)
        self.work.account.again(what, why, came)
        self._before = {db: one for db, one in self._before.items() if one.done}
        await self._plan()

    def _take_whole_slot(self, share: Share, error: PlanOutdated) -> None:
        """A slot was cut into pieces in a process that is gone: it is read whole, wherever it is now."""
        if share not in self._shares:
            return
        pieces = [one for one in self._shares if one.partition.slots == share.partition.slots]
        whole = Share(replace(share.partition, start=0, end=POSITIONS, run_id=None), {})
        self.work.account.again(str(whole), error.message, sum(one.came for one in pieces))
        for shares in (self._shares, self._waiting):
            shares[:] = [one for one in shares if one not in pieces] + [whole]

    # One server

    async def _who(self) -> Identity | None:
        """The server that answers, where there is one; None where it is out of reach."""
        try:
            session = (await self._find_server()).session()
            try:
                await session.open()
                return await session.identify()
            finally:
                session.abort()
        except OUT_OF_REACH as error:
            log.debug("out of reach: %s", error)
            return None

    async def _changed(self) -> str:
        """Why the server is not what it was when all this was planned; else nothing."""
        if self._cluster or self._identity is None or self._identity.run_id is None:
            return ""
        now = await self._who()
        return now.changed(self._identity) if now is not None else ""

    async def _count(self) -> int | None:
        """How many keys there are, as far as the servers tell."""
        total = 0
        for db in self._databases:
            try:
                keys = await (self._count_cluster(db) if self._cluster else self._count_one(db))
            except OUT_OF_REACH as error:
                log.debug("keys were not counted: %s", error)
                return None
            if keys is None:
                return None
            total += keys
        return total

    async def _count_cluster(self, db: int) -> int | None:
        found = self._map_of(db)
        await found.find()
        return await found.count(ALL_SLOTS)

    async def _count_one(self, db: int) -> int | None:
        session = (await self._finder(db)()).session()
        try:
            await session.open()
            return await count(session.connection)
        finally:
            session.abort()


def shared(options: Options, processes: int) -> Options:
    """What each of several processes may do, so that they keep to these together."""
    limits = {name: getattr(options, name) for name in ("rate", "bandwidth", "max_load")}
    return replace(options, **{name: most / processes for name, most in limits.items() if most is not None})


def evenly(deployment: Deployment, pieces: int, *, all_dbs: bool) -> list[Partition]:
    """Partitions of a cluster of which nobody says how many keys are where."""
    edges = [index * SLOTS // pieces for index in range(pieces + 1)]
    return [
        Partition(deployment, index, pieces, slots=bits(range(start, end)), all_dbs=all_dbs)
        for index, (start, end) in enumerate(itertools.pairwise(edges))
        if start < end
    ]
