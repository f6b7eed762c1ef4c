"""Where a worker of a cluster reads: the node that it reads, and the one that says what stands there."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ._discovery import view_of
from ._errors import ServerUnready
from ._node import Node
from ._replica import caught_up
from ._session import Identity, Session
from ._topology import Member, View

_SHORTEST_WINDOW = 0.001  # seconds between two views of a node, at first: who stops early has got somewhere
_LONGEST_WINDOW = 0.005  # what was read in it is read again when something happens, and it is held until then
_VIEWS_SHARE = 0.01  # of the time may be spent on views, where these take long
_MOST_RECONNECTIONS = 3  # in a row, without a page in between


@dataclass(eq=False, repr=False)
class Post:
    """Where a worker reads: at a primary, or at a replica while the primary says what stands.

    `session` is what keys and values come over, `witness` who says which slots are whose.
    """

    member: Member
    node: Node
    session: Session
    witness: Session
    heard: float = field(default_factory=time.monotonic)
    window: float = 0.0
    reconnections: int = 0
    known: Identity | None = None  # the replica, when it was in sync
    cost: float = 0.0  # seconds that the last proof took

    async def view(self) -> View:
        """What the node says now; what that costs tells how often it may be asked."""
        began = time.monotonic()
        view = await view_of(self.witness, self.member)
        self.cost += time.monotonic() - began
        most = max(_LONGEST_WINDOW, self.cost / _VIEWS_SHARE)
        self.window = min(most, max(_SHORTEST_WINDOW, 2 * self.window))
        self.cost = 0.0
        return view

    async def open(self) -> Identity:
        """Connects. Says who answers at the node that is read."""
        await self.session.open()
        if self.witness is not self.session:
            await self.witness.open()
            await self.witness.identify()
        return await self.session.identify()

    async def reopen(self) -> bool:
        """Connects again; whether the same processes answer, so that cursors and views still hold."""
        self.reconnections += 1
        if self.reconnections > _MOST_RECONNECTIONS:
            return False
        before = (self.session.run_id, self.witness.run_id)
        self.abort()
        await self.open()
        return None not in before and before == (self.session.run_id, self.witness.run_id)

    def abort(self) -> None:
        self.session.abort()
        self.witness.abort()

    async def in_sync(self) -> None:
        """Waits until a replica has what its primary has now. Raises ServerUnready where it will not.

        And where it was filled anew since the last time: what it had in between says nothing.
        """
        if self.witness is self.session:
            return
        began = time.monotonic()
        now = await caught_up(self.session, await self.witness.identify())
        before, self.known = self.known, now
        if before is not None and (why := now.changed(before)):
            raise ServerUnready(f"{why}: what this replica had in between says nothing", node=self.node.name)
        self.cost = time.monotonic() - began
