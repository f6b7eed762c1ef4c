"""Records that somebody gives, gathered into batches of bytes: what an export or an import may be given."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Any

from ._errors import InvalidInput
from ._options import KiB
from ._record import Batch, Parts, Piece, Record, RepeatedFields

_MOST_RECORDS, _MOST_BYTES = 500, 256 * KiB  # gathered into a batch
_DOCUMENT = "ReJSON-RL"
_WRITTEN_BY = {"json": _DOCUMENT}


async def gathered(records: AsyncIterable[Any] | Iterable[Any]) -> AsyncGenerator[Batch, None]:
    """Batches of records, which may come one by one or in lists; text as the UTF-8 bytes it is.

    A list is a batch of its own, so that what a stream's `batches()` gave stays together; nothing is taken
    beyond a value that is `Parts` before that has been read. The iterable is closed at the end. Raises
    InvalidInput for an item that is no record, or that says too little to be written.
    """
    items: AsyncIterator[Any] = aiter(records) if isinstance(records, AsyncIterable) else _each(records)
    some: list[Record] = []
    size = 0
    try:
        async for item in items:
            several = item if isinstance(item, list) else [item]
            if isinstance(item, list) and some:
                yield batch_of(some)
                some, size = [], 0
            some += several
            value = getattr(several[-1], "value", None) if several else None
            size += len(value) if isinstance(value, bytes) else KiB
            full = len(some) >= _MOST_RECORDS or size > _MOST_BYTES
            if some and (full or isinstance(item, list) or isinstance(value, Parts)):
                yield batch_of(some)
                some, size = [], 0
        if some:
            yield batch_of(some)
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def batch_of(records: Iterable[Record], pieces: Sequence[Piece | None] | None = None) -> Batch:
    """Records column by column, in bytes. Raises InvalidInput for what is none."""
    columns = [list(column) for column in zip(*map(_checked, records))]
    keys, types, values = columns[:3]
    metadata = {
        name: column
        for name, column in zip(Record._fields[3:], columns[3:])
        if column.count(None) < len(column)
    }
    kinds: Any = types[0] if types.count(types[0]) == len(types) else types
    return Batch(keys, kinds, values, metadata=metadata or None, pieces=None if pieces is None else [*pieces])


async def _each(records: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for record in records:
        yield record


def _checked(record: Any) -> Record:
    """A record of bytes; text in it is taken as UTF-8, a number as its text."""
    if not isinstance(record, Record):
        text = f"records are wanted, or lists of them, not {type(record).__name__}: {repr(record)[:80]}"
        raise InvalidInput(f"{text}; loop over stream.records() or stream.batches(), and give what they give")
    if record.ttl is not None and record.expires_at is None:
        text = (
            "its ttl means nothing without the moment at which it was read: read it with "
            'metadata=("expires_at", "details"), or set expires_at'
        )
        raise InvalidInput(text, key=record.key)
    kind = _WRITTEN_BY.get(record.type, record.type)
    value = record.value
    if record.key.__class__ is bytes and kind == record.type and _is_of_bytes(value):
        return record
    if kind != _DOCUMENT:
        value = _encoded(value)
    details = _encoded_words(record.details)
    return record._replace(key=_encoded(record.key), type=kind, value=value, details=details)


def _is_of_bytes(value: Any) -> bool:
    """By its first element, which says enough: what a stream gives is all bytes or all text."""
    if value.__class__ in (list, set) and value:
        return _is_of_bytes(next(iter(value)))
    if value.__class__ is dict and value:
        return all(map(_is_of_bytes, next(iter(value.items()))))
    if value.__class__ is tuple:  # a member and its score, an entry and its fields
        return all(_is_of_bytes(one) for one in value if one.__class__ is not float)
    return value.__class__ not in (str, int, float)


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, RepeatedFields):
        return RepeatedFields([(_encoded(name), _encoded(content)) for name, content in value.pairs])
    if isinstance(value, dict):
        return {_encoded(name): _encoded(content) for name, content in value.items()}
    if value.__class__ in (list, set):
        return value.__class__(map(_encoded, value))
    if value.__class__ is tuple:
        first, second = value
        return _encoded(first), second if isinstance(second, int | float) else _encoded(second)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value).encode()
    return value


def _encoded_words(details: Any) -> Any:
    """The same of details, in which numbers stay numbers."""
    if isinstance(details, str):
        return _encoded(details)
    if isinstance(details, dict):
        return {_encoded(field): moment for field, moment in details.items()}
    if isinstance(details, tuple):
        words = map(_encoded_words, details)
        return type(details)(*words) if hasattr(details, "_fields") else tuple(words)
    return details
