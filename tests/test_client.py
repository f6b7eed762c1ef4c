"""Real client objects: what is read off them, and that they stay as they were."""

from __future__ import annotations

import pickle
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coredis
import coredis.credentials
import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio

from oneatatime._endpoint import TLS, Endpoint
from oneatatime._errors import InvalidInput

SECRET = "s3cr3tpassw0rd"


REDIS_AND_VALKEY = [redis.Redis, redis.asyncio.Redis, valkey.Valkey, valkey.asyncio.Valkey]
POOLED = pytest.mark.parametrize(
    "client_class", REDIS_AND_VALKEY, ids=["redis", "redis.asyncio", "valkey", "valkey.asyncio"]
)


def _known(endpoint: Endpoint) -> Endpoint:
    """Without what differs between the clients: valkey-py always says RESP2."""
    return Endpoint(**{**vars(endpoint), "protocol": None})


CLIENT = {
    "default": ({}, Endpoint()),
    "address": ({"host": "h", "port": 7000, "db": 3}, Endpoint("h", 7000, db=3)),
    "numbers in text": ({"host": "::1", "port": "7000", "db": "3"}, Endpoint("::1", 7000, db=3)),
    "user and password": ({"username": "u", "password": SECRET}, Endpoint(username="u", password=SECRET)),
    "user without password": ({"username": "u"}, Endpoint(username="u", password="")),
    "unix socket": ({"unix_socket_path": "/x", "db": 2}, Endpoint(path="/x", db=2)),
    "other options": ({"decode_responses": True, "max_connections": 1}, Endpoint()),
}


@POOLED
@pytest.mark.parametrize(("arguments", "expected"), CLIENT.values(), ids=CLIENT)
def test_client(client_class: type[Any], arguments: dict[str, Any], expected: Endpoint) -> None:
    assert _known(Endpoint.of(client_class(**arguments))) == expected


@POOLED
@pytest.mark.parametrize(
    "url", ["redis://u:p%40@h:7000/3", "unix://u:p@/x?db=2", "rediss://h?ssl_cert_reqs=none", "rediss://h"]
)
def test_client_from_url_means_the_same_as_the_url(client_class: type[Any], url: str) -> None:
    assert Endpoint.of(client_class.from_url(url)) == Endpoint.of(url)


@POOLED
def test_client_with_tls(client_class: type[Any], tmp_path: Path) -> None:
    client = client_class(
        host="h",
        ssl=True,
        ssl_cert_reqs="optional",
        ssl_check_hostname=True,
        ssl_ca_certs=str(tmp_path),
        ssl_certfile="/c",
        ssl_keyfile="/k",
        ssl_min_version=ssl.TLSVersion.TLSv1_3,
        ssl_ciphers="HIGH",
    )
    expected = TLS(
        ca_certs=str(tmp_path),
        certfile="/c",
        keyfile="/k",
        verify="optional",
        minimum_version=ssl.TLSVersion.TLSv1_3,
        ciphers="HIGH",
    )
    assert Endpoint.of(client).tls == expected


TLS_OPTIONS_OF_REDIS_PY = {
    "default verifies all": ({}, TLS()),
    "None is none, as there": ({"ssl_cert_reqs": None}, TLS(verify="none")),
    "of the ssl module": ({"ssl_cert_reqs": ssl.CERT_NONE}, TLS(verify="none")),
    "host name unverified": ({"ssl_check_hostname": False}, TLS(check_hostname=False)),
    "password of the key": ({"ssl_password": SECRET}, TLS(key_password=SECRET)),
    "DER bytes": ({"ssl_ca_data": b"DER"}, TLS(ca_data=b"DER")),
    "verify flags": (
        {"ssl_exclude_verify_flags": [ssl.VerifyFlags.VERIFY_X509_STRICT]},
        TLS(exclude_verify_flags=("VERIFY_X509_STRICT",)),
    ),
}


@pytest.mark.parametrize(
    ("arguments", "expected"), TLS_OPTIONS_OF_REDIS_PY.values(), ids=TLS_OPTIONS_OF_REDIS_PY
)
@pytest.mark.parametrize("client_class", [redis.Redis, redis.asyncio.Redis])
def test_tls_options_of_redis_py(client_class: type[Any], arguments: dict[str, Any], expected: TLS) -> None:
    assert Endpoint.of(client_class(ssl=True, **arguments)).tls == expected


def test_ocsp_of_a_client_is_refused_rather_than_left_out() -> None:
    with pytest.raises(InvalidInput, match="OCSP"):
        Endpoint.of(redis.Redis(ssl=True, ssl_validate_ocsp_stapled=True))


@POOLED
def test_protocol_2_is_kept_and_3_may_fall_back(client_class: type[Any]) -> None:
    assert Endpoint.of(client_class(protocol=2)).protocol == 2
    assert Endpoint.of(client_class(protocol=3)).protocol is None


@POOLED
def test_subclass_of_a_client(client_class: type[Any]) -> None:
    mine = type("Mine", (client_class,), {"__module__": "app"})
    assert Endpoint.of(mine(host="h", db=1), db=2).db == 2


def _state(pool: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, list | set) else value for name, value in vars(pool).items()
    }


@POOLED
@pytest.mark.parametrize("pool_class", ["ConnectionPool", "BlockingConnectionPool"])
def test_client_stays_as_it_was(client_class: type[Any], pool_class: str) -> None:
    module = sys.modules[client_class.__module__.removesuffix(".client")]
    pool = getattr(module, pool_class)(host="h", max_connections=1)
    client = client_class(connection_pool=pool)
    before, arguments = _state(pool), dict(pool.connection_kwargs)
    for _ in range(3):
        assert Endpoint.of(client).host == "h"
    assert _state(pool) == before
    assert pool.connection_kwargs == arguments


def test_client_with_one_connection_can_still_use_it(server: Any) -> None:
    with redis.Redis.from_url(server.url, max_connections=1) as client:
        for _ in range(3):
            assert Endpoint.of(client) == Endpoint.of(server.url)
        assert client.ping()


COREDIS = {
    "default": (lambda: coredis.Redis(), Endpoint()),
    "all": (
        lambda: coredis.Redis("h", 7000, 3, username="u", password="p"),
        Endpoint("h", 7000, db=3, username="u", password="p"),
    ),
    "unix": (lambda: coredis.Redis(unix_socket_path="/x", db=1), Endpoint(path="/x", db=1)),
    "from a URL": (
        lambda: coredis.Redis.from_url("redis://u:p@h:7000/3"),
        Endpoint("h", 7000, db=3, username="u", password="p"),
    ),
    "subclass": (lambda: type("Mine", (coredis.Redis,), {})("h"), Endpoint("h")),
}


@pytest.mark.parametrize(("client", "expected"), COREDIS.values(), ids=COREDIS)
def test_coredis(client: Callable[[], Any], expected: Endpoint) -> None:
    assert Endpoint.of(client()) == expected


def test_context_of_a_client_is_used_as_it_is() -> None:
    context = ssl.create_default_context()
    endpoint = Endpoint.of(coredis.Redis("h", ssl_context=context))
    assert endpoint.tls is not None
    assert endpoint.tls.ssl_context() is context
    with pytest.raises(InvalidInput, match="cannot be sent to another process"):
        pickle.dumps(endpoint)


# Credential providers: asked at every connect, never before


class Blocking:
    asked = 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        return "u", f"{SECRET}{self.asked}"


class BlockingOfRedis(Blocking, redis.credentials.CredentialProvider):
    """Its `get_credentials_async` is redis-py's own, which blocks and warns."""


class Asynchronous(redis.credentials.CredentialProvider):
    asked = 0

    async def get_credentials_async(self) -> tuple[str, str]:
        self.asked += 1
        return "u", f"{SECRET}{self.asked}"


class OfCoredis(coredis.credentials.AbstractCredentialProvider):
    asked = 0

    async def get_credentials(self) -> coredis.credentials.UserPass:
        self.asked += 1
        return coredis.credentials.UserPass("u", f"{SECRET}{self.asked}")


@pytest.mark.parametrize(
    ("client_class", "provider_class"),
    [
        (redis.Redis, Blocking),
        (redis.asyncio.Redis, BlockingOfRedis),
        (redis.asyncio.Redis, Asynchronous),
        (valkey.Valkey, Blocking),
        (valkey.asyncio.Valkey, Blocking),
        (coredis.Redis, OfCoredis),
    ],
)
async def test_credential_provider(
    client_class: type[Any], provider_class: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    provider = provider_class()
    endpoint = Endpoint.of(client_class(credential_provider=provider))
    assert provider.asked == 0
    assert endpoint.credentials is not None
    assert await endpoint.credentials() == ("u", f"{SECRET}1")
    assert await endpoint.credentials() == ("u", f"{SECRET}2")
    assert repr(endpoint) == "<Endpoint redis://***@localhost:6379/0>"
    assert not caplog.records


@pytest.mark.parametrize(("user", "expected"), [("u", ("u", "p")), (None, (None, "p"))])
async def test_credential_provider_of_a_fixed_password(
    user: str | None, expected: tuple[str | None, str]
) -> None:
    provider = redis.UsernamePasswordCredentialProvider(user, "p")
    endpoint = Endpoint.of(redis.asyncio.Redis(credential_provider=provider))
    assert endpoint.credentials is not None
    assert await endpoint.credentials() == expected
    again = pickle.loads(pickle.dumps(endpoint))
    assert await again.credentials() == expected


async def test_credential_provider_that_gives_something_else() -> None:
    provider = Blocking()
    provider.get_credentials = lambda: SECRET  # type: ignore[assignment, method-assign, return-value]
    endpoint = Endpoint.of(redis.Redis(credential_provider=provider))
    assert endpoint.credentials is not None
    with pytest.raises(InvalidInput, match="must give") as caught:
        await endpoint.credentials()
    assert SECRET not in str(caught.value)


# Clients without a server


def test_fakeredis_has_no_server() -> None:
    # a connection to localhost, which its settings name, would read the keys of somebody else
    pool = redis.ConnectionPool(
        connection_class=type("FakeConnection", (), {"__module__": "fakeredis._connection"})
    )
    with pytest.raises(InvalidInput, match="no server"):
        Endpoint.of(redis.Redis(connection_pool=pool))
