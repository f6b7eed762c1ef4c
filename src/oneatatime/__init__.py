"""One at a time in your loop, thousands at a time on the wire.

`stream(source)` goes through every key and value of a Redis or Valkey database with a plain `async for`;
`OneAtATime(redis, keys)` through the values of given keys, in their order.
"""

# General layout: this is the only door. Rooms with a leading underscore are private; each imports only
# rooms that stand above it in the list of docs/design.md, which tests/test_layers.py checks. `server`
# is public and imported by itself, so that `import oneatatime` stays quick.

import logging

from ._endpoint import TLS as TLS
from ._endpoint import Endpoint as Endpoint
from ._errors import AccessDenied as AccessDenied
from ._errors import AuthenticationFailed as AuthenticationFailed
from ._errors import ConnectionLost as ConnectionLost
from ._errors import Error as Error
from ._errors import InvalidInput as InvalidInput
from ._errors import MissingExtra as MissingExtra
from ._errors import PermissionDenied as PermissionDenied
from ._errors import ProtocolViolation as ProtocolViolation
from ._errors import ReplyTimeout as ReplyTimeout
from ._errors import ServerFailure as ServerFailure
from ._errors import ServerLoading as ServerLoading
from ._errors import StreamClosed as StreamClosed
from ._errors import Undecodable as Undecodable
from ._errors import Unreachable as Unreachable
from ._flow import Statistics as Statistics
from ._options import Options as Options
from ._record import Opaque as Opaque
from ._record import Parts as Parts
from ._record import Record as Record
from ._record import RepeatedFields as RepeatedFields
from ._stream import OneAtATime as OneAtATime
from ._stream import Stream as Stream
from ._stream import stream as stream
from ._version import __version__ as __version__

__all__ = (
    "TLS",
    "AccessDenied",
    "AuthenticationFailed",
    "ConnectionLost",
    "Endpoint",
    "Error",
    "InvalidInput",
    "MissingExtra",
    "OneAtATime",
    "Opaque",
    "Options",
    "Parts",
    "PermissionDenied",
    "ProtocolViolation",
    "Record",
    "RepeatedFields",
    "ReplyTimeout",
    "ServerFailure",
    "ServerLoading",
    "Statistics",
    "Stream",
    "StreamClosed",
    "Undecodable",
    "Unreachable",
    "stream",
)

logging.getLogger("oneatatime").addHandler(logging.NullHandler())

for _name in __all__:
    globals()[_name].__module__ = __name__  # reprs, tracebacks and docs show the public path
del _name
