"""Tiny OPT writes answers of SQuAD's layout: trained, evaluated, measured, selected, predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.causal_models import questions, sentences, write_model, write_squad
from tests.command import Beftkit, refused
from tests.fisher_run import document

RUN = ("--task", "squad", "--data-dir", "data", "--device", "cpu", "--quiet")
COURSE = ("--lr", "0.05", "--epochs", "4")


def write_own(path: Path, count: int, seed: int) -> None:
    """Whole prompts, as the shared DROP file has them."""
    forms = "terrible|bad", "great|The great!"
    rows = [
        {
            "context": f"Title: t\nContext: {sentence}\nQuestion: How?\nAnswer:",
            "completion": "not read",
            "ref_text": forms[label],
        }
        for sentence, label in sentences(count, seed)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_squad(folder / "data")
    write_own(folder / "train.jsonl", 48, 1)
    write_own(folder / "dev.jsonl", 24, 2)
    write_model(folder / "opt", "opt", steps=80, learn=questions, tokens=questions)
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def evaluated(beftkit: Beftkit, *arguments: str) -> Any:
    ran = beftkit("evaluate", *arguments, "--device", "cpu", "--quiet", "--format", "json")
    assert ran.code == 0, ran
    return json.loads(ran.out)


def test_it_learns_and_its_adapter_writes_what_was_trained(here: Path, beftkit: Beftkit) -> None:
    before = evaluated(beftkit, "opt", *RUN[:4])
    assert (before["examples"], before["baselines"], before["classes"]) == (
        24, {}, {},
    )  # fmt: skip
    ran = beftkit("train", "opt", *RUN, *COURSE, "-o", "out")
    assert ran.code == 0, ran
    (run,) = json.loads(Path("out/all_results.json").read_text())["runs"]
    after = run["last"]["metrics"]
    assert list(after) == ["token_f1", "exact_match"]
    assert after["exact_match"] > before["metrics"]["exact_match"] + 0.3
    said = evaluated(beftkit, "--adapter", "out/adapter", "--data-dir", "data")
    assert said["metrics"] == after and said["loss"] < before["loss"]
    assert not [note for note in said["notes"] if "left out" in note]
    assert said["standard_errors"]["exact_match"] is not None
    settings = yaml.safe_load(Path("out/run.yaml").read_text())
    wanted = {
        "as_": None, "batch_size": 8, "schedule": "linear", "max_length": 2048, "regime": "low",
        "validation_size": 1000, "metric": ["token_f1", "exact_match"],
    }  # fmt: skip
    assert {key: settings[key] for key in wanted} == wanted

    # What it writes to texts of one's own, and in a file.
    import beftkit as package

    predictor = package.load("out", device="cpu")
    answer = predictor(("t", "a very lovely film", "How?"))
    assert answer.answer == "great" and answer.label is None
    assert (
        repr(answer) == "Answer('great')" and repr(predictor) == "Predictor('out/adapter', texts)"
    )
    rows = [
        {"title": "t", "context": s, "question": "How?", "answer": "x"} for s, _ in sentences(6, 9)
    ]
    Path("new.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    ran = beftkit("predict", "out", "--file", "new.jsonl", "-o", "told.csv", "--quiet")
    assert ran.code == 0, ran
    first, *lines = Path("told.csv").read_text().splitlines()
    assert first == "title,context,question,answer,predicted_answer" and len(lines) == 6
    assert all(line.rsplit(",", 1)[1] in ("great", "terrible") for line in lines)
    ran = beftkit("predict", "out", "--file", "new.jsonl", "-o", "told.parquet", "--quiet")
    assert ran.code == 0, ran
    ran = beftkit("predict", "out", "a", "--threshold", "0.5")
    assert ran.code == 2 and "this model gives texts, which have no probability" in ran.err
    # A model as it is, which is told the task.
    ran = beftkit("predict", "opt", "t\tfine\tHow?", "--task", "squad", "--format", "json")
    assert ran.code == 0, ran
    (found,) = json.loads(ran.out)["predictions"]
    assert isinstance(found["answer"], str)


def test_fisher_and_selection(here: Path, beftkit: Beftkit) -> None:
    found = document(beftkit("fisher", "opt", *RUN[:6], "--format", "json"))
    assert found["settings"]["examples"] == 48
    assert found["roles"]["k"]["inert"] == "yes" and found["target"] in ("q", "v")
    ran = beftkit(
        "select", "opt", *RUN, "--lr", "0.05", "--epochs", "1", "--candidates", "q,v",
        "--validation-size", "8", "-o", "select",
    )  # fmt: skip
    assert ran.code == 0, ran
    (cell,) = json.loads(Path("select/select.json").read_text())["cells"]
    assert "probe" in cell["runs"]


def test_files_of_whole_prompts(here: Path, beftkit: Beftkit) -> None:
    own = ("--text-columns", "context", "--answer-column", "ref_text")
    given = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl", *own)
    ran = beftkit("train", "opt", *given, *COURSE, "--device", "cpu", "--quiet", "-o", "own")
    assert ran.code == 0, ran
    (run,) = json.loads(Path("own/all_results.json").read_text())["runs"]
    said = evaluated(beftkit, "--adapter", "own/adapter")
    assert said["metrics"] == run["last"]["metrics"]
    # The same prompts and answers as the task's.
    as_task = evaluated(beftkit, "opt", *RUN[:4])
    as_file = evaluated(beftkit, "opt", "--validation-file", "dev.jsonl", *own)
    assert as_file["metrics"] == as_task["metrics"] and as_file["loss"] == as_task["loss"]
    ran = beftkit(
        "predict", "own", "Title: t\nContext: so warm\nQuestion: How?\nAnswer:", "--quiet"
    )
    assert ran.code == 0 and ("great" in ran.out or "terrible" in ran.out), ran


def test_what_does_not_go_together(here: Path, tiny: Path, beftkit: Beftkit) -> None:
    for given, why in (
        (("--as", "classes"), "--as classes: --task squad has answers that are written"),
        (("--new-head",), "--new-head: --task squad has answers that are written"),
    ):
        refused(beftkit("train", "opt", *RUN, *given, "-o", "x"), why, code=2)
    own = ("--validation-file", "dev.jsonl", "--answer-column", "ref_text", "--quiet")
    ran = beftkit("evaluate", "opt", *own, "--label-column", "ref_text")
    refused(ran, "--label-column ref_text: --answer-column ref_text has answers", code=2)
    ran = beftkit("evaluate", "opt", *own, "--metric", "drop_f1")
    refused(ran, "--metric drop_f1: is for answers of several spans", limit=500)
    ran = beftkit("train", str(tiny / "base"), *RUN, "-o", "x")
    refused(ran, "is no causal language model, so it writes no text", limit=500)
    ran = beftkit("evaluate", "opt", *RUN[:4], "--max-length", "51", "--quiet")
    refused(ran, "--max-length 51: leaves no room for a prompt and 50 tokens")


def test_demonstrations_stand_before_questions(here: Path, beftkit: Beftkit) -> None:
    none, two = (evaluated(beftkit, "opt", *RUN[:4], *more) for more in ((), ("--shots", "2")))
    assert two["in_context"]["shots"] == 2 and none["loss"] != two["loss"]
    assert {*two["metrics"]} == {*none["metrics"]} and two["examples"] == none["examples"]
