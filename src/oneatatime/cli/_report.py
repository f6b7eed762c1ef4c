"""The last words of a run: how it went on one line, and what there is to say of completeness below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._progress import rate, seconds, shortest_rate

if TYPE_CHECKING:
    from .. import Statistics

_NAMED = 5  # of many, the first ones

COMPLETE = "complete"
BUT_FOR = "complete but for what is named here"
NOT_COMPLETE = "not complete"


@dataclass
class Failures:
    """Values that the loop could not have, and the first few by name. `before`: by runs before this one."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    forbidden_before: int = 0
    failed_before: int = 0

    def add(self, error: Exception) -> None:
        """One more."""
        self.count += 1
        if len(self.names) < _NAMED:
            self.names.append(str(error))

    def take_back(self) -> None:
        """The last one was something else."""
        self.count -= 1
        del self.names[self.count :]


def is_whole(statistics: Statistics, failures: Failures) -> bool:
    """Whether nothing was left out, now or by the runs before."""
    left_out = statistics.forbidden or statistics.skipped or failures.count
    return not (left_out or failures.forbidden_before or failures.failed_before)


def summary(statistics: Statistics, keys: int, ending: str, failed: int = 0) -> str:
    """The first line: `1,234,567 keys in 1.3 s (950,000 keys/s), 210 vanished, complete`."""
    elapsed = statistics.elapsed
    text = f"{counted(keys)} in {seconds(elapsed)}"
    if elapsed >= shortest_rate:
        text += f" ({rate(keys, elapsed).replace('/s', ' keys/s')})"
    for count, what in (
        (statistics.vanished, "vanished"),
        (statistics.torn, "torn"),
        (statistics.forbidden, "forbidden"),
        (failed, "failed"),
    ):
        if count:
            text += f", {count:,} {what}"
    return f"{text}, {ending}"


def details(
    statistics: Statistics, failures: Failures, *, everything: bool, unique: bool = False
) -> Iterator[str]:
    """The lines below it. `everything`: no key was left out by choice, so that DBSIZE means something."""
    start, end = statistics.keys_at_start, statistics.keys_at_end
    if everything and start is not None:
        text = f"DBSIZE: {counted(start)} at the start"
        yield f"{text}, {end:,} at the end" if end is not None else text
    if len(statistics.nodes) > 1:
        yield f"nodes: {', '.join(statistics.nodes)}"
    if statistics.repeats and unique:
        yield f"left out: {counted(statistics.repeats)} that came again"
    elif statistics.repeats:
        yield f"delivered twice: about {counted(statistics.repeats)}"
    yield from _several("read again", statistics.read_again)
    yield from _left_out(statistics, failures)
    yield from _several("skipped", statistics.skipped)
    if statistics.best_effort:
        yield (
            "best effort: this server's cursors are its own affair, so that nothing can be promised "
            "beyond what it promises itself"
        )


def _left_out(statistics: Statistics, failures: Failures) -> Iterator[str]:
    names = dict.fromkeys([*statistics.failures, *failures.names])
    forbidden, before = statistics.forbidden, failures.forbidden_before
    if forbidden or before:
        yield f"forbidden: {counted(forbidden)} that this user may not read{_earlier(before)}"
    if failures.count or failures.failed_before:
        yield f"failed: {counted(failures.count)}{_earlier(failures.failed_before)}"
    yield from (f"  {name}" for name in list(names)[: 2 * _NAMED])


def _earlier(count: int) -> str:
    return f", and {count:,} in the runs before" if count else ""


def _several(what: str, things: Iterable[str]) -> Iterator[str]:
    things = list(things)
    if len(things) == 1:
        yield f"{what}: {things[0]}"
    elif things:
        yield f"{what}:"
        yield from (f"  {thing}" for thing in things[:_NAMED])
        if len(things) > _NAMED:
            yield f"  and {len(things) - _NAMED} more"


def counted(keys: int) -> str:
    """`1 key`, `1,234 keys`."""
    return f"{keys:,} {'key' if keys == 1 else 'keys'}"
