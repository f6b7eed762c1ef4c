"""What a datatype can do: the one interface between the reader and Redis's types.

A datatype holds no state and does no I/O: it makes bursts and reads answers. Values come in three
sizes. Most are small and read by one bounded command (`ask`, `take`), whose reply itself shows
whether it was all. One that turns out bigger is measured (`measure`), and then read whole by one
command (`ask_whole`, `take`), or in parts (`parts`) by as many as it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from enum import Enum
from typing import Any

from .._errors import ProtocolViolation
from .._request import Answer, Burst, Reply, ReplyError, for_each
from .._resp import writes

Text = Callable[[bytes], Any]
Steps = Generator["tuple[list[Any], Burst | None]", Answer, None]
"""Reading a big value: yields (the parts in the last answer, what to ask next or None at the end)."""

WHOLE = 1 << 30
"""A limit no value reaches that is read whole, and that no server's arithmetic overflows on."""


class Odd(Enum):
    """Why a bounded read gave no value."""

    GONE = "there is no such key"
    MORE = "it is bigger than what was asked for"
    EMPTY = "gone, or there and empty: `confirm` will tell"
    UNSURE = "gone or of another type: TYPE will tell"


OddRows = dict[int, "Odd | ReplyError"]


class Datatype(ABC):
    """One of Redis's types. `name` is what TYPE calls it.

    `watched`: its parts may not fit together when it changes meanwhile, so WATCH looks on.
    `command` is what reads it, for messages. Every read fails on a key of another type, so that a type
    may be guessed. `bounded`: `ask` keeps to its limit; if not, a value is measured before it is first
    asked for, and is read by one command even when it is big and wanted whole. `plain`: what `take` gives
    are the values; of all others `made` makes them, one at a time, when the loop gets there: thousands of
    containers that wait for it would cost the garbage collector more than reading them did. `words`: how many
    of what `take` gave are one element. `divisible`: a big value may be read in parts. `mixed`: the values
    say of which type they are, each for itself.

    `writer` is the command that a small value is written by; `one_command`: by that alone, so that many may
    be packed at once; `has_elements`: at least one, and bounded then. `forms`: the Python types that a value
    may have; empty: any. `replaces`: writing it takes the place of whatever the key held. `grows`: it can be
    written piece by piece; if not, they are put together before.
    """

    name: str
    command: str
    divisible = True
    mixed = False
    watched = False
    bounded = True
    plain = False
    words = 1
    writer: bytes
    replaces = False
    forms: tuple[type, ...] = ()
    grows = True
    one_command = True
    has_elements = True

    @abstractmethod
    def ask(self, keys: Sequence[bytes], limit: int) -> Burst:
        """Asks for the values of keys, at most about `limit` elements of each."""

    @abstractmethod
    def take(self, replies: list[Reply], limit: int, odd: OddRows) -> list[Any]:
        """What `made` makes values of, in the replies to `ask`.

        Rows without a value are told in `odd`; what stands in their place means nothing.
        """

    def made(self, raw: Any) -> Any:
        """The value, of what `take` gave. Raises ProtocolViolation for what no server should send."""
        return raw

    @abstractmethod
    def ask_whole(self, keys: Sequence[bytes]) -> Burst:
        """Asks for whole values."""

    def take_whole(self, replies: list[Reply], odd: OddRows) -> list[Any]:
        """The same of the replies to `ask_whole`."""
        return self.take(replies, WHOLE, odd)

    @abstractmethod
    def parts(self, key: bytes, chunk: int) -> Steps:
        """Reads one big value, about `chunk` bytes at a time."""

    def assembled(self, parts: list[Any]) -> Any:
        """The value that all parts together are."""
        return parts

    @abstractmethod
    def written(
        self, key: bytes, value: Any, details: Any, *, first: bool = True, last: bool = True
    ) -> Burst:
        """The commands that make exactly this value, where there is none; and not when the key expires.

        Of a piece: those that add it to what is there of the pieces before. Raises TypeError for what is not
        made of bytes, ValueError for what no command can write.
        """

    def written_each(self, keys: Sequence[bytes], values: Sequence[Any]) -> Burst:
        """The same of many small values without details, by one command each."""
        return Burst(writes(self.writer, keys, values), len(keys), False)

    @abstractmethod
    def weight(self, value: Any) -> int:
        """The bytes of all strings in a value."""

    @abstractmethod
    def decoded(self, value: Any, text: Text) -> Any:
        """The value with every string in it turned into text."""

    @abstractmethod
    def decoded_parts(self, parts: list[Any], text: Text) -> list[Any]:
        """Parts with every string in them turned into text."""

    def confirm(self, keys: Sequence[bytes]) -> Burst:
        """Asks again about keys whose reply was Odd.EMPTY, so that there is no doubt."""
        raise TypeError(f"no {self.name} is ever empty")

    def take_confirmed(self, replies: list[Reply], odd: OddRows) -> list[Any]:
        """The values in the replies to `confirm`."""
        raise TypeError(f"no {self.name} is ever empty")

    def measure(self, keys: Sequence[bytes]) -> Burst:
        """Asks for the bytes that values take in the server: samples, and touches nothing."""
        return for_each((b"MEMORY", b"USAGE"), keys)


def pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    """What a flat list of pairs holds. Raises ValueError for one that ends in the middle of a pair."""
    following = iter(flat)
    return zip(following, following, strict=True)


def nonsense(command: str, error: Exception) -> ProtocolViolation:
    """The error for a reply whose form only showed when a value was to be made of it."""
    return ProtocolViolation(f"the reply to {command} has not the form it should: {error}", command=command)


def odd_reply(reply: Reply) -> Odd | ReplyError:
    """What a reply means that is not of the form asked for."""
    return reply if isinstance(reply, ReplyError) else Odd.UNSURE
