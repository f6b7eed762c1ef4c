"""What a folder of parts holds: written down after each part, so that an export can go on and be proven.

The manifest names only whole parts, each with its size, its SHA-256 and how many records are in it, and
has the checkpoint that says what is in them. Only a whole manifest takes the place of another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from ._errors import InvalidInput
from ._files import Files, located, whole
from ._sealed import Broken, Json, sealed, unsealed

NAME = "manifest.json"
VERSION = 1

_KIND = "oneatatime export"
_PART = re.compile(r"part-[0-9]{5,}(\.[a-z]+){1,2}")
"""What parts are called: nothing else in a folder is ever deleted."""


@dataclass(frozen=True)
class Part:
    """One whole file of the folder. `records` counts keys; a value in pieces is one."""

    name: str
    records: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All whole parts, in their order. `how` says what is written and in which form.

    `checkpoint` is the stream's, None before the first part; `complete`: everything is there; `left_out`
    counts what was not written, by reason.
    """

    how: Json
    parts: tuple[Part, ...] = ()
    checkpoint: Json | None = None
    complete: bool = False
    left_out: Json = field(default_factory=dict)

    @classmethod
    def read(cls, files: Files) -> Manifest | None:
        """The manifest of a folder; None where there is none.

        Raises InvalidInput for one that is damaged, of a newer version, or no manifest at all.
        """
        written = files.get(NAME)
        return None if written is None else cls._parsed(written, files.path(NAME))

    def write(self, files: Files) -> None:
        """Put it in the place of the one before. Raises FileFailure where that fails."""
        files.put(NAME, sealed(_KIND, VERSION, asdict(self), indent=1))

    def with_part(self, part: Part, checkpoint: Json | None) -> Manifest:
        """The same with one part more."""
        return replace(self, parts=(*self.parts, part), checkpoint=checkpoint)

    @property
    def total(self) -> tuple[int, int, int]:
        """The records and the bytes in all parts, and how many these are."""
        return (
            sum(part.records for part in self.parts),
            sum(part.bytes for part in self.parts),
            len(self.parts),
        )

    @property
    def next_number(self) -> int:
        """The number of the next part: no file of the folder has it."""
        numbers = (part.name.removeprefix("part-").partition(".")[0] for part in self.parts)
        return max(map(int, numbers), default=-1) + 1

    def begin(self, files: Files) -> None:
        """Clears away what a killed run has left beside, and writes what is about to be done.

        Raises InvalidInput for parts that nobody's manifest tells of, FileFailure where that fails.
        """
        if not self.parts and Manifest.read(files) is None:
            Manifest.check_new(files)
        self.sweep(files)
        self.write(files)

    def sweep_one(self, files: Files, name: str) -> None:
        """Deletes the part of this name, whole or not, where it is not named here."""
        for stray in self.strays(files):
            if whole(stray) == name:
                files.remove(stray)

    def sweep(self, files: Files) -> None:
        """Deletes parts that are not named here."""
        for name in self.strays(files):
            files.remove(name)

    def strays(self, files: Files) -> list[str]:
        """Parts that are there and not named here: whole ones that a kill left behind, and halves."""
        named = {part.name for part in self.parts}
        return [name for name in files.names() if _PART.fullmatch(whole(name)) and name not in named]

    @staticmethod
    def check_new(files: Files) -> None:
        """Raises InvalidInput where a folder without a manifest holds what looks like parts."""
        if parts := [name for name in files.names() if _PART.fullmatch(name)]:
            text = f"{files.path(parts[0])} is there, and no {NAME} that says what it is"
            raise InvalidInput(f"{text}: take another folder, or move it away")

    def problems(self, files: Files) -> Iterator[str]:
        """What is not as it says, part by part: every byte is read."""
        there = set(files.names())
        for part in self.parts:
            if part.name not in there:
                yield f"{files.path(part.name)} is missing"
                continue
            size, digest = files.measured(part.name)
            if size != part.bytes:
                text = f"has {size:,} bytes, and had {part.bytes:,} when it was written"
                yield f"{files.path(part.name)} {text}"
            elif digest != part.sha256:
                yield f"{files.path(part.name)} is not what was written: its SHA-256 is another one"
        for name in self.strays(files):
            yield f"{files.path(name)} is not part of the export: the same command, run again, removes it"
        for reason, count in self.left_out.items():
            yield f"{files.path(NAME)}: {count:,} {reason} are not in it, or null there"
        if not self.complete:
            yield f"{files.path(NAME)}: the export is not complete; the same command goes on with it"

    @classmethod
    def _parsed(cls, written: bytes, path: str) -> Manifest:
        try:
            data = unsealed(_KIND, VERSION, written)
        except Broken as error:
            raise InvalidInput(f"{path} {error}") from error
        parts = tuple(Part(**part) for part in data["parts"])
        return cls(data["how"], parts, data["checkpoint"], data["complete"], data["left_out"])


def part_name(number: int, extension: str) -> str:
    """`part-00007.parquet`"""
    return f"part-{number:05}{extension}"


@dataclass(frozen=True)
class Verified:
    """What the folder at `where` holds by its manifest, and in `problems` what does not fit it.

    Without problems it is proven.
    """

    where: str
    parts: int
    records: int
    bytes: int
    problems: tuple[str, ...]


def verify(folder: str | os.PathLike[str]) -> Verified:
    """Compares each file of an exported folder with the manifest: every byte is read.

    Raises InvalidInput where there is no manifest or a damaged one, FileFailure where files cannot be read.

    >>> import oneatatime
    >>> def proven(folder):
    ...     return not oneatatime.verify(folder).problems
    """
    files, _ = located(folder, folder=True)
    manifest = Manifest.read(files)
    if manifest is None:
        raise InvalidInput(f"{files.path(NAME)} is not there: this is no folder that an export has written")
    problems = tuple(manifest.problems(files))
    records, size, parts = manifest.total
    return Verified(files.where, parts, records, size, problems)
