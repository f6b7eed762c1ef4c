"""A client object that the user already has -> what it says about its servers, in redis-py's words.

No client library is imported: a client is known by the module and the name of its class or of a base
of it, so subclasses work too. And no client is touched: `connection_pool.make_connection()` would say
the same, but on a blocking client it counts against `max_connections` for good, while reading
`connection_kwargs` leaves the pool exactly as it was.

What is not in there cannot be known: settings that a connection class of the user's own adds by
itself, and what a `redis_connect_func` does. The `min_other_sentinels` of a Sentinel is not looked at.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ._errors import InvalidInput

ACCEPTED = "a client of redis-py, valkey-py, coredis or valkey-glide"

_logger = logging.getLogger("oneatatime")

Settings = dict[str, Any]
"""redis-py's names and values: host, port, path, db, username, password, protocol, ssl_*.

Three words are ours: `tls`, whether to use it; `ssl_context`, made by the user; `credentials`, the
coroutine function of `Endpoint`. What is left out has the default of `Endpoint`.

Where it is more than one server there are more: `kind`, "cluster" or "sentinel"; `seeds`, settings of
the servers to ask first, each with all that it needs for Sentinel, with host and port for a cluster;
`service`, `remap` and `replica` as in `Deployment`.
"""

Remap = Callable[[str, int], tuple[str, int]]

_PASSED_ON = ("host", "port", "path", "db", "username", "password")


def settings_of(client: object) -> Settings | None:
    """What `client` says about how to reach its server; None if it is no client we know.

    Raises InvalidInput for a Sentinel without a service, and for a client without a server.
    """
    for kind in type(client).__mro__:
        name = (kind.__module__.partition(".")[0], kind.__name__)
        if name in _SENTINELS:
            raise InvalidInput(
                f"{name_of_class(type(client))} does not say which service to read: "
                f"give what its {_SENTINELS[name]}(service) makes"
            )
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


@dataclass(frozen=True)
class RemapOfPairs:
    """The `address_remap` of redis-py, which takes and gives (host, port)."""

    given: Callable[[tuple[str, int]], tuple[str, int]]

    def __call__(self, host: str, port: int) -> tuple[str, int]:
        return self.given((host, port))


@dataclass(frozen=True)
class RemapToHost:
    """The `force_master_ip` of redis-py's Sentinel."""

    host: str

    def __call__(self, host: str, port: int) -> tuple[str, int]:
        return self.host, port


def _of_pool(client: Any) -> Settings:
    """redis-py and valkey-py, asynchronous and blocking."""
    pool = client.connection_pool
    settings = _of_arguments(pool.connection_kwargs, pool.connection_class, type(pool))
    if not _is_of_sentinel(client, pool):
        return settings
    forced = getattr(pool.sentinel_manager, "_force_master_ip", None)
    remap = RemapToHost(forced) if forced is not None and pool.is_master else None
    return _of_sentinel(
        settings, pool, map(_of_pool, pool.sentinel_manager.sentinels), remap, not pool.is_master
    )


def _of_arguments(given: dict[str, Any], *kinds: type) -> Settings:
    """Of what redis-py and valkey-py give to a connection; `kinds` are its class and its pool's."""
    classes = [each for kind in kinds for each in kind.__mro__]
    if any(each.__module__.partition(".")[0] == "fakeredis" for each in classes):
        raise InvalidInput("a client of fakeredis has no server that could be read")
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


def _of_cluster(client: Any) -> Settings:
    """redis-py and valkey-py. Their nodes are those given and those found, already as `remap` has them."""
    manager = client.nodes_manager
    given = getattr(client, "startup_nodes", None) or ()  # the manager forgets them when it has found others
    nodes = [*given, *manager.startup_nodes.values(), *manager.nodes_cache.values()]
    # a blocking one has a client for each node, which says what its version has by default
    clients = [getattr(node, name, None) for node in nodes for name in _CLIENT_OF_A_NODE]
    connected = next((each for each in clients if each is not None), None)
    if connected is not None:
        settings = _of_pool(connected)
    else:
        settings = _of_arguments(manager.connection_kwargs, manager.connection_kwargs["connection_class"])
    remap = None if manager.address_remap is None else RemapOfPairs(manager.address_remap)
    return _of_several(settings, nodes, remap)


_CLIENT_OF_A_NODE = ("redis_connection", "valkey_connection")


def _of_coredis(client: Any) -> Settings:
    pool = client.connection_pool
    settings = _of_coredis_arguments(pool.connection_kwargs)
    if _is_of_sentinel(client, pool):
        seeds = map(_of_coredis, pool.sentinel_manager.sentinels)
        return _of_sentinel(settings, pool, seeds, None, not pool.is_primary)
    location = pool.location
    if hasattr(location, "path"):
        settings["path"] = location.path
    elif location is not None:
        settings.update(host=location.host, port=location.port)
    else:
        raise InvalidInput(f"this {name_of_class(type(client))} does not say where its server is")
    return settings


def _of_coredis_arguments(given: dict[str, Any]) -> Settings:
    settings = {name: given[name] for name in _PASSED_ON if given.get(name) is not None}
    settings["ssl_context"] = given.get("ssl_context")
    settings["tls"] = settings["ssl_context"] is not None
    if given.get("credential_provider") is not None:
        settings["credentials"] = ProviderCredentials(given["credential_provider"])
    return settings


def _of_coredis_cluster(client: Any) -> Settings:
    pool = client.connection_pool
    nodes = [*pool.startup_nodes, *pool.cluster_layout.nodes]
    return _of_several(_of_coredis_arguments(pool.connection_kwargs), nodes, None)


def _of_glide(client: Any) -> Settings:
    """valkey-glide. Of several addresses the first is read, be it the primary or a replica of it."""
    config = _glide_config(client)
    address, *others = config.addresses
    if others:
        _logger.debug("the first of the %d addresses of a glide client is read", 1 + len(others))
    settings = _of_glide_config(config)
    if getattr(address, "unix_socket_path", None) is not None:
        settings["path"] = address.unix_socket_path
    else:
        settings["host"], settings["port"] = _resolved(config, address)
    return settings


def _of_glide_cluster(client: Any) -> Settings:
    config = _glide_config(client)
    settings = _of_glide_config(config)
    places = [_resolved(config, address) for address in config.addresses]
    settings["seeds"] = [{"host": host, "port": port} for host, port in places]
    settings.update(kind="cluster", remap=getattr(config, "address_resolver", None))
    return settings


def _glide_config(client: Any) -> Any:
    return client.config if hasattr(client, "config") else client._config  # blocking: no public name


def _resolved(config: Any, address: Any) -> tuple[str, int]:
    resolver = getattr(config, "address_resolver", None)
    place = (address.host, address.port)
    return place if resolver is None else resolver(*place)


def _of_glide_config(config: Any) -> Settings:
    settings: Settings = {"db": config.database_id or 0, "tls": bool(config.use_tls)}
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


# More than one server


def _of_several(settings: Settings, nodes: Iterable[Any], remap: Remap | None) -> Settings:
    settings = {name: value for name, value in settings.items() if name not in _PLACE}
    seeds = [{"host": node.host, "port": node.port} for node in nodes]
    return {**settings, "kind": "cluster", "seeds": seeds, "remap": remap}


def _is_of_sentinel(client: object, pool: Any) -> bool:
    # A Sentinel's pool says localhost until it has asked: reading that would read another server.
    classes = [*type(pool).__mro__, *pool.connection_class.__mro__]
    if not any(each.__name__ in ("SentinelConnectionPool", "SentinelManagedConnection") for each in classes):
        return False
    if not hasattr(pool, "sentinel_manager"):
        raise InvalidInput(f"this {name_of_class(type(client))} does not say where its Sentinels are")
    return True


def _of_sentinel(
    settings: Settings, pool: Any, seeds: Iterable[Settings], remap: Remap | None, replica: bool
) -> Settings:
    settings = {name: value for name, value in settings.items() if name not in _PLACE}
    settings.update(kind="sentinel", service=pool.service_name, seeds=list(seeds))
    return {**settings, "remap": remap, "replica": replica}


_PLACE = ("host", "port", "path")

_READERS: dict[tuple[str, str], Callable[[Any], Settings]] = {
    ("redis", "Redis"): _of_pool,
    ("redis", "RedisCluster"): _of_cluster,
    ("valkey", "Valkey"): _of_pool,
    ("valkey", "ValkeyCluster"): _of_cluster,
    ("coredis", "Redis"): _of_coredis,
    ("coredis", "RedisCluster"): _of_coredis_cluster,
    ("glide", "GlideClient"): _of_glide,
    ("glide", "GlideClusterClient"): _of_glide_cluster,
    ("glide_sync", "GlideClient"): _of_glide,
    ("glide_sync", "GlideClusterClient"): _of_glide_cluster,
}

_SENTINELS = {
    ("redis", "Sentinel"): "master_for",
    ("valkey", "Sentinel"): "master_for",
    ("coredis", "Sentinel"): "primary_for",
}
"""Objects that know Sentinels and no service, and the method that makes a client of one."""


def name_of_class(kind: type) -> str:
    """How messages name a client: `redis's RedisCluster`."""
    return f"{kind.__module__.partition('.')[0]}'s {kind.__name__}"
