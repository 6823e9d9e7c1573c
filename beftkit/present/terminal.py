"""Blocks as a terminal shows them: in colour there, plain in a file or a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from beftkit.edges import printable
from beftkit.present.document import Block, Command, Lines, Table, command_lines, in_form


def terminal_text(blocks: Iterable[Block], encoding: str, colour: bool) -> str:
    """Lines and tables as text; tables are as wide as the terminal, or 120 letters.

    Args:
        blocks: what to show.
        encoding: of what it is shown on: rich draws lines of what it has.
        colour: whether that is a terminal.
    """
    from rich.console import Console

    # Not stdout itself: even while capturing, rich writes to its file, and that may fail.
    with Path(os.devnull).open("w", encoding=encoding) as file:
        console = Console(
            file=file,
            force_terminal=colour,
            width=None if colour else 120,
            color_system="auto" if colour else None,
            emoji=False,  # a name with :key: in it stays as it is
        )
        with console.capture() as capture:
            for gap, block in in_form(blocks, "table"):
                for item in [*([""] if gap else []), *_items(block)]:
                    wrap = isinstance(item, str)
                    console.print(item, markup=False, highlight=False, soft_wrap=wrap)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _items(block: Block) -> Iterable[Any]:
    match block:
        case Lines(items):
            return map(printable, items)
        case Command():
            return map(printable, command_lines(block))
        case Table():
            return [_table(block)]
    raise TypeError(f"no terminal shows a {type(block).__name__}")


def _table(table: Table) -> Any:
    """Strong rows stand out."""
    from rich import box
    from rich.table import Table as Grid

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns:
        grid.add_column(printable(column.heading), justify=column.align, no_wrap=True)
    for cells, strong in table.rows():
        grid.add_row(*map(printable, cells), style="bold" if strong else None)
    return grid
