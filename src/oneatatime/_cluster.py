"""Reading a cluster: windows of slots at each node, each proven by what the node says before and after.

One task sees to it that there are workers wherever slots are to be read, and follows what becomes of the
cluster. A worker reads windows of slots over one unbroken connection; slots of which a verdict says that
they moved are read again, at whoever owns them by then.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from functools import partial

from ._arrived import MOVED, read_targets
from ._cursor import SLOT_WIDTH, Range
from ._discovery import ClusterMap
from ._errors import ConnectionLost, Error, PlanOutdated, ServerUnready
from ._ledger import Ledger
from ._node import OUT_OF_REACH, Node
from ._options import KiB
from ._pages import Between, read_pages
from ._post import Post
from ._record import Batch
from ._scan import Disordered, SlotScan
from ._session import Session
from ._slot import ALL_SLOTS, bits, named
from ._slot_keys import GiantScan, SlotKeys
from ._topology import Member, View
from ._verdict import Window, verdict
from ._work import Spawn, Work

log = logging.getLogger("oneatatime")

_TURN = 0.2  # seconds between looks at what there is to do
_FOLLOW_EVERY = 2.0  # seconds between questions about the cluster while there is nothing urgent
_STUCK = 1.0  # seconds without a page, after which it is asked whether the node still has its slots
_LEAST_HELD = 64 * KiB
_FAR_TOO_MUCH = 2  # times what may be held: in the middle of a page, or while targets are read
_SLOTS_COUNTED = 1024  # read by one worker at a time, where each slot is asked for


class Cluster:
    """One database of a cluster. `part` are the slots that are wanted; `done` were read before.

    `piece` is what is wanted of the slots in their order, where it is not all: it begins or ends within a
    slot, and means something to the process `run_id` only.
    """

    def __init__(
        self,
        work: Work,
        found: ClusterMap,
        db: int,
        *,
        part: int = ALL_SLOTS,
        done: int = 0,
        piece: Range | None = None,
        run_id: str | None = None,
    ) -> None:
        self.ledger = Ledger(part & ~done, unique=bool(work.selection.unique), account=work.account, db=db)
        self._before = done
        self._piece = piece or Range()
        self._run_id = run_id
        self._work = work
        self._map = found
        self._news = asyncio.Event()
        self._untabled: set[Node] = set()  # one table for all slots
        self._opaque: set[Node] = set()  # its cursors are its own affair, and it does not know slots
        self._unserved_since: float | None = None
        self._error: Exception | None = None
        self._followed = 0.0
        self._giants = 0  # slots with too many keys to be given at once
        self._posts: list[Post] = []
        self._chosen: dict[str, str] = {}  # the replica that is read, by its primary

    @property
    def fraction(self) -> float:
        return self.ledger.fraction

    @property
    def settled(self) -> int:
        """The slots that the loop has finished with, before and now."""
        return self.ledger.settled | self._before

    # Who reads what

    async def read(self, spawn: Spawn) -> None:
        """Reads it to its end: sees to it that there are workers wherever there are slots to read."""
        while self.ledger.open:
            self._send_workers(spawn)
            self._give_up_unserved()
            self._give_up_troubled()
            if not self.ledger.open:
                break
            self._news.clear()
            timer = asyncio.get_running_loop().call_later(_TURN, self._news.set)
            try:
                await self._news.wait()
            finally:
                timer.cancel()
            now = time.monotonic()
            stuck = [post for post in self._posts if now > post.heard + _STUCK]
            due = now > self._followed + _FOLLOW_EVERY
            if self._nobody_reads() or (due and (self.ledger.pending or stuck)):
                await self._follow(stuck)
        await self._count_again()
        self.ledger.close()

    def _nobody_reads(self) -> int:
        """The slots to be read at nodes where nobody is; the others will come to it, or are waited for."""
        read = 0
        for post in self._posts:
            read |= post.member.slots
        return self.ledger.pending & ~read

    async def _follow(self, stuck: list[Post]) -> None:
        """Finds out what has become of the cluster. Who reads at a node that has nothing any more, leaves."""
        self._followed = time.monotonic()
        try:
            topology = await self._map.refresh()
        except OUT_OF_REACH as error:
            self._error = error
            return
        for post in stuck:
            if post.member.id not in topology.primaries:
                post.abort()

    def _send_workers(self, spawn: Spawn) -> None:
        primaries, resting = self._map.topology.primaries, self.ledger.resting
        least = max(1, -(-self._work.options.ranges // max(len(primaries), 1)))
        for member in primaries.values():
            if not self.ledger.pending & member.slots & ~resting:
                continue
            node = self._node(member, least)
            if node.outage.too_long:
                self._give_up(self.ledger.pending & member.slots, node)
            elif not node.outage.pause:
                for _ in range((1 if node.outage.since is not None else least) - node.workers):
                    self._send(member, node, spawn)

    def _send(self, member: Member, node: Node, spawn: Spawn) -> None:
        node.workers += 1
        spawn(self._worker(member, node, spawn))

    def _node(self, member: Member, least: int) -> Node:
        """Where the slots of a primary are read."""
        if self._work.options.read_from != "replica":
            return self._work.node(self._map.endpoint(member), least=least)
        replicas = self._map.topology.replicas.get(member.id, ())
        chosen = self._chosen.get(member.id)
        if chosen not in {one.id for one in replicas} or self._is_out_of_reach(chosen):
            chosen = random.choice(replicas).id if replicas else member.id
            self._chosen[member.id] = chosen
        replica = self._map.topology.members[chosen]
        return self._work.node(self._map.endpoint(replica), least=least, from_replica=True)

    def _is_out_of_reach(self, id_: str) -> bool:
        member = self._map.topology.members.get(id_)
        node = self._work.nodes.get(self._map.endpoint(member)) if member is not None else None
        return node is not None and node.outage.since is not None

    def _give_up(self, slots: int, node: Node) -> None:
        error = node.outage.error or ServerUnready("the node cannot be reached", node=node.name)
        self._gives_up(slots, f" of {node.name}", error)

    def _gives_up(self, slots: int, where: str, error: Exception) -> None:
        """Skips slots, as asked; or this is the end, and all that is not done is missing."""
        self._work.gives_up(named(slots) + where, error, missing=(self._missing(),))
        self.ledger.skip(slots)

    def _missing(self) -> str:
        """All that is not done, in words."""
        where = f" of database {self.ledger.db}" if self._work.selection.all_dbs else ""
        return named(self.ledger.open, None) + where

    def _give_up_troubled(self) -> None:
        """Slots that turned out to have moved whenever they were read: their time runs as well."""
        if troubled := self.ledger.troubled(self._work.options.patience) & self.ledger.pending:
            self._gives_up(troubled, "", ServerUnready(f"time and again: {self.ledger.why(troubled)}"))

    def _give_up_unserved(self) -> None:
        """Slots that no node serves: their time runs too."""
        unserved = self.ledger.pending & ~self._map.topology.slots
        if not unserved:
            self._unserved_since = None
            return
        now = time.monotonic()
        self._unserved_since = self._unserved_since or now
        patience = 0.0 if self._work.options.on_unreachable == "fail" else self._work.options.patience
        if now - self._unserved_since > patience:
            error = self._error or ServerUnready("no node serves them")
            self._gives_up(unserved, "", error)

    async def _count_again(self) -> None:
        account, keys = self._work.account, await self._map.count(self.ledger.wanted)
        if keys is not None:
            account.keys_at_end = (account.keys_at_end or 0) + keys

    # One worker

    async def _worker(self, member: Member, node: Node, spawn: Spawn) -> None:
        """Reads slots of a node, until there are none or it is out of reach. The node knows of it already."""
        session = node.session()
        post = Post(member, node, session, session)
        if self._work.options.read_from == "replica":
            post.witness = Session(self._map.endpoint(member), self._work.options, self._work.asides)
        self._posts.append(post)
        window: Window | None = None
        try:
            await self._open(post)
            view = await post.view()
            while (window := self._next(node, view)) is not None:
                await post.in_sync()
                await self._read_on(window, post, spawn)
                view = window.view
                window = None
        except OUT_OF_REACH as error:
            log.debug("%s is out of reach: %s", node.name, error)
            node.outage.noted(error)
            self._error = error
            if window is not None:
                why = error.message if isinstance(error, Error) else str(error)
                self.ledger.again(window.left, window.pages.came, why, node.name)
                window = None
            if self._work.options.on_unreachable == "fail":
                self._give_up(self.ledger.pending & member.slots, node)
        except Disordered as error:
            log.debug("%s", error)
            by_slot = window is not None and isinstance(window.pages, SlotScan)
            (self._untabled if by_slot else self._opaque).add(node)
        finally:
            if window is not None:
                self.ledger.give_back(window.left)
            post.abort()
            self._posts.remove(post)
            node.workers -= 1
            self._news.set()

    async def _open(self, post: Post) -> None:
        identity = await post.open()
        if not identity.slot_tables:
            self._untabled.add(post.node)
        if identity.own_cursors:
            self._opaque.add(post.node)
        if self._run_id is not None and identity.run_id != self._run_id:
            text = "a slot that was cut into pieces is served by another process by now: plan again"
            raise PlanOutdated(text, node=post.node.name, missing=(self._missing(),))
        account = self._work.account
        if post.node.name not in account.nodes:
            account.nodes[post.node.name] = None
            await post.node.survey.look(post.session)
            if post.node.survey.keys is not None:
                account.keys_at_start = (account.keys_at_start or 0) + post.node.survey.keys

    def _next(self, node: Node, view: View) -> Window | None:
        """The next slots to read there, of those that nobody reads."""
        selection, most = self._work.selection, self._work.options.count
        here = view.slots & ~bits(view.arriving)
        pages: SlotScan | SlotKeys | GiantScan
        if node not in self._untabled:
            if (claim := self.ledger.claim(here)) is None:
                return None
            first, last, slots = claim
            part = Range.of_slots(first, last).within(self._piece)
            pages = SlotScan(part, slots, selection, most, node=node.name)
        elif node not in self._opaque and (
            claim := self.ledger.claim(here & ~self._giants, most=_SLOTS_COUNTED)
        ):
            pages = SlotKeys(claim[2], selection, most, node=node.name)
        elif claim := self.ledger.claim(here):
            pages = GiantScan(claim[2], selection, most, node=node.name)
            self._work.account.best_effort |= node in self._opaque
        else:
            return None
        return Window(pages, view, self._work.fetch(node, slotted=True))

    async def _read_on(self, window: Window, post: Post, spawn: Spawn) -> None:
        """Reads a window to its end; where a connection is lost, over another one to the same process."""
        while True:
            try:
                await self._read(window, post, spawn)
            except ConnectionLost as error:
                log.debug("%s: a connection was lost: %s", post.node.name, error)
                if not await post.reopen():
                    raise
            else:
                return

    async def _read(self, window: Window, post: Post, spawn: Spawn) -> None:
        """Reads the slots of a window, and judges them about twice a second and at the end."""
        pages, node = window.pages, post.node
        due = time.monotonic() + post.window
        paused = False

        def pauses() -> bool:
            """Time for a view: before anything is asked of slots that it shall be the first view of."""
            nonlocal paused
            paused = time.monotonic() > due or window.weight > self._most_held
            return paused

        async def after_page() -> None:
            nonlocal due
            node.outage.over()
            post.heard, post.reconnections = time.monotonic(), 0
            self._widen(post, spawn)
            if pages.finished or paused:
                await self._judge(window, post)
                due = time.monotonic() + post.window

        if isinstance(pages, SlotScan):
            node.scans.append(pages)
        try:
            db, session = self.ledger.db, post.session
            between = Between(after_page, pauses, partial(self._hold, window))
            await read_pages(self._work, node, pages, session, window.fetch, db=db, between=between)
        finally:
            if isinstance(pages, SlotScan):
                node.scans.remove(pages)
            elif isinstance(pages, SlotKeys):
                self._giants |= pages.giants
        if pages.finished and pages.read & ~window.judged:  # the connection was lost before the verdict
            await self._judge(window, post)
        self.ledger.give_back(window.left)

    @property
    def _most_held(self) -> int:
        """Bytes that a worker may hold until there is a verdict on them."""
        return max(_LEAST_HELD, self._work.options.ahead // max(len(self._posts), 1))

    async def _judge(self, window: Window, post: Post) -> None:
        """Says of the slots that were read since the last time which are done, and delivers them."""
        now = await post.view()
        await post.in_sync()
        done, opened, again, gone = verdict(window, now)
        left: dict[str, int] = {}
        self._leave(window, gone)
        if opened:
            arrived, left = await self._read_targets(window, opened, now, post)
            done |= arrived
        left[MOVED] = left.get(MOVED, 0) | again
        again |= opened & ~done
        window.view = now
        began = time.monotonic()
        await self._deliver(window, again | window.void, window.pages.under_way)
        self.ledger.finish(done)
        self._work.flow.note(self.ledger, self.ledger.done)
        window.judged |= done | again
        for why, slots in left.items():
            self.ledger.again(slots, window.pages.came, why, post.node.name, read=slots)
        if not window.pages.under_way:
            window.fetch.strays.clear()
        if time.monotonic() > began + post.window and not window.pages.finished:
            # the loop has taken its time: what happened meanwhile shall not count against what is read next
            now = await post.view()
            self._leave(window, verdict(window, now).gone)
            window.view = now

    def _leave(self, window: Window, gone: int) -> None:
        window.pages.slots &= ~gone
        self.ledger.give_back(gone)

    async def _read_targets(
        self, window: Window, opened: int, now: View, post: Post
    ) -> tuple[int, dict[str, int]]:
        found, db, hold = self._map, self.ledger.db, partial(self._hold, window)
        return await read_targets(self._work, found, opened, now, post.witness, db=db, hold=hold)

    async def _hold(self, window: Window, batch: Batch) -> None:
        """Keeps a batch until there is a verdict; where that is far, lets go what there is of it."""
        window.hold(batch)
        if window.weight > _FAR_TOO_MUCH * self._most_held:
            begun = window.pages.read | window.pages.under_way
            await self._deliver(window, window.void, begun & ~window.judged)

    async def _deliver(self, window: Window, unwanted: int, undecided: int) -> None:
        """Hands over what was held, but for slots that are read again: it will come then."""
        for batch in window.released():
            names = batch.names or batch.keys
            rows = self.ledger.undelivered(names, unwanted, undecided)
            some = batch if rows is None or len(rows) == len(batch) else batch.of(rows)
            some.names = some.names if self._work.keep_names else None
            await self._work.flow.put(some)

    def _widen(self, post: Post, spawn: Spawn) -> None:
        if self._work.idle or post.node in self._untabled:
            return
        owned = post.member.slots.bit_count() or 1
        widest = post.node.widest(1 / (owned * SLOT_WIDTH))
        other = widest.split() if isinstance(widest, SlotScan) else None
        if other is not None:
            self.ledger.give_back(other.slots)
            self._send(post.member, post.node, spawn)
