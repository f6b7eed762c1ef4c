"""bytes -> str as `encoding=` asks; what is not text in it is named, and costs no other record."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from ._errors import Error, Undecodable
from ._options import Selection
from ._record import Batch, Parts, mapped
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
    metadata = dict(batch.metadata) if batch.metadata is not None else None
    details: list[Any] = []
    if metadata is not None and "details" in metadata:
        details = metadata["details"] = list(metadata["details"])
    types = [batch.types] * len(batch) if isinstance(batch.types, str) else batch.types
    for row, (key, kind, value) in enumerate(zip_longest(batch.keys, types, values_of(batch))):
        what = "key"
        try:
            as_text = text(key)
            what = f"{kind} value"
            if value is not None and not isinstance(value, Parts):
                value = datatype(kind).decoded(value, text)
            if details and details[row] is not None:
                what = f"group, or field, of the {kind}"
                details[row] = mapped(details[row], text)
        except UnicodeError as error:
            as_text = key
            failed[row] = undecodable(what, selection, error, key)
        keys.append(as_text)
        values.append(value)
    failed.update(batch.failed or {})
    return Batch(
        keys,
        batch.types,
        values if batch.values else [],
        batch.size,
        metadata,
        failed or None,
        covers=batch.covers,
        rows=batch.rows,
        names=batch.keys,
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
