"""Replicas: found by their primary's word, and believed once they have what it had when it was asked."""

from __future__ import annotations

import asyncio
import random
import re

from ._connection import Connection
from ._endpoint import Endpoint
from ._errors import PermissionDenied, ServerUnready
from ._session import Identity, Session, info
from ._work import Work

_LOOK, _MOST_LOOKS = 0.02, 250  # seconds between looks at a replica that lags, and how many
_REPLICA = re.compile(r"slave[0-9]+")


async def caught_up(replica: Session, primary: Identity) -> Identity:
    """Waits until a replica has what its primary had when that was asked, and says who it is.

    Raises ServerUnready where it will not, or is no replica of it, and PermissionDenied where that cannot be
    known. The primary itself has what it has.
    """
    if not primary.history:
        text = "replicas are read where INFO tells how far they are: allow the user +info"
        raise PermissionDenied(text, node=replica.node, command="INFO")
    for _ in range(_MOST_LOOKS):
        now = await replica.identify()
        if now.run_id is not None and now.run_id == primary.run_id:
            return now
        if not (now.is_replica and now.in_sync and now.history == primary.history):
            break
        if now.offset >= primary.offset:
            return now
        await asyncio.sleep(_LOOK)
    raise ServerUnready("this replica is not in sync with its primary", node=replica.node)


async def replica_of(endpoint: Endpoint, work: Work) -> Endpoint:
    """A replica of a server that has by now what the primary has now; the server itself, if it is a replica.

    Raises ServerUnready where there is none, or it will not catch up.
    """
    session = Session(endpoint, work.options, work.asides)
    try:
        connection = await session.open()
        primary = await session.identify()
        if primary.is_replica:
            return endpoint
        places = await _replicas(connection)
    finally:
        session.abort()
    if not places:
        raise ServerUnready("there is no replica that is online", node=endpoint.node)
    replica = work.deployment.endpoint(*random.choice(places))
    session = Session(replica, work.options, work.asides)
    try:
        await session.open()
        await caught_up(session, primary)
    finally:
        session.abort()
    return replica


async def _replicas(primary: Connection) -> list[tuple[str, int]]:
    """Hosts and ports of the replicas that a primary calls online."""
    told = info(await primary.call(b"INFO", b"replication"))
    places = [
        dict(part.split("=", 1) for part in line.split(","))
        for name, line in told.items()
        if _REPLICA.fullmatch(name)
    ]
    return [(place["ip"], int(place["port"])) for place in places if place.get("state") == "online"]
