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
    from .. import TLS, Deployment, Endpoint

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Choices = tuple[str, ...]

_DEFAULT_URL = "redis://localhost"
_UNIQUE = ("memory", "disk")


@dataclass(frozen=True)
class Source:
    """How to reach the server or servers, as the command line says it."""

    url_argument: str | None
    url: str | None
    host: str | None
    port: int | None
    socket: str | None
    password: str | None
    user: str | None
    askpass: bool
    db: int | str | None
    tls: bool
    cacert: str | None
    cert: str | None
    key: str | None
    sni: str | None
    insecure: bool

    @property
    def all_dbs(self) -> bool:
        """Whether all databases are wanted."""
        return self.db == "all"

    def endpoint(self, *, quiet: bool = False) -> Endpoint | Deployment:
        """What flags and environment mean: a flag wins, then the environment, then localhost.

        The endpoint of one server. A cluster and a service of Sentinel are named by a URL alone; flags say
        then how their data nodes are reached, and those for TLS how Sentinels are, too.

        Raises click.UsageError for flags that exclude each other and InvalidInput for a bad URL.
        """
        from .. import Deployment

        given = self._given_url()
        deployment = Deployment.of(given or self._default_url())
        ends = (deployment.login, *deployment.seeds)
        if not quiet and (self.password or (given is not None and any(end.password for end in ends))):
            click.echo(
                "Warning: a password on the command line can be seen by others on this machine; "
                "REDISCLI_AUTH or --askpass are safer.",
                err=True,
            )
        login = self._encrypted(self._logged_in(self._placed(deployment.login)))
        if deployment.kind == "server":
            return login
        if deployment.kind == "sentinel":
            seeds = [self._encrypted(seed) for seed in deployment.seeds]
        else:
            seeds = [replace(login, host=seed.host, port=seed.port) for seed in deployment.seeds]
        return replace(deployment, login=login, seeds=tuple(seeds))

    def _placed(self, where: Endpoint) -> Endpoint:
        if self.socket is not None:
            return replace(where, path=self.socket)
        if self.host is not None or self.port is not None:
            return replace(where, host=self.host or where.host, port=self.port or where.port)
        return where

    def _logged_in(self, where: Endpoint) -> Endpoint:
        return replace(
            where,
            db=self.db if isinstance(self.db, int) else where.db,
            username=self.user or where.username,
            password=self._password(where.password),
        )

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


@dataclass(frozen=True)
class Care:
    """What shall be done that nothing is missed or comes twice, as the command line says it."""

    checkpoint: str | None
    unique: str | None
    on_unreachable: str | None
    patience: float
    read_from: str | None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `oneatatime.stream` that mean this."""
        from .. import Options

        return {
            "unique": self.unique or False,
            "on_unreachable": self.on_unreachable,
            "read_from": self.read_from,
            "options": Options(patience=self.patience),
        }


class Command(click.Command):
    """A command with an option that may stand alone: `--unique` means `--unique=memory`.

    click would take the word after it, which may be a URL, for its value.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments, with what stands alone completed."""
        end = args.index("--") if "--" in args else len(args)
        for place, word in enumerate(args[:end]):
            if word == "--unique" and (place + 1 == end or args[place + 1] not in _UNIQUE):
                args[place] = f"--unique={_UNIQUE[0]}"
        return super().parse_args(ctx, args)


def several(_: click.Context, __: click.Parameter, values: _Choices) -> _Choices:
    """Repeated and comma-separated values of an option as one tuple."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


class _Database(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4 only
    """The number of a database, or all of them."""

    name = "database"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "all":
            return "all"
        return int(click.IntRange(0).convert(value, param, ctx))


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4 only
    """A number of bytes, with a unit or without."""

    name = "size"
    _UNITS: ClassVar = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?i?)b?", str(value).strip().lower())
        if found is None or found[2] not in self._UNITS or not float(found[1]):
            self.fail(f"{value!r} is no number of bytes above 0, such as 500k, 10MB or 8MiB", param, ctx)
        return float(found[1]) * float(self._UNITS[found[2]])


_SOURCE_DB = click.option(
    "-n", "--db", type=_Database(), metavar="N|all", help="Database number, or all.  [default: 0]"
)
_TARGET_DB = click.option(
    "-n", "db", type=click.IntRange(0), metavar="N", help="Database for records of none.  [default: 0]"
)
_SOURCE_OPTIONS = (
    click.argument("url_argument", metavar="[URL]", required=False),
    click.option(
        "-u",
        "--url",
        metavar="URL",
        help="redis://, rediss://, valkey://, valkeys://, unix://, redis+cluster:// or redis+sentinel://.",
    ),
    click.option("-h", "--host", metavar="NAME", help="Server name.  [default: localhost]"),
    click.option(
        "-p", "--port", type=click.IntRange(1, 65535), metavar="N", help="Server port.  [default: 6379]"
    ),
    click.option("-s", "--socket", metavar="PATH", help="Unix socket of the server."),
    click.option("-a", "--password", metavar="TEXT", help="Password. $REDISCLI_AUTH is safer."),
    click.option("--user", metavar="NAME", help="ACL user."),
    click.option("--askpass", is_flag=True, help="Ask for the password."),
    _SOURCE_DB,
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
        "--bandwidth", type=Size(), metavar="SIZE", help="At most so many bytes a second: 500k, 10MB, 8MiB."
    ),
    click.option(
        "--max-load",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="SHARE",
        help="At most this share of the server's time, above 0 and up to 1.",
    ),
)
_CARE_OPTIONS = (
    click.option(
        "--unique",
        type=click.Choice(_UNIQUE),
        metavar="[memory|disk]",
        help="Each key exactly once; what was delivered is remembered in memory, or on disk.",
    ),
    click.option(
        "--checkpoint",
        metavar="FILE",
        help="Keep in FILE what is done, and go on from there if FILE is there: append the output with >>.",
    ),
    click.option(
        "--on-unreachable",
        type=click.Choice(("wait", "fail", "skip")),
        help="What to do about a server that is gone.  [default: wait]",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        default=60.0,
        show_default="60",
        help="How long to wait for it.",
    ),
    click.option(
        "--read-from",
        type=click.Choice(("primary", "replica")),
        help="Read from primaries or from replicas that are in sync.  [default: primary]",
    ),
)
_CARES = ("unique", "checkpoint", "on_unreachable", "patience", "read_from")
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


def target_options(command: _Command) -> _Command:
    """The same for a command that writes there: its --db chooses records, and -n alone the database."""
    options = tuple(_TARGET_DB if option is _SOURCE_DB else option for option in _SOURCE_OPTIONS)
    return _collecting(command, "source", Source, options)


def choice_options(command: _Command) -> _Command:
    """Give `command` the options that choose keys, as one argument `chosen`."""
    return _collecting(command, "chosen", Chosen, _CHOICE_OPTIONS)


def care_options(command: _Command) -> _Command:
    """Give `command` the options that say what is done about crashes and doubles, as one argument `care`."""
    return _collecting(command, "care", Care, _CARE_OPTIONS)


def care_options_but_checkpoint(command: _Command) -> _Command:
    """The same for a command whose output itself says how far it is."""
    options = tuple(option for name, option in zip(_CARES, _CARE_OPTIONS) if name != "checkpoint")
    return _collecting(command, "care", Care, options)


def talk_options(command: _Command) -> _Command:
    """Give `command` the arguments `progress` (None: decide by the terminal) and `quiet`."""
    for option in reversed(_TALK_OPTIONS):
        command = option(command)
    return command


def _collecting(command: _Command, name: str, kind: type[Any], options: tuple[Any, ...]) -> _Command:
    """`command` with `options` added; it receives them as one `kind`, not one by one."""

    @functools.wraps(command)
    def collected(**arguments: Any) -> Any:
        values = {field.name: arguments.pop(field.name, None) for field in fields(kind)}
        return command(**arguments, **{name: kind(**values)})

    for option in reversed(options):
        collected = option(collected)
    return collected  # type: ignore[return-value]
