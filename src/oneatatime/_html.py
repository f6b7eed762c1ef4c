"""The first records of a stream as a table for a notebook, and what its statistics say."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

from ._blocking import iterate
from ._errors import Error
from ._frames import Asked
from ._record import Record
from ._statistics import Statistics

ROWS = 10
_LONGEST = 60
_SECONDS = 2.0  # for a few records; where only few keys are wanted they may stand anywhere


def table_of(asked: Asked, title: str, statistics: Statistics) -> str:
    """HTML of the first records, read by a small scan of their own, and of how far the stream itself is."""
    said = f"<p><b>{html.escape(title)}</b>: {_progress(statistics)}</p>"
    if isinstance(asked.selection.keys, Iterator | AsyncIterator):
        return f"{said}<p>Its keys can be run through only once, so none are shown.</p>"
    try:
        first = iterate(lambda: _first(asked))
        try:
            rows = "".join(map(_row, first))
        finally:
            first.close()
    except asyncio.TimeoutError:
        return f"{said}<p>Nothing was found within {_SECONDS:g} seconds.</p>"
    except Error as error:
        return f"{said}<p>{html.escape(str(error))}</p>"
    return f"<table><tr><th>key</th><th>type</th><th>value</th></tr>{rows}</table>{said}"


async def _first(asked: Asked) -> AsyncIterator[Record]:
    found: list[Record] = []
    few = replace(asked.options, count=ROWS, ranges=1, on_unreachable="fail")
    async with asked.begin(few) as stream:
        try:
            await asyncio.wait_for(_take(stream.records(), found), _SECONDS)
        except (asyncio.TimeoutError, Error):  # what has come by then is shown
            if not found:
                raise
    for record in found:
        yield record


async def _take(records: AsyncIterator[Record], found: list[Record]) -> None:
    async for record in records:
        found.append(record)
        if len(found) == ROWS:
            return


def _row(record: Record) -> str:
    cells = (_shown(record.key), record.type, _shown(record.value))
    return f"<tr>{''.join([f'<td>{html.escape(cell)}</td>' for cell in cells])}</tr>"


def _shown(value: Any) -> str:
    """Text as it is; bytes that are no text, and everything else, as Python writes it."""
    if isinstance(value, bytes | str) and len(value) > _LONGEST:
        return f"{_shown(value[:_LONGEST])}… ({len(value)} long)"
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return repr(value)
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _progress(statistics: Statistics) -> str:
    state = "complete" if statistics.complete else f"{statistics.fraction:.0%} done"
    total = f" of about {statistics.estimated_total:,}" if statistics.estimated_total is not None else ""
    return html.escape(f"{statistics.keys:,}{total} keys, {state}")
