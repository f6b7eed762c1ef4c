"""The embedded server leaves nothing behind, however it and its owner end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from oneatatime.server import EmbeddedServer
from tests.owners import START, TELL, Owner, ask, assert_fake_gone, assert_gone, fake, is_there


def test_nothing_is_left_after_the_block() -> None:
    with EmbeddedServer() as server:
        pid, path = server.pid, server.path
        ask(server, "SET", "key", "value")
        ask(server, "SAVE")
    assert_gone(pid, path, within=0)


def test_nothing_is_left_after_an_exception_in_the_block() -> None:
    with pytest.raises(ZeroDivisionError), EmbeddedServer() as server:
        pid, path = server.pid, server.path
        raise ZeroDivisionError
    assert_gone(pid, path, within=0)


def test_start_and_stop_may_be_said_twice() -> None:
    server = EmbeddedServer()
    server.stop()
    first = server.start().pid
    assert server.start().pid == first
    server.stop()
    server.stop()
    with server:
        assert server.pid != first


def test_dropping_the_object_ends_the_server() -> None:
    server = EmbeddedServer().start()
    pid, path = server.pid, server.path
    del server
    gc.collect()
    assert_gone(pid, path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_died_or_hangs_is_cleared_away(number: int) -> None:
    with EmbeddedServer() as server:
        pid, path = server.pid, server.path
        os.kill(pid, number)
        time.sleep(0.05)
    assert_gone(pid, path)


def test_survives_the_end_of_the_thread_that_started_it() -> None:
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert ask(server, "DBSIZE") == 0
    server.stop()


def test_a_ctrl_c_in_the_terminal_does_not_reach_it() -> None:
    with EmbeddedServer() as server:
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgrp()


def test_nothing_is_left_when_the_supervisor_is_killed() -> None:
    with EmbeddedServer() as server:
        pid, path = server.pid, server.path
        os.kill(os.getpgid(pid), signal.SIGKILL)
        time.sleep(0.05)
    assert_gone(pid, path)


# The owner's end


def test_nothing_is_left_after_kill_9() -> None:
    owner = Owner(f"{START}{TELL}input()")
    assert is_there(owner.pid)
    owner.process.kill()
    owner.process.communicate()
    assert_gone(owner.pid, owner.path)


def test_nothing_is_left_after_kill_9_while_it_starts(tmp_path: Path) -> None:
    binary = fake(tmp_path, "exec sleep 60")
    script = f"from oneatatime.server import EmbeddedServer\nEmbeddedServer(binary={binary!r}).start()"
    process = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "told").exists() or not (tmp_path / "told").read_text(encoding="utf-8"):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert_fake_gone(tmp_path)


def test_nothing_is_left_after_kill_9_though_a_forked_child_lives_on() -> None:
    owner = Owner(f"""
import os, time
{START}
child = os.fork()
if child == 0:
    time.sleep(60)
print(server.pid, server.path, child, flush=True)
input()
""")
    owner.process.kill()
    owner.process.wait()
    (child,) = owner.forked
    try:
        assert_gone(owner.pid, owner.path)
        assert is_there(child)
    finally:
        os.kill(child, signal.SIGKILL)
        owner.process.communicate()


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(0)", "import threading; threading.Thread(target=server.start).start()"]
)
def test_nothing_is_left_when_python_ends_without_stop(ending: str) -> None:
    owner = Owner(f"import sys\n{START}{TELL}input()\n{ending}")
    owner.ends_in_peace()
    assert_gone(owner.pid, owner.path)


def test_nothing_is_left_after_sigterm() -> None:
    owner = Owner(f"{START}{TELL}input()")
    owner.process.terminate()
    owner.process.communicate()
    assert_gone(owner.pid, owner.path)


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)", "server.stop(); sys.exit(0)"])
def test_a_forked_child_does_not_end_it(ending: str) -> None:
    script = f"""
import os, sys
{START}
child = os.fork()
if child == 0:
    {ending}
status = os.waitpid(child, 0)[1]
assert status == 0, status
from oneatatime.server import _answers
assert _answers(server.path)
{TELL}
input()
"""
    owner = Owner(script)
    owner.ends_in_peace()
    assert_gone(owner.pid, owner.path)
