"""What several tests do with a stream."""

from __future__ import annotations

from typing import Any

import oneatatime
from oneatatime import Parts


async def everything(source: Any, **arguments: Any) -> dict[Any, Any]:
    """Every key with its value; a key that comes twice is an error here."""
    found: dict[Any, Any] = {}
    async for key, value in oneatatime.stream(source, **arguments):
        assert key not in found, f"{key!r} came twice"
        found[key] = value
    return found


async def gathered(view: Any) -> list[Any]:
    """All items of a view."""
    return [item async for item in view]


async def whole(value: Any) -> Any:
    """The value as a small one of its type would be delivered."""
    return await value.load() if isinstance(value, Parts) else value


def with_protocol(url: str, protocol: int) -> str:
    """The same server, spoken to in RESP2 or RESP3."""
    return f"{url}{'&' if '?' in url else '?'}protocol={protocol}"
