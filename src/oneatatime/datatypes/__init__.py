"""Redis's types, one file each: how small values are read, how big ones are read in parts.

A new type is a new file and a line in `_KNOWN`. Types without one are delivered as `Opaque`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._loop import made
from .._record import Batch
from . import details as details
from ._datatype import WHOLE as WHOLE
from ._datatype import Datatype as Datatype
from ._datatype import Odd as Odd
from ._datatype import OddRows as OddRows
from ._datatype import Steps as Steps
from ._datatype import Text as Text
from ._written import MOST_ELEMENTS as MOST_ELEMENTS
from ._written import NOTHING as NOTHING
from ._written import together as together
from ._written import words as words
from .hash import Hash
from .hash import SomeFields as SomeFields
from .json import Json
from .list import List
from .opaque import AnyDump as AnyDump
from .opaque import OpaqueType
from .set import Set
from .stream import StreamLog
from .string import SMALL as SMALL
from .string import String
from .zset import SortedSet

STRING = String()

_KNOWN: dict[str, Datatype] = {
    datatype.name: datatype for datatype in (STRING, Hash(), List(), Set(), SortedSet(), StreamLog(), Json())
}


def values_of(batch: Batch) -> Iterable[Any]:
    """The values of a batch, made one at a time as they are asked for."""
    if not batch.raw:
        return batch.values
    if isinstance(batch.types, str):
        return map(datatype(batch.types).made, batch.values)
    return map(made, map(_MAKERS.get, batch.types), batch.values)


_MAKERS = {name: kind.made for name, kind in _KNOWN.items() if not kind.plain}


def datatype(name: str) -> Datatype:
    """The datatype that TYPE calls `name`: always one, `Opaque` when there is no better."""
    return _KNOWN.get(name) or _KNOWN.setdefault(name, OpaqueType(name))
