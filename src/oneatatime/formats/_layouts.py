"""Which layout a name means, and whether what was asked for fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._errors import InvalidInput
from ._elements import Elements
from ._layout import Layout
from ._records import Records
from ._schema import LAYOUTS, UNFIT, is_text
from ._table import BESIDE, Columns


def layout_of(
    name: str,
    *,
    encoding: str | None = None,
    columns: Mapping[str, str] | None = None,
    unfit: str = "null",
    beside: Sequence[str] = BESIDE,
) -> Layout:
    """A new layout. Raises InvalidInput for what makes no sense."""
    text = is_text(encoding)
    if name not in LAYOUTS:
        raise InvalidInput(f"layout={name!r} must be one of {', '.join(map(repr, LAYOUTS))}")
    if unfit not in UNFIT:
        raise InvalidInput(f"unfit={unfit!r} must be one of {', '.join(map(repr, UNFIT))}")
    if (columns is not None) != (name == "columns"):
        raise InvalidInput('columns= and layout="columns" belong together: a name and a type for each field')
    if columns is not None:
        return Columns(columns, text=text, unfit=unfit, beside=beside)
    return Records(text) if name == "records" else Elements(text)
