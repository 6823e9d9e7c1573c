"""Files of examples, by suffix: CSV, TSV, JSON, Parquet. Only Parquet needs a library, pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from beftkit.errors import BeftError
from beftkit.tasks.delimited import read_csv
from beftkit.tasks.records import read_json
from beftkit.tasks.table import Choose, Table, filled, needed, picked, shortened, unknown
from beftkit.tasks.text_files import check_regular, suffix


def read_file(path: Path, choose: Choose, *, quotes: bool = True) -> Table:
    """Read a user's file by its suffix.

    Args:
        path: .csv, .tsv, .jsonl (also .json, .ndjson), each also with .gz behind it, or .parquet.
        choose: see `Choose`.
        quotes: see `read_csv`.
    """
    kind = check_kind(path)
    if kind == "csv":
        return read_csv(path, choose, "\t" if suffix(path) == ".tsv" else ",", quotes=quotes)
    return read_json(path, choose) if kind == "json" else read_parquet(path, choose)


def read_alike(
    paths: Mapping[str, Path],
    choose: Callable[[Path, Sequence[str]], Sequence[str]],
    *,
    quotes: bool = True,
) -> tuple[dict[str, Table], list[str]]:
    """Read the files of all splits, with the columns that the first of them is found to have.

    Args:
        paths: split -> file.
        choose: file and names of its columns -> those that are wanted; asked once.
        quotes: as in `read_file`.

    Returns:
        split -> its table, and the columns.

    Raises:
        BeftError: a file that cannot be read, or lacks one of them.
    """
    chosen: list[str] = []
    tables: dict[str, Table] = {}
    for split, path in paths.items():

        def wanted(present: Sequence[str], path: Path = path) -> Sequence[str]:
            chosen.extend([] if chosen else choose(path, present))
            return needed(str(path), chosen)(present)

        tables[split] = read_file(path, wanted, quotes=quotes)
    return tables, chosen


def check_kind(path: Path) -> Literal["csv", "json", "parquet"]:
    """What a file is by its suffix; ``csv`` is ``.tsv`` as well.

    Raises:
        BeftError: none of ours.
    """
    kind = suffix(path)
    if kind in (".csv", ".tsv"):
        return "csv"
    if kind in (".jsonl", ".json", ".ndjson"):
        return "json"
    if kind in (".parquet", ".pq"):
        return "parquet"
    raise BeftError(
        f"{path}: expected a .csv, .tsv, .jsonl or .parquet file (text also as .gz)"
        + ("; save the sheet as CSV UTF-8" if kind in (".xlsx", ".xls", ".ods") else "")
    )


def read_parquet(path: Path, choose: Choose) -> Table:
    """Read a Parquet file; numbers of a ``ClassLabel`` of ``datasets`` become its names."""
    import pyarrow
    from pyarrow import parquet

    check_regular(path)
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            chosen = picked(str(path), schema.names, choose)
            found = file.read(columns=list(chosen))
            columns = {name: found.column(name).to_pylist() for name in chosen}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BeftError(
            f"{path}: not a readable Parquet file ({shortened(error, bare=True)})"
        ) from None
    named = {n: names for n, names in _class_labels(schema.metadata).items() if n in columns}
    table = filled(Table(str(path), columns, named=named))
    for name, names in named.items():
        columns[name] = [_name(table, row, name, names) for row in range(len(table))]
    return table


def _name(table: Table, row: int, column: str, names: tuple[str, ...]) -> Any:
    """What a ClassLabel's number stands for; texts and nothing are left as they are."""
    value = table.columns[column][row]
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if not 0 <= value < len(names):
        raise BeftError(f"{table.place(row)}: {unknown(column, value, names)}")
    return names[value]


def _class_labels(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Columns that ``datasets`` wrote as ClassLabel -> names in the order of their numbers."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}  # metadata of another kind: the numbers stand
