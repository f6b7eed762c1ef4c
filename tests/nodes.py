"""A server on a port and in a folder of its own that can be killed, frozen and started again: one node.

    launcher (/bin/sh) <--lifeline (a pipe)-- this process
        `-- valkey-server

The idea is that of `oneatatime.server`: the pipe ends when this process lets go of it or ends, in whatever
way, and then the launcher kills the server. What is different: each start has a launcher of its own and the
folder outlives it, so that a node comes back at its address with or without its data. The folder goes with
the deployment that it belongs to, by a pipe too.
"""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hiredis

Word = bytes | str | int | float

_LAUNCHER = r"""
trap '' HUP INT TERM PIPE
exec 3<&0 </dev/null 2>/dev/null
cd "$1" || exit; shift
"$@" >>server.log 2>&1 3<&- &
server=$!
{ read -r nothing; kill -KILL $server; } <&3 3<&- >/dev/null &
watch=$!
echo $server
exec >/dev/null
wait $server
kill -KILL $watch; wait
"""
_KEEPER = r"""
trap '' HUP INT TERM PIPE
read -r nothing
until rm -rf -- "$1"; do sleep 0.1; done
"""  # again and again: a server that is being killed may still write into its folder

_LOWEST_PORT, _HIGHEST_PORT = 10_000, 22_700
"""Below the ports that the system gives to outgoing connections, together with their bus ports, which are
10,000 above: none of those can sit on the port of a node that is down."""


class Refused(Exception):
    """The server's reply to a command was an error."""


class Wire:
    """A blocking connection that says exactly what it is told and gives replies as they came.

    It connects when it is first used, and anew when it was ended while idle. Lost in the middle, it is an
    OSError for who uses it.
    """

    def __init__(self, port: int, *, timeout: float = 10.0) -> None:
        self._where = ("127.0.0.1", port)
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader()

    def call(self, *command: Word) -> Any:
        """The reply to one command; raises Refused."""
        reply = self.many([command])[0]
        if isinstance(reply, Refused):
            raise reply
        return reply

    def many(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """The replies to many commands, errors among them as Refused."""
        together = list(commands)
        replies: list[Any] = []
        try:
            if self._socket is not None and _has_ended(self._socket):
                self.close()
            if self._socket is None:
                self._reader = hiredis.Reader()
                self._socket = socket.create_connection(self._where, self._timeout)
            for first in range(0, len(together), 500):
                some = together[first : first + 500]
                self._socket.sendall(b"".join([hiredis.pack_command(tuple(one)) for one in some]))  # type: ignore[arg-type]
                replies += [self._reply(self._socket) for _ in some]
        except BaseException:
            self.close()
            raise
        return replies

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        self.close()  # that of a thread goes with the thread

    def _reply(self, connection: socket.socket) -> Any:
        while (reply := self._reader.gets()) is False:
            data = connection.recv(1 << 18)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
        return Refused(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply


def _has_ended(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])  # nothing is owed, so it can only be the end


class Folder:
    """A private folder that is removed when it is let go of or this process ends, however it ends."""

    def __init__(self) -> None:
        name = f"oneatatime-{secrets.token_hex(6)}"
        self.path = Path(tempfile.gettempdir(), name)
        self.path.mkdir(mode=0o700)
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "oneatatime-folder", str(self.path)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()


class Node:
    """One server process at a time, always on the same port and in the same folder.

    `options` are configuration directives, by name. `ask` uses a connection of the calling thread's own.
    """

    def __init__(self, binary: str, folder: Path, port: int, options: dict[str, Word] | None = None) -> None:
        self.binary, self.folder, self.port = binary, folder, port
        self.options = {
            "port": port,
            "bind": "127.0.0.1",
            "protected-mode": "no",
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
            **(options or {}),
        }
        self.id = ""  # in a cluster
        self.pid = 0
        self.paused = False
        self._launcher: subprocess.Popen[bytes] | None = None
        self._wires = threading.local()
        folder.mkdir(parents=True, exist_ok=True)

    url = property(lambda self: f"redis://127.0.0.1:{self.port}")

    # Life and death

    def start(self, *, wait: bool = True, **extra: Word) -> None:
        """Start it on what lies in its folder; `extra` directives hold for this run (`_` is `-`)."""
        command = self._command({name.replace("_", "-"): value for name, value in extra.items()})
        self._launcher = subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCHER, "oneatatime-node", str(self.folder), self.binary, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._launcher.stdout is not None
        self.pid = int(self._launcher.stdout.readline())
        self.paused = False
        if wait:
            self.wait_until_it_answers()

    def _command(self, extra: dict[str, Word]) -> list[str]:
        options = {**self.options, **extra}
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def wait_until_it_answers(self, within: float = 15.0) -> None:
        """Until a PING is answered by anything but LOADING."""

        def answers() -> bool:
            if not self.alive:
                raise RuntimeError(f"the node on port {self.port} ended:\n{self.log()[-1000:]}")
            try:
                return self.ask("PING") == b"PONG"
            except OSError:
                return False
            except Refused as refused:
                return not str(refused).startswith("LOADING")

        until(answers, within, every=0.005)

    @property
    def alive(self) -> bool:
        """Whether its process is there; a frozen one is."""
        return self._launcher is not None and self._launcher.poll() is None

    def kill(self, *, save: bool = False) -> None:
        """SIGKILL it; with `save`, have it write its data to disk just before."""
        if save:
            self.save()
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def save(self) -> None:
        """SAVE, after whatever else is being saved."""

        def saved() -> bool:
            try:
                return bool(self.ask("SAVE") == b"OK")
            except Refused as refused:
                if "in progress" in str(refused):
                    return False
                raise

        until(saved, 10.0, every=0.02)

    def restart(self, *, keep_data: bool, wait: bool = True, **extra: Word) -> None:
        """Kill it if it lives and start it again where it was, with what was saved last or with nothing."""
        self.kill(save=keep_data and self.alive and not self.paused)
        if not keep_data:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        self.start(wait=wait, **extra)

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def close(self) -> None:
        """End it and wait until it has; what it saved stays."""
        self.hang_up()
        if self._launcher is not None:
            for pipe in (self._launcher.stdin, self._launcher.stdout):
                if pipe is not None:
                    pipe.close()
            self._launcher.wait()

    # Asking

    def ask(self, *command: Word) -> Any:
        """The reply to a command; raises Refused, or OSError when it cannot be reached."""
        return self._wire().call(*command)

    def many(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """The replies to many commands, sent together; errors come as Refused, in their places."""
        return self._wire().many(commands)

    def info(self, section: str) -> dict[str, str]:
        """The fields of a section of INFO."""
        lines = self.ask("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def scan(self, *arguments: Word, cursor: int = 0) -> list[bytes]:
        """Every key that SCAN gives from `cursor` to the end."""
        keys: list[bytes] = []
        while True:
            next_cursor, page = self.ask("SCAN", cursor, *arguments)
            keys += page
            cursor = int(next_cursor)
            if not cursor:
                return keys

    def hang_up(self) -> None:
        """Let go of this thread's connection: another process may answer next time."""
        if hasattr(self._wires, "own"):
            self._wires.own.close()

    def log(self) -> str:
        """What the server wrote, in all its runs."""
        path = self.folder / "server.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def _wire(self) -> Wire:
        if not hasattr(self._wires, "own"):
            self._wires.own = Wire(self.port)
        wire: Wire = self._wires.own
        return wire

    def __repr__(self) -> str:
        state = "frozen" if self.paused else "running" if self.alive else "down"
        return f"<node {self.port} {self.id[:8]} {state}>"


class Sentry(Node):
    """A sentinel: the same program over a configuration file that it rewrites itself."""

    def _command(self, extra: dict[str, Word]) -> list[str]:
        return [str(self.folder / "sentinel.conf"), "--sentinel"]

    def configure(self, text: str) -> None:
        (self.folder / "sentinel.conf").write_text(text, encoding="utf-8")


def until(condition: Callable[[], object], within: float, *, every: float = 0.02, what: str = "") -> None:
    """Wait for something; raises TimeoutError, with `what` was waited for."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {within} s: {what or condition}")
        time.sleep(every)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, nor on the ones 10,000 above."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(_LOWEST_PORT, _HIGHEST_PORT)
        if all(abs(port - other) not in (0, 10_000) for other in found) and all(_is_free(port)):
            found.append(port)
    return found


def _is_free(port: int) -> Iterator[bool]:
    for number in (port, port + 10_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                yield False
            else:
                yield True


def debug_allowed(version: tuple[int, ...]) -> dict[str, Word]:
    """DEBUG is for tests: since 7.0 it has to be allowed."""
    return {"enable-debug-command": "local"} if version >= (7, 0) else {}


def version_of(binary: str) -> tuple[str, tuple[int, ...]]:
    """What a server program calls itself, and its version: ("Valkey", (9, 1, 2))."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    version = said.partition(" v=")[2].partition(" ")[0]
    return said.partition(" ")[0], tuple(int(part) for part in version.split("."))
