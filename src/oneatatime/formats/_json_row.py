"""One line -> one record, or the reason why it is none."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from .._record import Group, Opaque, Pending, Piece, RepeatedFields, StreamDetails

Row = tuple[bytes, str, Any, Any, Any, Any, Any]
"""Key, type, value, db, expires_at, details, piece."""
_Bytes = Callable[[str], bytes]

VERSION = 1
_NAMES = {
    *("key", "type", "enc", "db", "expires_at", "part", "last", "torn", "value", "details", "version"),
    *("ttl", "memory", "idle", "freq", "encoding"),
}
_MOST = 2**63 - 1
_ENTRY = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_NO_NUMBERS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}


class Unreadable(ValueError):
    """What is wrong with a line."""


def row_of(line: bytes) -> Row:
    """The record that a line is. Raises Unreadable, which says what is wrong with it."""
    found = _object(_parsed(line))
    if not found.keys() <= _NAMES or found.get("version", VERSION) != VERSION:
        _refuse_names(found)
    kind, name = found.get("type", ""), found.get("key", "")
    if kind.__class__ is not str or not found.keys() >= {"key", "type", "value"}:
        raise Unreadable("it has no key, type and value, as the lines of `oneatatime export` have")
    as_bytes = _enc(found)
    try:
        key = as_bytes(name)
        made: Callable[[Any, _Bytes], Any] = _VALUES.get(kind, _dump)
        value = made(found["value"], as_bytes)
        details = found.get("details")
        if details is not None:
            details = _details(kind, details, as_bytes)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise Unreadable(f"{_strings(found)}: {error}") from error
    except Unreadable:
        raise
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise Unreadable(f"its key, value or details have not the form that a {kind} has") from error
    if kind not in _VALUES:
        value = Opaque(kind, value)
    moment = _whole(found, "expires_at")
    if moment is None and found.get("ttl") is not None:
        raise Unreadable(
            "it has `ttl` and no `expires_at`: milliseconds to live mean nothing without the moment they "
            "were read at; without `ttl` the key never expires"
        )
    return key, kind, value, _whole(found, "db"), moment, details, _piece(found)


def _parsed(line: bytes) -> Any:
    if not line.strip():
        raise Unreadable("it is a blank line, and each line is a record: take blank lines out")
    if line.startswith(BOM):
        raise Unreadable("it begins with a byte order mark, which only the first line may: take it out")
    try:
        return _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8, from byte {error.start:,}") from error
    except json.JSONDecodeError as error:
        raise Unreadable(f"it is not JSON: {error.msg}, at character {error.pos:,}") from error
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is JSON that nobody writes: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unreadable(f"a name stands twice in an object: {twice[:80]!r}")
    return found


def _constant(name: str) -> NoReturn:
    raise Unreadable(f"it is not JSON: {name} is no number")


BOM = b"\xef\xbb\xbf"
"""What some editors begin a file of UTF-8 with."""

_DECODER: Any = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def _refuse_names(found: dict[str, Any]) -> NoReturn:
    version = found.get("version", VERSION)
    if version.__class__ is int and version > VERSION:
        raise Unreadable(
            f"it is of version {version} of the format, and this release reads version {VERSION}: "
            "a newer release of oneatatime reads it"
        )
    unknown = sorted(set(found) - _NAMES)
    if unknown:
        raise Unreadable(f"it has names that are not known here: {', '.join(unknown)[:200]}")
    raise Unreadable(f"its version is {version!r}, which is none")


def _strings(found: dict[str, Any]) -> str:
    return "a string in it is no base64" if "enc" in found else "a string in it is no UTF-8"


def _enc(found: dict[str, Any]) -> _Bytes:
    if "enc" not in found:
        return str.encode
    if found["enc"] != "base64":
        raise Unreadable(f'its `enc` is {found["enc"]!r}, and only "base64" is known')
    return _base64


def _base64(text: str) -> bytes:
    if text.__class__ is not str:
        raise Unreadable("there is something else where a string should be")
    return base64.b64decode(text.encode("ascii"), validate=True)


def _whole(found: dict[str, Any], name: str) -> int | None:
    number = found.get(name)
    if number is not None and (number.__class__ is not int or not 0 <= number <= _MOST):
        raise Unreadable(f"its `{name}` is no whole number of the kind: {number!r}")
    return number


def _piece(found: dict[str, Any]) -> Piece | None:
    last, torn = found.get("last", False), found.get("torn", False)
    if last.__class__ is not bool or torn.__class__ is not bool:
        raise Unreadable("its `last` and `torn` are not true or false")
    number = _whole(found, "part")
    if number is not None:
        return Piece(number, last, torn)
    if last or torn:
        raise Unreadable("it has `last` or `torn`, and no `part`")
    return None


# One form a type, given the way from strings to bytes. -------------------------------------------


def _array(value: Any) -> list[Any]:
    if value.__class__ is not list:
        raise Unreadable("there is something else where an array should be")
    return value


def _object(value: Any) -> dict[str, Any]:
    if value.__class__ is not dict:
        raise Unreadable("it is no JSON object")
    return value


def _string(value: Any, as_bytes: _Bytes) -> bytes:
    return as_bytes(value)


def _hash(value: Any, as_bytes: _Bytes) -> dict[bytes, bytes]:
    return {as_bytes(field): as_bytes(content) for field, content in value.items()}


def _list(value: Any, as_bytes: _Bytes) -> list[bytes]:
    return [as_bytes(element) for element in _array(value)]


def _set(value: Any, as_bytes: _Bytes) -> set[bytes]:
    found = set(_list(value, as_bytes))
    if len(found) != len(value):
        raise Unreadable("a member stands twice in it")
    return found


def _zset(value: Any, as_bytes: _Bytes) -> list[tuple[bytes, float]]:
    return [(as_bytes(member), _score(score)) for member, score in map(_array, _array(value))]


def _score(score: Any) -> float:
    if score.__class__ is float:
        return score
    if score.__class__ is int:
        return float(score)
    if score in _NO_NUMBERS:
        return _NO_NUMBERS[score]
    raise Unreadable(f"{score!r} is no score")


def _stream(value: Any, as_bytes: _Bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return [(_id(name), _fields(fields, as_bytes)) for name, fields in map(_array, _array(value))]


def _fields(fields: Any, as_bytes: _Bytes) -> dict[bytes, bytes]:
    if fields.__class__ is dict:
        return {as_bytes(field): as_bytes(content) for field, content in fields.items()}
    return RepeatedFields(
        [(as_bytes(field), as_bytes(content)) for field, content in map(_array, _array(fields))]
    )


def _id(name: str) -> bytes:
    if _ENTRY.fullmatch(name) is None:
        raise Unreadable(f"{name[:80]!r} is no id of an entry")
    return name.encode()


def _document(value: Any, as_bytes: _Bytes) -> Any:
    return value


def _dump(value: Any, as_bytes: _Bytes) -> bytes:
    ((name, dump),) = value.items()
    if name != "dump":
        raise Unreadable(f"there is {name[:80]!r} where its dump should be")
    return _base64(dump)


_VALUES: dict[str, Callable[[Any, _Bytes], Any]] = {
    "string": _string,
    "hash": _hash,
    "list": _list,
    "set": _set,
    "zset": _zset,
    "stream": _stream,
    "ReJSON-RL": _document,
}


def _details(kind: str, value: Any, as_bytes: _Bytes) -> Any:
    if kind == "hash":
        return {as_bytes(field): _number(moment) for field, moment in value.items()}
    if kind != "stream":
        raise Unreadable("only hashes and streams have details")
    rest = dict(value)
    last, greatest = rest.pop("last_id", None), rest.pop("max_deleted_id", None)
    found = StreamDetails(
        None if last is None else _id(last),
        _number(rest.pop("entries_added", None), True),
        None if greatest is None else _id(greatest),
        tuple([_group(group, as_bytes) for group in map(_array, _array(rest.pop("groups", [])))]),
        tuple([_pending(one, as_bytes) for one in map(_array, _array(rest.pop("pending", [])))]),
    )
    if rest:
        raise Unreadable(f"it has details that are not known here: {', '.join(rest)[:200]}")
    return found


def _group(group: list[Any], as_bytes: _Bytes) -> Group:
    name, last, read, consumers = group
    names = tuple([as_bytes(consumer) for consumer in _array(consumers)])
    return Group(as_bytes(name), _id(last), _number(read, True), names)


def _pending(pending: list[Any], as_bytes: _Bytes) -> Pending:
    group, name, consumer, delivered_at, deliveries = pending
    return Pending(as_bytes(group), _id(name), as_bytes(consumer), _number(delivered_at), _number(deliveries))


def _number(number: Any, optional: bool = False) -> Any:
    if optional and number is None:
        return None
    if number.__class__ is not int or not 0 <= number <= _MOST:
        raise Unreadable(f"{number!r} is no whole number of the kind")
    return number
