"""What befalls servers: one random event after the other, each written down, keys audited after each.

An event leaves servers well, or leaves something open on purpose (a slot half-way, a promoted replica).
Whatever may take stable keys away for a moment says so to the keyspace, before and after.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.clusters import SLOTS, Cluster, Migration, caught_up, myself, view
from tests.nodes import Node, Refused, until

from .history import History
from .keyspace import HOT, Keyspace
from .sites import ClusterSite, SentinelSite, StandaloneSite

Event = tuple[int, Callable[[], str | None]]
"""How often, and what to do: returns what was done, None when it could not be done now."""

_TROUBLE = (OSError, Refused, TimeoutError, RuntimeError, StopIteration, ValueError, AssertionError)


class Nemesis:
    """Goes on until told to stop; `counts` says how often each event befell."""

    def __init__(
        self,
        site: ClusterSite | StandaloneSite | SentinelSite,
        keyspace: Keyspace,
        history: History,
        *,
        pause: tuple[float, float] = (0.1, 1.5),
    ) -> None:
        self._keyspace, self._history, self._pause = keyspace, history, pause
        self.counts: dict[str, int] = {}
        self.trouble: list[str] = []
        hands = {ClusterSite: _OnCluster, StandaloneSite: _OnServer, SentinelSite: _OnSentinel}
        self._hand = hands[type(site)](site, keyspace)  # type: ignore[arg-type]

    def run(self, going_on: Callable[[], bool]) -> None:
        events = self._hand.events()
        while going_on():
            name, (_, event) = random.choices(list(events.items()), [often for often, _ in events.values()])[
                0
            ]
            self._befall(name, event)
            time.sleep(random.uniform(*self._pause))
        self._befall("end", self._hand.end)

    def _befall(self, name: str, event: Callable[[], str | None]) -> None:
        self._history.write("begins", event=name)
        try:
            done = event()
        except _TROUBLE as error:
            self._history.write("failed", event=name, error=repr(error)[:500])
            self.trouble.append(f"{name}: {error!r}"[:200])
            self._keyspace.suspend(range(SLOTS))  # nobody knows what was served meanwhile
            done = self._mended()
            self._keyspace.suspend(range(SLOTS))
        if done is not None:
            self._settle()
            self.counts[name] = self.counts.get(name, 0) + 1
            self._history.write("event", event=name, did=done)
            self._keyspace.audit()

    def _settle(self) -> None:
        try:
            self._hand.settle()
        except _TROUBLE as error:
            self._history.write("failed", event="settle", error=repr(error)[:500])
            self.trouble.append(f"settle: {error!r}"[:200])

    def _mended(self) -> str | None:
        try:
            self._hand.mend()
        except _TROUBLE as error:
            self._history.write("failed", event="mend", error=repr(error)[:500])
            self.trouble.append(f"mend: {error!r}"[:200])
            return None
        return "mended"


class _OnCluster:
    def __init__(self, site: ClusterSite, keyspace: Keyspace) -> None:
        self._site, self._keyspace = site, keyspace
        self._cluster: Cluster = site.cluster
        self._open: list[Migration] = []
        self._added: list[Node] = []

    def events(self) -> dict[str, Event]:
        events: dict[str, Event] = {
            "slot opened, left half-way": (6, self._open_slot),
            "more keys moved": (4, self._move_more),
            "open slot finished": (4, self._finish_slot),
            "open slot cancelled": (1, self._cancel_slot),
            "slot moved and moved back": (3, self._there_and_back),
            "failover": (3, lambda: self._failover("")),
            "failover FORCE": (2, lambda: self._failover("FORCE")),
            "failover TAKEOVER": (2, lambda: self._failover("TAKEOVER")),
            "killed, back with its data": (3, self._kill_and_keep),
            "killed, replaced, back empty": (3, self._kill_and_replace),
            "killed, back empty": (1, self._kill_and_lose),
            "frozen": (3, self._freeze),
            "connections killed": (4, self._hang_up),
            "node added": (1, self._add),
            "node emptied, forgotten": (2, self._remove),
            "reloaded, LOADING": (2, self._reload),
        }
        if self._cluster.migrates_atomically:
            events["atomic migration"] = (5, lambda: self._atomic(cancel=False))
            events["atomic migration cancelled"] = (3, lambda: self._atomic(cancel=True))
        if self._site.proxies is not None:
            events["connections cut at random bytes"] = (6, self._cut)
        return events

    def _well(self) -> None:
        for _ in range(4):
            self.settle()
            try:
                self._cluster.wait_ok(5.0)
            except TimeoutError:
                continue  # a node may have been replaced meanwhile, and an open slot with it
            return
        self._cluster.wait_ok(1.0)

    # Who

    def _a_primary(self, *, with_slots: bool = True, apart_from: tuple[Node, ...] = ()) -> Node:
        nodes = [node for node in self._cluster.primaries() if node not in apart_from]
        if with_slots:
            nodes = [node for node in nodes if myself(node).slots]
        return random.choice(nodes)

    def _in_sync(self, primary: Node) -> Node | None:
        """A replica that can be promoted without loss."""
        for replica in self._cluster.replicas(primary):
            if caught_up(primary, replica):
                return replica
        return None

    def _a_slot(self) -> int:
        busy = {migration.slot for migration in self._open}
        hot = [slot for slot in HOT if slot not in busy]
        if hot and random.random() < 0.7:
            return random.choice(hot)
        return random.choice([slot for slot in range(SLOTS) if slot not in busy])

    # Slots on the move

    def _open_slot(self) -> str | None:
        if len(self._open) >= 3:
            return None
        slot = self._a_slot()
        source = self._cluster.owner(slot)
        migration = self._cluster.migration(slot, self._a_primary(with_slots=False, apart_from=(source,)))
        self._open.append(migration.begin())
        held = len(self._cluster.keys(source, slot))
        migration.move(random.randint(0, max(held, 1)) or 1)
        return f"{slot}: {migration.moved} of {held} keys from {source} to {migration.target}"

    def _move_more(self) -> str | None:
        if not self._open:
            return None
        self.settle()
        migration = random.choice(self._open)
        moved = migration.move(random.randint(1, 500))
        return f"{migration.slot}: {len(moved)}"

    def _finish_slot(self) -> str | None:
        if not self._open:
            return None
        migration = self._open.pop(random.randrange(len(self._open)))
        self._finish(migration)
        return f"{migration.slot}"

    def _finish(self, migration: Migration) -> None:
        """To its end; roles may have changed since it began."""
        migration.source = self._cluster.owner(migration.slot)
        if migration.source is not migration.target:
            line = myself(migration.target)
            if "master" not in line.flags:
                migration.target = self._cluster.node(line.primary)
            migration.begin()
            migration.finish()

    def _cancel_slot(self) -> str | None:
        if not self._open:
            return None
        migration = self._open.pop()
        with self._a_break([migration.slot]):
            migration.cancel()
        return f"{migration.slot}"

    def _there_and_back(self) -> str | None:
        slot = self._a_slot()
        home = self._cluster.owner(slot)
        away = self._a_primary(apart_from=(home,))
        self._cluster.migration(slot, away, home).run()
        time.sleep(random.choice([0.0, random.uniform(0, 0.5)]))
        self._cluster.migration(slot, home, away).run()  # `run` waits until all know
        return f"{slot}: {home} to {away} and back"

    def _atomic(self, *, cancel: bool) -> str | None:
        slot = self._a_slot()
        source = self._cluster.owner(slot)
        target = self._a_primary(with_slots=False, apart_from=(source,))
        by_hand = {node for migration in self._open for node in (migration.source, migration.target)}
        if by_hand & {source, target}:  # which servers refuse
            return None
        own = set(self._cluster.slots(source))
        first = last = slot
        while last + 1 in own and last - first < random.choice([0, 50, 300]):
            last += 1
        self._cluster.migrate_atomically(first, last, target)
        if cancel:
            time.sleep(random.choice([0.0, random.uniform(0, 0.2)]))
            try:
                self._cluster.cancel_migrations(source)
            except Refused:
                return f"{first}-{last} was quicker"
        states = self._cluster.wait_for_migrations(source)
        return f"{first}-{last} from {source} to {target}: {states[:1]}"

    # Death

    def _failover(self, how: str) -> str | None:
        primary = self._a_primary()
        replica = self._in_sync(primary)
        if replica is None:
            return None
        self._cluster.failover(replica, how)
        self._well()
        return f"{primary} to {replica}"

    def _kill_and_keep(self) -> str | None:
        primary = self._a_primary()
        primary.kill(save=True)
        time.sleep(random.choice([0.0, random.uniform(0, 3.0)]))  # long enough to be replaced, or not
        primary.start()
        self._well()
        return f"{primary}"

    def _kill_and_replace(self) -> str | None:
        primary = self._a_primary()
        replica = self._in_sync(primary)
        if replica is None:
            return None
        primary.kill()
        if random.random() < 0.5:
            self._cluster.failover(replica, "TAKEOVER")
        else:
            until(lambda: "master" in myself(replica).flags, 15.0, what="an election")
        primary.restart(keep_data=False)
        self._well()
        return f"{primary} by {replica}"

    def _kill_and_lose(self) -> str | None:
        primary = self._a_primary()
        with self._a_break(self._cluster.slots(primary)):
            primary.restart(keep_data=False)
            self._well()
        return f"{primary}"

    def _freeze(self) -> str | None:
        primary = self._a_primary()
        seconds = random.choice([random.uniform(0.05, 0.8), random.uniform(1.5, 4.0)])
        primary.pause()
        try:
            time.sleep(seconds)
        finally:
            primary.resume()
        self._well()
        return f"{primary} for {seconds:.1f} s"

    def _reload(self) -> str | None:
        node = self._a_primary()
        node.ask("CONFIG", "SET", "key-load-delay", 30)
        try:
            node.ask("DEBUG", "RELOAD")
        finally:
            node.hang_up()
            node.wait_until_it_answers()
            node.ask("CONFIG", "SET", "key-load-delay", 0)
        self._well()
        return f"{node}"

    # Connections

    def _hang_up(self) -> str | None:
        node = random.choice(self._cluster.nodes)
        node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return f"{node}"

    def _cut(self) -> str | None:
        assert self._site.proxies is not None
        self._site.proxies.drop()
        self._site.proxies.cutting = random.uniform(0.2, 0.8)
        time.sleep(random.uniform(0.5, 3.0))
        self._site.proxies.cutting = 0.0
        self._well()
        return "all"

    # Nodes

    def _add(self) -> str | None:
        if len(self._added) >= 2:
            return None
        node = self._cluster.add_node()
        self._added.append(node)
        self._well()
        source = self._a_primary(apart_from=(node,))
        slots = [slot for slot in self._cluster.slots(source) if slot not in self._busy()]
        self._cluster.move_slots(random.sample(slots, min(len(slots), 300)), source, node)
        self._well()
        return f"{node}"

    def _remove(self) -> str | None:
        if not self._added:
            return None
        for migration in list(self._open):
            self._open.remove(migration)
            self._finish(migration)
        node = self._added.pop()
        self._well()
        others = [other for other in self._cluster.primaries() if other is not node and myself(other).slots]
        if "master" in myself(node).flags:
            self._cluster.drain(node, [random.choice(others)])
            self._well()
        self._cluster.forget(node)
        return f"{node}"

    def _busy(self) -> set[int]:
        return {migration.slot for migration in self._open}

    # Around events

    @contextmanager
    def _a_break(self, slots: list[int]) -> Iterator[None]:
        """Keys of these slots may be gone for a moment: those that come back have a claim from then on."""
        self._keyspace.suspend(slots)
        try:
            yield
        finally:
            self._keyspace.suspend(slots)

    def settle(self) -> None:
        """Open what was closed when a node was replaced: before Valkey 8 a replica knows of no open slot."""
        for migration in self._open:
            source, target = self._cluster.owner(migration.slot), migration.target
            line = myself(target) if target.alive else None
            if line is not None and "master" not in line.flags:
                target = self._cluster.node(line.primary)
            if source is target:
                continue
            opened = myself(source).migrating.get(migration.slot) == target.id
            opened = opened and migration.slot in myself(target).importing
            if not opened or not _owns(target, source, migration.slot):
                with self._a_break([migration.slot]):
                    # An importing node learns of no new owner, and thinks that its cluster is down.
                    target.ask("CLUSTER", "SETSLOT", migration.slot, "STABLE")
                    until(partial(_owns, target, source, migration.slot), 10.0)
                    migration.source, migration.target = source, target
                    migration.begin()
        self._open = [one for one in self._open if self._cluster.owner(one.slot) is not one.target]

    def mend(self) -> None:
        """After an event that failed: everybody lives, no slot is open, the cluster is well."""
        away = [node for node in self._cluster.nodes if not node.alive or node.paused]
        for node in away:
            node.resume() if node.alive else node.start()
        if self._site.proxies is not None:
            self._site.proxies.cutting = 0.0
        if away:
            time.sleep(2.5)  # until a restarted primary says that it is ok
        for node in self._cluster.primaries():  # what imports learns of no new owner
            node.many([("CLUSTER", "SETSLOT", slot, "STABLE") for slot in myself(node).importing])
        time.sleep(1.0)
        self._adopt()
        for migration in list(self._open):
            self._open.remove(migration)
            self._finish(migration)
        for node in self._cluster.primaries():
            line = myself(node)
            node.many([("CLUSTER", "SETSLOT", slot, "STABLE") for slot in (*line.migrating, *line.importing)])
        self._cluster.wait_ok(30.0)

    def _adopt(self) -> None:
        """Slots that two nodes gave to each other, so that nobody serves them, go to who has their keys."""
        primaries = self._cluster.primaries()
        served = {slot for node in primaries for slot in self._cluster.slots(node)}
        for slot in set(range(SLOTS)) - served:
            held = {node: len(self._cluster.keys(node, slot)) for node in primaries}
            home = max(primaries, key=lambda node: held[node])
            for node in primaries:
                node.many([("CLUSTER", "DELSLOTS", slot)])
            home.ask("CLUSTER", "ADDSLOTS", slot)
            home.ask("CLUSTER", "BUMPEPOCH")
            self._open = [migration for migration in self._open if migration.slot != slot]

    def end(self) -> str | None:
        self.mend()
        return "all is well again"


def _owns(asked: Node, source: Node, slot: int) -> bool:
    return view(asked)[source.id].owns(slot)


class _OnServer:
    def __init__(self, site: StandaloneSite, keyspace: Keyspace) -> None:
        self._site, self._keyspace, self._node = site, keyspace, site.node

    def events(self) -> dict[str, Event]:
        return {
            "killed, back with its data": (3, self._kill_and_keep),
            "connections cut at random bytes": (6, self._cut),
            "connections killed": (3, self._hang_up),
            "frozen": (2, self._freeze),
            "reloaded, LOADING": (2, self._reload),
            "loading for long": (1, self._load_slowly),
        }

    def _kill_and_keep(self) -> str | None:
        for _ in range(random.choice([1, 1, 2])):
            self._node.kill(save=True)
            time.sleep(random.choice([0.0, random.uniform(0, 1.0)]))
            self._node.start()
        return f"{self._node}"

    def _load_slowly(self) -> str | None:
        self._node.kill(save=True)
        self._node.start(wait=False, key_load_delay=50, loading_process_events_interval_bytes=1024)
        self._node.wait_until_it_answers(30.0)
        self._node.ask("CONFIG", "SET", "key-load-delay", 0)
        return f"{self._node}"

    def _cut(self) -> str | None:
        self._site.proxies.drop()
        self._site.proxies.cutting = random.uniform(0.3, 1.0)
        time.sleep(random.uniform(0.2, 2.0))
        self._site.proxies.cutting = 0.0
        return "all"

    def _hang_up(self) -> str | None:
        self._node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return f"{self._node}"

    def _freeze(self) -> str | None:
        seconds = random.uniform(0.05, 2.0)
        self._node.pause()
        try:
            time.sleep(seconds)
        finally:
            self._node.resume()
        return f"for {seconds:.1f} s"

    def _reload(self) -> str | None:
        self._node.ask("CONFIG", "SET", "key-load-delay", 30)
        try:
            self._node.ask("DEBUG", "RELOAD")
        finally:
            self._node.ask("CONFIG", "SET", "key-load-delay", 0)
        return f"{self._node}"

    def settle(self) -> None:
        """Nothing is left open."""

    def mend(self) -> None:
        self._site.proxies.cutting = 0.0
        if not self._node.alive:
            self._node.start()
        elif self._node.paused:
            self._node.resume()
        self._node.wait_until_it_answers(30.0)

    def end(self) -> str | None:
        self.mend()
        return "all is well again"


class _OnSentinel:
    def __init__(self, site: SentinelSite, keyspace: Keyspace) -> None:
        self._sentinel, self._keyspace = site.sentinel, keyspace

    def events(self) -> dict[str, Event]:
        return {
            "failover": (4, self._failover),
            "killed, replaced, back": (3, self._kill_and_replace),
            "killed, back with its data": (2, self._kill_and_keep),
            "frozen": (2, self._freeze),
            "connections killed": (3, self._hang_up),
            "a sentinel killed, back": (1, self._kill_a_sentinel),
        }

    def _failover(self) -> str | None:
        self._sentinel.wait_ok()
        primary, replica = self._sentinel.primary(), self._sentinel.replica()
        if not caught_up(primary, replica):
            return None
        self._sentinel.failover()
        return f"{primary} to {replica}"

    def _kill_and_replace(self) -> str | None:
        self._sentinel.wait_ok()
        primary = self._sentinel.primary()
        if not caught_up(primary, self._sentinel.replica()):
            return None
        primary.kill()
        self._sentinel.wait_for_another(primary, 40.0)
        primary.restart(keep_data=False)
        self._sentinel.wait_ok()
        return f"{primary}"

    def _kill_and_keep(self) -> str | None:
        primary = self._sentinel.primary()
        primary.kill(save=True)
        primary.start()
        return f"{primary}"

    def _freeze(self) -> str | None:
        self._sentinel.wait_ok()
        primary = self._sentinel.primary()
        seconds = random.choice([random.uniform(0.05, 0.8), random.uniform(2.0, 6.0)])
        primary.pause()
        try:
            time.sleep(seconds)
        finally:
            primary.resume()
        return f"{primary} for {seconds:.1f} s"

    def _hang_up(self) -> str | None:
        node = random.choice(self._sentinel.nodes)
        node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return f"{node}"

    def _kill_a_sentinel(self) -> str | None:
        sentinel = random.choice(self._sentinel.sentinels)
        sentinel.kill()
        time.sleep(random.uniform(0, 1))
        sentinel.start()
        self._sentinel.hasten(sentinel)
        return f"{sentinel}"

    def settle(self) -> None:
        """Nothing is left open."""

    def mend(self) -> None:
        for node in (*self._sentinel.nodes, *self._sentinel.sentinels):
            if not node.alive:
                node.start()
            elif node.paused:
                node.resume()
        self._sentinel.wait_ok(60.0)

    def end(self) -> str | None:
        self.mend()
        return "all is well again"
