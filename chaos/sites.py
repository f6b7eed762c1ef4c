"""What is tried: one server behind a proxy, a primary under sentinels, a cluster. How to write, and look."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tests.clusters import SLOTS, Cluster, Line, Sentinel, slot_of
from tests.nodes import Folder, Node, Refused, Wire, Word, debug_allowed, free_ports, version_of
from tests.proxy import Fault, FaultProxy, Plan
from tests.servers import program

_PATIENCE_STEP = 0.05


class Site(Protocol):
    """Where keys live. `send` and `existing` may be called from any thread, whatever is down."""

    name: str
    rest: Callable[[float], object]

    def url(self) -> str:
        """What readers are given."""

    def send(self, commands: Sequence[Sequence[Word]]) -> list[bool]:
        """Run commands with a key each, wherever the key lives; whether each was done."""

    def existing(self, keys: Sequence[bytes], *, patience: float) -> dict[bytes, bool]:
        """Whether each key is there; what could not be found out in `patience` seconds is not in it."""

    def close(self) -> None: ...


class _Wires:
    """Connections of a thread, by port."""

    def __init__(self) -> None:
        self._own = threading.local()

    def to(self, port: int) -> Wire:
        if not hasattr(self._own, "wires"):
            self._own.wires = {}
        wires: dict[int, Wire] = self._own.wires
        return wires.setdefault(port, Wire(port, timeout=2.0))


class ClusterSite:
    """A cluster; with `cuts`, all reach its nodes through proxies that cut at random bytes."""

    def __init__(self, name: str, *, replicas: int = 1, cuts: bool = False) -> None:
        self.name = "cluster"
        self.rest: Callable[[float], object] = time.sleep
        self.proxies = Proxies() if cuts else None
        announce = self.proxies.before if self.proxies is not None else None
        self.cluster = Cluster(3, replicas, name=name, node_timeout=1000, announce=announce)
        self.cluster.start()
        self._wires = _Wires()
        self._owners: list[int] = [0] * SLOTS
        self.look()

    def url(self) -> str:
        living = [node for node in self.cluster.nodes if node.alive and not node.paused]
        announce = self.proxies.before if self.proxies is not None else (lambda port: port)
        places = ",".join(f"127.0.0.1:{announce(node.port)}" for node in living)
        return f"redis+cluster://{places}"

    def look(self) -> None:
        """Learn who owns what: of those who claim a slot for themselves, the one with the highest epoch."""
        best = [(-1, 0)] * SLOTS
        for node in list(self.cluster.nodes):
            if not node.alive or node.paused:
                continue
            try:
                text = self._wires.to(node.port).call("CLUSTER", "NODES")
            except (OSError, Refused):
                continue
            for line in map(Line.of, text.decode().splitlines()):
                if "myself" in line.flags and "master" in line.flags:
                    for first, last in line.slots:
                        for slot in range(first, last + 1):
                            best[slot] = max(best[slot], (line.epoch, node.port))
        self._owners = [port for _, port in best]

    def send(self, commands: Sequence[Sequence[Word]]) -> list[bool]:
        done = [False] * len(commands)
        waiting = list(range(len(commands)))
        for attempt in range(3):
            replies = self._ask([commands[index] for index in waiting])
            for index, reply in zip(waiting, replies, strict=True):
                done[index] = reply is not None and not isinstance(reply, Refused)
            waiting = [index for index in waiting if not done[index]]
            if not waiting:
                break
            if attempt:
                time.sleep(0.1)
            self.look()
        return done

    def existing(self, keys: Sequence[bytes], *, patience: float) -> dict[bytes, bool]:
        found: dict[bytes, bool] = {}
        deadline = time.monotonic() + patience
        self.look()
        while waiting := [key for key in keys if key not in found]:
            replies = self._ask([("EXISTS", key) for key in waiting])
            for key, reply in zip(waiting, replies, strict=True):
                if isinstance(reply, int):
                    found[key] = bool(reply)
            if len(found) < len(keys):
                if time.monotonic() > deadline:
                    break
                time.sleep(_PATIENCE_STEP)
                self.look()
        return found

    def _ask(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """The reply to each, None where its node did not give any; ASK is followed."""
        replies: list[Any] = [None] * len(commands)
        by_port: dict[int, list[int]] = defaultdict(list)
        for index, command in enumerate(commands):
            by_port[self._owners[slot_of(_key(command))]].append(index)
        by_port.pop(0, None)
        self._ask_each(by_port, commands, replies, asking=False)
        asked: dict[int, list[int]] = defaultdict(list)
        for index, reply in enumerate(replies):
            if isinstance(reply, Refused) and str(reply).startswith("ASK "):
                asked[self._real(int(str(reply).rpartition(":")[2]))].append(index)
        self._ask_each(asked, commands, replies, asking=True)
        return replies

    def _ask_each(
        self,
        by_port: dict[int, list[int]],
        commands: Sequence[Sequence[Word]],
        replies: list[Any],
        *,
        asking: bool,
    ) -> None:
        for port, indexes in by_port.items():
            together: list[Sequence[Word]] = []
            for index in indexes:
                together += [("ASKING",), commands[index]] if asking else [commands[index]]
            with contextlib.suppress(OSError):
                answers = self._wires.to(port).many(together)
                for index, answer in zip(indexes, answers[1::2] if asking else answers, strict=True):
                    replies[index] = answer

    def _real(self, announced: int) -> int:
        return self.proxies.behind(announced) if self.proxies is not None else announced

    def close(self) -> None:
        self.cluster.close()
        if self.proxies is not None:
            self.proxies.close()


def _key(command: Sequence[Word]) -> bytes:
    key = command[1]
    return key if isinstance(key, bytes) else str(key).encode()


class _OneAddress:
    """What a single server and a primary under sentinels have in common: one place for all keys."""

    rest: Callable[[float], object] = staticmethod(time.sleep)

    def __init__(self) -> None:
        self._wires = _Wires()

    def _now(self) -> Node:
        raise NotImplementedError

    def send(self, commands: Sequence[Sequence[Word]]) -> list[bool]:
        for _ in range(3):
            try:
                replies = self._wires.to(self._now().port).many(commands)
            except (OSError, RuntimeError, Refused):
                time.sleep(0.1)
            else:
                return [not isinstance(reply, Refused) for reply in replies]
        return [False] * len(commands)

    def existing(self, keys: Sequence[bytes], *, patience: float) -> dict[bytes, bool]:
        found: dict[bytes, bool] = {}
        deadline = time.monotonic() + patience
        while waiting := [key for key in keys if key not in found]:
            with contextlib.suppress(OSError, RuntimeError, Refused):
                wire = self._wires.to(self._now().port)
                if wire.call("ROLE")[0] == b"master":
                    for key, reply in zip(
                        waiting, wire.many([("EXISTS", key) for key in waiting]), strict=True
                    ):
                        if isinstance(reply, int):
                            found[key] = bool(reply)
            if len(found) < len(keys):
                if time.monotonic() > deadline:
                    break
                time.sleep(_PATIENCE_STEP)
        return found


class StandaloneSite(_OneAddress):
    """One server, reached by readers through a proxy that cuts connections at random bytes when told to."""

    name = "standalone"

    def __init__(self, name: str) -> None:
        super().__init__()
        binary = program(name)
        self._folder = Folder()
        (port,) = free_ports(1)
        self.node = Node(binary, self._folder.path, port, debug_allowed(version_of(binary)[1]))
        self.node.start()
        self.proxies = Proxies()
        self._public = self.proxies.before(port)

    def url(self) -> str:
        return f"redis://127.0.0.1:{self._public}"

    def _now(self) -> Node:
        return self.node

    def close(self) -> None:
        self.proxies.close()
        self.node.close()
        self._folder.close()


class SentinelSite(_OneAddress):
    """A primary and its replica under three sentinels."""

    name = "sentinel"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.sentinel = Sentinel(name=name).start()

    def url(self) -> str:
        return self.sentinel.url

    def _now(self) -> Node:
        return self.sentinel.primary()

    def close(self) -> None:
        self.sentinel.close()


class Proxies:
    """Proxies in a thread of their own, one before each port; `cutting` is the share that they cut."""

    def __init__(self) -> None:
        self.cutting = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._by_port: dict[int, FaultProxy] = {}

    def before(self, port: int) -> int:
        """The port of the proxy before `port`."""
        if port not in self._by_port:
            proxy = FaultProxy(f"redis://127.0.0.1:{port}")
            proxy.upcoming = _Cuts(self)
            asyncio.run_coroutine_threadsafe(proxy.open_port(), self._loop).result()
            self._by_port[port] = proxy
        return self._by_port[port].port

    def behind(self, announced: int) -> int:
        """The port behind a proxy's."""
        return next((port for port, p in self._by_port.items() if p.port == announced), announced)

    def drop(self) -> None:
        """End every connection there is."""
        for proxy in self._by_port.values():
            self._loop.call_soon_threadsafe(lambda proxy=proxy: proxy.drop(reset=random.random() < 0.5))

    def close(self) -> None:
        async def all_of_them() -> None:
            for proxy in self._by_port.values():
                await proxy.__aexit__()

        asyncio.run_coroutine_threadsafe(all_of_them(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Cuts:
    """In place of a proxy's list of plans for the next connections: never empty while there is cutting."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies

    def __bool__(self) -> bool:
        return random.random() < self._proxies.cutting

    def popleft(self) -> Plan:
        at = int(random.lognormvariate(9, 2))  # mostly 1 kB to 60 kB
        return Plan(to_client=Fault(cut=at, reset=random.random() < 0.5))


def make(topology: str, server: str, *, cuts: bool) -> ClusterSite | StandaloneSite | SentinelSite:
    """The site of a topology."""
    if topology == "standalone":
        return StandaloneSite(server)
    if topology == "sentinel":
        return SentinelSite(server)
    return ClusterSite(server, cuts=cuts)
