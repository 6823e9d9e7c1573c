"""Files of JSON objects: one per line, or an array of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.tasks.table import Choose, Table, filled, listed, picked, shortened
from beftkit.tasks.text_files import TextOnDisk, read_text, split_lines

_RECORDS = "one object per line, or an array of objects"
_DOCUMENT = "one JSON document"
_BLANKS = re.compile(r"[ \t\r\n]*")


class _SameKey(Exception):
    """A key that an object has twice."""


def read_json(path: Path, choose: Choose) -> Table:
    """Read one JSON object per line, or an array of them; the first says which columns there are.

    Raises:
        BeftError: no JSON, no objects, a key missing or twice, with the line.
    """
    columns: dict[str, list[Any]] = {}
    numbers: list[int] = []
    text = read_text(path)
    is_array = text.lstrip().startswith("[")
    found = _array(path, text) if is_array else _by_line(path, split_lines(text))
    for number, record in _objects(path, found):
        if not numbers:
            columns = {name: [] for name in picked(str(path), list(record), choose)}
        for name, column in columns.items():
            if name not in record:
                raise BeftError(f"{path}:{number}: no {name!r}; it has {listed(list(record))}")
            column.append(record[name])
        numbers.append(number)
    return filled(Table(str(path), columns, numbers))


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with the line of each; line by line, an array in one piece.

    Raises:
        BeftError: no JSON, no objects, a key twice, with the line.
    """
    text = TextOnDisk(path)
    start = next((line for line in text.lines() if line.strip()), "")
    if start.lstrip().startswith("["):
        return _objects(path, _array(path, read_text(path)))
    return _objects(path, _by_line(path, text.lines()))


def _objects(
    path: Path, records: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, record in records:
        if not isinstance(record, dict):
            raise BeftError(
                f"{path}:{number}: a JSON {type(record).__name__}; expected one object per line,"
                " or an array of objects"
            )
        yield number, record


def read_document(path: Path) -> Any:
    """Read the one JSON value that a file is.

    Raises:
        BeftError: no JSON, or a key twice.
    """
    text = read_text(path)
    value, end = _decoded(path, 1, text, _after_blanks(text, 0), _DOCUMENT)
    rest = _after_blanks(text, end)
    if rest < len(text):
        raise _no_json(path, 1 + text.count("\n", 0, rest), _DOCUMENT)
    return value


def _by_line(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            record, end = _decoded(path, number, line, _after_blanks(line, 0))
            if _after_blanks(line, end) < len(line):
                raise _no_json(path, number)
            yield number, record


def _array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The elements, each with its line."""
    at, number = _after_blanks(text, 0), 1
    number += text.count("\n", 0, at)
    separator = "["
    while text[at : at + 1] == separator:
        begins = _after_blanks(text, at + 1)
        if separator == "[" and text[begins : begins + 1] == "]":  # an empty array
            at = begins
            break
        number += text.count("\n", at, begins)
        record, end = _decoded(path, number, text, begins)
        yield number, record
        at = _after_blanks(text, end)
        number += text.count("\n", begins, at)
        separator = ","
    end = _after_blanks(text, at + 1) if text[at : at + 1] == "]" else at
    if end == at or end < len(text):
        raise _no_json(path, 1 + text.count("\n", 0, end))


def _decoded(
    path: Path, number: int, text: str, at: int, expected: str = _RECORDS
) -> tuple[Any, int]:
    """The JSON value that begins there, and where it ends."""
    try:
        record, end = _DECODER.raw_decode(text, at)
        if "\\ud" in text[at:end].lower():
            json.dumps(record, ensure_ascii=False).encode()
    except _SameKey as error:
        raise BeftError(f"{path}:{number}: the key {error} twice in one object") from None
    except UnicodeEncodeError:
        raise BeftError(
            f"{path}:{number}: half a character (a lone \\ud...); write both, or leave it out"
        ) from None
    except (ValueError, RecursionError):
        raise _no_json(path, number, expected) from None
    return record, end


def _no_json(path: Path, number: int, expected: str = _RECORDS) -> BeftError:
    return BeftError(f"{path}:{number}: not JSON; expected {expected}")


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise _SameKey(shortened(twice))
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
