from collections.abc import Awaitable, Iterator
from typing import Any

class Skin:
    items: Iterator[Any]
    def __aiter__(self) -> Any: ...
    def __anext__(self) -> Awaitable[Any]: ...
