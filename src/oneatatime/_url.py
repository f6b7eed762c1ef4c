"""A URL -> what it says about one server or a deployment, in redis-py's words, all still text.

A password with a bare `/`, `?`, `#` or `@` in it ends up in any part of a URL. So no message shows a
piece of one: the piece is told by its name. (For the same reason `urllib.parse.urlsplit` is of no use:
its own errors quote the password.)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from typing import Any

from ._errors import InvalidInput, closest

SHAPE = "write redis://user:password@host:6379/0"
CLUSTER_SHAPE = "write redis+cluster://user:password@host1:6379,host2:6379"
SENTINEL_SHAPE = "write redis+sentinel://user:password@host1:26379,host2:26379/service/0"

_logger = logging.getLogger("oneatatime")

_SCHEMES = {"redis": False, "rediss": True, "valkey": False, "valkeys": True, "unix": False}
"""Whether it means TLS."""

_DEPLOYMENTS = {"cluster": ("6379", CLUSTER_SHAPE), "sentinel": ("26379", SENTINEL_SHAPE)}
"""What may follow a scheme and a plus sign: its default port, and how to write it."""

_SENTINELS_OWN = ("sentinel_username", "sentinel_password")

_NAMES_OF_THE_SERVICE = {"service", "service_name", "master", "master_name", "mastername", "sentinelmasterid"}
"""Options by which other libraries name it."""

_IGNORED = {
    "client_name",
    "cluster_error_retry_attempts",
    "connect_timeout",
    "decode_responses",
    "dynamic_startup_nodes",
    "encoding",
    "encoding_errors",
    "gc_interval",
    "health_check_interval",
    "legacy_responses",
    "lib_name",
    "lib_version",
    "max_connections",
    "max_connections_per_node",
    "max_idle_time",
    "noevict",
    "noreply",
    "notouch",
    "reinitialize_steps",
    "require_full_coverage",
    "retry_on_error",
    "retry_on_timeout",
    "skip_full_coverage_check",
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


def settings_of_url(url: str, known: Collection[str]) -> dict[str, Any]:
    """What `url` says, `tls` beside redis-py's names; of its options, those `known`.

    For more than one server there are `kind` ("cluster" or "sentinel") and `seeds`, a list of such
    settings; for Sentinel, whose seeds log in by themselves, also `service`.

    As in redis-py, what stands before the `?` wins over an option of the same meaning, but for `db`.
    Raises InvalidInput, which shows nothing of the URL that may be secret.
    """
    scheme, separator, rest = url.strip().partition("://")
    base, plus, kind = scheme.lower().partition("+")
    if not separator or base not in _SCHEMES or (plus and (kind not in _DEPLOYMENTS or base == "unix")):
        raise _wrong_scheme(scheme.lower() if separator else "")
    rest, hash_sign, _ = rest.partition("#")
    if hash_sign:
        place = f"; the service follows the hosts: {SENTINEL_SHAPE}" if kind == "sentinel" else ""
        raise InvalidInput(f"the URL of a server has no # in it: {_BARE}{place}")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    credentials, _, location = authority.rpartition("@")
    if kind:
        settings = _of_several(kind, location, path, query, known)
    elif base == "unix":
        settings = {**_options(query, _without(known, "host", "port"), suspect="@" in path + query)}
        settings.update(_path(location, slash + path, settings))
    else:
        settings = {**_options(query, _without(known, "path"), suspect="@" in path + query)}
        settings.update(_host_and_port(location, settings))
        if path.strip("/"):
            settings.setdefault("db", _db(path.strip("/"), SHAPE))
    username, _, password = credentials.partition(":")
    for name, value in (("username", username), ("password", password)):
        if value:
            settings[name] = _decoded(name, value)
    settings["tls"] = _SCHEMES[base]
    if kind == "sentinel":
        common = {
            name: value for name, value in settings.items() if name.startswith(("ssl", "tls", "protocol"))
        }
        settings["seeds"] = [{**common, **seed} for seed in settings["seeds"]]
    return settings


def _without(known: Collection[str], *others: str) -> list[str]:
    return [name for name in known if name not in others]


def _wrong_scheme(scheme: str) -> InvalidInput:
    for kind, (_, shape) in _DEPLOYMENTS.items():
        if kind in scheme:
            what = "a cluster" if kind == "cluster" else "Sentinel"
            return InvalidInput(f"for {what}, {shape}; or with rediss+, valkey+ or valkeys+")
    if scheme.endswith("+socket"):
        return InvalidInput("for a socket, write unix:///run/redis.sock?db=0")
    known = [*_SCHEMES, *(f"redis+{kind}" for kind in _DEPLOYMENTS)]
    near = closest(scheme, known)
    hint = f": did you mean {near}://?" if near else ""
    got = f", not {scheme}://" if re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else ""
    return InvalidInput(f"a URL begins with one of {', '.join(f'{each}://' for each in known)}{got}{hint}")


def _of_several(kind: str, location: str, path: str, query: str, known: Collection[str]) -> dict[str, Any]:
    port, shape = _DEPLOYMENTS[kind]
    if "@" in path + query:
        # what stands before it may be the rest of a password, which would be shown as hosts or service
        raise InvalidInput(f"an @ behind the hosts is written %40, and so is one in them: {shape}; {_BARE}")
    own = _SENTINELS_OWN if kind == "sentinel" else ()
    settings: dict[str, Any] = {
        **_options(query, [*_without(known, "host", "port", "path"), *own], suspect=False)
    }
    login = {name.removeprefix("sentinel_"): settings.pop(name) for name in own if name in settings}
    seeds = [_host_and_port(each, (), shape) for each in location.split(",")]
    settings.update(kind=kind, seeds=[{"port": port, **seed, **login} for seed in seeds])
    path = path.strip("/")
    if kind == "sentinel":
        service, slash, path = path.partition("/")
        if not service or (not slash and service.isdigit()):
            raise InvalidInput(f"the URL names no service: {shape}; {_BARE}")
        settings["service"] = _decoded("name of the service", service)
    if path:
        settings.setdefault("db", _db(path, shape))
    return settings


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


def _host_and_port(location: str, options: Collection[str], shape: str = SHAPE) -> dict[str, str]:
    if "," in location:
        raise InvalidInput(
            f"the URL has several hosts: for a cluster, {CLUSTER_SHAPE}; for Sentinel, {SENTINEL_SHAPE}"
        )
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", location)
    if bracketed:
        host, port = bracketed[1], bracketed[2] or ""
    else:
        host, _, port = location.partition(":")
    if ":" in port:
        raise InvalidInput(
            f"host and port are unclear: an IPv6 address goes in brackets, [::1]:6379; else {shape}"
        )
    if port and not re.fullmatch("[0-9]{1,5}", port):
        raise InvalidInput(f"the port must be a number from 1 to 65535: {shape}; {_BARE}")
    if not host and "host" not in options:
        raise InvalidInput(f"the URL names no host: {shape}; {_BARE}")
    found = {"host": _decoded("host", host), "port": port}
    return {name: value for name, value in found.items() if value}


def _db(path: str, shape: str) -> str:
    if not re.fullmatch("[0-9]{1,9}", path):
        raise InvalidInput(f"what the path ends in must be the number of a database: {shape}; {_BARE}")
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
    if name.lower() in _NAMES_OF_THE_SERVICE:
        return InvalidInput(f"the name of Sentinel's service follows the hosts: {SENTINEL_SHAPE}")
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
