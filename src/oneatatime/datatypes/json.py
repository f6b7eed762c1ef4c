"""Documents of the JSON module: what `json.loads` makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._request import Answer, Burst, Reply, ReplyError, command, for_each
from .._resp import ARRAY
from ._datatype import Datatype, Odd, OddRows, Steps, Text, odd_reply
from ._scanned import FIRST_COUNT, next_count


class Json(Datatype):
    """Read by JSON.GET, which cannot be bounded: a document is measured before, or has proven small.

    In parts: of an object (name, value), of an array its elements, of anything else itself.
    """

    name = "ReJSON-RL"
    command = "JSON.GET"
    watched = True
    bounded = False
    plain = True

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"JSON.GET",), keys)

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        import json  # where it is used: most keyspaces hold no documents

        values: list[Any] = []
        for row, reply in enumerate(replies):
            if reply.__class__ is bytes:
                values.append(json.loads(reply))
            else:
                odd[row] = Odd.UNSURE if reply is None else odd_reply(reply)
                values.append(None)
        return values

    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        return self.ask(keys, 0)

    def parts(self, key: bytes, chunk: int) -> Steps:
        kind = _first((yield [], command(b"JSON.TYPE", key)))
        if isinstance(kind, ARRAY):  # RESP3 has it in a list, one a path
            kind = kind[0]
        if kind == b"object":
            yield from _members(key, chunk)
        elif kind == b"array":
            yield from _elements(key, chunk)
        elif kind is None:
            yield [], None
        else:
            whole = _first((yield [], command(b"JSON.GET", key, bounded=False)))
            yield ([] if whole is None else [_document(whole)]), None

    def weight(self, value: Any) -> int:
        import json

        return len(json.dumps(value))

    def decoded(self, value: Any, text: Text) -> Any:
        return value  # JSON is text already

    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        return parts


def _members(key: bytes, chunk: int) -> Steps:
    names = _first((yield [], command(b"JSON.OBJKEYS", key, bounded=False))) or []
    parts: list[Any] = []
    start, count = 0, FIRST_COUNT
    while start < len(names):
        asked = names[start : start + count]
        packed = for_each((b"JSON.GET", key), map(_path, asked))
        answer = yield parts, Burst(packed.payload, packed.replies, False)
        parts = []
        for name, reply in zip(asked, answer.replies):
            if isinstance(reply, ReplyError):
                if "does not exist" not in str(reply):
                    raise reply
            elif reply is not None:  # else the member or the key went away meanwhile
                parts.append((name.decode(), _document(reply)))
        start += len(asked)
        count = next_count(count, len(asked), answer.size, chunk)
    yield parts, None


def _elements(key: bytes, chunk: int) -> Steps:
    parts: list[Any] = []
    start, count = 0, FIRST_COUNT
    while True:
        path = b"$[%d:%d]" % (start, start + count)
        answer = yield parts, command(b"JSON.GET", key, path, bounded=False)
        text = _first(answer)
        parts = [] if text is None else _document(text)
        if len(parts) < count:
            yield parts, None
            return
        start += len(parts)
        count = next_count(count, len(parts), answer.size, chunk)


def _path(name: bytes) -> bytes:
    """The path of a member: not quite JSON, control characters stand for themselves."""
    return b'["' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"]'


def _first(answer: Answer) -> Any:
    reply = answer.replies[0]
    if isinstance(reply, ReplyError):
        raise reply
    return reply


def _document(text: bytes) -> Any:
    import json

    return json.loads(text)
