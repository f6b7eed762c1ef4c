"""The keys that somebody gives: a list, any iterable, or an async iterable; finite, endless, slow or fast.

A page is whatever keys are there when one is asked for, at most a page full: a slow source never waits
for a page to fill, and a fast one is fetched a page at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sized
from typing import Any

from ._errors import InvalidInput
from ._options import Selection
from ._resp import size_of

_PATIENCE = 0.001  # seconds a plain iterator may take over one page
_REVERSIBLE = ("surrogateescape", "surrogatepass")  # error handlers of which encoding undoes decoding


class KeySource:
    """Keys taken a page at a time by `take`. Whoever has taken its keys closes it: `aclose`.

    A str key is the bytes that the stream's `encoding` shows as that str: UTF-8 where it shows bytes.
    """

    def __init__(self, selection: Selection) -> None:
        keys = selection.keys
        assert keys is not None
        self.total = len(keys) if isinstance(keys, Sized) else None
        self._encoding = selection.encoding or "utf-8"
        self._errors = selection.errors if selection.errors in _REVERSIBLE else "strict"
        self.taken = 0
        self.slow = False  # a plain iterator that takes its time, and the event loop's with it
        self._keys = keys
        self._ready = isinstance(keys, list | tuple)
        self._left: list[Any] = []  # of a list, where the keys of a page were too long for one burst
        self._pulling: AsyncIterator[Any] | None = None
        self._iterator: Iterator[Any] | None = None
        self._pulled: list[bytes] = []
        self._weight = 0
        self._most, self._most_bytes = 1, 1
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._over = False
        self._error: BaseException | None = None

    @property
    def needs_pulling(self) -> bool:
        """An async source is pulled by a task of its own: `pull`."""
        return isinstance(self._keys, AsyncIterable)

    async def take(self, most: int, most_bytes: int) -> list[bytes]:
        """The next keys, at least one and at most `most`; none at the end."""
        if isinstance(self._keys, AsyncIterable):
            page = await self._take_pulled(most, most_bytes)
        else:
            if self._iterator is None:
                self._iterator = iter(self._keys)
            ready = self._take_ready(self._iterator, most, most_bytes)
            page = self._take_plain(self._iterator, most, most_bytes) if ready is None else ready
        self.taken += len(page)
        return page

    def _take_ready(self, iterator: Iterator[Any], most: int, most_bytes: int) -> list[bytes] | None:
        """Keys of a list, all at once; None where they have to be looked at one by one."""
        if not self._ready:
            return None
        given = self._left or list(itertools.islice(iterator, most))
        with contextlib.suppress(InvalidInput, ValueError):
            page = [key if key.__class__ is bytes else self._as_key(key) for key in given]
            while size_of(page) > most_bytes and len(page) > 1:
                del page[len(page) // 2 :]
            self._left = given[len(page) :]
            return page
        self._ready, self._iterator = False, itertools.chain(given, iterator)
        return None

    def _take_plain(self, iterator: Iterator[Any], most: int, most_bytes: int) -> list[bytes]:
        if self._error is not None:
            raise self._error
        page: list[bytes] = []
        weight, deadline = 0, time.perf_counter() + _PATIENCE
        try:
            for key in iterator:
                raw = self._as_key(key)
                page.append(raw)
                weight += len(raw)
                if len(page) >= most or weight >= most_bytes:
                    break
                if time.perf_counter() > deadline:
                    self.slow = True
                    break
        except Exception as error:
            if not page:
                raise
            self._error = error  # the keys before it come first
        return page

    async def _take_pulled(self, most: int, most_bytes: int) -> list[bytes]:
        self._most, self._most_bytes = most, most_bytes
        while not self._pulled and not self._over:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        page, self._pulled, self._weight = self._pulled, [], 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if not page and self._error is not None:
            raise self._error
        return page

    async def pull(self) -> None:
        """Pulls an async source: as far as a page while nobody takes, and no further."""
        assert isinstance(self._keys, AsyncIterable)
        try:
            self._pulling = self._keys.__aiter__()
            async for key in self._pulling:
                raw = self._as_key(key)
                self._pulled.append(raw)
                self._weight += len(raw)
                self._tell()
                if len(self._pulled) >= self._most or self._weight >= self._most_bytes:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
        except Exception as error:  # noqa: BLE001 - raised where the keys are taken
            self._error = error
        finally:
            self._over = True
            self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def aclose(self) -> None:
        """Closes an async source that can be closed: who takes an iterator closes it."""
        close = getattr(self._pulling, "aclose", None)
        if close is not None:
            await close()

    def _as_key(self, key: Any) -> bytes:
        if key.__class__ is bytes:
            return key
        if isinstance(key, str):
            try:
                return key.encode(self._encoding, self._errors)
            except UnicodeError as error:
                raise InvalidInput(
                    f"{key!r} is not the name of a key in {self._encoding}: {error}"
                ) from error
        if isinstance(key, bytes | bytearray | memoryview):
            return bytes(key)
        raise InvalidInput(f"a key is bytes or str, not {type(key).__name__}: {key!r}")
