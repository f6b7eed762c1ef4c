"""Everything that can go wrong, as one tree.

    Error
    ├── InvalidInput           an argument, URL, option or type name makes no sense (a ValueError)
    ├── MissingExtra           an optional package is needed and not installed (an ImportError)
    ├── Unreachable            no connection came about: refused, unknown host, too slow, TLS
    ├── AccessDenied
    │   ├── AuthenticationFailed   the server does not accept this user and password
    │   └── PermissionDenied       the user may not run a command or read a key
    ├── ConnectionLost         an open connection ended before its replies had come
    │   └── ReplyTimeout           the server was silent for longer than allowed
    ├── ProtocolViolation      what came is not a Redis reply, or not one that fits the question
    ├── ServerFailure          the server answered with an error of its own
    │   ├── ServerUnready          it cannot answer now, and may later
    │   │   └── ServerLoading          it is still reading its data from disk
    │   └── ValueGone              a big value was gone before it was loaded
    ├── Incomplete             something could not be read to its end; it says what
    │   └── PlanOutdated           a partition was cut for a server process that is gone: plan again
    ├── FileFailure            a file cannot be written, read or renamed; it says which, and why
    ├── ProcessLost            a process of our own was killed, or could not be started
    ├── Undecodable            a key or value is not text in the encoding asked for (a ValueError)
    └── StreamClosed           the stream was closed before this was asked of it

Every error says what happened and what to do, and carries where: `node`, `key`, `command`.
All are picklable, because engines send them between processes, and none holds a password.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST_KEY_SHOWN = 80


class Error(Exception):
    """Base of all errors of oneatatime.

    `message` says what happened; `node` (which server), `key` (which key, whole) and `command`
    (which Redis command) say where, each None when it does not apply.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str | None = None,
        key: bytes | str | None = None,
        command: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self.key = key
        self.command = command

    def __str__(self) -> str:
        where = []
        if self.node is not None:
            where.append(f"node {self.node}")
        if self.key is not None:
            where.append(f"key {_short(self.key)}")
        if self.command is not None:
            where.append(f"command {self.command}")
        return f"{self.message} [{', '.join(where)}]" if where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (type(self), self.message, self.node, self.key, self.command))


class InvalidInput(Error, ValueError):
    """An argument, URL, option or type name makes no sense; nothing was sent."""


class MissingExtra(Error, ImportError):
    """An optional package is needed for this; the message holds the pip line that installs it."""


class Unreachable(Error):
    """No connection came about: refused, unknown host, too slow, or TLS not trusted."""


class AccessDenied(Error):
    """The server knows what we want and does not allow it. Never retried."""


class AuthenticationFailed(AccessDenied):
    """The server does not accept this user and password, or asks for one and has none."""


class PermissionDenied(AccessDenied):
    """The user may not run `command`, or may not read `key`."""


class ConnectionLost(Error):
    """An open connection ended before the replies it owed had come."""


class ReplyTimeout(ConnectionLost):
    """The server sent nothing for longer than `Options.timeout` while it owed a reply."""


class ProtocolViolation(Error):
    """What came is not RESP, or not a reply that fits the question: not a Redis, or a broken one."""


class ServerFailure(Error):
    """The server answered with an error of its own; the message quotes it."""


class ServerUnready(ServerFailure):
    """The server cannot answer now and may later: its cluster is down, its primary gone, a script runs."""


class ServerLoading(ServerUnready):
    """The server is still reading its data from disk and answers nothing yet."""


class ValueGone(ServerFailure):
    """A big value is gone: its key was deleted, has expired, or holds another type by now."""


class Incomplete(Error):
    """The iteration could not be brought to its end. `missing` names what was not read, a few words each.

    What stands there may have been delivered in part; all else was delivered.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str | None = None,
        key: bytes | str | None = None,
        command: str | None = None,
        missing: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, node=node, key=key, command=command)
        self.missing = missing

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _rebuilt_incomplete,
            (type(self), self.message, self.node, self.key, self.command, self.missing),
        )


class PlanOutdated(Incomplete):
    """A partition means nothing any more: it was cut for a server process that is gone. Plan again."""


class FileFailure(Error):
    """A file cannot be written, read or renamed: the message names it, and quotes the system."""


class ProcessLost(Error):
    """A process of our own was killed or ended before its work was done, or could not be started."""


class Undecodable(Error, ValueError):
    """A key or value is not text in the encoding asked for; the stream can go on after it."""


class StreamClosed(Error):
    """The stream was closed before this was asked of it."""


_MISFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What Python raises over a reply that is valid RESP and nothing that the command asked for could give."""


@contextmanager
def fitting(node: str) -> Iterator[None]:
    """Where replies are taken apart: one that does not fit the question is a ProtocolViolation."""
    try:
        yield
    except Error:
        raise
    except _MISFIT as error:
        raise ProtocolViolation(f"a reply does not fit the question: {error!r}", node=node) from error


def _short(key: bytes | str) -> str:
    shown = repr(key[:_LONGEST_KEY_SHOWN])
    return shown if len(key) <= _LONGEST_KEY_SHOWN else f"{shown}... ({len(key)} long)"


def _rebuilt(
    kind: type[Error],
    message: str,
    node: str | None,
    key: bytes | str | None,
    command: str | None,
) -> Error:
    return kind(message, node=node, key=key, command=command)


def _rebuilt_incomplete(
    kind: type[Incomplete],
    message: str,
    node: str | None,
    key: bytes | str | None,
    command: str | None,
    missing: tuple[str, ...],
) -> Incomplete:
    return kind(message, node=node, key=key, command=command, missing=missing)


def closest(name: str, known: Iterable[str]) -> str | None:
    """What somebody may have meant who wrote `name`."""
    import difflib  # only for messages: an import that is not needed should not take time

    near = difflib.get_close_matches(name, list(known), n=1)
    return near[0] if near else None


def portable(error: Exception) -> Exception:
    """An error as it can come from another process: itself, or its words where it is not made for that."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error, 5))
    except Exception:  # noqa: BLE001 - other people's errors may be made anyhow
        return Error(f"{type(error).__name__}: {error}")
    return error
