"""Nodes, roles and slots, as the nodes themselves tell: `View` is what one says, `Topology` what several do.

Both are snapshots; a change is a new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, overload

from ._errors import ProtocolViolation
from ._request import Burst, ReplyError, command
from ._session import info
from ._slot import SLOTS, bits, runs

_OPEN = re.compile(r"\[(\d+)-([<>])-([^\]]+)\]")
_LEAST_WORDS = 8  # of a line about a node; its slots come after them


@dataclass(frozen=True)
class Member:
    """One node as another one (or itself) lists it: how it is announced, what it is, what it owns."""

    id: str
    host: str
    port: int
    hostname: str = ""
    flags: frozenset[str] = frozenset()
    primary: str = ""
    epoch: int = 0
    slots: int = 0

    @property
    def serves(self) -> bool:
        """Whether it is a primary that owns slots and is not known to be gone."""
        return "master" in self.flags and self.slots != 0 and not self.flags & {"fail", "noaddr", "handshake"}


@dataclass(frozen=True)
class View:
    """What one node says of its cluster, and of itself: `me`.

    `ok`: it sees a cluster that works. `leaving` maps slots that are being moved away from it to the node
    they go to, `arriving` those on their way to it to where they come from (both only in a migration by
    MIGRATE: an atomic one shows nothing here until it is done).
    """

    me: Member
    members: Sequence[Member]
    ok: bool
    epoch: int
    leaving: Mapping[int, str] = field(default_factory=dict)
    arriving: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_primary(self) -> bool:
        return "master" in self.me.flags

    @property
    def slots(self) -> int:
        """What it owns; of a replica, what its primary owns."""
        if self.is_primary:
            return self.me.slots
        return next((one.slots for one in self.members if one.id == self.me.primary), 0)

    def kept(self, later: View) -> int:
        """The slots that this node has owned without a break from this view to a later one.

        A node that got a slot, by a migration or a failover, has a new epoch. So where the epoch is the
        same, none of them can have left and come back.
        """
        same = self.epoch == later.epoch and self.me.id == later.me.id
        same = same and self.me.primary == later.me.primary and self.ok and later.ok
        if not same:
            return 0
        return self.slots & later.slots & ~bits(self.arriving) & ~bits(later.arriving)


def ask_view() -> Burst:
    """Asks a node for its view."""
    return command(b"CLUSTER", b"NODES") + command(b"CLUSTER", b"INFO")


def view(replies: list[Any], node: str) -> View:
    """What a node answered to that."""
    nodes, state = replies[-2:]
    if not isinstance(nodes, bytes):
        raise ProtocolViolation(f"CLUSTER NODES answered {str(nodes)[:80]}", node=node, command="CLUSTER")
    lines = nodes.decode(errors="replace").splitlines()
    own = next((words for line in lines if "myself" in line and _is_of_itself(words := line.split())), None)
    if own is None:
        raise ProtocolViolation("CLUSTER NODES does not show the node itself", node=node, command="CLUSTER")
    me, own_words = _member(own, node), own[8:]
    told = info(state) if isinstance(state, bytes) else {}
    epoch = told.get("cluster_my_epoch", "")
    return View(
        me=me,
        members=_Members(lines, node),
        ok=told.get("cluster_state", "ok") == "ok",
        epoch=int(epoch) if epoch.isdigit() else me.epoch,
        leaving={slot: other for slot, way, other in _open_slots(own_words) if way == ">"},
        arriving={slot: other for slot, way, other in _open_slots(own_words) if way == "<"},
    )


def _is_of_itself(words: list[str]) -> bool:
    return len(words) >= _LEAST_WORDS and "myself" in words[2].split(",")


def _member(words: list[str], node: str) -> Member:
    address, *others = words[1].split(",")
    host, _, port = address.partition("@")[0].rpartition(":")
    hostname = others[0] if others and "=" not in others[0] else ""
    return Member(
        id=words[0],
        host=host,
        port=int(port or 0),
        hostname=hostname,
        flags=frozenset(words[2].split(",")),
        primary="" if words[3] == "-" else words[3],
        epoch=int(words[6]),
        slots=_slots(" ".join(word for word in words[8:] if not word.startswith("[")), node),
    )


@lru_cache(maxsize=64)  # each is kilobytes, and the last few are asked for again and again
def _slots(words: str, node: str) -> int:
    slots = 0
    for word in words.split():
        first, _, last = word.partition("-")
        slots |= _run(int(first), int(last or first), node)
    return slots


class _Members(Sequence[Member]):
    """The lines about all nodes, each made a member when somebody asks: mostly the node itself will do.

    They are not even split into words before: of 2,000 nodes that takes several times as long as the rest.
    """

    def __init__(self, lines: list[str], node: str) -> None:
        self._text = lines
        self._node = node

    @cached_property
    def _lines(self) -> list[list[str]]:
        return [words for line in self._text if len(words := line.split()) >= _LEAST_WORDS]

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, place: int) -> Member: ...
    @overload
    def __getitem__(self, place: slice) -> list[Member]: ...
    def __getitem__(self, place: int | slice) -> Member | list[Member]:
        if isinstance(place, slice):
            return [_member(line, self._node) for line in self._lines[place]]
        return _member(self._lines[place], self._node)


def _run(first: int, last: int, node: str) -> int:
    if not 0 <= first <= last < SLOTS:
        raise ProtocolViolation(f"there are no slots {first}-{last}", node=node, command="CLUSTER")
    return (1 << (last + 1)) - (1 << first)


def _open_slots(words: list[str]) -> Iterator[tuple[int, str, str]]:
    for word in words:
        if found := _OPEN.fullmatch(word):
            yield int(found[1]), found[2], found[3]


@dataclass(frozen=True)
class Topology:
    """The primaries of a cluster with what each owns, by their ids, and who is whose replica.

    Where two claim a slot, the one with the higher epoch has it. `members` are all nodes that were told of.
    """

    primaries: Mapping[str, Member] = field(default_factory=dict)
    replicas: Mapping[str, tuple[Member, ...]] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)

    @classmethod
    def of(cls, views: Iterable[View]) -> Topology:
        """What several nodes say, taken together: of each node, the word with the highest epoch."""
        known: dict[str, Member] = {}
        for one in views:
            for member in one.members:
                before = known.get(member.id)
                if before is None or (member.epoch, "myself" in member.flags) > (
                    before.epoch,
                    "myself" in before.flags,
                ):
                    known[member.id] = member
        primaries: dict[str, Member] = {}
        taken = 0
        for member in sorted(known.values(), key=lambda one: -one.epoch):
            if member.serves:
                own = member.slots & ~taken
                taken |= own
                primaries[member.id] = replace(member, slots=own)
        replicas: dict[str, tuple[Member, ...]] = {}
        for member in known.values():
            if member.primary and not member.flags & {"fail", "fail?", "noaddr", "handshake"}:
                replicas[member.primary] = (*replicas.get(member.primary, ()), member)
        return cls(primaries, replicas, known)

    @property
    def slots(self) -> int:
        """All that are owned by somebody."""
        total = 0
        for member in self.primaries.values():
            total |= member.slots
        return total

    def owner(self, slot: int) -> Member | None:
        return self._owners.get(slot)

    @cached_property
    def _owners(self) -> dict[int, Member]:
        """By slot: who has many given keys asks for each of them, and there may be a thousand primaries."""
        return {
            slot: member
            for member in self.primaries.values()
            for first, last in runs(member.slots)
            for slot in range(first, last + 1)
        }


# Sentinel


def ask_primary(service: str) -> Burst:
    """Asks a Sentinel who the primary of a service is."""
    return command(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.encode())


def primary(reply: Any) -> tuple[str, int] | None:
    """Host and port in the answer to that; None where the Sentinel knows of no such service."""
    if reply is None or isinstance(reply, ReplyError):
        return None
    host, port = reply
    return host.decode(), int(port)
