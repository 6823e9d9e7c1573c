"""Rows of what is no table: records that hold other records, files that are one document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.tasks.records import read_document
from beftkit.tasks.table import Table, filled, shortened

#: where in its record a row stands, empty where it is all of it; and the row
Rows = Iterator[tuple[str, dict[str, Any]]]
_WORDS = {str: "a text", list: "a list", dict: "an object", int: "a whole number"}


@dataclass(frozen=True)
class Nested:
    """How records become rows.

    Attributes:
        columns: what a record must have.
        rows: the rows of a record, under the names that the prompt knows; raises `Misfit`.
        records: the records of a document with the place of each, where the file is one.
    """

    columns: tuple[str, ...]
    rows: Callable[[Mapping[str, Any]], Rows]
    records: Callable[[Any], Iterator[tuple[str, Any]]] | None = None


class Misfit(Exception):
    """A record that is not as it should be: where in it, and why not."""


def unnested(table: Table, nested: Nested) -> Table:
    """The rows that a table's records hold.

    Raises:
        BeftError: a record is not as it should be, with its place and the part of it.
    """
    columns: dict[str, list[Any]] = {}
    lines: list[int | str] = []
    for number in range(len(table)):
        record = {name: values[number] for name, values in table.columns.items()}
        try:
            for where, row in nested.rows(record):
                for name, value in row.items():
                    columns.setdefault(name, []).append(value)
                if table.lines is not None:
                    line = table.lines[number]
                    lines.append(f"{line}, {where}" if where else line)
        except Misfit as error:
            where, what = error.args
            place = table.place(number) + (f", {where}" if where else "")
            raise BeftError(f"{place}: {what}") from None
    return filled(Table(table.where, columns, lines if table.lines is not None else None))


def read_nested(path: Path, nested: Nested) -> Table:
    """The records of a file that is one JSON document: a table for `unnested`.

    Raises:
        BeftError: no such file, no JSON, or no records in it.
    """
    assert nested.records is not None
    columns: dict[str, list[Any]] = {name: [] for name in nested.columns}
    lines: list[int | str] = []
    try:
        for place, record in nested.records(read_document(path)):
            for name in nested.columns:
                columns[name].append(_get(record, name, object, place))
            lines.append(place)
    except Misfit as error:
        where, what = error.args
        raise BeftError(f"{path}{f':{where}' if where else ''}: {what}") from None
    return filled(Table(str(path), columns, lines))


def _get(record: Any, name: str, kind: type, where: str = "") -> Any:
    """What an object has under a name, which must be of this kind."""
    if not isinstance(record, dict):
        raise Misfit(where, f"{shortened(record)}, not an object")
    if name not in record:
        raise Misfit(where, f"no {name!r}; it has {shortened(', '.join(record), bare=True)}")
    value = record[name]
    if isinstance(value, kind) and (kind is not int or not isinstance(value, bool)):
        return value
    what = "nothing" if value is None else f"{shortened(value)}, not {_WORDS[kind]},"
    raise Misfit(where, f"{what} in {name!r}")


def _each(record: Any, name: str, kind: type, where: str = "") -> Iterator[tuple[str, Any]]:
    """The elements of a list under a name, which must be of this kind, each with its place."""
    for number, value in enumerate(_get(record, name, list, where)):
        place = f"{where}.{name}[{number}]" if where else f"{name}[{number}]"
        if not isinstance(value, kind):
            raise Misfit(place, f"{shortened(value)}, not {_WORDS[kind]}")
        yield place, value


def _wsc(record: Mapping[str, Any]) -> Rows:
    text, target = _get(record, "text", str), _get(record, "target", dict)
    spans = {}
    for name in ("span1", "span2"):
        span = _get(target, f"{name}_text", str, "target")
        spans[f"{name}_text"] = _mended(span, text, _get(target, f"{name}_index", int, "target"))
    yield "", {"text": text, **spans, "label": record["label"]}


def _mended(span: str, text: str, index: int) -> str:
    """A span as its text has it, in case, full stop and blanks: so does the hub's ``wsc.fixed``."""
    word = text.split()[index : index + 1]
    if span in text or not word:
        return span
    first = span[:1].lower() if word[0][0].islower() else span[:1].upper()
    mended = (first + span[1:]).rstrip(".").replace("\n", " ")
    return mended if mended in text else span


def _multirc(record: Mapping[str, Any]) -> Rows:
    passage = _get(record, "passage", dict)
    paragraph = _get(passage, "text", str, "passage")
    for number, (at, question) in enumerate(_each(passage, "questions", dict, "passage")):
        asked = _get(question, "question", str, at)
        for place, answer in _each(question, "answers", dict, at):
            yield place, {
                "paragraph": paragraph, "question": asked,
                "answer": _get(answer, "text", str, place), "group": f"{record['idx']}.{number}",
                "label": _get(answer, "label", object, place),
            }  # fmt: skip


def _multirc_hub(record: Mapping[str, Any]) -> Rows:
    texts = {name: _get(record, name, str) for name in ("paragraph", "question", "answer")}
    number = [_get(_get(record, "idx", dict), name, int) for name in ("paragraph", "question")]
    yield "", {**texts, "group": f"{number[0]}.{number[1]}", "label": record["label"]}


def _record(record: Mapping[str, Any]) -> Rows:
    """The entities are places in the passage; both ends belong to them."""
    passage = _get(record, "passage", dict)
    text = _get(passage, "text", str, "passage")
    entities = []
    for at, entity in _each(passage, "entities", dict, "passage"):
        start, end = (_get(entity, name, int, at) for name in ("start", "end"))
        if not 0 <= start <= end < len(text):
            raise Misfit(at, f"{start} to {end} is no place in a text of {len(text)} letters")
        entities.append(text[start : end + 1])
    for at, asked in _each(record, "qas", dict):
        answers = [
            _get(one, "text", str, place) for place, one in _each(asked, "answers", dict, at)
        ]
        yield at, {
            "passage": text, "query": _get(asked, "query", str, at), "entities": entities,
            "answers": answers,
        }  # fmt: skip


def _record_hub(record: Mapping[str, Any]) -> Rows:
    texts = {name: _get(record, name, str) for name in ("passage", "query")}
    lists = {name: [one for _, one in _each(record, name, str)] for name in ("entities", "answers")}
    yield "", {**texts, **lists}


def _articles(document: Any) -> Iterator[tuple[str, Any]]:
    yield from _each(document, "data", dict)


def _squad(record: Mapping[str, Any]) -> Rows:
    title = _get(record, "title", str)
    for above, paragraph in _each(record, "paragraphs", dict):
        context = _get(paragraph, "context", str, above)
        for at, asked in _each(paragraph, "qas", dict, above):
            answers = _each(asked, "answers", dict, at)
            yield at, {
                "title": title, "context": context, "question": _get(asked, "question", str, at),
                "answers": [_get(one, "text", str, place) for place, one in answers],
            }  # fmt: skip


def _squad_hub(record: Mapping[str, Any]) -> Rows:
    texts = {name: _get(record, name, str) for name in ("title", "context", "question")}
    answers = _each(_get(record, "answers", dict), "text", str, "answers")
    yield "", {**texts, "answers": [one for _, one in answers]}


def _passages(document: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(document, dict):
        raise Misfit("", f"a JSON {type(document).__name__}; expected an object of passages")
    for name, passage in document.items():
        yield shortened(name, bare=True), passage


def _drop(record: Mapping[str, Any]) -> Rows:
    passage = _get(record, "passage", str)
    for at, asked in _each(record, "qa_pairs", dict):
        given = [(f"{at}.answer", _get(asked, "answer", dict, at))]
        if asked.get("validated_answers"):  # training questions have none
            given += _each(asked, "validated_answers", dict, at)
        yield at, {
            "passage": passage, "question": _get(asked, "question", str, at),
            "answers": [spans for place, one in given if (spans := _spans(one, place))],
        }  # fmt: skip


def _drop_hub(record: Mapping[str, Any]) -> Rows:
    """Validated answers come as a list of objects, or as an object of lists."""
    texts = {name: _get(record, name, str) for name in ("passage", "question")}
    given = [("answer", _get(record, "answer", dict))]
    validated = record["validated_answers"] or []
    if isinstance(validated, dict):
        parts = {
            n: _get(validated, n, list, "validated_answers") for n in ("number", "date", "spans")
        }
        if len({len(values) for values in parts.values()}) > 1:
            raise Misfit("validated_answers", "lists of different lengths")
        validated = [
            dict(zip(parts, one, strict=True)) for one in zip(*parts.values(), strict=True)
        ]
    given += _each({"validated_answers": validated}, "validated_answers", dict)
    answers = [spans for place, one in given if (spans := _spans(one, place))]
    yield "", {**texts, "answers": answers}


def _spans(answer: dict[str, Any], where: str) -> list[str]:
    """The spans of an answer as DROP's own evaluation takes them: its number, else its spans, else
    its date. Empty where there is none of them: some questions have no answer.
    """
    number = answer.get("number")
    if isinstance(number, int | float) and not isinstance(number, bool):
        number = str(number)
    if number not in (None, ""):
        return [_get({"number": number}, "number", str, where)]
    if answer.get("spans"):
        spans = [one for _, one in _each(answer, "spans", str, where)]
        return spans if spans[0].strip() else []
    if answer.get("date") in (None, ""):
        return []
    date = _get(answer, "date", dict, where)
    parts = [_get(date, name, str, f"{where}.date") for name in ("day", "month", "year")
             if date.get(name) is not None]  # fmt: skip
    return [" ".join(filter(None, parts))] if any(parts) else []


NESTED: dict[str, Nested] = {
    "wsc": Nested(("text", "target", "label"), _wsc),
    "multirc": Nested(("passage", "idx"), _multirc),
    "multirc_hub": Nested(("paragraph", "question", "answer", "idx", "label"), _multirc_hub),
    "record": Nested(("passage", "qas"), _record),
    "record_hub": Nested(("passage", "query", "entities", "answers"), _record_hub),
    "squad": Nested(("title", "paragraphs"), _squad, _articles),
    "squad_hub": Nested(("title", "context", "question", "answers"), _squad_hub),
    "drop": Nested(("passage", "qa_pairs"), _drop, _passages),
    "drop_hub": Nested(("passage", "question", "answer", "validated_answers"), _drop_hub),
}
