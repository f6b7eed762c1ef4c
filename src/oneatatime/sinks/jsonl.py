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

A value too big to hold becomes several lines with `"part":0`, `"part":1`, ...; each has a piece of
the value in the form above and an `enc` of its own, and the last has `"last":true` (and
`"torn":true` where the value was changed while it was read). A string is never cut inside a UTF-8
character: the bytes of a cut character move on into the next part, so that text stays text.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from json.encoder import encode_basestring as _quoted
from typing import Any

from .._errors import ServerFailure
from .._record import Opaque, Parts, Record, RepeatedFields

_Text = Callable[[bytes], str]
_Chunks = AsyncIterator[list[Any]]
_Pieces = AsyncGenerator[Any, None]

_LONGEST_CHARACTER = 4


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
    return _line(record, record.value, _metadata(record, metadata))


def key_line(key: bytes) -> str:
    """A key alone as one line: `{"key":"user:1"}`, with `enc` where it is not UTF-8."""
    try:
        return f'{{"key":{_utf8(key)}}}\n'
    except UnicodeDecodeError:
        return f'{{"key":{_base64(key)},"enc":"base64"}}\n'


async def part_lines(record: Record, metadata: Sequence[str] = ()) -> AsyncGenerator[str, None]:
    """`record`, whose value is `Parts`, as several lines, each yielded when its part has been read.

    At most two parts are held at a time: which part is the last one shows only when no other comes.
    """
    parts: Parts = record.value
    shown = _metadata(record, metadata)
    number = 0
    held: Any = None
    form = _PIECES.get(parts.type, _as_they_come)
    async with _closing(parts.chunks()) as chunks, aclosing(form(parts, chunks)) as pieces:
        async for piece in pieces:
            if held is not None:
                yield _line(record, held, f'"part":{number},{shown}')
                number += 1
            held = piece
    last = '"last":true,"torn":true' if parts.torn else '"last":true'
    held = _NOTHING.get(parts.type, b"") if held is None else held
    yield _line(record, held, f'"part":{number},{last},{shown}')


def _line(record: Record, value: Any, extra: str) -> str:
    form = _FORMS.get(record.type, _opaque)
    kind = _quoted(record.type)
    try:
        return f'{{"key":{_utf8(record.key)},"type":{kind},{extra}"value":{form(value, _utf8)}}}\n'
    except UnicodeDecodeError:
        extra = f'"enc":"base64",{extra}'
        return f'{{"key":{_base64(record.key)},"type":{kind},{extra}"value":{form(value, _base64)}}}\n'


def _metadata(record: Record, names: Sequence[str]) -> str:
    return "".join([f'"{name}":{json.dumps(getattr(record, name))},' for name in names])


# Two ways to write bytes. ------------------------------------------------------------------------


def _utf8(data: bytes) -> str:
    return _quoted(data.decode())


def _base64(data: bytes) -> str:
    return f'"{binascii.b2a_base64(data, newline=False).decode()}"'


# One form a type, given the way to write bytes. ---------------------------------------------------


def _array(value: list[bytes], text: _Text) -> str:
    return f"[{','.join([text(element) for element in value])}]"


def _sorted_array(value: set[bytes] | list[bytes], text: _Text) -> str:
    return _array(sorted(value), text)


def _object(value: dict[bytes, bytes], text: _Text) -> str:
    return f"{{{','.join([f'{text(field)}:{text(content)}' for field, content in value.items()])}}}"


def _pairs(value: list[tuple[bytes, bytes]], text: _Text) -> str:
    return f"[{','.join([f'[{text(field)},{text(content)}]' for field, content in value])}]"


def _scored(value: list[tuple[bytes, float]], text: _Text) -> str:
    return f"[{','.join([f'[{text(member)},{_score(score)}]' for member, score in value])}]"


def _score(score: float) -> str:
    return repr(float(score)) if math.isfinite(score) else f'"{score}"'


def _entries(value: list[tuple[bytes, dict[bytes, bytes]]], text: _Text) -> str:
    return f"[{','.join([f'[{_utf8(name)},{_fields(fields, text)}]' for name, fields in value])}]"


def _fields(fields: dict[bytes, bytes], text: _Text) -> str:
    return _pairs(fields.pairs, text) if isinstance(fields, RepeatedFields) else _object(fields, text)


def _document(value: Any, text: _Text) -> str:
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        written.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, legal in JSON and only there: write it as \ud83d
        return json.dumps(value, separators=(",", ":"))
    return written


def _opaque(value: Opaque | bytes, text: _Text) -> str:
    dump = value.dump if isinstance(value, Opaque) else value
    return f'{{"dump":{_base64(dump)}}}'


_FORMS: dict[str, Callable[[Any, _Text], str]] = {
    "string": lambda value, text: text(value),
    "hash": _object,
    "list": _array,
    "set": _sorted_array,
    "zset": _scored,
    "stream": _entries,
    "ReJSON-RL": _document,
}

# What a big value turns out to be when it is gone before its first part.
_NOTHING: dict[str, Any] = {"hash": {}, "list": [], "set": [], "zset": [], "stream": [], "ReJSON-RL": None}


# The pieces of a big value, each in the form that a small value of its type has. -----------------


async def _as_they_come(parts: Parts, chunks: _Chunks) -> _Pieces:
    async for chunk in chunks:
        if parts.type in _NOTHING:
            yield chunk
        else:  # a dump, or what there is of it
            for piece in chunk:
                yield piece


async def _objects(parts: Parts, chunks: _Chunks) -> _Pieces:
    async for chunk in chunks:
        yield dict(chunk)


async def _documents(parts: Parts, chunks: _Chunks) -> _Pieces:
    """Of an object (name, value) pairs come, of an array its elements, of anything else itself.

    Only the whole document tells an array of one element from that element.
    """
    alone: Any = None
    first = True
    async for chunk in chunks:
        if alone is not None:
            yield alone
            alone = None
        if isinstance(chunk[0], tuple):
            yield dict(chunk)
        elif first and len(chunk) == 1:
            alone = chunk
        else:
            yield chunk
        first = False
    if alone is not None:
        try:
            yield await parts.load()
        except ServerFailure:  # it was deleted just now
            yield alone


async def _characters(parts: Parts, chunks: _Chunks) -> _Pieces:
    cut = b""  # the first bytes of a character whose rest comes with the next chunk
    async for chunk in chunks:
        data = b"".join([cut, *chunk])
        end = _end_of_characters(data)
        cut = data[end:]
        if end:
            yield data[:end]
    if cut:
        yield cut


_PIECES: dict[str, Callable[[Parts, _Chunks], _Pieces]] = {
    "string": _characters,
    "hash": _objects,
    "ReJSON-RL": _documents,
}


@asynccontextmanager
async def _closing(chunks: _Chunks) -> AsyncIterator[_Chunks]:
    """The chunks, closed at the end: whoever takes an iterator closes it, and with it its connection."""
    try:
        yield chunks
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def _end_of_characters(data: bytes) -> int:
    """Where to cut `data` so that no character it ends with is cut: its length if there is none."""
    for back in range(1, min(len(data), _LONGEST_CHARACTER - 1) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # begins a character, and says how many bytes that has
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else _LONGEST_CHARACTER
            return len(data) - back if length > back else len(data)
        if byte < 0x80:
            break
    return len(data)
