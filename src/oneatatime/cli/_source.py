"""The options that the commands share: which server, which keys, how much to say."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

if TYPE_CHECKING:
    from .. import TLS, Endpoint

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Choices = tuple[str, ...]

_DEFAULT_URL = "redis://localhost"


@dataclass(frozen=True)
class Source:
    """How to reach the server, as the command line says it."""

    url_argument: str | None
    url: str | None
    host: str | None
    port: int | None
    socket: str | None
    password: str | None
    user: str | None
    askpass: bool
    db: int | None
    tls: bool
    cacert: str | None
    cert: str | None
    key: str | None
    sni: str | None
    insecure: bool

    def endpoint(self, *, quiet: bool = False) -> Endpoint:
        """The endpoint meant by flags and environment: a flag wins, then the environment, then localhost.

        Raises click.UsageError for flags that exclude each other and InvalidInput for a bad URL.
        """
        from .. import Endpoint

        given = self._given_url()
        where = Endpoint.of(given or self._default_url())
        if self.socket is not None:
            where = replace(where, path=self.socket)
        elif self.host is not None or self.port is not None:
            where = replace(where, host=self.host or where.host, port=self.port or where.port)
        if not quiet and (self.password or (given is not None and where.password)):
            click.echo(
                "Warning: a password on the command line can be seen by others on this machine; "
                "REDISCLI_AUTH or --askpass are safer.",
                err=True,
            )
        where = replace(
            where,
            db=where.db if self.db is None else self.db,
            username=self.user or where.username,
            password=self._password(where.password),
        )
        return self._encrypted(where)

    def _given_url(self) -> str | None:
        if self.url_argument is not None and self.url is not None:
            raise click.UsageError("give the URL once: as the argument or with --url")
        given = self.url_argument or self.url
        if given is not None and not (self.host is None and self.port is None and self.socket is None):
            raise click.UsageError("give a URL, or --host, --port or --socket, not both")
        if self.socket is not None and not (self.host is None and self.port is None):
            raise click.UsageError("give --socket, or --host and --port, not both")
        return given

    def _default_url(self) -> str:
        if not (self.host is None and self.port is None and self.socket is None):
            return _DEFAULT_URL  # the flags name the server: the environment's is another one
        return os.environ.get("REDIS_URL") or os.environ.get("VALKEY_URL") or _DEFAULT_URL

    def _password(self, from_url: str | None) -> str | None:
        if self.askpass:
            return str(click.prompt("Password", hide_input=True, err=True))
        if self.password is not None:
            return self.password
        # a user without a password logs in with an empty one: never as somebody else
        nobody = None if self.user is None and from_url is None else ""
        return from_url or os.environ.get("REDISCLI_AUTH") or nobody

    def _encrypted(self, where: Endpoint) -> Endpoint:
        flags = (self.cacert, self.cert, self.key, self.sni)
        if not (self.tls or self.insecure or any(flags)):
            return where
        if where.path is not None:
            raise click.UsageError("TLS is for connections over the network, not for a socket file")
        if (self.cert is None) != (self.key is None):
            raise click.UsageError("--cert and --key belong together")
        return replace(where, tls=self._tls(where.tls))

    def _tls(self, from_url: TLS | None) -> TLS:
        from .. import TLS

        tls = from_url or TLS()
        if self.cacert is not None:
            tls = replace(tls, ca_certs=self.cacert)
        if self.cert is not None:
            tls = replace(tls, certfile=self.cert, keyfile=self.key)
        if self.sni is not None:
            tls = replace(tls, server_hostname=self.sni)
        if self.insecure:
            tls = replace(tls, verify="none", check_hostname=False)
        return tls


@dataclass(frozen=True)
class Chosen:
    """Which keys to read, as the command line says it."""

    match: str | None
    types: _Choices
    count: int | None
    limit: int | None
    rate: float | None
    bandwidth: float | None
    max_load: float | None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `oneatatime.stream` that choose these keys."""
        from .. import Options

        count = self.count or Options().count
        if self.limit is not None and self.match is None and not self.types:
            count = min(count, self.limit)  # read no more than is wanted; where few match, it takes many
        return {
            "match": None if self.match is None else os.fsencode(self.match),  # the bytes that were typed
            "types": self.types or None,
            "count": count,
            "rate": self.rate,
            "bandwidth": self.bandwidth,
            "max_load": self.max_load,
        }


def several(_: click.Context, __: click.Parameter, values: _Choices) -> _Choices:
    """Repeated and comma-separated values of an option as one tuple."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


class _Bytes(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4 only
    """A number of bytes, with a unit or without."""

    name = "size"
    _UNITS: ClassVar = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?i?)b?", str(value).strip().lower())
        if found is None or found[2] not in self._UNITS or not float(found[1]):
            self.fail(f"{value!r} is no number of bytes above 0, such as 500k, 10MB or 8MiB", param, ctx)
        return float(found[1]) * float(self._UNITS[found[2]])


_SOURCE_OPTIONS = (
    click.argument("url_argument", metavar="[URL]", required=False),
    click.option("-u", "--url", metavar="URL", help="redis://, rediss://, valkey://, valkeys:// or unix://."),
    click.option("-h", "--host", metavar="NAME", help="Server name.  [default: localhost]"),
    click.option(
        "-p", "--port", type=click.IntRange(1, 65535), metavar="N", help="Server port.  [default: 6379]"
    ),
    click.option("-s", "--socket", metavar="PATH", help="Unix socket of the server."),
    click.option("-a", "--password", metavar="TEXT", help="Password. $REDISCLI_AUTH is safer."),
    click.option("--user", metavar="NAME", help="ACL user."),
    click.option("--askpass", is_flag=True, help="Ask for the password."),
    click.option("-n", "--db", type=click.IntRange(0), metavar="N", help="Database number.  [default: 0]"),
    click.option("--tls", is_flag=True, help="Connect with TLS. The options below imply it."),
    click.option("--cacert", metavar="FILE", help="Authorities to trust in place of the system's."),
    click.option("--cert", metavar="FILE", help="Certificate to show to the server."),
    click.option("--key", metavar="FILE", help="Private key of --cert."),
    click.option("--sni", metavar="NAME", help="Name to ask for, and to check the certificate against."),
    click.option("--insecure", is_flag=True, help="Trust any certificate."),
)
_CHOICE_OPTIONS = (
    click.option("--match", "--pattern", "match", metavar="GLOB", help="Only keys that match, as in SCAN."),
    click.option(
        "--type",
        "types",
        metavar="TYPE",
        multiple=True,
        callback=several,
        help="Only keys of this type: string, hash, list, set, zset, stream, json, or a module's own name. "
        "Repeat it, or separate by commas.",
    ),
    click.option("--count", type=click.IntRange(1), metavar="N", help="Keys asked of the server at a time."),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N keys."),
    click.option(
        "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="At most N keys a second."
    ),
    click.option(
        "--bandwidth", type=_Bytes(), metavar="SIZE", help="At most so many bytes a second: 500k, 10MB, 8MiB."
    ),
    click.option(
        "--max-load",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="SHARE",
        help="At most this share of the server's time, above 0 and up to 1.",
    ),
)
_TALK_OPTIONS = (
    click.option(
        "--progress/--no-progress",
        default=None,
        help="Show a progress bar on stderr.  [default: when stderr is a terminal]",
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress, no warnings, no last line on stderr."),
)


def source_options(command: _Command) -> _Command:
    """Give `command` the connection options, as one argument `source`."""
    return _collecting(command, "source", Source, _SOURCE_OPTIONS)


def choice_options(command: _Command) -> _Command:
    """Give `command` the options that choose keys, as one argument `chosen`."""
    return _collecting(command, "chosen", Chosen, _CHOICE_OPTIONS)


def talk_options(command: _Command) -> _Command:
    """Give `command` the arguments `progress` (None: decide by the terminal) and `quiet`."""
    for option in reversed(_TALK_OPTIONS):
        command = option(command)
    return command


def _collecting(command: _Command, name: str, kind: type[Any], options: tuple[Any, ...]) -> _Command:
    """`command` with `options` added; it receives them as one `kind`, not one by one."""

    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        values = {field.name: arguments.pop(field.name) for field in fields(kind)}
        return command(**arguments, **{name: kind(**values)})

    for option in reversed(options):
        collected = option(collected)
    return collected  # type: ignore[return-value]
