"""Bytes -> replies, keys -> commands: what runs once a reply and once a key.

Compiled where there was a compiler when this was installed (`_compiled.c`); the same in Python here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hiredis import PushNotification, Reader, ReplyError

try:
    from . import _compiled
except ImportError:  # installed without a compiler
    _compiled = None  # type: ignore[assignment]

COMPILED = _compiled is not None

ARRAY: Any = tuple if COMPILED else list
"""What the arrays in replies are."""

_FEED_SIZE = 16 * 1024  # hiredis moves the rest of what it was fed to the front after each kilobyte parsed
_INCOMPLETE = object()
_DIGITS = b"0123456789"
_HUGE_ARRAY = re.compile(rb"\*[0-9]{8}")
"""hiredis makes room for all elements at once: no memory yet, but seconds of every collection."""


class Parser(Protocol):
    """Makes replies of what it is fed.

    `consumed` bytes of replies taken so far; `buffered` bytes that are no whole reply yet; `pushed` what
    came without being asked for.
    """

    @property
    def consumed(self) -> int: ...
    @property
    def buffered(self) -> int: ...
    @property
    def pushed(self) -> list[Any]: ...

    def feed(self, data: memoryview, /) -> None: ...

    def take(self, replies: list[Any], most: int, bounded: bool, /) -> int:
        """Appends at most `most` replies, as many as are there, and returns how many.

        `bounded`: none is an array of ten million elements or more. Raises ValueError for what is no RESP;
        nothing that comes after it can be made sense of.
        """


class HiredisParser:
    """The same by hiredis, a reply a call.

    All replies are to be taken before more is fed. hiredis does not tell where a reply ends, so what it was
    fed counts as consumed by whoever finds that it was not enough: the last reply in it is nearly all of it.
    """

    def __init__(self) -> None:
        self.consumed = 0
        self.buffered = 0
        self.pushed: list[Any] = []
        self._fed = 0
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._data = memoryview(b"")

    def feed(self, data: memoryview) -> None:
        self._data = data

    def take(self, replies: list[Any], most: int, bounded: bool) -> int:
        gets, append, taken = self._reader.gets, replies.append, 0
        while taken < most:
            reply = gets()
            if reply is _INCOMPLETE:
                self.consumed, self._fed = self.consumed + self._fed, 0
                if not len(self._data):
                    break
                self._feed_more(bounded)
            elif reply.__class__ is PushNotification:
                self.pushed.append(reply)
            else:
                append(reply)
                taken += 1
        return taken

    def _feed_more(self, bounded: bool) -> None:
        size = min(_FEED_SIZE, len(self._data))
        suspect = _HUGE_ARRAY.search(self._data[: size + 8])
        if suspect is not None and suspect.start() < size:
            if suspect.start():
                size = suspect.start()
            elif bounded and not self._reader.has_data():  # else it is a part of a string
                raise ValueError("an array of so many elements cannot be what was asked for")
        self._reader.feed(self._data[:size])  # type: ignore[arg-type]
        self._data, self._fed = self._data[size:], size


def parser() -> Parser:
    """A new parser."""
    return _compiled.Parser(ReplyError) if COMPILED else HiredisParser()


def commands(before: bytes, keys: Sequence[bytes], after: bytes) -> bytes:
    """For each key the bytes before it, the key as a word of RESP, and the bytes after it."""
    if COMPILED:
        return _compiled.commands(before, keys, after)
    frame = b"%b$%%d\r\n%%b\r\n%b" % (before.replace(b"%", b"%%"), after.replace(b"%", b"%%"))
    return b"".join([frame % (len(key), key) for key in keys])


def _fields(flat: Sequence[Any]) -> dict[Any, Any]:
    following = iter(flat)
    return dict(zip(following, following))


fields: Callable[[Any], dict[Any, Any]] = _compiled.fields if COMPILED else _fields
"""A dict of name, content, name, content, ... Raises TypeError where a name can be none."""


def _alike(words: Sequence[bytes], digits: bool) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for place, word in enumerate(words if digits else [word.translate(None, _DIGITS) for word in words]):
        if word in found:
            found[word].append(place)
        else:
            found[word] = [place]
    return found


alike: Callable[[Sequence[bytes], bool], dict[bytes, list[int]]] = _compiled.alike if COMPILED else _alike
"""The places of each word. Where `digits` are not wanted, words that differ in nothing else are alike."""


def _size_of(words: Sequence[bytes]) -> int:
    if not {bytes}.issuperset(map(type, words)):
        raise TypeError("words is a sequence of bytes")
    return sum(map(len, words))


size_of: Callable[[Sequence[bytes]], int] = _compiled.size_of if COMPILED else _size_of
"""The bytes of all words. Raises TypeError where one is not bytes."""
