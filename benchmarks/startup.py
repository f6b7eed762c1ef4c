"""How long until it can begin: `python -m benchmarks.startup --help`.

Fresh interpreters, taking turns: importing the package over importing asyncio, and the command line's help.
Bytecode is cached, as after an installation, whatever PYTHONDONTWRITEBYTECODE says here.
Exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from ._machine import machine
from ._table import table

_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_IMPORT, _HELP = 0.025, 0.150  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    program = str(Path(sysconfig.get_path("scripts")) / "oneatatime")
    commands = {
        "import asyncio": [sys.executable, "-c", "import asyncio"],
        "import asyncio, oneatatime": [sys.executable, "-c", "import asyncio, oneatatime"],
        "oneatatime --help": [program, "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            taken[name].append(_seconds(command))
    medians = {name: statistics.median(several[1:]) for name, several in taken.items()}  # the first compiles
    ours = medians["import asyncio, oneatatime"] - medians["import asyncio"]
    lines = [[name, f"{seconds * 1000:.1f}", ""] for name, seconds in medians.items()]
    lines.append(["the import over asyncio's", f"{ours * 1000:.1f}", f"{_IMPORT * 1000:g}"])
    lines[2][2] = f"{_HELP * 1000:g}"
    print(machine())
    print(f"medians of {options.rounds}\n")
    print(table(["what", "ms", "at most"], lines))
    return 1 if ours > _IMPORT or medians["oneatatime --help"] > _HELP else 0


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
