"""JSON lines: a record as one line of UTF-8 text that loses nothing, whatever bytes are in it.

    {"key":"user:1","type":"hash","ttl":59000,"value":{"name":"Ada"}}

JSON has no bytes. So a record of which everything is UTF-8 is written as text; and when anything in
it is not, *all* strings of that record are base64 and the line says `"enc":"base64"`. A flag a line
keeps one shape for every reader: `key` is always a string.

========  ==================================================================================
string    a string
hash      an object
list      an array
set       an array, sorted, so that the same set is the same line
zset      an array of [member, score]; the scores "inf", "-inf" and "nan" are strings
stream    an array of [id, {field: value}]; of [id, [[field, value], ...]] where a field repeats
JSON      the document itself: its strings are text already and never base64
other     {"dump": "..."}: what RESTORE takes back, always base64
========  ==================================================================================

Stream ids, scores, the type and the metadata are not the user's bytes: they are never base64.

A batch becomes one block of lines, column by column: what happens once a word is compiled.

A value too big to hold becomes several lines with `"part":0`, `"part":1`, ...; each has a piece of
the value in the form above and an `enc` of its own, and the last has `"last":true` (and
`"torn":true` where the value was changed while it was read). Parts that begin again at 0 replace
those before. A string is never cut inside a UTF-8 character: the bytes of a cut character move on
into the next part, so that text stays text. JSON documents and dumps are never cut.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from json.encoder import encode_basestring as _quoted
from typing import Any, NamedTuple

from .._json import texts
from .._pieces import pieces_of
from .._record import Batch, Piece, Record
from ..datatypes import values_of
from ._format import Writer as _Writer
from ._json_form import details_form, form
from ._json_lines import JsonLinesReader as Reader  # noqa: F401 - what `formats.reader` asks for


class Writer(_Writer):
    """Records as lines, and pieces of values too."""

    def write(self, batch: Batch) -> None:
        metadata = dict(batch.metadata or {})
        details = metadata.pop("details", None)
        kinds = [batch.types] * len(batch) if isinstance(batch.types, str) else batch.types
        extras = _extras(metadata) if metadata else None
        self.file.write(_block(_Rows(batch.keys, kinds, list(values_of(batch)), details, extras)))

    def write_piece(self, record: Record, piece: Piece) -> None:
        known = [name for name in ("db", "expires_at") if getattr(record, name) is not None]
        extra = _of_piece(piece) + _metadata(record, known)
        self.file.write(_block(_row(record, record.value, extra)))

    def finish(self) -> None:
        """Nothing: a file of lines is whole as it is."""


def line(record: Record, metadata: Sequence[str] = ()) -> str:
    """`record` as one line, newline included.

    The record must have been read as bytes (no `encoding`), and its value must not be `Parts`: those
    are written by `part_lines`. `metadata` names the fields that the line shall show, in this order;
    one that the key does not have is null.

    >>> line(Record(b"greeting", "string", b"hello", ttl=1500), ["ttl"])
    '{"key":"greeting","type":"string","ttl":1500,"value":"hello"}\\n'
    >>> line(Record(b"raw", "string", b"\\xff"))
    '{"key":"cmF3","type":"string","enc":"base64","value":"/w=="}\\n'
    """
    return _block(_row(record, record.value, _metadata(record, metadata))).decode()


def key_line(key: bytes) -> str:
    """A key alone as one line: `{"key":"user:1"}`, with `enc` where it is not UTF-8."""
    (text,) = texts([key], False)
    if text is not None:
        return f'{{"key":{text.decode()}}}\n'
    (text,) = texts([key], True)
    assert text is not None
    return f'{{"key":{text.decode()},"enc":"base64"}}\n'


async def part_lines(
    record: Record, metadata: Sequence[str] = (), *, patience: float = 0.0
) -> AsyncGenerator[str, None]:
    """`record`, whose value is `Parts`, as several lines, each yielded when its part has been read.

    At most two parts are held at a time: which part is the last one shows only when no other comes. A JSON
    document, and a value that only its module understands, is loaded whole, and one line. A value that is
    gone is none. Where the server is gone, parts begin again at 0 when it is back within `patience` seconds.
    """
    shown = _metadata(record, metadata)
    async with aclosing(pieces_of(record, patience)) as pieces:
        async for one, piece in pieces:
            yield _block(_row(one, one.value, _of_piece(piece) + shown)).decode()


def _of_piece(piece: Piece | None) -> str:
    if piece is None:
        return ""
    last, torn = '"last":true,' if piece.last else "", '"torn":true,' if piece.torn else ""
    return f'"part":{piece.number},{last}{torn}'


def _metadata(record: Record, names: Sequence[str]) -> str:
    return "".join([f'"{name}":{json.dumps(getattr(record, name))},' for name in names])


def _extras(metadata: dict[str, list[Any]]) -> list[bytes]:
    """The metadata that each row has, as it stands in a line."""
    columns = [
        [
            "" if one is None else f'"{name}":{one if one.__class__ is int else json.dumps(one)},'
            for one in column
        ]
        for name, column in metadata.items()
    ]
    return ["".join(row).encode() for row in zip(*columns)]


# Records as a block of lines: what stands between two columns of a row is a column too. -----------


class _Rows(NamedTuple):
    """Records as columns. `extras` is what stands between the type and the value."""

    keys: list[bytes]
    kinds: list[str]
    values: list[Any]
    details: list[Any] | None = None
    extras: list[bytes] | None = None

    def of(self, rows: list[int]) -> _Rows:
        return _Rows(
            [self.keys[row] for row in rows],
            [self.kinds[row] for row in rows],
            [self.values[row] for row in rows],
            self.details and [self.details[row] for row in rows],
        )

    def texts(self, base64: bool) -> list[list[Any]]:
        """Keys, values and details as JSON; None where something is not UTF-8."""
        kinds = set(self.kinds)
        if kinds <= {"string"}:
            forms = self.values
        else:
            forms = [form(kind, value, base64) for kind, value in zip(self.kinds, self.values)]
        columns: list[list[Any]] = [texts(self.keys, base64), texts(forms, base64)]
        if self.details is not None:
            columns.append(texts([details_form(one) for one in self.details], base64))
        return columns


def _row(record: Record, value: Any, extra: str) -> _Rows:
    details = None if record.details is None else [record.details]
    return _Rows([record.key], [record.type], [value], details, [extra.encode()])


def _block(rows: _Rows) -> bytes:
    columns = rows.texts(False)
    known = {kind: f',"type":{_quoted(kind)},'.encode() for kind in set(rows.kinds)}
    heads = [known[kind] for kind in rows.kinds]
    if any(None in column for column in columns):
        _write_again(rows, columns, heads)
    if rows.extras is not None:
        heads = list(map(bytes.__add__, heads, rows.extras))
    ends: Any = [b"}\n"] * len(heads)
    if rows.details is not None:
        shown = columns[2]
        ends = [
            b"}\n" if one is None else b',"details":%b}\n' % text for one, text in zip(rows.details, shown)
        ]
    begins, between = [b'{"key":'] * len(heads), [b'"value":'] * len(heads)
    return _interleaved([begins, columns[0], heads, between, columns[1], ends])


def _write_again(rows: _Rows, columns: list[list[Any]], heads: list[bytes]) -> None:
    """Puts base64 in the place of all strings of rows in which anything is not UTF-8."""
    odd = sorted({row for column in columns for row, text in enumerate(column) if text is None})
    for column, again in zip(columns, rows.of(odd).texts(True)):
        for row, text in zip(odd, again):
            column[row] = text
    for row in odd:
        heads[row] += b'"enc":"base64",'


def _interleaved(columns: list[list[bytes]]) -> bytes:
    pieces = [b""] * (len(columns) * len(columns[0]))
    for place, column in enumerate(columns):
        pieces[place :: len(columns)] = column
    return b"".join(pieces)
