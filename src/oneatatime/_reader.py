"""Reading a deployment, whatever it turns out to be: all of its databases, or keys that somebody gives.

The rooms of clusters, Sentinels, replicas and given keys are imported where they are met: the import of this
package would take a third longer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from ._checkpoint import Checkpoint, Json, Progress, what_of
from ._connection import Connection
from ._cursor import Range
from ._endpoint import Endpoint
from ._errors import InvalidInput, ServerLoading, Unreachable
from ._node import OUT_OF_REACH, Node, Outage
from ._partition import Partition
from ._session import Session
from ._single import Database
from ._slot import ALL_SLOTS
from ._source import KeySource
from ._survey import keys_of_databases, mode_of
from ._work import Spawn, Work

if TYPE_CHECKING:
    from ._cluster import Cluster

log = logging.getLogger("oneatatime")


class Reader:
    """The reading of what a stream wants: all, or the keys of `source`, or what is in `partition`.

    `done`: what of the databases was read before, where no checkpoint says so. A partition belongs to
    something that was begun before, so a server that is away now is waited for from the first.
    """

    def __init__(
        self,
        work: Work,
        source: KeySource | None = None,
        partition: Partition | None = None,
        resume: Checkpoint | None = None,
        done: Mapping[int, Progress] | None = None,
    ) -> None:
        self.work = work
        self._source = source
        self._partition = partition
        self._resume = resume
        self._before = dict(resume.databases if resume is not None else done or {})
        self._patient = partition is not None
        self._what = what_of(work.selection, work.deployment.login.db, partition)
        self._where: Json = {}
        self._read: dict[int, Database | Cluster] = {}
        self._databases: list[int] = []
        self._opened: Session | None = None
        self._replica: Endpoint | None = None
        if resume is not None:
            resume.check_what(self._what)

    @property
    def partial(self) -> bool:
        """Whether less than everything is read."""
        return self._partition is not None or self._resume is not None

    async def read(self, spawn: Spawn) -> None:
        """Reads everything, here and in as many tasks as that takes."""
        try:
            mode = await self._first_contact()
            if self._resume is not None:
                self._resume.check_where(self._where)
            if mode == "cluster":
                await self._read_cluster(spawn)
            elif mode != "nobody":
                await self._read_server(spawn)
        finally:
            if self._opened is not None:
                self._opened.abort()

    # What it is

    async def _first_contact(self) -> str:
        """Looks who is there: "standalone" or "cluster"; "nobody" where that is to be skipped.

        A server that is loading its data is waited for.
        """
        outage = Outage(self.work.options.patience)
        passing = OUT_OF_REACH if self._patient else (ServerLoading,)
        while True:
            try:
                return await self._look()
            except passing as error:
                outage.noted(error)
                if outage.too_long or self.work.options.on_unreachable == "fail":
                    if not self._patient:
                        raise
                    self.work.gives_up(repr(self._partition)[1:-1], error)
                    return "nobody"
                await outage.rest()

    async def _look(self) -> str:
        deployment = self.work.deployment
        if deployment.kind == "cluster":
            await self._meet_cluster()
            return "cluster"
        node = await self._find_server()
        session = node.session()
        try:
            connection = await session.open()
            mode = await mode_of(connection)
            if mode == "sentinel":
                text = "this is a Sentinel, which holds no keys: write redis+sentinel://host:26379/service"
                raise InvalidInput(text, node=connection.node)
            if mode == "cluster" and deployment.kind == "server":
                await self._meet_cluster()
                session.abort()
                return "cluster"
            identity = await session.identify()
            ids = [identity.run_id] if identity.run_id else []
            self._where = {"kind": "server", "name": deployment.name, "ids": ids}
            self._databases = await self._wanted(connection)
        except BaseException:
            session.abort()
            raise
        self._opened = session
        return "standalone"

    async def _meet_cluster(self) -> None:
        from ._discovery import ClusterMap

        self._map = ClusterMap(self.work)
        topology = await self._map.find()
        self._where = {
            "kind": "cluster",
            "name": self.work.deployment.name,
            "ids": sorted(topology.primaries),
        }
        self._databases = [self.work.deployment.login.db]
        if self.work.selection.all_dbs:
            self._databases = await self._list_in_cluster()

    async def _list_in_cluster(self) -> list[int]:
        """All databases that have keys at some primary: most clusters know one only."""
        found: set[int] = set()
        for member in self._map.topology.primaries.values():
            session = Session(self._map.endpoint(member), self.work.options, self.work.asides)
            try:
                found.update(await keys_of_databases(await session.open()))
            finally:
                session.abort()
        return sorted(found)

    async def _wanted(self, connection: Connection) -> list[int]:
        """The databases that are wanted: the one that the source names, or all that have keys."""
        if self._partition is not None and self._partition.dbs is not None:
            return list(self._partition.dbs)
        if not self.work.selection.all_dbs:
            return [self.work.deployment.login.db]
        return sorted(await keys_of_databases(connection))

    # Servers

    async def _find_server(self) -> Node:
        deployment = self.work.deployment
        if deployment.kind == "sentinel":
            from ._discovery import watched

            endpoint = await watched(deployment, self.work.options, self.work.asides)
        else:
            endpoint = deployment.login
        if self.work.options.read_from == "replica" or deployment.replica:
            from ._replica import replica_of

            if self._replica is None or self.work.node(self._replica).outage.since is not None:
                self._replica = await replica_of(endpoint, self.work)
            endpoint = self._replica
        return self.work.node(endpoint)

    def _finder(self, db: int) -> Callable[[], Awaitable[Node]]:
        async def find() -> Node:
            node = await self._find_server()
            if db == node.endpoint.db:
                return node
            return self.work.node(Endpoint.of(node.endpoint, db=db))

        return find

    async def _read_server(self, spawn: Spawn) -> None:
        if self._source is not None:
            from ._given import Given

            node = await self._find_server()
            self.work.values.locate = self._locator(node.endpoint.db)
            given = Given(self.work, self._source, self._locator(node.endpoint.db), node, slotted=False)
            await given.read(spawn, self._opened)
            return
        for db in self._databases:
            progress = self._progress(db)
            part = self._partition.range if self._partition is not None else Range()
            self._read[db] = database = Database(
                self.work,
                self._finder(db),
                db,
                part=part,
                done=[part] if progress.done else list(progress.ranges),
                run_id=progress.run_id or (self._partition.run_id if self._partition is not None else None),
                first=None if self.work.selection.all_dbs else self._opened,  # it is in the source's own
            )
            if progress.done:
                database.over = True
                continue
            self.work.values.locate = self._locator(db)
            await database.read(spawn)

    def _locator(self, db: int) -> Callable[[bytes, str | None], Coroutine[Any, Any, tuple[Node, bool]]]:
        """Who has a key: always the same server, or whom Sentinel names when it is asked."""
        find = self._finder(db)

        async def locate(key: bytes, said: str | None) -> tuple[Node, bool]:
            return await find(), False

        return locate

    def _progress(self, db: int) -> Progress:
        return self._before.get(db, Progress())

    # Clusters

    async def _read_cluster(self, spawn: Spawn) -> None:
        from ._cluster import Cluster
        from ._given import Given

        found = self._map
        self.work.values.redirected = True
        if self._source is not None:
            self.work.values.locate = found.locate
            members = list(found.topology.primaries.values())
            if not members:
                raise Unreachable("no node of the cluster serves any slot", node=self.work.deployment.name)
            home = self.work.node(found.endpoint(members[0]))
            await Given(self.work, self._source, found.locate, home, slotted=True).read(spawn)
            return
        for db in self._databases:
            part = self._partition
            if db != self.work.deployment.login.db:
                found = found.of(db)
            self.work.values.locate = found.locate
            self._read[db] = cluster = Cluster(
                self.work,
                found,
                db,
                part=ALL_SLOTS if part is None or part.slots is None else part.slots,
                done=self._progress(db).slots,
                piece=part.range if part is not None else None,
                run_id=part.run_id if part is not None else None,
            )
            await cluster.read(spawn)

    # How far it is

    @property
    def not_begun(self) -> tuple[str, ...]:
        """The databases whose turn has not come, in words."""
        name = self.work.deployment.name
        left = [db for db in self._databases if db not in self._read and not self._progress(db).done]
        return tuple(f"database {db} of {name}" for db in left)

    @property
    def fraction(self) -> float:
        """How much has been read, from 0 to 1."""
        if not self._read:
            return 0.0
        left = len(self._databases) - len(self._read)
        return sum(one.fraction for one in self._read.values()) / (len(self._read) + left)

    @property
    def progress(self) -> dict[int, Progress]:
        """What the loop has finished with, by database."""
        databases = dict(self._before)
        for db, one in self._read.items():
            if isinstance(one, Database):
                run_id, ranges = one.settled
                databases[db] = Progress(one.all_settled, run_id, tuple(ranges))
            else:
                databases[db] = Progress(slots=one.settled)
        return databases

    def checkpoint(self) -> Json:
        """The same as plain data, with what it belongs to."""
        where = self._where or (dict(self._resume.where) if self._resume is not None else _nowhere(self.work))
        return Checkpoint(where, self._what, self.progress).to_json()


def _nowhere(work: Work) -> Json:
    return {"kind": "server", "name": work.deployment.name, "ids": []}
