"""Files of delimited columns: GLUE's TSV, and csv or tsv of anyone, with and without quotes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.tasks.table import Choose, Table, filled, picked
from beftkit.tasks.text_files import Text, TextOnDisk, read_lines, read_text

_NAMES = {";": "';'", "\t": "tabs", ",": "','", "|": "'|'"}
#: A field that opens with a quotation mark and closes with its own.
_CLOSED = re.compile('"(?:[^"]|"")*"')
_NO_QUOTES = "--no-quotes takes quotation marks for letters"

Row = tuple[int, list[str]]  # the line it begins at, and its cells


def read_tsv(
    path: Path, choose: Choose, *, header: Sequence[str] = (), skip_short: bool = False
) -> Table:
    """Read a TSV as GLUE ships it: a tab always separates, a quote is a letter like any other.

    Args:
        header: column names of a file without a header line.
        skip_short: leave rows out that lack columns; otherwise they are an error.
    """
    lines = read_lines(path)
    names = list(header) or [name.strip() for name in lines[0].split("\t")]
    chosen = picked(str(path), names, choose)
    notes: list[str] = []
    rows = _tab_rows(path, lines, 0 if header else 1, len(names), notes, skip_short=skip_short)
    return _table(path, names, chosen, rows, notes)


def _tab_rows(
    path: Path, lines: list[str], first: int, width: int, notes: list[str], *, skip_short: bool
) -> Iterator[Row]:
    skipped = longer = 0
    for number, line in enumerate(lines[first:], first + 1):
        cells = line.split("\t")
        if len(cells) >= width:
            longer += len(cells) > width
            yield number, cells
        elif skip_short:
            skipped += 1
        else:
            raise BeftError(f"{path}:{number}: {len(cells)} columns, expected {width}")
    if skipped:
        notes.append(f"{path}: {skipped} rows lack columns and are left out")
    if longer:
        notes.append(f"{path}: {longer} rows have more columns than {width}: not read")


def read_csv(path: Path, choose: Choose, delimiter: str, *, quotes: bool = True) -> Table:
    """Read CSV or TSV with a header line. All values are texts.

    Args:
        quotes: a field may be quoted as spreadsheets do. With tabs that is so only if every field
            that opens with a quotation mark closes with its own; one that merely begins with a
            quotation mark would take in the rows up to the next. False: quotes are letters.
    """
    notes: list[str] = []
    names, rows = csv_rows(path, Text(read_text(path)), choose, delimiter, notes, quotes=quotes)
    return _table(path, names, picked(str(path), names, choose), rows, notes)


def csv_rows(
    path: Path,
    text: Text | TextOnDisk,
    choose: Choose,
    delimiter: str,
    notes: list[str],
    *,
    quotes: bool = True,
) -> tuple[list[str], Iterator[Row]]:
    """The columns of CSV or TSV, and its rows as they are asked for; ``notes`` may grow with them.

    Raises:
        BeftError: the columns wanted are not there, which is told by what does separate them.
    """
    if quotes and delimiter == "\t":
        quotes = _is_quoted(path, text, notes)
    # ``text, label``: where the header has blanks behind its commas, they are not the values'.
    header = _header(text)
    first = header.split(delimiter)
    spaced = len(first) > 1 and delimiter != "\t" and all(cell[:1] == " " for cell in first[1:])
    if quotes:
        rows = _quoted(path, text, delimiter, notes, spaced=spaced)
    else:
        rows = _letters(text, delimiter, spaced=spaced)
    try:
        names = [name.strip() for name in next(rows)[1]]
        picked(str(path), names, choose)
    except BeftError:
        _name_delimiter(path, choose, delimiter, header)
        raise
    return names, _even(path, names, rows)


def _header(text: Text | TextOnDisk) -> str:
    """The first line that is not empty."""
    lines = (line.rstrip("\r\n") for line in text.raw())
    return next(filter(None, lines), "")


def _table(
    path: Path, names: list[str], chosen: Sequence[str], rows: Iterable[Row], notes: list[str]
) -> Table:
    """The chosen columns; ``notes`` may grow while the rows are read."""
    columns: dict[str, list[Any]] = {name: [] for name in chosen}
    kept = [(columns[name], names.index(name)) for name in chosen]
    numbers: list[int] = []
    for number, cells in rows:
        for column, i in kept:
            column.append(cells[i])
        numbers.append(number)
    return filled(Table(str(path), columns, numbers, tuple(notes)))


def _even(path: Path, names: list[str], rows: Iterable[Row]) -> Iterator[Row]:
    for number, cells in rows:
        if len(cells) != len(names):
            spans = any("\n" in cell for cell in cells)
            raise BeftError(
                f"{path}:{number}: {len(cells)} columns, expected {len(names)} as in the header"
                + (f"; {_NO_QUOTES}" if spans else "")
            )
        yield number, cells


def _letters(text: Text | TextOnDisk, delimiter: str, *, spaced: bool = False) -> Iterator[Row]:
    for number, line in enumerate(text.lines(), 1):
        if line:
            first, *others = line.split(delimiter)
            yield number, [first, *(cell.lstrip(" ") if spaced else cell for cell in others)]


def _quoted(
    path: Path,
    text: Text | TextOnDisk,
    delimiter: str,
    notes: list[str],
    *,
    spaced: bool = False,
) -> Iterator[Row]:
    """The rows that are not empty; at the end the fields that span lines are noted."""
    limit = csv.field_size_limit(2**31 - 1)  # 128 KiB by default: less than some documents
    spans: list[tuple[int, int]] = []
    begins = 1
    try:
        reader = csv.reader(
            text.raw(),
            delimiter=delimiter,
            strict=True,
            skipinitialspace=spaced,
        )
        for cells in reader:
            if cells:
                yield begins, cells
            if reader.line_num > begins:
                spans.append((begins, reader.line_num))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise BeftError(
            f"{path}:{begins}: not as quoted as it should be ({error}); {_NO_QUOTES}"
        ) from None
    finally:
        csv.field_size_limit(limit)
    if spans:
        start, end = max(spans, key=lambda span: span[1] - span[0])
        others = f", the longest of {len(spans)} such rows" if len(spans) > 1 else ""
        notes.append(
            f"{path}:{spans[0][0]}: a quoted field spans lines (line {start} to {end}{others});"
            " if its quotation mark is a letter, give --no-quotes"
        )


def _is_quoted(path: Path, text: Text | TextOnDisk, notes: list[str]) -> bool:
    """Whether the quotation marks of a file with tabs are quotes."""
    width, even = -1, True
    opening = unclosed = None  # the first lines with a field that opens with one, and not closes
    for i, line in enumerate(text.lines()):
        width = line.count("\t") if i == 0 else width
        even = even and (not line or line.count("\t") == width)
        if line.startswith('"') or '\t"' in line:
            opening = i if opening is None else opening
            unclosed = i if unclosed is None and not _closed(line) else unclosed
    if opening is None:
        return False
    if not even:
        unclosed = None if _spans_well(path, text, width + 1) else opening
    if unclosed is not None:
        notes.append(
            f"{path}: quotation marks are taken for letters: one that opens a field in line"
            f" {unclosed + 1} does not close in it"
        )
    return unclosed is None


def _closed(line: str) -> bool:
    return all(_CLOSED.fullmatch(cell) for cell in line.split("\t") if cell.startswith('"'))


def _spans_well(path: Path, text: Text | TextOnDisk, width: int) -> bool:
    """Whether lines of uneven columns are even as quoted, and no field takes in another row's."""
    try:
        return all(
            len(cells) == width and not any("\t" in cell and "\n" in cell for cell in cells)
            for _, cells in _quoted(path, text, "\t", [])
        )
    except BeftError:
        return False


def _name_delimiter(path: Path, choose: Choose, delimiter: str, header: str) -> None:
    """Raises BeftError if the columns would be there with another delimiter."""
    if header.lower().startswith("sep="):
        raise BeftError(f"{path}:1: Excel's line {header!r}; delete it")
    ours = ".tsv" if delimiter == "\t" else ".csv"
    for other in set(_NAMES) - {delimiter}:
        names = [name.strip().strip('"') for name in header.split(other)]
        if len(names) > 1 and _fits(choose, names):
            ending = {",": ".csv", "\t": ".tsv"}.get(other)
            todo = f"name it {ending}" if ending else "save it with commas or tabs"
            raise BeftError(
                f"{path}: its columns are separated by {_NAMES[other]}, a {ours} file's by"
                f" {_NAMES[delimiter]}; {todo}"
            )


def _fits(choose: Choose, names: Sequence[str]) -> bool:
    try:
        return bool(choose(names))
    except BeftError:
        return False
