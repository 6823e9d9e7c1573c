"""What a causal model is asked: an example's prompt, its answers, and which of them are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from beftkit.errors import BeftError
from beftkit.registry import TASKS, Prompt, Task

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Prompted:
    """One example as a causal model meets it: the whole text is ``prompt`` + an answer.

    Attributes:
        prompt: ends in no blank, but perhaps in a line feed.
        answers: what may follow, each with the blank it begins with. Of a generation: the first
            right answer with the line feed that ends it; none where no answer is known.
        right: which of ``answers`` are right: one, several for ReCoRD, none where unknown.
        gold: of a generation: all right answers, as the data have them; for DROP each span alone.
        bags: for DROP: its right answers, each with its spans.
        group: which examples are judged together: those of one question of MultiRC.
        whole: how many examples its group has in its split; 0: none, or not known.
    """

    prompt: str
    answers: tuple[str, ...]
    right: tuple[int, ...]
    gold: tuple[str, ...] = ()
    bags: tuple[tuple[str, ...], ...] = ()
    group: str = ""
    whole: int = field(default=0, compare=False)


def prompted(task: str, row: Row, label: int | None = None) -> Prompted:
    """An example of a task as a causal model meets it.

    Args:
        task: one of `beftkit.registry.TASKS` that has a prompt.
        row: its columns, of the hub's names: texts; and lists of texts ``entities``, ``answers``
            of ReCoRD, ``answers`` of SQuAD; ``answers`` of DROP are lists of their spans. MultiRC's
            may have a ``group``.
        label: id of the right answer; None: unknown. ReCoRD, SQuAD and DROP need none.

    Raises:
        BeftError: no such prompt, or a row that does not fit it.
    """
    return render(prompt_of(asked_task(task)), row, label)


def asked_task(name: str) -> Task:
    """A task that a causal model can be asked.

    Raises:
        BeftError: there is none of that name.
    """
    task = TASKS.get(name)
    if task is None or task.prompt is None:
        able = ", ".join(name for name, one in TASKS.items() if one.prompt)
        raise BeftError(f"task {name!r}: no prompt for a causal model; expected one of {able}")
    return task


def prompt_of(task: Task) -> Prompt:
    """The prompt that a task has."""
    assert task.prompt is not None
    return task.prompt


def render(prompt: Prompt, row: Row, label: int | None = None) -> Prompted:
    """As `prompted`, of any prompt."""
    columns = _RULES[prompt.rule](row) if prompt.rule else row
    text = fill(prompt.text, columns).rstrip(" ")
    if prompt.kind == "generation":
        gold = tuple(columns["answers"])
        answers = tuple(fill(one, {"answer": gold[0]}) for one in prompt.answers if gold)
        return Prompted(text, answers, (0,) if gold else (), gold, columns.get("bags", ()))
    if "options" in columns:
        (template,) = prompt.answers
        answers = tuple(fill(template, {"option": option}) for option in columns["options"])
        return Prompted(text, answers, columns["right"])
    answers = tuple(fill(one, columns) for one in prompt.answers)
    if label is not None and not 0 <= label < len(answers):
        raise BeftError(f"label {label}: expected one of 0 to {len(answers) - 1}")
    right = () if label is None else (label,)
    return Prompted(text, answers, right, group=columns.get("group", ""))


def fill(template: str, columns: Row) -> str:
    """A template such as ``{sentence} It was`` with an example's texts in it, as they are.

    Raises:
        BeftError: the template is none, or names what is no text of the example.
    """
    parts = []
    try:
        for literal, name, form, conversion in Formatter().parse(template):
            parts.append(literal)
            if name is None:
                continue
            value = columns.get(name)
            if form or conversion or not isinstance(value, str):
                what = "is no text of the example" if not form and not conversion else "has a form"
                raise BeftError(f"template {template!r}: {{{name}}} {what}; expected {{column}}")
            parts.append(value)
    except ValueError as error:
        raise BeftError(f"template {template!r}: {error}; write {{{{ and }}}} for braces") from None
    return "".join(parts)


def _sst2(row: Row) -> Row:
    """Sentences end in a blank, and one would come twice."""
    return {**row, "sentence": row["sentence"].strip()}


def _boolq(row: Row) -> Row:
    """The question begins with a capital and ends in its mark, which it may have already."""
    question = row["question"]
    question = question if question.endswith("?") else f"{question}?"
    return {**row, "question": question[:1].upper() + question[1:]}


def _wsc(row: Row) -> Row:
    return {**row, "span2_text": row["span2_text"].lower()}


def _copa(row: Row) -> Row:
    """``premise so effect``, ``premise because cause``: one sentence."""
    words = {"effect": "so", "cause": "because"}
    if row["question"] not in words:
        raise BeftError(f"question {row['question']!r}: expected {' or '.join(words)}")
    premise = row["premise"].rstrip().removesuffix(".")
    choices = {name: _lowered(row[name]) for name in ("choice1", "choice2")}
    return {"premise": premise, "conjunction": words[row["question"]], **choices}


def _lowered(sentence: str) -> str:
    if sentence.partition(" ")[0] == "I":
        return sentence
    return sentence[:1].lower() + sentence[1:]


def _record(row: Row) -> Row:
    """The summary's lines become a list, whose last line the model chooses among the entities."""
    query = row["query"]
    if "@placeholder" not in query:
        raise BeftError("no @placeholder in column 'query'")
    entities = tuple(dict.fromkeys(row["entities"]))
    return {
        "passage": row["passage"].replace("@highlight\n", "- "),
        "options": [query.replace("@placeholder", entity) for entity in entities],
        "right": tuple(i for i, entity in enumerate(entities) if entity in row["answers"]),
    }


def _squad(row: Row) -> Row:
    answers = tuple(dict.fromkeys(row["answers"]))
    return {**row, "question": row["question"].strip(), "answers": answers}


def _drop(row: Row) -> Row:
    """Published runs took every span of every answer for a right answer of its own."""
    bags = tuple(dict.fromkeys(map(tuple, row["answers"])))
    spans = [span for bag in bags for span in bag]
    return {**_squad({**row, "answers": spans}), "bags": bags}


_RULES: dict[str, Callable[[Row], Row]] = {
    "sst2": _sst2, "boolq": _boolq, "wsc": _wsc, "copa": _copa, "record": _record,
    "squad": _squad, "drop": _drop,
}  # fmt: skip
