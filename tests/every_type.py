"""Data of every type, with what is beside values and with big ones; and what a server holds."""

from __future__ import annotations

from typing import Any

import oneatatime
from oneatatime import Options, Record
from oneatatime._record import StreamDetails

SMALL = Options(parts_over=64 * 1024)
"""With which some of it is too big to hold."""
KEYS = 608


def fill(admin: Any) -> None:
    """KEYS keys: strings and hashes, some with an expiry, and a few of everything else."""
    pipe = admin.pipeline(transaction=False)
    for number in range(300):
        pipe.set(f"string:{number}", f"value {number}", pxat=4_000_000_000_000 if number % 3 else None)
        pipe.hset(f"hash:{number}", mapping={"name": f"n{number}", "age": number, b"\xff": b"\xfe"})
    pipe.rpush("list", *range(50))
    pipe.sadd("set", *range(50))
    pipe.zadd("zset", {"a": 1.5, "b": float("inf"), b"\xfd": -0.0})
    for number in range(1, 20):
        pipe.xadd("stream", {"f": number}, id=f"{number}-1")
    pipe.xgroup_create("stream", "readers", "0")
    pipe.xreadgroup("readers", "ann", {"stream": ">"}, count=3)
    pipe.hexpire("hash:1", 1_000_000, "name")
    pipe.set("big:string", bytes(range(256)) * 1024)
    pipe.rpush("big:list", *[b"%d" % n * 20 for n in range(20_000)])
    pipe.hset("big:hash", mapping={f"f{n}": "x" * 30 for n in range(9_000)})
    pipe.pfadd("hyper", *range(100))
    pipe.execute()


def content(source: str, **arguments: Any) -> dict[Any, Record]:
    """Every record by database and key, details and expiry included, big values whole.

    But for when entries were delivered, which is not told exactly: tests.compare allows for that.
    """
    options = Options(parts_over=2**30)
    metadata = ("expires_at", "details")
    found = {}
    for record in oneatatime.stream(source, metadata=metadata, options=options, **arguments).records():
        details = record.details
        if isinstance(details, StreamDetails):
            pending = tuple(one._replace(delivered_at=0) for one in details.pending)
            record = record._replace(details=details._replace(pending=pending))
        found[record.db, record.key] = record
    return found


def put_together(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Rows of the layout records by database and key, pieces of a value made one again."""
    found: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["part"] or 0):
        name = row.get("db"), row["key"]
        before = found.setdefault(name, {})
        assert not before or row["part"], f"{name} came twice"
        for column, value in row.items():
            if column in ("part", "last", "torn"):
                continue
            if isinstance(value, list):
                value = list(map(repr, value))
            if value is not None and before.get(column) is not None and column not in ("key", "type", "db"):
                value = before[column] + value
            if column not in before or value is not None:
                before[column] = value
    for row in found.values():
        for one in (row["groups"] or {}).get("pending") or ():
            one["delivered_at"] = 0  # as in `content`
        for column in ("hash", "set", "fields_expire_at"):
            row[column] = sorted(row[column] or [])
    return found
