"""Any other type: its name, and the bytes of DUMP that RESTORE takes back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

from .._record import Opaque
from .._request import Burst, Reply, ReplyError, command, for_each
from ._datatype import Datatype, Odd, OddRows, Steps, Text, odd_reply
from ._written import words


class OpaqueType(Datatype):
    """A type we have no commands for. DUMP works on every type, so TYPE goes with it."""

    command = "DUMP"
    bounded = False
    plain = True
    writer = b"RESTORE"
    replaces = True
    grows = False
    one_command = False

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        bursts = [command(b"DUMP", key) + command(b"TYPE", key) for key in keys]
        return Burst(b"".join(burst.payload for burst in bursts), 2 * len(keys))

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        values: list[Any] = []
        for dump, kind in zip(replies[::2], replies[1::2]):
            if dump.__class__ is bytes and kind == self.name.encode():
                values.append(Opaque(self.name, dump))
            else:
                odd[len(values)] = odd_reply(dump)
                values.append(None)
        return values

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return self.ask(keys, 0)

    def parts(self, key: bytes, chunk: int) -> Steps:
        """Chunks of the dump. It is one reply, so reading them takes memory for all of it."""
        dump = (yield [], command(b"DUMP", key, bounded=False)).replies[0]
        if isinstance(dump, ReplyError):
            raise dump
        dump = dump or b""
        yield [dump[start : start + chunk] for start in range(0, len(dump), chunk)], None

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        dump = getattr(value, "dump", value)
        return words(b"RESTORE", key, b"0", dump, b"REPLACE")

    def weight(self, value: Any) -> int:
        return len(value.dump)

    def decoded(self, value: Any, text: Text) -> Any:
        return value

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return parts


class AnyDump(OpaqueType):
    """A value of whatever type, as DUMP gives it: `dump=True`."""

    mixed = True

    def __init__(self) -> None:
        super().__init__("dump")

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"DUMP",), keys) + for_each((b"TYPE",), keys)

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        dumps, kinds = replies[: len(replies) // 2], replies[len(replies) // 2 :]
        one = kinds[0]
        alike = one.__class__ is bytes and one != b"none" and kinds.count(one) == len(kinds)
        if alike and {bytes}.issuperset(map(type, dumps)):
            return list(map(Opaque, repeat(one.decode("utf-8", "replace")), dumps))
        values: list[Any] = []
        for dump, kind in zip(dumps, kinds):
            if dump.__class__ is bytes and kind.__class__ is bytes and kind != b"none":
                values.append(Opaque(kind.decode("utf-8", "replace"), dump))
            else:
                odd[len(values)] = Odd.GONE if dump is None else odd_reply(dump)
                values.append(None)
        return values
