"""Records of every kind, for Hypothesis: what a server can hold, with all that is hard to keep in a file.

`records()`      a whole record; its keys and values are bytes
`big_values()`   one key in pieces: [(record, piece), ...], as a writer is given them
`batch_of()`     records as the columns that a writer is given; `records_of()` the way back
`same()`         whether two records are the same, to the last bit and with the order where it counts
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from oneatatime._record import Batch, Group, Opaque, Pending, Piece, Record, RepeatedFields, StreamDetails
from oneatatime.datatypes import values_of

KINDS = ("string", "hash", "list", "set", "zset", "stream", "ReJSON-RL", "MBbloom--")
METADATA = ("db", "expires_at", "details")
_PLAIN = ("ttl", "memory", "idle", "freq", "encoding")

TEXT = st.text(max_size=12).map(str.encode) | st.sampled_from(
    [
        b"",
        b"\x00",
        b"\n",
        b"\r\n",
        b'"',
        b'""',
        b"\\",
        b"\\u0041",
        b"\x7f",
        b"\xc2\x85",
        b",",
        b" ",
        b"\t",
        b"null",
    ]
)
"""Bytes that are UTF-8, and what means something in one format or another."""
DATA = (
    TEXT
    | st.binary(max_size=12)
    | st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
)
"""Any bytes."""

SCORES = (
    st.floats(allow_nan=False) | st.integers(-(2**53), 2**53).map(float) | st.sampled_from([0.0, -0.0, 0.1])
)
MOMENTS = st.integers(1, 2**43)
_IDS = st.tuples(st.integers(0, 2**64 - 2), st.integers(1, 2**64 - 1)) | st.tuples(
    st.integers(0, 3), st.integers(1, 3)
)
# A pair of halves is one character, in every JSON there is; one half alone stays a half.
_STRINGS = st.text(max_size=8) | st.text(st.characters(), max_size=8).map(
    lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
)
_NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_STRINGS, inner, max_size=3),
    max_leaves=6,
)


def records(
    kinds: Sequence[str] = KINDS, data: st.SearchStrategy[bytes] = DATA, databases: bool = True
) -> st.SearchStrategy[Record]:
    """A whole record of one of these kinds, made of such `data`; of a database where there are several."""
    return st.sampled_from(kinds).flatmap(lambda kind: _record(kind, data, databases))


def _record(kind: str, data: st.SearchStrategy[bytes], databases: bool) -> st.SearchStrategy[Record]:
    return values(kind, data).flatmap(
        lambda value: st.builds(
            Record,
            key=data,
            type=st.just(kind),
            value=st.just(value),
            db=st.none() | st.integers(0, 15) if databases else st.none(),
            expires_at=st.none() | MOMENTS,
            details=details(kind, value, data),
            **dict.fromkeys(_PLAIN, st.none()),  # a file of records holds nothing of it
        )
    )


def values(kind: str, data: st.SearchStrategy[bytes] = DATA) -> st.SearchStrategy[Any]:
    """Values of one kind: not empty, but for strings and streams."""
    if kind == "string":
        return data
    if kind == "hash":
        return st.dictionaries(data, data, min_size=1, max_size=4)
    if kind == "list":
        return st.lists(data, min_size=1, max_size=4)
    if kind == "set":
        return st.sets(data, min_size=1, max_size=4)
    if kind == "zset":
        return st.dictionaries(data, SCORES, min_size=1, max_size=4).map(
            lambda scores: sorted(scores.items(), key=lambda pair: (pair[1], pair[0]))
        )
    if kind == "stream":
        return st.dictionaries(_IDS, _fields(data), max_size=3).map(
            lambda entries: [(_id(pair), entries[pair]) for pair in sorted(entries)]
        )
    if kind == "ReJSON-RL":
        return DOCUMENTS
    return st.binary(max_size=20).map(lambda dump: Opaque(kind, dump))


def _fields(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[bytes, bytes]]:
    def made(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        fields = dict(pairs)
        return fields if len(fields) == len(pairs) else RepeatedFields(pairs)

    pairs = st.lists(st.tuples(data, data), min_size=1, max_size=3)
    twice = st.tuples(data, data, data).map(lambda words: [(words[0], words[1]), (words[0], words[2])])
    return (pairs | twice).map(made)


def details(kind: str, value: Any, data: st.SearchStrategy[bytes] = DATA) -> st.SearchStrategy[Any]:
    """What a value of that kind may have beside its elements."""
    if kind == "hash":
        some = st.dictionaries(st.sampled_from(sorted(value)), MOMENTS, min_size=1)
        return st.none() | some
    if kind == "stream":
        return st.none() | stream_details(value, data)
    return st.none()


@st.composite
def stream_details(draw: Any, entries: list[Any], data: st.SearchStrategy[bytes]) -> StreamDetails:
    """Groups that stand anywhere; entries pending for their consumers, some of them deleted."""
    pairs = [_pair(entry) for entry, _ in entries]
    deleted = draw(st.lists(_IDS, max_size=2))
    last = max([(0, 0), *pairs, *deleted])
    names = draw(st.lists(data, max_size=3, unique=True))
    groups, pending = [], []
    for name in names:
        consumers = sorted(draw(st.sets(data, max_size=2)))
        stands = draw(st.sampled_from(sorted({(0, 0), last, *pairs})))
        read = draw(st.none() | st.integers(0, 2**40))
        groups.append(Group(name, _id(stands), read, tuple(consumers)))
        for pair in sorted({*pairs, *deleted}) if consumers else ():
            if pair <= stands:
                consumer, moment = draw(st.sampled_from(consumers)), draw(MOMENTS)
                pending.append(
                    (pair, Pending(name, _id(pair), consumer, moment, draw(st.integers(1, 2**40))))
                )
    pending.sort(key=lambda one: (one[0], one[1].group))
    if draw(st.booleans()):  # a server before Redis 7.0 tells no more
        return StreamDetails(_id(last), None, None, tuple(groups), tuple([one for _, one in pending]))
    added = draw(st.integers(len(entries), 2**62))
    greatest = max([(0, 0), *deleted])
    return StreamDetails(_id(last), added, _id(greatest), tuple(groups), tuple([one for _, one in pending]))


@st.composite
def big_values(
    draw: Any,
    kinds: Sequence[str] = KINDS[:-2],
    data: st.SearchStrategy[bytes] = DATA,
    databases: bool = True,
) -> list[tuple[Record, Piece]]:
    """One key in pieces. Groups stand in the first piece of a stream, what is pending in that of its ids."""
    whole: Record = draw(records(kinds, data, databases))
    count = draw(st.integers(1, 3))
    torn = draw(st.booleans())
    if whole.type == "stream":
        cut = _cut_stream(whole, count)
    else:
        more = [draw(values(whole.type, data)) for _ in range(count - 1)]
        cut = [(value, draw(details(whole.type, value, data))) for value in (whole.value, *more)]
    return [
        (
            whole._replace(value=value, details=about),
            Piece(number, number == count - 1, torn and number == count - 1),
        )
        for number, (value, about) in enumerate(cut)
    ]


def _cut_stream(whole: Record, count: int) -> list[tuple[Any, Any]]:
    """Entries in ranges of ids, each with what is pending in it; the rest of the details in the first."""
    size = -(-len(whole.value) // count)
    cut, waiting = [], list(whole.details.pending if whole.details else ())
    for number in range(count):
        entries = whole.value[number * size : (number + 1) * size]
        here = waiting
        if number < count - 1:
            until = _pair(entries[-1][0]) if entries else (0, 0)
            here = [one for one in waiting if _pair(one.id) <= until]
        waiting = waiting[len(here) :]
        if number == 0:
            about = whole.details and whole.details._replace(pending=tuple(here))
        else:
            about = StreamDetails(None, pending=tuple(here)) if here else None
        cut.append((entries, about))
    return cut


def batch_of(some: Sequence[Record]) -> Batch:
    """Records as columns."""
    types = [record.type for record in some]
    metadata = {name: [getattr(record, name) for record in some] for name in METADATA}
    present = {name: column for name, column in metadata.items() if any(one is not None for one in column)}
    return Batch(
        [record.key for record in some],
        types[0] if len(set(types)) == 1 else types,
        [record.value for record in some],
        metadata=present or None,
    )


def records_of(batch: Batch) -> list[Record]:
    """The records of a batch."""
    types = [batch.types] * len(batch) if isinstance(batch.types, str) else batch.types
    found = map(Record, batch.keys, types, values_of(batch))
    metadata = batch.metadata or {}
    return [
        record._replace(**{name: column[row] for name, column in metadata.items()})
        for row, record in enumerate(found)
    ]


def same(one: Record, other: Record) -> bool:
    """Whether they are the same: -0.0 is not 0.0, 1 is not 1.0, nan is nan; fields of a hash in any order."""
    return _exact_record(one) == _exact_record(other)


def all_same(some: Iterable[Record], others: Iterable[Record]) -> bool:
    """The same of several, in their order."""
    return [_exact_record(one) for one in some] == [_exact_record(other) for other in others]


def _exact_record(record: Record) -> Any:
    value, details = record.value, record.details
    if record.type == "hash":
        value, details = _sorted(value), _sorted(details)
    return tuple(_exact(part) for part in record._replace(value=value, details=details))


def _sorted(fields: Any) -> Any:
    return {name: fields[name] for name in sorted(fields)} if isinstance(fields, dict) else fields


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("float", struct.pack("<d", value))
    if isinstance(value, RepeatedFields):
        return ("RepeatedFields", value.pairs)
    if isinstance(value, dict):
        return ("dict", [(_exact(name), _exact(content)) for name, content in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [_exact(element) for element in value])
    return (type(value).__name__, value)


def _id(pair: tuple[int, int]) -> bytes:
    return b"%d-%d" % pair


def _pair(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)
