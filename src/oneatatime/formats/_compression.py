"""Compressed files as plain ones, in constant memory: gzip, and Zstandard where it is installed."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from .._errors import InvalidInput, MissingExtra
from .._options import KiB

_BUFFER = 128 * KiB
_GZIP = 16 + zlib.MAX_WBITS  # what zlib is told to expect or make a header and a sum like gzip's
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_ZSTD_STEP = 256
"""Bytes decompressed at once: they may become 8 MB, and nothing else bounds that."""


def compressed(file: BinaryIO, compression: str | None) -> BinaryIO:
    """What is written to the result is compressed into `file`: by "gz" or "zst"; None is `file` itself.

    Closing the result ends what is compressed, without which it is cut off, and leaves `file` open.
    """
    if compression is None:
        return file
    if compression == "gz":
        into: Any = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP)  # the header tells no name and no time
    else:
        into = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return cast(BinaryIO, _Compressed(file, into))


def decompressed(file: BinaryIO, compression: str | None, name: str) -> BinaryIO:
    """The bytes that `file` has compressed; None is `file` itself. `name` is the file's, for messages.

    Reading raises InvalidInput where the file is cut off or damaged. Several compressed files one behind the
    other are read as one.
    """
    if compression is None:
        return file
    read = _gunzipped if compression == "gz" else _unzstandardised
    if compression == "zst":
        _zstandard()
    return cast(BinaryIO, io.BufferedReader(_Decompressed(read(file, name)), _BUFFER))


class _Compressed(io.RawIOBase):
    """Writes what a compressor makes of what is written here."""

    def __init__(self, file: BinaryIO, compressor: Any) -> None:
        self._file = file
        self._compressor = compressor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(self._compressor.compress(data))
        return len(data)

    def close(self) -> None:
        if not self.closed:
            try:
                self._file.write(self._compressor.flush())
            finally:
                super().close()

    def __del__(self) -> None:
        """Nothing: one that nobody closed is left cut off, so that what it holds does not look whole."""


class _Decompressed(io.RawIOBase):
    """A file of chunks that are made when they are read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._chunk = memoryview(chunk)
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size


def _gunzipped(file: BinaryIO, name: str) -> Iterator[bytes]:
    data = file.read(_BUFFER)
    while True:
        member = zlib.decompressobj(wbits=_GZIP)
        while not member.eof:
            if not data:
                raise _cut_off(name)
            try:
                yield member.decompress(data, _BUFFER)
            except zlib.error as error:
                raise _damaged(name, "gzip", error) from error
            data = member.unconsumed_tail or (b"" if member.eof else file.read(_BUFFER))
        data = (member.unused_data or file.read(_BUFFER)).lstrip(b"\0")  # padding is allowed behind a member
        while not data:
            data = file.read(_BUFFER)
            if not data:
                return
            data = data.lstrip(b"\0")


def _unzstandardised(file: BinaryIO, name: str) -> Iterator[bytes]:
    zstandard = _zstandard()
    decompressor = zstandard.ZstdDecompressor()
    data = file.read(_BUFFER)
    while True:
        frame = decompressor.decompressobj()
        while not frame.eof:
            if not data:
                raise _cut_off(name)
            for start in range(0, len(data), _ZSTD_STEP):
                try:
                    yield frame.decompress(data[start : start + _ZSTD_STEP])
                except zstandard.ZstdError as error:
                    raise _damaged(name, "Zstandard", error) from error
                if frame.eof:
                    data = frame.unused_data + data[start + _ZSTD_STEP :]
                    break
            else:
                data = file.read(_BUFFER)
        data = data or file.read(_BUFFER)
        if not data:
            return


def _cut_off(name: str) -> InvalidInput:
    return InvalidInput(f"{name} is cut off: what was compressed does not come to its end")


def _damaged(name: str, what: str, error: Exception) -> InvalidInput:
    return InvalidInput(f"{name} is no {what} file, or is damaged: {error}")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra('files that end in .zst need Zstandard: pip install "oneatatime[zstd]"') from error
    return zstandard
