"""Column output: rows padded so that columns line up, as people know it from `members` or `catalog nodes`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

GAP = "  "


def columns(rows: Iterable[Sequence[str]], gap: str = GAP) -> str:
    """Rows of cells as lines, each column as wide as its widest cell, with a gap between columns.

    A row's last cell is not padded; rows may differ in length, and only the cells that exist are printed. What would
    steer the terminal, for whoever gives a name, is shown as `\\x1b`.
    """
    table = [[_shown(cell.strip()) for cell in row] for row in rows]
    widths: list[int] = []
    for row in table:
        for column, cell in enumerate(row):
            if column == len(widths):
                widths.append(0)
            widths[column] = max(widths[column], width(cell))
    return "\n".join(gap.join(_padded(row, widths)) for row in table)


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(repr(char)[1:-1] if unicodedata.category(char) == "Cc" else char for char in text)


def _padded(row: list[str], widths: list[int]) -> Iterable[str]:
    for column, cell in enumerate(row[:-1]):
        yield cell + " " * (widths[column] - width(cell))
    yield from row[-1:]


def width(text: str) -> int:
    """The number of terminal cells that text takes: wide East Asian characters count two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
