"""Real client objects of clusters and of Sentinel: what is read off them, and that they stay as they were."""

from __future__ import annotations

import pickle
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import coredis
import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.cluster
import valkey
import valkey.asyncio
import valkey.asyncio.sentinel
from coredis.connection import TCPLocation

import oneatatime
from oneatatime._deployment import Deployment
from oneatatime._endpoint import TLS, Endpoint
from oneatatime._errors import InvalidInput
from oneatatime.server import EmbeddedServer
from tests.servers import Missing, Server, TLSServer, _free_port, program
from tests.test_client import SECRET, Asynchronous, Blocking, OfCoredis

# Clusters. Blocking clients connect when they are made, so there is one: a node with all slots.


def _all_slots(server: Server) -> None:
    server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    deadline = time.monotonic() + 20
    while b"cluster_state:ok" not in server.ask("CLUSTER", "INFO"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="session")
def _cluster_node() -> Iterator[Server]:
    server = Server(tcp=True, arguments=["--cluster-enabled", "yes"])
    server.start()
    _all_slots(server)
    yield server
    server.close()


@pytest.fixture
def cluster_node(_cluster_node: Server) -> Server:
    _cluster_node.ask("CONFIG", "SET", "cluster-announce-ip", "")
    return _cluster_node


@pytest.fixture
def port(cluster_node: Server) -> int:
    return int(cluster_node.url.rpartition(":")[2].split("/")[0])


BLOCKING = pytest.mark.parametrize(
    "client_class", [redis.RedisCluster, valkey.ValkeyCluster], ids=["redis", "valkey"]
)
ASYNCHRONOUS = pytest.mark.parametrize(
    "client_class",
    [redis.asyncio.RedisCluster, valkey.asyncio.ValkeyCluster],
    ids=["redis.asyncio", "valkey.asyncio"],
)


def _known(deployment: Deployment) -> Deployment:
    """Without what differs between the clients: valkey-py always says RESP2."""
    seeds = tuple(replace(seed, protocol=None) for seed in deployment.seeds)
    return replace(deployment, seeds=seeds, login=replace(deployment.login, protocol=None))


@BLOCKING
def test_blocking_cluster(client_class: type[Any], port: int) -> None:
    expected = Deployment.of(f"redis+cluster://127.0.0.1:{port}")
    with client_class(host="127.0.0.1", port=port) as client:
        assert _known(Deployment.of(client)) == expected
        assert client.ping()
    with client_class.from_url(f"redis://127.0.0.1:{port}") as client:
        assert _known(Deployment.of(client)) == expected
    assert _known(Deployment.of(client)) == expected  # closed as it is


@BLOCKING
def test_blocking_cluster_with_user(client_class: type[Any], cluster_node: Server, port: int) -> None:
    cluster_node.ask("ACL", "SETUSER", "u", "reset", "on", f">{SECRET}", "~*", "+@all")
    expected = Deployment.of(f"redis+cluster://u:{SECRET}@127.0.0.1:{port}")
    with client_class(host="127.0.0.1", port=port, username="u", password=SECRET) as client:
        assert _known(Deployment.of(client)) == expected
    with client_class.from_url(f"redis://u:{SECRET}@127.0.0.1:{port}") as client:
        deployment = Deployment.of(client)
    assert _known(deployment) == expected
    assert SECRET not in repr(deployment)


@BLOCKING
def test_blocking_cluster_stays_as_it_was(client_class: type[Any], port: int) -> None:
    with client_class(host="127.0.0.1", port=port) as client:
        manager = client.nodes_manager
        before = [list(manager.startup_nodes), list(manager.nodes_cache), dict(manager.connection_kwargs)]
        for _ in range(3):
            assert Deployment.of(client).kind == "cluster"
        assert before == [
            list(manager.startup_nodes),
            list(manager.nodes_cache),
            dict(manager.connection_kwargs),
        ]
        assert client.set("k", 1)


INSIDE = "10.9.8.7"  # where the node says that it is, and nobody is


def _reachable(place: tuple[str, int]) -> tuple[str, int]:
    host, port = place
    return "127.0.0.1" if host == INSIDE else host, port


@BLOCKING
def test_blocking_cluster_with_a_map(client_class: type[Any], cluster_node: Server, port: int) -> None:
    cluster_node.ask("CONFIG", "SET", "cluster-announce-ip", INSIDE)
    with client_class(host="127.0.0.1", port=port, address_remap=_reachable) as client:
        deployment = Deployment.of(client)
    assert _known(deployment) == Deployment.of(f"redis+cluster://127.0.0.1:{port}")
    assert deployment.endpoint(INSIDE, 1).node == "127.0.0.1:1"
    assert pickle.loads(pickle.dumps(deployment)).endpoint(INSIDE, 1).node == "127.0.0.1:1"


def test_blocking_cluster_with_a_credential_provider(cluster_node: Server, port: int) -> None:
    cluster_node.ask("ACL", "SETUSER", "u", "reset", "on", "nopass", "~*", "+@all")
    provider = Blocking()
    with redis.RedisCluster(host="127.0.0.1", port=port, credential_provider=provider) as client:
        deployment = Deployment.of(client)
        assert deployment.login.credentials is not None
        assert deployment.endpoint("h", 1).credentials == deployment.login.credentials


@pytest.fixture(scope="module")
def tls_cluster_node() -> Iterator[TLSServer]:
    """A cluster that speaks TLS alone."""
    try:
        server = TLSServer()
    except Missing as missing:
        pytest.skip(f"not on this machine: {missing}")
    more = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(_free_port())]
    server.embedded = EmbeddedServer(
        binary=program("redis-server"), arguments=[*server.embedded._arguments, *more]
    )
    try:
        server.start()
        _all_slots(server)
        yield server
    except Missing as missing:
        pytest.skip(f"not on this machine: {missing}")
    finally:
        server.close()


@BLOCKING
def test_blocking_cluster_with_tls(client_class: type[Any], tls_cluster_node: TLSServer) -> None:
    place = {"host": "127.0.0.1", "port": tls_cluster_node.tls_port}
    authority = tls_cluster_node.ca_certs
    with client_class(**place, ssl=True, ssl_ca_certs=authority) as client:
        deployment = Deployment.of(client)
    # as the clients have it: valkey-py verifies no host name in a cluster, whatever it is told
    expected = TLS(ca_certs=authority, check_hostname=client_class is redis.RedisCluster)
    assert [end.tls for end in (deployment.login, *deployment.seeds)] == [expected] * (
        1 + len(deployment.seeds)
    )
    url = f"rediss://127.0.0.1:{tls_cluster_node.tls_port}?ssl_cert_reqs=none&ssl_check_hostname=False"
    with client_class.from_url(url) as client:
        tls = Deployment.of(client).login.tls
    assert tls is not None
    assert tls.verify == "none"


ASYNCHRONOUS_CLUSTER = {
    "host": ({"host": "h"}, "redis+cluster://h"),
    "host and port": ({"host": "h", "port": "7000"}, "redis+cluster://h:7000"),
    "localhost, which it looks up": ({"host": "localhost"}, "redis+cluster://127.0.0.1"),
    "user": ({"host": "h", "username": "u", "password": SECRET}, f"redis+cluster://u:{SECRET}@h"),
    "other options": ({"host": "h", "decode_responses": True, "max_connections": 1}, "redis+cluster://h"),
    "TLS": (
        {"host": "h", "ssl": True, "ssl_check_hostname": True, "ssl_ca_certs": "/ca", "ssl_keyfile": "/k"},
        "rediss+cluster://h?ssl_ca_certs=/ca&ssl_keyfile=/k",
    ),
    "TLS unverified": (
        {"host": "h", "ssl": True, "ssl_check_hostname": False, "ssl_cert_reqs": "none"},
        "rediss+cluster://h?ssl_check_hostname=0&ssl_cert_reqs=none",
    ),
}


@ASYNCHRONOUS
@pytest.mark.parametrize(("arguments", "url"), ASYNCHRONOUS_CLUSTER.values(), ids=ASYNCHRONOUS_CLUSTER)
async def test_asynchronous_cluster(client_class: type[Any], arguments: dict[str, Any], url: str) -> None:
    assert _known(Deployment.of(client_class(**arguments))) == Deployment.of(url)


@ASYNCHRONOUS
async def test_asynchronous_cluster_from_url(client_class: type[Any]) -> None:
    client = client_class.from_url("rediss://u:p%40@h:7000?ssl_check_hostname=True")
    assert _known(Deployment.of(client)) == Deployment.of("rediss+cluster://u:p%40@h:7000")


@ASYNCHRONOUS
async def test_asynchronous_cluster_with_several_nodes(client_class: type[Any]) -> None:
    node = redis.cluster.ClusterNode
    client = client_class(startup_nodes=[node("h1", 7000), node("h2", 7001)], host="h3", port=7002)
    assert _known(Deployment.of(client)) == Deployment.of("redis+cluster://h1:7000,h2:7001,h3:7002")


@ASYNCHRONOUS
async def test_asynchronous_cluster_with_a_map(client_class: type[Any]) -> None:
    deployment = Deployment.of(client_class(host="h", address_remap=_reachable))
    assert _known(deployment) == Deployment.of("redis+cluster://h")
    assert deployment.endpoint(INSIDE, 1).node == "127.0.0.1:1"


async def test_asynchronous_cluster_with_a_credential_provider() -> None:
    provider = Asynchronous()
    deployment = Deployment.of(redis.asyncio.RedisCluster(host="h", credential_provider=provider))
    assert provider.asked == 0
    for endpoint in (deployment.login, deployment.seeds[0], deployment.endpoint("a", 1)):
        assert endpoint.credentials is not None
    assert await deployment.seeds[0].credentials() == ("u", f"{SECRET}1")  # type: ignore[misc]
    assert repr(deployment) == "<Deployment redis+cluster://***@h:6379/0>"


@ASYNCHRONOUS
async def test_asynchronous_cluster_that_is_connected(client_class: type[Any], port: int) -> None:
    async with client_class(host="127.0.0.1", port=port) as client:
        assert _known(Deployment.of(client)) == Deployment.of(f"redis+cluster://127.0.0.1:{port}")
        await client.set("k", 1)


@ASYNCHRONOUS
async def test_protocol_2_is_kept_and_3_may_fall_back(client_class: type[Any]) -> None:
    assert Deployment.of(client_class(host="h", protocol=2)).login.protocol == 2
    assert Deployment.of(client_class(host="h", protocol=3)).seeds[0].protocol is None


@pytest.fixture
def of_coredis() -> Iterator[Callable[..., Any]]:
    """Makes clients of a cluster; closes the streams in memory that they open when they are made."""
    clients = []

    def make(
        *arguments: Any, make: Callable[..., Any] = coredis.RedisCluster, **named: Any
    ) -> coredis.RedisCluster[Any]:
        clients.append(make(*arguments, **named))
        return clients[-1]

    yield make
    for client in clients:
        for stream in client.connection_pool.cluster_layout._error_stream:
            stream.close()


COREDIS_CLUSTER = {
    "host": ({"host": "h"}, "redis+cluster://h:7000"),
    "several": (
        {"startup_nodes": [TCPLocation("h1", 7000), TCPLocation("h2", 7001)]},
        "redis+cluster://h1:7000,h2:7001",
    ),
    "user": (
        {"host": "h", "port": 7001, "username": "u", "password": SECRET},
        f"redis+cluster://u:{SECRET}@h:7001",
    ),
    "subclass": (
        {"host": "h", "port": 1, "make": type("Mine", (coredis.RedisCluster,), {})},
        "redis+cluster://h:1",
    ),
}


@pytest.mark.parametrize(("arguments", "url"), COREDIS_CLUSTER.values(), ids=COREDIS_CLUSTER)
def test_coredis_cluster(of_coredis: Callable[..., Any], arguments: dict[str, Any], url: str) -> None:
    assert Deployment.of(of_coredis(**arguments)) == Deployment.of(url)


@pytest.mark.filterwarnings("ignore:Use coredis.connection.TCPLocation:DeprecationWarning")
def test_coredis_cluster_from_url(of_coredis: Callable[..., Any]) -> None:
    client = of_coredis("redis://u:p@h:7001", make=coredis.RedisCluster.from_url)
    assert Deployment.of(client) == Deployment.of("redis+cluster://u:p@h:7001")


def test_coredis_cluster_with_tls_and_a_credential_provider(of_coredis: Callable[..., Any]) -> None:
    context = ssl.create_default_context()
    client = of_coredis("h", 1, ssl_context=context, credential_provider=OfCoredis())
    endpoint = Deployment.of(client).endpoint("a", 1)
    assert endpoint.tls is not None
    assert endpoint.tls.ssl_context() is context
    assert endpoint.credentials is not None


async def test_coredis_cluster_that_is_connected(of_coredis: Callable[..., Any], port: int) -> None:
    client = of_coredis("localhost", port)
    async with client:
        await client.ping()
        assert Deployment.of(client).seeds[0] == Endpoint("localhost", port)
        assert {seed.port for seed in Deployment.of(client).seeds} == {port}


@BLOCKING
def test_a_blocking_cluster_is_no_endpoint(client_class: type[Any], port: int) -> None:
    with client_class(host="127.0.0.1", port=port) as client, pytest.raises(InvalidInput, match=NO_ENDPOINT):
        Endpoint.of(client)


NO_ENDPOINT = "'s (Redis|Valkey)Cluster of a cluster where one server is needed"


async def test_a_cluster_is_no_endpoint(of_coredis: Callable[..., Any]) -> None:
    for client in (redis.asyncio.RedisCluster("h"), valkey.asyncio.ValkeyCluster("h"), of_coredis("h")):
        with pytest.raises(InvalidInput, match=NO_ENDPOINT):
            Endpoint.of(client)


async def test_a_cluster_reads_what_db_the_caller_says() -> None:
    deployment = Deployment.of(redis.asyncio.RedisCluster("h"), db=3)
    assert (deployment.login.db, deployment.seeds[0].db, deployment.endpoint("a", 1).db) == (3, 3, 3)


# Sentinel. No client of it connects when it is made.

SENTINELS = [redis.Sentinel, redis.asyncio.Sentinel, valkey.Sentinel, valkey.asyncio.Sentinel]
OF_SENTINEL = pytest.mark.parametrize(
    "sentinel_class", SENTINELS, ids=["redis", "redis.asyncio", "valkey", "valkey.asyncio"]
)
PLACES = [("h1", 26379), ("h2", 5000)]

SENTINEL = {
    "nothing more": ({}, "redis+sentinel://h1,h2:5000/orders"),
    "user of the data": ({"username": "u", "password": "p"}, "redis+sentinel://u:p@h1,h2:5000/orders"),
    "db": ({"db": 3}, "redis+sentinel://h1,h2:5000/orders/3"),
    "user of the Sentinels": (
        {"sentinel_kwargs": {"username": "su", "password": SECRET}},
        f"redis+sentinel://h1,h2:5000/orders?sentinel_username=su&sentinel_password={SECRET}",
    ),
    "both": (
        {"password": "p", "sentinel_kwargs": {"password": SECRET}},
        f"redis+sentinel://:p@h1,h2:5000/orders?sentinel_password={SECRET}",
    ),
    "TLS for both": (
        {
            "ssl": True,
            "ssl_ca_certs": "/ca",
            "ssl_check_hostname": True,
            "sentinel_kwargs": {"ssl": True, "ssl_ca_certs": "/ca", "ssl_check_hostname": True},
        },
        "rediss+sentinel://h1,h2:5000/orders?ssl_ca_certs=/ca",
    ),
    "other options": ({"socket_timeout": 1, "decode_responses": True}, "redis+sentinel://h1,h2:5000/orders"),
}


@OF_SENTINEL
@pytest.mark.parametrize(("arguments", "url"), SENTINEL.values(), ids=SENTINEL)
def test_primary_by_sentinel(sentinel_class: type[Any], arguments: dict[str, Any], url: str) -> None:
    deployment = Deployment.of(sentinel_class(PLACES, **arguments).master_for("orders"))
    assert _known(deployment) == Deployment.of(url)
    assert SECRET not in repr(deployment)


@OF_SENTINEL
def test_replica_by_sentinel(sentinel_class: type[Any]) -> None:
    deployment = Deployment.of(sentinel_class(PLACES).slave_for("orders", password="p", db=2))
    assert deployment.replica
    assert _known(deployment) == replace(
        Deployment.of("redis+sentinel://:p@h1,h2:5000/orders/2"), replica=True
    )


@OF_SENTINEL
def test_tls_of_the_data_alone(sentinel_class: type[Any]) -> None:
    deployment = Deployment.of(sentinel_class(PLACES).master_for("orders", ssl=True, ssl_cert_reqs="none"))
    assert deployment.login.tls is not None
    assert deployment.login.tls.verify == "none"
    assert [seed.tls for seed in deployment.seeds] == [None, None]


@OF_SENTINEL
def test_service_in_bytes(sentinel_class: type[Any]) -> None:
    assert Deployment.of(sentinel_class(PLACES).master_for(b"orders")).service == "orders"


@OF_SENTINEL
def test_credential_provider_of_the_data(sentinel_class: type[Any]) -> None:
    provider = Blocking()
    deployment = Deployment.of(sentinel_class(PLACES).master_for("orders", credential_provider=provider))
    assert provider.asked == 0
    assert deployment.endpoint("a", 1).credentials is not None
    assert deployment.seeds[0].credentials is None


@OF_SENTINEL
def test_client_of_sentinel_stays_as_it_was(sentinel_class: type[Any]) -> None:
    client = sentinel_class(PLACES, password="p").master_for("orders")
    pool = client.connection_pool
    before, arguments = dict(vars(pool)), dict(pool.connection_kwargs)
    sentinels = list(pool.sentinel_manager.sentinels)
    for _ in range(3):
        assert Deployment.of(client).service == "orders"
    assert dict(vars(pool)) == before
    assert pool.connection_kwargs == arguments
    assert pool.sentinel_manager.sentinels == sentinels


@pytest.mark.parametrize("sentinel_class", [redis.Sentinel, redis.asyncio.Sentinel])
def test_forced_address_of_the_primary(sentinel_class: type[Any]) -> None:
    sentinel = sentinel_class(PLACES, force_master_ip="10.0.0.1")
    deployment = Deployment.of(sentinel.master_for("orders"))
    assert deployment.endpoint("a", 7000) == Endpoint("10.0.0.1", 7000)
    assert pickle.loads(pickle.dumps(deployment)).endpoint("a", 7000) == Endpoint("10.0.0.1", 7000)
    assert Deployment.of(sentinel.slave_for("orders")).endpoint("a", 7000) == Endpoint("a", 7000)


def test_coredis_by_sentinel() -> None:
    places = [TCPLocation(*place) for place in PLACES]
    sentinel = coredis.Sentinel(
        places, sentinel_kwargs={"password": SECRET}, username="u", password="p", db=2
    )
    url = f"redis+sentinel://u:p@h1,h2:5000/orders/2?sentinel_password={SECRET}"
    assert Deployment.of(sentinel.primary_for("orders")) == Deployment.of(url)
    assert Deployment.of(sentinel.replica_for("orders")) == replace(Deployment.of(url), replica=True)


def test_coredis_by_sentinel_with_tls() -> None:
    context = ssl.create_default_context()
    client = coredis.Sentinel([TCPLocation("h1", 26379)]).primary_for("orders", ssl_context=context)
    deployment = Deployment.of(client)
    assert deployment.endpoint("a", 1).tls == TLS(context=context)
    assert deployment.seeds == (Endpoint("h1", 26379),)


NO_SERVICE = {
    "redis": (lambda: redis.Sentinel(PLACES), "redis's Sentinel .* master_for"),
    "redis.asyncio": (lambda: redis.asyncio.Sentinel(PLACES), "redis's Sentinel .* master_for"),
    "valkey": (lambda: valkey.Sentinel(PLACES), "valkey's Sentinel .* master_for"),
    "coredis": (lambda: coredis.Sentinel([TCPLocation("h", 1)]), "coredis's Sentinel .* primary_for"),
}


@pytest.mark.parametrize(("sentinel", "says"), NO_SERVICE.values(), ids=NO_SERVICE)
@pytest.mark.parametrize("of", [Deployment.of, Endpoint.of], ids=["Deployment", "Endpoint"])
def test_sentinel_without_a_service(
    of: Callable[[object], Any], sentinel: Callable[[], Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        of(sentinel())


@OF_SENTINEL
def test_a_service_is_no_endpoint(sentinel_class: type[Any]) -> None:
    # what its pool says before it has asked is localhost, which is another server
    for client in (sentinel_class(PLACES).master_for("orders"), sentinel_class(PLACES).slave_for("orders")):
        with pytest.raises(InvalidInput, match="of Sentinel where one server is needed"):
            Endpoint.of(client)


def test_sentinel_of_a_pool_that_does_not_say_where_it_is() -> None:
    pool = redis.ConnectionPool(connection_class=redis.sentinel.SentinelManagedConnection)
    with pytest.raises(InvalidInput, match="does not say where its Sentinels are"):
        Deployment.of(redis.Redis(connection_pool=pool))


async def test_a_cluster_over_tls_is_read(tls_cluster_node: TLSServer) -> None:
    tls_cluster_node.admin.mset({f"{{same}}:{n}": n for n in range(500)})
    for scheme in ("rediss", "rediss+cluster"):
        url = f"{scheme}://localhost:{tls_cluster_node.tls_port}?ssl_ca_certs={tls_cluster_node.ca_certs}"
        stream = oneatatime.stream(url)
        assert len([key async for key in stream.keys()]) == 500
        assert stream.statistics().complete
