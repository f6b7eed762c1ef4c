"""What the workers of one stream share. It knows nothing of the stream, which may be dropped."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ._connection import Connection
from ._deployment import Deployment
from ._endpoint import Endpoint
from ._errors import Error, Incomplete
from ._fetch import Fetch, Where
from ._flow import Flow
from ._node import Node
from ._options import Options, Selection
from ._pace import Pace, Turn
from ._parts import BigValues
from ._record import Batch
from ._shape import SECONDS_PER_BUCKET, WRITTEN_AT_ONCE, Shapes
from ._statistics import Account
from ._wire import Traffic
from .datatypes import datatype

Spawn = Callable[[Coroutine[Any, Any, None]], None]

Fresh = Callable[[list[bytes]], list[bytes]]
"""Those of some keys that the loop has not had yet."""


@dataclass(eq=False, repr=False)
class Work:
    """What is read, how, and what has come of it so far.

    `nodes` are the servers met, by their endpoints; whoever reads sets `values.locate`. `keep_names`: batches
    keep their keys as bytes, where those are text.
    """

    deployment: Deployment
    options: Options
    selection: Selection
    names_only: bool = False
    keep_missing: bool = False
    keep_names: bool = False
    flow: Flow = field(init=False)
    account: Account = field(default_factory=Account)
    values: BigValues = field(init=False)
    shapes: Shapes = field(init=False)
    pace: Pace = field(init=False)
    nodes: dict[Endpoint, Node] = field(default_factory=dict)
    asides: Traffic = field(default_factory=Traffic)  # with servers that hold no keys

    def __post_init__(self) -> None:
        types = self.selection.types
        self.flow = Flow(self.options.ahead)
        told = self.selection.keys is None and len(types) == 1
        self.shapes = Shapes(datatype(types[0]) if told else None)
        nodes = self.nodes
        self.pace = Pace(
            self.options, self.shapes, lambda: sum(node.traffic.received for node in nodes.values())
        )
        self.values = BigValues(self.options, self.selection, self.pace)

    @property
    def traffic(self) -> Traffic:
        """What went over all connections."""
        return Traffic.sum([self.asides, *(node.traffic for node in self.nodes.values())])

    def node(self, endpoint: Endpoint, *, least: int | None = None, from_replica: bool = False) -> Node:
        """The server at an endpoint, which is read over at least so many connections."""
        if endpoint in self.nodes:
            # met as a primary, it may be a replica by now; on a primary READONLY changes nothing
            self.nodes[endpoint].from_replica |= from_replica
        else:
            self.nodes[endpoint] = Node(
                endpoint,
                self.options,
                least=least or self.options.ranges,
                load=self.pace.load,
                from_replica=from_replica,
            )
        return self.nodes[endpoint]

    def fetch(self, node: Node, *, slotted: bool = False, fresh: Fresh | None = None) -> Fetch:
        # the functions hold none of self, or a dropped stream would wait for the collector
        pace, flow = self.pace, self.flow
        where = Where(
            node.name,
            roomy=lambda: node.survey.roomy,
            burst=lambda: pace.chunk(node.burst(flow.share)),
            slotted=slotted,
            expiring=node.expiring,
            db=node.endpoint.db,
        )
        return Fetch(
            self.selection,
            self.options,
            self.shapes,
            where,
            self.account,
            parts=self.values.parts,
            keep_missing=self.keep_missing,
            fresh=fresh,
        )

    # How much at a time, and when

    def page(self, node: Node) -> int:
        """How many keys to take at a time."""
        most = self.options.count if self.names_only else self.shapes.page(self.options.count)
        return self.pace.page(max(1, int(most * node.guard.ease)))

    def cost(self, scanned: int, read: int) -> float:
        """Seconds of server time that a page takes, about."""
        values = 0.0 if self.names_only else read * self.shapes.work_per_key
        return scanned * SECONDS_PER_BUCKET + values

    async def turn(self, node: Node, connection: Connection, scanned: int, read: int) -> Turn:
        """Waits until a page may be read: so many keys looked at by SCAN, so many values."""
        await node.guard.rest()
        size = 0.0 if self.names_only else read * self.shapes.bytes_per_key
        cost = self.cost(scanned, read)
        return await self.pace.turn(connection, node.load, keys=read, size=size, work=cost)

    def measure(self, node: Node, scanned: int, read: int, bursts: int, round_trip: float) -> None:
        """After a page: how many such pages should be under way."""
        weight = int(read * self.shapes.bytes_per_key) if not self.names_only else 0
        waits = max(bursts, 1 + weight // WRITTEN_AT_ONCE)
        node.measure(self.cost(scanned, read), weight, waits, round_trip)

    @property
    def idle(self) -> bool:
        """Whether more connections would only wait: for the loop, or for a limit."""
        return self.options.ranges == 1 or self.flow.full or self.pace.waited

    # Giving up

    def gives_up(self, what: str, error: Exception, *, missing: tuple[str, ...] = ()) -> None:
        """What is out of reach for good: it is skipped, as asked, or that is the end.

        Raises Incomplete, which names what is `missing` by now: without more, just this.
        """
        if self.options.on_unreachable == "skip":
            self.account.skipped.append(f"{what}: {error}")
            return
        node = error.node if isinstance(error, Error) else None
        said = error.message if isinstance(error, Error) else str(error)
        waited = "" if self.options.on_unreachable == "fail" else f" for {self.options.patience:g} s"
        text = f"{what} could not be read{waited}: {said}"
        raise Incomplete(text, node=node, missing=missing or (what,)) from error

    def label(self, batch: Batch, db: int) -> Batch:
        """The batch with the number of its database, where several are read."""
        if self.selection.all_dbs and len(batch):
            batch.metadata = {**(batch.metadata or {}), "db": [db] * len(batch)}
        return batch
