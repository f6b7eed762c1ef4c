"""Figures as aligned text."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join((first, *rest)).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def short(number: float) -> str:
    """1234567 -> 1.23M, 345678 -> 346k, 5812 -> 5.8k."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            scaled = number / size
            digits = 2 if unit == "M" else (0 if scaled >= 20 else 1)
            return f"{scaled:.{digits}f}{unit}"
    return f"{number:.0f}"


def mib(size: float) -> str:
    return f"{size / 2**20:.1f}"
