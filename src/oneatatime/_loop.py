"""The thin skin between what travels in batches and a loop over items: all that one item costs beyond itself.

Compiled where there was a compiler when this was installed (`_skin.c`); the same in Python here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any


class PythonSkin:
    """An async iterator over `items`, and over what the coroutine `refill()` gives when they have run out."""

    items: Iterator[Any]

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            for item in self.items:
                return item
        except Exception as error:  # noqa: BLE001 - whatever an item fails with
            raise self.failed(error)  # noqa: B904 - mostly the same
        return await self.refill()

    def failed(self, error: Exception) -> Exception:
        """What is raised where making an item failed with `error`."""
        return error

    async def refill(self) -> Any:
        """The next item, once there are more; StopAsyncIteration where there are none."""
        raise NotImplementedError


def python_made(make: Callable[[Any], Any] | None, raw: Any) -> Any:
    """What `make` makes of `raw`, or `raw` itself where `make` is None."""
    return raw if make is None else make(raw)


if TYPE_CHECKING:
    Skin = PythonSkin
    made = python_made
else:
    try:
        from ._skin import Skin, made
    except ImportError:  # installed without a compiler
        Skin, made = PythonSkin, python_made
