"""A choice over the user's own files: a template of the prompt, and an answer for each label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import numpy as np

from beftkit.errors import BeftError, UsageError, option
from beftkit.registry import HubSource, Prompt, Task, columns_of
from beftkit.tasks.asked import prompt_split, rendered
from beftkit.tasks.classes import find_classes
from beftkit.tasks.data import Data, Split
from beftkit.tasks.labels import plain
from beftkit.tasks.own_files import CLASSIFICATION_METRICS, label_column_of
from beftkit.tasks.readers import read_file
from beftkit.tasks.table import Table, filled, listed, text_column
from beftkit.tasks.text_files import bare_name


@dataclass(frozen=True)
class Asking:
    """What is asked, as the user wrote it.

    Attributes:
        text: template of the prompt.
        answers: templates of the answers, each with the blank that parts it from the prompt.
        labels: what each answer stands for; empty: the data's labels in their order.
    """

    text: str
    answers: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, template: str, choices: str) -> Asking:
        """From the two settings. Templates are only ever parsed and filled with texts.

        Args:
            template: columns in braces; ``\\n`` written out is a line feed.
            choices: with commas between them, ``LABEL=ANSWER`` each or ``ANSWER`` each; answers may
                name columns as well.

        Raises:
            UsageError: no template, or choices that mean nothing.
        """
        text = template.replace("\\n", "\n")
        _check("template", template, text)
        words = [one.strip() for one in choices.split(",")]
        named = [one.partition("=") for one in words]
        labels: tuple[str, ...] = ()
        if any(sign for _, sign, _ in named):
            if not all(sign and label.strip() for label, sign, _ in named):
                raise UsageError(
                    f"{option('choices', choices)}: expected LABEL=ANSWER for each, or for none"
                )
            labels = tuple(label.strip() for label, _, _ in named)
            words = [word.strip() for _, _, word in named]
        for what in (words, labels):
            if len({*what}) < len(what) or (what is words and (len(words) < 2 or "" in words)):
                raise UsageError(
                    f"{option('choices', choices)}: expected two or more different answers, one for"
                    " each label, such as terrible,great"
                )
        for word in words:
            _check("choices", choices, word)
        if not columns_of(text) and not any(map(columns_of, words)):
            raise UsageError(
                f"{option('template', template)}: names no column, so all examples would be asked "
                "the same; expected one in braces, such as {text}"
            )
        between = "" if text.rstrip(" ").endswith("\n") else " "
        return cls(text, tuple(f"{between}{word}" for word in words), labels)

    @property
    def words(self) -> tuple[str, ...]:
        """The answers without the blank before them."""
        return tuple(one.strip() for one in self.answers)

    def task(self, labels: Sequence[str]) -> Task:
        """As a row of the registry would have it; of as many labels as there are answers."""
        prompt = self.prompt(labels)
        return Task(
            name="files of its own", kind=prompt.kind, fields=(), labels=tuple(labels),
            prompt=prompt, metrics=prompt.metrics, layouts=(), sizes={}, lr=prompt.lr,
            hub=HubSource(repo="", config="", revision=""), epochs=prompt.epochs, published=False,
        )  # fmt: skip

    def prompt(self, labels: Sequence[str]) -> Prompt:
        """What is asked of these labels, in id order; as many as there are answers."""
        at = [self.labels.index(label) for label in labels] if self.labels else range(len(labels))
        answers = tuple(self.answers[i] for i in at)
        return Prompt(text=self.text, answers=answers, metrics=CLASSIFICATION_METRICS)


def own_task(template: str, choices: str, labels: Sequence[str]) -> Task | None:
    """Such a prompt as a row of the registry would have it; None: these words mean none."""
    try:
        asking = Asking.of(template, choices)
    except UsageError:
        return None
    names = tuple(labels)
    if len(names) != len(asking.answers) or {*asking.labels} - {*names}:
        return None
    return asking.task(names)


def check_columns(needs: Sequence[str], present: Sequence[str], where: str) -> None:
    """Raises BeftError where a template names what is no column."""
    for name in needs:
        if name not in present:
            raise BeftError(
                f"--template: names {{{name}}}, which is no column of {where}; it has "
                f"{listed(present)}"
            )


def load_choices(
    train: str | os.PathLike[str] | None = None,
    validation: str | os.PathLike[str] | None = None,
    *,
    template: str,
    choices: str,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    quotes: bool = True,
) -> Data:
    """Load examples as a causal model is asked them, from files as `load_files` does.

    Args:
        train, validation: at least one of the two.
        template, choices: see `Asking.of`.
        label_column: as of `load_files`.
        labels: names in id order, where they are known, of which the files may hold some; None:
            those of the choices, or of the files.
        quotes: as of `load_files`.

    Raises:
        UsageError: a template or choices that mean nothing.
        BeftError: what is wrong with the files, with file and line.
    """
    asking = Asking.of(template, choices)
    files = {"train": train, "validation": validation}
    paths = {split: Path(path) for split, path in files.items() if path is not None}
    if not paths:
        raise BeftError("no file of examples: give a training or a validation file")
    used = [columns_of(one) for one in (asking.text, *asking.answers)]
    needs = tuple(dict.fromkeys(name for names in used for name in names))
    column = label_column
    tables: dict[str, Table] = {}
    for split, path in paths.items():

        def choose(present: Sequence[str], path: Path = path) -> Sequence[str]:
            nonlocal column
            check_columns(needs, present, str(path))
            column = label_column_of(path, present, column)
            if column not in present:
                raise BeftError(f"{path}: no column {column!r}; it has {listed(present)}")
            if column in needs:
                raise BeftError(
                    f"--template: names {{{column}}}, which is the label, and so would tell it; "
                    "leave it out, or name another with --label-column"
                )
            return [*needs, column]

        tables[split] = read_file(path, choose, quotes=quotes)
    assert column is not None
    where = f"{' and '.join(str(path) for path in paths.values())}, column {column!r}"
    known = tuple(labels or asking.labels)
    found = find_classes([*tables.values()], column, kept=bool(known))
    names = known or found.names
    if len(names) != len(asking.answers) or {*asking.labels} - {*names}:
        raise BeftError(
            f"{where}: {_labels(names)}, and {option('choices', choices)} has "
            f"{len(asking.answers)} answers; expected one for each label, as LABEL=ANSWER where the"
            " file lacks some"
        )
    prompt = asking.prompt(names)
    ids = {one: _id(one, names, where) for texts in found.texts for one in dict.fromkeys(texts)}
    splits = {
        split: _split(prompt, filled(table), [ids[text] for text in texts])
        for (split, table), texts in zip(tables.items(), found.texts, strict=True)
    }
    pairs = ", ".join(
        f"{label} = {word.strip()}" for label, word in zip(names, prompt.answers, strict=True)
    )
    read = (note for table in tables.values() for note in table.notes)
    return Data(
        name=Path(bare_name(next(iter(paths.values())))).stem,
        kind=prompt.kind,
        labels=names,
        metrics=prompt.metrics,
        train=splits.get("train"),
        validation={split: one for split, one in splits.items() if split != "train"},
        source={
            "kind": "files",
            "files": {split: str(path) for split, path in paths.items()},
            "text_columns": list(needs),
            "label_column": column,
            "examples": {split: len(one) for split, one in splits.items()},
        },
        notes=(*read, *found.notes, f"column {column!r}, label = answer: {pairs}"),
        prompt=prompt,
    )


def _split(prompt: Prompt, table: Table, ids: Sequence[int]) -> Split:
    for name in prompt.needs:
        text_column(table, name)
    made = [rendered(prompt, table, row, label) for row, label in enumerate(ids)]
    split = prompt_split(made)
    assert np.array_equal(split.targets, ids)
    return split


def _id(label: str, names: Sequence[str], where: str) -> int:
    """The number of a label: by its name, or its name but for case and blanks."""
    if label in names:
        return names.index(label)
    same = [i for i, name in enumerate(names) if plain(name) == plain(label)]
    if len(same) != 1:
        raise BeftError(
            f"{where}: label {label!r} has no answer; --choices has them for {listed(names)}"
        )
    return same[0]


def _labels(names: Sequence[str]) -> str:
    return f"{len(names)} labels ({listed(names)})" if names else "values, not labels"


def _check(name: str, given: str, template: str) -> None:
    """Refuse what is no template of columns alone."""
    place = option(name, given)
    try:
        parts = [*Formatter().parse(template)]
    except ValueError as error:
        raise UsageError(f"{place}: {error}; write {{{{ and }}}} for braces") from None
    for _, field, form, conversion in parts:
        if field is not None and (form or conversion or not field):
            raise UsageError(
                f"{place}: {{{field}{'!' if conversion else ''}{conversion or ''}"
                f"{':' if form else ''}{form}}} names no column; expected {{column}}, and {{{{ and "
                "}} for braces"
            )
