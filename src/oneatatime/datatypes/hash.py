"""Hashes: dict of field to value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._request import Burst, Reply, for_each
from .._resp import ARRAY, fields, size_of
from ._datatype import WHOLE, Datatype, OddRows, Steps, Text, pairs
from ._scanned import odd_scan, scanned


class Hash(Datatype):
    """Read by HSCAN, which costs what HGETALL costs and tells by its cursor whether it was all."""

    name = "hash"
    command = "HSCAN"
    words = 2

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"HSCAN",), keys, (b"0", b"COUNT", limit))

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        values: list[Any] = []
        append = values.append
        for reply in replies:
            if reply.__class__ is ARRAY and len(reply) == 2 and reply[0] == b"0" and (flat := reply[1]):
                if len(flat) & 1:  # asked here, because zip(strict=True) costs a tenth of the whole read
                    raise ValueError(f"{len(flat)} elements are no pairs")
                size_of(flat)  # or nonsense would only show when a dict is to be made of it
                append(flat)
            else:
                odd[len(values)] = odd_scan(reply)
                append(None)
        return values

    def made(self, raw: Any) -> Any:
        return fields(raw)

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return self.ask(keys, WHOLE)

    def parts(self, key: bytes, chunk: int) -> Steps:
        return scanned(b"HSCAN", key, chunk, _pairs)

    def assembled(self, parts: list[Any]) -> Any:
        return dict(parts)

    def weight(self, value: Any) -> int:
        return sum(map(len, value)) + sum(map(len, value.values()))

    def decoded(self, value: Any, text: Text) -> Any:
        return {text(name): text(content) for name, content in value.items()}

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return [(text(name), text(content)) for name, content in parts]


def _pairs(flat: list[bytes]) -> list[Any]:
    return list(pairs(flat))
