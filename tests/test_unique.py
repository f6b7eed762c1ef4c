"""Which keys were there before: in memory, compiled and in Python, and on disk."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneatatime import _unique
from oneatatime._errors import Error, InvalidInput, MissingExtra, StreamClosed
from oneatatime._unique import OnDisk, PythonDigests, Seen, python_digests, seen

SECRET = bytes(range(16))
DIGESTS: dict[str, Callable[[bytes, Sequence[bytes]], list[bytes]]] = {"python": python_digests}
SETS: dict[str, Callable[[bytes], Seen]] = {"python": PythonDigests, "disk": OnDisk}
if _unique.digests is not python_digests:
    DIGESTS["compiled"] = _unique.digests
    SETS["compiled"] = _unique.Digests

every_digests = pytest.mark.parametrize("digests", DIGESTS.values(), ids=DIGESTS)
every_set = pytest.mark.parametrize("make", SETS.values(), ids=SETS)
in_memory = pytest.mark.parametrize("make", [SETS[name] for name in DIGESTS], ids=DIGESTS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files are now."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.iterdir()), "a file was left behind"


# The digest


@every_digests
def test_a_digest_is_keyed_blake2b_at_every_length(
    digests: Callable[[bytes, Sequence[bytes]], list[bytes]],
) -> None:
    text = bytes(number * 7 % 256 for number in range(1000))
    keys = [text[:length] for length in (*range(400), 511, 512, 513, 1000)]
    assert digests(SECRET, keys) == [
        hashlib.blake2b(key, key=SECRET, digest_size=16).digest() for key in keys
    ]
    assert digests(SECRET, []) == []
    assert digests(bytes(16), keys) != digests(SECRET, keys)


@every_digests
@given(secret=st.binary(min_size=16, max_size=16), keys=st.lists(st.binary(max_size=300), max_size=10))
def test_a_digest_is_keyed_blake2b(
    digests: Callable[[bytes, Sequence[bytes]], list[bytes]], secret: bytes, keys: list[bytes]
) -> None:
    assert digests(secret, keys) == [
        hashlib.blake2b(key, key=secret, digest_size=16).digest() for key in keys
    ]


# The set


@every_set
@given(pages=st.lists(st.lists(st.binary(max_size=2), max_size=30), max_size=8))
def test_it_does_what_a_set_does(make: Callable[[bytes], Seen], pages: list[list[bytes]]) -> None:
    keys = make(SECRET)
    known: dict[bytes, None] = {}
    for page in pages:
        expected = [key for key in dict.fromkeys(page) if key not in known]
        assert keys.fresh(page) == expected
        known.update(dict.fromkeys(page))
        assert keys.size == len(known)
    keys.close()


@every_set
def test_many_keys_come_once(make: Callable[[bytes], Seen]) -> None:
    keys = make(SECRET)
    for start in range(0, 60_000, 1000):  # every second key was in the page before
        page = [b"key:%d" % number for number in range(start, start + 2000)]
        fresh = page if start == 0 else page[1000:]
        assert keys.known(page) == ([] if start == 0 else page[:1000])
        assert keys.fresh(page) == fresh
        assert keys.known(page) == page
    assert keys.size == 61_000
    assert keys.fresh([b"key:%d" % number for number in range(61_000)]) == []
    assert keys.fresh([b"key:-1", b"", b"key:-1"]) == [b"key:-1", b""]
    keys.close()


@every_set
def test_keys_are_any_bytes_and_the_very_objects_come_back(make: Callable[[bytes], Seen]) -> None:
    page = [b"", b"\0", b"\0\0", b"\xff" * 500, b"a\r\n", b"x" * 128, b"x" * 129]
    keys = make(SECRET)
    assert all(one is other for one, other in zip(keys.fresh(tuple(page)), page, strict=True))
    assert keys.fresh(page) == []
    keys.close()


@every_set
def test_it_can_begin_anew(make: Callable[[bytes], Seen]) -> None:
    keys = make(SECRET)
    for count in (10, 20_000, 5):
        page = [b"%d" % number for number in range(count)]
        assert keys.fresh(page) == page
        assert keys.fresh(page) == []
        keys.clear()
        assert keys.size == 0
    keys.close()


@in_memory
def test_it_says_what_memory_it_takes_and_gives_it_back(make: Callable[[bytes], Seen]) -> None:
    tracemalloc.start()
    try:
        keys = make(SECRET)
        before, _ = tracemalloc.get_traced_memory()
        for start in range(0, 100_000, 500):
            keys.fresh([b"%d" % number for number in range(start, start + 500)])
            if start % 10_000 == 0:
                taken = tracemalloc.get_traced_memory()[0] - before
                assert taken == pytest.approx(keys.memory, rel=0.1, abs=8000)
        assert keys.memory < (32 if make is not PythonDigests else 130) * keys.size
        keys.clear()
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
        assert keys.memory < 10_000
    finally:
        tracemalloc.stop()


@in_memory
def test_a_small_set_is_small(make: Callable[[bytes], Seen]) -> None:
    keys = make(SECRET)
    keys.fresh([b"%d" % number for number in range(50)])
    assert keys.memory < 6000


@every_set
@pytest.mark.parametrize("wrong", ["a", None, 7])
def test_what_is_no_key_is_a_type_error(make: Callable[[bytes], Seen], wrong: Any) -> None:
    keys = make(SECRET)
    with pytest.raises(TypeError):
        keys.fresh([b"a", wrong])
    keys.close()


@every_set
def test_it_goes_from_thread_to_thread(make: Callable[[bytes], Seen]) -> None:
    keys = make(SECRET)
    found: list[list[bytes]] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: found.append(keys.fresh([b"a", b"b"])))
        thread.start()
        thread.join()
    assert found == [[b"a", b"b"], [], []]
    keys.close()


def test_where_it_is() -> None:
    assert isinstance(seen("disk"), OnDisk)
    memory, other = seen("memory"), seen("memory")
    assert type(memory) is type(_unique.Digests(SECRET))
    assert memory.fresh([b"a"]) == other.fresh([b"a"]) == [b"a"]
    with pytest.raises(InvalidInput, match="try 'disk'"):
        seen("disc")


@pytest.mark.skipif("compiled" not in SETS, reason="installed without a compiler")
def test_the_secret_is_needed_and_has_its_length() -> None:
    from oneatatime import _compiled

    for wrong in (b"", b"x" * 15, b"x" * 17, "x" * 16, None):
        with pytest.raises(TypeError):
            _compiled.Digests(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _compiled.digests(wrong, [])  # type: ignore[arg-type]
    for no_keys in (None, 7, object()):
        with pytest.raises(TypeError):
            _compiled.Digests(SECRET).fresh(no_keys)  # type: ignore[arg-type]


# On disk


def test_a_file_has_no_name_and_is_gone_with_the_object(folder: Path) -> None:
    keys = seen("disk")
    keys.fresh([b"%d" % number for number in range(1000)])
    assert not list(folder.iterdir())  # nothing to leave behind, however this process ends
    files = open_files(folder)
    assert len(files) == 1
    del keys
    gc.collect()
    assert open_files(folder) == []


def test_a_file_is_gone_when_it_is_closed(folder: Path) -> None:
    keys = seen("disk")
    keys.fresh([b"a"])
    keys.clear()
    assert len(open_files(folder)) == 1
    keys.close()
    keys.close()
    assert open_files(folder) == []
    assert keys.memory == 0
    with pytest.raises(StreamClosed):
        keys.fresh([b"a"])


def open_files(folder: Path) -> list[str]:
    """What this process has open of a folder."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux tells which files are open")
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(handle)
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


def test_a_full_disk_is_an_error_that_says_so(folder: Path) -> None:
    keys = seen("disk")
    assert isinstance(keys, OnDisk)
    keys._connection.execute("PRAGMA max_page_count = 100")
    with pytest.raises(Error, match=r"disk is full; make room there.*TMPDIR") as caught:
        for start in range(0, 100_000, 500):
            keys.fresh([b"%d" % number for number in range(start, start + 500)])
    assert type(caught.value) is Error
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert str(folder) in str(pickle.loads(pickle.dumps(caught.value)))
    with pytest.raises(StreamClosed):  # what it did not take, it does not deny
        keys.fresh([b"0"])


FULL = """
import resource
from oneatatime._errors import Error
from oneatatime import _unique
_unique._CACHE_KIB = 64
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
keys = _unique.seen("disk")
try:
    for start in range(0, 100_000, 500):
        keys.fresh([b"%d" % number for number in range(start, start + 500)])
except Error as error:
    print(error)
"""


def test_a_file_that_cannot_grow_is_an_error_that_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=True)
    assert "cannot be kept on disk" in done.stdout, done


def test_no_folder_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(Error, match=r"/no/such/folder.*TMPDIR"):
        seen("disk")


def test_a_python_without_sqlite_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    with pytest.raises(MissingExtra, match="sqlite3"):
        seen("disk")


def test_memory_on_disk_is_bounded() -> None:
    keys = seen("disk")
    assert isinstance(keys, OnDisk)
    keys.fresh([b"%d" % number for number in range(5000)])
    assert 5000 * 16 < keys.memory < 5000 * 40
    (cache,) = keys._connection.execute("PRAGMA cache_size").fetchone()
    assert cache == -64 * 1024
    keys.close()
