"""Streams: list of (id, fields), oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._record import Pending, RepeatedFields, mapped_pending
from .._request import Burst, Reply, ReplyError, ReplyTooBig, command, for_each
from .._resp import ARRAY, fields
from ._datatype import WHOLE, Datatype, Odd, OddRows, Steps, Text, nonsense, odd_reply, pairs
from ._rebuilt import rebuilt
from ._scanned import FIRST_COUNT, next_count


class StreamLog(Datatype):
    """Read by XRANGE of one entry more than the limit. A stream may exist without entries.

    In parts it is read up to the entry that was last when reading began, or a fast producer would
    make it endless. Ids neither change nor come back, so every entry comes exactly once.
    """

    name = "stream"
    forms = (list,)
    writer = b"XADD"
    one_command = False
    command = "XRANGE"

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"XRANGE",), keys, (b"-", b"+", b"COUNT", limit + 1))

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        values: list[Any] = []
        append = values.append
        for reply in replies:
            if reply.__class__ is not ARRAY or not reply:
                odd[len(values)] = Odd.EMPTY if reply.__class__ is ARRAY else odd_reply(reply)
                append(None)
                continue
            if len(reply) > limit:
                odd[len(values)] = Odd.MORE
            append(reply)
        return values

    def made(self, raw: Any) -> Any:
        try:
            return _entries(raw)
        except (TypeError, ValueError) as error:
            raise nonsense(self.command, error) from error

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return self.ask(keys, WHOLE)

    def confirm(self, keys: Sequence[bytes]) -> Burst:
        return for_each((b"XINFO", b"STREAM"), keys)  # fails without a key, tells the length with one

    def take_confirmed(self, replies: list[Reply], odd: OddRows) -> list[Any]:
        for row, reply in enumerate(replies):
            if isinstance(reply, ReplyError):
                odd[row] = Odd.GONE if "no such key" in str(reply) else reply
            elif _length(reply):
                odd[row] = Odd.UNSURE  # it has got entries meanwhile
        return [[] for _ in replies]

    def parts(self, key: bytes, chunk: int) -> Steps:
        newest = (yield [], command(b"XREVRANGE", key, b"+", b"-", b"COUNT", 1, bounded=False)).replies[0]
        if isinstance(newest, ReplyError):
            raise newest
        if not newest:
            yield [], None
            return
        last, start, count = newest[0][0], b"-", FIRST_COUNT
        parts: list[Any] = []
        while True:
            request = command(b"XRANGE", key, start, last, b"COUNT", count, bounded=count > 1)
            try:
                answer = yield parts, request
            except ReplyTooBig:
                parts, count = [], 1
                continue
            reply = answer.replies[0]
            if isinstance(reply, ReplyError):
                raise reply
            parts = _entries(reply)
            if not reply or reply[-1][0] == last:
                yield parts, None
                return
            start = b"(" + reply[-1][0]
            count = next_count(count, len(parts), answer.size, chunk)

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        return rebuilt(key, value, details, first=first, last=last)

    def weight(self, value: Any) -> int:
        return sum([len(word) for _, fields in value for word in (*fields, *fields.values())])

    def decoded(self, value: Any, text: Text) -> Any:
        return [(text(entry), _decoded_fields(fields, text)) for entry, fields in value]

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return [_decoded_part(part, text) for part in parts]


def _entries(reply: list[Any]) -> list[Any]:
    try:  # most streams have one field an entry: without a call for each, that is thrice as quick
        return [(entry, {name: content}) for entry, (name, content) in reply]
    except (TypeError, ValueError):
        # an entry deleted from the middle of a node may come without fields (nil) on some servers
        return [(entry, _fields(flat or ARRAY())) for entry, flat in reply]


def _fields(flat: list[bytes]) -> dict[bytes, bytes]:
    if len(flat) & 1:
        raise ValueError(f"{len(flat)} elements are no pairs")
    found = fields(flat)
    return found if 2 * len(found) == len(flat) else RepeatedFields(list(pairs(flat)))


def _decoded_part(part: Any, text: Text) -> Any:
    if isinstance(part, Pending):
        return mapped_pending(part, text)
    entry, fields = part
    return text(entry), _decoded_fields(fields, text)


def _decoded_fields(fields: dict[bytes, bytes], text: Text) -> dict[Any, Any]:
    if isinstance(fields, RepeatedFields):
        return RepeatedFields([(text(name), text(content)) for name, content in fields.pairs])
    return {text(name): text(content) for name, content in fields.items()}


def _length(info: Any) -> int:
    if isinstance(info, dict):
        return int(info[b"length"])
    return int(info[info.index(b"length") + 1])
