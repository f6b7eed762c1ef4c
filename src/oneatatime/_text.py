"""bytes -> str as `encoding=` asks; what is not text in it is named, and costs no other record."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from ._errors import Error, Undecodable
from ._options import Selection
from ._record import Batch, Parts
from .datatypes import Text, datatype, values_of


def text_of(selection: Selection) -> Text | None:
    """The function that decodes, or None where bytes were asked for."""
    encoding, errors = selection.encoding, selection.errors
    if encoding is None:
        return None
    return lambda raw: raw.decode(encoding, errors)


def decoded(batch: Batch, text: Text, selection: Selection) -> Batch:
    """The batch as text. A record that is not text gives way to the error in `failed`."""
    keys: list[Any] = []
    values: list[Any] = []
    failed: dict[int, Error] = {}
    types = [batch.types] * len(batch) if isinstance(batch.types, str) else batch.types
    for row, (key, kind, value) in enumerate(zip_longest(batch.keys, types, values_of(batch))):
        what = "key"
        try:
            as_text = text(key)
            what = f"{kind} value"
            if value is not None and not isinstance(value, Parts):
                value = datatype(kind).decoded(value, text)
        except UnicodeError as error:
            as_text = key
            failed[row] = undecodable(what, selection, error, key)
        keys.append(as_text)
        values.append(value)
    return Batch(
        keys, batch.types, values if batch.values else [], batch.size, batch.metadata, failed or None
    )


def undecodable(what: str, selection: Selection, error: UnicodeError, key: bytes) -> Undecodable:
    """The error for what is not text in the encoding asked for."""
    return Undecodable(
        f"the {what} is not {selection.encoding}: {_reason(error)}; errors='surrogateescape' keeps such "
        "bytes, encoding=None gives bytes",
        key=key,
    )


def _reason(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{error.reason} at byte {error.start}, {bytes(error.object[error.start : error.start + 4])!r}"
    return str(error)
