"""Everything that a server holds, as plain data: two servers hold the same where these are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import redis

from tests.nodes import Refused

_SLACK_MS = 100  # XPENDING tells how long ago, in ms; between two questions time goes on

Everything = dict[bytes, dict[str, Any]]


Ask = Callable[..., Any]


def everything(server: Any, *, db: int = 0) -> Everything:
    """Each key of `server` (one of the tests', a node of theirs, or a client) with all that an export keeps.

    `type`, `value`, `expires_at` (PEXPIRETIME; -1: never), of a hash `fields_expire_at`, of a stream `info`,
    `consumer_groups` and `pending`. Two of these are compared by `assert_same`: when an entry was delivered
    is not told exactly.
    """
    if hasattr(server, "many"):  # a node: its wire stays open, and gives replies as they come
        assert db == 0, "a node is asked about the database that its wire is in"
        return _everything(server.ask)
    client = getattr(server, "admin", server)
    connection = client.connection_pool.get_connection()
    try:

        def ask(*words: Any) -> Any:  # not the client's own methods, which make of replies what they like
            connection.send_command(*words)
            return connection.read_response(disable_decoding=True)

        ask("SELECT", db)
        found = _everything(ask)
        ask("SELECT", 0)
        return found
    finally:
        client.connection_pool.release(connection)


def assert_same(found: Everything, wanted: Everything) -> None:
    """Both hold the same: to the byte and to the millisecond, but for when entries were delivered."""
    assert sorted(found) == sorted(wanted)
    for key, one in wanted.items():
        here, there = dict(found[key]), dict(one)
        delivered, delivered_there = here.pop("pending", []), there.pop("pending", [])
        assert here == there, key
        if one["type"] == "ReJSON-RL":  # 1 is 1.0 to Python, and -0.0 is 0.0
            assert repr(here["value"]) == repr(there["value"]), key
        assert [entry[:-1] for entry in delivered] == [entry[:-1] for entry in delivered_there], key
        for (*_, at), (*_, at_there) in zip(delivered, delivered_there):
            assert abs(at - at_there) <= _SLACK_MS, key


def _everything(ask: Ask) -> Everything:
    return {key: _one(ask, key) for key in sorted(ask("KEYS", "*"))}


def _one(ask: Ask, key: bytes) -> dict[str, Any]:
    kind = _text(ask("TYPE", key))
    found: dict[str, Any] = {"type": kind, "expires_at": _expires_at(ask, key)}
    found["value"] = _VALUES.get(kind, _dump)(ask, key)
    if kind == "hash":
        found["fields_expire_at"] = _fields_expire_at(ask, key, list(found["value"]))
    elif kind == "stream":
        found.update(_stream(ask, key))
    return found


def _expires_at(ask: Ask, key: bytes) -> int:
    try:
        return int(ask("PEXPIRETIME", key))
    except (redis.ResponseError, Refused):  # before Redis 7.0: to the second is what can be told
        left = int(ask("PTTL", key))
        now = ask("TIME")
        return left if left < 0 else round((int(now[0]) * 1000 + int(now[1]) // 1000 + left) / 1000) * 1000


def _string(ask: Ask, key: bytes) -> Any:
    return ask("GET", key)


def _hash(ask: Ask, key: bytes) -> Any:
    flat = ask("HGETALL", key)
    return dict(zip(flat[::2], flat[1::2]))


def _list(ask: Ask, key: bytes) -> Any:
    return list(ask("LRANGE", key, 0, -1))


def _set(ask: Ask, key: bytes) -> Any:
    return set(ask("SMEMBERS", key))


def _zset(ask: Ask, key: bytes) -> Any:
    flat = list(ask("ZRANGE", key, 0, -1, "WITHSCORES"))
    return [
        (member, repr(float(score))) for member, score in zip(flat[::2], flat[1::2])
    ]  # repr: -0.0 is not 0.0


def _entries(ask: Ask, key: bytes) -> Any:
    return [(entry, list(fields or ())) for entry, fields in ask("XRANGE", key, "-", "+")]


def _json(ask: Ask, key: bytes) -> Any:
    return json.loads(ask("JSON.GET", key))


def _dump(ask: Ask, key: bytes) -> Any:
    return ask("DUMP", key)


_VALUES = {
    "string": _string,
    "hash": _hash,
    "list": _list,
    "set": _set,
    "zset": _zset,
    "stream": _entries,
    "ReJSON-RL": _json,
}


def _fields_expire_at(ask: Ask, key: bytes, fields: list[bytes]) -> dict[bytes, int]:
    if not fields:
        return {}
    try:
        times = ask("HPEXPIRETIME", key, "FIELDS", len(fields), *fields)
    except (redis.ResponseError, Refused):  # a server without them
        return {}
    return {field: int(at) for field, at in zip(fields, times) if int(at) >= 0}


def _stream(ask: Ask, key: bytes) -> dict[str, Any]:
    info = _named(ask("XINFO", "STREAM", key))
    kept = ("length", "last-generated-id", "max-deleted-entry-id", "entries-added", "groups")
    groups, pending = {}, []
    for raw in ask("XINFO", "GROUPS", key):
        group = _named(raw)
        name = group["name"]
        consumers = [_named(one) for one in ask("XINFO", "CONSUMERS", key, name)]
        groups[name] = {
            "last-delivered-id": group["last-delivered-id"],
            "entries-read": group.get("entries-read"),
            "consumers": {one["name"]: one["pending"] for one in consumers},
        }
        now = ask("TIME")
        ms = int(now[0]) * 1000 + int(now[1]) // 1000
        for entry, consumer, idle, deliveries in ask("XPENDING", key, name, "-", "+", 1_000_000):
            pending.append((name, entry, consumer, deliveries, ms - idle))
    info = {name: info[name] for name in kept if name in info}
    return {"info": info, "consumer_groups": groups, "pending": sorted(pending)}


def _named(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raw = dict(zip(raw[::2], raw[1::2]))
    return {_text(name): value for name, value in raw.items()}


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
