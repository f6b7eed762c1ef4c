"""Processes of this machine, and what each was given to do.

Each is a pool of its own with one process, so that the end of one concerns one partition only: the first
that it was given and has not done.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from .._blocking import beside
from .._errors import InvalidInput, portable
from .._partition import Partition

_LOOK_EVERY = 1.0  # seconds, for a parent that is gone without closing anything


class Worker:
    """A process that does what it is given, in that order; started anew where it was killed."""

    def __init__(self) -> None:
        self.given: deque[tuple[Partition, Future[Any]]] = deque()
        self._begin()

    def _begin(self) -> None:
        self._context = _Remembering()
        self._pool = ProcessPoolExecutor(1, mp_context=self._context, initializer=_begun)

    def give(self, task: Callable[[Partition], Any], partition: Partition) -> bool:
        """Whether it took this: it does not where it was killed and that has not been seen to yet."""
        for _ in range(2):
            try:
                self.given.append((partition, self._pool.submit(_done, task, partition)))
                return True
            except BrokenProcessPool:
                if self.given:
                    break
                self.renew()  # it was killed while it had nothing to do
        return False

    @property
    def is_done(self) -> bool:
        """Whether there is a result, or an error, of the first that it was given."""
        return bool(self.given) and self.given[0][1].done()

    def take(self) -> Any:
        """The result of the first. Raises its error; BrokenProcessPool where the process was killed."""
        result = self.given[0][1].result()
        self.given.popleft()
        return result

    def renew(self) -> list[Partition]:
        """Another process; what is not done by the one before."""
        left = [partition for partition, _ in self.given]
        self.close()
        self._begin()
        return left

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        for process in self._context.started:
            if process.pid is not None:
                process.kill()
        self._pool.shutdown(cancel_futures=True)
        self.given.clear()


class _Remembering(SpawnContext):
    """Spawns processes, and knows which: an executor has no way to end them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **kwargs)
        self.started.append(process)
        return process


def _done(task: Callable[[Partition], Any], partition: Partition) -> Any:
    """In a process: what the task gives. What cannot travel back would look as if the process was killed."""
    try:
        result = task(partition)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the results are taken
        raise portable(error)  # noqa: B904 - mostly the same
    try:
        pickle.dumps(result)
    except Exception as error:
        text = f"what the function returned for {partition!r} cannot come back from its process ({error})"
        raise InvalidInput(f"{text}: return what can be pickled; of `Parts`, what `load()` gives") from error
    return result


def _begun() -> None:
    """In a new process: Ctrl-C is its parent's affair, and it ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "it is a child"

    def watch() -> None:
        # the pipe may stay open where the parent was killed: what was forked from it has that too
        while not multiprocessing.connection.wait([parent.sentinel], _LOOK_EVERY):
            if os.getppid() not in (parent.pid, 0):
                break
        os.kill(os.getpid(), signal.SIGTERM)

    beside(watch)
