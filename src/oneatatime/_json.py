"""Bytes, and what is made of them, as JSON text, and back: what runs once a word of a file.

Compiled where there was a compiler when this was installed (`_compiled.c`); the same in Python here.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring as _quoted
from typing import Any

try:
    from . import _compiled
except ImportError:  # installed without a compiler
    _compiled = None  # type: ignore[assignment]


def _texts(values: Sequence[Any], base64: bool) -> list[bytes | None]:
    text = _base64 if base64 else _utf8
    found: list[bytes | None] = []
    for value in values:
        try:
            found.append(_text(value, text).encode())
        except UnicodeDecodeError:
            found.append(None)
    return found


def _utf8(data: bytes) -> str:
    return _quoted(data.decode())


def _base64(data: bytes) -> str:
    return f'"{binascii.b2a_base64(data, newline=False).decode()}"'


def _text(value: Any, text: Callable[[bytes], str]) -> str:
    kind = value.__class__
    if kind is bytes:
        return text(value)
    if kind is list or kind is tuple:
        return f"[{','.join([_text(element, text) for element in value])}]"
    if kind is dict:
        pairs = [f"{_text(name, text)}:{_text(content, text)}" for name, content in value.items()]
        return f"{{{','.join(pairs)}}}"
    if kind is float:
        return repr(value) if math.isfinite(value) else f'"{value}"'
    if kind is int:
        return str(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if value is None:
        return "null"
    raise TypeError(f"{kind.__name__} has no form in JSON here")


texts: Callable[[Sequence[Any], bool], list[bytes | None]] = (
    _compiled.texts if _compiled is not None else _texts
)
"""Each value as JSON in UTF-8: bytes, float, int, None, and list, tuple and dict of such.

Bytes become strings: `base64`, or as the text they are; a value in which any are not UTF-8 is None then.
A str is JSON already and stands as it is. A float that JSON has no number for is a string: "inf", "-inf",
"nan".
"""


def _rows(block: bytes) -> list[Any]:
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


rows: Callable[[bytes], list[Any]] = _compiled.rows if _compiled is not None else _rows
"""The lines of a block, each as the bytes that it is, or as the row that `formats` would make of it.

Compiled, lines just as we write them are rows: (key, type, value, db, expires_at, None, None). In Python none
is.
"""
