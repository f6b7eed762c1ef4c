"""Lists: list of elements, head first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._request import Burst, Reply, ReplyError, ReplyTooBig, command, for_each
from .._resp import ARRAY
from ._datatype import WHOLE, Datatype, Odd, OddRows, Steps, Text, odd_reply
from ._scanned import FIRST_COUNT, next_count
from ._written import added


class List(Datatype):
    """Read by LRANGE of one element more than the limit, so that its reply tells whether it was all."""

    name = "list"
    forms = (list, tuple)
    writer = b"RPUSH"
    command = "LRANGE"
    watched = True  # elements have no identity: pushes and pops shift what an index means

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"LRANGE",), keys, (b"0", limit))

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        for row, reply in enumerate(replies):
            if reply.__class__ is not ARRAY:
                odd[row] = odd_reply(reply)
            elif not reply:
                odd[row] = Odd.GONE
            elif len(reply) > limit:
                odd[row] = Odd.MORE
        return replies

    def made(self, raw: Any) -> Any:
        return list(raw)

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return self.ask(keys, WHOLE)

    def parts(self, key: bytes, chunk: int) -> Steps:
        start, count = 0, FIRST_COUNT
        parts: list[Any] = []
        while True:
            try:
                answer = yield parts, command(b"LRANGE", key, start, start + count - 1, bounded=count > 1)
            except ReplyTooBig:
                parts, count = [], 1
                continue
            reply = answer.replies[0]
            if isinstance(reply, ReplyError):
                raise reply
            parts = list(reply)
            if len(parts) < count:
                yield parts, None
                return
            start += len(parts)
            count = next_count(count, len(parts), answer.size, chunk)

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        return added(b"RPUSH", key, list(value))

    def weight(self, value: Any) -> int:
        return sum(map(len, value))

    def decoded(self, value: Any, text: Text) -> Any:
        return [text(element) for element in value]

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return self.decoded(parts, text)  # type: ignore[no-any-return]
