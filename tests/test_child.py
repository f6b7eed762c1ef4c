"""Processes of our own: what is said in them, what bounds it, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import oneatatime
from oneatatime import InvalidInput, ProcessLost
from oneatatime._child import started
from oneatatime._deployment import Deployment
from oneatatime._endpoint import Endpoint
from oneatatime._in_child import Parent
from tests.leaks import no_complaints
from tests.servers import Server


async def echo(parent: Parent, *arguments: Any) -> None:
    """Says what it was given, then whatever it is told, until that is None."""
    await parent.send(arguments)
    while (what := await parent.receive()) is not None:
        await parent.send(what)


async def floods(parent: Parent, frames: int) -> None:
    for _ in range(frames):
        await parent.send(b"x" * 100_000)


async def fails(parent: Parent, error: Exception) -> None:
    await parent.send("soon")
    raise error


async def fails_oddly(parent: Parent) -> None:
    class Odd(Exception):
        pass

    raise Odd("made in a function")


async def prints(parent: Parent) -> None:
    print("this is no frame")
    os.system("echo nor this")
    await parent.send(sys.stdin.read())


async def tells_about_itself(parent: Parent) -> None:
    await parent.send(os.getpid())
    await parent.send((os.getpgid(0), sys.path, sys.modules.get("__main__").__dict__.get("__file__")))
    await parent.receive()


async def computes(parent: Parent) -> None:
    await parent.send(os.getpid())
    time.sleep(60)


def not_here() -> None:
    raise LookupError("nothing of that name is here")


class Unreadable:
    """Can be sent, and cannot be read where it arrives."""

    def __reduce__(self) -> Any:
        return not_here, ()


def is_there(pid: int) -> bool:
    """Whether there is such a process, or a zombie of one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_gone(*pids: int, within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while left := [pid for pid in pids if is_there(pid)]:
        assert time.monotonic() < deadline, f"processes left behind: {left}"
        time.sleep(0.005)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def test_what_is_said_comes_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    with no_complaints(caplog):
        async with await started(echo, 1, {"two": b"three"}) as child:
            assert await child.receive() == (1, {"two": b"three"})
            for what in (b"", b"x" * 3_000_000, "text", [1, (2.5, b"\0")], {"a": {1, 2}}):
                child.send(what)
                assert await child.receive() == what
            child.send(None)
            assert await child.receive() is None
        assert not is_there(child.pid)


@pytest.mark.parametrize("error", [ValueError("no"), oneatatime.Incomplete("half", missing=("a", "b"))])
async def test_errors_come_as_they_are(error: Exception) -> None:
    async with await started(fails, error) as child:
        assert await child.receive() == "soon"
        with pytest.raises(type(error)) as raised:
            await child.receive()
    assert str(raised.value) == str(error) and vars(raised.value) == vars(error)


async def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    async with await started(fails_oddly) as child:
        with pytest.raises(oneatatime.Error, match="Odd: made in a function"):
            await child.receive()


async def test_what_is_printed_is_no_frame(capfd: pytest.CaptureFixture[str]) -> None:
    async with await started(prints) as child:
        assert await child.receive() == ""
        assert await child.receive() is None
        await child.finished()
    assert sorted(capfd.readouterr().err.split("\n")) == ["", "nor this", "this is no frame"]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_child_is_an_error_that_says_so(kill: signal.Signals) -> None:
    async with await started(echo, what="reads") as child:
        await child.receive()
        os.kill(child.pid, kill)
        with pytest.raises(ProcessLost, match=f"a process that reads was killed: {kill.name}"):
            await child.receive()
    assert not is_there(child.pid)


@pytest.mark.timeout(20)
async def test_what_cannot_be_read_there_is_an_error_here() -> None:
    async with await started(echo) as child:
        await child.receive()
        child.send(Unreadable())
        with pytest.raises(LookupError, match="nothing of that name is here"):
            await child.receive()
        await child.finished()
        assert not is_there(child.pid)
    async with await started(echo, Unreadable()) as child:
        with pytest.raises(LookupError, match="nothing of that name is here"):
            await child.receive()


class Holder:
    def __init__(self, held: object) -> None:
        self.held = held


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (threading.Lock(), "^a lock cannot be sent to another process: .*; give something that can be"),
        (Holder({"guard": [threading.Lock()]}), r"^held\.guard, a lock, cannot be sent"),
        (lambda: 0, "^a function cannot be sent to another process: .*lambda"),
        (Deployment.of("redis://localhost"), None),
        (
            Deployment.of(Endpoint("localhost", credentials=Holder(threading.Lock()))),  # type: ignore[arg-type]
            r"credentials\.held, a lock, cannot be sent .*; give a URL in place of the client",
        ),
    ],
)
async def test_what_cannot_be_pickled_is_named_and_refused(what: object, named: str | None) -> None:
    if named is None:
        async with await started(echo, what) as child:
            assert await child.receive() == (what,)
        return
    with pytest.raises(InvalidInput, match=named):
        await started(echo, what)


async def test_a_frozen_program_would_start_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InvalidInput, match=r"a frozen program .*: read by one process, or run"):
        await started(echo)


PROGRAM = """
import asyncio, sys
import oneatatime, redis

class Provider(redis.CredentialProvider):
    def get_credentials(self):
        return "default", "sesame"

client = redis.Redis(unix_socket_path=sys.argv[1], credential_provider=Provider())
try:
    list(oneatatime.stream(client, processes=2))
except oneatatime.InvalidInput as error:
    print(error)
try:
    asyncio.run(oneatatime.export(client, sys.argv[2], format="jsonl", jobs=2))
except oneatatime.InvalidInput as error:
    print(error)
"""


async def waits(parent: Parent) -> None:
    await parent.send("waits")
    await parent.receive()


@pytest.mark.parametrize("work", [echo, waits, prints, fails_oddly])
async def test_a_child_leaves_no_warning(
    work: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    async with await started(work) as child:
        with contextlib.suppress(oneatatime.Error):
            await child.receive()
        await child.finished()
        assert not is_there(child.pid)
    assert "Warning" not in capfd.readouterr().err


def test_what_is_of_main_is_refused(server: Server, tmp_path: Path) -> None:
    server.admin.mset({f"key:{n}": n for n in range(1000)})
    server.ask("CONFIG", "SET", "requirepass", "sesame")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    said = subprocess.run(
        [sys.executable, program, server.path or "", f"{tmp_path}/export/"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    wanted = "Provider cannot be sent to another process, for it is of __main__: put it into a module"
    assert said.stdout.count(wanted) == 2 and not said.stderr, said.stderr


async def test_a_slow_parent_bounds_what_waits() -> None:
    async with await started(floods, 1000, ahead=500_000) as child:
        await child.receive()
        await asyncio.sleep(0.5)
        assert child._pipes._waiting < 1_000_000
        for _ in range(999):
            assert len(await child.receive()) == 100_000
        assert await child.receive() is None


@pytest.mark.parametrize("work", [echo, computes, floods])
async def test_nothing_stays_after_a_child_is_left(work: Any, caplog: pytest.LogCaptureFixture) -> None:
    arguments = (10_000,) if work is floods else ()
    with no_complaints(caplog):
        async with await started(work, *arguments):  # the loop's own file descriptors are made once
            pass
        before = open_files()
        async with await started(work, *arguments) as child:
            await child.receive()
        assert not is_there(child.pid)
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert open_files() == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_start_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with no_complaints(caplog):
        for turns in range(4):
            task = asyncio.ensure_future(started(echo))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                child = await task
            except asyncio.CancelledError:
                continue
            async with child:
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}
        children = f"/proc/self/task/{os.getpid()}/children"
        if os.path.exists(children):
            pids = [int(pid) for pid in Path(children).read_text().split()]
            mine = [pid for pid in pids if b"_in_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            assert_gone(*mine)


async def test_it_is_no_part_of_the_terminals_group_and_knows_the_same_modules() -> None:
    async with await started(tells_about_itself) as child:
        pid = await child.receive()
        group, path, main = await child.receive()
        assert pid == group == child.pid and group != os.getpgid(0)
        assert path == sys.path and main is None


async def test_a_path_object_among_the_places_of_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/no/such/place"), "/nor/this"])
    async with await started(tells_about_itself) as child:
        await child.receive()
        _, path, _ = await child.receive()
    assert path == [where for where in sys.path if isinstance(where, str)] and path[-1] == "/nor/this"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="not on this machine: /proc")
async def test_no_secret_stands_in_arguments_or_environment() -> None:
    async with await started(echo, "redis://:hunter2@localhost") as child:
        assert (await child.receive()) == ("redis://:hunter2@localhost",)
        for name in ("cmdline", "environ"):
            assert b"hunter2" not in Path(f"/proc/{child.pid}/{name}").read_bytes()


ORPHANS = """
import asyncio, sys
from oneatatime._child import started
from tests.test_child import computes, echo

async def main():
    one, other = await started(echo), await started(computes)
    await one.receive()
    print(one.pid, await other.receive(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())  # and no `__main__` guard
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_children_end_with_their_parent_however_that_ends(kill: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANS],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert parent.stdout is not None
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_there, pids))
        parent.send_signal(kill)
        parent.wait()
    assert_gone(*pids)


FORKS = """
import asyncio, os, sys, time
from oneatatime._child import started
from tests.test_child import computes, echo, floods

async def main():
    children = [await started(echo), await started(computes), await started(floods, 1000)]
    for child in children[:2]:
        await child.receive()
    sibling = os.fork()
    if not sibling:  # it has the ends of all pipes, and outlives its parent
        time.sleep(30)
        os._exit(0)
    print(sibling, *(child.pid for child in children), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_children_end_with_their_parent_though_another_holds_their_pipes() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    )
    assert parent.stdout is not None
    with parent:
        sibling, *pids = map(int, parent.stdout.readline().split())
        try:
            assert len(pids) == 3 and all(map(is_there, pids))
            parent.kill()
            parent.wait()
            assert_gone(*pids)
            assert is_there(sibling)
        finally:
            os.kill(sibling, signal.SIGKILL)


def test_it_works_in_a_loop_of_another_thread() -> None:
    found = []

    async def use() -> None:
        async with await started(echo, 1) as child:
            found.append(await child.receive())

    thread = threading.Thread(target=lambda: asyncio.run(use()))
    thread.start()
    thread.join()
    assert found == [(1,)]
