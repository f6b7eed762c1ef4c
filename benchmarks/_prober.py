"""Another client of the server: one GET every millisecond, over its own connection, until told to stop.

A GET goes out at its time even when the one before was not answered yet, so that a server which is away
for 10 ms is seen by ten of them and not by one. Prints the milliseconds of all answers as JSON.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from collections import deque
from urllib.parse import urlsplit

import hiredis

from ._admin import Command

PERIOD = 0.001  # seconds
_GRACE = 2.0  # seconds for the last answers


def probe(url: str, key: bytes, seconds: float) -> list[float]:
    """Seconds from sending each GET to having its answer."""
    parts = urlsplit(url)
    command: Command = ("GET", key)
    ask = hiredis.pack_command(command)
    answers = hiredis.Reader()
    took: list[float] = []
    sent: deque[float] = deque()
    with socket.create_connection((parts.hostname or "localhost", parts.port or 6379)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = due = time.perf_counter()
        end = began + seconds
        while (now := time.perf_counter()) < end or (sent and now < end + _GRACE):
            if now >= due and now < end:
                connection.sendall(ask)
                sent.append(now)
                due += PERIOD
                if due < now:  # we were not let run: what could not be sent is no latency of the server
                    due = now + PERIOD
            wait = (due if now < end else end + _GRACE) - time.perf_counter()
            if select.select([connection], [], [], max(0.0, wait))[0]:
                answers.feed(connection.recv(65536))
                came = time.perf_counter()
                while answers.gets() is not False:
                    took.append(came - sent.popleft())
    took += [time.perf_counter() - moment for moment in sent]  # never answered: at least as long
    return took


if __name__ == "__main__":
    gc.disable()
    print(
        json.dumps([value * 1000 for value in probe(sys.argv[1], sys.argv[2].encode(), float(sys.argv[3]))])
    )
