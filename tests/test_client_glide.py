"""Clients of valkey-glide: what their configuration says; connected ones too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import glide
import pytest

from oneatatime._deployment import Deployment
from oneatatime._endpoint import TLS, Endpoint
from oneatatime._errors import InvalidInput
from tests.servers import Server
from tests.test_client_cluster import _cluster_node, cluster_node  # noqa: F401 # fixtures

SECRET = "s3cr3tpassw0rd"


def _glide(client_class: type[Any] = glide.GlideClient, **arguments: Any) -> Any:
    """A client with its configuration, not connected."""
    configuration = (
        glide.GlideClientConfiguration
        if client_class is glide.GlideClient
        else glide.GlideClusterClientConfiguration
    )
    client = client_class.__new__(client_class)
    client.config = configuration(**{"addresses": [glide.NodeAddress("h", 7000)], **arguments})
    return client


CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


def _glide_tls(**arguments: Any) -> dict[str, Any]:
    tls = glide.TlsAdvancedConfiguration(**arguments)
    return {"use_tls": True, "advanced_config": glide.AdvancedGlideClientConfiguration(tls_config=tls)}


GLIDE = {
    "address": ({}, Endpoint("h", 7000)),
    "the first of several": ({"addresses": [glide.NodeAddress("a"), glide.NodeAddress("b")]}, Endpoint("a")),
    "unix socket": ({"addresses": [glide.NodeAddress(unix_socket_path="/x")]}, Endpoint(path="/x")),
    "resolver": ({"address_resolver": lambda host, port: (f"{host}2", port + 1)}, Endpoint("h2", 7001)),
    "db": ({"database_id": 3}, Endpoint("h", 7000, db=3)),
    "RESP2": ({"protocol": glide.ProtocolVersion.RESP2}, Endpoint("h", 7000, protocol=2)),
    "user and password": (
        {"credentials": glide.ServerCredentials(SECRET, "u")},
        Endpoint("h", 7000, username="u", password=SECRET),
    ),
    "password": ({"credentials": glide.ServerCredentials(SECRET)}, Endpoint("h", 7000, password=SECRET)),
    "TLS": ({"use_tls": True}, Endpoint("h", 7000, tls=TLS())),
    "TLS unverified": (_glide_tls(use_insecure_tls=True), Endpoint("h", 7000, tls=TLS(verify="none"))),
    "TLS with certificates": (
        _glide_tls(root_pem_cacerts=CERTIFICATE, client_cert_path=Path("/c"), client_key_path="/k"),
        Endpoint("h", 7000, tls=TLS(ca_data=CERTIFICATE.decode(), certfile="/c", keyfile="/k")),
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), GLIDE.values(), ids=GLIDE)
def test_glide(arguments: dict[str, Any], expected: Endpoint) -> None:
    assert Endpoint.of(_glide(**arguments)) == expected


GLIDE_THAT_CANNOT_BE_READ = {
    "key in memory": (_glide_tls(client_cert_pem=b"c", client_key_pem=b"k"), "must be in files"),
    "IAM": (
        {
            "credentials": glide.ServerCredentials(
                username="u",
                iam_config=glide.IamAuthConfig("cluster", glide.ServiceType.ELASTICACHE, "region"),
            )
        },
        "IAM tokens",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "says"), GLIDE_THAT_CANNOT_BE_READ.values(), ids=GLIDE_THAT_CANNOT_BE_READ
)
def test_glide_that_cannot_be_read(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Endpoint.of(_glide(**arguments))


def port_of(server: Any) -> int:
    return int(server.url.rpartition(":")[2].split("/")[0])


async def test_glide_connected(tcp_server: Any) -> None:
    address = glide.NodeAddress("127.0.0.1", port_of(tcp_server))
    client = await glide.GlideClient.create(glide.GlideClientConfiguration([address], database_id=1))
    try:
        assert Endpoint.of(client) == Endpoint("127.0.0.1", port_of(tcp_server), db=1)
    finally:
        await client.close()


GLIDE_CLUSTER = {
    "all addresses": (
        {"addresses": [glide.NodeAddress("a", 7000), glide.NodeAddress("b", 7001)]},
        (Endpoint("a", 7000), Endpoint("b", 7001)),
    ),
    "resolver": (
        {"address_resolver": lambda host, port: (f"{host}2", port + 1)},
        (Endpoint("h2", 7001),),
    ),
    "db": ({"database_id": 3}, (Endpoint("h", 7000, db=3),)),
    "RESP2": ({"protocol": glide.ProtocolVersion.RESP2}, (Endpoint("h", 7000, protocol=2),)),
    "user and password": (
        {"credentials": glide.ServerCredentials(SECRET, "u")},
        (Endpoint("h", 7000, username="u", password=SECRET),),
    ),
    "TLS": (
        {
            "use_tls": True,
            "advanced_config": glide.AdvancedGlideClusterClientConfiguration(
                tls_config=glide.TlsAdvancedConfiguration(root_pem_cacerts=CERTIFICATE)
            ),
        },
        (Endpoint("h", 7000, tls=TLS(ca_data=CERTIFICATE.decode())),),
    ),
}


@pytest.mark.parametrize(("arguments", "seeds"), GLIDE_CLUSTER.values(), ids=GLIDE_CLUSTER)
def test_glide_cluster(arguments: dict[str, Any], seeds: tuple[Endpoint, ...]) -> None:
    client = _glide(glide.GlideClusterClient, **arguments)
    deployment = Deployment.of(client)
    assert deployment == Deployment("cluster", seeds, replace(seeds[0], host="localhost", port=6379))
    with pytest.raises(InvalidInput, match=r"glide's GlideClusterClient of a cluster where one server"):
        Endpoint.of(client)


def test_glide_cluster_resolves_what_nodes_announce() -> None:
    client = _glide(glide.GlideClusterClient, address_resolver=lambda host, port: (f"{host}2", port + 1))
    assert Deployment.of(client).endpoint("a", 1) == Endpoint("a2", 2)


def test_glide_cluster_with_iam_cannot_be_read() -> None:
    arguments, says = GLIDE_THAT_CANNOT_BE_READ["IAM"]
    with pytest.raises(InvalidInput, match=says):
        Deployment.of(_glide(glide.GlideClusterClient, **arguments))


async def test_glide_cluster_connected(cluster_node: Server) -> None:  # noqa: F811
    port = port_of(cluster_node)
    configuration = glide.GlideClusterClientConfiguration([glide.NodeAddress("127.0.0.1", port)])
    client = await glide.GlideClusterClient.create(configuration)
    try:
        assert Deployment.of(client) == Deployment.of(f"redis+cluster://127.0.0.1:{port}")
    finally:
        await client.close()


def test_glide_sync(tcp_server: Any) -> None:
    glide_sync = pytest.importorskip("glide_sync")
    address = glide_sync.NodeAddress("127.0.0.1", port_of(tcp_server))
    client = glide_sync.GlideClient.create(glide_sync.GlideClientConfiguration([address]))
    try:
        assert Endpoint.of(client) == Endpoint("127.0.0.1", port_of(tcp_server))
    finally:
        client.close()


def test_glide_sync_cluster(cluster_node: Server) -> None:  # noqa: F811
    glide_sync = pytest.importorskip("glide_sync")
    port = port_of(cluster_node)
    configuration = glide_sync.GlideClusterClientConfiguration([glide_sync.NodeAddress("127.0.0.1", port)])
    client = glide_sync.GlideClusterClient.create(configuration)
    try:
        assert Deployment.of(client) == Deployment.of(f"redis+cluster://127.0.0.1:{port}")
    finally:
        client.close()
