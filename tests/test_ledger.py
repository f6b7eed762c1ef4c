"""Which slots are still to be read, which are being read, and which are done."""

from __future__ import annotations

import pytest

from oneatatime import _ledger
from oneatatime._ledger import Ledger
from oneatatime._slot import keyslot
from oneatatime._statistics import Account


def ledger(wanted: int = 0b1111, *, unique: bool = False) -> Ledger:
    return Ledger(wanted, unique=unique, account=Account(), db=0)


def test_claims_are_runs_that_skip_what_belongs_to_others_and_stop_at_what_is_taken() -> None:
    one = ledger(0b11_1111)
    assert one.claim(0b00_1000, most=1) == (3, 3, 0b1000)
    assert one.claim(0b10_1101) == (0, 2, 0b0101)
    assert one.claim(0b00_0101) is None
    assert one.claim(0b10_1101) == (5, 5, 0b10_0000)
    assert (one.pending, one.reading) == (0b01_0010, 0b10_1101)


def test_what_is_given_back_is_pending_again_unless_it_is_done_or_skipped() -> None:
    one = ledger()
    one.claim(0b1111)
    one.finish(0b0001)
    one.give_back(0b0011)
    one.skip(0b1110)
    assert (one.done, one.pending, one.skipped, one.reading, one.open) == (1, 0, 0b10, 0b1100, 0b1100)
    one.give_back(0b1110)
    assert (one.pending, one.open, one.fraction) == (0b1100, 0b1100, 0.5)


def test_a_slot_that_moved_rests_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(_ledger.time, "monotonic", lambda: now)
    one = ledger()
    one.claim(0b1111)
    one.again(0b1111, {1}, "why", "node")
    assert one.pending == 0b1111 and one.resting == 0b0010
    assert one.claim(0b1111) == (0, 3, 0b1101)
    now += 10
    assert not one.resting and one.claim(0b0010) == (1, 1, 0b0010)
    assert one.troubled(9) == 0b0010 and not one.troubled(11)
    one.finish(0b0010)
    assert not one.troubled(9)


def test_time_runs_for_a_slot_that_was_read_again_and_again_though_no_key_of_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of its keys were at its target, which nobody could reach: it was read for ever, without rest."""
    now = 100.0
    monkeypatch.setattr(_ledger.time, "monotonic", lambda: now)
    one = ledger()
    one.claim(0b1111)
    one.again(0b0010, (), "why", "node", read=0b0010)
    assert one.resting == 0b0010
    now += 10
    assert one.troubled(9) == 0b0010


def test_unique_keys_come_once_for_as_long_as_their_slot_is_not_done() -> None:
    one = ledger(-1, unique=True)
    assert one.undelivered([b"a", b"b", b"a"], 0, 0) == [0, 1]
    assert one.undelivered([b"b", b"c"], 0, 0) == [1]
    assert one._account.repeats == 2
    one.finish(1 << keyslot(b"b"))
    assert one.undelivered([b"a", b"c"], 0, 0) == []
    assert set(one._seen) == {keyslot(b"a"), keyslot(b"c")}
    one.close()
    assert not one._seen


def test_keys_of_a_slot_that_was_delivered_in_part_are_left_out_when_it_is_read_again() -> None:
    one, slot = ledger(-1), keyslot(b"a")
    assert one.undelivered([b"b", b"c"], 0, 0) is None  # all of them: nothing is in doubt
    assert one.undelivered([b"b", b"{a}1", b"a"], 0, 1 << slot) == [0, 1, 2]
    one.again(1 << slot, {slot}, "moved", "node")
    assert one.undelivered([b"{a}1", b"a", b"{a}2", b"b"], 0, 0) == [2, 3]
    assert one.undelivered([b"b", b"{a}3"], 1 << slot, 0) == [0]
    one.finish(1 << slot)
    assert not one._seen and one._account.repeats == 0


def test_too_many_keys_of_a_slot_are_forgotten_and_counted_where_they_come_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_ledger, "_MOST_REMEMBERED", 3)
    one, slot = ledger(-1), keyslot(b"a")
    keys = [b"{a}%d" % n for n in range(5)]
    assert one.undelivered(keys, 0, 1 << slot) == [0, 1, 2, 3, 4]
    assert not one._seen
    one.again(1 << slot, {slot}, "moved", "node")
    assert one._account.repeats == 5
    one.again(1 << slot, {}, "moved", "node")
    assert one._account.repeats == 5
    assert one.undelivered(keys, 0, 0) == [0, 1, 2, 3, 4]
