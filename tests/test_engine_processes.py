"""A function for each partition in processes: all of it comes, once; and whatever ends, nothing is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime import AuthenticationFailed, Incomplete, InvalidInput
from oneatatime.engines.processes import apply
from tests import applied
from tests.clusters import Cluster
from tests.leaks import assert_no_connections
from tests.nodes import until
from tests.servers import Server

pytestmark = pytest.mark.timeout(180)  # the machine may be busy, and a process starts for a second

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
from pathlib import Path
from oneatatime.engines.processes import apply
from tests.applied import Slow
if __name__ == "__main__":
    print(sum(apply(sys.argv[1], Slow(Path(sys.argv[2])), processes=2, partitions=4)))
"""


@pytest.fixture
def filled(server: Server) -> Server:
    fill(server.admin, 1500)
    return server


def fill(admin: Any, keys: int) -> None:
    pipeline: Any = admin.pipeline(transaction=False)
    for n in range(keys):
        pipeline.set(f"s:{n}", n)
        pipeline.hset(f"h:{n}", mapping={"age": n, "name": f"name {n}"})
    pipeline.set("big", b"x" * 3_000_000)
    pipeline.execute()


def here(source: object, **arguments: Any) -> list[Any]:
    """What one stream in this process gives."""
    return sorted(applied.items(oneatatime.stream(source, **arguments)))


def there(source: object, **arguments: Any) -> list[Any]:
    """What processes give."""
    return sorted(item for some in apply(source, applied.items, processes=2, **arguments) for item in some)


def nothing_is_left(server: Server) -> None:
    assert multiprocessing.active_children() == []
    assert_no_connections(server.admin)


def test_each_key_once_and_every_value_as_one_stream_gives_it(filled: Server) -> None:
    assert there(filled.url) == here(filled.url)
    assert there(filled.url, match="h:*", encoding="utf-8", partitions=5) == here(
        filled.url, match="h:*", encoding="utf-8"
    )
    nothing_is_left(filled)


def test_of_a_cluster(cluster: Cluster) -> None:
    names = cluster.fill(3000)
    assert there(cluster.url) == [(name, name) for name in sorted(names)]


def test_of_every_database(server: Server) -> None:
    server.admin.set("a", 1)
    server.ask("SELECT", "3")
    server.admin.set("b", 2)
    server.ask("SELECT", "0")
    assert there(server.url, db="all") == [(b"a", b"1"), (b"b", b"2")]


def test_a_partition_whose_process_is_killed_is_done_again(filled: Server, tmp_path: Path) -> None:
    function = applied.KilledOnce(tmp_path)
    found = [item for some in apply(filled.url, function, processes=2, types="hash") for item in some]
    assert (tmp_path / "killed").exists()
    assert sorted(found) == here(filled.url, types="hash")


def test_it_is_given_up_where_that_happens_too_often(filled: Server) -> None:
    with pytest.raises(
        Incomplete, match=r"<Partition 1 of 2 .* was begun 2 times, .* is memory short"
    ) as caught:
        list(apply(filled.url, applied.killed, processes=1, partitions=2, retries=1))
    assert caught.value.missing[0].startswith("<Partition 1 of 2")
    nothing_is_left(filled)


def test_an_error_is_raised_here_and_nothing_is_left(filled: Server) -> None:
    with pytest.raises(LookupError, match="no luck with"):
        list(apply(filled.url, applied.failing, processes=2))
    nothing_is_left(filled)


def test_an_error_or_a_result_that_cannot_come_back_is_told(filled: Server) -> None:
    """It looked as if the process had been killed: it was done again, and given up for want of memory."""
    with pytest.raises(oneatatime.Error, match="Odd: mine"):
        list(apply(filled.url, applied.odd, processes=1, partitions=2))
    with pytest.raises(InvalidInput, match=r"cannot come back from its process .*`load\(\)`"):
        list(apply(filled.url, applied.parts, processes=1, partitions=2))
    with pytest.raises(InvalidInput, match="what secret= was given cannot be sent"):
        apply(filled.url, applied.items, processes=1, secret=applied.unsaid())
    nothing_is_left(filled)


def test_break_leaves_nothing_although_all_are_busy(filled: Server, tmp_path: Path) -> None:
    slow = apply(filled.url, applied.Slow(tmp_path), processes=2, partitions=200)
    for _ in slow:
        break
    assert len(multiprocessing.active_children()) == 2
    slow.close()  # type: ignore[attr-defined]
    nothing_is_left(filled)


def test_no_more_is_begun_ahead_than_two_for_each_process(filled: Server) -> None:
    filled.admin.config_resetstat()
    results = apply(filled.url, applied.keys, processes=1, partitions=10)
    planned = filled.admin.info("stats")["total_connections_received"]
    next(results)
    time.sleep(1.0)
    assert filled.admin.info("stats")["total_connections_received"] <= planned + 3 * 2
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_ends_takes_its_processes_along(filled: Server, tmp_path: Path, how: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    begun = tmp_path / "begun"
    begun.mkdir()
    running = subprocess.Popen(
        [sys.executable, program, filled.url, begun],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(list(begun.iterdir())) == 2, 20.0, what="both processes to be at it")
        children = [int(path.name) for path in begun.iterdir()]
        if how == signal.SIGINT:
            os.killpg(running.pid, how)  # as a terminal does
        else:
            running.kill()
        _, said = running.communicate(timeout=20)
        until(lambda: not any(map(_is_there, children)), 10.0, what="its processes to end")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert said.count("Traceback") == (how == signal.SIGINT), said
    assert_no_connections(filled.admin)


FORKS = PROGRAM.replace(
    "if __name__",
    """
import os, threading, time
def fork():
    while len(list(Path(sys.argv[2]).iterdir())) < 2:
        time.sleep(0.05)
    if not os.fork():  # it has the ends of all pipes, and outlives its parent
        Path(sys.argv[3]).write_text(str(os.getpid()))
        time.sleep(40)
        os._exit(0)
if __name__ == "__main__":
    threading.Thread(target=fork, daemon=True).start()
if __name__""",
)


def test_processes_end_with_the_program_though_another_holds_their_pipes(
    filled: Server, tmp_path: Path
) -> None:
    program, begun, forked = tmp_path / "program.py", tmp_path / "begun", tmp_path / "forked"
    program.write_text(FORKS)
    begun.mkdir()
    running = subprocess.Popen(
        [sys.executable, program, filled.url, begun, forked],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        until(lambda: forked.exists() and forked.read_text(), 20.0, what="a sibling")
        children = [int(path.name) for path in begun.iterdir()]
        running.kill()
        running.wait()
        until(lambda: not any(map(_is_there, children)), 5.0, what="its processes to end")
        assert _is_there(int(forked.read_text()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_passwords_travel_over_a_pipe_or_stand_in_the_environment(
    filled: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.ask("CONFIG", "SET", "requirepass", "open sesame")
    url = f"unix://:open%20sesame@{filled.path}"
    assert there(url) == here(url)
    monkeypatch.setenv("SESAME", "open sesame")
    assert len(there(f"unix://{filled.path}", secret="SESAME")) == 3001
    monkeypatch.setenv("SESAME", "shut")
    with pytest.raises(AuthenticationFailed):
        there(f"unix://{filled.path}", secret="SESAME")


def test_what_cannot_be_sent_is_refused_before_anything_begins(server: Server) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be sent to another process .* at the top of a module"):
        apply(server.url, lambda stream: 0)
    with pytest.raises(InvalidInput, match="cannot be sent"):
        apply(server.url, partial(applied.keys, lambda: 0))
    for wrong in ({"processes": 0}, {"processes": "2"}, {"retries": -1}, {"partitions": 0}, {"keys": ["a"]}):
        with pytest.raises(InvalidInput):
            apply(server.url, applied.keys, **wrong)
    nothing_is_left(server)


def test_what_was_typed_in_is_refused_with_the_way_out(server: Server) -> None:
    code = (
        "import sys; from oneatatime.engines.processes import apply\n"
        "def count(stream): return 0\n"
        "apply(sys.argv[1], count)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server.url], capture_output=True, text=True, check=False
    )
    assert "InvalidInput" in done.stderr and "put it into a module, and import it" in done.stderr
