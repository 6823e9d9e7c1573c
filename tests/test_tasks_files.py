"""The user's own files: formats, columns, kinds of labels, and what is wrong with them."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from beftkit import tasks
from beftkit.errors import BeftError
from beftkit.tasks.streams import stream_file
from tests.task_files import SENTENCES

Columns = dict[str, list[Any]]
FORMATS = ("csv", "tsv", "jsonl", "json", "ndjson", "parquet", "pq", "CSV")


def write(path: Path, columns: Columns) -> Path:
    """Write columns in the format of the file's suffix."""
    kind = path.suffix.lower()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if kind in (".parquet", ".pq"):
        parquet.write_table(pyarrow.table(columns), path)
    elif kind in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="," if kind == ".csv" else "\t")
            writer.writerow(columns)
            writer.writerows([row.values() for row in rows])
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind: str, tmp_path: Path) -> None:
    texts = [*SENTENCES, "a, b", 'quoted "twice"', "two\nlines"]
    labels = ["neg", "pos", "neg"] + ["mid"] * (len(texts) - 3)
    train = write(tmp_path / f"mine.{kind}", {"id": texts, "text": texts, "label": labels})
    data = tasks.load_files(train)
    assert (data.name, data.labels, data.validation) == ("mine", ("mid", "neg", "pos"), {})
    assert data.train is not None
    assert data.train.texts == (texts,)
    assert [data.labels[i] for i in data.train.targets] == labels
    assert data.train.targets.dtype == np.int64
    assert data.metrics == ("accuracy", "macro_f1")
    assert json.loads(json.dumps(data.source)) == {
        "kind": "files", "files": {"train": str(train)}, "text_columns": ["text"],
        "label_column": "label", "examples": {"train": len(texts)},
    }  # fmt: skip


def test_csv_is_read_as_pyarrow_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbftext,label\r\n"a ""b"" , c",1\r\n\r\n"d\r\ne",0\r\n,1\r\nna\xc3\xafve,0\r\n'
    )
    wanted = arrow_csv.read_csv(
        path, parse_options=arrow_csv.ParseOptions(newlines_in_values=True)
    ).to_pydict()
    data = tasks.load_files(path)
    assert data.train is not None
    assert data.train.texts == (wanted["text"],)
    assert data.train.targets.tolist() == wanted["label"]
    assert data.labels == ("0", "1")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("sentence",), ("sentence",)),
        (("text", "other"), ("text",)),
        (("sentence2", "sentence1"), ("sentence1", "sentence2")),
        (("hypothesis", "premise"), ("premise", "hypothesis")),
        (("question", "sentence"), ("question", "sentence")),
        (("question1", "question2", "id"), ("question1", "question2")),
    ],
)
def test_usual_columns(names: tuple[str, ...], found: tuple[str, ...], tmp_path: Path) -> None:
    columns: Columns = {name: [f"{name}-{i}" for i in range(3)] for name in names}
    data = tasks.load_files(write(tmp_path / "a.csv", {**columns, "target": [0, 1, 0]}))
    assert data.train is not None
    assert data.train.texts == tuple(columns[name] for name in found)


def test_named_columns(tmp_path: Path) -> None:
    columns: Columns = {"a.b {c}": ["1", "2"], "text": ["3", "4"], "y[0]": ["x", "y"]}
    path = write(tmp_path / "a.jsonl", columns)
    data = tasks.load_files(
        None, path, text_columns=["text", "a.b {c}"], label_column="y[0]", name="mine"
    )
    assert (data.train, data.name) == (None, "mine")
    assert data.validation["validation"].texts == (["3", "4"], ["1", "2"])
    assert data.labels == ("x", "y")


LABELS: dict[str, tuple[list[Any], tuple[str, ...], list[float]]] = {
    "numbers sorted as such": ([10, 9, 2], ("2", "9", "10"), [2, 1, 0]),
    "negative": ([1, -1, 0], ("-1", "0", "1"), [2, 0, 1]),
    "whole floats": ([2.0, 0.0, 2.0], ("0", "2"), [1, 0, 1]),
    "texts": (["b", "a", "B"], ("B", "a", "b"), [2, 1, 0]),
    "texts and numbers": (["1", "b", "10"], ("1", "10", "b"), [0, 2, 1]),
    "called nan": (["nan", "pos", "neg"], ("nan", "neg", "pos"), [0, 2, 1]),
    "values": ([0.5, 1.0, -3.0], (), [0.5, 1.0, -3.0]),
    "values with exponents": (["1e-3", "2", "3"], (), [1e-3, 2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("case", LABELS)
def test_kinds_of_labels(case: str, kind: str, tmp_path: Path) -> None:
    values, names, targets = LABELS[case]
    columns = {"text": ["a", "b", "c"], "label": values}
    data = tasks.load_files(write(tmp_path / f"a.{kind}", columns))
    assert data.train is not None
    assert data.labels == names
    np.testing.assert_array_equal(data.train.targets, np.array(targets, data.train.targets.dtype))
    assert data.train.targets.dtype == (np.int64 if names else np.float32)
    assert data.metrics[0] == ("accuracy" if names else "spearman")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_truth_values(kind: str, tmp_path: Path) -> None:
    columns = {"text": ["a", "b"], "label": [True, False]}
    data = tasks.load_files(write(tmp_path / f"a.{kind}", columns))
    assert data.train is not None
    assert (data.labels, data.train.targets.tolist()) == (("False", "True"), [1, 0])


def test_labels_over_both_files(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", {"text": ["a", "b"], "label": [3, 1]})
    other = write(tmp_path / "b.jsonl", {"id": [0, 0], "label": [2, 1], "text": ["c", "d"]})
    data = tasks.load_files(train, other)
    assert data.labels == ("1", "2", "3")
    assert data.validation["validation"].targets.tolist() == [1, 0]
    fractions = write(tmp_path / "c.csv", {"text": ["a"], "label": [0.5]})
    data = tasks.load_files(train, fractions)
    assert data.train is not None
    assert (data.labels, data.train.targets.tolist()) == ((), [3.0, 1.0])


def test_labels_that_are_known(tmp_path: Path) -> None:
    """A saved model's labels stand, in its order, whichever occur."""
    path = write(tmp_path / "a.csv", {"text": ["a", "b"], "label": [1, 1]})
    known = tasks.load_files(None, path, labels=("2", "1", "0"))
    assert known.labels == ("2", "1", "0")
    assert known.validation["validation"].targets.tolist() == [1, 1]
    valued = tasks.load_files(None, path, labels=())
    assert valued.validation["validation"].targets.dtype == np.float32
    truths = write(tmp_path / "b.jsonl", {"text": ["a"], "label": [True]})
    found = tasks.load_files(None, truths, labels=("False", "True"))
    assert found.validation["validation"].targets.tolist() == [1]
    with pytest.raises(
        BeftError, match=r"a\.csv, column 'label': labels 1, the head's no, yes: no"
    ):
        tasks.load_files(None, path, labels=("no", "yes"))
    with pytest.raises(BeftError, match=r"b\.jsonl, column 'label': labels True, the head's 0, 1:"):
        tasks.load_files(None, truths, labels=("0", "1"))


def test_many_whole_numbers_are_remarked_on(tmp_path: Path) -> None:
    columns = {"text": ["a"] * 11, "label": list(range(11))}
    data = tasks.load_files(write(tmp_path / "a.csv", columns))
    assert data.notes == (
        "column 'label' holds whole numbers: taken for 11 classes, not for values",
    )


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "no such column": ("a.csv", "text,label\na,1\n", "no column 'absent'; it has text, label"),
    "empty": ("a.csv", "", "a.csv: empty"),
    "header only": ("a.csv", "text,label\n", "a.csv: no examples"),
    "short row": ("a.csv", 'text,label\n"a\nb",1\nc\n', "a.csv:4: 1 columns, expected 2 as in the"),
    "long row": ("a.csv", "text,label\na,b,1\n", "a.csv:2: 3 columns, expected 2"),
    "quotes": ("a.csv", 'text,label\na,1\n" a "b,1\n', "a.csv:3: not as quoted as it should"),
    "no end of quotes": ("a.csv", 'text,label\n"a,1\n', "a.csv:2: not as quoted"),
    "latin-1": ("a.csv", b"text,label\na,0\n\xe9,1\n", "a.csv:3: not UTF-8"),
    "no label": ("a.csv", "text,label\na,0\nb,\n", "a.csv:3: nothing in column 'label'"),
    "null": ("a.jsonl", '{"text": "a", "label": null}\n', "a.jsonl:1: nothing in column 'label'"),
    "null text": ("a.jsonl", '{"text": null, "label": 0}\n{"text": "", "label": 1}',
                  "a.jsonl:1: nothing in column 'text'"),
    "number for text": ("a.jsonl", '{"text": "a", "label": 0}\n{"text": 1, "label": 1}',
                        "a.jsonl:2: 1, not a text, in column 'text'"),
    "list for label": ("a.jsonl", '{"text": "a", "label": [0]}', "a.jsonl:1: [0] in column"),
    "mixed": ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": "x"}',
              "a.jsonl:2: 'x' in column 'label', where other rows hold numbers"),
    "truth among numbers": ("a.jsonl", '{"text": "a", "label": 3}\n{"text": "b", "label": true}',
                            "a.jsonl:2: True in column 'label', where other rows hold numbers"),
    "a word among values": ("a.csv", "text,label\na,0.5\nb,x\n", "a.csv:3: 'x' in column 'label'"),
    "nan": ("a.csv", "text,label\na,0.5\nb,nan\n", "a.csv:3: 'nan', not a finite number,"),
    "infinite": ("a.jsonl", '{"text": "a", "label": Infinity}', "jsonl:1: inf, not a finite"),
    "huge": ("a.jsonl", '{"text": "a", "label": 1%s}' % ("0" * 400), "a finite number"),
    "test set": ("a.csv", "text,label\na,-1\nb,-1\n", "all labels are -1"),
    "one class": ("a.csv", "text,label\na,x\nb,x\n", "all labels in column 'label' are 'x'"),
    "ids for labels": ("a.csv", "text,label\n" + "".join(f"a,i{i}\n" for i in range(1001)),
                       "1001 different labels in column 'label'; expected at most 1000"),
    "an array": ("a.json", '{"text": "a", "label": 1}\n[1]', "a.json:2: a JSON list; expected one"),
    "not parquet": ("a.parquet", "text,label\n", "a.parquet: not a readable Parquet file"),
    "another format": ("a.xlsx", "text", "a.xlsx: expected a .csv, .tsv, .jsonl or .parquet"),
    "two texts": ("a.csv", "text,sentence,label\na,b,1\n", "there are text, sentence, label"),
    "no text": ("a.csv", "review,label\na,1\n", "name one or two with text_columns; there are"),
    "two labels": ("a.csv", "text,label,score\na,1,2\n", "name it with label_column; there are"),
    "no label column": ("a.csv", "text,class\na,1\n", "there are text, class"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case: str, tmp_path: Path) -> None:
    name, content, message = BAD[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    given = {"text_columns": ["absent"]} if case == "no such column" else {}
    with pytest.raises(BeftError) as caught:
        tasks.load_files(path, **given)
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(path))
    assert "\n" not in text
    assert len(text) < len(str(path)) + 200


def test_null_and_nan_in_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", "b"], "label": [0.5, float("nan")]})
    with pytest.raises(BeftError, match=r"a\.parquet, row 2: nan, not a finite number"):
        tasks.load_files(path)
    path = write(tmp_path / "b.parquet", {"text": ["a", None], "label": [0, 1]})
    with pytest.raises(BeftError, match=r"b\.parquet, row 2: nothing in column 'text'"):
        tasks.load_files(path)


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", {"text": ["a", "b"], "label": [0, 1]})
    other = write(tmp_path / "b.csv", {"sentence": ["a"], "label": [0]})
    with pytest.raises(BeftError, match=r"b\.csv: no column 'text'; it has sentence, label"):
        tasks.load_files(train, other)
    with pytest.raises(BeftError, match=r"c\.csv: no such file"):
        tasks.load_files(train, tmp_path / "c.csv")
    with pytest.raises(BeftError, match="give a training or a validation file"):
        tasks.load_files()
    for given in ([], ["text", "text"], ["text", "label"], ["a", "b", "c"]):
        with pytest.raises(BeftError, match="expected one or two"):
            tasks.load_files(train, text_columns=given)


def test_a_long_document(tmp_path: Path) -> None:
    """Longer than the csv module allows by default; its limit is left as it was."""
    limit = 1000
    before = csv.field_size_limit(limit)
    columns = {"text": ["a" * 200_000, "b"], "label": [0, 1]}
    data = tasks.load_files(write(tmp_path / "a.csv", columns))
    assert data.train is not None
    assert len(data.train.texts[0][0]) == 200_000
    assert csv.field_size_limit(before) == limit


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_gzip_that_is_damaged_far_behind_its_beginning(name: str, tmp_path: Path) -> None:
    """Of a file that is read row by row the line feeds are counted before its rows are read."""
    draw = random.Random(0)
    words = [f"{draw.random()} {draw.random()}" for _ in range(9000)]
    lines = [f'{{"text": "{one}"}}' for one in words] if "json" in name else ["text", *words]
    packed = gzip.compress("\n".join(lines).encode())
    for damaged, message in ((packed[:-20], "cut off"), (packed[:-8] + bytes(8), "damaged gzip")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(BeftError, match=message):
            stream_file(tmp_path / name, lambda present: ["text"])
