"""Page -> batches: which command for which key, races, vanished keys, values too big for one reply.

`Fetch.batches` is a plain generator: it yields bursts and is sent their answers, and between them it
yields the batches that are ready. It does no I/O, so every decision in it can be tested without a
server.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from ._errors import ServerFailure
from ._options import ATOMIC, Options, Selection
from ._page import GONE, Heavy, Page, Rows, extent
from ._record import Batch, Parts
from ._request import Answer, Burst, ReplyError, ReplyTooBig
from ._shape import Shape, Shapes
from ._text import decoded, text_of
from .datatypes import STRING, Datatype, Odd, OddRows

_MOST_TRIES = 20
_REPLY_OVERHEAD = 8

Batches = Generator["Burst | Batch", "Answer", None]


class Fetch:
    """Reads the values of pages of keys, and remembers what it met.

    `parts` makes the value that stands for one too big to hold. `roomy` tells whether the server has
    memory for a reply that nobody foresaw, `burst` how many bytes to ask for at a time. `keep_missing`: a
    key that is not there stays in its place with the value None; otherwise it is left out and counted in
    `vanished`.
    """

    def __init__(
        self,
        selection: Selection,
        options: Options,
        shapes: Shapes,
        *,
        node: str,
        parts: Callable[[bytes, Datatype, int], Parts],
        roomy: Callable[[], bool],
        burst: Callable[[], int],
        keep_missing: bool = False,
    ) -> None:
        self.vanished = 0
        self._selection = selection
        self._options = options
        self._shapes = shapes
        self._node = node
        self._parts = parts
        self._roomy = roomy
        self._burst = burst
        self._keep_missing = keep_missing
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
            yield self._as_text(Batch(keys, known, []))
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
        kind = shape.last if shape is not None else None
        if shape is None or kind is None or not self._wanted(kind):
            yield from self._mixed(keys)
            return
        size = shape.size(kind)
        if self._selection.metadata or size.big or not (kind.bounded or size.proven):
            page = self._page(keys, [(shape, range(len(keys)))])
            page.plan(kind, shape, range(len(keys)))
            yield from page.rounds(self._selection.metadata)
            yield from self._finish_uniform(page, kind)
        else:
            yield from self._uniform(keys, shape, kind)

    def _uniform(self, keys: list[bytes], shape: Shape, kind: Datatype) -> Batches:
        """The way of most pages: every key is there, small, and of the type that all had so far."""
        size = shape.size(kind)
        many = kind is STRING and not size.careful and self._roomy()
        odd: OddRows = {}
        page = self._page(keys, [(shape, range(len(keys)))])
        try:
            answer = yield STRING.ask_many(keys) if many else kind.ask(keys, size.limit)
        except ReplyTooBig:
            page.plan(kind, shape, range(len(keys)))
            yield from page.one_by_one()
        else:
            if many:
                values = STRING.take_many(answer.replies, len(keys), odd)
            else:
                values = kind.take(answer.replies, size.limit, odd)
            if not odd:
                most = self._options.parts_over
                if answer.size <= most or max(map(kind.weight, map(kind.made, values))) <= most:
                    longest, elements = extent(kind, values)
                    size.measured(kind, longest, len(keys))
                    self._shapes.weighed(answer.size, elements, len(keys))
                    yield self._as_text(Batch(keys, kind.name, values, answer.size, raw=not kind.plain))
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
            if guess is not None and self._wanted(guess):
                page.plan(guess, shape, rows)
            else:
                page.ask_type(shape, rows)
        yield from page.rounds(self._selection.metadata)
        self._shapes.was_mixed(page.kinds, len(keys), [shape for shape, _ in groups])
        yield from self._finish(page)

    def _page(self, keys: list[bytes], groups: Sequence[tuple[Shape, Rows]]) -> Page:
        return Page(
            keys,
            groups,
            wanted=self._wanted,
            roomy=self._roomy(),
            most_bytes=self._options.parts_over,
            node=self._node,
        )

    def _wanted(self, kind: Datatype) -> bool:
        return not self._selection.types or kind.name in self._selection.types

    # Heavy rows, and handing out

    def _finish(self, page: Page) -> Batches:
        """Reads what was too big for a round, and hands out the page in pieces that fit a burst."""
        start, weight = 0, 0
        pending: list[int] = []
        if page.heavy:
            page.make()
        for row in sorted(page.heavy):
            size = page.heavy[row].size
            if size > self._options.parts_over:
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

    def _read_heavy(self, page: Page, rows: list[int]) -> Batches:
        """Values of up to `parts_over` bytes: whole by one command, or in chunks put together."""
        for _ in range(_MOST_TRIES):
            for row in rows:
                heavy = page.heavy.pop(row)
                try:
                    if heavy.size <= ATOMIC or heavy.kind.watched or not heavy.kind.bounded:
                        yield from self._read_whole(page, row, heavy)
                    else:
                        yield from self._read_in_chunks(page, row, heavy)
                except ReplyTooBig:
                    page.heavy[row] = heavy._replace(size=max(heavy.size, self._options.parts_over + 1))
            yield from page.rounds()
            for row in [row for row in rows if row in page.heavy]:
                if page.heavy[row].size > self._options.parts_over:
                    self._stand_in(page, row)
            rows = [row for row in rows if row in page.heavy]
            if not rows:
                return
        text = f"the key was another value in each of {_MOST_TRIES} looks at it"
        raise ServerFailure(text, node=self._node, key=page.keys[rows[0]])

    def _read_whole(self, page: Page, row: int, heavy: Heavy) -> Batches:
        # the reply to many little elements is longer than they are in the server
        bounded = heavy.size <= self._options.reply_limit // _REPLY_OVERHEAD
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
        metadata = {name: column[start:stop] for name, column in page.metadata.items()}
        gone = types.count(GONE)
        self.vanished += gone
        if "" in types or (gone and not self._keep_missing):
            dropped = ("",) if self._keep_missing else ("", GONE)
            rows = [row for row, name in enumerate(types) if name not in dropped]
            keys, types = [keys[row] for row in rows], [types[row] for row in rows]
            values = [values[row] for row in rows]
            metadata = {name: [column[row] for row in rows] for name, column in metadata.items()}
        batch = Batch(keys, types, values, page.size, metadata or None, raw=page.raw)
        page.size = 0
        return self._as_text(batch)

    def _as_text(self, batch: Batch) -> Batch:
        return batch if self._text is None else decoded(batch, self._text, self._selection)
