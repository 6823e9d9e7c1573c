"""Files of examples: GLUE's TSV, JSON lines, CSV and Parquet. All text is UTF-8.

CSV and JSON are read by the standard library, whose errors can be given a line; Parquet by pyarrow.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.tasks.table import Choose, Table, listed, shortened


def read_file(path: Path, choose: Choose) -> Table:
    """Read a user's file by its suffix: .csv, .tsv, .jsonl (also .json, .ndjson) or .parquet."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_csv(path, choose, ",")
    if suffix == ".tsv":
        return read_csv(path, choose, "\t")
    if suffix in (".jsonl", ".json", ".ndjson"):
        return read_jsonl(path, choose)
    if suffix in (".parquet", ".pq"):
        return read_parquet(path, choose)
    raise BeftError(f"{path}: expected a .csv, .tsv, .jsonl or .parquet file")


def read_tsv(
    path: Path, choose: Choose, *, header: Sequence[str] = (), skip_short: bool = False
) -> Table:
    """Read a TSV as GLUE ships it: a tab always separates, a quote is a letter like any other.

    Args:
        header: column names of a file without a header line.
        skip_short: leave rows out that lack columns; otherwise they are an error.
    """
    lines = _lines(path)
    names = list(header) or lines[0].split("\t")
    chosen = choose(names)
    at = [names.index(name) for name in chosen]
    columns: dict[str, list[Any]] = {name: [] for name in chosen}
    numbers: list[int] = []
    skipped = 0
    for number, line in enumerate(lines if header else lines[1:], 1 if header else 2):
        cells = line.split("\t")
        if len(cells) < len(names):
            if not skip_short:
                raise BeftError(f"{path}:{number}: {len(cells)} columns, expected {len(names)}")
            skipped += 1
            continue
        for name, i in zip(chosen, at, strict=True):
            columns[name].append(cells[i])
        numbers.append(number)
    return _filled(Table(str(path), columns, numbers, skipped))


def read_csv(path: Path, choose: Choose, delimiter: str) -> Table:
    """Read CSV (or TSV) with a header line, quoted as spreadsheets do. All values are texts."""
    rows = _csv_rows(path, delimiter)
    _, names = next(rows)
    chosen = choose(names)
    at = [names.index(name) for name in chosen]
    columns: dict[str, list[Any]] = {name: [] for name in chosen}
    numbers: list[int] = []
    for number, cells in rows:
        if len(cells) != len(names):
            raise BeftError(
                f"{path}:{number}: {len(cells)} columns, expected {len(names)} as in the header"
            )
        for name, i in zip(chosen, at, strict=True):
            columns[name].append(cells[i])
        numbers.append(number)
    return _filled(Table(str(path), columns, numbers))


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line it begins at."""
    limit = csv.field_size_limit(2**31 - 1)  # 128 KiB by default: less than some documents
    try:
        reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
        begins = 1
        for cells in reader:
            if cells:
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise BeftError(f"{path}:{begins}: not as quoted as it should be ({error})") from None
    finally:
        csv.field_size_limit(limit)


def read_jsonl(path: Path, choose: Choose) -> Table:
    """Read a file of one JSON object per line; the first one says which columns there are."""
    columns: dict[str, list[Any]] = {}
    numbers: list[int] = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise BeftError(f"{path}:{number}: not JSON; expected one object per line") from None
        if not isinstance(record, dict):
            raise BeftError(
                f"{path}:{number}: a JSON {type(record).__name__}; expected one object per line"
            )
        if not numbers:
            columns = {name: [] for name in choose(list(record))}
        for name, column in columns.items():
            if name not in record:
                raise BeftError(f"{path}:{number}: no {name!r}; it has {listed(list(record))}")
            column.append(record[name])
        numbers.append(number)
    return _filled(Table(str(path), columns, numbers))


def read_parquet(path: Path, choose: Choose) -> Table:
    """Read a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    _regular(path)
    try:
        with parquet.ParquetFile(path) as file:
            chosen = choose(file.schema_arrow.names)
            found = file.read(columns=list(chosen))
            columns = {name: found.column(name).to_pylist() for name in chosen}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BeftError(
            f"{path}: not a readable Parquet file ({shortened(error, bare=True)})"
        ) from None
    return _filled(Table(str(path), columns))


def _lines(path: Path) -> list[str]:
    """Lines without their ends. Only a line feed ends one: texts may hold any other separator."""
    lines = _text(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise BeftError(f"{path}: empty")
    return [line.removesuffix("\r") for line in lines]


def _text(path: Path) -> str:
    _regular(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BeftError(f"{path}: cannot be read ({error.strerror})") from None
    if not raw.strip():
        raise BeftError(f"{path}: empty")
    try:
        return raw.decode("utf-8-sig")  # MRPC's dev.tsv begins with a byte order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BeftError(f"{path}:{line}: not UTF-8 text; convert the file") from None


def _regular(path: Path) -> None:
    try:
        if path.is_file():  # opening a pipe would wait for ever
            return
        what = "not a file" if path.exists() else "no such file"
    except (OSError, ValueError):  # a name that no file system takes
        what = "no such file"
    raise BeftError(f"{path}: {what}")


def _filled(table: Table) -> Table:
    if not len(table):
        raise BeftError(f"{table.where}: no examples")
    return table
