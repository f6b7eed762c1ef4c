"""A dump: Redis commands as they go over the wire, which `redis-cli --pipe` loads as well.

    ECHO "oneatatime dump 1"
    SELECT 0
    RESTORE key 1793923200000 <payload> ABSTTL
    ECHO "oneatatime end 1 records"

A value too big for one reply is a `DEL`, then commands of its type, and a `PEXPIREAT` where it expires; one
that had to be read again begins again, with another `DEL`. For one of a module there are no such commands, so
that it is a `RESTORE` all the same. The first command says what the file is, the last one that it is whole.
"""

from __future__ import annotations

from typing import BinaryIO

from .._errors import InvalidInput
from .._record import Batch, Opaque, Piece, Record, StreamDetails
from ..datatypes import datatype, values_of, words
from ._dump_reader import HEADER, VERSION
from ._dump_reader import DumpReader as Reader  # noqa: F401 - what `formats.reader` asks for
from ._format import Writer as _Writer

_DOCUMENT = "ReJSON-RL"
_RESTORE = b"*5\r\n$7\r\nRESTORE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$6\r\nABSTTL\r\n"


class Writer(_Writer):
    """Keys as commands. Whole values are `Opaque`, whatever their type: what DUMP gives.

    JSON documents that are too big for that come as they are.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._database: int | None = None
        self._records = 0
        self._key: bytes | None = None  # of the pieces that were written last
        self._stream: StreamDetails | None = None
        self.file.write(_command(b"ECHO", HEADER + b"%d" % VERSION))

    def write(self, batch: Batch) -> None:
        metadata, nothing = batch.metadata or {}, [None] * len(batch)
        moments, databases = metadata.get("expires_at", nothing), metadata.get("db", nothing)
        written = []
        for row, (key, value, moment, database) in enumerate(
            zip(batch.keys, values_of(batch), moments, databases)
        ):
            if value.__class__ is not Opaque:
                written.append(self._document(batch.record(row)))
                continue
            if database != self._database:
                written.append(self._select(database))
            dump, at = value.dump, b"%d" % (moment or 0)
            written.append(_RESTORE % (len(key), key, len(at), at, len(dump), dump))
            self._records += 1
            self._key = None
        self.file.write(b"".join(written))

    def write_piece(self, record: Record, piece: Piece) -> None:
        self.file.write(self._piece(record, piece))

    def _piece(self, record: Record, piece: Piece) -> bytes:
        written = [] if record.db == self._database else [self._select(record.db)]
        if piece.number == 0:
            self._records += record.key != self._key  # else it begins again, and is what it was
            self._key = record.key
            written.append(_command(b"DEL", record.key))
        written.append(_commands(self._with_groups(record, piece), piece))
        if piece.last and record.expires_at is not None:
            written.append(_command(b"PEXPIREAT", record.key, b"%d" % record.expires_at))
        return b"".join(written)

    def finish(self) -> None:
        self.file.write(_command(b"ECHO", b"oneatatime end %d records" % self._records))

    def _document(self, record: Record) -> bytes:
        """A value that DUMP did not give: JSON, or nothing that belongs here."""
        if record.type != _DOCUMENT:
            raise InvalidInput("a dump holds what DUMP gives, and this was not read by it", key=record.key)
        return self._piece(record, Piece(0, last=True))

    def _select(self, database: int | None) -> bytes:
        self._database, self._key = database, None
        return b"" if database is None else _command(b"SELECT", b"%d" % database)

    def _with_groups(self, record: Record, piece: Piece) -> Record:
        """A piece of a stream with what the first told: where its groups are, once all is there."""
        if piece.number == 0:
            self._stream = record.details if isinstance(record.details, StreamDetails) else None
        elif self._stream is not None:
            return record._replace(details=self._stream.going_on(record.details, piece))
        return record


def _command(*given: bytes) -> bytes:
    return words(*given).payload


def _commands(record: Record, piece: Piece) -> bytes:
    """What writes this piece of a value behind the pieces before it."""
    kind, whole = datatype(record.type), piece.number == 0 and piece.last
    if not kind.grows or (record.type == _DOCUMENT and not whole):
        text = f"a value of type {record.type} cannot be written in pieces as commands: use JSON lines"
        raise InvalidInput(text, key=record.key)
    try:
        burst = kind.written(
            record.key, record.value, record.details, first=not piece.number, last=piece.last
        )
    except ValueError as error:
        raise InvalidInput(f"the value cannot be written as commands: {error}", key=record.key) from error
    return burst.payload
