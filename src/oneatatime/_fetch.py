"""Page -> batches: which command for which key, races, vanished keys, values too big for one reply.

`Fetch.batches` is a plain generator: it yields bursts and is sent their answers, and between them it
yields the batches that are ready. It does no I/O, so every decision in it can be tested without a
server.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from ._beside import Beside, Expiring
from ._errors import Error, ServerFailure
from ._options import ATOMIC, LOSSLESS, Options, Selection
from ._page import GONE, Heavy, Page, Rows, extent
from ._record import Batch, Parts
from ._request import Answer, Burst, ReplyError, ReplyTooBig, for_each
from ._shape import Shape, Shapes
from ._statistics import Account
from ._text import decoded, text_of
from .datatypes import STRING, AnyDump, Datatype, Odd, OddRows, SomeFields, datatype

_DUMP = AnyDump()
_MOST_TRIES = 20
_REPLY_OVERHEAD = 8

Batches = Generator["Burst | Batch", "Answer", None]


@dataclass(frozen=True, eq=False, repr=False)
class Where:
    """The server that is read, as far as a fetch must know it.

    `roomy` tells whether it has memory for a reply that nobody foresaw, `burst` how many bytes to ask for
    at a time. `slotted`: a node of a cluster, which takes no command for keys of several slots, and may
    say that a key has moved. `expiring`: what is known of expiry in its database `db`.
    """

    node: str
    roomy: Callable[[], bool]
    burst: Callable[[], int]
    slotted: bool = False
    expiring: Expiring = field(default_factory=Expiring)
    db: int = 0


class Fetch:
    """Reads the values of pages of keys, and remembers what it met.

    `parts` makes the value that stands for one too big to hold. `keep_missing`: a key that is not there
    stays in its place with the value None; otherwise it is left out and counted as vanished. `strays` are
    the keys that have moved to another node, with what the server said: they are left out. `fresh`
    tells which of some keys have not been delivered yet; from then on they have.
    """

    def __init__(
        self,
        selection: Selection,
        options: Options,
        shapes: Shapes,
        where: Where,
        account: Account,
        *,
        parts: Callable[[bytes, Datatype, int], Parts],
        keep_missing: bool = False,
        fresh: Callable[[list[bytes]], list[bytes]] | None = None,
    ) -> None:
        self.strays: dict[bytes, str] = {}
        self._selection = selection
        self._options = options
        self._shapes = shapes
        self._node = where.node
        self._where = where
        self._fields = SomeFields(selection.fields) if selection.fields else None
        self._asked = [name for name in selection.metadata if name not in LOSSLESS]
        self._beside = [name for name in selection.metadata if name in LOSSLESS]
        self._roomy = where.roomy
        self._burst = where.burst
        self._slotted = where.slotted
        self._account = account
        self._parts = parts
        self._keep_missing = keep_missing
        self._fresh = fresh
        self._text = text_of(selection)

    def batches(self, keys: list[bytes]) -> Batches:
        """Reads one page of keys; the batches hold them in their order."""
        start = 0
        while start < len(keys):
            stop = start + self._shapes.fitting(self._burst())
            if (
                len(keys) - stop <= (stop - start) // 2
            ):  # a page a little over its size is not worth two bursts
                stop = len(keys)
            yield from self._group(keys[start:stop] if start or stop < len(keys) else keys)
            start = stop

    def names(self, keys: list[bytes], *, check_types: bool) -> Batches:
        """One batch of the keys without their values: of the wanted types alone, given ones if they exist."""
        if not check_types and self._selection.keys is None:
            known = self._selection.types[0] if self._selection.types else ""
            yield self._delivered(Batch(keys, known, [], covers=len(keys)))
            return
        page = self._page(keys, ())
        yield from page.types_only()
        page.raw = False  # there are no values
        batch = self._batch(page, 0, len(keys))
        batch.values = []
        yield batch

    # One group: as many keys as fit a burst

    def _group(self, keys: list[bytes]) -> Batches:
        shape = self._shapes.uniform
        kind = self._wanted(shape.last) if shape is not None and shape.last is not None else None
        if self._selection.dump:
            yield from self._dumped(keys)
            return
        if shape is None or kind is None:
            yield from self._mixed(keys)
            return
        size = shape.size(kind)
        page = self._page(keys, [(shape, range(len(keys)))])
        plain = not self._asked and (page.beside is None or page.beside.quiet(kind))
        if not plain or size.big or not (kind.bounded or size.proven):
            page.plan(kind, shape, range(len(keys)))
            yield from page.rounds(self._asked)
            yield from self._finish_uniform(page, kind)
        else:
            yield from self._uniform(page, shape, kind)

    def _uniform(self, page: Page, shape: Shape, kind: Datatype) -> Batches:
        """The way of most pages: every key is there, small, and of the type that all had so far."""
        keys, size = page.keys, shape.size(kind)
        many = kind is STRING and not size.careful and self._roomy()
        odd: OddRows = {}
        strings = page.strings(keys) if many else None
        asked = kind.ask(keys, size.limit) if strings is None else strings.ask()
        known = True  # nothing beside the values
        try:
            if page.beside is None:
                answer = yield asked
            else:
                answer, known = page.beside.unframed(kind, (yield page.beside.framed(asked)))
        except ReplyTooBig:
            page.plan(kind, shape, range(len(keys)))
            yield from page.one_by_one()
        else:
            if strings is None:
                values = kind.take(answer.replies, size.limit, odd)
            else:
                values = strings.take(answer.replies, odd)
            if known and not odd:
                most = self._options.parts_over
                if answer.size <= most or max(map(kind.weight, map(kind.made, values))) <= most:
                    longest, elements = extent(kind, values)
                    size.measured(kind, longest, len(keys))
                    self._shapes.weighed(answer.size, elements, len(keys))
                    raw = not kind.plain
                    yield self._delivered(
                        Batch(keys, kind.name, values, answer.size, raw=raw, covers=len(keys))
                    )
                    return
            page.count(answer)
            page.take(kind, shape, range(len(keys)), values, odd)
        yield from page.rounds()
        yield from self._finish_uniform(page, kind)

    def _finish_uniform(self, page: Page, kind: Datatype) -> Batches:
        wrong = sum(1 for name in page.types if name not in (kind.name, GONE))
        self._shapes.was_uniform(len(page.keys), wrong - len(page.heavy))
        yield from self._finish(page)

    def _mixed(self, keys: list[bytes]) -> Batches:
        groups = self._shapes.groups(keys)
        page = self._page(keys, groups)
        for shape, rows in groups:
            guess = shape.guess
            if guess is not None and (read_by := self._wanted(guess)):
                page.plan(read_by, shape, rows)
            else:
                page.ask_type(shape, rows)
        yield from page.rounds(self._asked)
        self._shapes.was_mixed(page.kinds, len(keys), [shape for shape, _ in groups])
        yield from self._finish(page)

    def _dumped(self, keys: list[bytes]) -> Batches:
        """What DUMP gives of each, whatever it is; big values in parts of their own type."""
        page = self._page(keys, self._shapes.groups(keys))
        page.raw = False  # a dump is a value as it came
        for shape, rows in page.groups:
            page.plan(_DUMP, shape, rows, proven=True)
        yield from page.rounds(self._asked)
        big = [row for row, heavy in page.heavy.items() if heavy.size > self._options.parts_over]
        if big:
            answer = yield for_each((b"TYPE",), [keys[row] for row in big])
            for row, name in zip(big, answer.replies):
                if name.__class__ is bytes:
                    page.heavy[row] = page.heavy[row]._replace(kind=datatype(name.decode()))
        yield from self._finish(page)

    def _page(self, keys: list[bytes], groups: Sequence[tuple[Shape, Rows]]) -> Page:
        page = Page(
            keys,
            groups,
            wanted=self._wanted,
            roomy=self._roomy(),
            most_bytes=self._options.parts_over,
            node=self._node,
            slotted=self._slotted,
        )
        if self._beside:
            expiring = self._where.expiring
            expiring.told &= not self._account.best_effort  # what others call so may be old, or a guess
            page.beside = Beside(page, expiring, self._where.db, self._beside)
        return page

    def _wanted(self, kind: Datatype) -> Datatype | None:
        """What values of a type are read by; None where they are not wanted."""
        if self._selection.types and kind.name not in self._selection.types:
            return None
        return self._fields or kind

    # Heavy rows, and handing out

    def _finish(self, page: Page) -> Batches:
        """Reads what was too big for a round, and hands out the page in pieces that fit a burst."""
        start, weight = 0, 0
        pending: list[int] = []
        if page.heavy:
            page.make()
        for row in sorted(page.heavy):
            size = page.heavy[row].size
            if size > self._options.parts_over and page.heavy[row].kind.divisible:
                self._stand_in(page, row)
                continue
            if pending and weight + size > self._burst():
                yield from self._read_heavy(page, pending)
                yield self._batch(page, start, row)
                start, weight, pending = row, 0, []
            pending.append(row)
            weight += size
        yield from self._read_heavy(page, pending)
        self._shapes.weighed(page.received, page.elements, len(page.keys))
        yield self._batch(page, start, len(page.keys))

    def _stand_in(self, page: Page, row: int) -> None:
        heavy = page.heavy.pop(row)
        page.types[row] = heavy.kind.name
        page.values[row] = self._parts(page.keys[row], heavy.kind, heavy.size)
        if page.beside is not None:
            page.beside.read(heavy.kind, [row], big=True)

    def _read_heavy(self, page: Page, rows: list[int]) -> Batches:
        """Values of up to `parts_over` bytes: whole by one command, or in chunks put together."""
        for _ in range(_MOST_TRIES):
            for row in rows:
                heavy = page.heavy.pop(row)
                try:
                    whole = heavy.kind.watched or not (heavy.kind.bounded and heavy.kind.divisible)
                    if heavy.size <= ATOMIC or whole:
                        yield from self._read_whole(page, row, heavy)
                    else:
                        yield from self._read_in_chunks(page, row, heavy)
                except ReplyTooBig:
                    page.heavy[row] = heavy._replace(size=max(heavy.size, self._options.parts_over + 1))
            yield from page.rounds()
            for row in [row for row in rows if row in page.heavy]:
                if page.heavy[row].size > self._options.parts_over and page.heavy[row].kind.divisible:
                    self._stand_in(page, row)
            rows = [row for row in rows if row in page.heavy]
            if not rows:
                yield from page.rounds()  # what is still to be asked about those that are parts by now
                return
        text = f"the key was another value in each of {_MOST_TRIES} looks at it"
        raise ServerFailure(text, node=self._node, key=page.keys[rows[0]])

    def _read_whole(self, page: Page, row: int, heavy: Heavy) -> Batches:
        # the reply to many little elements is longer than they are in the server
        bounded = heavy.kind.divisible and heavy.size <= self._options.reply_limit // _REPLY_OVERHEAD
        answer = yield heavy.kind.ask_whole([page.keys[row]])._replace(bounded=bounded)
        odd: OddRows = {}
        page.count(answer)
        page.take(heavy.kind, heavy.shape, [row], heavy.kind.take_whole(answer.replies, odd), odd)

    def _read_in_chunks(self, page: Page, row: int, heavy: Heavy) -> Batches:
        steps = heavy.kind.parts(page.keys[row], self._options.chunk)
        gathered, size = [], 0
        parts, burst = next(steps)
        try:
            while burst is not None:
                answer = yield burst
                page.count(answer)
                size += answer.size
                if size > _REPLY_OVERHEAD * self._options.parts_over:  # MEMORY USAGE only samples
                    raise ReplyTooBig
                parts, burst = steps.send(answer)
                gathered += parts
        except ReplyError as error:
            page.take(heavy.kind, heavy.shape, [row], [None], {0: error})
            return
        odd: OddRows = {} if gathered else {0: Odd.UNSURE}
        page.take(heavy.kind, heavy.shape, [row], [heavy.kind.assembled(gathered)], odd, made=True)

    def _batch(self, page: Page, start: int, stop: int) -> Batch:
        """The settled rows of a piece of the page."""
        keys, types, values = page.keys[start:stop], page.types[start:stop], page.values[start:stop]
        page.values[start:stop] = [None] * (stop - start)  # delivered: what follows must not keep it alive
        columns = {**page.metadata, **(page.beside.columns if page.beside is not None else {})}
        metadata = {name: column[start:stop] for name, column in columns.items()}
        gone = types.count(GONE)
        self._account.vanished += gone
        rows = None
        failed = self._forbidden(page, start, types)
        if "" in types or (gone and not self._keep_missing):
            dropped = ("",) if self._keep_missing else ("", GONE)
            rows = [row for row, name in enumerate(types) if name not in dropped]
            keys, types = [keys[row] for row in rows], [types[row] for row in rows]
            values = [values[row] for row in rows]
            metadata = {name: [column[row] for row in rows] for name, column in metadata.items()}
        batch = Batch(keys, types, values, page.size, metadata or None, raw=page.raw)
        batch.covers, batch.rows = stop - start, rows
        batch.failed = failed or None
        page.size = 0
        self.strays.update({page.keys[row]: said for row, said in page.strays.items() if start <= row < stop})
        return self._delivered(batch)

    def _forbidden(self, page: Page, start: int, types: list[str]) -> dict[int, Error]:
        """What the user may not read is told in the statement; given keys raise it in their place."""
        failed: dict[int, Error] = {}
        for row, error in page.forbidden.items():
            if start <= row < start + len(types):
                if self._keep_missing:
                    failed[row - start], types[row - start] = error, GONE
                else:
                    self._account.refuse(error)
        return failed

    def _delivered(self, batch: Batch) -> Batch:
        """What of a batch the loop has not had yet, as text where that was asked for."""
        if self._fresh is not None and len(fresh := self._fresh(batch.keys)) < len(batch):
            self._account.repeats += len(batch) - len(fresh)
            batch = batch.of(rows_of(fresh, batch.keys))
        return batch if self._text is None else decoded(batch, self._text, self._selection)


def rows_of(fresh: list[bytes], keys: list[bytes]) -> list[int]:
    """Where the keys `fresh`, in their order, stand among all of them."""
    following = iter(enumerate(keys))
    return [next(row for row, other in following if other == key) for key in fresh]
