"""What is found out about the server when a stream begins, and looked at again while it runs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ._connection import Connection
from ._errors import PermissionDenied, ProtocolViolation, ServerFailure, fitting
from ._options import MiB
from ._session import Session, info

log = logging.getLogger("oneatatime")

_AGAIN = 1.0  # seconds between looks at a server that evicts when it is full, or that is slow
_SLOW = 0.005  # seconds of a turn of the server's loop: what comes in meanwhile waits so long
_HEADROOM = 0.1  # share of maxmemory that must be free before a reply is asked for that nobody bounds
_LEAST_HEADROOM = 256 * MiB
_MOST_DATABASES = 16_384  # asked for one by one, where INFO does not tell which there are


@dataclass(eq=False, repr=False)
class Survey:
    """The server as it was found: its keys, its process, and whether it has memory to spare.

    `roomy`: a reply that nobody foresaw would not make it evict keys. Where it does not tell, it is taken
    to have no room: better slow than sorry.
    `delay`: seconds by which the server was busy with others, each time, when this began; 0 when it is over.
    """

    keys: int | None = None
    roomy: bool = True
    delay: float = 0.0
    _evicts: bool = False
    _looked: float = 0.0

    async def look(self, session: Session) -> None:
        """Finds out what the server is."""
        connection = session.connection
        with fitting(session.node):
            if connection.touches:
                log.info("%s has no CLIENT NO-TOUCH: reading values moves its LRU clock", connection.node)
            self.keys = await count(connection)
            await self._look_at_memory(connection)
            await self._look_at_delay(connection)

    async def look_again(self, connection: Connection) -> None:
        """Looks again, about once a second, at what was no good: no memory to spare, slow."""
        if (self._evicts or self.delay) and time.monotonic() - self._looked > _AGAIN:
            self._looked = time.monotonic()
            if self._evicts:
                await self._look_at_memory(connection)
            if self.delay:
                await self._look_at_delay(connection)

    async def _look_at_memory(self, connection: Connection) -> None:
        fields = await _info(connection, "memory")
        most = int(fields.get("maxmemory", 0))
        self._evicts = most > 0 and fields.get("maxmemory_policy", "noeviction") != "noeviction"
        free = most - int(fields.get("used_memory", 0))
        self.roomy = bool(fields) and (not self._evicts or free > max(_HEADROOM * most, _LEAST_HEADROOM))
        self._looked = time.monotonic()

    async def _look_at_delay(self, connection: Connection) -> None:
        fields = await _info(connection, "stats")
        turn = int(fields.get("instantaneous_eventloop_duration_usec", 0)) / 1e6
        self.delay = turn if turn > _SLOW else 0.0


async def count(connection: Connection) -> int | None:
    """How many keys its database has; None where the server does not tell."""
    try:
        keys = await connection.call(b"DBSIZE")
    except PermissionDenied:
        log.debug("DBSIZE is not allowed: the total can only be estimated")
        return None
    if keys.__class__ is not int:
        raise ProtocolViolation(f"DBSIZE answered {str(keys)[:80]}", node=connection.node, command="DBSIZE")
    return int(keys)


async def keys_of_databases(connection: Connection) -> dict[int, int | None]:
    """How many keys each database has that has any; None where the server does not tell how many."""
    try:
        fields = info(await connection.call(b"INFO", b"keyspace"))
    except (PermissionDenied, ServerFailure) as error:
        log.debug("INFO keyspace: %s", error)
    else:
        told = {name[2:]: words for name, words in fields.items() if name.startswith("db")}
        return {int(db): _keys_told(words) for db, words in told.items() if db.isdigit()}
    found = {}
    for db in range(_MOST_DATABASES):
        try:
            await connection.call(b"SELECT", db)
        except ServerFailure:
            break
        if (keys := await count(connection)) != 0:
            found[db] = keys
    return found


def _keys_told(words: str) -> int | None:
    """Of `keys=1000,expires=0,...` the first number."""
    number = words.partition("keys=")[2].partition(",")[0]
    return int(number) if number.isdigit() else None


async def mode_of(connection: Connection) -> str:
    """What a server is: "standalone", "cluster" or "sentinel".

    HELLO says it in RESP3; in RESP2 INFO tells, or a HELLO without a number, which only asks.
    """
    if "mode" in connection.hello:
        return str(connection.hello["mode"])
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
