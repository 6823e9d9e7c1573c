"""The labels of a user's files: which classes there are, or whether they are values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from beftkit.errors import BeftError
from beftkit.tasks.labels import plain
from beftkit.tasks.table import Table, missing, number_in, shortened

#: More different labels than this are a mistake: ids, or numbers to be predicted.
MOST_LABELS = 1000
#: Whole numbers from here on have neighbours that are the same float.
_INEXACT = 2.0**53
_PLAIN = re.compile(r"(0|-?[1-9][0-9]{0,300})(?:\.0)?")


@dataclass(frozen=True)
class Classes:
    """What a column of labels holds.

    Attributes:
        names: of the classes in id order; empty for a regression.
        texts: the labels of each table's rows, written as ``names`` are.
        notes: what a user should be told, one line each.
    """

    names: tuple[str, ...]
    texts: tuple[list[str], ...]
    notes: tuple[str, ...] = ()


def find_classes(tables: Sequence[Table], column: str, *, kept: bool = False) -> Classes:
    """Classes of a column, over all tables.

    Whole numbers in plain writing (``1``, ``1.0``) are classes in the order of numbers; so are
    truth values, also as texts; of other texts each different one is a class, sorted, or in the
    order that the source gives (a Parquet file's ClassLabel). Other numbers make a regression.

    Args:
        tables: one or more, which hold the column.
        column: of the labels.
        kept: the labels are a kept head's classes: never values, and one of them may stand alone.

    Raises:
        BeftError: a row without label or with one of another kind, too few or too many classes.
    """
    values: dict[tuple[type, Any], tuple[Any, str]] = {}  # with the place of the first
    for table in tables:
        for row, value in enumerate(table.columns[column]):
            if missing(value):
                raise BeftError(f"{table.place(row)}: nothing in column {column!r}")
            if not isinstance(value, bool | int | float | str):
                raise BeftError(
                    f"{table.place(row)}: {shortened(value)} in column {column!r}; expected a text,"
                    " a number or a truth value"
                )
            values.setdefault(_key(value), (value, table.place(row)))
    spelled, notes = _spelling(list(values.values()), column, kept=kept)
    if spelled is None:
        return Classes((), ())
    written = {key: spelled(value) for key, (value, _) in values.items()}
    texts = tuple([written[_key(value)] for value in table.columns[column]] for table in tables)
    found = {*written.values()}
    in_order = all(_PLAIN.fullmatch(name) for name in found)
    names = sorted(found, key=int) if in_order else sorted(found)
    for table in tables:
        if found <= {*table.named.get(column, ())}:
            names = list(table.named[column])
            break
    if not kept:
        _check(" and ".join(table.where for table in tables), column, sorted(found))
    return Classes(tuple(names), texts, (*notes, *_near(column, names)))


def _key(value: Any) -> tuple[type, Any]:
    return type(value), value  # to Python True, 1 and 1.0 are one key


def _spelling(
    values: Sequence[tuple[Any, str]], column: str, *, kept: bool
) -> tuple[Callable[[Any], str] | None, tuple[str, ...]]:
    """How the different values, each with its place, are written as labels; None: a regression."""
    if any(isinstance(value, bool) for value, _ in values):
        _check_truths(values, column)
        return _truth, ()
    numbers = [(number_in(value), value, place) for value, place in values]
    plainly = all(_plain(value) is not None for value, _ in values)
    if not kept:
        words = [(value, place) for number, value, place in numbers if number is None]
        fractions = any(n is not None and n % 1 and abs(n) < np.inf for n, _, _ in numbers)
        if words and (fractions or not all(isinstance(value, str) for value, _ in values)):
            value, place = words[0]
            raise BeftError(
                f"{place}: {shortened(value)} in column {column!r}, where other rows hold numbers"
            )
        # NaN and infinity are refused, with their row, when the values are read
        if not words and not all(n is not None and n.is_integer() for n, _, _ in numbers):
            return None, ()
    for value, place in values:
        if isinstance(value, float) and abs(value) >= _INEXACT:
            raise BeftError(
                f"{place}: {value:.0f} in column {column!r} is not exact as a number with a point;"
                " write such labels as texts or whole numbers"
            )
    note = f"column {column!r} holds whole numbers: taken for {len(values)} classes, not for values"
    many = len(values) > 10 and all(n is not None and n.is_integer() for n, _, _ in numbers)
    notes = (note,) if many and not kept else ()
    return (_whole if plainly else _text), notes


def _check_truths(values: Sequence[tuple[Any, str]], column: str) -> None:
    """Raises BeftError unless all are truth values, or texts that are."""
    truths = [one for one in values if isinstance(one[0], bool)]
    others = [(v, at) for v, at in values if not isinstance(v, bool) and _truth(v) not in _TRUTHS]
    if any(number_in(value) is not None for value, _ in others):
        value, place = truths[0]
        what = "numbers"
    elif others:
        value, place = others[0]
        what = "truth values"
    else:
        return
    raise BeftError(
        f"{place}: {shortened(value)} in column {column!r}, where other rows hold {what}"
    )


_TRUTHS = ("False", "True")


def _truth(value: Any) -> str:
    return str(value).strip().capitalize()


def _plain(value: Any) -> str | None:
    """A whole number as text, if it is one, plainly written (``1``, ``"1"``, ``1.0``)."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    match = _PLAIN.fullmatch(str(value).strip())
    return match[1] if match else None


def _whole(value: Any) -> str:
    return _plain(value) or ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _plain(value) or str(value)


def _near(column: str, names: Sequence[str]) -> list[str]:
    """Notes on labels that differ in little."""
    groups: dict[str | Decimal, list[str]] = {}
    for name in names:
        number = number_in(name)
        is_word = number is None or not math.isfinite(number)
        groups.setdefault(plain(name) if is_word else Decimal(name.strip()), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    shown = ["; ".join(" and ".join(map(shortened, group[:4])) for group in alike[:3])]
    return [f"column {column!r}: different classes, though alike: {one}" for one in shown if one]


def _check(where: str, column: str, names: list[str]) -> None:
    if names == ["-1"]:
        raise BeftError(f"{where}: all labels are -1, as in test sets; expected a labelled file")
    if len(names) == 1:
        raise BeftError(f"{where}: all labels in column {column!r} are {shortened(names[0])}")
    if len(names) > MOST_LABELS:
        raise BeftError(
            f"{where}: {len(names)} different labels in column {column!r}; expected at most"
            f" {MOST_LABELS} classes, or numbers with decimals to predict"
        )
