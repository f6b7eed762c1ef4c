"""A URL -> what it says about a server, in redis-py's words, all still text.

A password with a bare `/`, `?`, `#` or `@` in it ends up in any part of a URL. So no message shows a
piece of one: the piece is told by its name. (For the same reason `urllib.parse.urlsplit` is of no use:
its own errors quote the password.)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from ._errors import InvalidInput, closest

SHAPE = "write redis://user:password@host:6379/0"

_logger = logging.getLogger("oneatatime")

_SCHEMES = {"redis": False, "rediss": True, "valkey": False, "valkeys": True, "unix": False}
"""Whether it means TLS."""

_IGNORED = {
    "client_name",
    "connect_timeout",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "legacy_responses",
    "lib_name",
    "lib_version",
    "max_connections",
    "max_idle_time",
    "noevict",
    "noreply",
    "notouch",
    "retry_on_error",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_read_size",
    "socket_timeout",
    "socket_type",
    "stream_timeout",
    "timeout",
}
"""Options of redis-py, valkey-py and coredis for their pools and replies: nothing that is ours."""

_BARE = "in a user name or password, / ? # @ % are written %2F %3F %23 %40 %25"


def settings_of_url(url: str, known: Collection[str]) -> dict[str, str | bool]:
    """What `url` says, `tls` beside redis-py's names; of its options, those `known`.

    As in redis-py, what stands before the `?` wins over an option of the same meaning, but for `db`.
    Raises InvalidInput, which shows nothing of the URL that may be secret.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise _wrong_scheme(scheme.lower() if separator else "")
    rest, hash_sign, _ = rest.partition("#")
    if hash_sign:
        raise InvalidInput(f"the URL of a server has no # in it: {_BARE}")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    credentials, _, location = authority.rpartition("@")
    unix = scheme.lower() == "unix"
    other = ("host", "port") if unix else ("path",)
    known = [name for name in known if name not in other]
    settings: dict[str, str | bool] = {**_options(query, known, suspect="@" in path + query)}
    if unix:
        settings.update(_path(location, slash + path, settings))
    else:
        settings.update(_host_and_port(location, settings))
        if path.strip("/"):
            settings.setdefault("db", _db(path.strip("/")))
    username, _, password = credentials.partition(":")
    for name, value in (("username", username), ("password", password)):
        if value:
            settings[name] = _decoded(name, value)
    settings["tls"] = _SCHEMES[scheme.lower()]
    return settings


def _wrong_scheme(scheme: str) -> InvalidInput:
    if "cluster" in scheme or "sentinel" in scheme:
        return InvalidInput("clusters and Sentinel are not read yet, one server is: write redis://host:6379")
    near = closest(scheme, _SCHEMES)
    hint = f": did you mean {near}://?" if near else ""
    got = f", not {scheme}://" if re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else ""
    return InvalidInput(f"a URL begins with one of {', '.join(f'{each}://' for each in _SCHEMES)}{got}{hint}")


def _path(location: str, path: str, options: Collection[str]) -> dict[str, str]:
    if location:
        raise InvalidInput(
            "the path of a socket begins at the root: write unix:///run/redis.sock, three slashes"
        )
    if "@" in path:  # or the rest of a password that holds a bare @ and / would be shown as a path
        raise InvalidInput("an @ in the path of a socket is written %40")
    if path.strip("/"):
        return {"path": _decoded("path", path)}
    if "path" not in options:
        raise InvalidInput("the URL names no socket: write unix:///run/redis.sock")
    return {}


def _host_and_port(location: str, options: Collection[str]) -> dict[str, str]:
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", location)
    if bracketed:
        host, port = bracketed[1], bracketed[2] or ""
    else:
        host, _, port = location.partition(":")
    if ":" in port:
        raise InvalidInput(
            f"host and port are unclear: an IPv6 address goes in brackets, [::1]:6379; else {SHAPE}"
        )
    if port and not re.fullmatch("[0-9]{1,5}", port):
        raise InvalidInput(f"the port must be a number from 1 to 65535: {SHAPE}; {_BARE}")
    if not host and "host" not in options:
        raise InvalidInput(f"the URL names no host: {SHAPE}; {_BARE}")
    found = {"host": _decoded("host", host), "port": port}
    return {name: value for name, value in found.items() if value}


def _db(path: str) -> str:
    if not re.fullmatch("[0-9]{1,9}", path):
        raise InvalidInput(f"what follows host and port must be the number of a database: {SHAPE}; {_BARE}")
    return path


def _options(query: str, known: Collection[str], *, suspect: bool) -> dict[str, str]:
    """The options after the `?`. If `suspect`, they may be the rest of a password: none is shown."""
    from urllib.parse import parse_qsl  # where it is used: `import oneatatime` is to be quick

    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        # without the cause, which shows the value
        raise InvalidInput(f"the options after the ? are not text in UTF-8: {_BARE}") from None
    options: dict[str, str] = {}
    ignored = []
    for name, value in pairs:
        if name in _IGNORED:
            ignored.append(name)
        elif name not in known:
            raise _unknown_option(name, known, suspect=suspect)
        elif name in options:
            raise InvalidInput(f"the URL has option {name} twice")
        elif value:
            options[name] = value
    if ignored:
        _logger.debug("options of the URL that mean nothing here: %s", ", ".join(ignored))
    return options


def _unknown_option(name: str, known: Collection[str], *, suspect: bool) -> InvalidInput:
    if suspect or not re.fullmatch("[a-z_]{1,40}", name):
        return InvalidInput(f"the URL has an option that does not exist: {_BARE}")
    near = closest(name, [*known, *_IGNORED])
    hint = f"did you mean {near}" if near else f"there are {', '.join(sorted(known))}"
    if name in ("ssl", "tls"):
        hint = "TLS is asked for by rediss:// or valkeys://"
    return InvalidInput(f"the URL has no option {name!r}: {hint}")


def _decoded(name: str, value: str) -> str:
    from urllib.parse import unquote_to_bytes

    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        # without the cause, which shows the value
        raise InvalidInput(f"the {name} in the URL is not text in UTF-8: {_BARE}") from None
