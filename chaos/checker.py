"""The promise, held against an iteration: what it owed, what it gave, and the verdict over all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tests.clusters import SLOTS, slot_of

from .subjects import Reader, Report


@dataclass(frozen=True)
class Judgement:
    """What an iteration owed and did not give, or gave and should not have.

    `missed`: keys that were there throughout and never came, though it said that it was complete, or named
    other slots. `phantoms`: never existed. `again`: deliveries beyond the first of a key. `unnamed`: it
    ended early without naming what is missing.
    """

    owed: int
    delivered: int
    missed: list[bytes]
    phantoms: list[bytes]
    again: int
    garbled: int
    unnamed: bool


def judge(
    report: Report,
    began: float,
    since: Mapping[bytes, float],
    *,
    ever: Callable[[bytes], bool],
    there: Callable[[Iterable[bytes], float], list[bytes]],
    in_slots: bool,
) -> Judgement:
    """`since` tells when each stable key came, `there` which of
    some keys are there and were since `began`."""
    times = Counter(report.keys)
    owed = [key for key, moment in since.items() if moment <= began]
    missed = [key for key in owed if key not in times]
    if report.kind == "complete":
        missed = there(missed, began) if missed else []
    elif report.kind == "incomplete" and in_slots and report.missing:
        named = slots_named(report.missing)
        missed = [key for key in missed if slot_of(key) not in named]
        missed = there(missed, began) if missed else []
    else:
        missed = []  # it said that it failed, and not where
    return Judgement(
        owed=len(owed),
        delivered=len(report.keys),
        missed=missed,
        phantoms=[key for key in times if not ever(key)],
        again=len(report.keys) - len(times),
        garbled=report.garbled,
        unnamed=report.kind in ("error", "stuck") or (report.kind == "incomplete" and not report.missing),
    )


def slots_named(missing: Iterable[str]) -> set[int]:
    """The slots in texts like "slots 7, 12-90 of 127.0.0.1:7000"."""
    found: set[int] = set()
    for text in missing:
        for first, last in re.findall(
            r"(?<![\d.:])(\d{1,5})(?:\s*(?:-|\.\.|to)\s*(\d{1,5}))?(?![\d.:])", text
        ):
            low, high = int(first), int(last or first)
            if low <= high < SLOTS:
                found.update(range(low, high + 1))
    return found


@dataclass
class Tally:
    """All iterations of one reader."""

    reader: Reader
    complete: int = 0
    incomplete: int = 0
    unnamed: int = 0
    not_started: int = 0
    iterations_that_missed: int = 0
    owed: int = 0
    missed: int = 0
    phantoms: int = 0
    delivered: int = 0
    again: int = 0
    garbled: int = 0
    rss: list[int] = field(default_factory=list)

    def add(self, report: Report, judgement: Judgement) -> None:
        self.complete += report.kind == "complete"
        self.incomplete += report.kind == "incomplete" and not judgement.unnamed
        self.not_started += report.kind == "not started"
        self.unnamed += judgement.unnamed
        self.iterations_that_missed += bool(judgement.missed)
        self.owed += judgement.owed
        self.missed += len(judgement.missed)
        self.phantoms += len(judgement.phantoms)
        self.delivered += judgement.delivered
        self.again += judgement.again
        self.garbled += judgement.garbled
        if report.rss:
            self.rss.append(report.rss)

    @property
    def iterations(self) -> int:
        return self.complete + self.incomplete + self.unnamed + self.not_started

    @property
    def share_again(self) -> float:
        return self.again / max(1, self.delivered - self.again)

    @property
    def growth(self) -> int:
        """MiB by which its process has grown since its third iteration, at its peak."""
        return (self.rss[-1] - self.rss[2]) // 1024 if len(self.rss) > 3 else 0

    def broken(self, *, most_again: float | None, most_growth: int = 64) -> list[str]:
        """The promises that it broke."""
        found = []
        if self.missed:
            found.append(f"{self.missed} keys missed in {self.iterations_that_missed} iterations")
        if self.phantoms:
            found.append(f"{self.phantoms} keys that never existed")
        if self.garbled:
            found.append(f"{self.garbled} values under the name of another key")
        if self.unnamed:
            found.append(f"{self.unnamed} iterations failed without naming what is missing")
        if self.reader.unique and self.again:
            found.append(f"{self.again} keys delivered again though unique")
        bounded = most_again is not None and not self.reader.unique and not self.reader.repeats
        if bounded and self.share_again > most_again:
            found.append(f"{self.share_again:.1%} delivered again, more than {most_again:.1%}")
        if self.growth > most_growth:
            found.append(f"its process grew by {self.growth} MiB")
        if self.iterations and not self.complete:
            found.append("no iteration was complete")
        return found


HEAD = (
    "reader",
    "iterations",
    "complete",
    "named",
    "not named",
    "not started",
    "owed",
    "missed",
    "in iterations",
    "phantoms",
    "again",
    "MiB grown",
)


def row(name: str, tally: Tally) -> tuple[str, ...]:
    """One line of the verdict."""
    return (
        name,
        str(tally.iterations),
        str(tally.complete),
        str(tally.incomplete),
        str(tally.unnamed),
        str(tally.not_started),
        str(tally.owed),
        str(tally.missed),
        str(tally.iterations_that_missed),
        str(tally.phantoms),
        f"{tally.share_again:.2%}",
        str(tally.growth),
    )
