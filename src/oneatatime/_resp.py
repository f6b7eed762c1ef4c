"""Bytes -> replies, keys -> commands: what runs once a reply and once a key.

Compiled where there was a compiler when this was installed (`_compiled.c`); the same in Python here.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
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
_ELEMENTS = (list, tuple, set, frozenset)
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


def _writes(name: bytes, keys: Sequence[bytes], values: Sequence[Any]) -> bytes:
    if len(keys) != len(values):
        raise ValueError("there is a value for each key")
    packed: list[bytes] = []
    for key, value in zip(keys, values):
        words: list[Any] = [name, key]
        if value.__class__ is dict:
            words += chain.from_iterable(value.items())
        elif value.__class__ in _ELEMENTS:
            words += value
        else:
            words.append(value)
        if not {bytes}.issuperset(map(type, words)):
            raise TypeError("a key or value is not of bytes")
        packed += [b"*%d\r\n" % len(words), commands(b"", words, b"")]
    return b"".join(packed)


writes: Callable[[bytes, Sequence[bytes], Sequence[Any]], bytes] = _compiled.writes if COMPILED else _writes
"""For each key one command of that name: the key, and the words of its value.

A value is bytes, or a dict, list, tuple or set of bytes. Raises TypeError where one is anything else.
"""


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


def _buffers(words: Sequence[bytes], wide: bool) -> tuple[bytes, bytes]:
    """All words one behind the other; where each begins and the last one ends, as int32, or int64 where wide.

    Raises OverflowError where int32 is not enough, TypeError where not all are bytes.
    """
    ends = array("q" if wide else "i", accumulate(map(len, words), initial=0))
    return b"".join(words), ends.tobytes()


buffers: Callable[[Sequence[bytes], bool], tuple[bytes, bytes]] = _compiled.buffers if COMPILED else _buffers
size_of: Callable[[Sequence[bytes]], int] = _compiled.size_of if COMPILED else _size_of
"""The bytes of all words. Raises TypeError where one is not bytes."""


def _lengths(values: Sequence[Any]) -> tuple[int, int]:
    each = list(map(len, values))
    return max(each, default=0), sum(each)


lengths: Callable[[Sequence[Any]], tuple[int, int]] = _compiled.lengths if COMPILED else _lengths
"""The greatest length of any of some values, and the sum of their lengths."""


def _words_of(replies: list[Any], lengths: list[int]) -> list[bytes] | None:
    if len(replies) != len(lengths):
        return None
    words: list[bytes] = []
    for reply, length in zip(replies, lengths):
        if reply.__class__ is not ARRAY or len(reply) != length:
            return None
        words += reply
    return words if {bytes}.issuperset(map(type, words)) else None


words_of: Callable[[list[Any], list[int]], list[bytes] | None] = _compiled.words_of if COMPILED else _words_of
"""The words of several arrays in one list; None where one is no array of so many words."""
