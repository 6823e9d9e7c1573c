"""The user's own files of prompts and of texts to be written: which columns hold them."""

from __future__ import annotations

import os
from pathlib import Path

from beftkit.errors import BeftError
from beftkit.tasks.asked import prompt_split
from beftkit.tasks.data import Data, Split
from beftkit.tasks.prompts import Prompted
from beftkit.tasks.readers import read_file
from beftkit.tasks.table import Table, needed, text_column
from beftkit.tasks.text_files import bare_name

ANSWER_METRICS = ("token_f1", "exact_match")
#: of whole prompts, where no other is named
PROMPT_COLUMN = "context"


def load_written(
    train: str | os.PathLike[str] | None = None,
    validation: str | os.PathLike[str] | None = None,
    *,
    prompt_column: str = PROMPT_COLUMN,
    answers_column: str = "ref_text",
    separator: str = "|",
    name: str | None = None,
    quotes: bool = True,
) -> Data:
    """Load whole prompts and the texts that are right behind them, from files as `load_files` does.

    An answer that is a list of several spans is one text in such a file, so DROP's own figures
    cannot be had from it: its metrics are those of SQuAD.

    Args:
        train, validation: at least one of the two.
        prompt_column: of the prompts; blanks at their ends are taken off.
        answers_column: of the right answers, of which the first one is trained.
        separator: what parts the right answers of an example; empty: there is one each.
        name: None: the stem of the first file's name.
        quotes: as in `load_files`.

    Raises:
        BeftError: what is wrong with the files, with file and line.
    """
    files = {"train": train, "validation": validation}
    paths = {split: Path(path) for split, path in files.items() if path is not None}
    if not paths:
        raise BeftError("no file of examples: give a training or a validation file")
    if prompt_column == answers_column:
        raise BeftError(f"column {prompt_column!r}: for prompts and answers; expected two columns")
    tables = {
        split: read_file(path, needed(str(path), (prompt_column, answers_column)), quotes=quotes)
        for split, path in paths.items()
    }
    splits = {
        split: _split(table, prompt_column, answers_column, separator)
        for split, table in tables.items()
    }
    return Data(
        name=name or Path(bare_name(next(iter(paths.values())))).stem,
        kind="generation",
        labels=(),
        metrics=ANSWER_METRICS,
        train=splits.get("train"),
        validation={split: found for split, found in splits.items() if split != "train"},
        source={
            "kind": "files",
            "files": {split: str(path) for split, path in paths.items()},
            "text_columns": [prompt_column],
            "answers_column": answers_column,
            "examples": {split: len(found) for split, found in splits.items()},
        },
        notes=tuple(note for table in tables.values() for note in table.notes),
    )


def _split(table: Table, prompt_column: str, answers_column: str, separator: str) -> Split:
    made = []
    texts = zip(text_column(table, prompt_column), text_column(table, answers_column), strict=True)
    for row, (prompt, answers) in enumerate(texts):
        parts = [one.strip() for one in (answers.split(separator) if separator else [answers])]
        gold = tuple(dict.fromkeys(filter(None, parts)))
        if not gold:
            raise BeftError(f"{table.place(row)}: no answer in column {answers_column!r}")
        made.append(Prompted(prompt.rstrip(" "), (f" {gold[0]}\n",), (0,), gold))
    return prompt_split(made)
