"""Columns of a file, and how they become texts and targets. Every complaint names file and row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.errors import BeftError
from beftkit.registry import columns_of

#: Given the columns a file has, the ones to read; raises if it lacks some.
Choose = Callable[[Sequence[str]], Sequence[str]]

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Table:
    """Some columns of a file, or of a split on the hub.

    Attributes:
        where: the file or split, for messages.
        columns: name -> values, all of one length.
        lines: the line each row begins at, or its path in a document; None where the source has
            neither.
        notes: what a user should be told about the reading, one line each.
        named: column -> names of its classes in id order, where the source tells them.
    """

    where: str
    columns: Mapping[str, list[Any]]
    lines: Sequence[int | str] | None = None
    notes: tuple[str, ...] = ()
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def place(self, row: int) -> str:
        """Where row number ``row`` (from 0) stands; rows without lines are counted from 1."""
        if self.lines is None:
            return f"{self.where}, row {row + 1}"
        return f"{self.where}:{self.lines[row]}"

    def only(self, rows: Sequence[int]) -> Table:
        """The rows of these numbers."""
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        lines = None if self.lines is None else [self.lines[i] for i in rows]
        return Table(self.where, columns, lines, self.notes, self.named)


def needed(where: str, names: Iterable[str]) -> Choose:
    """Choose these columns; it is an error if one is missing."""
    wanted = list(dict.fromkeys(names))

    def choose(present: Sequence[str]) -> Sequence[str]:
        for name in wanted:
            if name not in present:
                raise BeftError(f"{where}: no column {name!r}; it has {listed(present)}")
        return wanted

    return choose


def picked(where: str, present: Sequence[str], choose: Choose) -> list[str]:
    """The columns to read; one of them twice would be one of the two by chance."""
    chosen = list(choose(present))
    for name in chosen:
        if list(present).count(name) > 1:
            raise BeftError(f"{where}: the column {name!r} twice; rename one of the two")
    return chosen


def filled(table: Table) -> Table:
    """The table, which must hold a row."""
    if not len(table):
        raise BeftError(f"{table.where}: no examples")
    return table


def text_column(table: Table, column: str) -> list[str]:
    """The [N] texts of a column; they may be empty, but must be texts."""
    for row, value in enumerate(table.columns[column]):
        if not isinstance(value, str):
            what = "nothing" if value is None else f"{shortened(value)}, not a text,"
            raise BeftError(f"{table.place(row)}: {what} in column {column!r}")
    return table.columns[column]


def texts(table: Table, template: str, renamed: Mapping[str, str]) -> list[str]:
    """The [N] texts of a field.

    Args:
        template: over column names, such as ``{word}: {sentence1}``.
        renamed: what the columns of the template are called in the table, if otherwise.
    """
    used = columns_of(template)
    columns = [text_column(table, renamed.get(name, name)) for name in used]
    if template == f"{{{used[0]}}}":
        return columns[0]
    return [
        template.format(**dict(zip(used, row, strict=True))) for row in zip(*columns, strict=True)
    ]


def class_ids(
    table: Table, column: str, labels: Sequence[str], raw_labels: Sequence[str] = ()
) -> npt.NDArray[np.int64]:
    """Class ids, int64 [N].

    Args:
        column: of the labels: integers are ids, and anything else is written as one of ``labels``
            or, where given, of ``raw_labels``.
        labels: names in id order.
        raw_labels: how the file writes them, in id order.
    """
    ids = {name: i for i, name in enumerate(raw_labels or labels)}
    found = np.empty(len(table), dtype=np.int64)
    for row, value in enumerate(table.columns[column]):
        if isinstance(value, int) and not isinstance(value, bool):
            number = value if 0 <= value < len(labels) else None
        else:
            number = ids.get(str(value))
        if number is None:
            raise BeftError(f"{table.place(row)}: {unknown(column, value, list(ids))}")
        found[row] = number
    return found


def unknown(column: str, value: Any, known: Sequence[str]) -> str:
    """What is wrong with a label that is none of those known."""
    if missing(value):
        return f"nothing in column {column!r}; expected one of {listed(known)}"
    why = " (-1 marks test sets, whose answers are unpublished)" if str(value) == "-1" else ""
    return f"{shortened(value)} in column {column!r}{why}; expected one of {listed(known)}"


def values(table: Table, column: str) -> npt.NDArray[np.float32]:
    """Regression targets, float32 [N]: finite numbers, or texts that are."""
    found = np.empty(len(table), dtype=np.float32)
    for row, value in enumerate(table.columns[column]):
        number = None if isinstance(value, bool) else number_in(value)
        if number is None or not math.isfinite(number) or abs(number) > LARGEST:
            what = "nothing" if missing(value) else f"{shortened(value)}, not a finite number,"
            raise BeftError(f"{table.place(row)}: {what} in column {column!r}")
        found[row] = number
    return found


def number_in(value: Any) -> float | None:
    """A number, or the number that a text is; None for all else."""
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e300 or value != value else math.inf
    if not isinstance(value, str) or "_" in value:  # Python reads 1_000
        return None
    try:
        return float(value)
    except ValueError:
        return None


def missing(value: Any) -> bool:
    """Whether a value is none at all: null, or a blank text."""
    return value is None or (isinstance(value, str) and not value.strip())


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names for a message, shortened where there are many."""
    shown = [shortened(name, bare=True) for name in names[:most]]
    return ", ".join(shown) + (f", and {len(names) - most} more" if len(names) > most else "")


def shortened(value: Any, *, bare: bool = False) -> str:
    """A value for a message, on one line and not long."""
    text = str(value) if bare else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:37] + "..."
