"""What the demo says at the end: what was read, how fast, with how much memory, and whether all of it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._load import ask
from ._progress import rounded, seconds

if TYPE_CHECKING:
    from .. import Statistics
    from ._seed import Sample

_MB = 1_000_000


@dataclass(frozen=True)
class Moment:
    """What can be measured at one moment: of the server, and of this process (in bytes)."""

    time: float
    keys: int
    server_cpu: float
    memory: int
    peak: int

    @classmethod
    def of(cls, url: str) -> Moment:
        """This moment of the embedded server at `url` and of this process."""
        info = dict(
            line.split(":", 1) for line in ask(url, "INFO", "cpu").decode().split("\r\n") if ":" in line
        )
        cpu = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        memory, peak = _memory()
        return cls(time.perf_counter(), ask(url, "DBSIZE"), cpu, memory, peak)


@dataclass(frozen=True)
class Reading:
    """One run of the main job between two moments; `too_big` is key -> type and number of parts."""

    before: Moment
    after: Moment
    statistics: Statistics
    delivered: int
    too_big: dict[bytes, tuple[str, int]]

    @property
    def complete(self) -> bool:
        """Whether every key came: by the stream's own account and by the server's count."""
        return self.statistics.complete and self.delivered >= min(self.before.keys, self.after.keys)

    @property
    def rate(self) -> float:
        """Keys per second."""
        return self.delivered / (self.after.time - self.before.time)


def of_types(reading: Reading) -> str:
    """The table of keys by type."""
    rows = sorted(reading.statistics.types.items(), key=lambda row: -row[1])
    lines = [f"{kind:<16}{keys:>15,}" for kind, keys in rows]
    before, after = reading.before.keys, reading.after.keys
    count = f"{before:,} by DBSIZE" if before == after else f"{before:,} by DBSIZE before, {after:,} after"
    return "\n".join(
        [f"{'type':<16}{'keys':>15}", *lines, f"{'all':<16}{reading.delivered:>15,}  of {count}", ""]
    )


def of_job(reading: Reading, seed: Sample | None) -> str:
    """How it went, one line a fact."""
    return "\n".join(
        f"{name:<16}{figure:>15}  {note}".rstrip() for name, figure, note in _facts(reading, seed)
    )


def _facts(reading: Reading, seed: Sample | None) -> Iterable[tuple[str, str, str]]:
    elapsed = reading.after.time - reading.before.time
    size = f"{reading.statistics.bytes / _MB:,.1f} MB from the server in {seconds(elapsed)}"
    yield "this loop", _rate(reading.rate), size
    yield from _seed_facts(reading, seed)
    growth = max(0, reading.after.peak - reading.before.memory)
    yield "peak memory", f"+{growth / _MB:,.1f} MB", "growth of this process while it read"
    busy = (reading.after.server_cpu - reading.before.server_cpu) / elapsed
    yield "server busy", f"{busy:.0%}", "its processor time, of the time the loop took"
    for key, (kind, parts) in sorted(reading.too_big.items()):
        yield "too big to hold", f"{parts:,}", f"parts of the {kind} {key.decode(errors='backslashreplace')}"
    vanished = reading.statistics.vanished
    if vanished:
        yield "vanished", f"{vanished:,}", "keys that went away between being found and being read"
    yield (
        "complete",
        "yes" if reading.complete else "NO",
        "every key that was there all the time was delivered",
    )


def _seed_facts(reading: Reading, seed: Sample | None) -> Iterable[tuple[str, str, str]]:
    if seed is None:
        yield "the seed's loop", "-", 'to compare: pip install "oneatatime[demo]"'
        return
    rate = seed.keys / seed.elapsed
    note = f"one await a key, a sample of {seed.keys:,} in {seconds(seed.elapsed)}"
    yield "the seed's loop", _rate(rate), note
    yield "", f"{rounded(reading.rate / rate):,} x", "as fast"


def _rate(rate: float) -> str:
    return f"{rounded(rate):,} keys/s"


def _memory() -> tuple[int, int]:
    """Bytes of memory this process has now, and had at most; the latter twice where only it is known."""
    try:
        with open("/proc/self/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak
