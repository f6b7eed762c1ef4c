"""Values too big to hold, piece by piece: nothing lost, nothing held, the order kept."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oneatatime
from oneatatime._errors import ConnectionLost
from oneatatime._pieces import end_of_characters, whole_and_pieces
from oneatatime._record import Batch, Group, Opaque, Parts, Pending, Piece, StreamDetails
from tests.leaks import assert_nothing_left
from tests.servers import Server
from tests.test_parts import SMALL, TYPES, assembled, write


class Chunks:
    """Chunks that are there already; `torn` is said at their end, and `again` read after an `error`.

    `whole` is what `load` gives; None: the value is gone.
    """

    def __init__(
        self,
        *chunks: list[Any],
        torn: bool | None = False,
        error: Exception | None = None,
        whole: Any = None,
        again: Chunks | None = None,
    ) -> None:
        self.given = chunks
        self.torn = torn
        self.error = error
        self.whole = whole
        self.again = again
        self.closed = 0
        self.made = 0

    async def chunks(self, parts: Parts) -> AsyncIterator[list[Any]]:
        try:
            for chunk in self.given:
                self.made += 1
                yield chunk
            if self.error is not None:
                if self.again is not None:
                    parts._source = self.again
                raise self.error
            parts.torn = self.torn
        finally:
            self.closed += 1

    def blocking_chunks(self, parts: Parts) -> Any:
        raise NotImplementedError

    async def load(self, parts: Parts) -> Any:
        if self.whole is None:
            raise oneatatime.ValueGone("the value is gone", key=parts.key)
        return self.whole


def parts_of(kind: str, source: Chunks, key: bytes = b"big") -> Parts:
    return Parts(key, kind, 1_000_000, source)


async def pieces_of(*batches: Batch) -> list[Batch]:
    async def given() -> AsyncIterator[Batch]:
        for batch in batches:
            yield batch

    return [batch async for batch in whole_and_pieces(given())]


async def only(
    kind: str, *chunks: list[Any], details: Any = None, **how: Any
) -> list[tuple[Any, Any, Piece]]:
    """Value, details and piece of each row that one big value becomes."""
    batch = Batch([b"big"], kind, [parts_of(kind, Chunks(*chunks, **how))], metadata={"details": [details]})
    found = []
    for one in await pieces_of(batch):
        assert one.keys == [b"big"] and one.pieces is not None and one.metadata is not None
        found.append((one.values[0], one.metadata["details"][0], one.pieces[0]))
    return found


async def test_batches_without_big_values_pass_as_they_are() -> None:
    plain = Batch([b"a"], "string", [b"1"])
    raw = Batch([b"h"], "hash", [(b"f", b"v")], raw=True)
    names = Batch([b"n"], "", [])
    assert await pieces_of(plain, raw, names) == [plain, raw, names]


async def test_records_keep_their_order_and_their_metadata() -> None:
    big = Chunks([b"x"], [b"y"])
    types = ["hash", "string", "string", "list"]
    values = [{b"f": b"v"}, parts_of("string", big), parts_of("string", Chunks(whole=b"")), [b"e"]]
    batch = Batch([b"a", b"b", b"c", b"d"], types, values, metadata={"db": [0, 1, 2, 3]})
    found = await pieces_of(batch)
    assert [one.keys for one in found] == [[b"a"], [b"b"], [b"b"], [b"c"], [b"d"]]
    assert [one.values for one in found] == [[{b"f": b"v"}], [b"x"], [b"y"], [b""], [[b"e"]]]
    assert [one.metadata and one.metadata["db"] for one in found] == [[0], [1], [1], [2], [3]]
    said = [one.pieces for one in found]
    assert said == [None, [Piece(0)], [Piece(1, last=True)], [Piece(0, last=True)], None]


async def test_the_last_piece_says_whether_the_value_is_torn() -> None:
    found = await only("list", [b"1"], [b"2"], torn=True)
    assert [piece for _, _, piece in found] == [Piece(0), Piece(1, last=True, torn=True)]


async def test_at_most_two_pieces_are_held() -> None:
    source = Chunks(*[[b"%d" % n] for n in range(9)])

    async def given() -> AsyncIterator[Batch]:
        yield Batch([b"big"], "list", [parts_of("list", source)])

    taken = 0
    async for _ in whole_and_pieces(given()):
        taken += 1
        assert source.made <= taken + 1


@given(st.text(max_size=40), st.integers(1, 7))
def test_no_piece_ends_inside_a_character(text: str, length: int) -> None:
    data = text.encode()
    chunks = [[data[at : at + length]] for at in range(0, len(data), length)]
    found = asyncio.run(only("string", *chunks, whole=b""))
    assert "".join([value.decode() for value, _, _ in found]) == text


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=6))
def test_bytes_that_are_no_text_survive_too(chunks: list[bytes]) -> None:
    found = asyncio.run(only("string", *[[chunk] for chunk in chunks], whole=b""))
    assert b"".join([value for value, _, _ in found]) == b"".join(chunks)


@given(st.binary(max_size=8))
def test_where_characters_end_is_never_far_from_the_end(data: bytes) -> None:
    assert len(data) - 3 <= end_of_characters(data) <= len(data)


async def test_fields_that_expire_come_with_their_piece() -> None:
    found = await only("hash", [(b"a", b"1", 5), (b"b", b"2", None)], [(b"c", b"3", None)])
    assert [(value, details) for value, details, _ in found] == [
        ({b"a": b"1", b"b": b"2"}, {b"a": 5}),
        ({b"c": b"3"}, None),
    ]
    [(value, details, _)] = await only("hash", [(b"a", b"1")], details={b"a": 7})
    assert (value, details) == ({b"a": b"1"}, {b"a": 7})


async def test_groups_come_with_the_first_piece_and_pending_entries_with_their_own() -> None:
    said = StreamDetails(b"9-0", 9, b"0-0", (Group(b"g", b"2-0", 2, (b"c",)),))
    first, second = Pending(b"g", b"1-0", b"c", 1, 1), Pending(b"g", b"2-0", b"c", 2, 1)
    one, two, three = [(b"%d-0" % n, {b"f": b"v"}) for n in (1, 3, 4)]
    found = await only("stream", [one, first], [second], [two], [three], details=said)
    assert [value for value, _, _ in found] == [[one], [], [two], [three]]
    assert [details for _, details, _ in found] == [
        said._replace(pending=(first,)),
        StreamDetails(None, pending=(second,)),
        None,
        None,
    ]
    [(value, details, piece)] = await only("stream", details=said, whole=[])
    assert (value, details, piece) == ([], said, Piece(0, last=True))


async def test_a_document_is_loaded_whole_and_left_out_where_it_is_gone() -> None:
    there, gone = Chunks(whole={"a": 1}), Chunks()
    values = [parts_of("ReJSON-RL", there), parts_of("ReJSON-RL", gone)]
    [found] = await pieces_of(Batch([b"a", b"b"], "ReJSON-RL", values))
    assert (found.keys, found.values, found.pieces) == ([b"a"], [{"a": 1}], None)


async def test_a_dump_is_loaded_whole_because_restore_takes_no_piece_of_it() -> None:
    bloom = Opaque("MBbloom--", b"12")
    batch = Batch([b"b"], "MBbloom--", [parts_of("MBbloom--", Chunks([b"1", b"2"], whole=bloom))])
    [found] = await pieces_of(batch)
    assert (found.keys, found.values, found.pieces) == ([b"b"], [bloom], None)


@pytest.mark.parametrize("kind", ["string", "hash", "list", "set", "zset", "stream"])
async def test_nothing_comes_of_a_value_that_is_gone(kind: str) -> None:
    assert await only(kind, torn=True) == []


# Servers that are gone


CUT = ConnectionLost("cut")


async def read_again(*sources: Chunks, patience: float = 5.0, **how: Any) -> list[tuple[Any, Piece]]:
    """Values and pieces of a list that is read from one source after another."""
    for source, after in itertools.pairwise(sources):
        source.error, source.again = CUT, after

    async def given() -> AsyncIterator[Batch]:
        yield Batch([b"big"], "list", [parts_of("list", sources[0])])

    batches = [batch async for batch in whole_and_pieces(given(), patience, **how)]
    return [(batch.values[0], batch.pieces[0]) for batch in batches if batch.pieces]


async def test_a_value_that_breaks_off_begins_again() -> None:
    assert await read_again(Chunks([b"1"], [b"2"]), Chunks(), Chunks([b"1"], [b"2"], [b"3"])) == [
        ([b"1"], Piece(0)),
        ([b"1"], Piece(0)),
        ([b"2"], Piece(1)),
        ([b"3"], Piece(2, last=True)),
    ]


async def test_what_is_gone_when_it_is_read_again_has_an_end_that_says_it_is_torn() -> None:
    found = await read_again(Chunks([b"1"], [b"2"], [b"3"]), Chunks(torn=True))
    assert found == [([b"1"], Piece(0)), ([b"2"], Piece(1)), ([], Piece(2, last=True, torn=True))]
    assert await read_again(Chunks([b"1"]), Chunks(torn=True)) == []


async def test_what_is_empty_when_it_is_read_again_takes_the_place_of_what_came() -> None:
    found = await read_again(Chunks([b"1"], [b"2"]), Chunks(whole=[]))
    assert found == [([b"1"], Piece(0)), ([], Piece(0, last=True))]


async def test_pieces_that_nobody_can_take_back_come_once() -> None:
    assert await read_again(Chunks([b"1"]), Chunks([b"1"]), replacing=False) == [
        ([b"1"], Piece(0, last=True))
    ]
    with pytest.raises(ConnectionLost):
        await read_again(Chunks([b"1"], [b"2"]), Chunks([b"1"]), replacing=False)


async def test_patience_has_an_end() -> None:
    began = time.monotonic()
    gone = Chunks(error=CUT)
    with pytest.raises(ConnectionLost) as caught:
        await read_again(gone, patience=0.3)
    assert 0.3 < time.monotonic() - began < 3
    assert caught.value.key == b"big"
    assert gone.closed > 2


async def test_a_value_that_always_breaks_off_is_not_read_for_ever() -> None:
    cut = Chunks([b"1"], [b"2"], error=CUT)
    cut.again = cut
    with pytest.raises(ConnectionLost):
        await read_again(cut, patience=60.0)
    assert cut.closed == 50


async def test_what_is_deleted_before_it_is_read_is_counted_as_vanished(server: Server) -> None:
    for kind in TYPES:
        write(server, f"big:{kind}", kind, 100_000 if kind == "string" else 3_000)
    stream = oneatatime.stream(server.url, options=SMALL)
    view = stream._batches()

    async def deleted() -> AsyncIterator[Batch]:
        async for batch in view:
            server.admin.delete(*batch.keys)
            yield batch

    assert [batch async for batch in whole_and_pieces(deleted())] == []
    assert (stream.statistics().vanished, stream.statistics().torn) == (len(TYPES), 0)


async def test_what_fails_in_the_middle_is_raised_as_it_is() -> None:
    source = Chunks([b"1"], [b"2"], error=ConnectionLost("cut"))
    found = []

    async def given() -> AsyncIterator[Batch]:
        yield Batch([b"big"], "list", [parts_of("list", source)])

    with pytest.raises(ConnectionLost, match="cut"):
        async for batch in whole_and_pieces(given()):
            found += [batch.values]
    assert found == [[[b"1"]]]
    assert source.closed == 1


async def test_a_loop_that_ends_early_closes_the_value() -> None:
    source = Chunks([b"1"], [b"2"], [b"3"])

    async def given() -> AsyncIterator[Batch]:
        yield Batch([b"big"], "list", [parts_of("list", source)])

    async with aclosing(whole_and_pieces(given())) as batches:
        async for _ in batches:
            break
    assert source.closed == 1


@pytest.mark.parametrize("kind", TYPES)
async def test_real_values_come_whole(server: Server, kind: str, no_leaks: None) -> None:
    value = write(server, "big", kind, 100_000 if kind == "string" else 3_000)
    parts: list[Any] = []
    found = []
    async for batch in whole_and_pieces(oneatatime.stream(server.url, options=SMALL)._batches()):
        assert batch.pieces is not None and batch.types in (kind, [kind])
        found.append(batch.pieces[0])
        piece = batch.values[0]
        parts += [piece] if kind == "string" else piece.items() if kind == "hash" else piece
    assert assembled(kind, parts) == value
    assert found == [Piece(n) for n in range(len(found) - 1)] + [Piece(len(found) - 1, last=True)]


async def test_a_real_loop_that_ends_early_leaves_nothing(server: Server) -> None:
    write(server, "big", "list", 5_000)
    stream = oneatatime.stream(server.url, options=SMALL)
    async with aclosing(whole_and_pieces(stream._batches())) as batches:
        async for _ in batches:
            break
    await stream.aclose()
    await assert_nothing_left(server.admin)


async def test_rows_that_failed_raise_in_their_place(server: Server) -> None:
    for n in range(6):
        server.admin.set(f"k:{n}", b"\xff" if n in (0, 3) else b"v")
    keys = [f"k:{n}" for n in range(6)]
    view = oneatatime.stream(server.url, keys=keys, encoding="utf-8")._batches()
    found: list[Any] = []
    while True:
        try:
            async for batch in view:
                found += [batch.keys]
            break
        except oneatatime.Undecodable as error:
            found.append(error.key)
    assert found == [b"k:0", ["k:1", "k:2"], b"k:3", ["k:4", "k:5"]]
