"""Records -> the commands that write them, and what is meant by the errors that come back.

A *lot* is a burst about several records, which one server gets. It knows which of its replies is about which.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._connection import server_error
from ._errors import Error, InvalidInput
from ._options import KiB
from ._record import Batch, Commands, Opaque, Piece, StreamDetails
from ._request import Burst, ReplyError, for_each, one_for_all
from ._resp import lengths
from .datatypes import MOST_ELEMENTS, NOTHING, Datatype, datatype, together, words

LOT = 128 * KiB
"""Bytes of commands that are sent at a time: about a millisecond of a server's time."""

Refusals = list[tuple[int, ReplyError]]
"""Errors in replies, and the place of each."""

_MOST_ROWS = 1000
_SENT_ELSEWHERE = ("MOVED ", "ASK ")
_LATER = ("CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN", "BUSY ", "NOREPLICAS")


class Abilities(NamedTuple):
    """What a server takes. `sets_expiry`: SET knows PXAT; `fields_expire`: hashes know HPEXPIREAT.

    `counts_entries`: its streams know how many entries they were ever given, its groups how many they read.
    """

    sets_expiry: bool = False
    fields_expire: bool = True
    counts_entries: bool = True

    @classmethod
    def told(cls, hello: dict[str, Any]) -> Abilities:
        """What follows from its version; where it tells none, what is surest."""
        numbers = str(hello.get("version", "")).split(".")[:2]
        if not all(number.isdigit() for number in numbers):
            return cls()
        version = tuple(map(int, numbers))
        fields_expire = version >= ((9, 0) if hello.get("server") == "valkey" else (7, 4))
        return cls(version >= (6, 2), fields_expire, version >= (7, 0))


@dataclass(eq=False, repr=False)
class Lot:
    """Records of a batch that are written by one burst; `owners` has the row that each reply is about.

    The first `head` replies tell how many keys made room. `piece`: it is one of a value's. `absent`: nothing
    was there, so that what comes up meanwhile stays.
    """

    batch: Batch
    rows: list[int]
    burst: Burst
    owners: list[int]
    head: int = 0
    piece: Piece | None = None
    absent: bool = False

    def refused(self, replies: Sequence[Any]) -> dict[int, Refusals]:
        """By row, the errors among its replies, each with its place among all of them."""
        found: dict[int, Refusals] = {}
        for place, reply in enumerate(replies):
            if isinstance(reply, ReplyError) and not (self.absent and _is_there(reply)):
                for row in self.rows if place < self.head == 1 else (self.owners[place],):
                    found.setdefault(row, []).append((place, reply))
        return found

    def stayed(self, replies: Sequence[Any]) -> set[int]:
        """Where it is `absent`, the rows whose keys came up before they were written, and are not ours."""
        return {row for row, reply in zip(self.owners, replies) if reply is None or _is_there(reply)}

    def halves(self, refused: dict[int, Refusals]) -> list[int]:
        """The rows of which some may be there: of their elements the server took some, and not all.

        Not those that met a key which came up meanwhile, and is not ours.
        """
        found = []
        for row, errors in refused.items():
            places = [place for place in range(self.head, len(self.owners)) if self.owners[place] == row]
            kind = self.batch.types if isinstance(self.batch.types, str) else self.batch.types[row]
            alien = any(str(reply).startswith("WRONGTYPE") for _, reply in errors)
            if kind != "string" and not alien and len(errors) < len(places):
                found.append(row)
        return found

    def command(self, place: int) -> str:
        """The name of the command that this reply is to."""
        at, payload = 0, self.burst.payload
        for _ in range(place + 1):
            start = payload.index(b"\r\n", at) + 2
            count, at = int(payload[at + 1 : start - 2]), start
            for _ in range(count):
                end = payload.index(b"\r\n", at)
                at = end + 4 + int(payload[at + 1 : end])
        first = payload.index(b"\r\n", start) + 2
        return payload[first : first + int(payload[start + 1 : first - 2])].decode("ascii", "replace")


class Packer:
    """Makes lots for one server. `slotted`: a command about several keys would be refused by a cluster."""

    def __init__(self, able: Abilities, *, slotted: bool) -> None:
        self._able = able
        self._slotted = slotted

    def lots(
        self, batch: Batch, rows: list[int], *, absent: bool = False, piece: Piece | None = None
    ) -> Iterator[Lot]:
        """Lots about these rows. `absent`: their keys are not there, so nothing has to make room.

        Raises InvalidInput for what cannot be written.
        """
        if piece is None and Opaque in set(map(type, batch.values)) and len(set(batch.keys)) == len(batch):
            dumps = [row for row in rows if batch.values[row].__class__ is Opaque]
            rows = [row for row in rows if batch.values[row].__class__ is not Opaque]
            yield from self._restored(batch, dumps, absent=absent)
        for kind, some in _by_type(batch, rows):
            if piece is None and kind.one_command:
                for part in _slices(batch, some):
                    lot = self._quick(kind, batch, part, absent=absent)
                    yield from [lot] if lot is not None else self._careful(kind, batch, part, absent=absent)
            else:
                yield from self._careful(kind, batch, some, absent=absent, piece=piece)

    def asking(self, batch: Batch, rows: list[int], command: bytes) -> Lot:
        """A lot that asks by this command, key by key, whether they are there."""
        return Lot(batch, rows, for_each((command,), [batch.keys[row] for row in rows]), rows)

    def _quick(self, kind: Datatype, batch: Batch, rows: list[int], *, absent: bool) -> Lot | None:
        """Small values without details, one command each; None where they are anything else."""
        if any(_column(batch, "details", rows)):
            return None
        keys, values = _at(batch.keys, rows), _at(batch.values, rows)
        if not kind.replaces and len(set(keys)) < len(keys):  # each has to make room for itself
            return None
        text = kind.name == "string"
        if kind.forms and not set(kind.forms).issuperset(map(type, values)):
            return None
        try:
            if kind.has_elements and not (all(values) and lengths(values)[0] <= MOST_ELEMENTS):
                return None
            moments = _column(batch, "expires_at", rows)
            if text and self._able.sets_expiry and any(moments):
                values, moments = _with_expiry(values, moments), []
            if text and absent:
                values = [(value, b"NX") if value.__class__ is bytes else (*value, b"NX") for value in values]
            body = kind.written_each(keys, values)
        except (AttributeError, TypeError, ValueError):  # the careful way says which
            return None
        return self._lot(kind, batch, rows, body, rows, absent=absent, moments=moments)

    def _restored(self, batch: Batch, rows: list[int], *, absent: bool) -> Iterator[Lot]:
        """Dumps, by a command each that says all of it."""
        kind, replacing = datatype("dump"), () if absent else (b"REPLACE",)
        for part in _slices(batch, rows, [len(batch.values[row].dump) for row in rows]):
            moments = _column(batch, "expires_at", part)
            values = [
                (b"0" if moment is None else b"%d" % moment, batch.values[row].dump, *replacing, b"ABSTTL")
                for row, moment in zip(part, moments)
            ]
            keys = [batch.keys[row] for row in part]
            try:
                body = kind.written_each(keys, values)
            except TypeError as error:
                raise InvalidInput(f"a dump is bytes: {error}", key=keys[0]) from error
            yield self._lot(kind, batch, part, body, part, absent=absent, moments=[])

    def _careful(
        self, kind: Datatype, batch: Batch, rows: list[int], *, absent: bool, piece: Piece | None = None
    ) -> Iterator[Lot]:
        """Any values, each by as many commands as it takes."""
        bursts: list[Burst] = []
        owners: list[int] = []
        own: list[int] = []
        keys: set[bytes] = set()
        size = 0
        for row in rows:
            burst = self._written(kind, batch, row, piece)
            if own and (size + len(burst.payload) > LOT or batch.keys[row] in keys):
                yield self._lot(kind, batch, own, together(bursts), owners, absent=absent)
                bursts, owners, own, size, keys = [], [], [], 0, set()
            bursts.append(burst)
            keys.add(batch.keys[row])
            owners += [row] * burst.replies
            own.append(row)
            size += len(burst.payload)
        if own:
            yield self._lot(kind, batch, own, together(bursts), owners, absent=absent, piece=piece)

    def _written(self, kind: Datatype, batch: Batch, row: int, piece: Piece | None) -> Burst:
        key, value = batch.keys[row], batch.values[row]
        (details,) = _column(batch, "details", [row])
        first, last = piece is None or piece.number == 0, piece is None or piece.last
        if isinstance(value, Commands):
            return Burst(b"".join(value.commands), len(value.commands), False)
        if isinstance(value, Opaque):
            kind = datatype("dump")
        try:
            if kind.forms and not isinstance(value, kind.forms):
                raise TypeError(f"not {type(value).__name__}")
            value, details = self._fitting(kind, key, value, details)
            return kind.written(key, value, details, first=first, last=last)
        except ValueError as error:
            if isinstance(error, Error):
                raise
            raise InvalidInput(f"the value cannot be written: {error}", key=key) from error
        except (AttributeError, TypeError) as error:
            text = f"this is no value of type {kind.name}, or not one of bytes: {str(value)[:80]}"
            raise InvalidInput(text, key=key) from error

    def _fitting(self, kind: Datatype, key: bytes, value: Any, details: Any) -> tuple[Any, Any]:
        """The value and its details, without what is over by now and what the server does not keep."""
        if not details:
            return value, details
        if kind.name == "hash":
            now = time.time() * 1000
            over = {field for field, moment in details.items() if moment <= now}
            details = {field: moment for field, moment in details.items() if field not in over}
            if details and not self._able.fields_expire:
                text = "fields of this hash expire, which needs Redis 7.4, Valkey 9.0 or later to write"
                raise InvalidInput(text, key=key)
            return {field: content for field, content in value.items() if field not in over}, details
        if isinstance(details, StreamDetails) and not self._able.counts_entries:
            groups = tuple(group._replace(entries_read=None) for group in details.groups)
            details = details._replace(entries_added=None, max_deleted_id=None, groups=groups)
        return value, details

    def _lot(
        self,
        kind: Datatype,
        batch: Batch,
        rows: list[int],
        body: Burst,
        owners: list[int],
        *,
        absent: bool,
        moments: list[Any] | None = None,
        piece: Piece | None = None,
    ) -> Lot:
        """What is written, after what makes room for it and before what lets it expire."""
        keys = _at(batch.keys, rows)
        first, last = piece is None or piece.number == 0, piece is None or piece.last
        head = NOTHING
        if first and not absent and not (kind.replaces and piece is None):
            head = for_each((b"UNLINK",), keys) if self._slotted else one_for_all(b"UNLINK", keys)
        tail, expiring = NOTHING, list[int]()
        if last:
            moments = _column(batch, "expires_at", rows) if moments is None else moments
            pairs = [pair for pair in zip(rows, moments) if pair[1] is not None] if any(moments) else []
            expiring = [row for row, _ in pairs]
            if pairs:
                tail = together([words(b"PEXPIREAT", batch.keys[row], b"%d" % at) for row, at in pairs])
        owners = [*(rows if head.replies == len(rows) else rows[: head.replies]), *owners, *expiring]
        return Lot(batch, rows, together([head, body, tail]), owners, head.replies, piece, absent)


def _by_type(batch: Batch, rows: list[int]) -> Iterator[tuple[Datatype, list[int]]]:
    """The rows of each type; row by row where a key comes twice, because then their order matters."""
    if isinstance(batch.types, str):
        yield datatype(batch.types), rows
        return
    keys = set(batch.keys) if len(rows) == len(batch) else {batch.keys[row] for row in rows}
    found: dict[str, list[int]] = {}
    for row in rows:
        if len(keys) < len(rows):
            yield datatype(batch.types[row]), [row]
        else:
            found.setdefault(batch.types[row], []).append(row)
    yield from ((datatype(name), some) for name, some in found.items())


def _slices(batch: Batch, rows: list[int], sizes: list[int] | None = None) -> Iterator[list[int]]:
    """As many rows at a time as make a lot, as far as can be foreseen."""
    try:
        size = lengths(_at(batch.values, rows))[1] if sizes is None else sum(sizes)
    except TypeError:
        size = 0
    if sizes is None and batch.types != "string":  # that was elements, not bytes
        size *= max(1, batch.size // max(1, size)) if batch.size else 32
    step = max(1, min(_MOST_ROWS, len(rows) * LOT // max(size, 1)))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _column(batch: Batch, name: str, rows: list[int]) -> list[Any]:
    column = None if batch.metadata is None else batch.metadata.get(name)
    return [None] * len(rows) if column is None else _at(column, rows)


def _at(column: list[Any], rows: list[int]) -> list[Any]:
    """What stands in these rows, which are in their order: mostly a run of them."""
    if rows and rows[-1] - rows[0] + 1 == len(rows):
        return column[rows[0] : rows[-1] + 1]
    return [column[row] for row in rows]


def _with_expiry(values: list[Any], moments: list[Any]) -> list[Any]:
    """Strings, and behind each that expires the words that say so."""
    return [
        value if moment is None else (value, b"PXAT", b"%d" % moment)
        for value, moment in zip(values, moments)
    ]


def by_database(batch: Batch, rows: list[int]) -> list[tuple[int | None, list[int]]]:
    """The rows of each database; None: of no database in particular."""
    column = None if batch.metadata is None else batch.metadata.get("db")
    if column is None:
        return [(None, rows)] if rows else []
    found: dict[int | None, list[int]] = {}
    for row in rows:
        found.setdefault(column[row], []).append(row)
    return list(found.items())


# What replies mean


def _is_there(reply: Any) -> bool:
    """Whether it says that a key is there, which RESTORE would have to replace."""
    return isinstance(reply, ReplyError) and str(reply).startswith("BUSYKEY")


def sent_on(reply: ReplyError) -> str | None:
    """Where a cluster sends us on to; "" where the same may be asked again later; None: neither."""
    text = str(reply)
    if text.startswith(_SENT_ELSEWHERE):
        return text
    return "" if text.startswith(_LATER) else None


def refusal(reply: ReplyError, *, node: str, key: bytes, command: str) -> Error:
    """The error that it means, with what can be done about it."""
    error = server_error(reply, node=node, key=key, command=command)
    text = str(reply)
    hint = ""
    if text.startswith("OOM"):
        hint = "raise its maxmemory, or import into a bigger server"
    elif text.startswith("READONLY"):
        hint = "this is a replica: import into its primary"
    elif "unknown command" in text:
        hint = f"it has no {command}: a module is not loaded, or the server is too old for this"
    elif command == "RESTORE" and ("Bad data format" in text or "version or checksum" in text):
        hint = (
            "the dump is of a newer server, of another family, or of a module that is not loaded here: "
            "JSON lines and Parquet go everywhere"
        )
    if hint:
        error = type(error)(f"{error.message}; {hint}", node=node, key=key, command=command)
    return error
