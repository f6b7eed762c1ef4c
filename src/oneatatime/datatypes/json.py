"""Documents of the JSON module: what `json.loads` makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from .._request import Answer, Burst, Reply, ReplyError, command, for_each
from .._resp import ARRAY
from ._datatype import Datatype, Odd, OddRows, Steps, Text, odd_reply
from ._scanned import FIRST_COUNT, next_count
from ._written import added, together, words


class Json(Datatype):
    """Read by JSON.GET, which cannot be bounded: a document is measured before, or has proven small.

    In parts: of an object (name, value), of an array its elements, of anything else itself.
    """

    name = "ReJSON-RL"
    command = "JSON.GET"
    watched = True
    bounded = False
    plain = True
    has_elements = False
    writer = b"JSON.SET"

    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        return for_each((b"JSON.GET",), keys)

    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        document = _reader()
        values: list[Any] = []
        for row, reply in enumerate(replies):
            if reply.__class__ is bytes:
                values.append(document(reply))
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
            yield ([] if whole is None else [_reader()(whole)]), None

    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        if first:
            return words(b"JSON.SET", key, b"$", _text(value))
        if isinstance(value, dict):
            return together([_member(key, name, member) for name, member in value.items()])
        return added(b"JSON.ARRAPPEND", key, [_text(element) for element in value], before=(b"$",))

    def written_each(self, keys: Sequence[bytes], values: Sequence[Any]) -> Burst:
        return super().written_each(keys, [(b"$", _text(value)) for value in values])

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
                parts.append((name.decode(), _reader()(reply)))
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
        parts = [] if text is None else _reader()(text)
        if len(parts) < count:
            yield parts, None
            return
        start += len(parts)
        count = next_count(count, len(parts), answer.size, chunk)


def _member(key: bytes, name: str, member: Any) -> Burst:
    """Adds a member to an object. A path takes a name as it stands, so one with both quotes fits in none."""
    text = _text(member)
    if "\\" not in name and ('"' not in name or "'" not in name):
        quote = "'" if '"' in name else '"'
        return words(b"JSON.SET", key, f"[{quote}{name}{quote}]".encode(), text)
    if b"null" in text:  # a merge takes it for "delete this"
        raise ValueError(
            f"no path of JSON.SET can say the name of its member {name[:60]!r}: export it with a greater "
            "parts_over, so that the document is one piece"
        )
    return words(b"JSON.MERGE", key, b"$", _text({name: member}))


def _text(document: Any) -> bytes:
    """As JSON: raises ValueError for NaN and the infinities, which are none."""
    import json

    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON has it as \ud83d alone
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _path(name: bytes) -> bytes:
    """The path of a member: not quite JSON, control characters stand for themselves."""
    return b'["' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"]'


def _first(answer: Answer) -> Any:
    reply = answer.replies[0]
    if isinstance(reply, ReplyError):
        raise reply
    return reply


@cache
def _reader() -> Callable[[bytes], Any]:
    """What makes a document of its text: as json.loads does, in less than half the time for small ones."""
    import json  # where it is used: most keyspaces hold no documents

    raw_decode = json.JSONDecoder().raw_decode

    def document(text: bytes) -> Any:
        try:
            found, end = raw_decode(decoded := str(text, "utf-8"))
            if end == len(decoded):
                return found
        except ValueError:
            pass
        return json.loads(text)  # with spaces around it, or an error that says what is wrong

    return document
