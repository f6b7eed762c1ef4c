"""One at a time in your loop, thousands at a time on the wire.

`stream(source)` goes through every key and value of a Redis or Valkey database with a plain `async for`;
`OneAtATime(redis, keys)` through the values of given keys, in their order.
"""

# General layout: this is the only door. Rooms with a leading underscore are private; each imports only
# rooms that stand above it in the list of docs/design.md, which tests/test_layers.py checks. `server`
# is public and imported by itself, so that `import oneatatime` stays quick.

import importlib
import logging
import typing

from ._deployment import Deployment as Deployment
from ._endpoint import TLS as TLS
from ._endpoint import Endpoint as Endpoint
from ._errors import AccessDenied as AccessDenied
from ._errors import AuthenticationFailed as AuthenticationFailed
from ._errors import ConnectionLost as ConnectionLost
from ._errors import Error as Error
from ._errors import FileFailure as FileFailure
from ._errors import Incomplete as Incomplete
from ._errors import InvalidInput as InvalidInput
from ._errors import MissingExtra as MissingExtra
from ._errors import PermissionDenied as PermissionDenied
from ._errors import PlanOutdated as PlanOutdated
from ._errors import ProcessLost as ProcessLost
from ._errors import ProtocolViolation as ProtocolViolation
from ._errors import ReplyTimeout as ReplyTimeout
from ._errors import ServerFailure as ServerFailure
from ._errors import ServerLoading as ServerLoading
from ._errors import ServerUnready as ServerUnready
from ._errors import StreamClosed as StreamClosed
from ._errors import Undecodable as Undecodable
from ._errors import Unreachable as Unreachable
from ._errors import ValueGone as ValueGone
from ._options import LOSSLESS as LOSSLESS
from ._options import Options as Options
from ._partition import Partition as Partition
from ._record import Group as Group
from ._record import Opaque as Opaque
from ._record import Parts as Parts
from ._record import Pending as Pending
from ._record import Record as Record
from ._record import RepeatedFields as RepeatedFields
from ._record import StreamDetails as StreamDetails
from ._statistics import Statistics as Statistics
from ._stream import OneAtATime as OneAtATime
from ._stream import Stream as Stream
from ._stream import stream as stream
from ._version import __version__ as __version__

if typing.TYPE_CHECKING:
    from ._export import Export as Export
    from ._export import Exported as Exported
    from ._export import export as export
    from ._frames import ArrowStream as ArrowStream
    from ._import import Import as Import
    from ._import import Loaded as Loaded
    from ._import import load as load
    from ._manifest import Verified as Verified
    from ._manifest import verify as verify
    from ._plan import aplan as aplan
    from ._plan import plan as plan
    from ._polars import polars_scan as polars_scan

__all__ = (
    "LOSSLESS",
    "TLS",
    "AccessDenied",
    "ArrowStream",
    "AuthenticationFailed",
    "ConnectionLost",
    "Deployment",
    "Endpoint",
    "Error",
    "Export",
    "Exported",
    "FileFailure",
    "Group",
    "Import",
    "Incomplete",
    "InvalidInput",
    "Loaded",
    "MissingExtra",
    "OneAtATime",
    "Opaque",
    "Options",
    "Partition",
    "Parts",
    "Pending",
    "PermissionDenied",
    "PlanOutdated",
    "ProcessLost",
    "ProtocolViolation",
    "Record",
    "RepeatedFields",
    "ReplyTimeout",
    "ServerFailure",
    "ServerLoading",
    "ServerUnready",
    "Statistics",
    "Stream",
    "StreamClosed",
    "StreamDetails",
    "Undecodable",
    "Unreachable",
    "ValueGone",
    "Verified",
    "aplan",
    "export",
    "load",
    "plan",
    "polars_scan",
    "stream",
    "verify",
)

logging.getLogger("oneatatime").addHandler(logging.NullHandler())

_LATER = {
    "ArrowStream": "_frames",
    "Export": "_export",
    "Exported": "_export",
    "Import": "_import",
    "Loaded": "_import",
    "Verified": "_manifest",
    "aplan": "_plan",
    "export": "_export",
    "load": "_import",
    "plan": "_plan",
    "polars_scan": "_polars",
    "verify": "_manifest",
}
"""Names that few programs use, and their rooms: imported when they are asked for, so that no start waits."""


def __getattr__(name: str) -> typing.Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    found.__module__ = __name__
    globals()[name] = found
    return found


for _name in sorted({*__all__} - {"LOSSLESS", *_LATER}):
    globals()[_name].__module__ = __name__  # reprs, tracebacks and docs show the public path
del _name
