"""Everything that happens, as JSON lines on disk: events, iterations, the verdict."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

_EPOCH = time.monotonic()


def now() -> float:
    """Seconds since this process began: the clock of everything here."""
    return time.monotonic() - _EPOCH


class History:
    """A file of JSON lines, written at once and from any thread; `echo` shows events on the terminal."""

    def __init__(self, path: Path, *, echo: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self._echo = echo
        self.counts: dict[str, int] = {}

    def write(self, what: str, **details: Any) -> None:
        """A line: when, what, and anything that JSON or `str` can show."""
        line = json.dumps({"t": round(now(), 3), "what": what, **details}, default=_shown)
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + 1
            self._file.write(line + "\n")
            self._file.flush()
            if self._echo:
                print(line[:300], flush=True)

    def close(self) -> None:
        self._file.close()


def _shown(thing: Any) -> str:
    return thing.decode("utf-8", "backslashreplace") if isinstance(thing, bytes) else str(thing)
