"""The command line among pipes, signals and terminals, in a process of its own."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from oneatatime import Statistics
from oneatatime.cli._progress import Progress
from oneatatime.cli._report import summary
from tests.commandline import spawn
from tests.servers import Server

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
    admin.execute_command("CLIENT", "PAUSE", "3500", "ALL")
    with spawn("keys", server.url) as process:
        time.sleep(2.0)
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
    assert re.search(r"\r\x1b\[K[█░]{20} +\d+%  [\d,]+ keys", text), text
    assert text.rpartition("\x1b[K")[2].startswith("200,000 keys in ")
    assert text.endswith(", complete\r\nDBSIZE: 200,000 keys at the start, 200,000 at the end\r\n")


@pytest.mark.parametrize(
    ("limit", "done", "line"),
    [
        (None, {"fraction": 0.0, "elapsed": 0.0}, "░░░░░░░░░░░░░░░░░░░░   0%  500 keys"),
        (
            None,
            {"fraction": 0.25, "elapsed": 2.0},
            "█████░░░░░░░░░░░░░░░  25%  500 keys  250/s  ETA 0:06",
        ),
        (
            1000,
            {"fraction": 0.01, "elapsed": 4000.0},
            "██████████░░░░░░░░░░  50%  500 keys  0/s  ETA 1:06:40",
        ),
    ],
)
def test_the_bar_shows_fraction_keys_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], limit: int | None, done: dict[str, float], line: str
) -> None:
    bar = Progress(shown=True, limit=limit)
    bar.draw(Statistics(**done), 500)  # type: ignore[arg-type]
    assert capsys.readouterr().err == "\r\x1b[K" + line
    bar.wipe()
    bar.wipe()
    assert capsys.readouterr().err == "\r\x1b[K"


def test_the_last_line_says_what_happened() -> None:
    statistics = Statistics(elapsed=1.3, vanished=210)
    assert summary(statistics, 1_234_567, "complete") == (
        "1,234,567 keys in 1.3 s (950,000 keys/s), 210 vanished, complete"
    )
    assert summary(Statistics(elapsed=0.0042, torn=1), 1, "complete") == "1 key in 4 ms, 1 torn, complete"


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
