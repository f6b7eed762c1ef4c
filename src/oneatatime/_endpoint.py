"""How to reach one server: a URL or a client object -> `Endpoint`.

`_url` and `_client` say what was given in the same words, redis-py's; here it is checked, once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ._errors import InvalidInput
from ._url import CLUSTER_SHAPE, SHAPE, settings_of_url

if TYPE_CHECKING:
    import ssl  # at run time only where TLS is used

    from ._client import Settings  # and this only where a client is given

Credentials = Callable[[], Awaitable["tuple[str | None, str | None]"]]


@dataclass(frozen=True)
class TLS:
    """What to trust and what to show in a TLS handshake; by default chain and host name are verified.

    The names are those of redis-py's options without `ssl_`; `verify` is its `ssl_cert_reqs`. Where a
    CA is given, it is trusted *instead of* those of the system. `server_hostname` is the name that is
    asked for (SNI) and verified where it is not the endpoint's host. `minimum_version` is a number of
    `ssl.TLSVersion`. `context` is a client's own and is then all that counts.
    """

    ca_certs: str | None = None
    ca_path: str | None = None
    ca_data: str | bytes | None = field(default=None, repr=False)
    certfile: str | None = None
    keyfile: str | None = None
    key_password: str | None = field(default=None, repr=False)
    verify: str = "required"
    check_hostname: bool = True
    server_hostname: str | None = None
    minimum_version: int | None = None
    ciphers: str | None = None
    include_verify_flags: tuple[str, ...] = ()
    exclude_verify_flags: tuple[str, ...] = ()
    context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    def ssl_context(self) -> ssl.SSLContext:
        """The context for a connection; made anew at each call, so that renewed files are seen.

        Raises InvalidInput, naming the option, for a file that cannot be read or makes no sense.
        """
        if self.context is not None:
            return self.context
        import ssl

        data = self.ca_data and "..."
        with _blamed_on(ssl_ca_certs=self.ca_certs, ssl_ca_path=self.ca_path, ssl_ca_data=data):
            if self.ca_path and not os.path.isdir(self.ca_path):  # OpenSSL would not say
                raise NotADirectoryError("there is no such directory")
            # with none of the three it loads the system's
            context = ssl.create_default_context(
                cafile=self.ca_certs, capath=self.ca_path, cadata=self.ca_data
            )
        context.check_hostname = self.check_hostname and self.verify != "none"
        context.verify_mode = ssl.VerifyMode[f"CERT_{self.verify.upper()}"]
        with _blamed_on(ssl_include_verify_flags=self.include_verify_flags):
            for name in self.include_verify_flags:
                context.verify_flags |= ssl.VerifyFlags[name]
        with _blamed_on(ssl_exclude_verify_flags=self.exclude_verify_flags):
            for name in self.exclude_verify_flags:
                context.verify_flags &= ~ssl.VerifyFlags[name]
        if self.certfile or self.keyfile:
            with _blamed_on(ssl_certfile=self.certfile, ssl_keyfile=self.keyfile):
                context.load_cert_chain(self.certfile or "", self.keyfile, self._key_password)
        if self.minimum_version is not None:
            context.minimum_version = ssl.TLSVersion(self.minimum_version)
        if self.ciphers is not None:
            with _blamed_on(ssl_ciphers=self.ciphers):
                context.set_ciphers(self.ciphers)
        return context

    def _key_password(self) -> str:
        if self.key_password is None:  # OpenSSL would ask for it on the terminal, and wait
            raise InvalidInput("TLS: the key in ssl_keyfile is encrypted: give ssl_password too")
        return self.key_password

    def __getstate__(self) -> dict[str, Any]:
        if self.context is not None:
            raise InvalidInput(
                "an endpoint with an SSLContext of a client's own cannot be sent to another process: "
                "give a URL with ssl_ca_certs and the like"
            )
        return self.__dict__


@dataclass(frozen=True, repr=False)
class Endpoint:
    """How to reach one server. Hashable, comparable; picklable as far as its `tls` and `credentials` are.

    `path` (of a unix socket) wins over `host` and `port`. `credentials` is asked at every connect for
    (username, password) and wins over both. `protocol` forces RESP 2 or 3; None is 3 with a fall-back.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: TLS | None = None
    credentials: Credentials | None = field(default=None, compare=False)
    protocol: int | None = None

    def __post_init__(self) -> None:
        if "," in self.host:
            raise InvalidInput(f"there are several hosts where one is needed: for a cluster, {CLUSTER_SHAPE}")
        if not _is_host(self.host):
            raise InvalidInput(f"the host is no host name or address: {SHAPE}")
        if not 0 < self.port < 65536:
            raise InvalidInput(f"the port must be a number from 1 to 65535: {SHAPE}")
        if self.path is not None and (not self.path.strip("/") or "\0" in self.path):
            raise InvalidInput("the path is no path of a socket: write unix:///run/redis.sock")
        if self.path is not None and self.tls is not None:
            raise InvalidInput("there is no TLS over the socket of a path: give a host, or leave out TLS")
        if self.db < 0:
            raise InvalidInput("db must be a number from 0 up, as the 0 in redis://host:6379/0")
        if self.protocol not in (None, 2, 3):
            raise InvalidInput(f"protocol must be 2 or 3 (RESP2, RESP3), not {self.protocol}")

    @classmethod
    def of(cls, source: object, *, db: int | None = None) -> Endpoint:
        """The endpoint that `source` means: a URL, a client object, or an Endpoint.

        URLs are redis:// rediss:// valkey:// valkeys:// unix://, with redis-py's options; client
        objects are those of redis-py, valkey-py, coredis and valkey-glide, of one server, and stay as
        they are. `db` wins over the database that the source names.

        Raises InvalidInput for anything else, a cluster and Sentinel too.

        >>> Endpoint.of("rediss://reader:secret@redis.example/2")
        <Endpoint rediss://reader:***@redis.example:6379/2>
        """
        if isinstance(source, Endpoint):
            endpoint = source
        else:
            settings = settings_of_source(source)
            if "kind" in settings:
                raise _not_one_server(source, settings["kind"])
            endpoint = endpoint_of_settings(settings)
        return endpoint if db is None else replace(endpoint, db=_number("db", db))

    @property
    def node(self) -> str:
        """Names the server in errors and logs: `redis.example:6379`, `[::1]:6379`, `unix:/run/redis.sock`."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        if self.path is not None:
            return f"<Endpoint unix://{masked_user(self)}{self.path}?db={self.db}>"
        scheme = "rediss" if self.tls else "redis"
        return f"<Endpoint {scheme}://{masked_user(self)}{self.node}/{self.db}>"


def masked_user(endpoint: Endpoint) -> str:
    """The part of a URL that says who logs in, without anything secret: `reader:***@`."""
    if endpoint.username and endpoint.password:
        from urllib.parse import quote

        return f"{quote(endpoint.username, safe='')}:***@"
    if endpoint.password:
        return ":***@"
    # a name alone is, as often as not, a password that lacks its colon
    return "***@" if endpoint.username or endpoint.credentials else ""


@contextmanager
def _blamed_on(**options: object) -> Iterator[None]:
    """Says which options an error of `ssl` comes from: by itself it does not even name the file."""
    try:
        yield
    except InvalidInput:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:  # ssl.SSLError is an OSError
        given = ", ".join(f"{name}={value!r}" for name, value in options.items() if value)
        raise InvalidInput(f"TLS: {given} cannot be used: {error}") from error


def _is_host(host: str) -> bool:
    if not host or not host.isprintable() or re.search(r"[\s/?#@\[\]\\]", host):
        return False
    try:
        host.encode("idna")  # as a socket will, which raises no error of ours
    except UnicodeError:
        return False
    return True


# Settings, of a URL (all text) or of a client (of any type) -> Endpoint


def settings_of_source(source: object) -> Settings:
    """What a URL or a client says about one server or a deployment; InvalidInput for anything else."""
    if isinstance(source, str):
        return settings_of_url(source, [*_READ, *_READ_TLS, *_OCSP])
    from ._client import ACCEPTED, settings_of

    settings = settings_of(source)
    if settings is None:
        raise InvalidInput(
            f"a source is a URL such as redis://localhost, or {ACCEPTED}, not {type(source).__name__}"
        )
    return settings


def _not_one_server(source: object, kind: str) -> InvalidInput:
    from ._client import name_of_class

    what = "a URL" if isinstance(source, str) else name_of_class(type(source))
    of = "of a cluster" if kind == "cluster" else "of Sentinel"
    return InvalidInput(
        f"{what} {of} where one server is needed: give redis://host:6379 or a client of one node"
    )


def endpoint_of_settings(settings: Settings) -> Endpoint:
    """The endpoint that settings of one server mean; raises InvalidInput for those that make no sense."""
    given = {name: value for name, value in settings.items() if value is not None}
    endpoint = Endpoint(
        **{name: read(name, given[name]) for name, read in _READ.items() if name in given},
        credentials=given.get("credentials"),
    )
    if endpoint.username and endpoint.password is None:
        endpoint = replace(endpoint, password="")  # as in redis-py: a user that needs none logs in, too
    if given.get("tls"):
        return replace(endpoint, tls=_tls_of_settings(given))
    if any(name.startswith("ssl") for name in given):
        raise InvalidInput("options of TLS (ssl_...) without TLS: the scheme must be rediss:// or valkeys://")
    return endpoint


def _tls_of_settings(given: Settings) -> TLS:
    if any(given.get(name) not in (None, False) and _flag(name, given[name]) for name in _OCSP):
        raise InvalidInput(
            "OCSP cannot be checked here: leave out ssl_validate_ocsp and ssl_validate_ocsp_stapled"
        )
    return TLS(
        **{
            field_name: read(name, given[name])
            for name, (field_name, read) in _READ_TLS.items()
            if name in given
        },
        context=given.get("ssl_context"),
    )


def _text(name: str, value: Any) -> str | None:
    try:
        value = value.decode() if isinstance(value, bytes) else str(value)
        value.encode()
    except UnicodeError:
        # without the cause, which shows the value
        raise InvalidInput(f"{name} is not text in UTF-8") from None
    return value or None


def _path(name: str, value: Any) -> str | None:
    return _text(name, os.fspath(value))


def _number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,9}", str(value)):
        raise InvalidInput(f"{name} must be a number: {SHAPE}")
    return int(value)


def _flag(name: str, value: Any) -> bool:
    word = str(value).lower()
    if word in ("1", "t", "true", "y", "yes", "on"):
        return True
    if word in ("0", "f", "false", "n", "no", "off"):
        return False
    raise InvalidInput(f"{name}={value!r} must be true or false")


def _verify(name: str, value: Any) -> str:
    word = getattr(value, "name", str(value)).lower().removeprefix("cert_")  # ssl.CERT_NONE is "none"
    if word not in ("required", "optional", "none"):
        raise InvalidInput(f"{name}={value!r} must be required, optional or none")
    return word


def _tls_version(name: str, value: Any) -> int:
    words = {"769": 769, "770": 770, "771": 771, "772": 772, "tlsv1.2": 771, "tlsv1.3": 772}
    word = str(int(value)) if isinstance(value, int) else str(value).lower()
    if word in ("-2", "-1"):  # ssl.TLSVersion's lowest and highest that there is
        return int(word)
    if word not in words:
        raise InvalidInput(f"{name}={value!r} must be 771 (TLS 1.2) or 772 (TLS 1.3)")
    return words[word]


def _verify_flags(name: str, value: Any) -> tuple[str, ...]:
    names = value.strip("[]").split(",") if isinstance(value, str) else [each.name for each in value]
    return tuple(each.strip() for each in names if each.strip())


def _ca_data(name: str, value: Any) -> str | bytes | None:
    return value if isinstance(value, bytes) else _text(name, value)


_Read = Callable[[str, Any], Any]

_READ: dict[str, _Read] = {
    "host": lambda name, value: _text(name, value) or "",
    "port": _number,
    "path": _path,
    "db": _number,
    "username": _text,
    "password": _text,
    "protocol": _number,
}

_READ_TLS: dict[str, tuple[str, _Read]] = {
    "ssl_ca_certs": ("ca_certs", _path),
    "ssl_ca_path": ("ca_path", _path),
    "ssl_ca_data": ("ca_data", _ca_data),
    "ssl_certfile": ("certfile", _path),
    "ssl_keyfile": ("keyfile", _path),
    "ssl_password": ("key_password", _text),
    "ssl_cert_reqs": ("verify", _verify),
    "ssl_check_hostname": ("check_hostname", _flag),
    "ssl_min_version": ("minimum_version", _tls_version),
    "ssl_ciphers": ("ciphers", _text),
    "ssl_include_verify_flags": ("include_verify_flags", _verify_flags),
    "ssl_exclude_verify_flags": ("exclude_verify_flags", _verify_flags),
}

_OCSP = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled")
