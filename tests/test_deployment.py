"""Deployments as values, and what URLs of clusters and of Sentinel mean."""

from __future__ import annotations

import copy
import logging
import pickle
import ssl
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oneatatime._deployment import Deployment
from oneatatime._endpoint import TLS, Endpoint
from oneatatime._errors import Error, InvalidInput, ProtocolViolation
from tests.test_url import ANY_TEXT, BARE, HOSTS, SECRET, URL, URL_THAT_MAKES_NO_SENSE, _everything_said


def cluster(*seeds: Endpoint, **login: Any) -> Deployment:
    return Deployment("cluster", tuple(replace(seed, **login) for seed in seeds), Endpoint(**login))


def sentinel(*seeds: Endpoint, service: str = "orders", **login: Any) -> Deployment:
    return Deployment("sentinel", seeds, Endpoint(**login), service)


# URLs


@pytest.mark.parametrize(("url", "expected"), URL.values(), ids=URL)
def test_url_of_one_server(url: str, expected: Endpoint) -> None:
    assert Deployment.of(url) == Deployment("server", (expected,), expected)


S1, S2 = Endpoint("h1", 26379), Endpoint("h2", 26379)

URL_OF_SEVERAL = {
    "cluster": ("redis+cluster://h1:7000,h2:7001", cluster(Endpoint("h1", 7000), Endpoint("h2", 7001))),
    "cluster with one node, default port": ("redis+cluster://h", cluster(Endpoint("h", 6379))),
    "cluster in capitals": ("REDIS+CLUSTER://h/", cluster(Endpoint("h"))),
    "valkey cluster": ("valkey+cluster://h", cluster(Endpoint("h"))),
    "cluster with db": ("redis+cluster://h/3", cluster(Endpoint("h"), db=3)),
    "cluster with db twice: the option wins": ("redis+cluster://h/3?db=4", cluster(Endpoint("h"), db=4)),
    "cluster with user": (
        "redis+cluster://u:p%40@h1,h2",
        cluster(Endpoint("h1"), Endpoint("h2"), username="u", password="p@"),
    ),
    "cluster with a bare comma and @ in the password": (
        "redis+cluster://u:p,q@r@h",
        cluster(Endpoint("h"), username="u", password="p,q@r"),
    ),
    "cluster with user in options": (
        "redis+cluster://h?username=u&password=p&protocol=2",
        cluster(Endpoint("h"), username="u", password="p", protocol=2),
    ),
    "cluster over IPv6": (
        "redis+cluster://[::1]:7000,[::2]",
        cluster(Endpoint("::1", 7000), Endpoint("::2")),
    ),
    "cluster with TLS": ("rediss+cluster://h", cluster(Endpoint("h"), tls=TLS())),
    "cluster with TLS of valkey": (
        "valkeys+cluster://h?ssl_ca_certs=/ca.pem",
        cluster(Endpoint("h"), tls=TLS(ca_certs="/ca.pem")),
    ),
    "the same node twice": ("redis+cluster://h,h:6379", cluster(Endpoint("h"))),
    "Sentinel": ("redis+sentinel://h1:26379,h2:26379/orders/0", sentinel(S1, S2)),
    "Sentinel, default port, no db": ("redis+sentinel://h1,h2/orders", sentinel(S1, S2)),
    "Sentinel of valkey, with a slash at the end": ("valkey+sentinel://h1/orders/", sentinel(S1)),
    "Sentinel on another port": ("redis+sentinel://h1:5000/orders", sentinel(Endpoint("h1", 5000))),
    "Sentinel with db": ("redis+sentinel://h1/orders/2", sentinel(S1, db=2)),
    "Sentinel with db as an option": ("redis+sentinel://h1/orders?db=2", sentinel(S1, db=2)),
    "a service of digits": ("redis+sentinel://h1/1/0", sentinel(S1, service="1")),
    "a service that is encoded": ("redis+sentinel://h1/a%2Fb%40c/0", sentinel(S1, service="a/b@c")),
    "the user is the data server's": (
        "redis+sentinel://u:p@h1,h2/orders",
        sentinel(S1, S2, username="u", password="p"),
    ),
    "the Sentinels' user": (
        "redis+sentinel://:p@h1/orders?sentinel_username=su&sentinel_password=sp%40",
        sentinel(replace(S1, username="su", password="sp@"), password="p"),
    ),
    "the Sentinels' password alone": (
        "redis+sentinel://h1/orders?sentinel_password=sp",
        sentinel(replace(S1, password="sp")),
    ),
    "TLS for both": (
        "rediss+sentinel://h1/orders?ssl_ca_certs=/ca.pem&ssl_certfile=/c&ssl_keyfile=/k",
        sentinel(
            replace(S1, tls=TLS(ca_certs="/ca.pem", certfile="/c", keyfile="/k")),
            tls=TLS(ca_certs="/ca.pem", certfile="/c", keyfile="/k"),
        ),
    ),
    "protocol for both": ("valkeys+sentinel://h1/orders?protocol=2", None),
}


@pytest.mark.parametrize(("url", "expected"), URL_OF_SEVERAL.values(), ids=URL_OF_SEVERAL)
def test_url_of_several(url: str, expected: Deployment | None) -> None:
    if expected is None:
        expected = sentinel(replace(S1, protocol=2, tls=TLS()), protocol=2, tls=TLS())
    assert Deployment.of(url) == expected


@pytest.mark.parametrize("url", [url for url, _ in URL_OF_SEVERAL.values()])
def test_url_of_several_is_no_endpoint(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"of (a cluster|Sentinel) where one server is needed"):
        Endpoint.of(url)


NO_SENSE = {
    "cluster without host": (f"redis+cluster://:{SECRET}@", "no host"),
    "cluster with a comma at the end": (f"redis+cluster://:{SECRET}@h,", "no host"),
    "cluster with a space": (f"redis+cluster://:{SECRET}@h1, h2", "no host name"),
    "cluster with a bad port": (f"redis+cluster://:{SECRET}@h1:70000", "from 1 to 65535"),
    "cluster with a password without @": (f"redis+cluster://u:{SECRET},h", "the port must be a number"),
    "cluster over IPv6 without brackets": (f"redis+cluster://:{SECRET}@::1,::2", "in brackets"),
    "cluster with db in words": (f"redis+cluster://:{SECRET}@h/zero", "number of a database"),
    "cluster with db below 0": ("redis+cluster://h?db=-1", "from 0 up"),
    "cluster with a service": (f"redis+cluster://:{SECRET}@h/orders/0", "number of a database"),
    "cluster with a service as an option": ("redis+cluster://h?service_name=orders", "follows the hosts"),
    "cluster with a socket": ("redis+cluster://h?path=/x", "no option 'path'"),
    "cluster with host as an option": ("redis+cluster://?host=h", "no option 'host'"),
    "cluster with a Sentinel's password": (
        f"redis+cluster://h?sentinel_password={SECRET}",
        "no option 'sentinel_password'",
    ),
    "cluster with TLS without TLS": ("redis+cluster://h?ssl_cert_reqs=none", "without TLS"),
    "cluster with a bare / in the password": (f"redis+cluster://u:12,h/{SECRET}@h", "%2F"),
    "cluster with a bare ? in the password": (f"redis+cluster://u:12,{SECRET}?password=1@h/0", "%3F"),
    "cluster spelt otherwise": (f"redis-cluster://:{SECRET}@h", "write redis+cluster://"),
    "cluster alone": (f"cluster://:{SECRET}@h", "write redis+cluster://"),
    "a slip in cluster": (f"redis+clustr://:{SECRET}@h", "did you mean redis+cluster://"),
    "cluster over a socket": ("unix+cluster:///x", "write redis+cluster://"),
    "two hosts of no kind": (f"redis://:{SECRET}@h1:1,h2:2", "for a cluster, write redis+cluster://"),
    "two URLs in one": (f"redis://:{SECRET}@h1,redis://:{SECRET}@h2", "for a cluster, write"),
    "Sentinel without a service": (
        f"redis+sentinel://:{SECRET}@h1,h2",
        "no service: write redis+sentinel://",
    ),
    "Sentinel with a db alone": (f"redis+sentinel://:{SECRET}@h1,h2/0", "no service"),
    "Sentinel with a space for a service": (f"redis+sentinel://:{SECRET}@h1/%20", "name of the service"),
    "Sentinel with a NUL in the service": (f"redis+sentinel://:{SECRET}@h1/a%00", "name of the service"),
    "Sentinel with a service of other bytes": (f"redis+sentinel://:{SECRET}@h1/a%FF", "not text in UTF-8"),
    "Sentinel with too much": (f"redis+sentinel://:{SECRET}@h1/orders/0/1", "number of a database"),
    "Sentinel with db in words": (f"redis+sentinel://:{SECRET}@h1/orders/zero", "number of a database"),
    "Sentinel without host": (f"redis+sentinel://:{SECRET}@/orders", "no host"),
    "lettuce's": (f"redis-sentinel://{SECRET}@h1,h2/0#orders", "write redis+sentinel://"),
    "lettuce's service": (f"redis+sentinel://:{SECRET}@h1,h2/0#orders", "the service follows the hosts"),
    "lettuce's option": (f"redis+sentinel://:{SECRET}@h1?sentinelMasterId=orders", "follows the hosts"),
    "Celery's": (f"sentinel://:{SECRET}@h1:26379;sentinel://:{SECRET}@h2", "write redis+sentinel://"),
    "Celery's socket": ("redis+socket:///x", "write unix:///"),
    "redis-sentinel-url's": (f"redis+sentinel://:{SECRET}@h1?service_name=orders", "follows the hosts"),
    "Sentinel with a bare / in the password": (f"redis+sentinel://u:12/{SECRET}@h1/0", "%2F"),
    "Sentinel with a bare ? in the password": (f"redis+sentinel://u:12/{SECRET}?db=1@h1/orders", "%3F"),
    "Sentinel with a bare # in the password": (f"redis+sentinel://u:12/{SECRET}#@h1/orders", "%23"),
    "Sentinel's password of other bytes": (
        f"redis+sentinel://h1/orders?sentinel_password={SECRET}%FF",
        "not text in UTF-8",
    ),
    "Sentinel's password twice": (
        f"redis+sentinel://h1/orders?sentinel_password={SECRET}&sentinel_password={SECRET}",
        "twice",
    ),
}


@pytest.mark.parametrize(("url", "says"), NO_SENSE.values(), ids=NO_SENSE)
def test_url_of_several_that_makes_no_sense(url: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Deployment.of(url)
    assert says in str(caught.value)
    assert SECRET not in _everything_said(caught.value)


@pytest.mark.parametrize(("url", "says"), URL_THAT_MAKES_NO_SENSE.values(), ids=URL_THAT_MAKES_NO_SENSE)
def test_url_of_one_server_that_makes_no_sense(url: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Deployment.of(url)
    assert SECRET not in _everything_said(caught.value)


def test_options_of_cluster_clients_are_accepted_and_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    url = "redis+cluster://h?require_full_coverage=false&reinitialize_steps=5&max_connections_per_node=1"
    with caplog.at_level(logging.DEBUG, logger="oneatatime"):
        assert Deployment.of(url) == cluster(Endpoint("h"))
    assert "require_full_coverage, reinitialize_steps, max_connections_per_node" in caplog.text


PLACES = st.lists(st.tuples(HOSTS, st.integers(1, 65535)), min_size=1, max_size=4, unique=True)


@given(user=ANY_TEXT, password=ANY_TEXT, places=PLACES, db=st.integers(0, 10**6))
@example(user=",", password="\0 +%40@:/?#[],\n", places=[("::1", 1), ("h", 2)], db=0)
def test_url_of_a_cluster_round_trip(
    user: str, password: str, places: list[tuple[str, int]], db: int
) -> None:
    nodes = ",".join(Endpoint(*place).node for place in places)
    url = f"redis+cluster://{quote(user, safe='')}:{quote(password, safe='')}@{nodes}/{db}"
    seeds = [Endpoint(*place) for place in places]
    assert Deployment.of(url) == cluster(*seeds, username=user, password=password, db=db)


@given(
    password=ANY_TEXT,
    of_sentinel=ANY_TEXT,
    service=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1),
    places=PLACES,
)
def test_url_of_sentinel_round_trip(
    password: str, of_sentinel: str, service: str, places: list[tuple[str, int]]
) -> None:
    nodes = ",".join(Endpoint(*place).node for place in places)
    url = f"redis+sentinel://:{quote(password, safe='')}@{nodes}/{quote(service, safe='')}/0"
    url += f"?sentinel_password={quote(of_sentinel, safe='')}"
    seeds = [Endpoint(*place, password=of_sentinel) for place in places]
    assert Deployment.of(url) == sentinel(*seeds, service=service, password=password)


@given(scheme=st.sampled_from(["redis", "redis+cluster", "redis+sentinel"]), before=BARE, after=BARE)
@example(scheme="redis+sentinel", before="12/", after="?db=1")
@example(scheme="redis+cluster", before="12,", after="?password=1")
@example(scheme="redis+sentinel", before="12,", after="/a?password=1")
def test_bare_password_is_in_no_text(scheme: str, before: str, after: str) -> None:
    url = f"{scheme}://user:{before}{SECRET}{after}@redis.example/orders/0"
    try:
        deployment = Deployment.of(url)
        said = repr(deployment) + deployment.name
    except InvalidInput as error:
        said = _everything_said(error)
    assert SECRET not in said


# Values


SHOWN = {
    "server": (
        "rediss://u:p@h/2",
        "<Deployment rediss://u:***@h:6379/2>",
        "h:6379",
    ),
    "socket": ("unix://:p@/run/r.sock", "<Deployment unix://:***@/run/r.sock?db=0>", "unix:/run/r.sock"),
    "cluster": (
        "redis+cluster://u:p@h1:7000,[::1]:7001/3",
        "<Deployment redis+cluster://u:***@h1:7000,[::1]:7001/3>",
        "cluster of h1:7000, [::1]:7001",
    ),
    "big cluster": (
        "rediss+cluster://a,b,c,d,e",
        "<Deployment rediss+cluster://a:6379,b:6379,c:6379,d:6379,e:6379/0>",
        "cluster of a:6379, b:6379, c:6379 and 2 more",
    ),
    "Sentinel": (
        "redis+sentinel://:p@h1,h2/my%20orders/2",
        "<Deployment redis+sentinel://:***@h1:26379,h2:26379/my%20orders/2>",
        "service my orders of Sentinel h1:26379, h2:26379",
    ),
    "Sentinel with a password": (
        "valkeys+sentinel://h1/orders?sentinel_password=p",
        "<Deployment rediss+sentinel://h1:26379/orders/0?sentinel_password=***>",
        "service orders of Sentinel h1:26379",
    ),
}


@pytest.mark.parametrize(("url", "shown", "name"), SHOWN.values(), ids=SHOWN)
def test_repr_and_name(url: str, shown: str, name: str) -> None:
    deployment = Deployment.of(url)
    assert repr(deployment) == str(deployment) == shown
    assert deployment.name == name


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p@h/1",
        "rediss+cluster://u:p@h1,h2?ssl_ca_data=PEM",
        "redis+sentinel://u:p@h1/orders?sentinel_password=p",
    ],
)
def test_deployment_is_a_value(url: str) -> None:
    one, two = Deployment.of(url), Deployment.of(url)
    assert one == two
    assert hash(one) == hash(two)
    assert one != Deployment.of(url.replace("u:p", "u:q"))
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert Deployment.of(one) is one
    with pytest.raises(AttributeError):
        one.kind = "server"  # type: ignore[misc]


def test_an_endpoint_is_a_deployment_of_one_server() -> None:
    endpoint = Endpoint("h", db=1)
    assert Deployment.of(endpoint) == Deployment("server", (endpoint,), endpoint)


def test_context_of_a_client_cannot_be_sent_to_another_process() -> None:
    deployment = cluster(Endpoint("h"), tls=TLS(context=ssl.create_default_context()))
    with pytest.raises(InvalidInput, match="cannot be sent to another process"):
        pickle.dumps(deployment)


def test_db_of_the_caller_wins() -> None:
    assert Deployment.of("redis://h/1", db=2) == Deployment.of("redis://h/2")
    assert Deployment.of(Endpoint("h", db=1), db=2) == Deployment.of("redis://h/2")
    assert Deployment.of("redis+cluster://h1,h2/1", db=0) == Deployment.of("redis+cluster://h1,h2")
    assert Deployment.of("redis+sentinel://h/orders/1", db=2) == Deployment.of("redis+sentinel://h/orders/2")
    assert Deployment.of(Deployment.of("redis+cluster://h"), db=2).login.db == 2


@pytest.mark.parametrize("url", ["redis://h", "redis+cluster://h", "redis+sentinel://h/orders"])
@pytest.mark.parametrize("db", [-1, True, "x", 1.5])
def test_db_that_makes_no_sense(url: str, db: Any) -> None:
    with pytest.raises(InvalidInput, match="db must be a number"):
        Deployment.of(url, db=db)


@pytest.mark.parametrize("source", [None, 6379, b"redis+cluster://h", ["redis://h"], object(), Deployment])
def test_source_of_another_kind(source: object) -> None:
    with pytest.raises(InvalidInput, match=r"a source is a URL .* or a client of redis-py") as caught:
        Deployment.of(source)
    assert type(source).__name__ in str(caught.value)


WRONG = {
    "another kind": {"kind": "proxy"},
    "no seed": {"seeds": ()},
    "two servers": {"kind": "server", "seeds": (Endpoint("a"), Endpoint("b"))},
    "Sentinel without a service": {"kind": "sentinel"},
    "Sentinel with an empty service": {"kind": "sentinel", "service": ""},
    "a service of a cluster": {"service": "orders"},
    "a cluster over a socket": {"seeds": (Endpoint(path="/x"),)},
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_deployment_that_makes_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Deployment(**{"kind": "cluster", "seeds": (Endpoint("h"),), "login": Endpoint(), **arguments})


# The endpoints of data nodes


def test_endpoint_of_a_node_has_the_login_of_all() -> None:
    deployment = Deployment.of("rediss+cluster://u:p@h1/3?protocol=2")
    assert deployment.endpoint("10.0.0.1", 7000) == replace(deployment.login, host="10.0.0.1", port=7000)
    assert deployment.endpoint("h1", 6379) == deployment.seeds[0]


def test_endpoint_of_a_service_has_nothing_of_its_sentinels() -> None:
    deployment = Deployment.of("redis+sentinel://u:p@h1/orders/3?sentinel_username=su&sentinel_password=sp")
    assert deployment.endpoint("10.0.0.1", 7000) == Endpoint(
        "10.0.0.1", 7000, db=3, username="u", password="p"
    )


def test_endpoint_of_a_node_that_was_found_over_a_socket() -> None:
    deployment = Deployment.of("unix://:p@/run/r.sock")
    assert deployment.endpoint("10.0.0.1", 7000) == Endpoint("10.0.0.1", 7000, password="p")


def _mapped(host: str, port: int) -> tuple[str, int]:
    return f"{host}.example", port + 1


def test_endpoint_of_a_node_goes_through_the_map() -> None:
    deployment = replace(Deployment.of("redis+cluster://h"), remap=_mapped)
    assert deployment.endpoint("a", 7000) == Endpoint("a.example", 7001)
    assert pickle.loads(pickle.dumps(deployment)).endpoint("a", 7000) == Endpoint("a.example", 7001)
    assert deployment == Deployment.of("redis+cluster://h")


@pytest.mark.parametrize(
    ("host", "port"),
    [("", 1), ("?", 1), ("h", 0), ("h", 65536), ("a b", 1), (None, 1), (b"h", 1), ("h", "x")],
)
def test_what_is_no_address_is_an_error(host: Any, port: Any) -> None:
    deployment = Deployment.of(f"redis+cluster://:{SECRET}@h")
    with pytest.raises(ProtocolViolation, match=r"cluster of h:6379: .* is no address") as caught:
        deployment.endpoint(host, port)
    assert SECRET not in _everything_said(caught.value)


@pytest.mark.parametrize("place", [None, (), ("", 1), ("h", None), (b"h", 1), 5])
def test_what_the_map_makes_is_checked(place: Any) -> None:
    deployment = replace(Deployment.of("redis+cluster://h"), remap=lambda host, port: place)
    with pytest.raises(InvalidInput, match=r"map of addresses makes none of \('a', 7000\)"):
        deployment.endpoint("a", 7000)


@given(password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_password_is_in_no_text(password: str) -> None:
    password = f"<{password}>"  # longer than what a repr has in it by chance
    own = Endpoint("h", username="u", password=password)
    texts = []
    for deployment in (
        Deployment.of(own),
        Deployment("cluster", (own,), own),
        Deployment("sentinel", (own,), own, "orders"),
        Deployment("sentinel", (Endpoint("h", username=password, password=""),), Endpoint(), "orders"),
    ):
        texts += [repr(deployment), str(deployment), deployment.name]
        try:
            deployment.endpoint("", 0)
        except Error as error:
            texts.append(_everything_said(error))
    for text in texts:
        assert password not in text
        assert quote(password, safe="") not in text
