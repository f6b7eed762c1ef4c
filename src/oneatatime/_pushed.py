"""What conditions on type and key mean as arguments of `stream`: the half of pushdown that all frames share.

Whoever has a filter takes it apart, and offers each condition here. What is taken the server does; what is
not is no error: who offered it then filters by itself, over what was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ._options import CORE_TYPES, MODULE_TYPES

_SPECIAL = b"*?[]^\\"
_ONE_OF_ITS_KIND = ("match", "keys", "unique", "resume")


class Pushed:
    """Conditions that must all be true, beside the arguments of `stream` that were given.

    `by_name`: one key may be read by its name, without a scan. `typed`: the column `type` is the type of the
    key, and not a field of hashes that has this name.
    """

    def __init__(self, given: Mapping[str, Any], *, by_name: bool = True, typed: bool = True) -> None:
        self._given = given
        self._by_name = by_name and given.get("db") != "all"
        self._typed = typed
        self._types: set[str] | None = None
        self._key: dict[str, Any] = {}

    def has_type(self, names: object) -> bool:
        """Whether it is taken that the type is one of these."""
        if not (self._typed and isinstance(names, Iterable) and not isinstance(names, str)):
            return False
        found = list(names)
        if not found or any(name not in CORE_TYPES + MODULE_TYPES for name in found):
            return False
        self._types = set(found) if self._types is None else self._types & set(found)
        return True

    def is_key(self, key: object) -> bool:
        """Whether it is taken that the key is this one."""
        name = self._name(key)
        if name is None:
            return False
        self._key = {"keys": [name]} if self._by_name else {"match": escaped(name)}
        return True

    def begins(self, prefix: object) -> bool:
        """Whether it is taken that the key begins with this."""
        name = self._name(prefix)
        if name is None:
            return False
        self._key = {"match": escaped(name) + b"*"}
        return True

    @property
    def arguments(self) -> dict[str, Any] | None:
        """What to ask of `stream` in place of what was given; None where nothing can be found."""
        if self._types is None:
            return dict(self._key)
        types, mine = self._types, self._given.get("types") or None
        if mine is not None:
            types = types & ({mine} if isinstance(mine, str) else set(mine))
        return {**self._key, "types": sorted(types)} if types else None

    def _name(self, literal: object) -> bytes | None:
        """A literal as the bytes of a key, where they are certain and nothing else was asked of keys."""
        if self._key or any(self._given.get(name) for name in _ONE_OF_ITS_KIND):
            return None
        if isinstance(literal, str):
            return literal.encode() if self._is_text else None
        return bytes(literal) if isinstance(literal, bytes | bytearray) else None

    @property
    def _is_text(self) -> bool:
        """Whether there is one text for each key: where errors are left out, several keys have the same."""
        strict = self._given.get("errors", "strict") == "strict"
        return strict and str(self._given.get("encoding")).lower() in ("utf-8", "utf8")


def escaped(key: bytes) -> bytes:
    """A pattern that means this key and no other."""
    return b"".join([b"\\%c" % byte if byte in _SPECIAL else b"%c" % byte for byte in key])
