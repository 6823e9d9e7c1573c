"""Tiny copies of GLUE and SuperGLUE, written from the official schemas and not from our table.

``HUB`` says what the hub's Parquet files hold, with labels as numbers; ``write_folder`` writes the
same examples as the original distribution does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Rows = list[dict[str, Any]]

#: Quotes that never close, blanks at the end, other languages, separators that are no line ends.
SENTENCES = (
    "hide new secretions from the parental units ",
    '" The foodservice pie business does not fit .',
    'it \'s a "charming" and often affecting journey . ',
    "naïve café 日本語",
    "one\u2028line, two\x0blines",
    "",
    "she said: 'no\\n'",
    "the last",
)
LABELS = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "stsb": (),
    "qqp": ("not_duplicate", "duplicate"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
    "wnli": ("not_entailment", "entailment"),
    "cb": ("entailment", "contradiction", "neutral"),
    "wic": ("False", "True"),
    "boolq": ("False", "True"),
}  # fmt: skip
FIELDS = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
    "cb": ("premise", "hypothesis"),
    "wic": ("word", "sentence1", "sentence2"),
    "boolq": ("question", "passage"),
}
SUPER_GLUE = ("cb", "wic", "boolq")
#: (columns of the TSV's header, column of each field, of the label); CoLA has no header.
TSV = {
    "sst2": ("sentence label", ("sentence",), "label"),
    "mrpc": ("Quality|#1 ID|#2 ID|#1 String|#2 String", ("#1 String", "#2 String"), "Quality"),
    "stsb": (
        "index genre filename year old_index source1 source2 sentence1 sentence2 score",
        ("sentence1", "sentence2"), "score",
    ),
    "qqp": ("id qid1 qid2 question1 question2 is_duplicate", ("question1", "question2"),
            "is_duplicate"),
    "mnli": (
        "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse"
        " sentence1_parse sentence2_parse sentence1 sentence2 label1 gold_label",
        ("sentence1", "sentence2"), "gold_label",
    ),
    "qnli": ("index question sentence label", ("question", "sentence"), "label"),
    "rte": ("index sentence1 sentence2 label", ("sentence1", "sentence2"), "label"),
    "wnli": ("index sentence1 sentence2 label", ("sentence1", "sentence2"), "label"),
}  # fmt: skip
FOLDERS = {
    "cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP",
    "mnli": "MNLI", "qnli": "QNLI", "rte": "RTE", "wnli": "WNLI", "cb": "CB", "wic": "WiC",
    "boolq": "BoolQ",
}  # fmt: skip
#: Labels that GLUE writes as names; the other TSV files write numbers.
NAMED = ("mnli", "qnli", "rte")


def splits(task: str) -> dict[str, Rows]:
    """The examples of a task by split, as the hub has them; the test split's labels are -1."""
    validation = ("validation_matched", "validation_mismatched") if task == "mnli" else (
        "validation",
    )  # fmt: skip
    sizes = {"train": len(SENTENCES), "test": 2}
    sizes |= {name: 4 + i for i, name in enumerate(validation)}
    return {name: _rows(task, name, count) for name, count in sizes.items()}


def _rows(task: str, split: str, count: int) -> Rows:
    shift = len(split) % len(SENTENCES)
    rows: Rows = []
    for i in range(count):
        row: dict[str, Any] = {
            name: SENTENCES[(shift + i + 3 * j) % len(SENTENCES)]
            for j, name in enumerate(FIELDS[task])
        }
        if task == "wic":
            row["word"] = "place"
            row |= {"start1": 3, "start2": 4, "end1": 8, "end2": 9}
        classes = len(LABELS[task])
        row["label"] = -1 if split == "test" else (i + shift) % classes if classes else i * 0.625
        row["idx"] = i
        rows.append(row)
    return rows


def write_folder(root: Path, task: str, folder: str | None = None) -> Path:
    """Write a task below ``root`` in its original layout; returns its folder."""
    place = root / (folder or FOLDERS[task])
    place.mkdir(parents=True)
    for split, rows in splits(task).items():
        if split == "test":
            continue
        if task in SUPER_GLUE:
            write_jsonl(place / ("train.jsonl" if split == "train" else "val.jsonl"), task, rows)
        else:
            name = split.replace("validation", "dev")
            write_tsv(place / f"{name}.tsv", task, rows)
    return place


def write_tsv(path: Path, task: str, rows: Rows) -> None:
    """Write rows as GLUE does."""
    if task == "cola":
        lines = [f"gj04\t{row['label']}\t*\t{row['sentence']}" for row in rows]
        path.write_bytes("".join(line + "\n" for line in lines).encode())
        return
    header, fields, label = TSV[task]
    columns = header.split("|" if "|" in header else " ")
    lines = ["\t".join(columns)]
    for i, row in enumerate(rows):
        cells = {column: f"{column}-{i}" for column in columns}
        cells |= {at: row[name] for at, name in zip(fields, FIELDS[task], strict=True)}
        raw = row["label"]
        cells[label] = LABELS[task][raw] if task in NAMED else f"{raw:.3f}" if task == "stsb" else (
            str(raw)
        )  # fmt: skip
        lines.append("\t".join(cells.values()))
    mark = "\ufeff" if task == "mrpc" and path.name == "dev.tsv" else ""  # as the real file has it
    ends = "\r\n" if task == "mrpc" else "\n"
    path.write_bytes((mark + "".join(line + ends for line in lines)).encode())


def write_jsonl(path: Path, task: str, rows: Rows, renamed: Mapping[str, str] = {}) -> None:
    """Write rows as SuperGLUE does."""
    lines = []
    for row in rows:
        name = LABELS[task][row["label"]]
        label = name == "True" if task in ("wic", "boolq") else name
        record = {renamed.get(key, key): value for key, value in row.items()} | {"label": label}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_dataset(root: Path, tasks: Sequence[str], *, described: bool = True) -> Path:
    """Write tasks as one repository of the hub: Parquet files and a card that lists the configs."""
    datasets = pytest.importorskip("datasets")
    lines = ["---", "configs:"]
    for task in tasks:
        labels = LABELS[task]
        target = datasets.ClassLabel(names=list(labels)) if labels else datasets.Value("float32")
        lines += [f"- config_name: {task}", "  data_files:"]
        for split, rows in splits(task).items():
            path = root / task / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            made = datasets.Dataset.from_list(rows)
            if described:  # else plain integers, as after a round through pandas
                made = made.cast_column("label", target)
            made.to_parquet(path)
            lines += [f"  - split: {split}", f"    path: {task}/{split}-*"]
    (root / "README.md").write_text("\n".join([*lines, "---", "# data", ""]))
    return root


def wanted_texts(task: str, rows: Rows) -> list[list[str]]:
    """The texts an encoder should read, by field."""
    if task == "wic":
        first = [row["word"] + ": " + row["sentence1"] for row in rows]
        return [first, [row["sentence2"] for row in rows]]
    return [[row[name] for row in rows] for name in FIELDS[task]]
