"""The same for a plain `for`, whose event loop runs in a thread, and for programs that just end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import oneatatime
from oneatatime import Incomplete, Options, StreamClosed
from oneatatime._blocking import iterate
from oneatatime.server import EmbeddedServer
from tests.leaks import (
    KEYS,
    LOOPS,
    SMALL,
    assert_no_connections,
    fill,
    no_complaints,
    our_objects,
    quick_collector,  # noqa: F401 - a fixture
    threads,
)
from tests.proxy import Fault, FaultProxy, Plan
from tests.servers import Server

pytestmark = pytest.mark.usefixtures("quick_collector")


class Boom(Exception):
    pass


def leave_by_break(things: Any) -> None:
    for _ in things:
        break


def leave_by_exception(things: Any) -> None:
    with pytest.raises(Boom):
        for _ in things:
            raise Boom


def leave_by_dropping(things: Any) -> None:
    next(iter(things))


def leave_in_a_circle(things: Any) -> None:
    circle: dict[str, Any] = {"things": iter(things), "of": things}
    circle["self"] = circle
    next(circle["things"])
    del circle, things
    gc.collect()


def leave_by_close(things: Any) -> None:
    next(iter(things))
    if hasattr(things, "close"):
        things.close()
        things.close()


def leave_without_beginning(things: Any) -> None:
    iter(things)


def leave_in_another_thread(things: Any) -> None:
    loop = iter(things)
    del things
    another = threading.Thread(target=leave_by_dropping, args=(loop,))
    del loop
    another.start()
    another.join()


WAYS = [
    leave_by_break,
    leave_by_exception,
    leave_by_dropping,
    leave_in_a_circle,
    leave_by_close,
    leave_without_beginning,
    leave_in_another_thread,
]


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_left(server: Server, kind: str, leave: Any, caplog: pytest.LogCaptureFixture) -> None:
    fill(server.admin)
    counts = []
    for _ in range(4):
        with no_complaints(caplog):
            leave(LOOPS[kind](server.url))
            assert not threads()
            assert_no_connections(server.admin)
        counts.append(our_objects())
    assert counts[1] == counts[2] == counts[3]


async def test_a_plain_loop_inside_a_running_loop(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    assert len({key for key, _ in oneatatime.stream(server.url, options=SMALL)}) == 180
    for _ in oneatatime.stream(server.url, options=SMALL):
        break
    assert not threads()


def test_parts_left_half_way(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.admin.rpush("big", *(f"element {n}" for n in range(5000)))
    counts = []
    for _ in range(3):
        with no_complaints(caplog):
            for _key, value in oneatatime.stream(server.url, options=Options(parts_over=1000, chunk=500)):
                for _ in value:
                    break
                assert len(threads()) <= 1
                chunks = iter(value)
                next(chunks)
                del chunks
            del value
            assert not threads()
            assert_no_connections(server.admin)
        counts.append(our_objects())
    assert counts[1] == counts[2]


def test_a_second_loop_goes_on_where_the_first_stopped(server: Server) -> None:
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=SMALL)
    seen = []
    for _ in range(1000):
        for key, _value in stream:
            seen.append(key)
            break
    assert sorted(seen) == sorted(server.admin.keys())
    assert not threads()


def test_after_close_the_loop_says_so(server: Server) -> None:
    """One that just ended would look as if it had seen everything."""
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=SMALL)
    items = iter(stream)
    next(items)
    stream.close()
    for _ in range(3):
        with pytest.raises(StreamClosed, match="closed"):
            next(items)


def test_closed_when_all_has_come_and_not_all_was_taken() -> None:
    """The thread was done, and so the loop ended as if it had seen everything."""

    async def two() -> AsyncIterator[int]:
        yield 1
        yield 2

    items = iterate(two)
    assert next(items) == 1
    items._thread.join()
    items.close()
    with pytest.raises(StreamClosed):
        next(items)


def test_closed_from_another_thread_while_it_waits() -> None:
    """The loop is told; it neither waits for ever nor ends as if all had been seen."""
    with EmbeddedServer() as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            stream = oneatatime.stream(server.url)
            timer = threading.Timer(0.05, stream.close)
            timer.start()
            with pytest.raises(StreamClosed):
                next(iter(stream))
            timer.join()
            assert not threads()
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_begun_by_one_kind_of_loop_it_goes_on_only_in_that(server: Server, no_leaks: None) -> None:
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=SMALL)
    await anext(stream)
    with pytest.raises(StreamClosed, match="async for"):
        list(stream)  # what is left of the page that is here
    seen = stream.statistics().keys
    assert 1 <= seen < 60
    assert len([item async for item in stream]) == 180 - seen

    stream = oneatatime.stream(server.url, options=SMALL)
    next(iter(stream))
    with pytest.raises(StreamClosed, match="plain"):
        while True:
            await anext(stream)
    seen = stream.statistics().keys
    assert len(list(stream)) == 180 - seen


def test_begun_in_another_event_loop(server: Server) -> None:
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=SMALL)

    async def first() -> None:
        await anext(stream)

    asyncio.run(first())
    with pytest.raises(StreamClosed):
        for _ in range(200):
            asyncio.run(first())
    assert_no_connections(server.admin)


def test_closed_from_another_event_loop(server: Server) -> None:
    fill(server.admin)
    stream = oneatatime.stream(server.url, options=SMALL)
    begun, closed = threading.Event(), threading.Event()

    async def here() -> None:
        await anext(stream)
        begun.set()
        while not closed.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        with pytest.raises(StreamClosed):
            await anext(stream)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def there() -> None:
        begun.wait(10)
        asyncio.run(stream.aclose())
        closed.set()

    another = threading.Thread(target=there)
    another.start()
    asyncio.run(here())
    another.join()
    assert_no_connections(server.admin)


def test_closed_before_its_thread_has_begun(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with no_complaints(caplog):
        for _ in range(50):
            iterate(lambda: LOOPS["pairs"](server.url)).close()
            iterate(lambda: LOOPS["pairs"](server.url))
        assert not threads()
    assert_no_connections(server.admin)


async def test_items_come_before_the_error_that_ended_them(server: Server) -> None:
    fill(server.admin)
    whole = 0
    async with FaultProxy(server.url) as proxy:
        options = Options(count=20, ranges=1, on_unreachable="fail")
        assert len([item async for item in oneatatime.stream(proxy.url, options=options)]) == 180
        whole = proxy.links[-1].to_client.passed
        proxy.plan = Plan(to_client=Fault(cut=whole * 3 // 4))

        def loop() -> tuple[int, list[Incomplete]]:
            seen, errors = 0, []
            stream = oneatatime.stream(proxy.url, options=options)
            for _ in range(3):
                try:
                    for _ in stream:
                        seen += 1
                except Incomplete as error:
                    errors.append(error)
            return seen, errors

        seen, errors = await asyncio.to_thread(loop)
    assert 60 <= seen <= 150
    assert len(errors) == 3 and errors[0] is errors[1] is errors[2]
    assert _depth(errors[0]) < 30
    assert not threads()


def _depth(error: BaseException) -> int:
    trace, depth = error.__traceback__, 0
    while trace is not None:
        trace, depth = trace.tb_next, depth + 1
    return depth


# Programs


HEAD = """
import asyncio, gc, os, signal, sys, threading, time
import oneatatime
from oneatatime import Options
url = sys.argv[1]
SMALL = Options(count=10, ahead=1)
"""


def run(server: Server, script: str, *, signal_after: float | None = None, said: str = "") -> str:
    """Runs a program where every warning is an error; gives what it wrote on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", HEAD + script, server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONASYNCIODEBUG": "0"},
    )
    if signal_after is not None:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        time.sleep(signal_after)
        process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert out.strip() == said, (out, err)
    assert_no_connections(server.admin)
    return err


PROGRAMS = {
    "left by break, held to the end": """
stream = oneatatime.stream(url, options=SMALL)
for item in stream:
    break
""",
    "an iterator held to the end": """
items = iter(oneatatime.stream(url, options=SMALL))
next(items)
""",
    "in a circle to the end": """
circle = [oneatatime.stream(url, options=SMALL)]
circle.append(circle)
for item in circle[0]:
    break
""",
    "parts held to the end": """
for key, value in oneatatime.stream(url, options=Options(parts_over=1000, chunk=500), match="big"):
    parts = iter(value)
    next(parts)
""",
    "sys.exit in the body": """
for item in oneatatime.stream(url, options=SMALL):
    sys.exit()
""",
    "the event loop ends in the middle": """
async def main():
    global stream
    stream = oneatatime.stream(url, options=SMALL)
    async for item in stream:
        break
asyncio.run(main())
""",
    "the event loop ends, parts are held": """
async def main():
    global parts
    async for key, value in oneatatime.stream(url, options=Options(parts_over=1000, chunk=500), match="big"):
        parts = aiter(value)
        await anext(parts)
asyncio.run(main())
import socket
assert not [thing for thing in gc.get_objects() if isinstance(thing, socket.socket) and thing.fileno() >= 0]
""",
    "the event loop ends while a task waits": """
async def loop():
    async for item in oneatatime.stream(url, options=SMALL):
        await asyncio.sleep(0)
async def main():
    global task
    task = asyncio.create_task(loop())
    await asyncio.sleep(0.05)
asyncio.run(main())
""",
    "the event loop ends, a step is waited for": """
async def main():
    global stream, step
    stream = oneatatime.stream(url, options=SMALL)
    step = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.001)
asyncio.run(main())
""",
    "a thread that loops": """
begun = threading.Event()
def loop():
    for item in oneatatime.stream(url, options=SMALL):
        begun.set()
        time.sleep(0.0001)
threading.Thread(target=loop).start()
begun.wait()  # Python 3.12 and later start no thread once the main one has ended
""",
    "given keys that never end": """
import itertools
for value in oneatatime.OneAtATime(url, itertools.repeat("k:1"), options=SMALL):
    break
""",
    "forked in the middle": """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
stream = oneatatime.stream(url, options=SMALL)
seen = 0
for item in stream:
    seen += 1
    if seen == 20:
        child = os.fork()
        if not child:
            try:
                next(iter(stream)), next(iter(stream))
                for item in stream:
                    pass
            except oneatatime.StreamClosed as error:
                del stream
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
assert seen == 181, seen
""",
}


@pytest.mark.parametrize("script", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_that_ends(server: Server, script: str) -> None:
    fill(server.admin)
    server.admin.rpush("big", *(f"element {n}" for n in range(5000)))
    assert run(server, script) == ""


INTERRUPTED = {
    "plain": """
print("ready", flush=True)
for item in oneatatime.OneAtATime(url, KEYS, options=SMALL):
    time.sleep(0.001)
""",
    "plain, waiting for the server": """
print("ready", flush=True)
for item in oneatatime.OneAtATime(url, SLOW):
    pass
""",
    "async": """
async def main():
    print("ready", flush=True)
    async for item in oneatatime.OneAtATime(url, KEYS, options=SMALL):
        await asyncio.sleep(0.001)
asyncio.run(main())
""",
    "async, waiting for the server": """
async def main():
    print("ready", flush=True)
    async for item in oneatatime.OneAtATime(url, SLOW):
        pass
asyncio.run(main())
""",
    "async, always busy": """
async def main():
    print("ready", flush=True)
    async for item in oneatatime.OneAtATime(url, KEYS):
        pass
asyncio.run(main())
""",
}


if sys.version_info < (3, 11):
    # there Ctrl-C may strike inside asyncio, which can lose the next step of a task and wait for it for ever
    del INTERRUPTED["async, always busy"]


@pytest.mark.parametrize("script", INTERRUPTED.values(), ids=INTERRUPTED)
def test_ctrl_c(server: Server, script: str) -> None:
    fill(server.admin)
    keys = """
import itertools
KEYS = itertools.cycle(["k:%d" % n for n in range(60)])
async def slow():
    yield "k:1"
    await asyncio.sleep(60)
SLOW = slow()
"""
    err = run(server, keys + script, signal_after=0.3)
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert "never retrieved" not in err and "was never" not in err and "Exception ignored" not in err, err
    assert "Warning" not in err and "destroyed" not in err, err


def test_interrupted_again_and_again(server: Server) -> None:
    """Signals that come at any moment, also while it cleans up, leave nothing that hangs."""
    fill(server.admin)
    script = """
def interrupt():
    while not over.is_set():
        time.sleep(0.003)
        os.kill(os.getpid(), signal.SIGINT)
over = threading.Event()
thread = threading.Thread(target=interrupt, daemon=True)
thread.start()
for _ in range(20):
    try:
        for item in oneatatime.stream(url, options=SMALL):
            pass
    except KeyboardInterrupt:
        pass
signal.signal(signal.SIGINT, signal.SIG_IGN)
over.set()
thread.join()
gc.collect()
"""
    run(server, script)


def _keys() -> Iterator[bytes]:
    yield from KEYS


def test_given_keys_in_a_plain_loop(server: Server) -> None:
    fill(server.admin)
    assert len(list(oneatatime.OneAtATime(server.url, _keys(), options=SMALL))) == 60
    assert not threads()


def test_several_threads_share_a_plain_loop(server: Server) -> None:
    server.admin.mset({f"k{n}": n for n in range(3000)})
    stream = oneatatime.stream(server.url, count=50)
    found: list[bytes] = []

    def work() -> None:
        for key, _ in stream:
            found.append(key)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert len(found) == len(set(found)) == 3000
    assert stream.statistics().complete
