"""Functions that engines apply to partitions in other processes, which find them by their names here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from oneatatime import Parts, Stream

Item = tuple[bytes, bytes]


def items(stream: Stream) -> list[Item]:
    """Keys and values; of what is too big to hold, how big it is."""
    return [(key, plain(value)) for key, value in stream]


def plain(value: Any) -> Any:
    """A value that can be compared, and sent: parts put together."""
    if not isinstance(value, Parts):
        return value
    parts = list(value)
    if value.type == "string":
        return type(parts[0])().join(parts)
    if value.type == "hash":
        return dict(parts)
    return set(parts) if value.type == "set" else parts


def keys(stream: Stream) -> list[bytes]:
    return list(stream.keys())


def failing(stream: Stream) -> None:
    for key in stream.keys():
        raise LookupError(f"no luck with {key!r}")


def killed(stream: Stream) -> None:
    next(iter(stream))
    os.kill(os.getpid(), signal.SIGKILL)


class KilledOnce:
    """Gives the items; the first process that comes to this is killed in the middle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, stream: Stream) -> list[Item]:
        found = []
        for key, value in stream:
            found.append((key, value))
            if len(found) == 20 and self._first():
                os.kill(os.getpid(), signal.SIGKILL)
        return found

    def _first(self) -> bool:
        try:
            (self.folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Slow:
    """Says that it has begun, by a file named after its process, and takes its time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, stream: Stream) -> int:
        count = 0
        for _ in stream:
            (self.folder / str(os.getpid())).touch()
            count += 1
            time.sleep(0.02)
        return count


class Odd(Exception):
    """Can be pickled, and not be made again."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(what)


def odd(stream: Stream) -> None:
    raise Odd("mine", 2)


def parts(stream: Stream) -> list[Any]:
    return [value for _, value in stream if isinstance(value, Parts)]


def unsaid() -> Any:
    return lambda: "no password"
