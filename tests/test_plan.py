"""How a keyspace is cut into partitions: counts and nodes made by hand."""

from __future__ import annotations

from typing import Any

import pytest

import oneatatime
from oneatatime import InvalidInput
from oneatatime._cursor import SLOT_WIDTH, SLOTS, Range, joined
from oneatatime._plan import _cut_evenly
from oneatatime._session import Identity
from oneatatime._slot import ALL_SLOTS
from oneatatime.server import EmbeddedServer
from tests.servers import Server

TABLED = Identity(run_id="r", slot_tables=True)


def keys_in(counts: dict[int, int], else_: int = 1) -> list[int]:
    return [counts.get(slot, else_) for slot in range(SLOTS)]


@pytest.mark.parametrize("partitions", [1, 2, 7, 500, 100_000])
@pytest.mark.parametrize(
    "keys",
    [keys_in({}), keys_in({5: 10**6}), keys_in({0: 10**6, 1: 10**6, SLOTS - 1: 10**5}), keys_in({9: 1}, 0)],
)
@pytest.mark.parametrize("identity", [TABLED, Identity(), Identity(run_id="r")])
def test_partitions_are_disjoint_and_cover_all_slots(
    keys: list[int], partitions: int, identity: Identity
) -> None:
    pieces = _cut_evenly(keys, partitions, dict.fromkeys(range(SLOTS), identity))
    whole = [slots for one, slots, _ in pieces if one == Range()]
    cut: dict[int, list[Range]] = {}
    for one, slots, run_id in pieces:
        if one != Range():
            assert slots.bit_count() == 1 and run_id == "r" and identity.slot_tables
            cut.setdefault(slots.bit_length() - 1, []).append(one)
        else:
            assert slots and run_id is None
    assert sum(whole) + sum(1 << slot for slot in cut) == ALL_SLOTS
    assert sum(slots.bit_count() for slots in whole) + len(cut) == SLOTS
    for slot, ranges in cut.items():
        assert joined(ranges) == [Range.of_slots(slot, slot)]
        assert sum(one.end - one.start for one in ranges) == SLOT_WIDTH


def test_partitions_have_about_as_many_keys_each() -> None:
    keys = keys_in({}, 100)
    found = _cut_evenly(keys, 10, {})
    assert len(found) == 10
    assert all(abs(slots.bit_count() - SLOTS / 10) <= 2 for _, slots, _ in found)


@pytest.mark.parametrize("partitions", [0, -1, True, 1.5, "4", 100_001])
async def test_a_number_of_partitions_that_there_cannot_be_is_refused(partitions: Any) -> None:
    with pytest.raises(oneatatime.InvalidInput, match="partitions="):
        await oneatatime.aplan("redis://127.0.0.1:1", partitions)


async def test_partitions_of_all_databases_and_none_of_replicas() -> None:
    with EmbeddedServer() as server:
        with pytest.raises(InvalidInput, match="replica"):
            await oneatatime.aplan(server.url, 3, options=oneatatime.Options(read_from="replica"))
        parts = await oneatatime.aplan(server.url, 3, db="all")
        assert all(part.all_dbs for part in parts)
        assert [part.dbs for part in parts] == [None], "what comes until it is read, too"


def test_a_secret_that_is_named_twice_keeps_its_user(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from oneatatime.engines._table import Table

    server.admin.set("a", "b")
    server.ask("ACL", "SETUSER", "reader", "on", ">hush", "~*", "+@all")
    server.ask("ACL", "SETUSER", "default", "off")
    monkeypatch.setenv("READERS_PASSWORD", "hush")
    url = server.url.replace("unix://", "unix://reader@")
    table = Table.of(url, secret="READERS_PASSWORD")
    assert sum(batch.num_rows for one in table.partitions for batch in table.batches(one)) == 1
