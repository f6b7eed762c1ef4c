"""Which keys were there before: exactly, in memory or on disk.

What is kept of a key is a digest of 128 bits, BLAKE2b keyed with 16 random bytes for each set. Among 100
billion keys two share one with a probability of 10^-17, and who chooses the names of keys cannot make them do
so without the secret. A Bloom filter would lose keys.

It is BLAKE2b in both forms, compiled (115 ns a key) and in Python (300 ns), because `hashlib` has it: what
one kept, the other can go on with. SipHash would be quicker compiled, but takes 11 us a key in Python.

Measured on two slow cores, names of up to 20 bytes, pages of 500, at 1 and 5 million keys:

    memory, compiled     4.0, 3.0 million keys/s      20-31 bytes a key
    memory, in Python    1.7, 1.6 million keys/s      75-101 bytes a key
    disk                 0.40, 0.29 million keys/s    23 bytes a key on disk, at most 64 MiB of memory
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ._errors import Error, InvalidInput, MissingExtra, StreamClosed, closest

if TYPE_CHECKING:
    import sqlite3

try:
    from . import _compiled
except ImportError:  # installed without a compiler
    _compiled = None  # type: ignore[assignment]

_CACHE_KIB = 64 * 1024
_INT_SIZE = 48  # bytes of an int of 128 bits
_PLACES = ("memory", "disk")


class Seen(Protocol):
    """The keys that there were so far: `size` of them, for about `memory` bytes.

    It may go from thread to thread, but is used by one at a time.
    """

    @property
    def size(self) -> int: ...
    @property
    def memory(self) -> int: ...

    def fresh(self, keys: Sequence[bytes], /) -> list[bytes]:
        """Those of the keys that were not there before, in order, each once. From now on they were.

        After an error some of them may count as seen that nobody was given: who asked cannot go on.
        """

    def known(self, keys: Sequence[bytes], /) -> list[bytes]:
        """Those of the keys that were there before, in order. Nothing is added."""

    def clear(self) -> None:
        """Forgets everything, and gives back its memory and its file."""

    def close(self) -> None:
        """The same for good: nothing may be asked afterwards."""


def seen(where: str) -> Seen:
    """A new set of keys, in "memory" or on "disk": a file where `tempfile` makes its own (TMPDIR)."""
    if where == "memory":
        return Digests(os.urandom(16))
    if where == "disk":
        return OnDisk(os.urandom(16))
    near = closest(where, _PLACES) or "memory"
    raise InvalidInput(f"keys can be remembered in 'memory' or on 'disk', not {where!r}: try {near!r}")


def python_digests(secret: bytes, keys: Sequence[bytes]) -> list[bytes]:
    """For each key its BLAKE2b of 16 bytes, keyed with 16 secret bytes."""
    from hashlib import blake2b  # here, as sqlite3 below

    begun = blake2b(key=secret, digest_size=16)
    found = []
    for key in keys:
        hasher = begun.copy()
        hasher.update(key)
        found.append(hasher.digest())
    return found


class PythonDigests:
    """In memory: a set of the digests, as ints, which take a third less than bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._digests: set[int] = set()

    @property
    def size(self) -> int:
        return len(self._digests)

    @property
    def memory(self) -> int:
        return sys.getsizeof(self._digests) + len(self._digests) * _INT_SIZE

    def fresh(self, keys: Sequence[bytes], /) -> list[bytes]:
        digests, found = self._digests, []
        for key, digest in zip(keys, python_digests(self._secret, keys)):
            number = int.from_bytes(digest, "little")
            if number not in digests:
                digests.add(number)
                found.append(key)
        return found

    def known(self, keys: Sequence[bytes], /) -> list[bytes]:
        pairs = zip(keys, python_digests(self._secret, keys))
        return [key for key, digest in pairs if int.from_bytes(digest, "little") in self._digests]

    def clear(self) -> None:
        self._digests = set()

    close = clear


digests: Callable[[bytes, Sequence[bytes]], list[bytes]] = (
    _compiled.digests if _compiled is not None else python_digests
)
Digests: Callable[[bytes], Seen] = _compiled.Digests if _compiled is not None else PythonDigests


class OnDisk:
    """On disk: an SQLite file that has lost its name as soon as it is open, so that nothing is left of it.

    Nothing of it has to survive, so there is no journal and nothing waits for the disk.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._open()

    def _open(self) -> None:
        self.size = 0
        with _on_disk():
            self._connection = connection = _database()
            self._end = weakref.finalize(self, connection.close)
            self._cursor = connection.cursor()

    @property
    def memory(self) -> int:
        if not self._end.alive:
            return 0
        ((pages, size),) = self._connection.execute(
            "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size"
        )
        return min(_CACHE_KIB * 1024, int(pages) * int(size))

    def fresh(self, keys: Sequence[bytes], /) -> list[bytes]:
        if not self._end.alive:
            raise StreamClosed("what was seen is closed, or its disk failed before")
        cursor, execute, found = self._cursor, self._cursor.execute, []
        try:
            with _on_disk():
                for key, digest in zip(keys, digests(self._secret, keys)):
                    execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,))
                    if cursor.rowcount:
                        found.append(key)
        except BaseException:
            self.close()  # who asked cannot know which are in it
            raise
        self.size += len(found)
        return found

    def known(self, keys: Sequence[bytes], /) -> list[bytes]:
        if not self._end.alive:
            raise StreamClosed("what was seen is closed, or its disk failed before")
        pairs, question = zip(keys, digests(self._secret, keys)), "SELECT 1 FROM seen WHERE digest = ?"
        with _on_disk():
            return [key for key, digest in pairs if self._cursor.execute(question, (digest,)).fetchone()]

    def clear(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        self._end()


def _database() -> sqlite3.Connection:
    """An empty file without a name, open."""
    import sqlite3  # here: few need it, and it would make every start 4 ms longer
    import tempfile

    handle, path = tempfile.mkstemp(prefix="oneatatime-seen-")
    try:
        os.close(handle)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
            connection.execute("BEGIN")  # it never ends: what does not fit the cache is written all the same
        except BaseException:
            connection.close()
            raise
    finally:
        os.unlink(path)
    return connection


@contextmanager
def _on_disk() -> Iterator[None]:
    """Where the disk is used: its failures are an Error that says what to do."""
    import tempfile

    try:
        import sqlite3
    except ImportError as error:
        raise MissingExtra("only a Python that was built with sqlite3 can remember keys on disk") from error
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        where = f", in {tempfile.tempdir}" if tempfile.tempdir else ""
        message = f"the keys seen so far cannot be kept on disk{where}: {error}; "
        raise Error(message + "make room there, or name another folder with TMPDIR") from error
