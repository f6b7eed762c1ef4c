"""The layout "columns": hashes as a table, a column of its own for each field that was named.

What does not parse as the type of its column is null and counted, or an error that names it. A field that a
hash does not have is null and no misfit.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .._errors import InvalidInput
from .._options import MiB
from .._record import Batch
from ..datatypes import values_of
from ._layout import Layout, known, nulls, numbers, piece_of, words
from ._schema import arrow, columns_schema

BESIDE = ("db", "expires_at")
"""What may stand beside the key."""

_ZONE = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")


class Columns(Layout):
    """A row is a hash. `beside` names what stands there beside its key."""

    def __init__(
        self, columns: Mapping[str, Any], *, text: bool, unfit: str, beside: Sequence[str] = BESIDE
    ) -> None:
        super().__init__()
        if "key" in columns:
            raise InvalidInput(
                'columns= names a field "key", as the column of the key is named: leave it out'
            )
        self._types = {name: type_named(name, kind) for name, kind in columns.items()}
        self._beside = tuple(name for name in beside if name not in columns)
        self.schema = columns_schema(self._types, text, ("key", *self._beside))
        self._strict = unfit == "error"
        self._held: dict[Any, Any] = {}

    def table(self, batch: Batch) -> Any:
        self._only_hashes(batch)
        values = list(values_of(batch))
        if (piece := piece_of(batch)) is not None:
            values = self._put_together(values[0], piece.last)
            batch = batch if values else Batch([], "hash", [])
        text = bool(batch.keys) and isinstance(batch.keys[0], str)
        columns = [words(batch.keys, self.schema.field("key").type)]
        for name in self._beside:
            kind, column = self.schema.field(name).type, known(batch, name)
            columns.append(nulls(kind, len(batch)) if column is None else numbers(column, kind))
        for name, kind in self._types.items():
            field = name if text else name.encode()
            columns.append(self._column(batch, name, [value.get(field) for value in values], kind))
        return arrow().RecordBatch.from_arrays(columns, schema=self.schema)

    def _put_together(self, piece: dict[Any, Any], last: bool) -> list[dict[Any, Any]]:
        """The wanted fields of a big hash, once its pieces have come."""
        wanted = {*self._types, *[name.encode() for name in self._types]}
        self._held.update({field: content for field, content in piece.items() if field in wanted})
        if not last:
            return []
        held, self._held = self._held, {}
        return [held]

    def _only_hashes(self, batch: Batch) -> None:
        types = [batch.types] if isinstance(batch.types, str) else batch.types
        for row, kind in enumerate(types):
            if kind != "hash" and len(batch):
                text = f'a table has columns for fields of hashes, and this is a {kind}: choose types="hash"'
                raise InvalidInput(text, key=batch.keys[row])

    def _column(self, batch: Batch, name: str, found: list[Any], kind: Any) -> Any:
        pa = arrow()
        unfit: list[int] = []
        try:
            words_found = words(found, pa.binary())
        except UnicodeError:  # str that holds what was no text
            whole = [one if _is_text(one) else None for one in found]
            unfit += [row for row, one in enumerate(whole) if one is None and found[row] is not None]
            words_found = words(whole, pa.binary())
        made = _cast(words_found, kind, unfit, 0)
        if unfit and self._strict:
            row = unfit[0]
            text = f"field {name!r} holds {found[row]!r:.80}, which is no {kind}"
            raise InvalidInput(text, key=batch.keys[row])
        if unfit:
            self.unfit[name] += len(unfit)
        return pa.concat_arrays(made) if len(made) != 1 else made[0]


def type_named(field: str, kind: Any) -> Any:
    """The Arrow type that a column is to have, given its name or itself."""
    pa = arrow()
    if isinstance(kind, pa.DataType):
        return kind
    try:
        if zone := _ZONE.fullmatch(kind):
            return pa.timestamp(zone[1], tz=zone[2])
        return pa.type_for_alias(kind)
    except (TypeError, ValueError) as error:
        text = (
            f"columns={{{field!r}: {kind!r}}}: there is no such Arrow type; the usual ones are int64, "
            "float64, bool, string, binary, date32, timestamp[us]"
        )
        raise InvalidInput(text) from error


def _cast(found: Any, kind: Any, unfit: list[int], first: int) -> list[Any]:
    """The words as that type, in arrays one after the other. Rows that do not fit go to `unfit`."""
    pa = arrow()
    try:
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return [found.cast(kind)]
        return [found.cast(pa.string()).cast(kind)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if isinstance(error, pa.ArrowNotImplementedError):
            raise InvalidInput(f"no field of a hash can be read as {kind}") from error
        if len(found) == 1:
            unfit.append(first)
            return [pa.nulls(1, kind)]
        middle = len(found) // 2
        before = _cast(found.slice(0, middle), kind, unfit, first)
        return before + _cast(found.slice(middle), kind, unfit, first + middle)


# Which type the fields seem to have. ----------------------------------------------------------------

_INT = re.compile(rb"-?(0|[1-9][0-9]{0,17})")  # "007" is a name, and must come back as it was
_FLOAT = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BOOL = re.compile(rb"true|false", re.IGNORECASE)
_DATE = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(_DATE.pattern + rb"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?")
_ZONED = re.compile(_TIME.pattern + rb"(Z|[+-][0-9]{2}:?[0-9]{2})")

_LOOKS: list[tuple[Callable[[bytes], Any], str]] = [
    (_INT.fullmatch, "int64"),
    (_FLOAT.fullmatch, "float64"),
    (_BOOL.fullmatch, "bool"),
    (_DATE.fullmatch, "date32"),
    (_TIME.fullmatch, "timestamp[us]"),
    (_ZONED.fullmatch, "timestamp[us, tz=UTC]"),
]


_KINDS = [*[name for _, name in _LOOKS], "string", "binary"]
"""What a field may be: the first that all its contents fit."""

_ANY_OF = (1 << len(_KINDS)) - 1
_TEXT = 1 << _KINDS.index("string")

_ENOUGH = 1000
_ENOUGH_BYTES = 32 * MiB


class Inference:
    """Which columns hashes seem to have, as some of them come. Of each field it keeps which types it fits.

    `only` these fields are looked at, if it is given. `enough`: a thousand hashes have come, or some MiB.
    """

    def __init__(self, only: Iterable[bytes] | None = None) -> None:
        self.hashes = 0
        self._bytes = 0
        self._only = None if only is None else set(only)
        self._fits: dict[bytes, int] = {}  # a bit for each of `_KINDS`

    @property
    def enough(self) -> bool:
        return self.hashes >= _ENOUGH or self._bytes >= _ENOUGH_BYTES

    def add_batch(self, batch: Batch) -> None:
        """Looks at the hashes of a batch that are whole, as far as they are still needed."""
        if batch.pieces is None:
            whole = (value for value in values_of(batch) if isinstance(value, dict))
            self.add(itertools.islice(whole, max(_ENOUGH - self.hashes, 0)))
            self._bytes += batch.weight

    def add(self, values: Iterable[Mapping[Any, Any]]) -> None:
        """Looks at some hashes."""
        found: dict[bytes, list[bytes]] = {}
        for value in values:
            self.hashes += 1
            for field, content in value.items():
                name = _bytes(field)
                if self._only is None or name in self._only:
                    found.setdefault(name, []).append(_bytes(content))
        for name, some in found.items():
            self._fits[name] = _fitting(some, self._fits.get(name, _ANY_OF))

    def columns(self) -> dict[str, str]:
        """Names and types of columns for such hashes."""
        return {
            field.decode(): _KINDS[(fits & -fits).bit_length() - 1]
            for field, fits in self._fits.items()
            if _is_text(field)
        }


def infer(values: Iterable[Mapping[Any, Any]]) -> dict[str, str]:
    """Names and types of columns for hashes of which these are some.

    >>> infer([{b"name": b"Ada", b"age": b"36"}, {b"name": b"Grace", b"born": b"1906-12-09"}])
    {'name': 'string', 'age': 'int64', 'born': 'date32'}
    """
    inference = Inference()
    inference.add(values)
    return inference.columns()


def _fitting(some: list[bytes], fits: int) -> int:
    """Of these types those that all the contents fit."""
    for place, (looks, name) in enumerate(_LOOKS):
        if fits >> place & 1 and not (all(map(looks, some)) and _is_cast(some, name)):
            fits &= ~(1 << place)
    return fits if not fits & _TEXT or all(map(_is_text, some)) else fits & ~_TEXT


def _is_cast(some: list[bytes], name: str) -> bool:
    unfit: list[int] = []
    _cast(words(some, arrow().binary()), type_named("", name), unfit, 0)
    return not unfit


def _bytes(word: Any) -> bytes:
    return word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word


def _is_text(word: Any) -> bool:
    if word is None:
        return True
    try:
        word.encode() if isinstance(word, str) else word.decode()
    except UnicodeError:
        return False
    return True
