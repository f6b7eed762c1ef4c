"""The pages of one scan, from keys to batches: what every worker does between its first call and its last.

The write order is what keeps the server busy: as soon as a page of keys has come, one write asks for
the next page and for this page's values, and the server works on them while this side unpacks.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ._errors import fitting
from ._fetch import Batches, Fetch
from ._node import Node
from ._record import Batch
from ._request import Burst, ReplyTooBig
from ._session import Pending, Session
from ._work import Work

log = logging.getLogger("oneatatime")


class Pages(Protocol):
    """Something that gives pages of keys: one burst asks for each."""

    count: int
    finished: bool
    in_hand: list[bytes]
    by_type: bool

    def request(self, *, bounded: bool = True) -> Burst:
        """What asks for the next page."""

    def take(self, replies: list[Any]) -> list[bytes]:
        """The keys in the answer; they are `in_hand` until their values have been delivered."""

    def aim(self, keys: int, most: int) -> None:
        """About so many keys should come next."""


@dataclass(frozen=True, eq=False, repr=False)
class Between:
    """What a reader does between pages.

    Where it `pauses`, nothing of the next page is asked for before `after_page`. Batches go to the loop, or
    to who wants to `hold` them first.
    """

    after_page: Callable[[], Awaitable[None]]
    pauses: Callable[[], bool] = bool
    hold: Callable[[Batch], Awaitable[None]] | None = None


async def read_pages(
    work: Work,
    node: Node,
    pages: Pages,
    session: Session,
    fetch: Fetch,
    *,
    db: int,
    between: Between,
) -> None:
    """Reads page by page, to the end. Where it was broken off before, it goes on with what is in hand."""

    async def put(batch: Batch) -> None:
        pages.in_hand = pages.in_hand[batch.covers :]
        if between.hold is not None:
            await between.hold(work.label(batch, db))
        else:
            await work.flow.put(work.label(batch, db))

    pages.count = work.pace.page(pages.count)
    asked = None
    with work.flow.reading():
        while pages.in_hand or not pages.finished:
            count = pages.count
            if not pages.in_hand:
                (asked,) = (asked,) if asked is not None else session.send(pages.request())
                await _take(session, pages, asked)
            keys, asked = pages.in_hand, None
            pages.aim(work.page(node), work.options.count)
            turn = await work.turn(node, session.connection, count, len(keys))
            steps = steps_of(work, fetch, keys, by_type=pages.by_type)
            first = next(steps, None)
            ahead = not pages.finished and not between.pauses()
            asking = [pages.request()] if ahead else []
            if isinstance(first, Burst):
                asking.append(first)
            sent = session.send(*asking) if asking else []
            if ahead:
                asked = sent[0]
            under_way = sent[-1] if isinstance(first, Burst) else None
            try:
                bursts = await drive(work, node, session, steps, first, under_way, put)
            finally:
                turn.end()
            pages.in_hand = []
            work.measure(node, count, len(keys), bursts, session.connection.round_trip)
            await between.after_page()
            await node.look_again(session.connection)


async def _take(session: Session, pages: Pages, asked: Pending) -> None:
    """Takes the next page of keys; smaller ones where the keys themselves are too much for one reply."""
    while True:
        try:
            pages.take((await session.answer(asked)).replies)
            return
        except ReplyTooBig:
            pages.count = max(1, pages.count // 16)
            await session.reopen()
            (asked,) = session.send(pages.request(bounded=pages.count > 1))


def steps_of(work: Work, fetch: Fetch, keys: list[bytes], *, by_type: bool) -> Batches:
    """The reading of a page: of values, or of names alone."""
    if not keys:
        return _nothing()
    if work.names_only:
        return fetch.names(keys, check_types=bool(work.selection.types) and not by_type)
    return fetch.batches(keys)


def _nothing() -> Batches:
    yield from ()


async def drive(
    work: Work,
    node: Node,
    session: Session,
    steps: Batches,
    item: Burst | Batch | None,
    sent: Pending | None,
    put: Callable[[Batch], Awaitable[None]],
) -> int:
    """Runs a fetch to its end: sends its bursts, gives it the answers, hands its batches over.

    Returns how many bursts there were. `item` is what it yielded first; `sent` the same, where it has been
    sent already.
    """
    bursts = 0
    with fitting(session.node), contextlib.suppress(StopIteration):
        while item is not None:
            if isinstance(item, Batch):
                await put(item)
                item = next(steps)
                continue
            bursts += 1
            if sent is None:
                cost = item.replies * work.shapes.work_per_key
                await work.pace.turn(session.connection, node.load, work=cost)
                (sent,) = session.send(item)
            try:
                answer = await session.answer(sent)
                node.watch(sent, work.flow.hungry)
            except ReplyTooBig as surprise:
                limit = work.options.reply_limit
                log.debug("%s: a reply of more than %d bytes was refused", session.node, limit)
                item = steps.throw(surprise)  # first: the next line may end this reading
                await session.reopen()
            else:
                item = steps.send(answer)
            sent = None
    return bursts
