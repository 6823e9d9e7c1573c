"""Blocks as a terminal shows them: in colour there and as wide as it, plain and whole elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from beftkit.edges import printable
from beftkit.present.document import Block, Command, Lines, Table, command_lines, in_form

#: letters between two columns, and the fewest that a folded column has
_GAP, _FOLDED = 3, 14
_ENDLESS = 1_000_000


def terminal_text(blocks: Iterable[Block], encoding: str, colour: bool) -> str:
    """Lines and tables as text.

    On a terminal (of ``COLUMNS`` letters where that is set) a table that is too wide loses whole
    columns, and says which; in a file or a pipe it is as wide as it is.

    Args:
        blocks: what to show.
        encoding: of what it is shown on: rich draws lines of what it has.
        colour: whether that is a terminal.
    """
    from rich.console import Console

    room = shutil.get_terminal_size().columns if colour else None
    # Not stdout itself: even while capturing, rich writes to its file, and that may fail.
    with Path(os.devnull).open("w", encoding=encoding) as file:
        console = Console(
            file=file,
            force_terminal=colour,
            width=_ENDLESS,
            color_system="auto" if colour else None,
            emoji=False,  # a name with :key: in it stays as it is
        )
        plain = partial(console.print, markup=False, highlight=False)
        with console.capture() as capture:
            for gap, block in in_form(blocks, "table"):
                if gap:
                    console.print("")
                if isinstance(block, Table):
                    shown, left_out = fitted(block, room)
                    console.print(_grid(shown), width=max(room or 0, _least(shown, room)))
                    if left_out:
                        plain(_said(left_out), width=room)
                else:
                    for line in _lines(block):
                        plain(line, soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def fitted(table: Table, room: int | None) -> tuple[Table, list[str]]:
    """A table that so many letters hold, and the columns that it lost to that.

    The first column, which names the rows, always stays.
    """
    kept = list(range(len(table.columns)))
    if room is not None and _least(table, None) > room:
        table = _shorter(table)
    while room is not None and len(kept) > 1 and _least(_only(table, kept), room) > room:
        most = max(table.columns[n].spare for n in kept[1:])
        going = [n for n in kept[1:] if table.columns[n].spare == most]
        going = going if most else going[-1:]
        kept = [n for n in kept if n not in going]
    lost = [column for n, column in enumerate(table.columns) if n not in kept]
    return _only(table, kept), [one.name or one.heading for one in lost if one.name or one.heading]


def _shorter(table: Table) -> Table:
    """Fewer letters in the cells that make their column wider than its others need."""
    body = [list(row) for row in table.body]
    for n, column in enumerate(table.columns):
        cells = [row[n] for row in body]
        for long, short in column.shorter:
            cells = [cell and cell.replace(long, short) for cell in cells]
        room = max(map(_letters, [column.heading, *cells]))
        for row, cell in zip(body, cells, strict=True):
            row[n] = row[n] if _letters(row[n]) <= room else cell
    return replace(table, body=body)


def _only(table: Table, kept: Sequence[int]) -> Table:
    body = [[row[n] for n in kept] for row in table.body]
    return replace(table, columns=[table.columns[n] for n in kept], body=body)


def _least(table: Table, room: int | None) -> int:
    """Letters that a table takes, folded as far as may be where there is not room for all."""
    columns = zip(table.headings, *(row for row, _ in table.rows()), strict=True)
    widths = [max(map(_letters, cells)) for cells in columns]
    whole = sum(widths) + _GAP * (len(widths) - 1)
    if room is None or whole <= room:
        return whole
    folds = [column.folds for column in table.columns]
    return whole - sum(max(0, one - _FOLDED) for one, may in zip(widths, folds, strict=True) if may)


def _letters(cell: str | None) -> int:
    from rich.cells import cell_len

    return cell_len(printable(cell or ""))


def _said(left_out: Sequence[str]) -> str:
    names = ", ".join(map(printable, left_out))
    return f"left out for width: {names}; a wider terminal or | less -S shows them"


def _lines(block: Block) -> Iterator[str]:
    match block:
        case Lines(items):
            yield from map(printable, items)
        case Command():
            yield from map(printable, command_lines(block))
        case _:
            raise TypeError(f"no terminal shows a {type(block).__name__}")


def _grid(table: Table) -> Any:
    """Strong rows stand out."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns:
        folds: Any = {"no_wrap": not column.folds, "overflow": "fold"}
        grid.add_column(Text(printable(column.heading)), justify=column.align, **folds)
    for cells, strong in table.rows():
        grid.add_row(*(Text(printable(cell)) for cell in cells), style="bold" if strong else None)
    return grid
