"""What may be asked about keys beside their values: commands and what their replies mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._request import Burst, ReplyError, for_each

_COMMANDS = {
    "ttl": (b"PTTL",),
    "memory": (b"MEMORY", b"USAGE"),
    "idle": (b"OBJECT", b"IDLETIME"),
    "freq": (b"OBJECT", b"FREQ"),
    "encoding": (b"OBJECT", b"ENCODING"),
}


def command_of(name: str) -> str:
    """The command that tells it, for messages."""
    return b" ".join(_COMMANDS[name]).decode()


def ask(name: str, keys: Sequence[bytes]) -> Burst:
    """Asks one of `METADATA` about keys."""
    return for_each(_COMMANDS[name], keys)


def column(name: str, replies: list[Any], refused: dict[int, ReplyError]) -> list[Any]:
    """What the replies to that say, row by row; errors that mean more than "no such key" go to `refused`."""
    if {int}.issuperset(map(type, replies)):  # PTTL: -1 does not expire, -2 is gone
        return [None if reply < 0 else reply for reply in replies]
    found: list[Any] = []
    for row, reply in enumerate(replies):
        if isinstance(reply, ReplyError):
            if "no such key" not in str(reply):
                refused[row] = reply
            found.append(None)
        else:
            found.append(reply.decode() if name == "encoding" and reply is not None else reply)
    return found
