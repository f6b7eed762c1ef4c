"""What a stream has done, and whether anything is missing: the statement of completeness."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NAMED = 5  # keys that the statement names
_REASONS = 50  # different things read again that it names


@dataclass(frozen=True)
class Statistics:
    """What a stream has done so far: an immutable snapshot, and its statement of completeness.

    `keys` delivered to the loop, and `types` the same by type; `vanished` keys that were gone when their
    value was asked for; `torn` big values that changed while the loop read them; `bytes` received,
    `commands` and `round_trips` sent, all connections together; `elapsed` seconds since the first was
    opened; `estimated_total` keys there are to deliver, as far as can be known; `fraction` of the way
    done, 0 to 1.

    `complete`: every key that was there from start to end has been delivered, and nothing below is in the
    way of it. `finished`: the stream came to its end without an error, but what is told in `forbidden`,
    `failed` or `skipped` was not delivered.

    `keys_at_start` and `keys_at_end`: the server's own count (DBSIZE), of all nodes read together, None where
    it does not tell. `repeats`: with `unique`, keys that came again and were left out; without, about how
    many were delivered again, because what they stand in had to be read again. `forbidden`: keys that the
    user may not read; `failed`: keys whose value could not be delivered; `failures`: the first few of
    both, with the reason. `read_again`: what was read again, and why. `skipped`: what could not be reached
    and was left out, as `on_unreachable="skip"` asks. `nodes`: the servers that were read. `best_effort`:
    the server's cursors are its own affair, so nothing can be promised beyond what it promises itself.
    """

    keys: int = 0
    bytes: int = 0
    types: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    vanished: int = 0
    torn: int = 0
    commands: int = 0
    round_trips: int = 0
    elapsed: float = 0.0
    estimated_total: int | None = None
    fraction: float = 0.0
    complete: bool = False
    finished: bool = False
    keys_at_start: int | None = None
    keys_at_end: int | None = None
    repeats: int = 0
    forbidden: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()
    read_again: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    best_effort: bool = False

    def __reduce__(self) -> tuple[object, ...]:
        return Statistics, tuple({**vars(self), "types": dict(self.types)}.values())


_ADDED = ("keys", "bytes", "vanished", "torn", "commands", "round_trips", "repeats", "forbidden", "failed")


def summed(parts: Iterable[Statistics], *, elapsed: float, whole: int) -> Statistics:
    """What several streams have done together, of `whole` partitions, in `elapsed` seconds.

    How many keys there are at a server none of them can say for its own part alone.
    """
    parts = list(parts)
    keys, fraction = sum(one.keys for one in parts), sum(one.fraction for one in parts) / whole
    types: Counter[str] = Counter()
    for one in parts:
        types.update(one.types)
    finished = bool(parts) and all(one.finished for one in parts)
    return Statistics(
        **{name: sum(getattr(one, name) for one in parts) for name in _ADDED},
        types=MappingProxyType(dict(types)),
        elapsed=elapsed,
        estimated_total=keys if finished else round(keys / fraction) if fraction else None,
        fraction=fraction,
        complete=finished and all(one.complete for one in parts),
        finished=finished,
        failures=tuple(itertools.chain.from_iterable(one.failures for one in parts))[:_NAMED],
        read_again=tuple(dict.fromkeys(itertools.chain.from_iterable(one.read_again for one in parts))),
        skipped=tuple(dict.fromkeys(itertools.chain.from_iterable(one.skipped for one in parts))),
        nodes=tuple(sorted({node for one in parts for node in one.nodes})),
        best_effort=any(one.best_effort for one in parts),
    )


@dataclass(eq=False, repr=False)
class Account:
    """What the workers of a stream have to say for the statement."""

    keys_at_start: int | None = None
    keys_at_end: int | None = None
    vanished: int = 0
    repeats: int = 0
    forbidden: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    nodes: dict[str, None] = field(default_factory=dict)
    best_effort: bool = False
    _again: dict[str, int] = field(default_factory=dict)

    def refuse(self, error: Exception) -> None:
        """A key that the user may not read was left out."""
        self.forbidden += 1
        self._name(error)

    def fail(self, error: Exception) -> None:
        """A key's value could not be delivered; the loop has met the error."""
        self.failed += 1
        self._name(error)

    def again(self, what: str, why: str, keys: int = 0) -> None:
        """Something has to be read again, in which `keys` keys were delivered already."""
        self.repeats += keys
        reason = f"{what}: {why}"
        if reason in self._again or len(self._again) < _REASONS:
            self._again[reason] = self._again.get(reason, 0) + 1
        else:
            self._again["others"] = self._again.get("others", 0) + 1

    @property
    def read_again(self) -> tuple[str, ...]:
        return tuple(f"{what} ({times} times)" if times > 1 else what for what, times in self._again.items())

    def _name(self, error: Exception) -> None:
        if len(self.failures) < _NAMED:
            self.failures.append(str(error))
