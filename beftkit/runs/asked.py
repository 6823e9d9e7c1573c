"""What a model is asked: the texts of a file's rows, or texts that are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

from beftkit.errors import BeftError
from beftkit.registry import Kind
from beftkit.runs.predictor import Predictor
from beftkit.runs.rows import Row
from beftkit.tasks.own_choices import check_columns
from beftkit.tasks.prompts import fill


@dataclass
class Source:
    """Rows, and which texts in them are to be answered.

    Attributes:
        where: they are from.
        columns: of the rows.
        fields: those of the texts.
        rows: each with its place.
        texts: row and place to its one or two texts; None: there is none.
        about: how many rows, nearly; None: not known.
        notes: grow while rows are read.
        schema: Parquet's.
    """

    where: str
    columns: tuple[str, ...]
    fields: tuple[str, ...]
    rows: Iterator[Row]
    texts: Callable[[str, dict[str, Any]], list[str | None]]
    about: int | None = None
    notes: list[str] = field(default_factory=list)
    schema: Any = None


def of_file(predictor: Predictor, path: Path) -> Source:
    """The rows of a file. Its texts are in the columns that are named, else in those of the
    training, else in the usual ones; an adapter of a task makes them as the task does.

    Raises:
        BeftError: it cannot be read, or it is not clear which columns are meant.
    """
    from beftkit.tasks import stream_file

    chosen = _Columns(predictor, str(path))
    rows = stream_file(path, chosen, quotes=predictor.settings.quotes)
    predictor.check_texts(chosen.count, f"{path}: {', '.join(chosen.names)}")
    return Source(
        where=rows.where,
        columns=rows.columns,
        fields=tuple(chosen.names),
        rows=rows.rows,
        texts=chosen.texts,
        about=rows.about,
        notes=rows.notes,
        schema=rows.schema,
    )


class _Columns:
    """Which columns hold the texts."""

    def __init__(self, predictor: Predictor, where: str) -> None:
        given = predictor.settings.text_columns
        self.given = [name.strip() for name in given.split(",")] if given else None
        self.standing, self.where = predictor.standing, where
        self.templated = predictor.settings.template is not None
        self.names: Sequence[str] = ()
        self.templates: Sequence[str] = ()

    def __call__(self, present: Sequence[str]) -> Sequence[str]:
        """Choose; readers may ask several times, to find out what separates a file's columns."""
        from beftkit.tasks import text_columns

        task, known = self.standing.task, self.standing.columns
        needed = (
            () if task is None else task.columns_as(cast("Kind", self.standing.kind or task.kind))
        )
        if self.given is None and needed and {*needed} <= {*present}:
            self.names, self.templates = needed, self.standing.templates
            return self.names
        if self.templated:
            check_columns(needed, present, self.where)
        usual = [*known] if self.given is None and {*known} <= {*present} else []
        self.names = text_columns(self.where, present, self.given or usual or None)
        self.templates = ()
        return self.names

    @property
    def count(self) -> int:
        """Texts of an example."""
        return len(self.templates or self.names)

    def texts(self, where: str, row: dict[str, Any]) -> list[str | None]:
        """The texts of a row."""
        found = {name: text_of(where, row, name) for name in self.names}
        if not self.templates:
            return [*found.values()]
        lacking = any(one is None for one in found.values())
        return [None if lacking else fill(one, found) for one in self.templates]


def of_texts(predictor: Predictor, texts: Any) -> Source:
    """Texts as rows of one column ``text``, or of two, ``text1`` and ``text2``.

    Args:
        predictor: where it, or its ``text_columns``, takes two, they are tuples, or one text with a
            tab between them.
        texts: one after the other; one alone may be given as it is.
    """
    texts = [texts] if isinstance(texts, str) else texts
    given = predictor.settings.text_columns
    names = [name.strip() for name in given.split(",")] if given else []
    about = len(texts) if isinstance(texts, Sequence) else None
    numbered = enumerate(texts, 1)
    first = [*([one] if (one := next(numbered, None)) else [])]
    count = predictor.standing.texts or len(names) or 1
    if first and isinstance(first[0][1], tuple | list):
        count = len(first[0][1])
    names = names or (["text"] if count == 1 else [f"text{n + 1}" for n in range(count)])
    predictor.check_texts(len(names), "the texts")
    rows = (_row(number, text, names) for number, text in chain(first, numbered))
    return Source(
        where="the texts",
        columns=tuple(names),
        fields=tuple(names),
        rows=rows,
        texts=lambda where, row: [text_of(where, row, name) for name in names],
        about=about,
    )


def _row(number: int, text: Any, names: Sequence[str]) -> Row:
    parts = text.split("\t") if isinstance(text, str) and names[1:] else [text]
    parts = [*text] if isinstance(text, tuple | list) else parts
    if len(parts) != len(names) or not all(isinstance(part, str) for part in parts):
        several = f"{'two' if len(names) == 2 else len(names)} texts, with a tab between them"
        expected = several if names[1:] else "one text"
        raise BeftError(f"text {number}: expected {expected}; given {str(text)[:40]!r}")
    for part in parts:
        try:
            part.encode()
        except UnicodeEncodeError:
            raise BeftError(f"text {number}: holds bytes that are not UTF-8 text") from None
    return f"text {number}", dict(zip(names, parts, strict=True))


def text_of(where: str, row: dict[str, Any], column: str) -> str | None:
    """A row's text; None where there is none.

    Raises:
        BeftError: something else stands there.
    """
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value
    raise BeftError(f"{where}: {str(value)[:40]!r}, not a text, in column {column!r}")
