"""What the reader remembers of keys: which guesses it makes, and when it gives one up."""

from __future__ import annotations

import random

import pytest

from oneatatime._shape import FIRST_LIMIT, MOST_ELEMENTS, Shape, Shapes, Size
from oneatatime.datatypes import SMALL, STRING, datatype

HASH, LIST, JSON = datatype("hash"), datatype("list"), datatype("ReJSON-RL")


def groups(shapes: Shapes, *keys: bytes) -> list[list[int]]:
    return sorted(rows for _, rows in shapes.groups(keys))


# Shapes of keys


def test_keys_that_differ_in_their_numbers_are_of_one_shape() -> None:
    shapes = Shapes()
    keys = (b"user:1", b"user:22", b"cart:1", b"user:3:name", b"cart:9", b"user:4:name")
    assert groups(shapes, *keys) == [[0, 1], [2, 4], [3, 5]]


def test_a_shape_is_the_same_one_from_page_to_page() -> None:
    shapes = Shapes()
    ((first, _),) = shapes.groups([b"user:1", b"user:2"])
    ((second, _),) = shapes.groups([b"user:3"])
    assert first is second


def test_ids_that_are_no_numbers_count_by_their_first_word() -> None:
    shapes = Shapes()
    letters = random.Random(7)
    keys = [
        f"{'session' if n % 2 else 'token'}:{''.join(letters.choices('abcdef123', k=16))}".encode()
        for n in range(100)
    ]
    found = shapes.groups(keys)
    by_row = {row: shape for shape, rows in found for row in rows}
    assert sorted(by_row) == list(range(100))
    assert len({id(by_row[row]) for row in range(1, 100, 2)}) == 1
    assert by_row[0] is not by_row[1]


@pytest.mark.parametrize(
    "keys", [[b""], [b"", b""], [b"123", b"456"], [b"\n", b"\xff\xfe"], [b":", b"::", b"a:"]]
)
def test_every_key_has_exactly_one_shape(keys: list[bytes]) -> None:
    assert sorted(row for _, rows in Shapes().groups(keys) for row in rows) == list(range(len(keys)))


def test_a_million_different_names_do_not_fill_the_memory() -> None:
    shapes = Shapes()
    letters = bytes.maketrans(b"0123456789", b"abcdefghij")
    for page in range(60):
        names = [b"%d" % (page * 500 + n) for n in range(500)]
        words = [name.translate(letters) for name in names]
        found = shapes.groups([b"%b:x" % word for word in words] + [b"%b:y" % word for word in words])
        assert sum(len(rows) for _, rows in found) == 1000
        shapes.groups([b"%b1" % word for word in words for _ in range(2)])
    assert len(shapes._known) <= 4096
    assert len(shapes._by_first_word) <= 4097


# Guesses


def test_a_shape_guesses_what_it_saw() -> None:
    shape = Shape()
    assert shape.guess is None
    shape.saw(HASH, 1)
    assert shape.guess is HASH


def test_a_shape_that_is_often_wrong_guesses_nothing() -> None:
    shape = Shape()
    for kind in (HASH, LIST) * 10:
        shape.saw(kind, 1)
    assert shape.guess is None


def test_one_exception_among_many_does_not_end_guessing() -> None:
    shape = Shape()
    shape.saw(HASH, 1000)
    shape.saw(LIST, 1)
    shape.saw(HASH, 10)
    assert shape.guess is HASH


def test_a_whole_database_of_one_type_is_found_and_given_up() -> None:
    shapes = Shapes()
    assert shapes.uniform is None
    for _ in range(3):
        found = shapes.groups([b"user:%d" % n for n in range(100)])
        shapes.was_mixed({HASH}, 100, [shape for shape, _ in found])
    assert shapes.uniform is not None
    assert shapes.uniform.last is HASH
    shapes.was_uniform(100, 3)  # a few exceptions are not worth more
    assert shapes.uniform is not None
    shapes.was_uniform(100, 4)
    assert shapes.uniform is None


def test_pages_of_different_types_are_no_whole_database_of_one() -> None:
    shapes = Shapes()
    for kind in (HASH, LIST) * 10:
        shapes.was_mixed({kind}, 200, [])
    assert shapes.uniform is None
    shapes.was_mixed({HASH, LIST}, 2000, [])
    assert shapes.uniform is None


# Sizes


def test_a_limit_is_twice_the_most_that_was_seen_and_bounded() -> None:
    size = Size()
    assert size.limit == FIRST_LIMIT
    size.measured(HASH, FIRST_LIMIT // 2, 1)
    assert size.limit == FIRST_LIMIT
    size.measured(HASH, 100, 1)
    assert size.limit == 200
    size.measured(HASH, 5, 1)
    assert size.limit == 200
    size.measured(HASH, 10_000, 1)
    assert size.limit == MOST_ELEMENTS
    size.surprised()
    assert size.limit == FIRST_LIMIT


def test_strings_are_asked_for_with_a_bound_until_many_were_small_and_after_one_was_long() -> None:
    size = Size()
    assert size.careful
    size.measured(STRING, 100, 500)
    assert not size.careful
    size.measured(STRING, SMALL, 1)
    assert size.careful
    size.measured(STRING, 100, 5000)
    assert size.careful


def test_values_without_a_bound_are_measured_until_many_were_small() -> None:
    size = Size()
    assert not size.proven
    size.measured(JSON, 0, 100)
    assert size.proven
    size.more += 1
    assert not size.proven


def test_where_most_values_are_big_the_next_is_measured_at_once() -> None:
    size = Size()
    size.measured(HASH, 10, 5)
    size.more += 20
    assert size.big
    size.measured(HASH, 10, 100)
    assert not size.big


def test_sizes_are_remembered_by_type() -> None:
    shape = Shape()
    shape.size(HASH).measured(HASH, 100, 1)
    assert shape.size(LIST).limit == FIRST_LIMIT
    assert shape.size(HASH).limit == 200


# Bursts


def test_a_burst_holds_as_many_keys_as_their_weight_allows() -> None:
    shapes = Shapes()
    assert shapes.fitting(1 << 20) == 64
    for _ in range(20):
        shapes.weighed(100 * 500, 0, 500)
    assert shapes.fitting(1 << 20) == 1000  # a millisecond of server time
    shapes.weighed(500 * 100_000, 0, 500)  # growth counts at once
    assert shapes.fitting(1 << 20) == 10
    shapes.weighed(1 << 30, 0, 1)
    assert shapes.fitting(1 << 20) == 1


def test_a_page_is_what_a_server_writes_in_one_go_but_not_too_small() -> None:
    shapes = Shapes()
    assert shapes.page(1) == 1
    for _ in range(20):
        shapes.weighed(100, 0, 1)
    assert 300 < shapes.page(500) < 500
    assert shapes.page(100) == 100
    shapes.weighed(1 << 20, 0, 1)
    assert shapes.page(500) == 32
    assert shapes.page(7) == 7


def test_collections_of_many_elements_come_a_few_at_a_time() -> None:
    shapes = Shapes()
    for _ in range(20):
        shapes.weighed(20 * 1000, 1000, 1)
    assert shapes.fitting(1 << 20) == 3
    assert shapes.page(500) == 3
