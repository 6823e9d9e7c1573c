"""What a report consists of, whatever it is written as."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from beftkit.present.pages.drawing import Picture


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text as it is: a file, or commands."""

    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Fold:
    """What is shown when asked for."""

    summary: str
    blocks: Sequence[Code]


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows.

    Attributes:
        title: what it shows.
        head: the columns' names.
        body: cells.
        strong: which rows stand out; none where it is empty.
    """

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]
    strong: Sequence[bool] = ()

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers alone, or nothing."""
        cells = [row[column] for row in self.body]
        return all(re.fullmatch(r"-|[-+]?\d[\d.,e+-]*( ±.*)?", cell) for cell in cells)


@dataclass(frozen=True)
class File:
    """Files beside the report that hold the same: their names, and what it is."""

    names: Sequence[str]
    words: str


@dataclass(frozen=True)
class Files:
    """Links to files beside the report."""

    items: Sequence[File]


Block = Text | Bullets | Code | Fold | Table | Files | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; sections below are one level deeper."""

    title: str
    blocks: Sequence[Block]
    below: Sequence[Section] = ()
