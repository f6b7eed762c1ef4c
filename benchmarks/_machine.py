"""Where a figure was measured: the machine and the versions, as one line; the peak of memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

_PACKAGES = ("oneatatime", "hiredis", "redis", "coredis", "valkey-glide", "uvloop")


def machine() -> str:
    """The processor, cores, system and Python."""
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def versions() -> str:
    """Of the packages that take part and are installed."""
    return ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))


def peak_rss() -> int:
    """The most bytes this process has held in memory so far (since `forget_peak`, where that works)."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def busy_seconds() -> float:
    """CPU seconds that the whole machine has worked so far, or was kept waiting (Linux; elsewhere 0)."""
    if sys.platform != "linux":
        return 0.0
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def forget_peak() -> None:
    """Let the peak start again at what is held now (Linux; elsewhere the peak of the start stays)."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
