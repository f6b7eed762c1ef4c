"""Hashes: dict of field to value."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from .._request import Burst, Reply, ReplyError, for_each
from .._resp import ARRAY, fields, size_of
from ._datatype import WHOLE, Datatype, Odd, OddRows, Steps, Text, odd_reply, pairs
from ._scanned import from_the_start, odd_scan, scanned
from ._written import MOST_ELEMENTS, added, together, words


class Hash(Datatype):
    """Read by HSCAN, which tells by its cursor whether it was all. HGETALL is a tenth cheaper: no bound."""

    name = "hash"
    command = "HSCAN"
    words = 2
    forms = (dict,)
    writer = b"HSET"

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return from_the_start(b"HSCAN", keys, limit)

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

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        bursts = [added(b"HSET", key, list(chain.from_iterable(value.items())), 2)]
        at_once: dict[int, list[bytes]] = {}
        for field, moment in (details or {}).items():
            at_once.setdefault(moment, []).append(field)
        for moment, names in at_once.items():
            for start in range(0, len(names), MOST_ELEMENTS):
                some = names[start : start + MOST_ELEMENTS]
                bursts.append(words(b"HPEXPIREAT", key, b"%d" % moment, b"FIELDS", b"%d" % len(some), *some))
        return together(bursts)

    def weight(self, value: Any) -> int:
        return sum(map(len, value)) + sum(map(len, value.values()))

    def decoded(self, value: Any, text: Text) -> Any:
        return {text(name): text(content) for name, content in value.items()}

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return [(text(name), text(content), *rest) for name, content, *rest in parts]


class SomeFields(Hash):
    """Of hashes only some fields, by HMGET: they are all that travels, however big the rest is."""

    command = "HMGET"
    divisible = False

    def __init__(self, names: Sequence[bytes]) -> None:
        self._names = tuple(names)

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"HMGET",), keys, self._names)

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        names = self._names
        values: list[Any] = []
        for reply in replies:
            if reply.__class__ is not ARRAY or len(reply) != len(names):
                odd[len(values)] = odd_reply(reply)
                values.append(None)
                continue
            found = [word for pair in zip(names, reply) if pair[1] is not None for word in pair]
            if not found:
                odd[len(values)] = Odd.EMPTY
            values.append(ARRAY(found))
        return values

    def confirm(self, keys: Sequence[bytes]) -> Burst:
        return for_each((b"TYPE",), keys)  # a hash without any of them, or no hash at all

    def take_confirmed(self, replies: list[Reply], odd: OddRows) -> list[Any]:
        for row, reply in enumerate(replies):
            if isinstance(reply, ReplyError):
                odd[row] = reply
            elif reply != b"hash":
                odd[row] = Odd.GONE if reply == b"none" else Odd.UNSURE
        return [ARRAY() for _ in replies]


def _pairs(flat: list[bytes]) -> list[Any]:
    return list(pairs(flat))
