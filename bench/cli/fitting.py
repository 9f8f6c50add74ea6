"""Tables that fit a terminal: names are folded and columns left out, and no number is ever folded or cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

__all__ = ["plain_table"]

GAP = 2  # columns of the terminal between two of the table
NARROWEST = (10, 6, 3, 1)  # widths that names are folded to, one after the other, once no column can be left out
# Where a text may be broken: between words, and after the hyphens and dots of a name, but not in `1.7e-77`.
BREAK = re.compile(r"(?<=[A-Za-z]{2}[-_./])(?=\w)|(?<=\s)(?=\S)")

NUMBER = re.compile(r"\W*\d[\d.,eE+-]*\W*")


@dataclass
class _Column:
    """One column: its texts, how wide it is, and how narrow it may become."""

    name: str
    cells: list[Text]
    number: bool
    whole: bool = False

    def __post_init__(self) -> None:
        self.least = max((len(word) for word in self.name.split()), default=0)
        self.width = max(self.natural, self.least)

    @property
    def natural(self) -> int:
        """Wide enough for every cell in one line."""
        return max((cell.cell_len for cell in self.cells), default=0)

    def floor(self, narrowest: int | None = None) -> int:
        """How narrow the column may become: a number stays whole, a text is broken where it may be.

        Args:
            narrowest: fold inside words, too, down to so many columns.
        """
        if self.number or (self.whole and narrowest is None):
            return max(self.natural, self.least)
        pieces = {part.rstrip() for cell in self.cells for part in BREAK.split(cell.plain)}
        if narrowest is None:
            return max(self.least, *map(cell_len, pieces)) if pieces else self.least
        folded = (cell_len(part) if NUMBER.fullmatch(part) else min(cell_len(part), narrowest) for part in pieces)
        return max(min(self.least, narrowest), *folded) if pieces else self.least


def plain_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    width: int,
    numbers: Sequence[str] = (),
    whole: Sequence[str] = (),
    leave_out: Sequence[str] = (),
) -> Table:
    """A quiet table that is at most `width` wide.

    Where it does not fit, texts are broken between their words and after hyphens; then columns are left out, which
    the caption says; then texts are folded anywhere. Numbers stay whole, whatever happens.

    Args:
        columns: their titles.
        rows: as many values each; None is shown as a hyphen, a `Text` keeps its colours.
        width: of the terminal.
        numbers: columns that are aligned to the right and never folded.
        whole: further columns that are broken only once no column can be left out.
        leave_out: columns that may be left out, the least important one first.
    """
    values = [[_cell(value) for value in row] for row in rows]
    made = [_Column(name, [row[i] for row in values], name in numbers, name in whole) for i, name in enumerate(columns)]
    shown, out = _fitted(made, width, leave_out)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for column in shown:
        justify: Literal["left", "right"] = "right" if column.number else "left"
        table.add_column(Text(column.name), justify=justify, width=column.width, overflow="fold")
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*(_broken(cell, column.width) for cell, column in zip(cells, shown, strict=True)))
    if out:
        table.caption = f"left out for want of room: {', '.join(out)}"
        table.caption_justify = "left"
    return table


def _cell(value: Any) -> Text:
    """Foreign text stays text: only what is a `Text` already has colours."""
    return value if isinstance(value, Text) else Text("-" if value is None else str(value))


def _fitted(columns: list[_Column], width: int, leave_out: Sequence[str]) -> tuple[list[_Column], list[str]]:
    """The columns that are shown, with their widths, and the names of those that are not."""
    shown, out = list(columns), []
    for name in (None, *leave_out):
        if any(column.name == name for column in shown):
            shown = [column for column in shown if column.name != name]
            out.append(str(name))
        if _shrunk(shown, width, None):
            return shown, out
    for narrowest in NARROWEST:
        if _shrunk(shown, width, narrowest):
            break
    return shown, out


def _shrunk(columns: Sequence[_Column], width: int, narrowest: int | None) -> bool:
    """Take from the widest column until all fit; false where each is as narrow as it may become."""
    floors = [column.floor(narrowest) for column in columns]
    for column in columns:
        column.width = max(column.natural, column.least)
    room = width - GAP * (len(columns) - 1)
    while sum(column.width for column in columns) > room:
        above = [(column.width, i) for i, column in enumerate(columns) if column.width > floors[i]]
        if not above:
            return False
        columns[max(above)[1]].width -= 1
    return True


def _broken(text: Text, width: int) -> Text:
    """`text` in lines of at most `width`, its colours kept."""
    lines = text.divide(_ends(text.plain, width))
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _ends(text: str, width: int) -> list[int]:
    """Where lines end: at the last place before `width` where the text may be broken, else in a word."""
    ends: list[int] = []
    start = position = 0
    for piece in BREAK.split(text):
        if position > start and cell_len((text[start:position] + piece).rstrip()) > width:
            start = position
            ends.append(start)
        position += len(piece)
        while cell_len(text[start:position].rstrip()) > width:
            start += width
            ends.append(start)
    return [end for end in ends if end < len(text)]
