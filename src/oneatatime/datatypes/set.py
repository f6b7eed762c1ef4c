"""Sets: set of members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._request import Burst, Reply
from .._resp import ARRAY, size_of
from ._datatype import WHOLE, Datatype, OddRows, Steps, Text
from ._scanned import from_the_start, odd_scan, scanned
from ._written import added


class Set(Datatype):
    """Read by SSCAN, which tells by its cursor whether it was all."""

    name = "set"
    forms = (set, frozenset, list)
    writer = b"SADD"
    command = "SSCAN"

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return from_the_start(b"SSCAN", keys, limit)

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        values: list[Any] = []
        append = values.append
        for reply in replies:
            if reply.__class__ is ARRAY and len(reply) == 2 and reply[0] == b"0" and reply[1]:
                size_of(reply[1])  # or nonsense would only show when a set is to be made of it
                append(reply[1])
            else:
                odd[len(values)] = odd_scan(reply)
                append(None)
        return values

    def made(self, raw: Any) -> Any:
        return set(raw)

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return self.ask(keys, WHOLE)

    def parts(self, key: bytes, chunk: int) -> Steps:
        return scanned(b"SSCAN", key, chunk, list)

    def assembled(self, parts: list[Any]) -> Any:
        return set(parts)

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        return added(b"SADD", key, list(value))

    def weight(self, value: Any) -> int:
        return sum(map(len, value))

    def decoded(self, value: Any, text: Text) -> Any:
        return {text(member) for member in value}

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return [text(member) for member in parts]
