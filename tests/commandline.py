"""The command line for tests: in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from click.testing import CliRunner, Result

from oneatatime.cli import main

PROGRAM = [sys.executable, "-c", "from oneatatime.cli import main; main(prog_name='oneatatime')"]
_OURS = ("REDIS_URL", "VALKEY_URL", "REDISCLI_AUTH", "ONEATATIME_TRACEBACK")


def run(*arguments: str, env: dict[str, str] | None = None, **settings: Any) -> Result:
    """The command in this process: `.stdout`, `.stderr`, `.stdout_bytes`, `.exit_code`.

    Of the variables that mean something to it, only those in `env` are set.
    """
    environment = {**dict.fromkeys(_OURS), **(env or {})}
    return CliRunner().invoke(main, arguments, prog_name="oneatatime", env=environment, **settings)


def spawn(*arguments: str | bytes, **settings: Any) -> subprocess.Popen[bytes]:
    """The command in a process of its own, output and errors piped unless `settings` say otherwise."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, **settings}
    return subprocess.Popen([*PROGRAM, *arguments], **settings)


def sorted_lines(result: Result) -> list[str]:
    """What it printed, in an order that does not depend on SCAN's."""
    return sorted(result.stdout.splitlines())
