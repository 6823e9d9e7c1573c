"""What the examples themselves make doubtful is said, and labels with nothing in common refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from beftkit.errors import BeftError
from beftkit.runs.examples import check_labels, example_notes
from beftkit.tasks import Data, Split
from beftkit.tasks.conversations import Conversation
from beftkit.tasks.prompts import Prompted
from tests.command import Beftkit, refused

LABELS = ("bad", "good", "ugly")


def split(texts: Sequence[str], targets: Sequence[int]) -> Split:
    return Split(([*texts],), np.array(targets, np.int64))


def test_nothing_is_said_of_sound_examples() -> None:
    train, held = split("abcd", [0, 1, 2, 0]), split("efg", [2, 0, 1])
    assert example_notes(train, {"validation": held}, LABELS) == ()


def test_classes_that_no_example_teaches() -> None:
    train, held = split("ab", [0, 1]), split("cde", [0, 1, 2])
    [note] = example_notes(train, {"validation": held}, LABELS)
    assert note == "validation has ugly, and no training example is one of these"
    [note] = example_notes(split("ab", [1, 1]), {"validation": held}, LABELS)
    assert note == "all 2 training examples are 'good': no other is learnt"
    [note] = example_notes(split("a", [1]), {}, LABELS)
    assert note == "the only training example is 'good': no other is learnt"
    assert example_notes(split("ab", [1, 1]), {}, ()) == (), "values have no classes"


def test_what_is_trained_and_evaluated() -> None:
    """By what an example is read as: both texts, the prompt with its answers, the turns."""
    held = {"validation": split("bxx", [0, 1, 1])}
    [note] = example_notes(split("ab", [0, 1]), held, LABELS)
    assert (
        note
        == "validation: 1 of 3 examples are training examples as well, which flatters its metrics"
    )
    pairs = Split((["a", "b"], ["c", "d"]), np.array([0, 1]))
    crossed = Split((["a", "b"], ["d", "c"]), np.array([0, 1]))
    assert example_notes(pairs, {"validation": crossed}, LABELS) == ()
    asked = Split(
        (), np.array([0, 1]), (Prompted("p", (" x",), (0,)), Prompted("q", (" x",), (0,)))
    )
    [note] = example_notes(asked, {"validation": asked.take([1])}, ())
    assert note.startswith("validation: 1 of 1 examples")
    told = Split((), np.array([0]), conversations=(Conversation((("user", "a"),), "1"),))
    [note] = example_notes(told, {"validation": told}, ())
    assert note.startswith("validation: 1 of 1 examples")


def test_empty_texts_are_counted() -> None:
    train = Split((["a", " ", "c"], ["d", "e", ""]), np.array([0, 1, 2]))
    assert example_notes(train, {}, LABELS) == ("train: 2 of 3 examples have an empty text",)


def data(train: Sequence[int], held: Sequence[int], kind: str = "files") -> Data:
    parts = split("a" * len(train), train), {"validation": split("b" * len(held), held)}
    return Data("x", "classes", LABELS, ("accuracy",), *parts, {"kind": kind})


def test_labels_without_one_in_common_are_refused() -> None:
    with pytest.raises(BeftError, match="training has labels bad, good, validation ugly: none in"):
        check_labels(data([0, 1], [2]))
    check_labels(data([0, 1], [1, 2]))
    check_labels(data([0, 1], [2], "hub"))


def test_a_run_says_so_where_notes_are_quiet_too(workplace: Path, beftkit: Beftkit) -> None:
    """Two files of which one was labelled by words, the other by numbers; and one file twice."""
    rows = [json.loads(line) for line in Path("dev.jsonl").read_text().splitlines()]
    ids = {label: i for i, label in enumerate(sorted({row["label"] for row in rows}))}
    lines = [json.dumps({**row, "label": f"{ids[row['label']]}"}) for row in rows]
    Path("numbers.jsonl").write_text("\n".join(lines))
    command = ["train", "base", "--train-file", "train.jsonl", "--device", "cpu", "-q"]
    for more in ([], ["--dry-run"]):
        ran = beftkit(*command, "--validation-file", "numbers.jsonl", "-o", "out", *more)
        refused(ran, "train: training has labels", limit=400)
    same = "--validation-file", "train.jsonl"
    told = "60 of 60 examples are training examples as well"
    assert told in beftkit(*command, *same, "--dry-run").out
    ran = beftkit(*command, *same, "-o", "out", "--max-steps", "1")
    assert ran.code == 0 and told in ran.out, ran
    [run] = json.loads(Path("out/all_results.json").read_text())["runs"]
    assert any(told in note for note in run["notes"])
