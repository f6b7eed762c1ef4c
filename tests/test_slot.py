"""Which slot a key is in, compiled and in Python, and as a server has it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hiredis
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneatatime import _slot
from oneatatime.server import EmbeddedServer

KEYSLOTS: list[Callable[[bytes], int]] = [_slot._keyslot]
BY_SLOTS: list[Callable[[Sequence[bytes]], dict[int, list[int]]]] = [_slot._by_slot]
if _slot.keyslot is not _slot._keyslot:
    KEYSLOTS.append(_slot.keyslot)
    BY_SLOTS.append(_slot.by_slot)
NAMES = ["python", "compiled"][: len(KEYSLOTS)]

every_keyslot = pytest.mark.parametrize("keyslot", KEYSLOTS, ids=NAMES)
every_by_slot = pytest.mark.parametrize("by_slot", BY_SLOTS, ids=NAMES)

bracy = st.lists(st.sampled_from([b"{", b"}", b"{}", b"a", b"\0", b"\r\n", b"\xff", b"user:7"]), max_size=8)
keys = st.binary(max_size=40) | bracy.map(b"".join)


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    """A client of a lonely node of a cluster."""
    with (
        EmbeddedServer(arguments=["--cluster-enabled", "yes"]) as server,
        redis.Redis(unix_socket_path=server.path) as client,
    ):
        yield client


def slots_of(node: Any, wanted: Sequence[bytes]) -> list[int]:
    pipeline = node.pipeline(transaction=False)
    for key in wanted:
        pipeline.execute_command("CLUSTER KEYSLOT", key)
    return list(pipeline.execute())


WORDS = (
    b"a { } {} {}a a{} {}{a} {a} {a}b x{a} x{a}{b} {{a}} {a a} }{a} }a{ {}} foo{{bar}}zap "
    b"\0 {\0} \xff{\xff}\xff {\xff}b 123456789"
)
TRICKY = [*WORDS.split(b" "), b"", b"{a\r\n}b", b"{ }", b"x" * 5000]


@every_keyslot
def test_tricky_keys_are_where_the_server_has_them(keyslot: Callable[[bytes], int], node: Any) -> None:
    assert [keyslot(key) for key in TRICKY] == slots_of(node, TRICKY)
    assert keyslot(b"123456789") == 0x31C3  # as the cluster's specification says


@every_keyslot
@given(several=st.lists(keys, min_size=1, max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_keys_are_where_the_server_has_them(
    keyslot: Callable[[bytes], int], node: Any, several: list[bytes]
) -> None:
    assert [keyslot(key) for key in several] == slots_of(node, several)


@every_by_slot
@given(several=st.lists(keys, max_size=50))
def test_rows_by_slot(
    by_slot: Callable[[Sequence[bytes]], dict[int, list[int]]], several: list[bytes]
) -> None:
    found = by_slot(several)
    slots = [_slot._keyslot(key) for key in several]
    assert list(found) == list(dict.fromkeys(slots))
    assert found == {slot: [row for row, own in enumerate(slots) if own == slot] for slot in slots}


@pytest.mark.parametrize("slot_runs", {_slot.slot_runs, _slot._slot_runs})
@given(several=st.lists(keys, max_size=50))
def test_the_slot_of_each_run(slot_runs: Callable[[list[bytes]], list[int]], several: list[bytes]) -> None:
    assert slot_runs(several) == [slot for slot, _ in itertools.groupby(map(_slot._keyslot, several))]


@every_keyslot
def test_every_slot_is_some_keys(keyslot: Callable[[bytes], int]) -> None:
    assert {keyslot(b"%d" % number) for number in range(200_000)} == set(range(_slot.SLOTS))


@every_by_slot
@pytest.mark.parametrize("wrong", ["a", None, 7])
def test_what_is_no_key_is_a_type_error(by_slot: Callable[[Any], Any], wrong: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        by_slot([b"a", wrong])


@pytest.mark.parametrize("slot_commands", {_slot.slot_commands, _slot._slot_commands})
@given(several=st.lists(keys, max_size=50))
def test_one_command_for_each_run_of_a_slot(
    slot_commands: Callable[[bytes, list[bytes]], tuple[bytes, list[int]]], several: list[bytes]
) -> None:
    payload, lengths = slot_commands(b"MGET", several)
    reader = hiredis.Reader()
    reader.feed(payload)
    commands: list[list[bytes]] = [reader.gets() for _ in lengths]
    assert reader.gets() is False
    assert [word for command in commands for word in command[1:]] == several
    assert all(command[0] == b"MGET" for command in commands)
    assert [len(command) - 1 for command in commands] == lengths
    slots = [{_slot._keyslot(key) for key in command[1:]} for command in commands]
    assert all(len(own) == 1 for own in slots)
    assert all(one != other for one, other in itertools.pairwise(slots))
