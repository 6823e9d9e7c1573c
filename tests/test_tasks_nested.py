"""Damaged records of prompts: one line that names file, record and part."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beftkit import tasks
from tests import prompt_files
from tests.prompt_files import refused, write_local, write_records


def change(*path: Any, to: Any) -> Callable[[Any], None]:
    """Put something at a place of what the training file holds; ``...`` takes it away."""

    def damage(records: Any) -> None:
        for step in path[:-1]:
            records = records[step]
        if to is ...:
            del records[path[-1]]
        else:
            records[path[-1]] = to

    return damage


QUESTION = ("passage", "questions", 1)
BOWL = ("data", 0, "paragraphs", 0, "qas", 0)
PAIR = ("nfl_0", "qa_pairs", 1)
DAMAGE: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "no target": ("wsc", change(1, "target", to=...), "train.jsonl:2: no 'target'; it has text"),
    "target a list": ("wsc", change(1, "target", to=[]), "jsonl:2: [], not an object, in 'target'"),
    "no span": ("wsc", change(0, "target", "span1_text", to=None),
                "train.jsonl:1, target: nothing in 'span1_text'"),
    "wsc label": ("wsc", change(1, "label", to="maybe"), "jsonl:2: 'maybe' in column 'label'"),
    "wsc unlabelled": ("wsc", change(1, "label", to=-1), "-1 marks test sets"),
    "no paragraph": ("multirc", change(1, "passage", "text", to=3),
                     "train.jsonl:2, passage: 3, not a text, in 'text'"),
    "no questions": ("multirc", change(0, "passage", "questions", to={}),
                     "jsonl:1, passage: {}, not a list, in 'questions'"),
    "no question": ("multirc", change(0, *QUESTION, "question", to=...),
                    "train.jsonl:1, passage.questions[1]: no 'question'; it has"),
    "an answer": ("multirc", change(0, *QUESTION, "answers", 0, to="there"),
                  "passage.questions[1].answers[0]: 'there', not an object"),
    "an answer's label": ("multirc", change(0, *QUESTION, "answers", 0, "label", to=2),
                          "jsonl:1, passage.questions[1].answers[0]: 2 in column 'label'"),
    "no label": ("multirc", change(0, *QUESTION, "answers", 0, "label", to=...),
                 "questions[1].answers[0]: no 'label'"),
    "copa question": ("copa", change(1, "question", to="why"),
                      "jsonl:2: question 'why': expected effect or cause"),
    "copa choice": ("copa", change(0, "choice2", to=None), "jsonl:1: nothing in column 'choice2'"),
    "copa label": ("copa", change(0, "label", to=2), "jsonl:1: 2 in column 'label'; expected one"),
    "an entity's place": ("record", change(0, "passage", "entities", 1, "end", to=9999),
                          "jsonl:1, passage.entities[1]: "),
    "an entity's end": ("record", change(0, "passage", "entities", 1, "end", to=True),
                        "passage.entities[1]: True, not a whole number, in 'end'"),
    "placeholder": ("record", change(0, "qas", 1, "query", to="nobody"),
                    "train.jsonl:1, qas[1]: no @placeholder in column 'query'"),
    "no answers": ("record", change(0, "qas", 1, "answers", to=...),
                   "train.jsonl:1, qas[1]: no 'answers'; it has idx, query"),
    "no answer fits": ("record", lambda records: [one.update(answers=[]) for one in
                                                  records[0]["qas"]], "train.jsonl: no examples"),
    "no data": ("squad", change("data", to=...), "train-v1.1.json: no 'data'; it has version"),
    "no articles": ("squad", change("data", to=[]), "train-v1.1.json: no examples"),
    "no title": ("squad", change("data", 0, "title", to=...), "json:data[0]: no 'title'; it has"),
    "context": ("squad", change("data", 0, "paragraphs", 0, "context", to=None),
                "json:data[0], paragraphs[0]: nothing in 'context'"),
    "an answer's text": ("squad", change(*BOWL, "answers", 0, "text", to=3),
                         "data[0], paragraphs[0].qas[0].answers[0]: 3, not a text, in 'text'"),
    "squad 2.0": ("squad", change(*BOWL, "answers", to=[]), "train-v1.1.json: no examples"),
    "a passage": ("drop", change("nfl_0", to=3), "train.json:nfl_0: 3, not an object"),
    "a line break": ("drop", change("a\nb", to=3), "train.json:a b: 3, not an object"),
    "an answer's spans": ("drop", change(*PAIR, "answer", "spans", to="x"),
                          "json:nfl_0, qa_pairs[1].answer: 'x', not a list, in 'spans'"),
    "a span": ("drop", change(*PAIR, "answer", "spans", 1, to=None),
               "qa_pairs[1].answer.spans[1]: None, not a text"),
    "no drop answer": ("drop", change(*PAIR, "answer", to=...), "qa_pairs[1]: no 'answer'"),
    "a date": ("drop", change("nfl_0", "qa_pairs", 2, "answer", "date", "day", to=3),
               "qa_pairs[2].answer.date: 3, not a text, in 'day'"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_records(case: str, tmp_path: Path) -> None:
    task, damage, message = DAMAGE[case]
    place = write_local(tmp_path, task)
    records = copy.deepcopy(prompt_files.local_records(task, "train"))
    damage(records)
    write_records(place / prompt_files.FILES.get(task, ("train.jsonl",))[0], records)
    assert str(place) in refused(message, task, tmp_path)
    assert tasks.load_task(task, data_dir=tmp_path, train=False).validation


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "train.json: a JSON list; expected an object of passages"),
        ("{", "train.json:1: not JSON; expected one JSON document"),
        ("{}\n{}", "train.json:2: not JSON; expected one JSON document"),
        ("[" * 100_000, "train.json:1: not JSON"),
        ('{"a": 1, "a": 2}', "train.json:1: the key 'a' twice in one object"),
        ("{}", "train.json: no examples"),
        ("", "train.json: empty"),
    ],
)
def test_documents_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    place = write_local(tmp_path, "drop")
    (place / "drop_dataset_train.json").write_text(content)
    refused(message, "drop", tmp_path)
