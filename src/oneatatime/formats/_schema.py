"""The Arrow schemas that records stand in, and what their metadata says: see docs/formats.md.

They never depend on the data. Where text was asked for, each binary column but the dumps is a string.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from .._errors import InvalidInput, MissingExtra

VERSION = 1
LAYOUTS = ("records", "elements", "columns")
UNFIT = ("null", "error")

_ABOUT = b"oneatatime"


def arrow() -> Any:
    """The module pyarrow. Raises MissingExtra where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        text = 'Parquet, Arrow and frames need pyarrow: pip install "oneatatime[arrow]"'
        raise MissingExtra(text) from error
    return pyarrow


def is_text(encoding: str | None) -> bool:
    """Whether strings are columns of text. Raises InvalidInput for an encoding that files do not have."""
    if encoding is None:
        return False
    if encoding.lower().replace("-", "") != "utf8":
        raise InvalidInput(
            f'encoding={encoding!r}: text in Arrow is UTF-8, so it is "utf-8", or None for binary'
        )
    return True


@cache
def records_schema(text: bool) -> Any:
    """A row is a key, or a piece of a big value."""
    pa = arrow()
    word = pa.string() if text else pa.binary()
    pair = pa.struct([pa.field("field", word), pa.field("value", word)])
    entry = pa.struct([pa.field("id", pa.string()), pa.field("fields", pa.list_(pair))])
    return _described(
        "records",
        [
            *_leading(word),
            pa.field("part", pa.int32()),
            pa.field("last", pa.bool_()),
            pa.field("string", pa.large_string() if text else pa.large_binary()),
            pa.field("hash", pa.map_(word, word)),
            pa.field("fields_expire_at", pa.map_(word, pa.int64())),
            pa.field("list", pa.list_(word)),
            pa.field("set", pa.list_(word)),
            pa.field("zset", pa.list_(pa.struct([("member", word), ("score", pa.float64())]))),
            pa.field("stream", pa.list_(entry)),
            pa.field("groups", _groups(word)),
            pa.field("json", pa.string()),
            pa.field("dump", pa.large_binary()),
            pa.field("torn", pa.bool_()),
        ],
    )


@cache
def elements_schema(text: bool) -> Any:
    """A row is a field, a member, an element, or the field of an entry."""
    pa = arrow()
    word = pa.string() if text else pa.binary()
    return _described(
        "elements",
        [
            *_leading(word),
            pa.field("index", pa.int64()),
            pa.field("id", pa.string()),
            pa.field("field", word),
            pa.field("value", word),
            pa.field("score", pa.float64()),
            pa.field("field_expires_at", pa.int64()),
        ],
    )


def columns_schema(types: dict[str, Any], text: bool, leading: tuple[str, ...]) -> Any:
    """A row is a hash; `leading` are the columns that stand beside those of its fields."""
    pa = arrow()
    word = pa.string() if text else pa.binary()
    known = {field.name: field for field in _leading(word)}
    return _described("columns", [*(known[name] for name in leading), *map(pa.field, types, types.values())])


def _leading(word: Any) -> list[Any]:
    pa = arrow()
    return [
        pa.field("key", word),
        pa.field("type", pa.string()),
        pa.field("db", pa.int32()),
        pa.field("expires_at", pa.int64()),
    ]


def _groups(word: Any) -> Any:
    pa = arrow()
    group = pa.struct(
        [
            ("name", word),
            ("last_delivered_id", pa.string()),
            ("entries_read", pa.int64()),
            ("consumers", pa.list_(word)),
        ]
    )
    pending = pa.struct(
        [
            ("group", word),
            ("id", pa.string()),
            ("consumer", word),
            ("delivered_at", pa.int64()),
            ("deliveries", pa.int64()),
        ]
    )
    return pa.struct(
        [
            ("last_id", pa.string()),
            ("entries_added", pa.int64()),
            ("max_deleted_id", pa.string()),
            ("groups", pa.list_(group)),
            ("pending", pa.list_(pending)),
        ]
    )


def _described(layout: str, fields: list[Any]) -> Any:
    said = json.dumps({"version": VERSION, "layout": layout}, separators=(",", ":"))
    return arrow().schema(fields, metadata={_ABOUT: said.encode()})


def check(schema: Any, name: str) -> None:
    """Raises InvalidInput for a file that is not one of records in a version that is known here."""
    found = (schema.metadata or {}).get(_ABOUT)
    if found is None:
        raise InvalidInput(
            f"{name} was not written by oneatatime: its schema does not say that it holds records"
        )
    try:
        about = json.loads(found)
        version, layout = about["version"], about["layout"]
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidInput(f"{name} says of itself what makes no sense: {found[:200]!r}") from error
    if version != VERSION:
        raise InvalidInput(
            f"{name} is of version {version} of the format, and this release reads version {VERSION}: "
            "a newer one reads it (pip install -U oneatatime)"
        )
    if layout != "records":
        raise InvalidInput(
            f"{name} has the layout {layout!r}, which is for analysis and cannot be put back into a server: "
            "export it without --flatten and without columns"
        )
    expected = [records_schema(text) for text in (False, True)]
    if not any(schema.equals(one) for one in expected):
        raise InvalidInput(
            f"{name} has not the columns of version {VERSION}: {_difference(schema, expected)}"
        )


def _difference(schema: Any, expected: list[Any]) -> str:
    found = list(schema)  # fields are compared, not hashed: Parquet has names of its own within lists
    missing, surplus = min(
        [
            (
                [one.name for one in fields if one not in found],
                [one.name for one in found if one not in fields],
            )
            for fields in map(list, expected)
        ],
        key=lambda names: len(names[0]),
    )
    return f"missing {', '.join(missing) or 'nothing'}; not known {', '.join(surplus) or 'nothing'}"
