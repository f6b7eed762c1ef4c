"""What is to be known of keys beside their values: when they expire, and the values' details.

INFO says how many keys of a database expire, and in how many hashes fields do. A burst that begins and ends
with it, and finds none both times, has proven that for all it read between. Where there are some, every key
is asked, in the burst that reads its value, behind it: so nothing is taken for lasting that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ._record import Pending, StreamDetails
from ._request import Answer, Burst, Reply, ReplyError, command, for_each, joined
from .datatypes import Datatype, SomeFields
from .datatypes import details as of

Ask = tuple[Burst, Callable[[list[Any]], None]]

_LOOK = command(b"INFO", b"keyspace")
_FIELDS = (b"subexpiry=", b"keys_with_volatile_items=")  # as Redis and as Valkey say it
_GONE = -2
_EACH_PENDING = 100  # bytes in a reply, about


class Expiring:
    """What is known of expiry in a server's database; shared by all that read it.

    `told`: INFO may be asked, and means what it says. `some`: keys or fields expire, as far as is known.
    """

    def __init__(self) -> None:
        self.told = True
        self.some = False
        self.absolute = True  # it knows PEXPIRETIME
        self.fields = True  # it knows HPEXPIRETIME


class Rows(Protocol):
    """The page whose rows are asked about."""

    keys: list[bytes]
    values: list[Any]
    raw: bool
    most_bytes: int

    def outgrown(self, row: int, size: int) -> None:
        """What is pending of a stream is too much to hold: its parts will bring it."""

    def gone(self, row: int) -> None:
        """There is no such key by now."""

    def refuse(self, reply: Any, row: int, command: str) -> None:
        """The server does not tell about this row: it is left out, or an error is raised."""


class Beside:
    """What is to be known of a page's rows beside their values: `columns` of "expires_at" and "details".

    A row waits in a list until it has been asked about; `read` puts it there, once its value has come.
    """

    def __init__(self, page: Rows, expiring: Expiring, db: int, wanted: Sequence[str]) -> None:
        self.columns: dict[str, list[Any]] = {name: [None] * len(page.keys) for name in wanted}
        self._page = page
        self._expiring = expiring
        self._db = b"db%d:" % db
        self._undated: dict[int, None] = {}
        self._hashes: dict[int, None] = {}
        self._streams: dict[int, None] = {}
        self._groups: dict[tuple[int, bytes, bytes], None] = {}  # row, name, from which id on
        self._pending: dict[int, list[Pending]] = {}  # as far as they have come
        self._big: set[int] = set()
        self._some_fields = False  # and so a hash may be there without any of them
        self._singly = False  # what is asked beside values was too much for one reply
        self._clear = (False, False)  # no key expires, no field does

    def read(self, kind: Datatype, rows: Sequence[int], *, big: bool = False) -> None:
        """The values of rows have come; `big`: they will, part by part, with details of their own."""
        if "expires_at" in self.columns:
            self._undated.update(dict.fromkeys(rows))
        if "details" in self.columns:
            if kind.name == "hash" and self._expiring.fields and not big:
                self._some_fields = isinstance(kind, SomeFields)
                self._hashes.update(dict.fromkeys([row for row in rows if self._page.values[row]]))
            elif kind.name == "stream":
                self._streams.update(dict.fromkeys(rows))
                self._big.update(rows if big else ())

    # Two looks around a burst

    def quiet(self, kind: Datatype) -> bool:
        """Whether two looks may tell all there is to know of a page of this type."""
        alone = kind.name == "stream" and "details" in self.columns
        return self._expiring.told and not self._expiring.some and not alone

    def framed(self, burst: Burst) -> Burst:
        """A burst that reads a page, between two looks."""
        return joined([_LOOK, burst, _LOOK])

    def unframed(self, kind: Datatype, answer: Answer) -> tuple[Answer, bool]:
        """The answer to that, without the looks; and whether there is nothing to know, by them."""
        before, *replies, after = answer.replies
        self._look_before([before])
        self._look_after([after])
        fields = kind.name != "hash" or "details" not in self.columns or self._clear[1]
        return Answer(replies, answer.size), self._clear[0] and fields

    def _look_before(self, replies: list[Reply]) -> None:
        self._clear = self._none_of(replies[0])

    def _look_after(self, replies: list[Reply]) -> None:
        keys, fields = self._none_of(replies[0])
        self._expiring.some = not (keys and fields)
        self._clear = (self._clear[0] and keys, self._clear[1] and fields)
        if self._clear[0]:
            self._undated.clear()
        if self._clear[1]:
            self._hashes.clear()

    def _none_of(self, reply: Reply) -> tuple[bool, bool]:
        """Whether it says that no key of the database expires, and no field of a hash."""
        if not isinstance(reply, bytes):
            self._expiring.told = False
            return False, False
        line = next((line for line in reply.splitlines() if line.startswith(self._db)), None)
        if line is None:
            return b"# Keyspace" in reply, b"# Keyspace" in reply  # there are no keys at all
        words = line[len(self._db) :].split(b",")
        fields = all(word.endswith(b"=0") for word in words if word.startswith(_FIELDS))
        return b"expires=0" in words, fields

    # What a round asks beside values

    def around(self, asks: list[Ask], reading: Sequence[int]) -> list[Ask]:
        """The asks of a round, which read the values of some rows, with all that is asked beside them."""
        own = self._asks()
        if self._singly and own:  # each in a burst of its own, once the values are there
            if not asks:
                burst, take = own[0]
                return [(burst._replace(bounded=False), take)]
            own = []
        asks = [*asks, *own]
        if not asks:
            self._put_in_order()
        if self._expiring.told and not self._expiring.some and reading and not self._undated:
            return [(_LOOK, self._look_before), *asks, (_LOOK, self._look_after)]
        self._clear = (False, False)
        if "expires_at" in self.columns and (reading or self._undated):
            asks.append(self._dates_ask([*dict.fromkeys([*self._undated, *reading])]))
            if self._expiring.told:
                asks.append((_LOOK, self._look_after))
        return asks

    def surprised(self) -> None:
        """A reply was too big: from now on one thing is asked at a time, whatever it weighs."""
        self._singly = True

    def _asks(self) -> list[Ask]:
        asks = [self._fields_ask(row) for row in self._hashes]
        if self._streams and self._singly:
            asks += [self._streams_ask([row]) for row in self._streams]
        elif self._streams:
            asks.append(self._streams_ask(list(self._streams)))
        return asks + [self._group_ask(*group) for group in self._groups]

    # When keys expire

    def _dates_ask(self, rows: list[int]) -> Ask:
        keys = [self._page.keys[row] for row in rows]
        if self._expiring.absolute:
            return for_each((b"PEXPIRETIME",), keys), lambda replies: self._take_dates(rows, replies, 0)
        burst = joined([command(b"TIME"), for_each((b"PTTL",), keys)])
        return burst, lambda replies: self._take_left(rows, replies)

    def _take_left(self, rows: list[int], replies: list[Reply]) -> None:
        clock, *left = replies
        if isinstance(clock, ReplyError):
            self._page.refuse(clock, rows[0], "TIME")
        self._take_dates(rows, left, of.now_of(clock))

    def _take_dates(self, rows: list[int], replies: list[Reply], now: int) -> None:
        column, absolute = self.columns["expires_at"], not now
        for row, reply in zip(rows, replies):
            if absolute and of.is_unknown(reply):
                self._expiring.absolute = False  # before Redis 7.0: asked once more, in the old way
                self._undated[row] = None
                continue
            self._undated.pop(row, None)
            if reply.__class__ is not int:
                self._page.refuse(reply, row, "PEXPIRETIME" if absolute else "PTTL")
            elif reply == _GONE:
                self._page.gone(row)
            elif reply >= 0:
                column[row] = now + reply

    # Fields of hashes that expire

    def _fields_ask(self, row: int) -> Ask:
        names = self._names(row)

        def take(replies: list[Reply]) -> None:
            (moments,) = replies
            self._hashes.pop(row, None)
            if of.is_unknown(moments):
                self._expiring.fields = False  # before Redis 7.4 and Valkey 9.0
            elif isinstance(moments, ReplyError):
                self._page.refuse(moments, row, "HPEXPIRETIME")
            else:
                self._take_fields(row, names, moments)

        return of.fields_expire(self._page.keys[row], names), take

    def _names(self, row: int) -> list[bytes]:
        value = self._page.values[row]
        return list(value[::2]) if self._page.raw else list(value)

    def _take_fields(self, row: int, names: list[bytes], moments: list[int]) -> None:
        over = of.over(names, moments)
        if len(over) == len(names) and not self._some_fields:
            self._page.gone(row)
            return
        if over:
            self._page.values[row] = _without(self._page.values[row], over)
        self.columns["details"][row] = of.expiring(names, moments) or None

    # Groups of streams

    def _streams_ask(self, rows: list[int]) -> Ask:
        keys = [self._page.keys[row] for row in rows]
        burst = for_each((b"XINFO", b"STREAM"), keys) + for_each((b"XINFO", b"GROUPS"), keys)

        def take(replies: list[Reply]) -> None:
            for row, stream, groups in zip(rows, replies, replies[len(rows) :]):
                self._streams.pop(row, None)
                error = next((reply for reply in (stream, groups) if isinstance(reply, ReplyError)), None)
                if error is None and row not in self._big and self._outgrown(row, groups):
                    continue
                if error is None:
                    self.columns["details"][row] = of.stream_details(stream, groups)
                    self._groups.update({(row, name, b"-"): None for name in of.names_of(groups)})
                elif "no such key" in str(error):
                    self._page.gone(row)
                else:
                    self._page.refuse(error, row, "XINFO")

        return burst, take

    def _outgrown(self, row: int, groups: Reply) -> bool:
        """Whether so much is pending that the stream is to be read in parts."""
        size = _EACH_PENDING * of.pending_count(groups)
        if size > self._page.most_bytes:
            self._page.outgrown(row, size)
        return size > self._page.most_bytes

    def _group_ask(self, row: int, group: bytes, first: bytes) -> Ask:
        key, big = self._page.keys[row], row in self._big
        asked = [command(b"XINFO", b"CONSUMERS", key, group)] if first == b"-" else []
        asked += [] if big else [of.pending_of(key, group, first, b"+")]

        def take(replies: list[Reply]) -> None:
            self._groups.pop((row, group, first), None)
            details: StreamDetails = self.columns["details"][row]
            error = next((reply for reply in replies if isinstance(reply, ReplyError)), None)
            if error is not None and not str(error).startswith(("NOGROUP", "ERR no such key")):
                names = ("XINFO", "TIME", "XPENDING")[-len(replies) :] if not big else ("XINFO",)
                self._page.refuse(error, row, names[replies.index(error)])
                return
            if error is not None:  # it was deleted just now
                kept = [one for one in details.groups if one.name != group]
                self.columns["details"][row] = details._replace(groups=tuple(kept))
                return
            if first == b"-":
                details = _with_consumers(details, group, of.names_of(replies[0]))
            if not big:
                pending = of.taken_pending(group, replies[-2:])
                self._pending.setdefault(row, []).extend(pending)
                if len(pending) == of.MOST_PENDING:
                    self._groups[row, group, b"(" + pending[-1].id] = None
            self.columns["details"][row] = details

        return joined(asked), take

    def _put_in_order(self) -> None:
        """What is pending in several groups, by id."""
        column = self.columns.get("details", [])
        for row, pending in self._pending.items():
            pending.sort(key=lambda one: (of.by_id(one), one.group))
            column[row] = column[row]._replace(pending=tuple(pending))
        self._pending.clear()


def _with_consumers(details: StreamDetails, group: bytes, names: list[bytes]) -> StreamDetails:
    known = tuple(names)
    groups = [one._replace(consumers=known) if one.name == group else one for one in details.groups]
    return details._replace(groups=tuple(groups))


def _without(value: Any, names: set[bytes]) -> Any:
    """A hash, or what one is made of, without some of its fields."""
    if isinstance(value, dict):
        return {name: content for name, content in value.items() if name not in names}
    pairs = zip(value[::2], value[1::2])
    return type(value)([word for name, content in pairs if name not in names for word in (name, content)])
