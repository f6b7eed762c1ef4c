"""How the command line reaches a server, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner

from oneatatime import Deployment, Endpoint
from oneatatime.cli._source import Source, source_options
from tests.commandline import run, spawn
from tests.servers import Server, TLSServer

SECRET = "s3cr3t/of?ours"


@pytest.fixture
def marked(server: Server, tcp_server: Server) -> None:
    server.admin.set("over-the-socket", 1)
    tcp_server.admin.set("over-tcp", 1)


def _address(server: Server) -> tuple[str, str]:
    host, _, port = server.url.removeprefix("redis://").partition(":")
    return host, port.strip("/")


@pytest.mark.usefixtures("marked")
def test_ways_to_name_a_server(server: Server, tcp_server: Server) -> None:
    host, port = _address(tcp_server)
    assert run("keys", "-u", server.url).stdout == "over-the-socket\n"
    assert run("keys", "-s", server.path).stdout == "over-the-socket\n"
    assert run("keys", "-h", host, "-p", port).stdout == "over-tcp\n"
    assert run("keys", "-p", port).stdout == "over-tcp\n"


@pytest.mark.usefixtures("marked")
def test_the_environment_counts_where_no_flag_does(server: Server, tcp_server: Server) -> None:
    _, port = _address(tcp_server)
    socket, tcp = server.url, tcp_server.url
    assert run("keys", env={"VALKEY_URL": socket}).stdout == "over-the-socket\n"
    assert run("keys", env={"REDIS_URL": tcp, "VALKEY_URL": socket}).stdout == "over-tcp\n"
    assert run("keys", "-p", port, env={"REDIS_URL": socket}).stdout == "over-tcp\n"
    assert run("keys", socket, env={"REDIS_URL": tcp}).stdout == "over-the-socket\n"


def test_the_database(server: Server, admin: redis.Redis) -> None:
    admin.execute_command("MSET", "zero", "0")
    other = redis.Redis(unix_socket_path=server.path, db=3)
    other.set("three", 3)
    other.close()
    assert run("keys", server.url).stdout == "zero\n"
    assert run("keys", server.url, "-n", "3").stdout == "three\n"
    assert run("keys", f"{server.url}?db=3").stdout == "three\n"
    assert run("keys", f"{server.url}?db=3", "--db", "0").stdout == "zero\n"


@pytest.fixture
def locked(server: Server, admin: redis.Redis) -> str:
    """The url of a server with a key, where the default user and `reader` need the password SECRET."""
    admin.set("k", 1)
    admin.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@all")
    admin.execute_command("ACL", "SETUSER", "default", "resetpass", f">{SECRET}")
    return str(server.url)


def test_a_password_on_the_command_line_works_and_warns(locked: str) -> None:
    result = run("keys", locked, "-a", SECRET)
    assert result.stdout == "k\n"
    assert result.stderr.startswith("Warning: a password on the command line can be seen")
    assert SECRET not in result.stderr
    assert run("keys", locked, "--user", "reader", "-a", SECRET, "-q").stderr == ""


def test_a_password_from_elsewhere_works_and_does_not_warn(locked: str) -> None:
    for result in (
        run("keys", locked, env={"REDISCLI_AUTH": SECRET}),
        run("keys", locked, "--user", "reader", env={"REDISCLI_AUTH": SECRET}),
        run("keys", locked, "--askpass", input=f"{SECRET}\n"),
    ):
        assert result.stdout == "k\n"
        assert "Warning" not in result.stderr
        assert SECRET not in result.stderr


@pytest.mark.parametrize("password", [SECRET, ""])
def test_a_wrong_or_missing_password_is_told_without_it(
    server: Server, admin: redis.Redis, password: str
) -> None:
    admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")
    result = run("items", server.url, *(["-a", password] if password else []))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "oneatatime: " in result.stderr
    assert SECRET not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_permission_names_the_command(server: Server, admin: redis.Redis) -> None:
    admin.hset("h", "f", "v")
    admin.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@all", "-scan")
    result = run("items", server.url, "--user", "reader", env={"REDISCLI_AUTH": SECRET})
    assert result.exit_code == 1
    assert "SCAN" in result.stderr


def test_tls(tls_server: TLSServer) -> None:
    tls_server.admin.set("k", 1)
    port = str(tls_server.tls_port)
    assert (
        run("keys", "-h", "localhost", "-p", port, "--tls", "--cacert", tls_server.ca_certs).stdout == "k\n"
    )
    assert run("keys", tls_server.url, "--cacert", tls_server.ca_certs).stdout == "k\n"
    assert run("keys", tls_server.url, "--insecure").stdout == "k\n"
    untrusted = run("keys", tls_server.url)
    assert untrusted.exit_code == 1
    assert untrusted.stderr.startswith("oneatatime: ")
    wrong = ["--cacert", tls_server.ca_certs, "--sni", "elsewhere.example"]
    assert run("keys", tls_server.url, *wrong).exit_code == 1


def test_tls_with_a_certificate_of_our_own(mutual_tls_server: TLSServer) -> None:
    mutual_tls_server.admin.set("k", 1)
    trust = ["--cacert", mutual_tls_server.ca_certs]
    own = ["--cert", mutual_tls_server.certfile, "--key", mutual_tls_server.keyfile]
    assert run("keys", mutual_tls_server.url, *trust, *own).stdout == "k\n"
    assert run("keys", mutual_tls_server.url, *trust).exit_code == 1


# More than one server: what the flags make of a URL -----------------------------------------------


def _meant(*arguments: str, env: dict[str, str] | None = None) -> tuple[Any, str]:
    """What a command with these arguments would read, and what it said."""
    found = []

    @click.command()
    @source_options
    def command(source: Source) -> None:
        found.append(source.endpoint())

    environment = {**dict.fromkeys(("REDIS_URL", "VALKEY_URL", "REDISCLI_AUTH")), **(env or {})}
    result = CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False, input="asked\n")
    return (found[0] if found else None), result.output


CLUSTER, SENTINEL = "redis+cluster://h1:7000,h2", "redis+sentinel://h1,h2/orders"

MEANT = {
    "nothing more": ([CLUSTER], CLUSTER),
    "as an option": (["-u", SENTINEL], SENTINEL),
    "db": ([CLUSTER, "-n", "3"], f"{CLUSTER}/3"),
    "db 0 wins": ([f"{SENTINEL}/3", "-n", "0"], SENTINEL),
    "user and password": ([CLUSTER, "--user", "u", "-a", "p"], "redis+cluster://u:p@h1:7000,h2"),
    "user without password": ([SENTINEL, "--user", "u"], "redis+sentinel://u@h1,h2/orders"),
    "a password that is asked for": ([SENTINEL, "--askpass"], "redis+sentinel://:asked@h1,h2/orders"),
    "TLS of a cluster": ([CLUSTER, "--cacert", "/ca"], "rediss+cluster://h1:7000,h2?ssl_ca_certs=/ca"),
    "TLS of Sentinels too": (
        [SENTINEL, "--tls", "--cert", "/c", "--key", "/k"],
        "rediss+sentinel://h1,h2/orders?ssl_certfile=/c&ssl_keyfile=/k",
    ),
    "TLS unverified": (
        [f"{SENTINEL}?sentinel_password=p", "--insecure"],
        "rediss+sentinel://h1,h2/orders?sentinel_password=p&ssl_cert_reqs=none&ssl_check_hostname=0",
    ),
}


@pytest.mark.parametrize(("arguments", "url"), MEANT.values(), ids=MEANT)
def test_flags_and_a_url_of_several_servers(arguments: list[str], url: str) -> None:
    assert _meant(*arguments)[0] == Deployment.of(url)


def test_the_environment_and_several_servers() -> None:
    assert _meant(env={"REDIS_URL": CLUSTER})[0] == Deployment.of(CLUSTER)
    assert _meant("-p", "7000", env={"REDIS_URL": CLUSTER})[0] == Endpoint(port=7000)
    password = {"REDISCLI_AUTH": "p"}
    assert _meant(CLUSTER, env=password)[0] == Deployment.of("redis+cluster://:p@h1:7000,h2")
    with_user = "redis+sentinel://u:p@h1,h2/orders"
    assert _meant(with_user, env={"REDISCLI_AUTH": "q"})[0] == Deployment.of(with_user)


def test_a_password_of_sentinels_on_the_command_line_warns() -> None:
    url = f"{SENTINEL}?sentinel_password=s3cr3t"
    assert "Warning" in _meant(url)[1]
    assert "Warning" not in _meant(env={"REDIS_URL": url})[1]
    assert "s3cr3t" not in _meant(url)[1]


@pytest.mark.parametrize("flag", [["-h", "h"], ["-p", "1"], ["-s", "/x"]])
@pytest.mark.parametrize("url", [CLUSTER, SENTINEL])
def test_a_place_beside_a_url_of_several_servers_is_a_mistake(url: str, flag: list[str]) -> None:
    result, said = _meant(url, *flag)
    assert result is None
    assert "not both" in said


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "http://localhost"],
        ["keys", "redis://localhost:port"],
        ["keys", "redis://one,two"],
        ["keys", "redis-sentinel://one/0#orders"],
        ["keys", "redis+sentinel://one"],
        ["keys", "redis+cluster://one,"],
        ["keys", "-p", "0"],
        ["keys", "--limit", "0"],
        ["keys", "--type", "strng"],
        ["items", "--with", "ttll"],
        ["keys", "redis://localhost", "-u", "redis://localhost"],
        ["keys", "redis://localhost", "-p", "6379"],
        ["keys", "-s", "/tmp/x.sock", "-h", "localhost"],
        ["keys", "-s", "/tmp/x.sock", "--tls"],
        ["keys", "--cert", "cert.pem"],
        ["keys", "--unknown"],
        ["unknown"],
    ],
)
def test_a_mistake_in_the_arguments_exits_with_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr or result.stderr.startswith("oneatatime: ")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@localhost:1",
        f"redis://:{SECRET}@localhost",
        f"rediss://:{SECRET}@localhost:x",
        f"redis+cluster://user:{SECRET}@localhost:1,localhost:2",
        f"redis+sentinel://:{SECRET}@localhost:1/orders/0",
        "redis://:s3cr3t@localhost:1",
    ],
)
def test_no_error_shows_the_password_of_a_url(url: str) -> None:
    result = run("keys", url)
    assert result.exit_code in (1, 2)
    assert "s3cr3t" not in result.output
    assert "Traceback" not in result.output


def test_a_server_that_is_not_there_exits_with_1(tmp_path: Path) -> None:
    result = run("keys", "-s", str(tmp_path / "none.sock"))
    assert result.exit_code == 1
    assert result.stderr.startswith("oneatatime: ")
    assert len(result.stderr.splitlines()) == 1


def test_an_output_that_cannot_be_written_exits_with_1(server: Server, admin: redis.Redis) -> None:
    admin.mset({f"user:{n}": n for n in range(1000)})
    with open("/dev/full", "wb") as full, spawn("keys", server.url, stdout=full) as process:
        _, errors = process.communicate()
    assert (process.returncode, errors) == (
        1,
        b"oneatatime: the output cannot be written: No space left on device\n",
    )
