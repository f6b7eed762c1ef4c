"""Files and folders, here and in object stores: beside until they are whole, gone when they are given up."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow.fs
import pytest

from oneatatime import FileFailure, InvalidInput, MissingExtra
from oneatatime._files import Files, located

KINDS = ["here", "store", "spec"]


@pytest.fixture(params=KINDS)
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Files]:
    """A folder that is not there yet, of each kind. A store's is on this disk, by a store's interface."""
    if request.param == "here":
        yield located(f"{tmp_path}/out/")[0]
    elif request.param == "store":
        base = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem(use_mmap=False))
        store = SimpleNamespace(from_uri=lambda url: (_Flat(base), "out"))
        monkeypatch.setattr(pyarrow.fs, "FileSystem", store)
        yield located("s3://bucket/out/")[0]
    else:
        yield located("memory://out/")[0]
        system = fsspec.filesystem("memory")
        for name in system.find("/"):
            system.rm(name)


class _Flat:
    """A store has no folders: a file makes those that it is in."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def open_output_stream(self, path: str) -> Any:
        self._system.create_dir(path.rpartition("/")[0], recursive=True)
        return self._system.open_output_stream(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)


def test_a_file_has_its_name_when_it_is_whole(folder: Files) -> None:
    assert folder.names() == []
    file = folder.new("keys.jsonl")
    assert file.write(b"one\n") == 4
    file.write(memoryview(b"two\n"))
    assert "keys.jsonl" not in folder.names()
    file.commit()
    assert folder.names() == ["keys.jsonl"]
    assert folder.get("keys.jsonl") == b"one\ntwo\n"
    assert (file.size, file.digest()) == (8, hashlib.sha256(b"one\ntwo\n").hexdigest())
    assert folder.measured("keys.jsonl") == (8, file.digest())


def test_one_that_is_given_up_leaves_nothing(folder: Files) -> None:
    folder.put("keys", b"before")
    file = folder.new("keys")
    file.write(b"half of it")
    file.abandon()
    assert folder.names() == ["keys"]
    assert folder.get("keys") == b"before"


def test_a_new_one_takes_the_place_of_the_old(folder: Files) -> None:
    folder.put("manifest", b"1")
    folder.put("manifest", b"22")
    assert folder.get("manifest") == b"22"
    assert folder.names() == ["manifest"]
    folder.remove("manifest")
    assert folder.get("manifest") is None


def test_reading_may_begin_anywhere(folder: Files) -> None:
    folder.put("numbers", bytes(range(100)))
    with folder.open("numbers") as file:
        file.seek(90)
        assert file.read(5) == bytes(range(90, 95))
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"bc"


def test_a_file_that_is_not_there(folder: Files) -> None:
    folder.put("other", b"")
    with pytest.raises(FileFailure, match="nothing"):
        folder.open("nothing")


@pytest.mark.parametrize(
    ("target", "where", "name"),
    [
        ("keys.jsonl", "", "keys.jsonl"),
        ("out/keys.jsonl", "out", "keys.jsonl"),
        ("out/", "out", ""),
        ("file:///tmp/x.jsonl", "/tmp", "x.jsonl"),
        ("memory://a/b.jsonl", "memory://a", "b.jsonl"),
        ("memory://a/b/", "memory://a/b/", ""),
    ],
)
def test_where_a_target_is(target: str, where: str, name: str) -> None:
    folder, found = located(target)
    assert (folder.where, found) == (where, name)


def test_a_folder_that_is_there_is_one_without_a_slash(tmp_path: Path) -> None:
    assert located(tmp_path)[1] == ""
    assert located(tmp_path / "new")[1] == "new"
    assert located(tmp_path / "new", folder=True)[1] == ""


@pytest.mark.parametrize("target", ["", b"bytes", "no-such-scheme://x/y"])
def test_what_is_no_target(target: Any) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        located(target)


def test_no_secret_is_told() -> None:
    with pytest.raises(InvalidInput) as failure:
        located("no-such-scheme://user:secret@host/x?token=secret")
    assert "secret" not in str(failure.value)


def test_what_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name in ("fsspec", "pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r'pip install "oneatatime\[files\]"'):
        located("memory://x/y")
    with pytest.raises(MissingExtra, match=r'pip install "oneatatime\[arrow\]"'):
        located("s3://bucket/y")


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the system answers alike."""
    folder, _ = located(f"{tmp_path}/")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = folder.new("keys")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        with pytest.raises(FileFailure, match=r"keys cannot be written: File too large"):
            file.write(b"x" * (2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        file.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileFailure, match="cannot be written"):
        located(f"{tmp_path}/file/out/")[0].new("keys")
