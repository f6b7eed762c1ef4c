"""The thin skin over batches, compiled and in Python: what a step takes, and what it never loses."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from oneatatime import _loop
from oneatatime._loop import PythonSkin

SKINS = [PythonSkin] if _loop.Skin is PythonSkin else [PythonSkin, _loop.Skin]


@pytest.fixture(params=SKINS, ids=lambda skin: skin.__module__.rpartition(".")[2])
def numbers(request: pytest.FixtureRequest) -> Any:
    """An async iterator over numbers, that come three at a time after a turn of the loop."""

    class Numbers(request.param):  # type: ignore[misc]
        def __init__(self) -> None:
            self.items: Iterator[Any] = iter(())
            self.last = 0

        async def refill(self) -> int:
            await asyncio.sleep(0)
            if self.last >= 9:
                raise StopAsyncIteration
            first = self.last
            self.last += 3
            self.items = iter(range(first + 1, self.last))
            return first

    return Numbers()


async def test_a_loop_sees_everything_in_order(numbers: Any) -> None:
    assert [number async for number in numbers] == list(range(9))
    with pytest.raises(StopAsyncIteration):
        await anext(numbers)


async def test_a_step_that_nobody_awaits_takes_nothing(numbers: Any) -> None:
    assert await anext(numbers) == 0
    step = anext(numbers)
    getattr(step, "close", lambda: None)()
    del step
    assert await anext(numbers) == 1


async def test_a_step_cancelled_before_it_began_takes_nothing(numbers: Any) -> None:
    assert await anext(numbers) == 0
    step = asyncio.ensure_future(anext(numbers))
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert [number async for number in numbers] == list(range(1, 9))


async def test_a_step_cancelled_while_it_waits_ends(numbers: Any) -> None:
    step = asyncio.ensure_future(anext(numbers))
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await anext(numbers) == 0


async def test_a_step_is_awaited_once(numbers: Any) -> None:
    for _ in range(2):  # while it refills, and while there are items
        step = anext(numbers)
        await step
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await step


async def test_tasks_share_one_iterator(numbers: Any) -> None:
    async def some() -> list[int]:
        return [number async for number in numbers]

    seen = await asyncio.gather(some())
    assert sorted(number for one in seen for number in one) == list(range(9))


async def test_an_error_among_the_items_costs_only_itself(numbers: Any) -> None:
    class Broken:
        def __init__(self) -> None:
            self.left = [1, ValueError("two"), 3]

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            if not self.left:
                raise StopIteration
            item = self.left.pop(0)
            if isinstance(item, Exception):
                raise item
            return item

    numbers.items = Broken()
    assert await anext(numbers) == 1
    with pytest.raises(ValueError, match="two"):
        await anext(numbers)
    assert await anext(numbers) == 3
    assert await anext(numbers) == 0


async def test_an_error_while_refilling_is_raised(numbers: Any) -> None:
    async def refill() -> int:
        await asyncio.sleep(0)
        raise OSError("gone")

    numbers.refill = refill
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            await anext(numbers)


async def test_any_value_may_be_an_item(numbers: Any) -> None:
    odd = [(), (1, 2), StopIteration("x"), None, ValueError]
    numbers.items = iter(list(odd))
    for item in odd:
        assert await asyncio.wait_for(anext(numbers), 5) is item


async def test_two_who_await_one_step(numbers: Any) -> None:
    step = anext(numbers)

    async def take() -> Any:
        return await step

    seen = await asyncio.gather(take(), take(), return_exceptions=True)
    assert [one for one in seen if not isinstance(one, RuntimeError)] == [0]


def test_a_step_in_a_circle_is_collected(numbers: Any) -> None:
    async def cancelled() -> weakref.ref[Any]:
        other = type(numbers)()
        other.step = asyncio.ensure_future(anext(other))
        await asyncio.sleep(0)
        other.step.cancel()
        await asyncio.wait([other.step])
        return weakref.ref(other)

    gone = asyncio.run(cancelled())
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("made", [_loop.python_made, _loop.made])
def test_made(made: Any) -> None:
    assert made(None, [1]) == [1]
    assert made(set, (1, 2)) == {1, 2}
