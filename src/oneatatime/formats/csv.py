"""CSV and TSV (RFC 4180), for analysis: a row is a field, a member, an element or a field of an entry.

Null is an empty cell and an empty string is `""`: strings are always quoted, numbers never.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

from .._errors import InvalidInput
from .._options import MiB
from .._record import Batch, Opaque, Piece, Record, RepeatedFields, StreamDetails
from ..datatypes import values_of
from ._format import Writer as _Writer
from ._json_form import document

_NAMES = ("key", "type", "db", "expires_at", "index", "id", "field", "value", "score", "field_expires_at")
_LINE_END = "\r\n"
_HELD = 4 * MiB  # of rows that wait for the last piece of their key

_Cells = Iterator[tuple[str, ...]]
"""The cells of a row that are an element's own: index, id, field, value, score, field_expires_at."""


class Writer(_Writer):
    """Elements as rows of text. With `unfit="skip"` keys that do not fit are left out.

    Pieces become rows as they come, and a string in pieces a cell that goes on. Where a key may be left out,
    they wait for its last piece, in a temporary file if they are many: no part of it stays.
    """

    def __init__(self, file: BinaryIO, *, unfit: str = "error", delimiter: str = ",") -> None:
        super().__init__(file)
        if unfit not in ("error", "skip"):
            raise InvalidInput(f'unfit is "error" or "skip", not {unfit!r}')
        self._skips = unfit == "skip"
        self._delimiter = delimiter
        self._elements = 0  # of the value whose pieces are being written
        self._unfit = False  # a piece of it
        self._held = SpooledTemporaryFile(_HELD)  # noqa: SIM115 - open until `finish`
        self.file.write((delimiter.join(_NAMES) + _LINE_END).encode())

    def write(self, batch: Batch) -> None:
        metadata, nothing = batch.metadata or {}, [None] * len(batch)
        columns = [metadata.get(name, nothing) for name in ("db", "expires_at", "details")]
        kinds = [batch.types] * len(batch) if isinstance(batch.types, str) else batch.types
        written = []
        for key, kind, value, db, moment, details in zip(batch.keys, kinds, values_of(batch), *columns):
            record = Record(key, kind, value, db=db, expires_at=moment, details=details)
            written.append(self._rows(record) or "")
        self.file.write("".join(written).encode())

    def write_piece(self, record: Record, piece: Piece) -> None:
        if piece.number == 0:
            self._elements, self._unfit = 0, False
            self._hold_nothing()
        if self._unfit:
            return  # the rest of a key of which another piece did not fit
        rows = self._rows(record, piece)
        if rows is None:
            self._unfit = True
            return
        self._elements += len(record.value) if record.type == "list" else 0
        if self._skips:
            self._held.write(rows.encode())
        else:
            self.file.write(rows.encode())
        if piece.last and self._skips:
            self._held.seek(0)
            shutil.copyfileobj(self._held, self.file)
            self._hold_nothing()

    def finish(self) -> None:
        """A file of rows is whole as it is."""
        self._held.close()

    def __del__(self) -> None:
        if hasattr(self, "_held"):
            self._held.close()

    def _hold_nothing(self) -> None:
        self._held.seek(0)
        self._held.truncate()

    def _rows(self, record: Record, piece: Piece | None = None) -> str | None:
        """The rows of a record, or of a piece of it; None where it is left out."""
        try:
            if record.value.__class__ is Opaque or record.type not in _CELLS:
                raise _Unfit(f"values of type {record.type}, which only the server's module understands")
            key = _text(record.key, "a key")
            head = (key, f'"{record.type}"', _number(record.db), _number(record.expires_at))
            join = self._delimiter.join
            if piece is not None and record.type == "string":
                begin = join((*head, "", "", "", '"')) if piece.number == 0 else ""
                return begin + _text(record.value)[1:-1] + (join(('"', "", _LINE_END)) if piece.last else "")
            first = self._elements if piece is not None else 0
            return "".join([join(head + cells) + _LINE_END for cells in _CELLS[record.type](record, first)])
        except _Unfit as error:
            if not self._skips:
                raise InvalidInput(
                    f"CSV has no place for {error}. Write JSON lines (.jsonl), or leave such keys out "
                    '(unfit="skip")',
                    key=record.key,
                ) from error
            self.left_out += 1
            return None


class _Unfit(ValueError):
    """What there is no place for."""


def _text(data: bytes, what: str = "a value") -> str:
    try:
        return '"' + data.decode().replace('"', '""') + '"'
    except UnicodeDecodeError as error:
        raise _Unfit(f"{what} that is not UTF-8") from error


def _number(number: float | None) -> str:
    return "" if number is None else repr(number)


def _cells(
    index: str = "", id_: str = "", name: str = "", value: str = "", score: str = "", moment: str = ""
) -> tuple[str, ...]:
    return index, id_, name, value, score, moment


def _string(record: Record, first: int) -> _Cells:
    yield _cells(value=_text(record.value))


def _hash(record: Record, first: int) -> _Cells:
    moments = record.details or {}
    for name, content in record.value.items():
        moment = _number(moments.get(name))
        yield _cells(name=_text(name, "a field"), value=_text(content), moment=moment)


def _list(record: Record, first: int) -> _Cells:
    for index, element in enumerate(record.value, first):
        yield _cells(index=str(index), value=_text(element, "an element"))


def _set(record: Record, first: int) -> _Cells:
    for member in sorted(record.value):
        yield _cells(value=_text(member, "a member"))


def _zset(record: Record, first: int) -> _Cells:
    for member, score in record.value:
        yield _cells(value=_text(member, "a member"), score=_number(score))


def _stream(record: Record, first: int) -> _Cells:
    details = record.details
    if isinstance(details, StreamDetails) and (details.groups or details.pending):
        raise _Unfit("groups of streams")
    for name, fields in record.value:
        id_ = _text(name)
        pairs = fields.pairs if isinstance(fields, RepeatedFields) else fields.items()
        for field, content in pairs:
            yield _cells(id_=id_, name=_text(field, "a field"), value=_text(content))
        if not pairs:
            yield _cells(id_=id_)
    if not record.value:
        yield _cells()


def _document(record: Record, first: int) -> _Cells:
    yield _cells(value=_text(document(record.value).encode()))


_CELLS: dict[str, Callable[[Record, int], _Cells]] = {
    "string": _string,
    "hash": _hash,
    "list": _list,
    "set": _set,
    "zset": _zset,
    "stream": _stream,
    "ReJSON-RL": _document,
}
