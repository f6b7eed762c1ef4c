"""What is done with each record of an import: left out, over, there already, or written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._errors import Error, InvalidInput, ServerFailure
from ._feed import Feed
from ._journal import Journal, Window
from ._record import Batch, Opaque, Piece, StreamDetails
from ._store import PieceLost, Store
from ._unique import seen
from .datatypes import values_of

_MOST_RETURNS = 50  # to the first piece of one value
_DISCARD_SECONDS = 5.0  # for an import that has ended already

log = logging.getLogger("oneatatime")


@dataclass(frozen=True)
class Wanted:
    """Which records are wanted: `means` tells by the key. `said` is all of it as plain data."""

    means: Callable[[bytes], bool] | None = None
    types: frozenset[str] = frozenset()
    prefix: bytes | None = None
    db: int | None = None
    said: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.means is None and not self.types and self.prefix is None and self.db is None

    def __call__(self, key: bytes, kind: str, db: int | None) -> bool:
        return (
            (self.prefix is None or key.startswith(self.prefix))
            and (self.means is None or self.means(key))
            and (not self.types or kind in self.types)
            and (self.db is None or (db or 0) == self.db)
        )


@dataclass(eq=False, repr=False)
class _Value:
    """The value whose pieces are coming. `first` is the number of its first piece among the records.

    `begun`: some of it has been sent. `first_details` are those of the first piece; `dumps` wait for the last
    one, where only a whole dump can be written. `returns`: how often pieces of it were lost on their way.
    """

    key: bytes
    db: int | None
    first: int = 0
    come: int = 0
    dropped: bool = False
    begun: bool = False
    first_details: Any = None
    dumps: list[bytes] = field(default_factory=list)
    returns: int = 0


class Loading:
    """Records into a store, as they are wanted. `journal`: where it is written down how far that is."""

    def __init__(self, store: Store, wanted: Wanted, on_conflict: str, *, dry_run: bool) -> None:
        self.store = store
        self.journal: Journal | None = None
        self._wanted = wanted
        self._on_conflict = on_conflict
        self._dry_run = dry_run
        self._asks = dry_run or on_conflict != "replace"
        self._part = ""
        self._value: _Value | None = None
        self._mine = seen("memory")  # the keys that this run has written, where it matters
        self._place: Callable[[int], str] = str

    @property
    def what(self) -> dict[str, Any]:
        """What is done how, in plain data: nobody may go on with anything else."""
        return {"on_conflict": self._on_conflict, **self._wanted.said}

    async def take_all(self, feed: Feed, part: str, start: int) -> None:
        """Everything that a feed gives, from its record `start` on."""
        self._part = part
        self._place = feed.place
        self.store.begin_at(start)
        try:
            await self._take_each(feed)
        except BaseException as error:
            await self._discard(error)
            if self.journal is not None and not self._asks:
                self.journal.done[part] = self.store.settled
                self.journal.save_now()
            raise
        if self.journal is not None:
            self.journal.whole.add(part)
            await self._save(self.journal)

    async def _take_each(self, feed: Feed) -> None:
        while (numbered := await feed.next()) is not None:
            try:
                await self._take(*numbered)
            except PieceLost as lost:
                await self._return(feed, lost)
            self._check_those_that_came_up()
            if self.journal is not None and self.journal.is_due and not self._asks:
                await self._save(self.journal)
        self._must_have_ended()
        await self.store.drain()
        self._check_those_that_came_up()

    def _check_those_that_came_up(self) -> None:
        """Raises Error for a key that somebody else made while we were about to, where none may exist."""
        keys = self.store.came_up
        if keys and self._on_conflict == "fail":
            raise _conflict(keys[0])
        keys.clear()

    async def _take(self, number: int, batch: Batch) -> None:
        if batch.failed:
            raise next(iter(batch.failed.values()))
        if batch.raw:
            batch.values, batch.raw = list(values_of(batch)), False
        start = 0
        for row, piece in enumerate(batch.pieces or ()):
            if piece is not None:
                await self._take_whole(batch, number, range(start, row))
                await self._take_piece(batch.of([row]), piece, number + row)
                start = row + 1
        await self._take_whole(batch, number, range(start, len(batch)))

    async def _save(self, journal: Journal) -> None:
        journal.done[self._part] = self.store.settled
        await journal.save()

    # Which records

    def _chosen(self, batch: Batch, rows: range) -> list[int]:
        """Those that are wanted and whose time is not over."""
        chosen, counts = list(rows), self.store.counts
        if not self._wanted.everything:
            types, dbs = batch.types, _column(batch, "db")
            chosen = [
                row
                for row in chosen
                if self._wanted(
                    batch.keys[row],
                    types if isinstance(types, str) else types[row],
                    None if dbs is None else dbs[row],
                )
            ]
            counts.left_out += len(rows) - len(chosen)
        moments = _column(batch, "expires_at")
        if moments is not None:
            now = time.time() * 1000
            alive = [row for row in chosen if moments[row] is None or moments[row] > now]
            counts.expired += len(chosen) - len(alive)
            return alive
        return chosen

    # Whole records

    async def _take_whole(self, batch: Batch, number: int, rows: range) -> None:
        if not rows:
            return
        self._must_have_ended()
        chosen = self._chosen(batch, rows)
        end = number + rows.stop
        if not self._asks:
            await self.store.write(batch, chosen, end)
            return
        stay, ours, absent = await self._sorted_out(batch, chosen, number)
        self._count_unwritten(batch, stay, [*ours, *absent])
        if self._dry_run:
            return
        await self._write_down(batch, stay, number + rows.start, end)
        self._mine.fresh([_word(*_name(batch, row)) for row in (*absent, *ours)])
        await self.store.write(batch, absent, 0, absent=True)
        await self.store.write(batch, ours, end)

    async def _sorted_out(
        self, batch: Batch, rows: list[int], number: int
    ) -> tuple[list[int], list[int], list[int]]:
        """Rows whose keys stay as they are, those that we wrote already, and those that are new.

        Raises Error for the first key that exists, where none may.
        """
        there = await self.store.existing(batch, rows)
        written = set(self._mine.known([_word(*_name(batch, row)) for row in rows if row in there]))
        new: set[tuple[int | None, bytes]] = set()
        stay, ours, absent = list[int](), list[int](), list[int]()
        for row in rows:
            name = _name(batch, row)
            if name in new:  # the same key once more: the later record takes its place
                (stay if self._on_conflict == "replace" else ours).append(row)
            elif row not in there:
                absent.append(row)
                new.add(name)
            elif _word(*name) in written or self._was_ours(number + row, name):
                ours.append(row)
            elif self._on_conflict == "fail":
                raise _conflict(name[1])
            else:
                stay.append(row)
        return stay, ours, absent

    def _was_ours(self, number: int, name: tuple[int | None, bytes]) -> bool:
        """Whether the run before this one wrote the key."""
        return self.journal is not None and self.journal.window.is_ours(self._part, number, *name)

    def _count_unwritten(self, batch: Batch, stay: list[int], others: list[int]) -> None:
        """What stays is skipped; of a dry run, what would be written counts as if it were."""
        counts = self.store.counts
        if self._on_conflict != "replace":
            counts.skipped += len(stay)
            stay = []
        if self._dry_run:
            types, rows = batch.types, [*stay, *others]
            counts.written += len(rows)
            counts.replaced += len(stay)
            counts.types.update([types if isinstance(types, str) else types[row] for row in rows])

    async def _write_down(self, batch: Batch, stay: list[int], begin: int, end: int) -> None:
        """Before records are written: which of their keys are somebody else's."""
        journal = self.journal
        if journal is None:
            return
        names, before = {_name(batch, row) for row in stay}, journal.window
        if before.part == self._part and before.end > begin:  # a window of the run before, still to be known
            names |= before.there
            end = max(end, before.end)
        journal.window = Window(self._part, begin, end, frozenset(names))
        await self._save(journal)

    # Pieces

    async def _take_piece(self, one: Batch, piece: Piece, number: int) -> None:
        value = self._value
        if piece.number == 0:  # of another value, or of this one, which begins again
            if value is None or (value.db, value.key) != _name(one, 0):
                self._must_have_ended()
                db, key = _name(one, 0)
                value = self._value = _Value(key, db)
                value.dropped = await self._is_dropped(one, number)
            value.first, value.come, value.dumps = number, 0, []
            value.first_details = _cell(one, "details")
        if value is None or (value.db, value.key) != _name(one, 0) or value.come != piece.number:
            text = f"{self._place(number)}: piece {piece.number} of a value comes without the one before it"
            raise InvalidInput(text, key=one.keys[0])
        value.come += 1
        if value.dropped:
            if piece.last:
                await self.store.write(one, [], number + 1)
        else:
            await self._write_piece(value, one, piece, number + 1)
        if piece.last:
            self._value = None

    async def _is_dropped(self, one: Batch, number: int) -> bool:
        """Whether nothing of this value is to be written."""
        if not self._chosen(one, range(1)):
            return True
        if not self._asks:
            return False
        stay, ours, absent = await self._sorted_out(one, [0], number)
        self._count_unwritten(one, stay, [*ours, *absent])
        if self._dry_run:
            return True
        await self._write_down(one, stay, number, number + 1)
        if not stay:
            self._mine.fresh([_word(*_name(one, 0))])
        return bool(stay)

    async def _write_piece(self, value: _Value, one: Batch, piece: Piece, end: int) -> None:
        content, counts = one.values[0], self.store.counts
        if isinstance(content, Opaque):
            value.dumps.append(content.dump)
            if piece.last:
                one.values = [content._replace(dump=b"".join(value.dumps))]
                await self.store.write(one, [0], end)
        else:
            details, first = _cell(one, "details"), value.first_details
            if piece.number and isinstance(first, StreamDetails):  # where it stands was told at its beginning
                one.metadata = {**(one.metadata or {}), "details": [first.going_on(details, piece)]}
            again, value.begun = value.begun, True
            await self.store.write_piece(one, piece, end, again=again)
        moment = _cell(one, "expires_at")
        if piece.last and moment is not None and moment <= time.time() * 1000:  # only now it was told
            counts.written, counts.expired = counts.written - 1, counts.expired + 1
        counts.torn += piece.torn

    def _must_have_ended(self) -> None:
        """Raises InvalidInput where pieces of a value came, and not its last one."""
        value = self._value
        if value is not None:
            text = (
                f"{self._place(value.first)}: the last piece of the value that begins there is missing: it "
                "was not read to its end"
            )
            raise InvalidInput(text, key=value.key)

    async def _discard(self, error: BaseException) -> None:
        """After the error that ends the import: what is there of values that have no end is deleted again.

        Where that cannot be, their keys are told: nobody may take the halves for whole.
        """
        value, self._value = self._value, None
        halves = [(value.db, value.key)] if value is not None and value.begun else []
        try:
            await asyncio.wait_for(self._end(halves), _DISCARD_SECONDS)
        except (Error, asyncio.TimeoutError, asyncio.CancelledError) as why:
            keys = ", ".join(repr(key) for _, key in halves)
            said = f"half of its value is left in {keys}, which could not be deleted"
            if not halves:
                log.debug("what was under way is not known: %r", why)
            elif isinstance(error, Error):
                error.message = f"{error.message}; {said}"
            else:
                log.warning("%s: %s", said, why or type(why).__name__)

    async def _end(self, halves: list[tuple[int | None, bytes]]) -> None:
        """Waits for what was sent; `halves`, and what else turns out to be, are deleted."""
        await self.store.finish()
        halves += self.store.halves
        if halves:
            await self.store.delete(halves)

    async def _return(self, feed: Feed, lost: PieceLost) -> None:
        """Back to the first piece of the value, because nobody knows what of it has arrived."""
        value = self._value
        assert value is not None, "a piece was being written"
        value.returns += 1
        if value.returns > _MOST_RETURNS:
            text = (
                f"the value could not be written in {_MOST_RETURNS} attempts: connections were lost each time"
            )
            raise ServerFailure(text, key=value.key) from lost
        await feed.go_back(value.first)


def _column(batch: Batch, name: str) -> list[Any] | None:
    return None if batch.metadata is None else batch.metadata.get(name)


def _cell(batch: Batch, name: str) -> Any:
    column = _column(batch, name)
    return None if column is None else column[0]


def _name(batch: Batch, row: int) -> tuple[int | None, bytes]:
    """A key with its database: what makes two records the same one."""
    dbs = _column(batch, "db")
    return (None if dbs is None else dbs[row]), batch.keys[row]


def _word(db: int | None, key: bytes) -> bytes:
    """The same as one word."""
    return (b":" if db is None else b"%d:" % db) + key


def _conflict(key: bytes) -> Error:
    text = (
        "the key exists already, and nothing of it was written: "
        'on_conflict="skip" leaves such keys as they are, "replace" replaces them'
    )
    return Error(text, key=key)
