"""The user's own files: which columns hold the texts and the label, and what kind of label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beftkit.errors import BeftError
from beftkit.tasks.data import Data, Split
from beftkit.tasks.readers import read_file
from beftkit.tasks.table import (
    Table,
    listed,
    missing,
    needed,
    number_in,
    shortened,
    text_column,
    unknown,
    values,
)

_TEXTS = """
    sentence1,sentence2 premise,hypothesis question1,question2 question,sentence question,passage
    question,context text1,text2 sentence text
"""
#: Columns that are taken for the texts where none are named.
USUAL_TEXTS = tuple(tuple(row.split(",")) for row in _TEXTS.split())
#: Columns that are taken for the label where none is named.
USUAL_LABELS = ("label", "labels", "target", "score")
#: More different labels than this are a mistake: ids, or numbers to be predicted.
MOST_LABELS = 1000

CLASSIFICATION_METRICS = ("accuracy", "macro_f1")
REGRESSION_METRICS = ("spearman", "pearson", "mse")


def load_files(
    train: str | os.PathLike[str] | None = None,
    validation: str | os.PathLike[str] | None = None,
    *,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
) -> Data:
    """Load examples from csv, tsv, jsonl or parquet files.

    Args:
        train, validation: at least one of the two.
        text_columns: the one or two columns of texts; None: the usual ones, if that is clear.
        label_column: None: the one of ``label``, ``labels``, ``target``, ``score`` that is there.
        name: None: the stem of the first file's name.
        labels: names of the classes in id order, as a saved model knows them; empty: regression.
            None: numbers that are not all whole make a regression; whole numbers, truth values
            and texts are classes, sorted, over both files.

    Returns:
        `Data`; its metrics are accuracy and macro F1, or Spearman, Pearson and mean squared error.

    Raises:
        BeftError: what is wrong with the files, with file and line.
    """
    files = {"train": train, "validation": validation}
    paths = {split: Path(path) for split, path in files.items() if path is not None}
    if not paths:
        raise BeftError("no file of examples: give a training or a validation file")
    chosen: list[str] | None = None
    tables: dict[str, Table] = {}
    for split, path in paths.items():

        def choose(present: Sequence[str], path: Path = path) -> Sequence[str]:
            nonlocal chosen
            if chosen is None:
                column = _label_column(path, present, label_column)
                chosen = [*_text_columns(path, present, text_columns, column), column]
            return needed(str(path), chosen)(present)

        tables[split] = read_file(path, choose)
    assert chosen is not None
    *fields, column = chosen
    names, notes = _infer(list(tables.values()), column) if labels is None else (tuple(labels), ())
    splits = {
        split: Split(
            tuple(text_column(table, field) for field in fields),
            _ids(table, column, names) if names else values(table, column),
        )
        for split, table in tables.items()
    }
    return Data(
        name=name or next(iter(paths.values())).stem,
        kind="classes" if names else "values",
        labels=names,
        metrics=CLASSIFICATION_METRICS if names else REGRESSION_METRICS,
        train=splits.pop("train", None),
        validation=splits,
        source={
            "kind": "files",
            "files": {split: str(path) for split, path in paths.items()},
            "text_columns": fields,
            "label_column": column,
            "examples": {split: len(table) for split, table in tables.items()},
        },
        notes=notes,
    )


def _text_columns(
    path: Path, present: Sequence[str], given: Sequence[str] | None, label: str
) -> list[str]:
    if given is not None:
        if not 1 <= len(given) <= 2 or len(set(given)) < len(given) or label in given:
            raise BeftError(
                f"text columns {listed(given)}: expected one or two, and not the label's"
            )
        return list(given)
    able = [set(names) for names in USUAL_TEXTS if set(names) <= {*present} - {label}]
    # ("sentence",) is no rival of ("question", "sentence"), which holds it.
    able = [names for names in able if not any(names < other for other in able)]
    if len(able) != 1:
        raise BeftError(
            f"{path}: it is not clear which columns are the texts; name one or two with"
            f" --text-columns; there are {listed(present)}"
        )
    return list(next(names for names in USUAL_TEXTS if set(names) == able[0]))


def _label_column(path: Path, present: Sequence[str], given: str | None) -> str:
    if given is not None:
        return given
    able = [name for name in USUAL_LABELS if name in present]
    if len(able) != 1:
        raise BeftError(
            f"{path}: it is not clear which column is the label; name it with --label-column;"
            f" there are {listed(present)}"
        )
    return able[0]


def _ids(table: Table, column: str, names: Sequence[str]) -> Any:
    """Class ids, int64 [N], of labels that are written as ``names`` or as equal numbers."""
    ids = {name: i for i, name in enumerate(names)}
    found = np.empty(len(table), dtype=np.int64)
    for row, value in enumerate(table.columns[column]):
        number = ids.get(str(value), ids.get(_whole(value)))
        if number is None:
            raise BeftError(f"{table.place(row)}: {unknown(column, value, names)}")
        found[row] = number
    return found


def _whole(value: Any) -> str:
    """A whole number as text, however it is written (``1``, ``"1"``, ``1.0``); else nothing."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return str(value)
    number = number_in(value)
    return str(int(number)) if number is not None and number.is_integer() else ""


def _infer(tables: Sequence[Table], column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes in id order, none for a regression; and notes."""
    found = [(table, row, v) for table in tables for row, v in enumerate(table.columns[column])]
    for table, row, value in found:
        if missing(value):
            raise BeftError(f"{table.place(row)}: nothing in column {column!r}")
        if not isinstance(value, bool | int | float | str):
            raise BeftError(
                f"{table.place(row)}: {shortened(value)} in column {column!r}; expected a text,"
                " a number or a truth value"
            )
    distinct = {value for _, _, value in found}
    if all(isinstance(value, bool) for value in distinct):
        return _named(tables, column, [str(value) for value in sorted(distinct)]), ()
    numbers = {v: None if isinstance(v, bool) else number_in(v) for v in distinct}
    fractions = [v for v, n in numbers.items() if n is not None and n % 1 and abs(n) < np.inf]
    others = [v for v, number in numbers.items() if number is None]
    if others and (fractions or not all(isinstance(value, str) for value in distinct)):
        table, row, value = next(one for one in found if numbers[one[2]] is None)
        raise BeftError(
            f"{table.place(row)}: {shortened(value)} in column {column!r}, where other rows hold"
            " numbers"
        )
    if others:
        return _named(tables, column, sorted(map(str, distinct))), ()
    if not all(number is not None and number.is_integer() for number in numbers.values()):
        return (), ()  # NaN and infinity are refused, with their row, when the values are read
    names = _named(tables, column, sorted({_whole(value) for value in distinct}, key=int))
    note = f"column {column!r} holds whole numbers: taken for {len(names)} classes, not for values"
    return names, (note,) if len(names) > 10 else ()


def _named(tables: Sequence[Table], column: str, names: list[str]) -> tuple[str, ...]:
    where = " and ".join(table.where for table in tables)
    if names == ["-1"]:
        raise BeftError(f"{where}: all labels are -1, as in test sets; expected a labelled file")
    if len(names) == 1:
        raise BeftError(f"{where}: all labels in column {column!r} are {shortened(names[0])}")
    if len(names) > MOST_LABELS:
        raise BeftError(
            f"{where}: {len(names)} different labels in column {column!r}; expected at most"
            f" {MOST_LABELS} classes, or numbers with decimals to predict"
        )
    return tuple(names)
