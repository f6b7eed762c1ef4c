"""Records as files, and back: which formats there are.

Each is a file of this folder, imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from .._errors import InvalidInput, closest
from ._compression import compressed as compressed
from ._compression import decompressed as decompressed
from ._format import Reader as Reader
from ._format import Writer as Writer

if TYPE_CHECKING:
    from ._table import Inference


class _Kind(NamedTuple):
    """What is known of a format before its file is imported.

    `layout` is the only one that it has, or None where its writer knows more, and knows what else it is told.
    """

    title: str
    module: str
    endings: tuple[str, ...]
    lossless: bool = True
    layout: str | None = "records"
    compressible: bool = True


_KINDS = {
    "jsonl": _Kind("JSON lines", "jsonl", (".jsonl", ".ndjson")),
    "dump": _Kind("a dump", "dump", (".dump", ".resp")),
    "parquet": _Kind("Parquet", "parquet", (".parquet",), layout=None, compressible=False),
    "arrow": _Kind("Arrow IPC", "arrow", (".arrow", ".feather"), layout=None, compressible=False),
    "csv": _Kind("CSV", "csv", (".csv",), lossless=False, layout="elements"),
    "tsv": _Kind("TSV", "csv", (".tsv",), lossless=False, layout="elements"),
}
_COMPRESSIONS = ("gz", "zst")


class Format(NamedTuple):
    """How a file is written: the `name` of the format, and how it is compressed ("gz", "zst", None: not)."""

    name: str
    compression: str | None = None

    @property
    def lossless(self) -> bool:
        """Whether what is written can be read back, with nothing missing."""
        return _KINDS[self.name].lossless

    @property
    def title(self) -> str:
        """What it is asked for by: "jsonl.zst"."""
        return self.name + (f".{self.compression}" if self.compression else "")

    @property
    def extension(self) -> str:
        """What names of such files end with: ".jsonl.zst"."""
        return _KINDS[self.name].endings[0] + (f".{self.compression}" if self.compression else "")


def format_of(name: str, given: str | None = None) -> Format:
    """The format of a file of this `name`, by its ending, or the one that was `given`: "jsonl", "jsonl.zst".

    >>> format_of("keys.jsonl.zst")
    Format(name='jsonl', compression='zst')
    >>> format_of("keys.gz", "csv").extension
    '.csv.gz'
    """
    stem, compression = _without_compression(name.lower())
    if given is None:
        ending = "".join(stem.replace("\\", "/").rpartition("/")[2].rpartition(".")[1:])
        known = next((kind for kind in _KINDS if ending in _KINDS[kind].endings), None)
        if known is None:
            raise InvalidInput(f"{name!r} does not end like a format that is known: {_what_there_is()}")
    else:
        stem, asked = _without_compression(given.lower().lstrip("."))
        known = next((kind for kind in _KINDS if f".{stem}" in (f".{kind}", *_KINDS[kind].endings)), None)
        if known is None:
            near = closest(stem, _KINDS)
            meant = f"; did you mean {near!r}?" if near else ""
            raise InvalidInput(f"there is no format {given!r}{meant} There is {_what_there_is()}")
        compression = asked or compression
    if compression and not _KINDS[known].compressible:
        title, ending = _KINDS[known].title, _KINDS[known].endings[0]
        raise InvalidInput(
            f"{title} compresses inside: let {name!r} end with {ending}, without .{compression}"
        )
    return Format(known, compression)


def writer(format: Format, file: BinaryIO, **how: Any) -> Writer:  # noqa: A002
    """What writes records of a format into an open file, which is what `compressed` gives where it says so.

    `how`, where it is not None, is for the writer: `layout` ("records", "elements"); `unfit` of CSV ("error",
    "skip"); of Parquet and Arrow more.
    """
    kind = _KINDS[format.name]
    how = {name: wish for name, wish in how.items() if wish is not None}
    if kind.layout is not None:
        layout = how.pop("layout", kind.layout)
        if layout != kind.layout:
            raise InvalidInput(f"{kind.title} has no layout {layout!r}, only {kind.layout!r}")
        unknown = sorted(set(how) - {"unfit"})
        if unknown:
            raise InvalidInput(f"{kind.title} has no {', '.join(unknown)}: that is for Parquet and Arrow")
        if kind.lossless:
            how.pop("unfit", None)  # everything fits
    if format.name == "tsv":
        how["delimiter"] = "\t"
    found: Writer = _module(format).Writer(file, **how)
    return found


def reader(format: Format, file: BinaryIO, name: str) -> Reader:  # noqa: A002
    """What reads records of a format from an open file; `name` is the file's, for messages."""
    kind = _KINDS[format.name]
    if not kind.lossless:
        raise InvalidInput(f"{name}: {kind.title} cannot be read back, because it does not hold everything")
    found: Reader = _module(format).Reader(file, name)
    return found


def inference() -> Inference:
    """What finds out the columns that hashes seem to have, {field: Arrow type}, as they come."""
    from ._table import Inference

    return Inference()


def _module(format: Format) -> Any:  # noqa: A002
    return import_module(f".{_KINDS[format.name].module}", __name__)


def _without_compression(name: str) -> tuple[str, str | None]:
    stem, dot, ending = name.rpartition(".")
    return (stem, ending) if dot and ending in _COMPRESSIONS else (name, None)


def _what_there_is() -> str:
    endings = [f"{kind.title} ({', '.join(kind.endings)})" for kind in _KINDS.values()]
    return f"{', '.join(endings)}; .gz or .zst may follow, but not after Parquet and Arrow"
