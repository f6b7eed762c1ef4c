"""Commands that add elements to a value: as many as it takes, each of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator

from .._options import KiB
from .._request import Burst
from .._resp import commands, size_of

MOST_ELEMENTS = 1000
"""Elements of one command: a server that takes many more at once keeps others waiting."""

_MOST_BYTES = 256 * KiB

NOTHING = Burst(b"", 0, False)


def words(*given: bytes) -> Burst:
    """One command, of which every word is bytes already; raises TypeError where one is not."""
    return Burst(b"*%d\r\n%b" % (len(given), commands(b"", given, b"")), 1, False)


def added(
    name: bytes, key: bytes, elements: list[bytes], each: int = 1, *, before: tuple[bytes, ...] = ()
) -> Burst:
    """The commands that add elements, each of which is so many words; `before` stands before them."""
    packed = []
    for some in _bounded(elements, each):
        packed.append(b"*%d\r\n" % (len(some) + len(before) + 2))
        packed.append(commands(b"", [name, key, *before, *some], b""))
    return Burst(b"".join(packed), len(packed) // 2, False)


def together(bursts: list[Burst]) -> Burst:
    """Several bursts as one; also none at all."""
    payload = b"".join([burst.payload for burst in bursts])
    return Burst(payload, sum([burst.replies for burst in bursts]), False)


def _bounded(elements: list[bytes], each: int) -> Iterator[list[bytes]]:
    """The elements, cut where a command has had enough; never inside of one."""
    most = MOST_ELEMENTS * each
    if size_of(elements) <= _MOST_BYTES:
        for start in range(0, len(elements), most):
            yield elements[start : start + most]
        return
    start = size = 0
    for place in range(0, len(elements), each):
        more = sum(map(len, elements[place : place + each]))
        if place > start and (size + more > _MOST_BYTES or place - start >= most):
            yield elements[start:place]
            start, size = place, 0
        size += more
    yield elements[start:]
