"""Small data of the tasks that only a causal model is asked, after the official schemas.

``LOCAL`` holds the records of the original files, ``HUB`` the rows of the hub's data sets for the
same examples; both typed from the schemas, not made by our readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from beftkit import tasks
from beftkit.errors import BeftError

Records = list[dict[str, Any]]

#: braces, quotes, another alphabet, a separator that is no line end
PASSAGE = "Ann {0} met \u201cBob\u201d in \u6771\u4eac.\n@highlight\nAnn won\u2028it"
FOLDERS = {
    "wsc": "WSC", "multirc": "MultiRC", "copa": "COPA", "record": "ReCoRD", "squad": "SQuAD",
    "drop": "DROP",
}  # fmt: skip
FILES = {
    "squad": ("train-v1.1.json", "dev-v1.1.json"),
    "drop": ("drop_dataset_train.json", "drop_dataset_dev.json"),
}
_DATE = {"day": "", "month": "", "year": ""}


def _answer(number: str = "", spans: tuple[str, ...] = (), **date: str) -> dict[str, Any]:
    return {"number": number, "date": {**_DATE, **date}, "spans": list(spans)}


def _wsc(i: int, text: str, span1: str, span2: str, label: bool, **fixed: str) -> tuple[Any, Any]:
    """``fixed``: spans as the hub mended them."""
    places = {"span1_index": 0, "span2_index": 3}
    spans = {"span1_text": span1, "span2_text": span2}
    local = {"text": text, "target": {**places, **spans}, "idx": i, "label": label}
    return local, {"text": text, **places, **spans, **fixed, "idx": i, "label": int(label)}


def _copa(i: int, question: str, label: int) -> tuple[Any, Any]:
    row = {"premise": f"It fell {i}.", "choice1": "I ran.", "choice2": "He sat.",
           "question": question, "idx": i, "label": label}  # fmt: skip
    return row, dict(row)


def _place(text: str) -> dict[str, int]:
    start = PASSAGE.index(text)
    return {"start": start, "end": start + len(text) - 1}


#: task -> split -> (record of the file, row of the hub) of each example; for MultiRC and ReCoRD see
#: `local_records` and `hub_rows`
PAIRS: dict[str, dict[str, list[tuple[Any, Any]]]] = {
    "wsc": {
        "train": [_wsc(0, "Mark told Pete lies, which He took.", "Pete", "He", True),
                  _wsc(1, "Mark {x} told Pete lies.", "Mark {x}", "HIM", False),
                  _wsc(2, "The old man told it.", "the old\nman.", "told", False,
                       span1_text="The old man"),
                  _wsc(3, "Both K. and Z. told it.", "K. and the Z.", "told", False)],
        "validation": [_wsc(0, "A saw B.", "A", "it", False)],
    },
    "copa": {
        "train": [_copa(0, "cause", 1), _copa(1, "effect", 0)],
        "validation": [_copa(0, "effect", 1)],
    },
}  # fmt: skip
MULTIRC = {
    "train": [
        ("P {one}.", [("Who?", [("Bob", 1), ("Ann", 0)]), ("Where?", [("there", 1)])]),
        ("P two.", [("Who?", [("nobody {}", 0)])]),
    ],
    "validation": [("P three.", [("When?", [("now", 0), ("then", 1)])])],
}
RECORD = {
    "train": [(["Ann", "Bob", "Ann"], [("@placeholder {0} lost", ["Bob"]),
                                       ("@placeholder met @placeholder", ["Ann", "Bob"])])],
    "validation": [(["Ann", "\u6771\u4eac"], [("in @placeholder", ["\u6771\u4eac"])])],
}  # fmt: skip
SQUAD = {
    "train": [("Super_Bowl", "Denver {won}.", [("Who won? ", ["Denver"])])],
    "validation": [
        ("T", "C1", [("Q1", ["one", "one", "the one"]), ("Q2", ["two"])]),
        ("T", "C2", [("Q3", ["three {}", "3"])]),
    ],
}
#: passage -> [(question, answer, validated answers, what is right)]
DROP: dict[str, list[tuple[str, list[tuple[Any, ...]]]]] = {
    "train": [("It grew {0}.", [
        ("How many?", _answer("3"), [], [["3"]]),
        ("Which two?", _answer(spans=("under 18", "25 to 44")), [], [["under 18", "25 to 44"]]),
        ("None?", _answer(), [], []),
        ("Blank?", _answer(spans=(" ",)), [], []),
    ])],
    "validation": [("It fell.", [
        ("When?", _answer(day="17", month="August"), [_answer(spans=("August",)), _answer("17")],
         [["17 August"], ["August"], ["17"]]),
        ("What year?", _answer(year="1590"), [_answer(), _answer(year="1590")],
         [["1590"], ["1590"]]),
    ])],
}  # fmt: skip


def local_records(task: str, split: str) -> Any:
    """What the original file of a split holds: records of its lines, or one document."""
    if task == "multirc":
        return [
            {"idx": i, "version": 1.1, "passage": {"text": text, "questions": [
                {"idx": j, "question": asked, "answers": [
                    {"idx": k, "text": one, "label": label}
                    for k, (one, label) in enumerate(answers)
                ]} for j, (asked, answers) in enumerate(questions)
            ]}}
            for i, (text, questions) in enumerate(MULTIRC[split])
        ]  # fmt: skip
    if task == "record":
        return [
            {"idx": i, "source": "CNN", "passage": {
                "text": PASSAGE, "entities": [_place(one) for one in entities]},
             "qas": [{"idx": j, "query": query, "answers": [
                 {**_place(one), "text": one} for one in answers
             ]} for j, (query, answers) in enumerate(queries)]}
            for i, (entities, queries) in enumerate(RECORD[split])
        ]  # fmt: skip
    if task == "squad":
        return {"version": "1.1", "data": [
            {"title": title, "paragraphs": [{"context": context, "qas": [
                {"id": f"{context}{i}", "question": asked, "answers": [
                    {"text": one, "answer_start": 0} for one in answers
                ]} for i, (asked, answers) in enumerate(questions)
            ]}]}
            for title, context, questions in SQUAD[split]
        ]}  # fmt: skip
    if task == "drop":
        return {
            f"nfl_{i}": {"passage": passage, "wiki_url": "", "qa_pairs": [
                {"query_id": f"{i}-{j}", "question": asked, "answer": answer}
                | ({"validated_answers": more} if split != "train" else {})
                for j, (asked, answer, more, _) in enumerate(questions)
            ]}
            for i, (passage, questions) in enumerate(DROP[split])
        }  # fmt: skip
    return [local for local, _ in PAIRS[task][split]]


def hub_rows(task: str, split: str) -> Records:
    """The rows of the hub's data set."""
    if task == "multirc":
        return [
            {"paragraph": text, "question": asked, "answer": one, "label": label,
             "idx": {"paragraph": i, "question": j, "answer": k}}
            for i, (text, questions) in enumerate(MULTIRC[split])
            for j, (asked, answers) in enumerate(questions)
            for k, (one, label) in enumerate(answers)
        ]  # fmt: skip
    if task == "record":
        return [
            {"passage": PASSAGE, "query": query, "answers": answers,
             "entities": [*dict.fromkeys(entities)], "idx": {"passage": i, "query": j}}
            for i, (entities, queries) in enumerate(RECORD[split])
            for j, (query, answers) in enumerate(queries)
        ]  # fmt: skip
    if task == "squad":
        return [
            {"id": f"{context}{i}", "title": title, "context": context, "question": asked,
             "answers": {"text": answers, "answer_start": [0] * len(answers)}}
            for title, context, questions in SQUAD[split]
            for i, (asked, answers) in enumerate(questions)
        ]  # fmt: skip
    if task == "drop":
        return [
            {"section_id": f"nfl_{i}", "query_id": f"{i}-{j}", "passage": passage,
             "question": asked, "answer": answer, "validated_answers": {
                 name: [one[name] for one in more] for name in ("number", "date", "spans")}}
            for i, (passage, questions) in enumerate(DROP[split])
            for j, (asked, answer, more, _) in enumerate(questions)
        ]  # fmt: skip
    return [row for _, row in PAIRS[task][split]]


def write_local(root: Path, task: str) -> Path:
    """Write a task below ``root`` as it is distributed; returns its folder."""
    place = root / FOLDERS[task]
    place.mkdir(parents=True)
    files = FILES.get(task, ("train.jsonl", "val.jsonl"))
    for split, file in zip(("train", "validation"), files, strict=True):
        write_records(place / file, local_records(task, split))
    return place


def refused(message: str, task: str, folder: Path | None = None) -> str:
    """Loading the task fails with one line that holds the message."""
    with pytest.raises(BeftError) as caught:
        tasks.load_task(task, data_dir=folder)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert len(text.replace(str(folder), "")) < 300
    return text


def write_records(path: Path, records: Any) -> None:
    """One document, or one record a line."""
    lines = [records] if isinstance(records, dict) else records
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")


def write_hub(
    root: Path, config: str, rows: Mapping[str, Records], labels: tuple[str, ...] = ()
) -> Path:
    """Write a data set's splits below a repository, and add them to its card."""
    datasets = pytest.importorskip("datasets")
    card = root / "README.md"
    lines = [] if card.exists() else ["---", "configs:"]
    lines += [f"- config_name: {config}", "  data_files:"]
    shared = datasets.Dataset.from_list([row for examples in rows.values() for row in examples])
    for split, examples in rows.items():
        path = root / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = datasets.Dataset.from_list(examples, features=shared.features)
        if labels:
            made = made.cast_column("label", datasets.ClassLabel(names=list(labels)))
        made.to_parquet(path)
        lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    before = card.read_text().removesuffix("---\n") if card.exists() else ""
    card.write_text(before + "\n".join([*lines, "---", ""]))
    return root
