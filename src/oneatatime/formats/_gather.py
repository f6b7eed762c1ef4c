"""Batches that are alike, put together before they become arrays: a column costs some us, however short."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from .._options import MiB
from .._record import Batch
from ._layout import Layout

_ROWS = 8 * 1024
_BYTES = 1 * MiB


class Gatherer:
    """Makes RecordBatches of a layout out of more than one page at a time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._alike: list[Batch] = []
        self._rows = self._bytes = 0

    def add(self, batch: Batch, enough: int = _ROWS) -> Iterator[Any]:
        """What is ready now that this batch has come; `enough` rows are worth a RecordBatch."""
        if not len(batch):
            return
        if self._alike and _likeness(batch) != _likeness(self._alike[0]):
            yield from self.rest()
        self._alike.append(batch)
        self._rows += len(batch)
        self._bytes += batch.size
        alone = batch.pieces is not None or not batch.size  # of unknown size: it may be big
        if alone or self._rows >= min(enough, _ROWS) or self._bytes >= _BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[Any]:
        """What still waits."""
        alike, self._alike = self._alike, []
        self._rows = self._bytes = 0
        if alike:
            yield from self._layout.batches(_joined(alike))


def _likeness(batch: Batch) -> tuple[Any, ...]:
    """What batches have in common that can be one."""
    kind = batch.types if isinstance(batch.types, str) else None
    return kind, batch.raw, batch.pieces is None, (batch.metadata or {}).keys()


def _joined(alike: list[Batch]) -> Batch:
    first = alike[0]
    if len(alike) == 1:
        return first
    chain = itertools.chain.from_iterable
    types = first.types if isinstance(first.types, str) else list(chain([batch.types for batch in alike]))
    joined = Batch(list(chain([batch.keys for batch in alike])), types, [], raw=first.raw)
    joined.values = list(chain([batch.values for batch in alike]))
    joined.size = sum([batch.size for batch in alike])
    if first.metadata is not None:
        columns = {name: [(batch.metadata or {})[name] for batch in alike] for name in first.metadata}
        joined.metadata = {name: list(chain(column)) for name, column in columns.items()}
    return joined
