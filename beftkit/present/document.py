"""What a result is shown as, whatever it is written as: values, rows, and blocks to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Align = Literal["left", "right"]
Finish = Callable[[], None]


@dataclass(frozen=True)
class Lines:
    """Sentences, a line each: a list if ``bullets``; ``tight``: no blank line before them."""

    items: Sequence[str]
    bullets: bool = False
    tight: bool = False


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: what stands above it.
        align: where its cells stand.
        on_page: where they stand on a page, if that is elsewhere.
        spare: where there is no room, columns of the highest number go first, all of one number
            together; those of 0 only then, from the right.
        folds: whether its cells may be broken into lines; numbers and roles never are.
        name: what it is called away from its neighbours, if that is no heading.
        shorter: words of its cells that may be others where there is no room, before any column
            goes.
    """

    heading: str
    align: Align = "right"
    on_page: Align | None = None
    spare: int = 0
    folds: bool = False
    name: str = ""
    shorter: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows.

    Attributes:
        columns: from left to right.
        body: cells; None where nothing is known.
        strong: which rows stand out; none where it is empty.
        title: what it shows.
    """

    columns: Sequence[Column]
    body: Sequence[Sequence[str | None]]
    strong: Sequence[bool] = ()
    title: str = ""

    @property
    def headings(self) -> list[str]:
        """The columns' names."""
        return [column.heading for column in self.columns]

    def rows(self) -> Iterator[tuple[list[str], bool]]:
        """Each row's cells as text, and whether it stands out."""
        for number, row in enumerate(self.body):
            cells = ["-" if cell is None else cell for cell in row]
            yield cells, bool(self.strong) and self.strong[number]

    def page_aligns(self) -> list[Align]:
        """Where each column stands on a page; one that knows nothing stands right."""
        return [
            "right" if all(row[n] is None for row in self.body) else column.on_page or column.align
            for n, column in enumerate(self.columns)
        ]


@dataclass(frozen=True)
class Command:
    """Commands to run next, each in one line for a POSIX shell."""

    commands: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A file's text as it is."""

    text: str
    language: str


@dataclass(frozen=True)
class Fold:
    """What is shown when asked for."""

    summary: str
    blocks: Sequence[Command]


@dataclass(frozen=True)
class Files:
    """Links to files beside the report: names of those that hold the same, and what it is."""

    items: Sequence[tuple[Sequence[str], str]]


@dataclass(frozen=True)
class Panel:
    """A pair of axes: its size in inches, and what draws on it.

    What that returns is called once the layout stands, to place labels.
    """

    size: tuple[float, float]
    draw: Callable[[Any], Finish | None]


@dataclass(frozen=True)
class Picture:
    """A figure of one or several panels.

    Attributes:
        name: of its files, different for every figure of a report.
        alt: what is to be seen, for whom cannot see it.
        caption: what stands below it.
        panels: row by row.
        columns: panels a row where there is room.
    """

    name: str
    alt: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int


@dataclass(frozen=True)
class Only:
    """What one of the forms alone shows."""

    form: Literal["table", "markdown"]
    block: Lines | Table | Command


Block = Lines | Table | Command | Code | Fold | Files | Picture | Only


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; sections below are one level deeper."""

    title: str
    blocks: Sequence[Block]
    below: Sequence[Section] = ()


@dataclass(frozen=True)
class Document:
    """A result, ready to be shown.

    Attributes:
        json: everything, as plain values.
        rows: for CSV; the first row's keys are the heading.
        blocks: for a reader.
        notes: for stderr, where the form has no place for them.
    """

    json: Any
    rows: Sequence[dict[str, Any]]
    blocks: Sequence[Block]
    notes: Sequence[str] = ()


def texts(*headings: str, **rest: Any) -> list[Column]:
    """Columns that stand left, and have the rest in common."""
    return [Column(heading, "left", **rest) for heading in headings]


def numbers(*headings: str, **rest: Any) -> list[Column]:
    """Columns that stand right, and have the rest in common."""
    return [Column(heading, **rest) for heading in headings]


def in_form(blocks: Iterable[Block], form: str) -> Iterator[tuple[bool, Block]]:
    """The blocks of a form, each with whether a blank line stands before it."""
    first = True
    for block in blocks:
        if isinstance(block, Only):
            if block.form != form:
                continue
            block = block.block
        tight = isinstance(block, Command) or (isinstance(block, Lines) and block.tight)
        yield not first and not tight, block
        first = False


def command_lines(command: Command) -> list[str]:
    """What to run next, in plain text."""
    return [f"{'' if n else 'Next: ':6}{line}" for n, line in enumerate(command.commands)]
