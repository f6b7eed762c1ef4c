"""Batches written into a deployment: several bursts under way at each node, and every reply looked at.

A record counts as written when all of its replies have come. What a lost connection leaves open is written
again from its start: a record makes room for itself, so doing it twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from ._deployment import Deployment
from ._errors import Error, ServerFailure, ServerUnready
from ._holder import Holders
from ._node import OUT_OF_REACH, Node, Outage
from ._options import MiB, Options
from ._record import Batch, Piece
from ._request import ReplyError
from ._session import Pending, Session
from ._writing import Abilities, Lot, Packer, Refusals, by_database, refusal, sent_on

_UNDER_WAY = 1 * MiB  # bytes of commands that wait for replies at a node
_MOST_UNDER_WAY = 16 * MiB  # at all nodes together
_MOST_ATTEMPTS, _AT_ONCE = 100, 2

log = logging.getLogger("oneatatime")


@dataclass(eq=False, repr=False)
class Counts:
    """What has become of records. Those that took the place of a key are also `replaced`."""

    written: int = 0
    skipped: int = 0
    replaced: int = 0
    expired: int = 0
    left_out: int = 0
    torn: int = 0
    types: Counter[str] = field(default_factory=Counter)


class PieceLost(Exception):
    """A piece did not arrive for certain: its value is to be written again from its first piece."""


@dataclass(eq=False, repr=False)
class Ticket:
    """Records that were handed over together; `left` of them are open. `end`: the number of the next one."""

    end: int
    left: int


@dataclass(eq=False, repr=False)
class _Task:
    """Rows of a batch that are still to be sent, or to be sent again.

    `asking`, a command, makes it a question: `found` takes the rows whose keys are there. `said` is how a
    node sent us on.
    """

    batch: Batch
    rows: list[int]
    db: int | None
    ticket: Ticket
    absent: bool = False
    piece: Piece | None = None
    asking: bytes | None = None
    found: set[int] = field(default_factory=set)
    attempts: int = 0
    said: str = ""

    def unsent(self, sent: list[list[int]]) -> _Task:
        """Those that did not get as far as the server: all but these."""
        gone = set(chain.from_iterable(sent))
        rows = [row for row in self.rows if row not in gone]
        return replace(self, rows=rows, attempts=self.attempts + 1)

    def again(self, rows: list[int], said: str = "") -> _Task:
        """Those that did, perhaps: what is there by now may be our own."""
        return replace(self, rows=rows, absent=False, attempts=self.attempts + 1, said=said)

    @property
    def goes_on(self) -> bool:
        """Whether it adds to what came before it, so that twice would be once too often."""
        return self.piece is not None and self.piece.number > 0


@dataclass(eq=False, repr=False)
class _Place:
    """A node, the connection to it, and what is under way there."""

    node: Node
    session: Session
    packer: Packer
    under_way: deque[tuple[Lot, _Task, Pending]] = field(default_factory=deque)
    size: int = 0

    def send(self, lot: Lot, task: _Task) -> None:
        (pending,) = self.session.send(lot.burst)
        self.under_way.append((lot, task, pending))
        self.size += len(lot.burst.payload)


class Store:
    """A deployment that batches are written into. `counts` holds what has been acknowledged.

    `halves`: keys, each with its database, of which a server has taken some and refused the rest. `came_up`:
    keys of records that were not written, because somebody else made them just before.
    """

    def __init__(self, deployment: Deployment, options: Options) -> None:
        self.counts = Counts()
        self._options = options
        self._holders = Holders(deployment, options)
        self._outage = Outage(options.patience)  # of all there is
        self._places: dict[tuple[Node, bool], _Place] = {}
        self._tasks: deque[_Task] = deque()
        self._tickets: deque[Ticket] = deque()
        self._settled = 0
        self.halves: list[tuple[int | None, bytes]] = []
        self.came_up: list[bytes] = []

    @property
    def settled(self) -> int:
        """The number of the first record that may not be written yet; all before it are done with."""
        while self._tickets and not self._tickets[0].left:
            self._settled = max(self._settled, self._tickets.popleft().end)
        return self._settled

    def begin_at(self, number: int) -> None:
        """Records are counted from here on: of another file, or of the same one from another place."""
        self._settled = number
        self._tickets.clear()

    async def open(self) -> None:
        """Finds out what it is that is written into; waits for a server that is out of reach."""
        while True:
            try:
                await self._holders.meet()
            except OUT_OF_REACH as error:
                await self._wait(None, error, None)
            else:
                self._outage.over()
                return

    async def write(self, batch: Batch, rows: list[int], end: int, *, absent: bool = False) -> None:
        """Sends rows of a batch off; returns when there is room for more, not when they are written.

        `end` is the number of the first record after them. `absent`: their keys are known not to be there.
        """
        ticket = Ticket(end, len(rows))
        self._tickets.append(ticket)
        for db, own in by_database(batch, rows):
            self._tasks.append(_Task(batch, own, db, ticket, absent))
        await self._work_off()

    async def write_piece(self, batch: Batch, piece: Piece, end: int, *, again: bool = False) -> None:
        """Writes a piece of a value, the only row of a batch. Raises PieceLost: begin with the first one.

        `again`: so it has begun already, and what the first one takes the place of is our own.
        """
        await self.drain()
        ((db, rows),) = by_database(batch, [0])
        ticket = Ticket(end if piece.last else 0, 1)
        self._tickets.append(ticket)
        self._tasks.append(_Task(batch, rows, db, ticket, piece=piece, attempts=int(again)))
        try:
            await self.drain()
        except PieceLost:
            ticket.left = ticket.end = 0
            raise

    async def existing(self, batch: Batch, rows: list[int]) -> set[int]:
        """The rows whose keys are there now. What was handed over before is written first."""
        return await self._ask(b"EXISTS", batch, rows)

    async def finish(self) -> None:
        """After the error that ends it all: waits for the answers to what has been sent."""
        self._tasks.clear()
        while place := next((one for one in self._places.values() if one.under_way), None):
            try:
                await self._finish(place)
            except (Error, PieceLost) as error:
                log.debug("after the error that ended the writing: %s", error)
            self._tasks.clear()

    async def delete(self, names: list[tuple[int | None, bytes]]) -> None:
        """Takes keys away again, each of a database. What was handed over before is written first."""
        batch = Batch([key for _, key in names], "", [], metadata={"db": [db for db, _ in names]})
        await self._ask(b"UNLINK", batch, list(range(len(batch))))

    async def _ask(self, command: bytes, batch: Batch, rows: list[int]) -> set[int]:
        """The rows whose replies to this command are 1."""
        found: set[int] = set()
        for db, own in by_database(batch, rows):
            self._tasks.append(_Task(batch, own, db, Ticket(0, len(own)), asking=command, found=found))
        await self.drain()
        return found

    async def drain(self) -> None:
        """Returns when everything has been acknowledged."""
        while True:
            await self._work_off()
            place = next((one for one in self._places.values() if one.under_way), None)
            if place is None:
                return
            await self._finish(place)

    def close(self) -> None:
        """Ends all connections."""
        for place in self._places.values():
            place.session.abort()
        self._places.clear()

    # Sending

    async def _work_off(self) -> None:
        while self._tasks:
            task = self._tasks.popleft()
            if task.attempts > _MOST_ATTEMPTS:
                said = task.said or "connections were lost"
                text = f"the key could not be written in {_MOST_ATTEMPTS} attempts: {said}"
                raise ServerFailure(text, key=task.batch.keys[task.rows[0]])
            if task.attempts > _AT_ONCE and task.said:  # nodes may need a moment to agree on who has what
                await asyncio.sleep(min(1.0, 0.01 * 2**task.attempts))
            await self._send(task)

    async def _send(self, task: _Task) -> None:
        """Sends the rows of a task to whom they belong; those that could not be sent are a task again."""
        sent: list[list[int]] = []
        node = None
        try:
            for node, arriving, rows in await self._where(task):
                place = await self._place(node, arriving)
                for lot in self._lots(place, task, rows):
                    await self._make_room(place, len(lot.burst.payload))
                    if self._places.get((node, arriving)) is not place:  # lost just now
                        self._tasks.append(task.unsent(sent))
                        return
                    place.send(lot, task)
                    sent.append(lot.rows)
        except OUT_OF_REACH as error:
            self._tasks.append(task.unsent(sent))
            await self._wait(node, error, task.db)

    async def _make_room(self, place: _Place, size: int) -> None:
        """Waits until so much more may be under way at a node."""
        while place.under_way and place.size + size > _UNDER_WAY:
            await self._finish(place)
        while sum(one.size for one in self._places.values()) + size > _MOST_UNDER_WAY:
            fullest = max(self._places.values(), key=lambda one: one.size)
            if not fullest.under_way:
                return
            await self._finish(fullest)

    async def _where(self, task: _Task) -> list[tuple[Node, bool, list[int]]]:
        keys = task.batch.keys
        if not task.said:
            found = await self._holders.split(keys, task.rows, task.db)
            return [(node, False, rows) for node, rows in found.items()]
        places: dict[tuple[Node, bool], list[int]] = {}
        for row in task.rows:
            where = await self._holders.elsewhere(keys[row], task.said, task.db)
            places.setdefault(where, []).append(row)
        return [(node, arriving, rows) for (node, arriving), rows in places.items()]

    def _lots(self, place: _Place, task: _Task, rows: list[int]) -> Iterable[Lot]:
        if task.asking is not None:
            return [place.packer.asking(task.batch, rows, task.asking)]
        return place.packer.lots(task.batch, rows, absent=task.absent, piece=task.piece)

    async def _place(self, node: Node, arriving: bool) -> _Place:
        """The connection to a node, opened where there is none."""
        place = self._places.get((node, arriving))
        if place is not None:
            return place
        session = node.session(asking=arriving)
        try:
            connection = await session.open()
        except BaseException:
            session.abort()
            raise
        packer = Packer(Abilities.told(connection.hello), slotted=self._holders.slotted)
        self._places[node, arriving] = place = _Place(node, session, packer)
        return place

    # Finishing

    async def _finish(self, place: _Place) -> None:
        """Takes the oldest answer of a node."""
        lot, task, pending = place.under_way[0]
        try:
            await asyncio.wait([pending.future])  # which leaves it to others, where this is cancelled
            replies = (await place.session.answer(pending)).replies
        except OUT_OF_REACH as error:
            await self._lost(place, error)
            return
        place.under_way.popleft()
        place.size -= len(lot.burst.payload)
        refused = lot.refused(replies) if ReplyError in set(map(type, replies)) else {}
        self._count(lot, task, replies, refused)
        if refused:
            await self._refused(place, lot, task, refused, len(replies))
        else:
            place.node.outage.over()
            self._outage.over()

    async def _refused(
        self, place: _Place, lot: Lot, task: _Task, refused: dict[int, Refusals], asked: int
    ) -> None:
        """Records that were not written: again, here or elsewhere, or that is the end."""
        again: dict[str, list[int]] = {}
        unready = ""
        for row, errors in refused.items():
            at, reply = errors[0]
            said = sent_on(reply)
            if said is None and str(reply).startswith("READONLY") and self._may_move:
                said = ""  # it was a primary a moment ago
            if said is None:
                self.halves += [(task.db, lot.batch.keys[one]) for one in lot.halves(refused)]
                key, node = lot.batch.keys[row], place.node.name
                raise refusal(reply, node=node, key=key, command=lot.command(at))
            again.setdefault(said, []).append(row)
            unready = unready if said else str(reply)
        if task.goes_on and len(refused[lot.rows[0]]) < asked:
            await self._holders.look_again(task.db)
            raise PieceLost
        for said, rows in again.items():
            self._tasks.append(task.again(rows, said))
        if any(said.startswith("MOVED") for said in again):  # or all that follows would be sent there too
            await self._holders.look_again(task.db)
        if unready:
            text = f"the server cannot write now: {unready}"
            await self._wait(place.node, ServerUnready(text, node=place.node.name), task.db)

    @property
    def _may_move(self) -> bool:
        """Whether another server may take over."""
        return self._holders.slotted or self._holders.deployment.kind == "sentinel"

    def _count(self, lot: Lot, task: _Task, replies: list[Any], refused: dict[int, Refusals]) -> None:
        """What an answer says is done."""
        task.ticket.left -= len(lot.rows) - len(refused)
        if task.asking is not None:
            task.found.update(row for row, reply in zip(lot.owners, replies) if reply == 1)
            return
        counts, types, done = self.counts, lot.batch.types, lot.rows
        if not task.attempts:  # later on it may be our own that made room
            counts.replaced += sum(reply for reply in replies[: lot.head] if reply.__class__ is int)
        if lot.piece is not None and not lot.piece.last:
            return
        stayed = lot.stayed(replies) if lot.absent else set()
        if refused or stayed:
            counts.skipped += len(stayed)
            self.came_up += [lot.batch.keys[row] for row in stayed]
            done = [row for row in done if row not in refused and row not in stayed]
        counts.written += len(done)
        if isinstance(types, str):
            counts.types[types] += len(done)
        else:
            counts.types.update([types[row] for row in done])

    async def _lost(self, place: _Place, error: Exception) -> None:
        """A connection is gone: what was under way over it is to be sent again, in its order."""
        place.session.abort()
        self._places = {where: one for where, one in self._places.items() if one is not place}
        again: dict[int, _Task] = {}
        for lot, task, _ in place.under_way:
            again.setdefault(id(task), task.again([])).rows.extend(lot.rows)
        place.under_way.clear()
        tasks = list(again.values())
        lost = any(task.goes_on for task in tasks)
        if not lost:
            self._tasks.extendleft(reversed(tasks))
        await self._wait(place.node, error, tasks[0].db)
        if lost:
            raise PieceLost from error

    async def _wait(self, node: Node | None, error: Exception, db: int | None) -> None:
        """Before another attempt at a server that is out of reach. Raises what ends the attempts."""
        outage = self._outage if node is None else node.outage
        outage.noted(error)
        if outage.too_long or self._options.on_unreachable == "fail":
            raise error
        await outage.rest()
        await self._holders.look_again(db)
