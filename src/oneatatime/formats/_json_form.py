"""Which form a value of each type has as JSON: what `_json.texts` is to write.

Bytes are what is the user's own: they become text or base64, as the whole record does. A str is JSON already,
and is never base64 after that: ids, documents, dumps.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable
from typing import Any

from .._record import Opaque, RepeatedFields, StreamDetails


def form(kind: str, value: Any, base64: bool) -> Any:
    """The form of a value of the type `kind`, for a record that is `base64` or text."""
    make = _FORMS.get(kind, _opaque)
    if base64 and kind == "stream":
        return _entries_with_ids(value)
    return value if make is None else make(value)


def details_form(details: Any) -> Any:
    """The form of what a value has beside its elements."""
    if not isinstance(details, StreamDetails):
        return details
    shown: dict[str, Any] = {}
    for name, id_ in (("last_id", details.last_id), ("max_deleted_id", details.max_deleted_id)):
        if id_ is not None:
            shown[f'"{name}"'] = _id(id_)
    if details.entries_added is not None:
        shown['"entries_added"'] = details.entries_added
    if details.groups:
        shown['"groups"'] = [
            (group.name, _id(group.last_delivered_id), group.entries_read, group.consumers)
            for group in details.groups
        ]
    if details.pending:
        shown['"pending"'] = [
            (one.group, _id(one.id), one.consumer, one.delivered_at, one.deliveries)
            for one in details.pending
        ]
    return shown


def _id(name: bytes) -> str:
    return f'"{name.decode()}"'


def _entries(value: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Any]:
    if {dict} != {fields.__class__ for _, fields in value}:
        return [(name, _fields(fields)) for name, fields in value]
    return value


def _entries_with_ids(value: list[tuple[bytes, dict[bytes, bytes]]]) -> list[Any]:
    return [(_id(name), _fields(fields)) for name, fields in value]


def _fields(fields: dict[bytes, bytes]) -> Any:
    return fields.pairs if isinstance(fields, RepeatedFields) else fields


def document(value: Any) -> str:
    """A JSON document as text."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        written.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, legal in JSON and only there: write it as \ud83d
        return json.dumps(value, separators=(",", ":"))
    return written


def _opaque(value: Opaque | bytes) -> dict[str, str]:
    dump = value.dump if isinstance(value, Opaque) else value
    return {'"dump"': f'"{binascii.b2a_base64(dump, newline=False).decode()}"'}


_FORMS: dict[str, Callable[[Any], Any] | None] = {
    "string": None,
    "hash": None,
    "list": None,
    "set": sorted,
    "zset": lambda value: [(member, float(score)) for member, score in value],
    "stream": _entries,
    "ReJSON-RL": document,
}
