"""What to read and how hard to read it. Every default of the project stands here."""

from __future__ import annotations

import codecs
import math
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ._errors import InvalidInput, closest

KiB = 1024
MiB = 1024 * 1024

ATOMIC = 64 * KiB
"""Bytes of a collection that one command reads whole; a bigger one is read in chunks and put together."""

METADATA = ("ttl", "memory", "idle", "freq", "encoding", "expires_at", "details")
"""What `metadata=` may ask for: ms to live, bytes, seconds idle, LFU counter, the name of the encoding; ms
since 1970, and what a value has beside its elements."""

LOSSLESS = ("expires_at", "details")
"""The metadata of `stream` that a record needs so that nothing is lost on the way to a file and back."""

PART_BYTES = 256 * MiB
"""Bytes of one part of an export, about."""

EXPORT_AHEAD = 16 * MiB
"""Bytes that an export reads ahead: what comes while a group of rows is being encoded."""

PART_SECONDS = 60.0
"""After this a part is closed even when it is small: so much is done again after a crash, at most."""

MOST_PROCESSES = 1000

CORE_TYPES = ("string", "hash", "list", "set", "zset", "stream")
MODULE_TYPES = (
    "ReJSON-RL",
    "MBbloom--",
    "MBbloomCF",
    "CMSk-TYPE",
    "TopK-TYPE",
    "TDIS-TYPE",
    "TSDB-TYPE",
    "graphdata",
    "vectorset",
)
TYPE_ALIASES = {"json": "ReJSON-RL"}
_NO_TYPES = {"sortedset": "zset", "hashtable": "hash"}
_MODULE_TYPE_LENGTH = 9  # the module API fixes it, so any other length is a slip of the pen

_LIMITS = ("rate", "bandwidth", "max_load")
_CHOICES = {"on_unreachable": ("wait", "fail", "skip"), "read_from": ("primary", "replica")}
_UNIQUE = (False, True, "memory", "disk")

Keys = Iterable["bytes | str"] | AsyncIterable["bytes | str"]


@dataclass(frozen=True)
class Options:
    """How hard to read. The defaults are meant to be right; a change is a measured one.

    `count`            keys asked of the server at a time, at most (SCAN's COUNT, and a page of `keys`)
    `ranges`           cursor ranges read at the same time, each over its own connection; 1: never more
    `most_ranges`      how many they may become where the way to the server is long
    `parts_over`       bytes; a value bigger than this arrives as `Parts`
    `chunk`            bytes of a big value read at a time
    `burst`            bytes of replies asked for at a time, as far as can be foreseen
    `ahead`            bytes read and not yet delivered, over all connections; of a cluster as many again
                       wait for the verdict that their slots have not moved
    `reply_limit`      bytes; a burst of replies past this is dropped and read again in small steps
    `timeout`          seconds the server may stay silent while it owes a reply
    `connect_timeout`  seconds until a connection must be ready for its first command
    `rate`             keys read a second, at most; None: no limit
    `bandwidth`        bytes of replies a second, at most, over all connections
    `max_load`         share of one core's time that the server may spend on us, above 0 and up to 1
    `on_unreachable`   "wait" for a server that cannot be reached, "fail" at once, or "skip" what it holds
    `patience`         seconds to wait for it, before "wait" fails and "skip" skips
    `read_from`        "primary", or "replica": those that are in sync with what the primary had at the start
    """

    count: int = 750
    ranges: int = 2
    most_ranges: int = 32
    parts_over: int = 1 * MiB
    chunk: int = 256 * KiB
    burst: int = 1 * MiB
    ahead: int = 4 * MiB
    reply_limit: int = 8 * MiB
    timeout: float = 30.0
    connect_timeout: float = 10.0
    rate: float | None = None
    bandwidth: float | None = None
    max_load: float | None = None
    on_unreachable: str = "wait"
    patience: float = 60.0
    read_from: str = "primary"

    @classmethod
    def of(cls, options: Options | None, **given: float | str | None) -> Options:
        """These options, or the defaults, with what was given beside them. Raises InvalidInput."""
        options = cls() if options is None else options
        if not isinstance(options, Options):
            raise InvalidInput(
                f"options= is an oneatatime.Options, not {type(options).__name__}: {options!r}"
            )
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(options, **changes) if changes else options

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                said = ", ".join(map(repr, choices))
                raise InvalidInput(f"option {name}={getattr(self, name)!r} must be one of {said}")
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name in _CHOICES or (value is None and name in _LIMITS):
                continue
            whole = "timeout" not in name and name not in (*_LIMITS, "patience")
            number, said = (int, "whole number") if whole else (int | float, "number")
            if not isinstance(value, number) or isinstance(value, bool) or not value > 0:
                raise InvalidInput(f"option {name}={value!r} must be a {said} above 0")
            if name in _LIMITS and not math.isfinite(value):
                raise InvalidInput(f"option {name}={value!r} is no limit: leave it None")
        if self.max_load is not None and self.max_load > 1:
            raise InvalidInput(
                f"option max_load={self.max_load!r} is a share of the server's time: at most 1"
            )


@dataclass(frozen=True)
class Selection:
    """What to read: which keys, which types, what beside the value, and as bytes or as text."""

    match: bytes | None = None
    types: tuple[str, ...] = ()
    keys: Keys | None = field(default=None, compare=False, repr=False)
    metadata: tuple[str, ...] = ()
    encoding: str | None = None
    errors: str = "strict"
    unique: bool | str = False
    all_dbs: bool = False
    fields: tuple[bytes, ...] = ()
    dump: bool = False

    def reading(self, *, fields: Iterable[bytes | str] | None, dump: bool) -> Selection:
        """The same, of hashes only these fields, or of all values what DUMP gives.

        Raises InvalidInput where that makes no sense.
        """
        if dump and (fields is not None or self.encoding is not None):
            raise InvalidInput("dump= gives what only RESTORE understands: not with fields= or encoding=")
        if fields is None:
            return replace(self, dump=bool(dump))
        if self.types not in ((), ("hash",)):
            raise InvalidInput(f"fields= are of hashes, and types={self.types!r} asks for something else")
        names = [_name_of_field(name, self.encoding or "utf-8") for name in _several(fields, "fields")]
        if not names:
            raise InvalidInput("fields= names no field")
        return replace(self, types=("hash",), fields=tuple(dict.fromkeys(names)))

    @classmethod
    def checked(
        cls,
        *,
        match: bytes | str | None,
        types: str | Iterable[str] | None,
        keys: Keys | None,
        metadata: str | Iterable[str],
        encoding: str | None,
        errors: str,
        unique: bool | str = False,
        all_dbs: bool = False,
    ) -> Selection:
        """The selection these arguments of `stream` mean.

        Raises InvalidInput if an argument makes no sense by itself or beside another.
        """
        if keys is not None and match is not None:
            raise InvalidInput(
                "keys= and match= exclude each other: give the keys to read, or a pattern to find them by"
            )
        if isinstance(keys, str | bytes):
            raise InvalidInput(f"keys={keys!r} is one key, not many: write keys=[{keys!r}]")
        if keys is not None and not isinstance(keys, Iterable | AsyncIterable):
            raise InvalidInput(
                f"keys= must be an iterable or async iterable of keys, not {type(keys).__name__}"
            )
        if unique not in _UNIQUE:
            raise InvalidInput(f'unique={unique!r} must be True, False, "memory" or "disk"')
        if keys is not None and (unique or all_dbs):
            raise InvalidInput("keys= are read as they are given: without unique=, and from one database")
        return cls(
            match=_pattern(match, _codec(encoding, errors) or "utf-8", errors),
            types=tuple(dict.fromkeys(_type_name(name) for name in _several(types, "types"))),
            keys=keys,
            metadata=tuple(dict.fromkeys(_metadata_name(name) for name in _several(metadata, "metadata"))),
            encoding=_codec(encoding, errors),
            errors=errors,
            unique=unique,
            all_dbs=all_dbs,
        )


def check_processes(processes: Any, *, keys: bool, partition: bool) -> None:
    """Raises InvalidInput where `processes=` makes no sense, by itself or beside another argument."""
    if not isinstance(processes, int) or isinstance(processes, bool) or not 0 < processes <= MOST_PROCESSES:
        raise InvalidInput(f"processes={processes!r} must be a number from 1 to {MOST_PROCESSES:,}")
    if processes > 1 and keys:
        raise InvalidInput("keys= are read in their order, by one process: leave out processes=")
    if processes > 1 and partition:
        raise InvalidInput("a partition is what one process reads: give the source itself to processes=")


def _several(names: Any, what: str) -> Iterable[Any]:
    if names is None:
        return ()
    if isinstance(names, str | bytes):
        return (names,)
    if not isinstance(names, Iterable):
        raise InvalidInput(f"{what}={names!r} must be a name or several, not {type(names).__name__}")
    return names


def _name_of_field(name: Any, encoding: str) -> bytes:
    if not isinstance(name, bytes | str):
        raise InvalidInput(f"a field is named by bytes or str, not {type(name).__name__}: {name!r}")
    return name if isinstance(name, bytes) else name.encode(encoding)


def _pattern(match: Any, encoding: str, errors: str) -> bytes | None:
    if match is None or isinstance(match, bytes):
        return match
    if not isinstance(match, str):
        raise InvalidInput(f"match={match!r} must be bytes or str, not {type(match).__name__}")
    try:
        return match.encode(encoding, errors)
    except UnicodeError as error:
        raise InvalidInput(f"match={match!r} is not {encoding}: {error}") from error


def _type_name(name: str) -> str:
    if not isinstance(name, str):
        raise InvalidInput(f"a type is named by a str, not {type(name).__name__}: {name!r}")
    name = TYPE_ALIASES.get(name, name)
    known = {known.lower(): known for known in CORE_TYPES + MODULE_TYPES}
    if name.lower() in known:
        return known[name.lower()]
    if len(name) == _MODULE_TYPE_LENGTH and name.lower() not in _NO_TYPES:  # a module we have not heard of
        return name
    meant = _NO_TYPES.get(name.lower()) or closest(name.lower(), [*known, *TYPE_ALIASES])
    hint = f"did you mean {meant!r}? " if meant else ""
    raise InvalidInput(
        f"there is no type {name!r}: {hint}the types are {', '.join(CORE_TYPES)}, json, "
        f"and a module's own 9-letter names such as {MODULE_TYPES[1]}"
    )


def _metadata_name(name: str) -> str:
    if name not in METADATA:
        raise InvalidInput(f"there is no metadata {name!r}: choose from {', '.join(METADATA)}")
    return name


def _codec(encoding: str | None, errors: str) -> str | None:
    if encoding is None:
        return None
    try:
        codecs.lookup_error(errors)
        " ".encode(encoding)  # what no text has, such as "hex", fails too
    except (LookupError, TypeError, UnicodeError) as error:
        raise InvalidInput(f"encoding={encoding!r}, errors={errors!r}: {error}") from error
    return encoding
