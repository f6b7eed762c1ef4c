"""Plain data in a file of ours: it says what it is and of which version, and a digest that it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

Json = dict[str, Any]

_LATER = "go on with the release that wrote it"


class Broken(Exception):
    """The file is not what was written; its text says how, to go behind the file's name."""


def sealed(kind: str, version: int, data: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """What to write into the file."""
    said = {"oneatatime": kind, "version": version, **data}
    return (json.dumps({**said, "digest": _digest(said)}, indent=indent) + "\n").encode()


def unsealed(kind: str, version: int, written: bytes) -> Json:
    """The data that was written as this. Raises Broken for anything else."""
    try:
        data = json.loads(written)
    except ValueError as error:
        raise Broken(f"is damaged, or something else: {error}") from error
    if not isinstance(data, dict) or data.get("oneatatime") != kind:
        raise Broken(f"is not of an {kind.removeprefix('oneatatime ')}")
    if data.get("version") != version:
        raise Broken(f"is of version {data.get('version')!r}, and this reads {version}: {_LATER}")
    if data.pop("digest", None) != _digest(data):
        raise Broken("is damaged: its digest does not fit what it says")
    return data


def _digest(data: Mapping[str, Any]) -> str:
    written = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return blake2b(written.encode(), digest_size=16).hexdigest()
