"""A thousand nodes and a hundred billion keys: `python -m benchmarks.scale --help`.

No such cluster is here. What can be had of it is: the project's own objects at that size (plans, checkpoints,
topologies), one real node that lists 2,000, and a simulation of the rest, by the real plan and by costs a
key that other benchmarks measured (`benchmarks/_fleet.py` says which). docs/scale.md is made of these
tables. Exit status 1 where a simulated run does not read every key of every partition.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from oneatatime._errors import MissingExtra
from oneatatime._slot import SLOTS
from tests.servers import Missing

from . import _facts
from ._crowded import measured
from ._fleet import Fleet, Part, parts
from ._machine import machine, versions
from ._simulation import Outcome, simulate
from ._table import table

BASE = Fleet()
GUEST = replace(BASE, partitions=1000, max_load=0.1)
SLOW_LOOP = replace(BASE, loop=10e-6, partitions=16_384)
BAD_DAY = replace(SLOW_LOOP, worker_life=1800.0, failovers=1 / 86400, moved=10.0)
SCENARIOS = {
    "as advised": BASE,
    "no slow nodes": replace(BASE, slow_nodes=0.0),
    "neighbours at once": replace(BASE, order="neighbours"),
    "shuffled": replace(BASE, order="shuffled"),
    "ahead of 4 MiB": replace(BASE, ahead=4 << 20),
    "slots scattered": replace(BASE, scattered=True),
    "1,000 partitions": replace(BASE, partitions=1000),
    "16,384 partitions": replace(BASE, partitions=16_384),
    "125 workers": replace(BASE, workers=125),
    "250 workers": replace(BASE, workers=250),
    "250 workers, 8 a machine": replace(BASE, workers=250, workers_a_machine=8),
    "500 workers": replace(BASE, workers=500),
    "2,000 workers": replace(BASE, workers=2000),
    "a guest: 1,000 partitions, 0.1": GUEST,
    "the same, no slow nodes": replace(GUEST, slow_nodes=0.0),
    "4,096 partitions, 0.2": replace(BASE, max_load=0.2),
    "10 us a key in the loop": SLOW_LOOP,
    "the same, 4,096 partitions": replace(SLOW_LOOP, partitions=4096),
    "the same, a bad day": BAD_DAY,
    "the same, no checkpoints": replace(BAD_DAY, checkpoints=False),
    "a bad day, 4,096 partitions": replace(BAD_DAY, partitions=4096),
    "a bad day, 4,096, no checkpoints": replace(BAD_DAY, partitions=4096, checkpoints=False),
}
_HEAD = "run", "min", "last 1 %, min", "again", "streams a node", "connections a node", "load of a node"
_MORE = "server h", "client h", "paid h", "TB", "$ workers", "$ crossing"
_REST = "dead", "failed over", "moved", "planned again"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--keys", type=int, default=400_000, help="of the one real node")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simulated", action="store_true", help="nothing but the simulation")
    options = parser.parse_args()
    print(machine())
    print(f"{versions()}\n")
    if not options.simulated:
        _print_facts()
        _print_measured(options.keys, options.rounds)
    return 0 if _print_simulated() else 1


def _print(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"{title}\n\n{table(head, rows)}\n", flush=True)


def _print_facts() -> None:
    fleet = BASE
    floor = fleet.keys * fleet.server / fleet.primaries
    rows = [
        ["a key: us of its node, views not counted", f"{fleet.server * 1e6:.2f}"],
        ["a key: us of its reader", f"{fleet.client * 1e6:.2f}"],
        ["a key: bytes on the wire", f"{fleet.reply:.0f}"],
        ["all: core hours of the nodes", f"{fleet.keys * fleet.server / 3600:.0f}"],
        ["all: core hours of the readers", f"{fleet.keys * fleet.client / 3600:.0f}"],
        ["all: TB", f"{fleet.keys * fleet.reply / 1e12:.1f}"],
        ["an average node, all of its core: s", f"{floor:.0f}"],
        ["an average node, 0.2 of its core: s", f"{floor / 0.2:.0f}"],
        ["a slow node, all of its core: s", f"{floor * fleet.slower:.0f}"],
        ["the fullest node, all of its core: s", f"{_facts.fullest(fleet) * fleet.server:.0f}"],
        ["an average slot, all of its node's core: s", f"{fleet.keys / SLOTS * fleet.server:.0f}"],
        ["an average slot, 0.1 of it: s", f"{fleet.keys / SLOTS * fleet.server / 0.1:.0f}"],
        ["keys a second from one node", f"{1 / fleet.server:,.0f}"],
        ["MB a second from one node", f"{fleet.reply / fleet.server / 1e6:.0f}"],
        ["MB a second to one worker, its machine's share", f"{_share(fleet) / 1e6:.0f}"],
        ["connections of one stream to one node", f"{fleet.width()}"],
    ]
    _print("What there is to do", ["what", "figure"], rows)
    _print("Million keys", ["of", "average", "most"], _facts.of_keys(fleet))
    head = ["asked for", "partitions", "ms to cut", "Mkeys", "most", "bound", "nodes", "kB", "all, MB"]
    rows = []
    for number in (1000, 4096, 16_384, 100_000):
        one = replace(fleet, partitions=number, order="neighbours")
        rows.append(_facts.of_plan(one, parts(one)))
    _print('Plans ("bound" to a process: pieces of a giant slot; "kB" pickled)', head, rows)
    scattered = replace(fleet, scattered=True, order="neighbours")
    _print("The same where slots are scattered", head, [_facts.of_plan(scattered, parts(scattered))])
    _print("Checkpoints", ["of", "kB", "ms"], _facts.of_checkpoints(fleet))
    _print("Memory of one stream", ["what", "MB"], _facts.of_memory(fleet))
    _print("One stream over the whole cluster", ["what", "ms"], _facts.of_turns(fleet))
    _print(
        "What views add",
        ["stream", "keys a view", "server us", "client us", "B a key", "h alone"],
        _views(fleet),
    )
    _print("All workers at once", ["what", "figure"], _at_once(fleet))


def _views(fleet: Fleet) -> list[list[str]]:
    rows = []
    for title, nodes, one in (
        ("of one node, 64 MiB ahead", 1, fleet),
        ("of one node, 4 MiB ahead", 1, replace(fleet, ahead=4 << 20)),
        ("of 8 nodes, 64 MiB ahead", 8, fleet),
        ("of 8 nodes, 4 MiB ahead", 8, replace(fleet, ahead=4 << 20)),
        ("of all nodes, 4 MiB ahead", fleet.primaries, replace(fleet, ahead=4 << 20)),
    ):
        server, client, size = one.with_views(nodes)
        costs = [f"{server * 1e6:.2f}", f"{client * 1e6:.2f}", f"{size:.0f}"]
        costs.append(f"{fleet.keys * client / 3600:.0f}")
        rows.append([title, f"{one.keys_a_view(nodes):,.0f}", *costs])
    return rows


def _at_once(fleet: Fleet) -> list[list[str]]:
    members = fleet.primaries + fleet.replicas
    each = members * fleet.view_server
    three, thirty = fleet.workers * each, fleet.workers * 3 / 30 * each
    return [
        ["a URL of one to three nodes: s that each of them answers nothing else", f"{three:.1f}"],
        ["a URL of 30 nodes: s", f"{thirty:.2f}"],
        [
            "views to begin with, of all partitions: GB",
            f"{fleet.partitions * 3 * members * fleet.view_bytes / 1e9:.1f}",
        ],
        ["a checkpoint of each worker: MB", f"{fleet.workers * _facts.checkpoint_bytes(fleet) / 1e6:.0f}"],
        [
            "Options.ahead of all workers of a machine: GB",
            f"{fleet.workers_a_machine * fleet.ahead / 1e9:.1f}",
        ],
        ["machines", f"{-(-fleet.workers // fleet.workers_a_machine)}"],
    ]


def _share(fleet: Fleet) -> float:
    return fleet.network / fleet.workers_a_machine


def _print_measured(keys: int, rounds: int) -> None:
    try:
        asked, read = measured(BASE, keys, rounds)
    except (Missing, MissingExtra) as error:
        print(f"One real node: not measured, {error}\n")
        return
    _print("One real node that lists 2,000", ["asking", "figure"], asked)
    head = ["one worker, 16 slots", "keys/s", "server us", "client us", "views", "keys a view", "bytes a key"]
    _print(f"{keys:,} strings of 100 B of it, medians of {rounds} rounds, taking turns", head, read)


def _print_simulated() -> bool:
    lines, rest, kept = [], [], True
    cuts: dict[tuple[int, str, bool], list[Part]] = {}
    began = time.perf_counter()
    for title, fleet in SCENARIOS.items():
        cut = fleet.partitions, fleet.order, fleet.scattered
        if cut not in cuts:
            cuts[cut] = parts(fleet)
        outcome = simulate(fleet, cuts[cut])
        kept = kept and whole(fleet, cuts[cut], outcome)
        lines.append([title, *_figures(fleet, outcome)])
        events = outcome.deaths, outcome.failovers, outcome.moved, outcome.planned_again
        rest.append([title, *map(str, events)])
    print(
        f"simulated: {BASE.keys:.0e} keys, {BASE.primaries:,} primaries, {BASE.workers:,} workers unless said"
    )
    print(f"{len(SCENARIOS)} runs in {time.perf_counter() - began:.0f} s\n")
    print(table([*_HEAD, *_MORE], lines), end="\n\n")
    print(table(["run", *_REST], rest))
    if not kept:
        print("\na run did not read every key of every partition, each once")
    return kept


def whole(fleet: Fleet, parts: list[Part], outcome: Outcome) -> bool:
    """Whether every partition was finished once, and what came is all keys and what came again."""
    wanted = sum(part.keys for part in parts)
    came = outcome.read - outcome.again
    return all(times == 1 for times in outcome.finished) and abs(came - wanted) < 1e-6 * wanted


def _figures(fleet: Fleet, outcome: Outcome) -> list[str]:
    paid = fleet.workers * outcome.seconds / 3600
    load = 1.0 if fleet.max_load is None else min(1.0, outcome.most_streams * fleet.max_load)
    return [
        f"{outcome.seconds / 60:.1f}",
        f"{outcome.last_percent / 60:.1f}",
        f"{outcome.again / fleet.keys:.2%}",
        f"{outcome.most_streams}",
        f"{outcome.most_connections}",
        f"{load:.1f}",
        f"{outcome.server / 3600:.0f}",
        f"{outcome.client / 3600:.0f}",
        f"{paid:.0f}",
        f"{outcome.bytes / 1e12:.1f}",
        f"{paid * fleet.vcpu_hour:.0f}",
        f"{outcome.bytes / 1e9 * fleet.crossing * fleet.crossing_gb:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
