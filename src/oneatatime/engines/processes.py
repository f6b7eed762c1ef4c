"""All cores of this machine: a function of yours for each partition, in processes of the standard library."""

from __future__ import annotations

import os
import pickle
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from .._errors import Incomplete, InvalidInput
from .._partition import Partition
from .._stream import Stream
from ._table import Task, opened
from ._workers import Worker

_EACH = 8  # partitions for each process, so that none is idle for long at the end
_AHEAD = 2  # of them given to it at once: the one it does, and the next


def apply(
    source: object,
    function: Callable[[Stream], Any],
    *,
    processes: int | None = None,
    partitions: int | None = None,
    retries: int = 2,
    **arguments: Any,
) -> Iterator[Any]:
    """What `function(stream)` returns for the stream of each partition, in the order in which they are done.

    `processes`: as many as this one may use cores; `partitions`: eight for each. `arguments` are those of
    `stream`, with `secret`; without it, processes get a password over a pipe. No more than two partitions
    for each process are begun or done ahead of the loop. The processes end with the loop, however that ends.
    A partition whose process is killed is done again, `retries` times at most: `function` sees each key at
    least once. An error of `function` or of its stream is raised here, and ends the rest.

    Processes are spawned: `function` must be found by its name in a module, and a program must call this
    under `if __name__ == "__main__":`.

    Raises InvalidInput for a function that cannot be sent, and what `plan` raises; in the loop, Incomplete
    for a partition whose process was killed too often.

    >>> def longest(stream):
    ...     return max((len(value) for _, value in stream), default=0)
    >>> def longest_of_all(url):
    ...     return max(apply(url, longest, types="string"))
    """
    processes = _cores() if processes is None else processes
    for name, number, least in (("processes", processes, 1), ("retries", retries, 0)):
        if number.__class__ is not int or number < least:
            raise InvalidInput(f"{name}={number!r} must be a number, {least} at least")
    sent, _ = opened(source, arguments, travels=False)
    task = Task(function, sent.arguments)
    _check(task, repr(function))
    parts = sent.cut(_EACH * processes if partitions is None else partitions)
    _check(parts[:1], "the source" if arguments.get("secret") is None else "what secret= was given")
    return _results(task, parts, min(processes, len(parts)), retries)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(what: object, name: str) -> None:
    """Raises InvalidInput for what another process could not be given."""
    try:
        sent = pickle.dumps(what)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        text = f"{name} cannot be sent to another process ({error})"
        raise InvalidInput(f"{text}: define it at the top of a module") from error
    main = sys.modules["__main__"]
    if b"__main__" in sent and main.__spec__ is None and not os.path.isfile(getattr(main, "__file__", "")):
        text = f"{name} is of a notebook, or was typed in, where no other process finds it"
        raise InvalidInput(f"{text}: put it into a module, and import it")


def _results(task: Task, parts: Sequence[Partition], processes: int, retries: int) -> Iterator[Any]:
    waiting, killed = deque(parts), Counter[int]()
    workers: list[Worker] = []
    try:
        workers += [Worker() for _ in range(processes)]
        while True:
            for ahead in range(_AHEAD):
                for worker in workers:
                    if waiting and len(worker.given) <= ahead and worker.give(task, waiting[0]):
                        waiting.popleft()
            futures = [future for worker in workers for _, future in worker.given]
            if not futures:
                return
            wait(futures, return_when=FIRST_COMPLETED)
            for worker in workers:
                while worker.is_done:
                    try:
                        result = worker.take()
                    except BrokenProcessPool as error:
                        left = worker.renew()
                        killed[left[0].index] += 1
                        if killed[left[0].index] > retries:
                            raise _given_up(left[0], retries) from error
                        waiting.extendleft(reversed(left))
                    else:
                        yield result
    finally:
        for worker in workers:
            worker.close()


def _given_up(partition: Partition, retries: int) -> Incomplete:
    text = f"{partition!r} was begun {retries + 1} times, and each time its process ended before it was done"
    hint = 'is memory short, or does the program call apply outside of `if __name__ == "__main__":`?'
    return Incomplete(f"{text}: {hint}", missing=(repr(partition),))
