"""Standard output in big blocks, polite to terminals and to readers that go away."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from typing import Any

from .. import Error
from ._checkpoint_file import Place

BROKEN_PIPE = 128 + 13  # the exit code that a shell reports for a command that SIGPIPE ended

_BLOCK = 64 * 1024  # what a pipe holds: bigger writes only wait longer


class Output:
    """Where the data goes. Lines gather until a block is full; a terminal sees each batch at once.

    `before_terminal` is called before anything is shown on a terminal: a progress bar wipes itself.
    `before_first` is called once, before the first lines are taken.
    `writing` is True while a write may wait for a slow reader.
    """

    def __init__(self) -> None:
        if sys.stdout is None:
            raise Error("standard output is closed")
        self.terminal = sys.stdout.isatty()
        self.before_terminal: Callable[[], None] = lambda: None
        self.before_first: Callable[[], None] | None = None
        self.writing = False
        self._stream = sys.stdout.buffer
        self._lines: list[bytes] = []
        self._size = 0
        self._file = _regular_file(sys.stdout)

    def write(self, data: bytes) -> None:
        """Add whole lines; they may wait in memory for more until the block is full or `flush`."""
        if self.before_first is not None:
            first, self.before_first = self.before_first, None
            first()
        self._lines.append(data)
        self._size += len(data)
        if self._size >= _BLOCK or self.terminal:
            self.flush()

    def write_json(self, text: str) -> None:
        """Add lines of JSON; on a terminal whatever could act on it is written as \\u001b and the like."""
        self.write((_harmless_json(text) if self.terminal else text).encode())

    def flush(self) -> None:
        """Write what waits. Raises BrokenPipeError when the reader has gone."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        if self.terminal:
            self.before_terminal()
        self.writing = True
        try:
            self._stream.write(data)
            self._stream.flush()
        finally:
            self.writing = False

    def sync(self) -> Place | None:
        """Write what waits; into a file, down to the disk. Gives which file that is, and how long."""
        self.flush()
        if self._file is None:
            return None
        os.fsync(self._file)
        return self.place()

    def place(self) -> Place | None:
        """Which file it is, if it is one, and how long."""
        if self._file is None:
            return None
        found = os.fstat(self._file)
        return Place(found.st_dev, found.st_ino, found.st_size)

    def go_on(self, before: Place | None) -> None:
        """Take up a file where a run before left it: a line that it could not finish is cut off.

        Raises Error where what it wrote is not there any more.
        """
        now = self.place()
        if self._file is None or now is None or before is None:
            return
        if (now.device, now.inode) != (before.device, before.inode):
            return  # each run may write a file of its own
        if now.size < before.size:
            raise Error(
                f"the output had {before.size:,} bytes when the checkpoint was written, and has {now.size:,} "
                "now: what it held is lost. Append to it with >>; to start anew, delete the checkpoint"
            )
        end = _end_of_lines(self._file, before.size, now.size)
        if end is None:
            self._lines.append(b"\n")
        elif end < now.size:
            os.ftruncate(self._file, end)

    def abandon(self) -> None:
        """Throw away what has not been written, here and in Python's buffer, so that nothing is written,
        fails or waits for a reader when the interpreter ends."""
        self._lines.clear()
        self._size = 0
        abandon_stdout()


def _regular_file(stream: Any) -> int | None:
    try:
        number = int(stream.fileno())
        return number if stat.S_ISREG(os.fstat(number).st_mode) else None
    except (OSError, ValueError):  # not a real file
        return None


def _end_of_lines(file: int, start: int, end: int) -> int | None:
    """Where the last whole line of a file ends, not before `start`; None where it may not be read."""
    try:
        there = os.open(f"/dev/fd/{file}", os.O_RDONLY)
    except OSError:
        return None
    try:
        while end > start:
            begin = max(start, end - _BLOCK)
            newline = os.pread(there, end - begin, begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
        return start
    except OSError:
        return None
    finally:
        os.close(there)


def abandon_stdout() -> None:
    """Let what Python still holds for stdout go nowhere."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # not a real file: nothing will fail or wait either
        pass


def readable(key: bytes) -> bytes:
    """A key as a terminal may see it: itself if all of it can be printed, else quoted as redis-cli does.

    >>> readable("Zürich".encode()), readable(b"a\\xff\\n")
    (b'Z\\xc3\\xbcrich', b'"a\\\\xff\\\\n"')
    """
    try:
        if key.decode().isprintable():
            return key
    except UnicodeDecodeError:
        pass
    return b'"%b"' % b"".join([_ESCAPED[byte] for byte in key])


def _escaped(byte: int) -> bytes:
    short = {
        0x22: b'\\"',
        0x5C: b"\\\\",
        0x0A: b"\\n",
        0x0D: b"\\r",
        0x09: b"\\t",
        0x07: b"\\a",
        0x08: b"\\b",
    }
    return short.get(byte) or (bytes([byte]) if 0x20 <= byte < 0x7F else b"\\x%02x" % byte)


_ESCAPED = [_escaped(byte) for byte in range(256)]


def _harmless_json(lines: str) -> str:
    """The same JSON with every character that cannot be printed as an escape; the newlines stay.

    Such characters stand only inside strings, where JSON allows the escape.
    """
    return _MAYBE_UNPRINTABLE.sub(
        lambda found: found[0] if found[0].isprintable() else _json_escape(found[0]), lines
    )


_MAYBE_UNPRINTABLE = re.compile(r"[^\n -~]")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join([f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)])
