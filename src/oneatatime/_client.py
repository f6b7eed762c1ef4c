"""A client object that the user already has -> what it says about its server, in redis-py's words.

No client library is imported: a client is known by the module and the name of its class or of a base
of it, so subclasses work too. And no client is touched: `connection_pool.make_connection()` would say
the same, but on a blocking client it counts against `max_connections` for good, while reading
`connection_kwargs` leaves the pool exactly as it was.

What is not in there cannot be known: settings that a connection class of the user's own adds by
itself, and what a `redis_connect_func` does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._errors import InvalidInput

ACCEPTED = "a client of redis-py, valkey-py, coredis or valkey-glide"

_logger = logging.getLogger("oneatatime")

Settings = dict[str, Any]
"""redis-py's names and values: host, port, path, db, username, password, protocol, ssl_*.

Three words are ours: `tls`, whether to use it; `ssl_context`, made by the user; `credentials`, the
coroutine function of `Endpoint`. What is left out has the default of `Endpoint`.
"""

_PASSED_ON = ("host", "port", "path", "db", "username", "password")


def settings_of(client: object) -> Settings | None:
    """What `client` says about how to reach its server; None if it is no client we know.

    Raises InvalidInput for a client of a cluster or of Sentinel, and for one without a server.
    """
    for kind in type(client).__mro__:
        name = (kind.__module__.partition(".")[0], kind.__name__)
        if name in _NOT_YET:
            raise _not_yet(type(client), _NOT_YET[name])
        if name in _READERS:
            return _READERS[name](client)
    return None


@dataclass(frozen=True)
class ProviderCredentials:
    """The credential provider of a client, asked anew at every connect.

    A provider that only knows how to block is asked in a thread.
    """

    provider: Any = field(repr=False)

    async def __call__(self) -> tuple[str | None, str | None]:
        given = await self._asked()
        if not isinstance(given, tuple | list) or len(given) not in (1, 2):
            raise InvalidInput(
                f"credential provider {type(self.provider).__name__} must give (password,) or "
                f"(username, password), not {type(given).__name__}"
            )
        return (None, given[0]) if len(given) == 1 else (given[0], given[1])

    async def _asked(self) -> Any:
        asynchronous = getattr(self.provider, "get_credentials_async", None)
        # redis-py's own default of it blocks, and logs a warning at each call
        if getattr(asynchronous, "__qualname__", "") == "CredentialProvider.get_credentials_async":
            asynchronous = None
        if asynchronous is not None:
            return await asynchronous()
        if inspect.iscoroutinefunction(self.provider.get_credentials):  # coredis
            return await self.provider.get_credentials()
        return await asyncio.to_thread(self.provider.get_credentials)


def _of_pool(client: Any) -> Settings:
    """redis-py and valkey-py, asynchronous and blocking."""
    pool = client.connection_pool
    classes = [*type(pool).__mro__, *pool.connection_class.__mro__]
    _refuse_sentinel(client, classes)
    if any(each.__module__.partition(".")[0] == "fakeredis" for each in classes):
        raise InvalidInput("a client of fakeredis has no server that could be read")
    given = pool.connection_kwargs
    settings = {name: given[name] for name in _PASSED_ON if given.get(name) is not None}
    settings.update((name, value) for name, value in given.items() if name.startswith("ssl_"))
    if "ssl_cert_reqs" in settings and settings["ssl_cert_reqs"] is None:
        settings["ssl_cert_reqs"] = "none"  # there, None is told and not left out
    # valkey-py's constructor tells ssl_check_hostname=False by default; so it stays, as in the client
    settings["tls"] = any(each.__name__ == "SSLConnection" for each in classes)
    if given.get("credential_provider") is not None:
        settings["credentials"] = ProviderCredentials(given["credential_provider"])
    # 2 is the default of many versions, so it is not always meant; but every server speaks it.
    # 3 is left to our own handshake, which falls back where redis-py would fail.
    if str(given.get("protocol")) == "2":
        settings["protocol"] = 2
    return settings


def _of_coredis(client: Any) -> Settings:
    pool = client.connection_pool
    _refuse_sentinel(client, [*type(pool).__mro__, *pool.connection_class.__mro__])
    given, location = pool.connection_kwargs, pool.location
    settings = {name: given[name] for name in _PASSED_ON if given.get(name) is not None}
    if hasattr(location, "path"):
        settings["path"] = location.path
    elif location is not None:
        settings.update(host=location.host, port=location.port)
    else:
        raise InvalidInput(f"this {_name(type(client))} does not say where its server is")
    settings["ssl_context"] = given.get("ssl_context")
    settings["tls"] = settings["ssl_context"] is not None
    if given.get("credential_provider") is not None:
        settings["credentials"] = ProviderCredentials(given["credential_provider"])
    return settings


def _of_glide(client: Any) -> Settings:
    """valkey-glide. Of several addresses the first is read, be it the primary or a replica of it."""
    config = client.config if hasattr(client, "config") else client._config  # blocking: no public name
    address, *others = config.addresses
    if others:
        _logger.debug("the first of the %d addresses of a glide client is read", 1 + len(others))
    settings: Settings = {"db": config.database_id or 0, "tls": bool(config.use_tls)}
    if getattr(address, "unix_socket_path", None) is not None:
        settings["path"] = address.unix_socket_path
    else:
        settings.update(host=address.host, port=address.port)
        if getattr(config, "address_resolver", None) is not None:
            settings["host"], settings["port"] = config.address_resolver(address.host, address.port)
    if config.credentials is not None:
        if getattr(config.credentials, "iam_config", None) is not None:
            raise InvalidInput(
                "the IAM tokens of a glide client cannot be read: give a redis-py client with a "
                "credential_provider that makes them, or a URL"
            )
        settings.update(username=config.credentials.username, password=config.credentials.password)
    if getattr(config.protocol, "name", None) == "RESP2":
        settings["protocol"] = 2
    tls = getattr(getattr(config, "advanced_config", None), "tls_config", None)
    if config.use_tls and tls is not None:
        settings.update(_glide_tls(tls))
    return settings


def _glide_tls(tls: Any) -> Settings:
    if getattr(tls, "client_key_pem", None) is not None:
        raise InvalidInput(
            "the client certificate of a glide client must be in files (client_cert_path, "
            "client_key_path): from memory it can be read only by glide itself"
        )
    settings: Settings = {
        "ssl_certfile": getattr(tls, "client_cert_path", None),
        "ssl_keyfile": getattr(tls, "client_key_path", None),
    }
    if getattr(tls, "root_pem_cacerts", None) is not None:
        settings["ssl_ca_data"] = tls.root_pem_cacerts.decode("ascii", "replace")
    if getattr(tls, "use_insecure_tls", None):
        settings["ssl_cert_reqs"] = "none"
    return settings


_READERS: dict[tuple[str, str], Callable[[Any], Settings]] = {
    ("redis", "Redis"): _of_pool,
    ("valkey", "Valkey"): _of_pool,
    ("coredis", "Redis"): _of_coredis,
    ("glide", "GlideClient"): _of_glide,
    ("glide_sync", "GlideClient"): _of_glide,
}

_NOT_YET = {
    ("redis", "RedisCluster"): "a cluster",
    ("valkey", "ValkeyCluster"): "a cluster",
    ("coredis", "RedisCluster"): "a cluster",
    ("glide", "GlideClusterClient"): "a cluster",
    ("glide_sync", "GlideClusterClient"): "a cluster",
    ("redis", "Sentinel"): "Sentinel",
    ("valkey", "Sentinel"): "Sentinel",
    ("coredis", "Sentinel"): "Sentinel",
}


def _refuse_sentinel(client: object, classes: list[type]) -> None:
    # A Sentinel's pool says localhost until it has asked: reading that would read another server.
    if any(each.__name__ in ("SentinelConnectionPool", "SentinelManagedConnection") for each in classes):
        raise _not_yet(type(client), "Sentinel")


def _not_yet(kind: type, deployment: str) -> InvalidInput:
    return InvalidInput(
        f"{_name(kind)} is a client of {deployment}, which is not read yet: one server is, so give a URL "
        "or a client of one node"
    )


def _name(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}'s {kind.__name__}"
