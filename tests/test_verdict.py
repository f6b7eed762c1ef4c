"""Which slots are done, by what their node said before and after: views made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from oneatatime._cursor import Range
from oneatatime._options import Selection
from oneatatime._scan import SlotScan
from oneatatime._slot import keyslot
from oneatatime._topology import Member, View
from oneatatime._verdict import Verdict, Window, verdict
from tests.fake import as_array

ME = Member("me", "h", 1, flags=frozenset({"myself", "master"}), epoch=5, slots=0b1111)
QUIET = View(me=ME, members=(ME,), ok=True, epoch=5)
HALF_WAY = replace(QUIET, leaving={1: "other"})
LEFT = replace(QUIET, me=replace(ME, slots=0b1101))


def window(view: View = QUIET, reached: int = 2) -> Window:
    """Of slots 0 to 3; read up to the middle of slot `reached`, all of it where that is 4."""
    pages = SlotScan(Range.of_slots(0, 3), 0b1111, Selection(), 10, node="here")
    begun = Window(pages, view, SimpleNamespace(strays={}))  # type: ignore[arg-type]
    read_to(begun, reached)
    return begun


def read_to(one: Window, slot: int) -> None:
    one.pages.take([as_array([b"0" if slot > 3 else b"%d" % (1 << 14 | slot), []])])


def judge(one: Window, now: View) -> Verdict:
    """As a worker does."""
    said = verdict(one, now)
    one.pages.slots &= ~said.gone
    one.judged |= said.done | said.open | said.again
    one.view = now
    return said


def test_what_was_owned_before_and_after_is_done_and_what_is_under_way_is_not() -> None:
    one = window()
    assert judge(one, QUIET) == (0b0011, 0, 0, 0)
    assert one.left == 0b1100
    read_to(one, 4)
    assert judge(one, QUIET) == (0b1100, 0, 0, 0)
    assert not one.left


@pytest.mark.parametrize(
    "now",
    [
        replace(QUIET, epoch=6),
        replace(QUIET, ok=False),
        replace(QUIET, me=replace(ME, id="another")),
        replace(QUIET, me=replace(ME, primary="another")),
    ],
    ids=["a new epoch", "the cluster is down", "another node", "a replica"],
)
def test_where_the_node_is_not_what_it_was_all_that_was_begun_is_read_again(now: View) -> None:
    one = window()
    said = judge(one, now)
    assert (said.done, said.open, said.again) == (0, 0, 0b0011)
    read_to(one, 4)
    assert judge(one, now).again & 0b0100, "what was under way then is not done by its second half"


def test_a_slot_that_left_is_read_again_whether_read_or_under_way_and_given_back_if_not_begun() -> None:
    assert judge(window(), LEFT) == (0b0001, 0, 0b0010, 0)
    under_way = window(reached=1)
    assert judge(under_way, LEFT) == (0b0001, 0, 0, 0)
    read_to(under_way, 4)
    assert judge(under_way, QUIET) == (0b1100, 0, 0b0010, 0)
    assert judge(window(reached=0), LEFT) == (0, 0, 0, 0b0010)


def test_a_slot_that_is_on_its_way_is_read_at_its_target_too() -> None:
    assert judge(window(), HALF_WAY) == (0b0001, 0b0010, 0, 0)
    assert judge(window(HALF_WAY), HALF_WAY) == (0b0001, 0b0010, 0, 0)


@pytest.mark.parametrize("now", [QUIET, LEFT, replace(QUIET, leaving={1: "a third"})])
def test_a_slot_that_is_not_on_that_way_any_more_is_read_again(now: View) -> None:
    """Its keys may have come back behind the cursor, or are at somebody else's."""
    assert judge(window(HALF_WAY), now) == (0b0001, 0, 0b0010, 0)


def test_a_slot_that_comes_from_elsewhere_is_not_done_by_that() -> None:
    assert judge(window(replace(QUIET, arriving={1: "other"})), QUIET).again == 0b0010
    assert judge(window(), replace(QUIET, arriving={1: "other"})).again == 0b0010


def test_a_key_that_had_moved_when_its_value_was_asked_for_voids_its_slot_unless_that_is_on_its_way() -> None:
    key = next(b"%d" % n for n in range(100_000) if keyslot(b"%d" % n) == 1)
    for now, said in ((QUIET, (0b0001, 0, 0b0010, 0)), (HALF_WAY, (0b0001, 0b0010, 0, 0))):
        one = window()
        one.fetch.strays[key] = "ASK"
        assert judge(one, now) == said


def test_slots_given_away_by_a_split_are_nobodys_business_here() -> None:
    one = window(reached=0)
    other = one.pages.split()  # type: ignore[union-attr]
    assert other is not None and other.slots == 0b1000
    read_to(one, 3)
    assert judge(one, QUIET) == (0b0111, 0, 0, 0)
    assert one.pages.finished and not one.left
