"""Files that are there whole or not at all, whatever ends the process."""

from __future__ import annotations

import contextlib
import os


def check_place(path: str) -> None:
    """Before hours of work: can a file be written there? Raises OSError."""
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(None, "it is not a file")
    os.close(_create(path))
    os.unlink(_beside(path))


def replace(path: str, data: bytes) -> None:
    """Puts `data` in the place of what is at `path`: at any moment there is the old file or the new one."""
    path = os.path.realpath(path)
    with open(_create(path), "wb") as new:
        new.write(data)
        new.flush()
        os.fsync(new.fileno())
    os.replace(_beside(path), path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _beside(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.new")  # one name: what a kill leaves behind is one file


def _create(path: str) -> int:
    """A new file beside the one at `path`, for its owner's eyes only."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_beside(path))
    return os.open(_beside(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
