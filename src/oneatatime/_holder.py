"""Who holds which key of a deployment that is written: one server, a primary, or nodes of a cluster."""

from __future__ import annotations

import logging

from ._deployment import Deployment
from ._discovery import ClusterMap, watched
from ._endpoint import Endpoint
from ._errors import InvalidInput
from ._node import OUT_OF_REACH, Node
from ._options import Options, Selection
from ._session import Session
from ._slot import by_slot
from ._survey import mode_of
from ._topology import Topology
from ._work import Work

log = logging.getLogger("oneatatime")


class Holders:
    """The nodes that keys are written to, found and found again. `slotted`: it is a cluster."""

    def __init__(self, deployment: Deployment, options: Options) -> None:
        self.deployment = deployment
        self.slotted = False
        self._work = Work(deployment, options, Selection())
        self._maps: dict[int, ClusterMap] = {}
        self._owners: dict[ClusterMap, tuple[Topology, dict[int, Node]]] = {}
        self._primary: Endpoint | None = None

    async def meet(self) -> None:
        """Finds out what it is. Raises what any connection may."""
        if self.deployment.kind == "cluster":
            await self._meet_cluster()
            return
        session = Session(await self._find_primary(), self._work.options, self._work.asides)
        try:
            mode = await mode_of(await session.open())
        finally:
            session.abort()
        if mode == "sentinel":
            text = "this is a Sentinel, which holds no keys: write redis+sentinel://host:26379/service"
            raise InvalidInput(text, node=session.node)
        if mode == "cluster" and self.deployment.kind == "server":
            await self._meet_cluster()

    async def split(self, keys: list[bytes], rows: list[int], db: int | None) -> dict[Node, list[int]]:
        """The rows of keys at each node."""
        if not self.slotted:
            return {self._home(await self._find_primary(), db): rows}
        cluster = self._map(db)
        owners = self._owners_by(cluster)
        found: dict[Node, list[int]] = {}
        for slot, places in by_slot([keys[row] for row in rows]).items():
            if slot not in owners:
                owners[slot], _ = await cluster.locate(keys[rows[places[0]]], None)
            found.setdefault(owners[slot], []).extend([rows[place] for place in places])
        return {node: sorted(own) for node, own in found.items()}

    def _owners_by(self, cluster: ClusterMap) -> dict[int, Node]:
        """The node of each slot that has been asked for, as the nodes told it last."""
        topology, owners = self._owners.get(cluster, (None, {}))
        if topology is not cluster.topology:
            owners = {}
            self._owners[cluster] = (cluster.topology, owners)
        return owners

    async def elsewhere(self, key: bytes, said: str, db: int | None) -> tuple[Node, bool]:
        """Where a key is after a node has sent us on, and whether it is still on its way there."""
        return await self._map(db).locate(key, said)

    async def look_again(self, db: int | None) -> None:
        """After a node was lost, or sent us on: others may have its keys by now."""
        self._primary = None
        try:
            if self.slotted:
                await self._map(db).refresh()
        except OUT_OF_REACH as error:
            log.debug("nobody tells who has what: %s", error)

    async def _meet_cluster(self) -> None:
        self.slotted = True
        await self._map(None).find()

    def _map(self, db: int | None) -> ClusterMap:
        number = self.deployment.login.db if db is None else db
        if number not in self._maps:
            self._maps[number] = ClusterMap(self._work, number)
        return self._maps[number]

    async def _find_primary(self) -> Endpoint:
        if self._primary is None:
            if self.deployment.kind == "sentinel":
                self._primary = await watched(self.deployment, self._work.options, self._work.asides)
            else:
                self._primary = self.deployment.login
        return self._primary

    def _home(self, endpoint: Endpoint, db: int | None) -> Node:
        other = db is not None and db != endpoint.db
        return self._work.node(Endpoint.of(endpoint, db=db) if other else endpoint)
