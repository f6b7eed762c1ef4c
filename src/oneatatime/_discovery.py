"""The nodes of a deployment, found and found again: who owns which slot, who is a service's primary."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace

from ._connection import server_error
from ._deployment import Deployment
from ._endpoint import Endpoint
from ._errors import Error, InvalidInput, ServerUnready, Unreachable, fitting
from ._node import OUT_OF_REACH, Node
from ._options import Options
from ._request import ReplyError
from ._session import Session
from ._slot import keyslot
from ._survey import count
from ._topology import (
    Member,
    Topology,
    View,
    ask_primary,
    ask_view,
    primary,
    view,
)
from ._wire import Traffic
from ._work import Work

log = logging.getLogger("oneatatime")

_LEAST_AGE = 0.2  # seconds before nodes are asked again
_ENOUGH_VIEWS = 3  # nodes that are asked, of those that answer
_HASTE = 2.0  # seconds that a node may take to tell about its cluster: there are others


async def look(session: Session) -> View:
    """What the node at the other end says of the cluster now."""
    (pending,) = session.send(ask_view())
    replies = (await session.answer(pending)).replies
    for reply, command_ in zip(replies, ("CLUSTER NODES", "CLUSTER INFO")):
        if isinstance(reply, ReplyError):
            raise server_error(reply, node=session.node, command=command_)
    with fitting(session.node):
        return view(replies, session.node)


async def view_of(session: Session, member: Member) -> View:
    """What a certain node says. Raises ServerUnready where it is none that slots can be read at."""
    told = await look(session)
    if told.me.id != member.id:
        raise ServerUnready("another node answers at this address", node=session.node)
    if not told.is_primary:
        raise ServerUnready("the node has become a replica", node=session.node)
    if not told.ok:
        raise ServerUnready("the node sees a cluster that is down", node=session.node)
    return replace(told, members=())  # a worker keeps its last view: of 2,000 nodes, each would be a megabyte


class ClusterMap:
    """Which node of a cluster has which slot, and how its database `db` is reached there.

    `topology` is what was found last.
    """

    def __init__(self, work: Work, db: int | None = None) -> None:
        self.topology = Topology()
        self._db = work.deployment.login.db if db is None else db
        self._work = work
        self._seeds: list[Endpoint] = list(work.deployment.seeds)
        self._found = 0.0
        options = work.options
        self._hasty = replace(
            options,
            timeout=min(options.timeout, _HASTE),
            connect_timeout=min(options.connect_timeout, _HASTE),
        )

    def of(self, db: int) -> ClusterMap:
        """The same for another database."""
        return ClusterMap(self._work, db)

    async def find(self) -> Topology:
        """Asks nodes that are known; the first ones that answer. Raises what the last one failed with."""
        views: list[View] = []
        error: Exception | None = None
        known = [self.endpoint(member) for member in self.topology.primaries.values()]
        random.shuffle(known)
        known.sort(key=self._is_out_of_reach)
        seeds = random.sample(self._seeds, len(self._seeds))  # of a thousand streams, not the same three
        for endpoint in dict.fromkeys([*known, *seeds]):
            try:
                views.append(await self._ask(endpoint))
            except OUT_OF_REACH as failure:
                error = failure
                log.debug("%s cannot tell about its cluster: %s", endpoint.node, failure)
            if len(views) >= _ENOUGH_VIEWS:
                break
        if not views:
            raise error or Unreachable("no node of the cluster is known", node=self._work.deployment.name)
        self.topology = Topology.of(views)
        self._found = time.monotonic()
        return self.topology

    async def refresh(self) -> Topology:
        """The same, unless it has been found a moment ago."""
        if time.monotonic() - self._found < _LEAST_AGE:
            return self.topology
        return await self.find()

    def _is_out_of_reach(self, endpoint: Endpoint) -> bool:
        node = self._work.nodes.get(endpoint)
        return node is not None and node.outage.since is not None

    async def settled(self) -> Topology:
        """What is found now, when what was found a moment ago is wrong: after a moment more."""
        await asyncio.sleep(max(0.0, self._found + _LEAST_AGE - time.monotonic()))
        return await self.find()

    def _named(self, said: str, topology: Topology | None = None) -> Member | None:
        """The node that an error sends us on to, if it is one of the cluster."""
        words = said.split()
        host, _, port = words[2].rpartition(":") if len(words) > 2 else ("", "", "")
        members = (topology or self.topology).members.values()
        return next(
            (one for one in members if str(one.port) == port and host in ("", one.host, one.hostname)), None
        )

    async def _ask(self, endpoint: Endpoint) -> View:
        session = Session(endpoint, self._hasty, self._work.asides)
        try:
            await session.open()
            told = await look(session)
        finally:
            session.abort()
        return _with_host(told, endpoint.host)

    def endpoint(self, member: Member) -> Endpoint:
        """How to reach a node: by the name that its certificate bears, where TLS looks at that."""
        deployment = self._work.deployment
        by_name = deployment.login.tls is not None or member.host in ("", "?")
        host = member.hostname if by_name and member.hostname not in ("", "?") else member.host
        endpoint = deployment.endpoint(host, member.port)
        return endpoint if endpoint.db == self._db else replace(endpoint, db=self._db)

    async def count(self, slots: int) -> int | None:
        """How many keys the owners of some slots have, by their own count; None where one does not tell.

        Not those of others: a thousand workers with a part each would ask a thousand nodes each.
        """
        total = 0
        for member in self.topology.primaries.values():
            if not member.slots & slots:
                continue
            session = Session(self.endpoint(member), self._work.options, self._work.asides)
            try:
                await session.open()
                keys = await count(session.connection)
            except OUT_OF_REACH as error:
                log.debug("keys were not counted: %s", error)
                return None
            finally:
                session.abort()
            if keys is None:
                return None
            total += keys
        return total

    async def locate(self, key: bytes, said: str | None) -> tuple[Node, bool]:
        """The node that has a key, and whether the key is still on its way there.

        `said` is how the last one sent us on: `MOVED 5 host:port`, `ASK 5 host:port`, "" where it did not
        answer, None where nobody was asked. Nobody is believed an address that no node has told when it
        was asked about the cluster.
        """
        slot = keyslot(key)
        if not self.topology.primaries:
            await self.find()
        if said:
            member = self._named(said) or self._named(said, await self.settled())
            if member is not None:
                return self._work.node(self.endpoint(member)), said.startswith("ASK")
        elif said is not None:
            await self.settled()
        owner = self.topology.owner(slot)
        if owner is None:
            raise ServerUnready(f"no node serves slot {slot}", node=self._work.deployment.name)
        return self._work.node(self.endpoint(owner)), False


def _with_host(told: View, host: str) -> View:
    """The same view, where a node that does not know its own address has the one it was reached at."""
    members = tuple(member if member.host else replace(member, host=host) for member in told.members)
    me = next(member for member in members if member.id == told.me.id)
    return replace(told, me=me, members=members)


# Sentinel


async def watched(deployment: Deployment, options: Options, traffic: Traffic) -> Endpoint:
    """The primary of a service, as Sentinel names it.

    Raises what the last Sentinel failed with, if none of them answers, and InvalidInput for a service
    that none of them knows.
    """
    assert deployment.service is not None, "a deployment of Sentinel has a service"
    error: Error | None = None
    for seed in deployment.seeds:
        session = Session(seed, options, traffic)
        try:
            await session.open()
            (pending,) = session.send(ask_primary(deployment.service))
            reply = (await session.answer(pending)).replies[0]
            if isinstance(reply, ReplyError):
                raise server_error(reply, node=seed.node, command="SENTINEL")
            with fitting(seed.node):
                found = primary(reply)
            if found is None:
                text = f"this Sentinel watches no service {deployment.service!r}"
                error = InvalidInput(text, node=seed.node, command="SENTINEL")
                continue
            return deployment.endpoint(*found)
        except OUT_OF_REACH as failure:
            error = failure
        finally:
            session.abort()
    assert error is not None, "there is at least one Sentinel"
    raise error
