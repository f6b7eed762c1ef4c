"""Page -> batches: which command for which key, races, vanished keys, values too big for one reply.

`Fetch.batches` is a plain generator: it yields bursts and is sent their answers, and between them it
yields the batches that are ready. It does no I/O, so every decision in it can be tested without a
server.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from ._errors import ServerFailure
from ._options import ATOMIC, Options, Selection
from ._page import GONE, Page
from ._record import Batch, Parts
from ._request import Answer, Burst, ReplyError, ReplyTooBig
from ._shape import Shape, Shapes
from ._text import decoded, text_of
from .datatypes import STRING, Datatype, Odd, OddRows

_MOST_TRIES = 5

Batches = Generator["Burst | Batch", "Answer", None]


class Fetch:
    """Reads the values of pages of keys, and remembers what it met.

    `parts` makes the value that stands for one too big to hold. `roomy` tells whether the server has
    memory for a reply that nobody foresaw. `keep_missing`: a key that is not there stays in its place
    with the value None; otherwise it is left out and counted in `vanished`.
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
        keep_missing: bool = False,
    ) -> None:
        self.vanished = 0
        self._selection = selection
        self._options = options
        self._shapes = shapes
        self._node = node
        self._parts = parts
        self._roomy = roomy
        self._keep_missing = keep_missing
        self._text = text_of(selection)

    def batches(self, keys: list[bytes]) -> Batches:
        """Reads one page of keys; the batches hold them in their order."""
        start = 0
        while start < len(keys):
            stop = start + self._shapes.fitting(self._options.burst)
            yield from self._group(keys if not start and stop >= len(keys) else keys[start:stop])
            start = stop

    def names(self, keys: list[bytes], *, check_types: bool) -> Batches:
        """One batch of the keys without their values, of the wanted types alone."""
        if not check_types:
            known = self._selection.types[0] if self._selection.types else ""
            yield self._as_text(Batch(keys, known, [None] * len(keys)))
            return
        page = self._page(keys, [Shape()] * len(keys))
        yield from page.types()
        yield self._batch(page, 0, len(keys))

    # One group: as many keys as fit a burst

    def _group(self, keys: list[bytes]) -> Batches:
        shape = self._shapes.uniform
        kind = shape.datatype if shape is not None else None
        if shape is None or kind is None or not self._wanted(kind):
            yield from self._mixed(keys)
        elif self._selection.metadata or shape.big or not (kind.bounded or shape.proven):
            page = self._page(keys, [shape] * len(keys))
            for row in range(len(keys)):
                page.plan(row, kind)
            yield from page.rounds(self._selection.metadata)
            yield from self._finish(page, kind)
        else:
            yield from self._uniform(keys, shape, kind)

    def _uniform(self, keys: list[bytes], shape: Shape, kind: Datatype) -> Batches:
        """The way of most pages: every key is there, small, and of the type that all had so far."""
        many = kind is STRING and not shape.careful and self._roomy()
        odd: OddRows = {}
        try:
            answer = yield STRING.ask_many(keys) if many else kind.ask(keys, shape.limit)
        except ReplyTooBig:
            page = self._page(keys, [shape] * len(keys))
            for row in range(len(keys)):
                page.plan(row, kind)
            yield from page.one_by_one()
        else:
            self._shapes.weighed(answer.size, len(keys))
            if many:
                values = STRING.take_many(answer.replies, len(keys), odd)
            else:
                values = kind.take(answer.replies, shape.limit, odd)
            if not odd:
                biggest = max(map(len, values)) if kind.bounded else 0
                shape.measured(kind, biggest, len(keys))
                if kind is not STRING or biggest <= self._options.parts_over:
                    yield self._as_text(Batch(keys, kind.name, values, answer.size))
                    return
            page = self._page(keys, [shape] * len(keys))
            page.size = answer.size
            page.take(kind, range(len(keys)), values, odd)
        yield from page.rounds()
        yield from self._finish(page, kind)

    def _mixed(self, keys: list[bytes]) -> Batches:
        shapes = self._shapes.of(keys)
        page = self._page(keys, shapes)
        for row, shape in enumerate(shapes):
            guess = shape.guess
            if guess is not None and self._wanted(guess):
                page.plan(row, guess)
            else:
                page.ask_type(row)
        yield from page.rounds(self._selection.metadata)
        self._shapes.weighed(page.size, len(keys))
        yield from self._finish(page, None)

    def _page(self, keys: list[bytes], shapes: Sequence[Shape]) -> Page:
        return Page(keys, shapes, wanted=self._wanted, roomy=self._roomy(), node=self._node)

    def _wanted(self, kind: Datatype) -> bool:
        return not self._selection.types or kind.name in self._selection.types

    # Heavy rows, and handing out

    def _finish(self, page: Page, expected: Datatype | None) -> Batches:
        """Reads what was too big for a round, and hands out the page in pieces that fit a burst."""
        self._hold_back_long_strings(page)
        self._shapes.learn(page.shapes, page.kinds, expected)
        start, weight = 0, 0
        pending: list[int] = []
        for row in sorted(page.heavy):
            _, size = page.heavy[row]
            if size > self._options.parts_over:
                self._stand_in(page, row)
                continue
            if pending and weight + size > self._options.burst:
                yield from self._read_heavy(page, pending)
                yield self._batch(page, start, row)
                start, weight, pending = row, 0, []
            pending.append(row)
            weight += size
        yield from self._read_heavy(page, pending)
        yield self._batch(page, start, len(page.keys))

    def _hold_back_long_strings(self, page: Page) -> None:
        for row, kind in enumerate(page.kinds):
            if kind is STRING and len(page.values[row]) > self._options.parts_over:
                page.heavy[row] = (STRING, len(page.values[row]))

    def _stand_in(self, page: Page, row: int) -> None:
        kind, size = page.heavy[row]
        page.kinds[row], page.values[row] = kind, self._parts(page.keys[row], kind, size)

    def _read_heavy(self, page: Page, rows: list[int]) -> Batches:
        """Values of up to `parts_over` bytes: whole by one command, or in chunks put together."""
        for _ in range(_MOST_TRIES):
            for row in rows:
                kind, size = page.heavy.pop(row)
                try:
                    if size <= ATOMIC or kind.watched or not kind.bounded:
                        yield from self._read_whole(page, row, kind)
                    else:
                        yield from self._read_in_chunks(page, row, kind)
                except ReplyTooBig:
                    page.heavy[row] = (kind, max(size, self._options.parts_over + 1))
                    self._stand_in(page, row)
                    del page.heavy[row]
            yield from page.rounds()
            rows = [row for row in rows if row in page.heavy]
            for row in [row for row in rows if page.heavy[row][1] > self._options.parts_over]:
                self._stand_in(page, row)
                rows.remove(row)
            if not rows:
                return
        text = f"the key was another value in each of {_MOST_TRIES} looks at it"
        raise ServerFailure(text, node=self._node, key=page.keys[rows[0]])

    def _read_whole(self, page: Page, row: int, kind: Datatype) -> Batches:
        answer = yield kind.ask_whole([page.keys[row]])
        odd: OddRows = {}
        page.size += answer.size
        page.take(kind, [row], kind.take_whole(answer.replies, odd), odd)

    def _read_in_chunks(self, page: Page, row: int, kind: Datatype) -> Batches:
        steps = kind.parts(page.keys[row], self._options.chunk)
        gathered = []
        parts, burst = next(steps)
        try:
            while burst is not None:
                answer = yield burst
                page.size += answer.size
                parts, burst = steps.send(answer)
                gathered += parts
        except ReplyError as error:
            page.take(kind, [row], [None], {0: error})
            return
        odd: OddRows = {} if gathered else {0: Odd.UNSURE}
        page.take(kind, [row], [kind.assembled(gathered)], odd)

    def _batch(self, page: Page, start: int, stop: int) -> Batch:
        """The settled rows of a piece of the page."""
        missing = (None,) if self._keep_missing else (None, GONE)
        rows = [row for row in range(start, stop) if page.kinds[row] not in missing]
        self.vanished += sum(1 for row in range(start, stop) if page.kinds[row] is GONE)
        batch = Batch(
            [page.keys[row] for row in rows],
            [page.kinds[row].name for row in rows],  # type: ignore[union-attr]
            [page.values[row] for row in rows],
            page.size,
        )
        page.size = 0
        for row in range(start, stop):
            page.values[row] = None  # delivered: a later piece of the page must not keep it alive
        if page.metadata:
            batch.metadata = {name: [column[row] for row in rows] for name, column in page.metadata.items()}
        return self._as_text(batch)

    def _as_text(self, batch: Batch) -> Batch:
        return batch if self._text is None else decoded(batch, self._text, self._selection)
