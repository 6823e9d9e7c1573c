"""Beside every metric what a constant prediction gets, and one standard error; who stayed there."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beftkit.accelerator import make_accelerator
from beftkit.objectives import make_objective
from beftkit.present.selection import reached_words
from beftkit.runs.results import TrainResult
from beftkit.training import evaluation
from beftkit.training.evaluation import Evaluation, evaluate_model, stayed_note
from beftkit.training.journal import Progress
from beftkit.training.state import load_state, save_state
from tests.command import Beftkit, Ran
from tests.selections import selection

DATA = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu")
STAYED = "never left its baseline: at the last evaluation every example got the same answer"
#: 31 examples, of the commoner class 16
SAME, ERROR = 16 / 31, (16 / 31 * 15 / 31 / 31) ** 0.5


@pytest.fixture
def train(workplace: Path, beftkit: Beftkit) -> Any:
    def run(*arguments: str) -> Ran:
        given = ("base", *DATA, "--epochs", "2", "--bias", "v", "--lr", "1e-6")
        return beftkit("train", *given, *arguments)

    return run


def test_a_run_that_never_left_its_baseline_says_so(train: Any, beftkit: Beftkit) -> None:
    ran = train("-o", "out")
    assert ran.code == 0, ran
    assert STAYED in ran.out and STAYED in ran.err
    assert f"0.5161 ± {ERROR:#.2g}" in ran.out and "±: one standard error" in ran.out
    [line] = [one for one in ran.out.splitlines() if one.startswith("majority class")]
    assert line.split()[2] == f"{SAME:.4f}"
    result = TrainResult.from_dict(json.loads(Path("out/all_results.json").read_text()))
    [run] = result.runs
    assert run.stayed and run.last is not None and run.last.constant
    assert run.last.baselines["accuracy"] == run.last.metrics["accuracy"] == SAME
    assert run.last.standard_errors["accuracy"] == pytest.approx(ERROR)
    assert 0 < (run.last.standard_errors["macro_f1"] or 0) < 0.1
    card = Path("out/adapter/README.md").read_text()
    assert "| majority class |" in card and f"± {ERROR:#.2g} |" in card and STAYED in card
    log = [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()]
    assert [one["constant"] for one in log if "metrics" in one] == [True, True]

    found = beftkit("evaluate", "--adapter", "out/adapter", "--validation-file", "dev.jsonl")
    assert "standard error" in found.out and "majority class" in found.out
    row = next(one.split() for one in found.out.splitlines() if one.startswith("accuracy"))
    assert row == ["accuracy", f"{SAME:.4f}", f"{ERROR:.4f}", f"{SAME:.4f}"]
    assert "every example got the same answer (accuracy 0.5161, majority class" in found.out
    given = ("evaluate", "--adapter", "out/adapter", "--validation-file", "dev.jsonl", "--format")
    document = json.loads(beftkit(*given, "json").out)
    assert document["baselines"]["accuracy"] == SAME and document["constant"] is True
    [row] = csv.DictReader(io.StringIO(beftkit(*given, "csv").out))
    assert float(row["accuracy_standard_error"]) == pytest.approx(ERROR)
    assert float(row["accuracy_baseline"]) == SAME


def test_one_that_left_it_does_not(train: Any) -> None:
    more = "--lr", "3e-3", "--bias", "full", "--epochs", "6", "--batch-size", "8"
    ran = train("-o", "out", *more, "--format", "json")
    [run] = json.loads(ran.out)["runs"]
    assert run["best"]["metrics"]["accuracy"] > SAME and run["stayed"] is False
    assert not any("baseline" in note for note in run["notes"])


def test_of_several_seeds_it_is_named_which(train: Any) -> None:
    ran = train("-o", "out", "--seeds", "3,4", "--epochs", "1")
    assert f"seed 3: this run {STAYED}" in ran.out and f"seed 4: this run {STAYED}" in ran.out


def test_a_state_of_before_is_taken_up_and_nothing_is_claimed_of_it(train: Any) -> None:
    """What the evaluations before it were like is not known."""
    done = train("-o", "out")
    assert done.code == 0 and STAYED in done.err
    states = sorted(Path("out/state").iterdir())
    shutil.rmtree("out/adapter")
    Path("out/all_results.json").unlink()
    states[-1].unlink()
    loaded = load_state(Path("out"), lambda note: None)
    assert loaded is not None
    tensors, facts = loaded
    for name in ("best", "last"):
        facts["progress"][name] = {
            key: facts["progress"][name][key] for key in ("step", "epoch", "metrics")
        }
    del facts["progress"]["stayed"]
    save_state(Path("out"), facts["progress"]["step"], tensors, facts)
    again = train("-o", "out", "--resume")
    assert again.code == 0 and "taken up at update" in again.err, again
    assert STAYED not in again.err
    [run] = TrainResult.from_dict(json.loads(Path("out/all_results.json").read_text())).runs
    assert not run.stayed and run.last is not None and run.last.baselines["accuracy"] == SAME


class Answers:
    """An objective without a constant prediction, as a kind that writes text might be."""

    def __new__(cls) -> Any:
        class Words(type(make_objective("classes", ("a", "b")))):  # type: ignore[misc]
            constant = ""

            def baseline(self, *what: Any) -> dict[str, float]:
                return {}

            def standard_errors(self, *what: Any) -> dict[str, float]:
                return {}

        return Words(("a", "b"))


def test_a_kind_may_have_no_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Targets(list[str]):
        targets = torch.tensor([1, 0, 1])
        lengths, by_length, asked = torch.tensor([1, 1, 1]), False, ()

    predicted = [1, 1, 1]
    monkeypatch.setattr(evaluation, "_predict", lambda *what: (predicted, 1.5))
    what = torch.nn.Linear(1, 1), {"validation": Targets("abc")}, Answers(), ["accuracy"]
    found = evaluate_model(*what, make_accelerator("cpu"), 2)
    assert found.baselines == found.standard_errors == {} and found.baseline_is == ""
    assert found.constant and found.at_baseline
    assert stayed_note(found) == "every example got the same answer (accuracy 0.6667)"
    predicted[0] = 0
    assert not evaluate_model(*what, make_accelerator("cpu"), 2).at_baseline


def test_no_better_than_the_baseline_is_at_it_whatever_was_predicted() -> None:
    found = Evaluation({"mcc": 0.25}, 1.0, 4, 0.1, {"mcc": 0.25}, {}, False, "majority class")
    assert found.at_baseline
    assert stayed_note(found) == (
        "no better than one answer for all (mcc 0.2500, majority class 0.2500)"
    )
    undefined = Evaluation({"pearson": None}, 1.0, 4, 0.1, {"pearson": None}, {}, False, "mean")
    assert not undefined.at_baseline
    assert stayed_note(undefined) == "no better than one answer for all (pearson is not defined)"
    assert Progress().stayed is False


def test_a_standard_error_of_zero_is_explained(train: Any, beftkit: Beftkit) -> None:
    """All validation examples of one class, which is the answer to all of them or to none."""
    said = "tandard error of 0: all N examples are alike"
    rows = [one for one in Path("dev.jsonl").read_text().splitlines() if '"pos"' in one]
    Path("one.jsonl").write_text("\n".join(rows))
    ran = train("--validation-file", "one.jsonl", "-o", "out")
    assert ran.code == 0, ran
    assert " ± 0.0" in ran.out and ran.out.count(said) == 1
    assert Path("out/adapter/README.md").read_text().count(said) == 1
    given = ("evaluate", "--adapter", "out/adapter", "--validation-file")
    assert beftkit(*given, "one.jsonl").out.count(said) == 1
    assert said not in beftkit(*given, "dev.jsonl").out


def test_so_it_is_in_a_selection() -> None:
    found = selection()
    [group] = found.groups
    for error, times in ((0.0, 1), (0.1, 0), (None, 0)):
        proofs = {bias: replace(row, standard_error=error) for bias, row in group.verified.items()}
        words = reached_words(found, replace(group, verified=proofs))
        assert words.count("a standard error of 0: all N examples") == times
