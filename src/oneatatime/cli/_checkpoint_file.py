"""What is done, kept in a file, so that the same command can go on from there after a crash.

The file holds a checkpoint of the stream and what the command line needs beside it: which lines it wrote,
to which file and how far, and what was not delivered. Only a whole file takes the place of another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from .. import Error
from .._file import check_place, replace
from .._sealed import Broken, Json, sealed, unsealed

_NAME = "oneatatime export"
_VERSION = 1


@dataclass(frozen=True)
class Count:
    """Keys that were written, may not be read, could not be read: by all runs that this file has seen."""

    keys: int = 0
    forbidden: int = 0
    failed: int = 0

    def plus(self, other: Count) -> Count:
        """Both together."""
        return Count(self.keys + other.keys, self.forbidden + other.forbidden, self.failed + other.failed)


@dataclass(frozen=True)
class Place:
    """A regular file that lines are written to, and how long it is."""

    device: int
    inode: int
    size: int


@dataclass
class CheckpointFile:
    """The file at `path`. `lines` says what lines are written: a file of other ones is refused.

    What it held when it was opened: `checkpoint` to resume from (None: there was no file), whether all was
    `complete`, what runs had `counted` by then, and the `place` that they wrote to.
    """

    path: str
    lines: Json
    checkpoint: Json | None = None
    complete: bool = False
    counted: Count = field(default_factory=Count)
    place: Place | None = None

    @classmethod
    def opened(cls, path: str, lines: Json) -> CheckpointFile:
        """The file as it is; a new one where there is none.

        Raises Error for a file that is damaged or of other lines, and where none can be written.
        """
        file = cls(path, lines)
        file._check_folder()
        try:
            with open(path, "rb") as there:
                file._take(unsealed(_NAME, _VERSION, there.read()))
        except FileNotFoundError:
            pass
        except Broken as error:
            raise Error(f"the checkpoint {path} {error}; or delete it to start anew") from error
        except OSError as error:
            raise Error(f"the checkpoint {path} cannot be read: {error.strerror}") from error
        return file

    def save(self, checkpoint: Json, count: Count, place: Place | None, *, complete: bool) -> None:
        """Write that so much is done. Raises Error where that fails; then the file is as it was."""
        data: Json = {
            "lines": self.lines,
            "complete": complete,
            "counted": asdict(self.counted.plus(count)),
            "place": None if place is None else asdict(place),
            "checkpoint": checkpoint,
        }
        try:
            replace(self.path, sealed(_NAME, _VERSION, data))
        except OSError as error:
            raise Error(f"the checkpoint {self.path} cannot be written: {error.strerror}") from error

    def _take(self, data: Json) -> None:
        if data["lines"] != self.lines:
            before, now = (_said(lines) for lines in (data["lines"], self.lines))
            raise Error(
                f"the checkpoint {self.path} is of `{before}`, and this is `{now}`: go on with the same, "
                "or delete it to start anew"
            )
        self.checkpoint = data["checkpoint"]
        self.complete = data["complete"]
        self.counted = Count(**data["counted"])
        self.place = None if data["place"] is None else Place(**data["place"])

    def _check_folder(self) -> None:
        """Before hours of work: can a file be written there?"""
        try:
            check_place(self.path)
        except OSError as error:
            said = "is not a file" if error.errno is None else f"cannot be written: {error.strerror}"
            raise Error(f"the checkpoint {self.path} {said}") from error


def _said(lines: Json) -> str:
    words = [str(lines.get("command"))]
    words += ["--json"] if lines.get("json") else []
    words += [f"--with {','.join(lines['with'])}"] if lines.get("with") else []
    return " ".join(words)
