"""Sorted sets: list of (member, score), lowest score first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .._request import Burst, Reply, for_each
from .._resp import ARRAY
from ._datatype import WHOLE, Datatype, Odd, OddRows, Steps, Text, nonsense, odd_reply, pairs
from ._scanned import scanned
from ._written import added


class SortedSet(Datatype):
    """Read by ZRANGE of one member more than the limit; in parts by ZSCAN, because ranks shift."""

    name = "zset"
    forms = (list,)
    writer = b"ZADD"
    command = "ZRANGE"

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"ZRANGE",), keys, (b"0", limit, b"WITHSCORES"))

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        values: list[Any] = []
        append = values.append
        for reply in replies:
            if reply.__class__ is not ARRAY or not reply:
                odd[len(values)] = Odd.GONE if reply.__class__ is ARRAY else odd_reply(reply)
                append(None)
                continue
            # RESP3 sends pairs with the score as a number, RESP2 one flat list of strings
            raw = reply if reply[0].__class__ is ARRAY else _scored(pairs(reply))
            if len(raw) > limit:
                odd[len(values)] = Odd.MORE
            append(raw)
        return values

    def made(self, raw: Any) -> Any:
        try:
            if raw[0][1].__class__ is float:
                return [(member, score) for member, score in raw]
            return _scored(raw)
        except (IndexError, TypeError, ValueError) as error:
            raise nonsense(self.command, error) from error

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return self.ask(keys, WHOLE)

    def parts(self, key: bytes, chunk: int) -> Steps:
        return scanned(b"ZSCAN", key, chunk, _flat)

    def assembled(self, parts: list[Any]) -> Any:
        return sorted(dict(parts).items(), key=lambda pair: (pair[1], pair[0]))

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        return added(b"ZADD", key, _words(value), 2)

    def written_each(self, keys: Sequence[bytes], values: Sequence[Any]) -> Burst:
        return super().written_each(keys, [_words(value) for value in values])

    def weight(self, value: Any) -> int:
        return sum([len(member) for member, _ in value])

    def decoded(self, value: Any, text: Text) -> Any:
        return [(text(member), score) for member, score in value]

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return self.decoded(parts, text)  # type: ignore[no-any-return]


def _scored(scored: Iterable[Any]) -> list[Any]:
    return [(member, float(score)) for member, score in scored]


def _words(value: Iterable[tuple[bytes, float]]) -> list[bytes]:
    """Score and member in turn: `repr` of a double is the shortest text that is read as the same one."""
    return [word for member, score in value for word in (repr(float(score)).encode(), member)]


def _flat(flat: list[Any]) -> list[Any]:
    return _scored(pairs(flat))
