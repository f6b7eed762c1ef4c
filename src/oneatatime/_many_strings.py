"""Strings by MGET: by one for all keys; in a cluster, where no command spans slots, by one a slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._request import Burst, ReplyError
from ._resp import words_of
from ._slot import slot_commands
from .datatypes import STRING, Odd, OddRows

MOVED = ("MOVED", "ASK", "TRYAGAIN")
"""How errors begin that say that a key is at another node."""


class ManyStrings:
    """`ask` for whole strings and `take` them, in the order of their keys.

    `slotted`: one command may not take keys of several slots. MGET fails as a whole for one key that may not
    be read, or has moved: then all of its rows are Odd.UNSURE, and `refused` is called.
    """

    def __init__(self, keys: list[bytes], slotted: bool, refused: Callable[[], None]) -> None:
        self._keys = keys
        self._slotted = slotted
        self._refused = refused
        self._lengths: list[int] = []

    def ask(self) -> Burst:
        """The commands."""
        if not self._slotted:
            return STRING.ask_many(self._keys)
        payload, self._lengths = slot_commands(b"MGET", self._keys)
        return Burst(payload, len(self._lengths))

    def take(self, replies: list[Any], odd: OddRows) -> list[Any]:
        """The values in the answer; rows without one are told in `odd`."""
        if not self._slotted:
            values = STRING.take_many(replies, len(self._keys), odd)
        else:
            whole = words_of(replies, self._lengths)
            values = whole if whole is not None else self._with_gaps(replies, odd)
        if odd:
            refused = [row for row, reason in odd.items() if _is_of_many(reason)]
            if refused:
                self._refused()
                odd.update(dict.fromkeys(refused, Odd.UNSURE))
        return values

    def _with_gaps(self, replies: list[Any], odd: OddRows) -> list[Any]:
        values: list[Any] = []
        for reply, length in zip(replies, self._lengths):
            odd_here: OddRows = {}
            several = STRING.take_many([reply], length, odd_here)
            odd.update({len(values) + place: reason for place, reason in odd_here.items()})
            values += several
        return values


def is_about_key(text: str) -> bool:
    """Whether an error says that this user may not read this key: not that he may not use the command."""
    return text.startswith("NOPERM") and " access " in text


def _is_of_many(reason: Odd | ReplyError) -> bool:
    return isinstance(reason, ReplyError) and (is_about_key(str(reason)) or str(reason).startswith(MOVED))
