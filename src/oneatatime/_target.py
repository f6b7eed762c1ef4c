"""Where an export goes: a file in a folder, a folder of parts, or a file that is open."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, cast

from ._errors import InvalidInput
from ._files import Files, Local, located
from .formats import Format, format_of


@dataclass(frozen=True)
class Target:
    """Where an export goes: a file `name` in a folder, the folder itself (""), or a `file` that is open."""

    files: Files | None
    name: str
    file: BinaryIO | None = None

    @classmethod
    def of(cls, target: object) -> Target:
        if isinstance(target, str | os.PathLike):
            files, name = located(target)
            if name and isinstance(files, Local) and files.is_special(name):
                return cls(files, name, files.opened(name))
            return cls(files, name)
        if not hasattr(target, "write"):
            raise InvalidInput(f"{target!r} is no target: give a path, a URL, or a file open for bytes")
        return cls(None, "", cast(BinaryIO, target))

    @property
    def folder(self) -> Files | None:
        """The folder that gets parts."""
        return self.files if not self.name else None

    def path(self, name: str) -> str:
        """A file of the folder, for messages; "" is the folder itself."""
        if self.files is None:
            return "the open file"
        return self.files.path(name) if name else self.files.where

    def format(self, given: str | None) -> Format:
        """The format that is asked for, or that the name's ending says."""
        if given is None and not self.name:
            what = "a folder" if self.files is not None else "an open file"
            raise InvalidInput(f"{what} does not tell the format: give one, such as format='jsonl.zst'")
        return format_of(self.name, given)
