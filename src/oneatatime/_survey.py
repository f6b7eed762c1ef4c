"""What is found out about the server when a stream begins, and looked at again while it runs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ._connection import Connection
from ._errors import InvalidInput, PermissionDenied, ServerFailure, fitting
from ._options import MiB
from ._session import Session, info

log = logging.getLogger("oneatatime")

_MEMORY_CHECK = 1.0  # seconds between looks at a server that evicts when it is full
_HEADROOM = 0.1  # share of maxmemory that must be free before a reply is asked for that nobody bounds
_LEAST_HEADROOM = 256 * MiB


@dataclass(eq=False, repr=False)
class Survey:
    """The server as it was found: its keys, its process, and whether it has memory to spare.

    `roomy`: a reply that nobody foresaw would not make it evict keys. Where it does not tell, it is taken
    to have no room: better slow than sorry.
    """

    keys: int | None = None
    run_id: bytes | None = None
    roomy: bool = True
    _evicts: bool = False
    _looked: float = 0.0

    async def look(self, session: Session) -> None:
        """Finds out what the server is. Raises InvalidInput for a part of a bigger deployment."""
        connection = session.connection
        with fitting(session.node):
            mode = connection.hello.get("mode") or await _mode(connection)
            if mode == "cluster":
                text = "this is one node of a cluster and holds only a part of its keys; "
                raise InvalidInput(text + "clusters are not read yet", node=connection.node)
            if mode == "sentinel":
                text = "this is a Sentinel, which holds no keys; give the address of the server it watches"
                raise InvalidInput(text, node=connection.node)
            if connection.touches:
                log.info("%s has no CLIENT NO-TOUCH: reading values moves its LRU clock", connection.node)
            self.run_id = await session.identify()
            try:
                self.keys = await connection.call(b"DBSIZE")
            except PermissionDenied:
                log.debug("DBSIZE is not allowed: the total can only be estimated")
            await self._look_at_memory(connection)

    async def look_again(self, connection: Connection) -> None:
        """Looks again whether a server that evicts has memory to spare, about once a second."""
        if self._evicts and time.monotonic() - self._looked > _MEMORY_CHECK:
            await self._look_at_memory(connection)

    async def _look_at_memory(self, connection: Connection) -> None:
        fields = await _info(connection, "memory")
        most = int(fields.get("maxmemory", 0))
        self._evicts = most > 0 and fields.get("maxmemory_policy", "noeviction") != "noeviction"
        free = most - int(fields.get("used_memory", 0))
        self.roomy = bool(fields) and (not self._evicts or free > max(_HEADROOM * most, _LEAST_HEADROOM))
        self._looked = time.monotonic()


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
