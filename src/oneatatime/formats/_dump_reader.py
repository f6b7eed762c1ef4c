"""Commands of a dump -> records, in constant memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from hiredis import HiredisError

from .._errors import InvalidInput
from .._options import KiB
from .._record import Batch, Commands, Opaque, Piece
from .._resp import ARRAY, parser
from ..datatypes import words
from ._format import Reader
from ._payload import type_of

VERSION = 1
HEADER = b"oneatatime dump "

_BLOCK = 256 * KiB
_BEGINS = b"*2\r\n$4\r\nECHO\r\n"
_FOREIGN = "it is no dump of oneatatime, whose first command says so; redis-cli --pipe sends others"
_END = re.compile(rb"oneatatime end ([0-9]{1,18}) records")
_RESTORE_WORDS = 5
_NUMBER = re.compile(rb"[0-9]{1,18}")
_TYPES = {
    **dict.fromkeys((b"SET", b"APPEND"), "string"),
    **dict.fromkeys((b"HSET", b"HPEXPIREAT"), "hash"),
    **dict.fromkeys((b"XGROUP", b"XADD", b"XCLAIM", b"XDEL", b"XTRIM", b"XSETID"), "stream"),
    **dict.fromkeys((b"JSON.SET", b"JSON.MERGE", b"JSON.ARRAPPEND"), "ReJSON-RL"),
    b"RPUSH": "list",
    b"SADD": "set",
    b"ZADD": "zset",
}
"""What a value is that a command adds to."""


@dataclass
class _Growing:
    """A value that is written by commands of its type, as far as they have been read."""

    key: bytes
    type: str | None = None
    commands: list[bytes] = field(default_factory=list)
    size: int = 0
    pieces: int = 0
    expires_at: int | None = None


class _Wrong(ValueError):
    """What is wrong with a command."""


class DumpReader(Reader):
    """The commands of a file, a block at a time; one that is longer is held whole.

    A value that is written by several commands comes in pieces of about a block, as `Commands`.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file, name)
        self._rows: list[tuple[Any, ...]] = []
        self._growing: _Growing | None = None
        self._database: int | None = None
        self._keys = 0
        self._ended = False

    def batches(self, start: int = 0) -> Iterator[tuple[int, Batch]]:
        number = 0
        for commands in self._commands():
            if (batch := self._restored_alike(commands)) is not None:
                if number + len(batch) > start:
                    skipped = max(start - number, 0)
                    yield number + skipped, batch.of(list(range(skipped, len(batch)))) if skipped else batch
                number += len(batch)
                continue
            try:
                for command in commands:
                    self._take(command)
                wrong = None
            except _Wrong as error:
                wrong = error
            rows, self._rows = self._rows, []
            if rows and number + len(rows) > start:
                skipped = max(start - number, 0)
                yield number + skipped, _batch(rows[skipped:])
            number += len(rows)
            if wrong is not None:
                raise InvalidInput(f"{self.name}, {self.place(number)}: {wrong}") from wrong
        if not self._ended:
            self._refuse(
                f"it is cut off after {self._keys:,} keys: the last command, which counts them, is missing"
            )

    def place(self, number: int) -> str:
        return f"record {number + 1:,}"

    def _commands(self) -> Iterator[list[Any]]:
        """All commands behind the first, which says what the file is."""
        parsed, begun = parser(), False
        while block := self.file.read(_BLOCK):
            commands: list[Any] = []
            if not begun and not block.startswith(_BEGINS[: len(block)]):
                self._refuse(_FOREIGN)  # before a length in it lets all of it wait for its end
            parsed.feed(memoryview(block))
            failed: Exception | None = None
            try:
                while parsed.take(commands, 1000, True):
                    pass
                if parsed.pushed:
                    raise ValueError("something that only a server sends")
            except (HiredisError, ValueError) as error:
                failed = error
            if commands and not begun:
                self._begin(commands.pop(0))
                begun = True
            if begun:
                yield commands
            if failed is not None:
                what = "it is damaged: what follows is no command" if begun else "it is no dump of oneatatime"
                raise InvalidInput(f"{self.name}: {what} ({failed})") from failed
        if not begun:
            self._refuse("it is empty or cut off: a dump of oneatatime begins with a command that says so")

    def _begin(self, command: Any) -> None:
        text = (
            command[1] if command.__class__ is ARRAY and len(command) == 2 and command[0] == b"ECHO" else b""
        )
        if text.__class__ is not bytes or not text.startswith(HEADER):
            self._refuse(_FOREIGN)
        version = text[len(HEADER) :].decode("ascii", "replace")
        if version != str(VERSION):
            self._refuse(
                f"it is of version {version[:20]} of the format, and this release reads version {VERSION}: "
                "a newer release of oneatatime reads it"
            )

    def _refuse(self, what: str) -> NoReturn:
        raise InvalidInput(f"{self.name}: {what}")

    # What a command means. ------------------------------------------------------------------------

    def _take(self, command: Any) -> None:
        if command.__class__ is not ARRAY or len(command) < 2 or not {bytes}.issuperset(map(type, command)):
            raise _Wrong("there is something else where a command should be")
        if self._ended:
            raise _Wrong("there is more behind the command that ends it")
        name = command[0]
        if name == b"RESTORE":
            self._restored(command)
        elif name in _TYPES or name == b"PEXPIREAT":
            self._grow(command)
        elif name == b"DEL" and len(command) == 2:
            self._begin_value(command[1])
        else:
            self._finish_value()
            if name == b"SELECT":
                self._database = _number(command[1])
            elif name == b"ECHO":
                self._end(command[1])
            else:
                raise _Wrong(f"the command {name[:40]!r} is none of a dump")

    def _restored_alike(self, commands: list[Any]) -> Batch | None:
        """The records of commands that are all RESTORE, column by column: the way of most blocks.

        None where there is anything else among them, or anything wrong: then each is looked at by itself.
        """
        if not commands or self._growing is not None or self._ended:
            return None
        if set(map(type, commands)) != {ARRAY} or set(map(len, commands)) != {_RESTORE_WORDS}:
            return None
        names, keys, moments, dumps, ends = map(list, zip(*commands))
        if names.count(b"RESTORE") + ends.count(b"ABSTTL") < 2 * len(commands):
            return None
        if set(map(type, keys)) | set(map(type, dumps)) | set(map(type, moments)) != {bytes}:
            return None
        metadata: dict[str, list[Any]] = {}
        if moments.count(b"0") < len(moments):
            if not all(map(_NUMBER.fullmatch, moments)):
                return None
            metadata["expires_at"] = [None if moment == b"0" else int(moment) for moment in moments]
        if self._database is not None:
            metadata["db"] = [self._database] * len(keys)
        types = list(map(type_of, dumps))
        self._keys += len(keys)
        kind = types[0] if types.count(types[0]) == len(types) else types
        values = list(map(Opaque, types, dumps))
        return Batch(keys, kind, values, sum(map(len, dumps)), metadata=metadata or None)

    def _restored(self, command: Any) -> None:
        if self._growing is not None:
            self._finish_value()
        if len(command) != 5 or command[4] != b"ABSTTL":
            raise _Wrong("its RESTORE has not the form it should have")
        _, key, moment, dump, _ = command
        kind = type_of(dump)
        self._keys += 1
        at = None if moment == b"0" else _number(moment)
        self._rows.append((key, kind, Opaque(kind, dump), self._database, at, None))

    def _grow(self, command: Any) -> None:
        value = self._growing
        name, key = command[0], command[2 if command[0] == b"XGROUP" else 1]
        if value is None or value.key != key:
            raise _Wrong(f"there is {name.decode()} of another key than the DEL before it")
        if name == b"PEXPIREAT":
            value.expires_at = _number(command[2])
        elif value.type not in (None, _TYPES[name]):
            raise _Wrong(f"there is {name.decode()} of a value of type {value.type}")
        else:
            value.type = _TYPES[name]
        if value.size >= _BLOCK:
            self._add_piece(value, last=False)
        value.commands.append(words(*command).payload)
        value.size += len(value.commands[-1])

    def _begin_value(self, key: bytes) -> None:
        if self._growing is None or self._growing.key != key:  # else it begins again, and takes its own place
            self._finish_value()
            self._keys += 1
        self._growing = _Growing(key)

    def _finish_value(self) -> None:
        value, self._growing = self._growing, None
        if value is not None:
            if value.type is None:
                raise _Wrong("nothing follows its DEL")
            self._add_piece(value, last=True)

    def _add_piece(self, value: _Growing, *, last: bool) -> None:
        kind = value.type or ""
        content = Commands(kind, tuple(value.commands))
        piece = Piece(value.pieces, last)
        moment = value.expires_at if last else None
        self._rows.append((value.key, kind, content, self._database, moment, piece))
        value.commands, value.size, value.pieces = [], 0, value.pieces + 1

    def _end(self, text: bytes) -> None:
        found = _END.fullmatch(text)
        if found is None:
            raise _Wrong(f"it says {text[:60]!r}, which is not how a dump ends")
        if int(found[1]) != self._keys:
            raise _Wrong(f"at its end it counts {int(found[1]):,} keys, and there were {self._keys:,}")
        self._ended = True


def _number(word: bytes) -> int:
    if _NUMBER.fullmatch(word) is None:
        raise _Wrong(f"there is {word[:40]!r} where a number should be")
    return int(word)


def _batch(rows: list[tuple[Any, ...]]) -> Batch:
    keys, types, values, databases, moments, pieces = map(list, zip(*rows))
    nothing = [None] * len(rows)
    metadata = {"db": databases, "expires_at": moments}
    known = {name: column for name, column in metadata.items() if column != nothing}
    batch = Batch(keys, types[0] if len(set(types)) == 1 else types, values, metadata=known or None)
    batch.size = sum(
        [len(one.dump) if isinstance(one, Opaque) else sum(map(len, one.commands)) for one in values]
    )
    if pieces != nothing:
        batch.pieces = pieces
    return batch
