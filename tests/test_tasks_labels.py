"""Labels: which are one class and which two, and how they meet the classes of a kept head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beftkit import tasks
from beftkit.errors import BeftError
from tests.task_files import write_folder


def loaded(path: Path, written: list[Any], **options: Any) -> tasks.Data:
    """Data of a csv or jsonl file with these labels as they are."""
    if path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f"t,{label}\n" for label in written))
    else:
        path.write_text(
            "".join(json.dumps({"text": "t", "label": label}) + "\n" for label in written)
        )
    return tasks.load_files(path, **options)


#: name -> (labels as the csv file writes them, classes, ids)
SPELLINGS: dict[str, tuple[list[str], tuple[str, ...], list[int]]] = {
    "leading zeros": (["01", "1", "010", "10"], ("01", "010", "1", "10"), [0, 2, 1, 3]),
    "all with zeros": (["01", "00"], ("00", "01"), [1, 0]),
    "one with a zero": (["1", "01", "2"], ("01", "1", "2"), [1, 0, 2]),
    "plain and n.0": (["1", "1.0", "0.0"], ("0", "1"), [1, 1, 0]),
    "n.00": (["1.00", "1.0", "2"], ("1.0", "1.00", "2"), [1, 0, 2]),
    "signs": (["+1", "-1", "1"], ("+1", "-1", "1"), [0, 1, 2]),
    "exponents": (["1e1", "10"], ("10", "1e1"), [1, 0]),
    "minus zero": (["-0", "0"], ("-0", "0"), [0, 1]),
    "17 digits": (["12345678901234567", "12345678901234568"],
                  ("12345678901234567", "12345678901234568"), [0, 1]),
    "17 digits .0": (["12345678901234567.0", "12345678901234568"],
                     ("12345678901234567", "12345678901234568"), [0, 1]),
    "other digits": (["\u0661", "1"], ("1", "\u0661"), [1, 0]),
    "truth": (["True", "False"], ("False", "True"), [1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("case", SPELLINGS)
def test_texts_that_differ_stay_different(case: str, tmp_path: Path) -> None:
    labels, names, ids = SPELLINGS[case]
    data = loaded(tmp_path / "a.csv", labels)
    assert data.train is not None
    assert (data.labels, data.train.targets.tolist()) == (names, ids)


@pytest.mark.parametrize("text", ["True", "TRUE", "true", " true "])
def test_truth_values_and_their_texts_are_one_kind(text: str, tmp_path: Path) -> None:
    loaded(tmp_path / "a.jsonl", [True, False])
    loaded(tmp_path / "b.csv", [text, "False"])
    data = tasks.load_files(tmp_path / "a.jsonl", tmp_path / "b.csv")
    assert data.labels == ("False", "True")
    assert data.validation["validation"].targets.tolist() == [1, 0]
    with pytest.raises(
        BeftError, match=r"jsonl:2: 'no' in column 'label', where other rows hold t"
    ):
        loaded(tmp_path / "c.jsonl", [True, "no"])


@pytest.mark.parametrize(("first", "other"), [(1, True), (True, 1), (0, False), (0.0, False)])
def test_truth_values_are_no_numbers(first: Any, other: Any, tmp_path: Path) -> None:
    """In Python True == 1; here they are not."""
    with pytest.raises(BeftError, match=r"a\.jsonl:.: (True|False) in column 'label', where other"):
        loaded(tmp_path / "a.jsonl", [3, first, other])


def test_numbers_with_a_point_that_are_not_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(BeftError, match=r"a\.jsonl:2: .* is not exact .* texts or whole numbers"):
        loaded(path, [3, 12345678901234568.0])
    assert loaded(path, [12345678901234567, 12345678901234568]).labels == (
        "12345678901234567", "12345678901234568",
    )  # fmt: skip
    assert loaded(path, [0.5, 12345678901234568.0]).labels == ()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["positive", "Positive ", "negative"], "'Positive ' and 'positive'"),
        (["01", "1", "2"], "'01' and '1'"),
        (["a b", "a  b"], "'a b' and 'a b'"),  # a message is on one line, blanks drawn together
        (["nan", "NaN", "pos"], "'NaN' and 'nan'"),
        (["positive", "negative"], ""),
        (["12345678901234567", "12345678901234568"], ""),
    ],
)
def test_labels_that_are_nearly_the_same_are_noted(
    labels: list[str], said: str, tmp_path: Path
) -> None:
    data = loaded(tmp_path / "a.csv", labels)
    assert len(data.labels) == len(labels)
    assert data.notes == (
        (f"column 'label': different classes, though alike: {said}",) if said else ()
    )


def test_counts(tmp_path: Path) -> None:
    loaded(tmp_path / "a.csv", ["x", "y", "y", "z"])
    loaded(tmp_path / "b.csv", ["x", "w"])
    data = tasks.load_files(tmp_path / "a.csv", tmp_path / "b.csv")
    assert data.counts == {
        "train": {"w": 0, "x": 1, "y": 2, "z": 1},
        "validation": {"w": 1, "x": 1, "y": 0, "z": 0},
    }
    assert loaded(tmp_path / "c.csv", ["0.5", "1"]).counts == {}


NLI = ("entailment", "neutral", "contradiction")
#: name -> (labels of the data, names of the head, label map, ids, what the note says)
MATCHES: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, str], list[int], str]] = {
    "the same": (("a", "b"), ("a", "b"), {}, [0, 1], ""),
    "fewer": (("a", "c"), ("a", "b", "c"), {}, [0, 2], ""),
    "the other order": (("a", "b"), ("b", "a"), {}, [1, 0], "a = 1 (a), b = 0 (b)"),
    "case and blanks": (("Pos ", "NEG"), ("pos", "neg"), {}, [0, 1], "Pos = 0 (pos), NEG = 1"),
    "exact before case": (("a", "A"), ("A", "a"), {}, [1, 0], "a = 1 (a), A = 0 (A)"),
    "synonyms": (("contradict", "entail", "neu"), NLI, {}, [2, 0, 1], "contradict = 2 (contr"),
    "no": (("yes", "no"), ("entailment", "not_entailment"), {}, [0, 1], "no = 1 (not_entailment)"),
    "no is false": (("no", "yes"), ("True", "False"), {}, [1, 0], "no = 1 (False), yes = 0"),
    "sentiment": (("NEG", "NEU", "POS"), ("positive", "neutral", "negative"), {}, [2, 1, 0], "POS"),
    "given": (("0", "1"), ("pos", "neg"), {"0": "neg", "1": "pos"}, [1, 0], "0 = 1 (neg), 1 = 0"),
    "given against names": (("a", "b"), ("a", "b"), {"a": "b", "b": "a"}, [1, 0], "a = 1 (b)"),
    "several as one": (NLI, ("not_entailment", "entailment"),
                       {"neutral": "not_entailment", "contradiction": "not_entailment"},
                       [1, 0, 0], "entailment = 1 (entailment), neutral = 0"),
    "given for one not there": (("a",), ("a", "b"), {"c": "b"}, [0], "no label c in the"),
    "unnamed": (("neg", "pos"), ("LABEL_0", "LABEL_1"), {}, [0, 1], "by order: neg = 0 (LABEL_0)"),
    "unnamed, numbers": (("1", "2"), ("LABEL_0", "LABEL_1", "LABEL_2"), {}, [1, 2], "by number"),
    "unnamed, from 1": (("1", "2"), ("LABEL_0", "LABEL_1"), {}, [0, 1], "by order"),
    "unnamed as such": (("LABEL_1",), ("LABEL_0", "LABEL_1"), {}, [1], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", MATCHES)
def test_labels_meet_a_kept_heads_names(case: str) -> None:
    found, names, label_map, ids, said = MATCHES[case]
    matched, notes = tasks.match_labels(found, names, label_map)
    assert matched == dict(zip(found, ids, strict=True))
    assert len(notes) == bool(said)
    assert said in "".join(notes)


MISFITS: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, str], str]] = {
    "numbers": (("0", "1"), ("no", "yes"), {},
                "labels 0, 1, the head's no, yes: none fits; say which, as"
                " label_map='0=no,1=yes'"),
    "one": (("pos", "mixed"), ("positive", "negative"), {}, "no class for mixed; say which, as"
            " label_map='mixed=negative'"),
    "two as one": (("positive", "Positive "), ("positive", "negative"), {},
                   "'positive' and 'Positive ' would both be the head's 'positive'"),
    "synonyms as one": (("pos", "positive"), ("positive", "negative"), {}, "would both be the"),
    "more than the head": (("a", "b", "c"), ("a", "b"), {}, "no class for c"),
    "fewer than unnamed": (("a", "b"), ("LABEL_0", "LABEL_1", "LABEL_2"), {}, "none fits"),
    "unnamed, half given": (("a", "b"), ("LABEL_0", "LABEL_1"), {"a": "LABEL_1"}, "no class for b"),
    "no such name": (("a", "b"), ("a", "b"), {"a": "c"}, "label_map='a=c': the head's classes are"),
    "no is unclear": (("no",), ("false", "not_entailment"), {}, "none fits"),
    "test set": (("-1",), ("a", "b"), {}, "none fits; -1 marks test sets"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_labels_that_do_not_fit_are_named_with_both_sides(case: str) -> None:
    found, names, label_map, message = MISFITS[case]
    with pytest.raises(BeftError) as caught:
        tasks.match_labels(found, names, label_map, where="d.csv")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_take_a_kept_heads_order(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    data = loaded(path, ["negative", "positive", "negative"], labels=("positive", "negative"))
    assert data.train is not None
    assert (data.labels, data.train.targets.tolist()) == (("positive", "negative"), [1, 0, 1])
    assert "negative = 1 (negative), positive = 0 (positive)" in data.notes[0]
    one = loaded(path, ["Contradict"] * 2, labels=NLI)
    assert one.train is not None
    assert one.train.targets.tolist() == [2, 2]
    assert one.counts == {"train": {"entailment": 0, "neutral": 0, "contradiction": 2}}
    mapped = loaded(path, ["0", "1"], labels=("pos", "neg"), label_map={"0": "neg", "1": "pos"})
    assert mapped.train is not None
    assert mapped.train.targets.tolist() == [1, 0]
    zeros = loaded(path, ["01", "1"], labels=("1", "01"))
    assert zeros.train is not None
    assert zeros.train.targets.tolist() == [1, 0]
    with pytest.raises(BeftError, match="only onto the classes of a head that is kept"):
        tasks.load_files(path, label_map={"a": "b"})


def test_a_tasks_numbers_take_a_kept_heads_order(tmp_path: Path) -> None:
    write_folder(tmp_path, "sst2")
    own = tasks.load_task("sst2", data_dir=tmp_path)
    kept = tasks.load_task("sst2", data_dir=tmp_path, labels=("POSITIVE", "NEGATIVE"))
    assert own.train is not None
    assert kept.train is not None
    assert kept.labels == ("POSITIVE", "NEGATIVE")
    np.testing.assert_array_equal(kept.train.targets, 1 - own.train.targets)
    np.testing.assert_array_equal(np.array(kept.own_ids)[kept.train.targets], own.train.targets)
    for name, split in own.validation.items():
        np.testing.assert_array_equal(kept.validation[name].targets, 1 - split.targets)
    assert "negative = 1 (NEGATIVE)" in kept.notes[0]


@pytest.mark.parametrize(
    ("names", "own_ids", "noted"),
    [
        (("unacceptable", "acceptable"), (), False),
        (("0", "1"), (), True),
        (("1", "0"), (1, 0), True),
        (("LABEL_0", "LABEL_1"), (), True),
        (("other", "acceptable", "unacceptable"), (2, 1, 0), True),
    ],
)
def test_metrics_know_a_tasks_own_numbers(
    names: tuple[str, ...], own_ids: tuple[int, ...], noted: bool, tmp_path: Path
) -> None:
    write_folder(tmp_path, "cola")
    own = tasks.load_task("cola", data_dir=tmp_path, train=False)
    kept = tasks.relabel(own, names)
    unnamed = names[0] == "LABEL_0"  # such a head gets the task's names
    called = own.labels if unnamed else names
    assert (kept.own_ids, bool(kept.notes), kept.labels) == (own_ids, noted, called)
    targets = kept.validation["validation"].targets
    numbers = np.array(own_ids)[targets] if own_ids else targets
    np.testing.assert_array_equal(numbers, own.validation["validation"].targets)


def test_a_regression_has_no_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, "stsb")
    with pytest.raises(BeftError, match="stsb: values to predict; the head has classes a, b"):
        tasks.load_task("stsb", data_dir=tmp_path, labels=("a", "b"))
    with pytest.raises(BeftError, match="only onto the classes of a head that is kept"):
        tasks.load_task("stsb", data_dir=tmp_path, label_map={"a": "b"})


def test_a_label_map_as_text() -> None:
    assert tasks.read_label_map("a=b, c d = e f,x=y=z") == {"a": "b", "c d": "e f", "x": "y=z"}
    for text in ("", "a", "a=", "=b", "a=b,", "a=b,a=c"):
        with pytest.raises(BeftError, match="label_map"):
            tasks.read_label_map(text)
