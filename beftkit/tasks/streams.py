"""Rows of the user's files, all their columns, as they are asked for: nothing is held whole.

CSV, TSV and JSON lines are read line by line, Parquet by row groups; a JSON array is one piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.tasks.delimited import csv_rows
from beftkit.tasks.readers import check_kind
from beftkit.tasks.records import json_rows
from beftkit.tasks.table import Choose, picked, shortened
from beftkit.tasks.text_files import TextOnDisk, check_regular, suffix

#: rows of Parquet that are read at once
_BATCH = 4096


@dataclass
class Rows:
    """Rows of a file, to be gone through once.

    Attributes:
        where: the file, for messages.
        columns: its columns, in order; of JSON those of the first object.
        rows: where each stands, for messages, and its values by column.
        about: how many there are, or nearly; None: not known.
        notes: what a user should be told; whole when the rows are through.
        schema: Parquet's own, of a Parquet file.
    """

    where: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[str, dict[str, Any]]]
    about: int | None = None
    notes: list[str] = field(default_factory=list)
    schema: Any = None


def stream_file(path: Path, choose: Choose, *, quotes: bool = True) -> Rows:
    """Open a user's file by its suffix.

    Args:
        path: as `beftkit.tasks.readers.read_file` takes it.
        choose: the columns that have to be there; the others come along.
        quotes: see `read_csv`.

    Raises:
        BeftError: what is wrong with it, with its line; of the rows, when they are read.
    """
    kind = check_kind(path)
    if kind == "csv":
        return _csv(path, choose, "\t" if suffix(path) == ".tsv" else ",", quotes)
    return _json(path, choose) if kind == "json" else _parquet(path, choose)


def _csv(path: Path, choose: Choose, delimiter: str, quotes: bool) -> Rows:
    text, notes = TextOnDisk(path), list[str]()
    names, rows = csv_rows(path, text, choose, delimiter, notes, quotes=quotes)
    _check_once(str(path), names)
    found = ((f"{path}:{n}", dict(zip(names, cells, strict=True))) for n, cells in rows)
    return Rows(str(path), tuple(names), found, max(text.count() - 1, 0), notes)


def _json(path: Path, choose: Choose) -> Rows:
    rows = json_rows(path)
    first = next(rows, None)
    if first is None:
        raise BeftError(f"{path}: no examples")
    names = tuple(first[1])
    wanted = picked(str(path), names, choose)

    def found() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, record in _again(first, rows):
            for name in wanted:
                if name not in record:
                    raise BeftError(f"{path}:{number}: no {name!r}")
            yield f"{path}:{number}", record

    return Rows(str(path), names, found(), TextOnDisk(path).count())


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _parquet(path: Path, choose: Choose) -> Rows:
    import pyarrow
    from pyarrow import parquet

    check_regular(path)

    def unreadable(error: Exception) -> BeftError:
        return BeftError(f"{path}: not a readable Parquet file ({shortened(error, bare=True)})")

    def found() -> Iterator[tuple[str, dict[str, Any]]]:
        number = 0
        try:
            with file:
                for batch in file.iter_batches(_BATCH):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise unreadable(error) from None

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(error) from None
    names = tuple(file.schema_arrow.names)
    _check_once(str(path), names)
    picked(str(path), names, choose)
    return Rows(str(path), names, found(), file.metadata.num_rows, schema=file.schema_arrow)


def _check_once(where: str, names: Any) -> None:
    """Refuse a column twice: both are to be kept, and a row has one of a name."""
    picked(where, names, lambda present: present)
