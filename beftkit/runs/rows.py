"""Rows as files that grow with them: CSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import IO, Any, Literal, Protocol

from beftkit.edges import csv_cell
from beftkit.errors import BeftError

Streamed = Literal["csv", "jsonl", "parquet"]
Row = tuple[str, dict[str, Any]]  # where it stands, for messages, and its values


class Writer(Protocol):
    """Writes rows as they come."""

    def write(self, rows: Sequence[Row]) -> None:
        """Some more."""

    def close(self) -> None:
        """There are no more."""


def open_writer(
    format: Streamed, file: IO[bytes], columns: Sequence[str], ours: Sequence[str], schema: Any
) -> Writer:
    """What writes this format.

    Args:
        format: which.
        file: written to from here on, and left open.
        columns: of the rows, in order, but for ours.
        ours: columns that stand behind them.
        schema: Parquet's, of the columns; None: found from the first rows.
    """
    if format == "jsonl":
        return _Lines(file)
    return (_Csv if format == "csv" else _Parquet)(file, columns, ours, schema)


class _Csv:
    """Values of the user's stay as they are; of ours no spreadsheet makes a formula."""

    def __init__(
        self, file: IO[bytes], columns: Sequence[str], ours: Sequence[str], schema: Any
    ) -> None:
        self.file, self.ours = file, frozenset(ours)
        self.names = [*columns, *ours]
        self._put([self.names])

    def write(self, rows: Sequence[Row]) -> None:
        _check_known(rows, self.names)
        self._put(
            [csv_cell(v) if (v := row.get(n)) and n in self.ours else _cell(v) for n in self.names]
            for _, row in rows
        )

    def close(self) -> None:
        """Nothing is left."""

    def _put(self, lines: Any) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(lines)
        self.file.write(buffer.getvalue().encode())


class _Lines:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, rows: Sequence[Row]) -> None:
        self.file.write("".join(f"{json_line(row)}\n" for _, row in rows).encode())

    def close(self) -> None:
        """Nothing is left."""


class _Parquet:
    def __init__(
        self, file: IO[bytes], columns: Sequence[str], ours: Sequence[str], schema: Any
    ) -> None:
        self.file, self.columns, self.ours, self.schema = file, columns, ours, schema
        self.made: Any = None

    def write(self, rows: Sequence[Row]) -> None:
        import pyarrow
        from pyarrow import parquet

        names = [*self.columns, *self.ours]
        _check_known(rows, names)
        values = {name: [row.get(name) for _, row in rows] for name in names}
        try:
            if self.made is None:
                self._open(parquet, pyarrow, values)
            arrays = [pyarrow.array(values[one.name], type=one.type) for one in self.made.schema]
            self.made.write_table(pyarrow.table(arrays, schema=self.made.schema))
        except (pyarrow.ArrowException, TypeError, OverflowError) as error:
            said = " ".join(str(error).split())[:160]
            raise BeftError(
                f"{rows[0][0]} and after: Parquet cannot hold these values in one column ({said}); "
                "write .jsonl"
            ) from None

    def close(self) -> None:
        import pyarrow
        from pyarrow import parquet

        if self.made is None:
            self._open(parquet, pyarrow, {name: [] for name in (*self.columns, *self.ours)})
        self.made.close()

    def _open(self, parquet: Any, pyarrow: Any, values: dict[str, list[Any]]) -> None:
        # What datasets or pandas keep in the metadata speaks of their columns alone.
        known = {one.name: one.type for one in self.schema or ()}
        fields = []
        for name in (*self.columns, *self.ours):
            kind = known.get(name) or pyarrow.infer_type(values[name])
            if pyarrow.types.is_null(kind):
                kind = pyarrow.string()
            fields.append(pyarrow.field(name, kind))
        self.made = parquet.ParquetWriter(self.file, pyarrow.schema(fields))


def json_line(row: Any) -> str:
    """A row as JSON on one line: null for what is no number, text for what JSON has no form for."""
    try:
        return json.dumps(row, allow_nan=False)
    except (ValueError, TypeError):
        return json.dumps(plain(row), allow_nan=False)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _cell(value: Any) -> Any:
    return json_line(value) if isinstance(value, dict | list) else value


def _check_known(rows: Sequence[Row], names: Sequence[str]) -> None:
    known = frozenset(names)
    for where, row in rows:
        if not row.keys() <= known:
            new = next(name for name in row if name not in known)
            raise BeftError(f"{where}: has {new!r}, which the first row has not; write .jsonl")
