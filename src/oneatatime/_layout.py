"""What a row of a file is: a record, an element, or a hash with columns of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import InvalidInput
from ._options import LOSSLESS
from .formats import Format

INFER = "infer"

_UNFIT = ("error", "skip", "null")
_ARROW = ("parquet", "arrow")
_FLAT = ("csv", "tsv")


@dataclass(frozen=True)
class Layout:
    """How records become rows. `columns`: {field: Arrow type} of hashes as a table, or "infer".

    `encoding`: text in place of bytes, in formats that tell the two apart. `unfit`: what is done about what
    has no place in the format: None leaves that to the format.
    """

    name: str = "records"
    encoding: str | None = None
    columns: Mapping[str, str] | str | None = None
    unfit: str | None = None

    @classmethod
    def checked(
        cls,
        *,
        flatten: bool = False,
        columns: Mapping[str, str] | str | None = None,
        encoding: str | None = None,
        unfit: str | None = None,
    ) -> Layout:
        """The layout that these arguments of `export` mean. Raises InvalidInput where they make no sense."""
        if flatten and columns is not None:
            raise InvalidInput("flatten= makes a row of each element, columns= of each hash: choose one")
        if isinstance(columns, str) and columns != INFER:
            raise InvalidInput(f"columns={columns!r}: give {{field: Arrow type}}, or {INFER!r}")
        if columns is not None and not columns:
            raise InvalidInput("columns= names no field")
        if unfit is not None and unfit not in _UNFIT:
            raise InvalidInput(f"unfit={unfit!r} must be one of {', '.join(_UNFIT)}")
        name = "columns" if columns is not None else "elements" if flatten else "records"
        return cls(name, encoding, columns, unfit)

    def of(self, format: Format) -> Layout:  # noqa: A002 - the word for it
        """The layout in this format. Raises InvalidInput where the format has no such thing."""
        if format.name in _FLAT and self.name == "records":
            return Layout("elements", self.encoding, None, self.unfit).of(format)
        if self.name != "records" and format.name not in (*_ARROW, *_FLAT):
            raise InvalidInput(
                f"{format.name} holds whole records: elements and columns are of Parquet and Arrow"
            )
        if self.name == "columns" and format.name in _FLAT:
            raise InvalidInput(f"{format.name} has the layout of elements alone: take Parquet for columns")
        if self.encoding is not None and format.name not in _ARROW:
            raise InvalidInput(
                f"encoding= is of Parquet and Arrow: {format.name} tells text from bytes by itself"
            )
        if self.encoding is not None and self.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
            raise InvalidInput(f"encoding={self.encoding!r}: columns of text are UTF-8")
        if self.unfit is not None and self.unfit not in self._choices(format):
            raise InvalidInput(
                f"unfit={self.unfit!r}: here it may be {' or '.join(map(repr, self._choices(format)))}"
            )
        return self

    def _choices(self, format: Format) -> tuple[str, ...]:  # noqa: A002
        """What can be done about what does not fit: a value its column, a record the format."""
        return ("error", "null") if self.name == "columns" else ("error", "skip")

    def asked(self, format: Format) -> dict[str, Any]:  # noqa: A002
        """The arguments of `stream` that bring what this layout holds."""
        if self.name == "columns":
            return {"fields": list(self.columns or ()), "encoding": self.encoding}
        asked: dict[str, Any] = {"metadata": LOSSLESS, "encoding": self.encoding}
        if format.name == "dump":
            asked["dump"] = True
        return asked

    def how(self, format: Format, *, several: bool) -> dict[str, Any]:  # noqa: A002
        """The arguments of a format's writer that mean this. `several` databases may be written."""
        given: dict[str, Any] = {"encoding": self.encoding, "columns": self.columns}
        if self.name == "columns":
            given["beside"] = ["db"] if several else []
        if self.name == "columns" or format.name in _FLAT:  # of others a stream tells what is no text
            given["unfit"] = self.unfit
        how = {name: value for name, value in given.items() if value is not None}
        return how if self.name == "records" else {"layout": self.name, **how}
