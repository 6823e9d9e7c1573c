"""The user's own files: which columns hold the texts and the label, and what kind of label."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from beftkit.errors import BeftError, UsageError, option
from beftkit.registry import Kind
from beftkit.tasks.classes import find_classes
from beftkit.tasks.data import Data, Split
from beftkit.tasks.labels import match_labels, named_by
from beftkit.tasks.own_language import load_language
from beftkit.tasks.readers import read_alike
from beftkit.tasks.table import Table, listed, needed, text_column, values
from beftkit.tasks.text_files import bare_name

_TEXTS = """
    sentence1,sentence2 premise,hypothesis question1,question2 question,sentence question,passage
    question,context text1,text2 sentence text
"""
#: Columns that are taken for the texts where none are named.
USUAL_TEXTS = tuple(tuple(row.split(",")) for row in _TEXTS.split())
#: Columns that are taken for the label where none is named.
USUAL_LABELS = ("label", "labels", "target", "score")

CLASSIFICATION_METRICS = ("accuracy", "macro_f1")
#: in the name of a file's only column: it is several that something else separates
_SEPARATORS = ",;\t|"

REGRESSION_METRICS = ("spearman", "pearson", "mse")


def load_files(
    train: str | os.PathLike[str] | None = None,
    validation: str | os.PathLike[str] | None = None,
    *,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    quotes: bool = True,
    kind: Kind | None = None,
) -> Data:
    """Load examples from csv, tsv, jsonl, JSON or parquet files; text also packed with gzip.

    Args:
        train, validation: at least one of the two.
        text_columns: the one or two columns of texts; None: the usual ones, if that is clear.
        label_column: None: the one of ``label``, ``labels``, ``target``, ``score`` that is there.
        name: None: the stem of the first file's name.
        labels: names of a kept head's classes in id order, onto which the labels are mapped by
            name (`match_labels`); empty: regression. None: see `find_classes`.
        label_map: label -> one of ``labels``, where names alone do not tell.
        quotes: False: quotation marks in csv and tsv files are letters; see `read_csv`.
        kind: ``language``: prompts, conversations or texts that a model learns, without labels; see
            `beftkit.tasks.own_language.load_language`. Else the labels tell.

    Returns:
        `Data`; its metrics are accuracy and macro F1, or Spearman, Pearson and mean squared error.

    Raises:
        BeftError: what is wrong with the files, with file and line.
    """
    files = {"train": train, "validation": validation}
    paths = {split: Path(path) for split, path in files.items() if path is not None}
    if not paths:
        raise BeftError("no file of examples: give a training or a validation file")
    if kind == "language":
        return load_language(paths, text_columns, name=name, quotes=quotes)

    def choose(path: Path, present: Sequence[str]) -> Sequence[str]:
        column = label_column_of(path, present, label_column)
        return [*_text_columns(path, present, text_columns, column), column]

    tables, (*fields, column) = read_alike(paths, choose, quotes=quotes)
    names, ids, notes = _classes(list(tables.values()), column, labels, label_map)
    splits = {
        split: Split(
            tuple(text_column(table, field) for field in fields),
            next(ids) if names else values(table, column),
        )
        for split, table in tables.items()
    }
    read = (note for table in tables.values() for note in table.notes)
    return Data(
        name=name or Path(bare_name(next(iter(paths.values())))).stem,
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
        notes=(*read, *notes),
    )


def _classes(
    tables: Sequence[Table],
    column: str,
    labels: Sequence[str] | None,
    label_map: Mapping[str, str] | None,
) -> tuple[tuple[str, ...], Iterator[npt.NDArray[np.int64]], tuple[str, ...]]:
    """Names of the classes in id order, none for a regression; ids of each table [N]; notes."""
    if label_map and not labels:
        raise BeftError("--label-map: only onto the classes of a head that is kept")
    if labels is not None and not labels:
        return (), iter(()), ()
    found = find_classes(tables, column, kept=labels is not None)
    names, notes = found.names, found.notes
    ids = {name: i for i, name in enumerate(names)}
    if labels is not None:
        where = f"{' and '.join(table.where for table in tables)}, column {column!r}"
        names = tuple(labels)
        present = set(chain.from_iterable(found.texts))
        order = [name for name in found.names if name in present]
        ids, matched = match_labels(order, names, label_map, where=where)
        names = named_by(names, ids)
        notes += matched
    arrays = (np.array([ids[text] for text in texts], dtype=np.int64) for texts in found.texts)
    return names, arrays, notes


def text_columns(where: str, present: Sequence[str], given: Sequence[str] | None) -> list[str]:
    """The one or two columns of texts of a file without labels: those given, the usual ones, or the
    only one.

    Raises:
        BeftError: they are not there, or it is not clear which they are.
    """
    if given is None and len(present) == 1 and not {*present[0]} & {*_SEPARATORS}:
        return [*present]
    found = _text_columns(Path(where), present, given, "")
    return [*needed(where, found)(present)]


def _text_columns(
    path: Path, present: Sequence[str], given: Sequence[str] | None, label: str
) -> list[str]:
    if given is not None:
        if not 1 <= len(given) <= 2 or len(set(given)) < len(given) or label in given:
            place = option("text_columns", ",".join(given))
            raise UsageError(f"{place}: expected one or two, and not the label's")
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


def label_column_of(path: Path, present: Sequence[str], given: str | None) -> str:
    """The column of the labels: the one given, or the usual one, if that is clear.

    Raises:
        BeftError: it is not.
    """
    if given is not None:
        return given
    able = [name for name in USUAL_LABELS if name in present]
    if len(able) != 1:
        raise BeftError(
            f"{path}: it is not clear which column is the label; name it with --label-column;"
            f" there are {listed(present)}"
        )
    return able[0]
