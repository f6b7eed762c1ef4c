"""Files and folders, here or in an object store: what is written is beside until it is whole.

A new file has its name only when it is committed: until then nobody can take the half of it for all. Here
that is a rename after the data have reached the disk; a store gets the file under another name first, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ._errors import FileFailure, InvalidInput, MissingExtra

_ARROW_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs")
_BLOCK = 1024 * 1024


class NewFile(io.RawIOBase):
    """A file that is being written: `size` bytes so far, `digest()` their SHA-256.

    `commit` gives it its name, `abandon` leaves nothing of it. Raises FileFailure where writing fails.
    """

    def __init__(self, folder: Files, name: str) -> None:
        self.name = name
        self.size = 0
        self._folder = folder
        self._sum = hashlib.sha256()
        with folder.failing(name, "written"):
            self._file = folder.create(beside(name))

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        with self._folder.failing(self.name, "written"):
            self._file.write(view)
        self._sum.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def digest(self) -> str:
        """SHA-256 of what has been written, in hexadecimal digits."""
        return self._sum.hexdigest()

    def commit(self) -> None:
        """Gives it its name, once all of it has come to rest where it is kept."""
        with self._folder.failing(self.name, "written"):
            self._folder.settle(self._file)
            self._file.close()
            self._folder.rename(beside(self.name), self.name)
        self.close()

    def abandon(self) -> None:
        """Leaves nothing of it; what fails on the way is no news to whoever gave it up."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._folder.delete(beside(self.name))
        self.close()


class Files(ABC):
    """The files of one folder, wherever it is. `where` names it for messages, without secrets."""

    where: str

    def new(self, name: str) -> NewFile:
        """A file that will have this name, instead of one that has it now."""
        return NewFile(self, name)

    def put(self, name: str, data: bytes) -> None:
        """A file with this content: at any moment there is the old one or the new one."""
        file = self.new(name)
        try:
            file.write(data)
            file.commit()
        except BaseException:
            file.abandon()
            raise

    def open(self, name: str) -> BinaryIO:
        """A file to read from, at any place in it. Raises FileFailure where there is none."""
        with self.failing(name, "read"):
            return self.reading(name)

    def get(self, name: str) -> bytes | None:
        """All of a small file; None where there is none."""
        if name not in self.names():
            return None
        with self.open(name) as file, self.failing(name, "read"):
            return file.read()

    def size(self, name: str) -> int:
        """The bytes of a file. Raises FileFailure where there is none."""
        with self.open(name) as file, self.failing(name, "read"):
            return file.seek(0, os.SEEK_END)

    def measured(self, name: str) -> tuple[int, str]:
        """The size of a file, and its SHA-256."""
        size, digest = 0, hashlib.sha256()
        with self.open(name) as file, self.failing(name, "read"):
            while block := file.read(_BLOCK):
                size += len(block)
                digest.update(block)
        return size, digest.hexdigest()

    def remove(self, name: str) -> None:
        """Deletes a file."""
        with self.failing(name, "deleted"):
            self.delete(name)

    def path(self, name: str) -> str:
        """A file's name for messages."""
        return f"{self.where.rstrip('/')}/{name}" if self.where else name

    @contextlib.contextmanager
    def failing(self, name: str, what: str) -> Iterator[None]:
        """What the place says that keeps the files becomes an error that names the file."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise FileFailure(f"{self.path(name)} cannot be {what}: {reason}") from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else writes into the folder. Raises InvalidInput where somebody does."""
        yield

    @abstractmethod
    def names(self) -> list[str]:
        """The files that are there, sorted; none where there is no such folder."""

    @abstractmethod
    def create(self, name: str) -> Any:
        """An empty file, open for writing; the folder too, where it is not there."""

    @abstractmethod
    def settle(self, file: Any) -> None:
        """Returns when what was written would outlast a failing power supply."""

    @abstractmethod
    def rename(self, before: str, after: str) -> None:
        """Another name for a file, in the place of any that had it."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Deletes a file."""

    @abstractmethod
    def reading(self, name: str) -> BinaryIO:
        """A file, open for reading at any place."""


def beside(name: str) -> str:
    """What a file is called until it is whole: one name, so that a kill leaves one file."""
    return f".{name}.new"


def whole(name: str) -> str:
    """What a file will be called that is called so now."""
    return name[1:-4] if name.startswith(".") and name.endswith(".new") else name


class Local(Files):
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.where = "" if str(folder) == "." else str(folder)

    def names(self) -> list[str]:
        with self.failing("", "read"):
            if not self._folder.is_dir():
                return []
            return sorted(path.name for path in self._folder.iterdir() if path.is_file())

    def create(self, name: str) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = (self._folder / name).open("ab")
        try:
            _lock(file.fileno(), self.path(whole(name)))
            file.truncate(0)  # what a killed run has left
        except BaseException:
            file.close()
            raise
        return file

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self.failing("", "written"):
            self._folder.mkdir(parents=True, exist_ok=True)
            folder = os.open(self._folder, os.O_RDONLY)
        try:
            _lock(folder, self.where or ".")
            yield
        finally:
            os.close(folder)

    def is_special(self, name: str) -> bool:
        """Whether it is a pipe or a device, which is written as it is and not replaced."""
        path = self._folder / name
        return path.exists() and not path.is_file() and not path.is_dir()

    def opened(self, name: str) -> BinaryIO:
        """A pipe or device, open for writing."""
        with self.failing(name, "written"):
            return (self._folder / name).open("wb")

    def settle(self, file: Any) -> None:
        file.flush()
        os.fsync(file.fileno())

    def rename(self, before: str, after: str) -> None:
        os.replace(self._folder / before, self._folder / after)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def reading(self, name: str) -> BinaryIO:
        return (self._folder / name).open("rb")


class Store(Files):
    """A folder that pyarrow's file systems reach: s3://, gs://, abfs://."""

    def __init__(self, url: str) -> None:
        try:
            from pyarrow import fs
        except ImportError as error:
            text = f'{_scheme(url)}:// needs pyarrow: pip install "oneatatime[arrow]"'
            raise MissingExtra(text) from error
        self.where = _without_secrets(url)
        try:
            self._system, self._path = fs.FileSystem.from_uri(url)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{self.where} is no place that can be written to: {error}") from error
        self._selector = fs.FileSelector
        self._file_type = fs.FileType.File

    def names(self) -> list[str]:
        with self.failing("", "read"):
            selector = self._selector(self._path, allow_not_found=True)
            found = self._system.get_file_info(selector)
            return sorted(info.base_name for info in found if info.type == self._file_type)

    def create(self, name: str) -> Any:
        return self._system.open_output_stream(self._at(name))

    def settle(self, file: Any) -> None:
        """A store has it when the file is closed."""

    def rename(self, before: str, after: str) -> None:
        self._system.move(self._at(before), self._at(after))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.delete_file(self._at(name))

    def reading(self, name: str) -> BinaryIO:
        file: BinaryIO = self._system.open_input_file(self._at(name))
        return file

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"


class Spec(Files):
    """A folder that fsspec reaches: memory://, sftp://, hdfs:// and what else is installed."""

    def __init__(self, url: str) -> None:
        self.where = _without_secrets(url)
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtra(f'{_scheme(url)}:// needs fsspec: pip install "oneatatime[files]"') from error
        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, OSError, ValueError) as error:
            raise InvalidInput(f"{self.where} is no place that can be written to: {error}") from error

    def names(self) -> list[str]:
        with self.failing("", "read"):
            self._system.invalidate_cache()
            if not self._system.exists(self._path):
                return []
            found = self._system.ls(self._path, detail=True)
            return sorted(str(info["name"]).rpartition("/")[2] for info in found if info["type"] == "file")

    def create(self, name: str) -> Any:
        self._system.makedirs(self._path, exist_ok=True)
        return self._system.open(self._at(name), "wb")

    def settle(self, file: Any) -> None:
        file.flush()

    def rename(self, before: str, after: str) -> None:
        self._system.cp_file(self._at(before), self._at(after))  # over the old one, which is never gone first
        self._system.rm_file(self._at(before))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(self._at(name))

    def reading(self, name: str) -> BinaryIO:
        file: BinaryIO = self._system.open(self._at(name), "rb")
        return file

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"


def located(target: str | os.PathLike[str], *, folder: bool = False) -> tuple[Files, str]:
    """The folder that a path or URL is in, and the name in it: "" where it is a folder itself.

    It is one where `folder` says so, where it ends with a slash, and where a folder is there.
    """
    where = os.fspath(target)
    if not isinstance(where, str) or not where:
        raise InvalidInput(f"{target!r} is no name of a file or folder")
    if "://" in where and not where.startswith("file://"):
        kind = Store if _scheme(where) in _ARROW_SCHEMES else Spec
        base, mark, query = where.partition("?")  # behind it stands how to reach the store
        if folder or base.endswith("/"):
            return kind(where), ""
        parent, _, name = base.rpartition("/")
        if parent.endswith(":/"):
            raise InvalidInput(f"{_without_secrets(where)} names no file: end a folder with a slash")
        return kind(f"{parent}{mark}{query}"), name
    path = Path(where.removeprefix("file://"))
    if path.is_symlink():  # the file that it means is written, and stays what it means
        path = Path(os.path.realpath(path))
    if folder or where.endswith(("/", os.sep)) or path.is_dir():
        return Local(path), ""
    return Local(path.parent), path.name


def _lock(file: int, what: str) -> None:
    """Keeps a file or folder for this process. Raises InvalidInput where another one has it."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidInput(f"{what} is being written by another run: wait until it is done") from error
    except OSError:  # not every file system has locks
        return


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _without_secrets(url: str) -> str:
    """The URL as messages may show it: without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
