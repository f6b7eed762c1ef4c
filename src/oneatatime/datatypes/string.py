"""Strings: bytes. Counters, bitmaps and HyperLogLogs are strings too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._options import KiB
from .._request import Burst, Reply, ReplyError, command, for_each, one_for_all
from .._resp import ARRAY
from ._datatype import Datatype, Odd, OddRows, Steps, Text, odd_reply
from ._written import words

SMALL = 64 * KiB
"""Bytes of a string that a careful read asks for."""


class String(Datatype):
    """Read by MGET where strings have proven small, else by GETRANGE, which no length surprises.

    MGET costs the server less than half of a GET or GETRANGE a key, and answers nil both for no key
    and for another type. GETRANGE answers an empty string both for no key and for an empty string.
    """

    name = "string"
    command = "GET"
    watched = True
    plain = True
    has_elements = False
    forms = (bytes,)
    writer = b"SET"
    replaces = True

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"GETRANGE",), keys, (b"0", SMALL - 1))

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        for row, reply in enumerate(replies):
            if reply.__class__ is not bytes:
                odd[row] = odd_reply(reply)
            elif not reply:
                odd[row] = Odd.EMPTY
            elif len(reply) >= SMALL:
                odd[row] = Odd.MORE
        return replies

    def ask_many(self, keys: Sequence[bytes]) -> Burst:
        """Asks for whole strings by one command."""
        return one_for_all(b"MGET", keys)

    def take_many(self, replies: list[Reply], rows: int, odd: OddRows) -> list[Any]:
        """The values in the reply to `ask_many`."""
        values: Any = replies[0]
        if values.__class__ is not ARRAY or len(values) != rows:
            # MGET fails as a whole, for one key that may not be read: TYPE and GET then name it
            odd.update(dict.fromkeys(range(rows), odd_reply(replies[0])))
            return [None] * rows
        if None in values:
            for row, value in enumerate(values):
                if value is None:
                    odd[row] = Odd.UNSURE
        return values  # type: ignore[no-any-return]

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return for_each((b"GET",), keys)

    def take_whole(self, replies: list[Reply], odd: OddRows) -> list[Any]:
        for row, reply in enumerate(replies):
            if reply.__class__ is not bytes:
                odd[row] = Odd.GONE if reply is None else odd_reply(reply)
        return replies

    def confirm(self, keys: Sequence[bytes]) -> Burst:
        return self.ask_whole(keys)  # GET tells nil from empty

    def take_confirmed(self, replies: list[Reply], odd: OddRows) -> list[Any]:
        return self.take_whole(replies, odd)

    def measure(self, keys: Sequence[bytes]) -> Burst:
        return for_each((b"STRLEN",), keys)

    def parts(self, key: bytes, chunk: int) -> Steps:
        start = 0
        parts: list[Any] = []
        while True:
            # the chunk is the bound here, whatever the limit on replies is
            answer = yield parts, command(b"GETRANGE", key, start, start + chunk - 1, bounded=False)
            piece = answer.replies[0]
            if isinstance(piece, ReplyError):
                raise piece
            parts = [piece] if piece else []
            if len(piece) < chunk:
                yield parts, None
                return
            start += len(piece)

    def assembled(self, parts: list[Any]) -> Any:
        return b"".join(parts)

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        return words(b"SET" if first else b"APPEND", key, value)

    def weight(self, value: Any) -> int:
        return len(value)

    def decoded(self, value: Any, text: Text) -> Any:
        return text(value)

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return parts  # a chunk may end inside a character: parts of a string stay bytes
