"""The user's own files of language: prompts with completions, conversations, or plain texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beftkit.errors import BeftError, UsageError, option
from beftkit.tasks.conversations import conversation
from beftkit.tasks.data import Data, Split
from beftkit.tasks.metrics import LANGUAGE_METRICS
from beftkit.tasks.prompts import Prompted
from beftkit.tasks.readers import read_alike
from beftkit.tasks.table import Table, listed, text_column
from beftkit.tasks.text_files import bare_name

MESSAGES = "messages"
#: columns that are taken where none are named
SHAPES = (("prompt", "completion"), (MESSAGES,), ("text",))
#: how many columns there are, and whether they hold messages -> what is learnt
_LEARNT = {
    "prompts": "the completions' tokens",
    "conversations": "the assistant's turns",
    "texts": "every token but a text's first",
}


def load_language(
    paths: Mapping[str, Path],
    columns: Sequence[str] | None = None,
    *,
    name: str | None = None,
    quotes: bool = True,
) -> Data:
    """Load what a causal model learns to write, from files as `load_files` reads them.

    Args:
        paths: ``train``, ``validation`` or both.
        columns: two: prompt and completion; one: messages (lists of role and content) or texts.
            None: those of `SHAPES` that are there.
        name: None: the stem of the first file's name.
        quotes: as in `load_files`.

    Raises:
        BeftError: what is wrong with the files, with file and line; or it is not clear which
            columns are meant.
    """

    def choose(path: Path, present: Sequence[str]) -> Sequence[str]:
        return language_columns(str(path), present, columns)

    tables, chosen = read_alike(paths, choose, quotes=quotes)
    what = _what(chosen, next(iter(tables.values())))
    splits = {split: _split(table, chosen, what) for split, table in tables.items()}
    read = (note for table in tables.values() for note in table.notes)
    named = f"column{'s' * (len(chosen) - 1)} {', '.join(map(repr, chosen))}"
    return Data(
        name=name or Path(bare_name(next(iter(paths.values())))).stem,
        kind="language",
        labels=(),
        metrics=LANGUAGE_METRICS,
        train=splits.pop("train", None),
        validation=splits,
        source={
            "kind": "files",
            "files": {split: str(path) for split, path in paths.items()},
            "columns": chosen,
            "examples": {split: len(table) for split, table in tables.items()},
        },
        notes=(*read, f"{named}: {what}, of which {_LEARNT[what]} are learnt"),
    )


def language_columns(where: str, present: Sequence[str], given: Sequence[str] | None) -> list[str]:
    """Which columns hold the language: those given, else those of `SHAPES` that are there.

    Raises:
        BeftError: none are, or of several shapes.
        UsageError: more than two are given.
    """
    if given is not None:
        if not 1 <= len(given) <= 2 or len({*given}) < len(given):
            place = option("text_columns", ",".join(given))
            raise UsageError(
                f"{place}: expected two (prompt and completion) or one (messages or texts)"
            )
        return [*given]
    able = usual_language(present)
    if len(able) == 1:
        return [*able[0]]
    if able:
        found = " and ".join("/".join(one) for one in able)
        ways = " or ".join(option("text_columns", ",".join(one)) for one in able)
        raise BeftError(f"{where}: holds {found}, each of which could be learnt; {ways} decides")
    raise BeftError(
        f"{where}: no prompt and completion, messages or text among its columns; name one or two "
        f"with --text-columns; there are {listed(present)}"
    )


def usual_language(present: Sequence[str]) -> list[tuple[str, ...]]:
    """Those of `SHAPES` whose columns are all there."""
    return [shape for shape in SHAPES if {*shape} <= {*present}]


def _what(chosen: Sequence[str], table: Table) -> str:
    if len(chosen) == 2:
        return "prompts"
    (column,) = chosen
    told = column == MESSAGES or isinstance(table.columns[column][0], list)
    return "conversations" if told else "texts"


def _split(table: Table, chosen: Sequence[str], what: str) -> Split:
    nothing = np.zeros(len(table), np.int64)
    if what == "conversations":
        (column,) = chosen
        found = table.columns[column]
        told = (conversation(one, column, table.place(row)) for row, one in enumerate(found))
        return Split((), nothing, conversations=tuple(told))
    fields = [text_column(table, column) for column in chosen]
    _check_filled(table, chosen[-1], fields[-1])
    if what == "texts":
        return Split((fields[0],), nothing)
    pairs = zip(*fields, strict=True)
    asked = tuple(Prompted(prompt, (completion,), (0,)) for prompt, completion in pairs)
    return Split((), nothing, asked)


def _check_filled(table: Table, column: str, texts: Sequence[Any]) -> None:
    for row, text in enumerate(texts):
        if not text:
            raise BeftError(
                f"{table.place(row)}: nothing in column {column!r} that could be learnt; leave the "
                "row out"
            )
