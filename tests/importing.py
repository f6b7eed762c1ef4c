"""What a file would give an import, without a file."""

from __future__ import annotations

from typing import Any

import oneatatime
from oneatatime import Options
from oneatatime._feed import Feed
from oneatatime._import import Import
from oneatatime._record import Batch, Piece


class Canned(Feed):
    """A feed of batches that are there already."""

    name = "canned"

    def __init__(self, batches: list[Batch]) -> None:
        self._all = batches
        self._at = self._number = 0
        self.returns = 0

    async def next(self) -> Any:
        if self._at == len(self._all):
            return None
        batch, number = self._all[self._at], self._number
        self._at, self._number = self._at + 1, number + len(batch)
        return number, batch

    async def go_back(self, number: int) -> None:
        self.returns += 1
        self._at = self._number = 0
        while self._number < number:
            self._number += len(self._all[self._at])
            self._at += 1

    async def close(self) -> None:
        pass


def piece(key: bytes, kind: str, value: Any, number: int, last: bool = False, **more: Any) -> Batch:
    metadata = {name: [content] for name, content in more.items()}
    return Batch([key], kind, [value], metadata=metadata or None, pieces=[Piece(number, last)])


async def take(feed: Any, url: str, **how: Any) -> oneatatime.Loaded:
    """What `load` does with a feed of files."""
    loading = Import([], url, options=Options(patience=10, connect_timeout=2), **how)
    await loading._loading.store.open()
    try:
        await loading._loading.take_all(feed, "", 0)
    finally:
        loading._loading.store.close()
    return loading.so_far()
