"""How far an import is, kept in a file, so that the same call goes on from there after a crash.

Where keys that exist are to stay, what is about to be written is told beforehand: a *window* of records, and
which of their keys were there. After a crash the others of that window are known to be our own.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path

from ._blocking import aside
from ._errors import Error
from ._file import check_place, replace
from ._sealed import Broken, Json, sealed, unsealed

_NAME = "oneatatime import"
_VERSION = 1
_SAVE_SECONDS = 1.0


@dataclass(frozen=True)
class Window:
    """Records of a part from `begin` up to `end`, and which of their keys were there: (database, key)."""

    part: str = ""
    begin: int = 0
    end: int = 0
    there: frozenset[tuple[int | None, bytes]] = frozenset()

    def is_ours(self, part: str, number: int, db: int | None, key: bytes) -> bool:
        """Whether what there is of this record's key was written by us."""
        return part == self.part and self.begin <= number < self.end and (db, key) not in self.there


@dataclass(eq=False, repr=False)
class Journal:
    """The file at `path`; `what` says what is imported how, and another journal of it is refused.

    `done`: of each part the number of its first record that is not; `whole` are parts that are done with.
    """

    path: str
    what: Json
    done: dict[str, int] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    window: Window = Window()
    _saved: float = 0.0

    @classmethod
    def opened(cls, path: str, what: Json) -> Journal:
        """The file as it is; a new one where there is none. Raises Error for one of something else."""
        journal = cls(path, what)
        try:
            check_place(path)
            journal._take(unsealed(_NAME, _VERSION, Path(path).read_bytes()))
        except FileNotFoundError:
            pass
        except Broken as error:
            raise Error(f"the checkpoint {path} {error}; or delete it to start anew") from error
        except OSError as error:
            said = error.strerror if error.errno is not None else "it is not a file"
            raise Error(f"the checkpoint {path} cannot be used: {said}") from error
        return journal

    @property
    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved > _SAVE_SECONDS

    async def save(self) -> None:
        """Writes it, in a thread: returns when it is on the disk, cancelled or not."""
        await aside(self.save_now)

    def save_now(self) -> None:
        """The same where nothing may be awaited any more."""
        data: Json = {
            "what": self.what,
            "done": dict(self.done),
            "whole": sorted(self.whole),
            "window": {
                "part": self.window.part,
                "begin": self.window.begin,
                "end": self.window.end,
                "there": [[db, b64encode(key).decode()] for db, key in self.window.there],
            },
        }
        try:
            replace(self.path, sealed(_NAME, _VERSION, data))
        except OSError as error:
            raise Error(f"the checkpoint {self.path} cannot be written: {error.strerror}") from error
        self._saved = time.monotonic()

    def _take(self, data: Json) -> None:
        if data["what"] != self.what:
            before, now = data["what"], self.what
            other = ", ".join(name for name in now if before.get(name) != now[name])
            raise Error(
                f"the checkpoint {self.path} is of another import ({other} differ): go on with the same, "
                "or delete it to start anew"
            )
        window = data["window"]
        there = frozenset((db, b64decode(key)) for db, key in window["there"])
        self.done, self.whole = data["done"], set(data["whole"])
        self.window = Window(window["part"], window["begin"], window["end"], there)
