"""An adapter of a prompt's run in use: predicted with, exported, planned, as its card says."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

import beftkit as package
from beftkit.errors import BeftError
from beftkit.registry import TASKS
from beftkit.tasks import load_task
from tests.card_blocks import predictor
from tests.causal_models import write_model, write_sst2
from tests.command import Beftkit, refused


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OPT, data like SST-2's, and a run of b_v in ``out``."""
    folder = tmp_path_factory.mktemp("made")
    write_sst2(folder / "data")
    write_model(folder / "opt", "opt", steps=100)
    package.train(
        str(folder / "opt"), task="sst2", data_dir=str(folder / "data"), lr=0.05, bias="v",
        device="cpu", output=str(folder / "out"),
    )  # fmt: skip
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def measured() -> Any:
    """The last evaluation of the run."""
    return json.loads(Path("out/all_results.json").read_text())["runs"][0]["last"]


def examples() -> tuple[list[str], list[str]]:
    split = load_task("sst2", data_dir="data", train=False).validation["validation"]
    return split.texts[0], [("negative", "positive")[at] for at in split.targets]


def test_the_metric_has_its_baseline_and_its_standard_error(here: Path) -> None:
    last, (_, labels) = measured(), examples()
    assert last["baselines"] == {"accuracy": labels.count("negative") / len(labels)}
    assert last["baseline_is"] == "majority class"
    share = last["metrics"]["accuracy"]
    error = math.sqrt(share * (1 - share) / len(labels))
    assert last["standard_errors"]["accuracy"] == pytest.approx(error)


def test_predictions_are_those_that_the_run_measured(
    here: Path, tmp_path: Path, beftkit: Beftkit
) -> None:
    texts, labels = examples()
    file, output = tmp_path / "rows.csv", tmp_path / "answers.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("sentence",), *((text,) for text in texts)])
    ran = beftkit("predict", "out", "--file", file, "-o", output, "--device", "cpu")
    assert ran.code == 0, ran
    rows = [*csv.DictReader(output.open(newline=""))]
    right = [row["label"] == label for row, label in zip(rows, labels, strict=True)]
    assert sum(right) / len(right) == measured()["metrics"]["accuracy"]
    found = package.load("out", device="cpu")
    alone = found(texts[3])
    assert alone.label == rows[3]["label"] and {*alone.probabilities} == {"negative", "positive"}
    assert float(rows[3]["probability"]) == pytest.approx(alone.probability, abs=1e-4)
    assert sum(alone.probabilities.values()) == pytest.approx(1)
    assert found.max_length == 128 and found.labels == ("negative", "positive")
    with pytest.raises(BeftError, match="no pipeline that asks a task's prompt"):
        found.pipeline()
    with pytest.raises(BeftError, match=r"two texts an example, and .* was trained on one text"):
        found(("a", "b"))


def test_the_card_s_code_answers_as_the_run(here: Path) -> None:
    texts, labels = examples()
    card = Path("out/adapter/README.md").read_text()
    predict = predictor(card, {"BASE": "opt", "ADAPTER": "out/adapter"})
    right = [predict(text) == label for text, label in zip(texts, labels, strict=True)]
    assert sum(right) / len(right) == measured()["metrics"]["accuracy"]


def test_exported_it_is_a_plain_language_model(here: Path, tmp_path: Path) -> None:
    import torch
    import transformers

    folder = tmp_path / "whole"
    assert package.export("out", folder).labels == ("negative", "positive")
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card and "pipeline(" not in card
    code = card.partition("```python\n")[2].partition("```")[0].replace("FOLDER", str(folder))
    there: dict[str, Any] = {}
    exec(code, there)
    model, tokenizer = there["model"].eval(), there["tokenizer"]
    assert type(model) is transformers.OPTForCausalLM
    texts, _ = examples()
    scores = []
    for answer in (" terrible", " great"):
        before, whole = (
            tokenizer(text, return_tensors="pt")["input_ids"]
            for text in (f"{texts[0].strip()} It was", f"{texts[0].strip()} It was{answer}")
        )
        with torch.no_grad():
            logs = model(whole).logits[0].log_softmax(-1)
        first = before.shape[1]
        own = [float(logs[at - 1, whole[0, at]]) for at in range(first, whole.shape[1])]
        scores.append(sum(own) / len(own))
    ours = package.load("out", device="cpu")(texts[0]).probabilities
    theirs = torch.tensor(scores).softmax(0)
    assert [*ours.values()] == pytest.approx(theirs.tolist(), abs=1e-4)
    again = package.evaluate(folder, task="sst2", data_dir="data", device="cpu")
    assert again.evaluation.metrics == measured()["metrics"]


def test_what_says_no_task_is_refused(here: Path, tmp_path: Path, beftkit: Beftkit) -> None:
    import shutil

    import numpy as np
    from safetensors.numpy import load_file, save_file

    plain = shutil.copytree("out/adapter", tmp_path / "plain")
    path = plain / "adapter_model.safetensors"
    save_file({name: np.array(value) for name, value in load_file(path).items()}, path)
    ran = beftkit("predict", "--adapter", plain, "x", "--device", "cpu")
    refused(ran, "made for a language model's own answers (choice)")
    ran = beftkit("predict", "opt", "x", "--device", "cpu")
    refused(ran, "give --task, whose prompt it is asked: one of sst2, rte", code=2)
    ran = beftkit("predict", "out", "x", "--task", "rte", "--device", "cpu")
    refused(ran, "--task rte: it was trained on sst2; leave it out", code=2)
    ran = beftkit("predict", "out", "x", "--task", "sst2", "--as", "classes", "--device", "cpu")
    refused(ran, "--as classes: it was trained as choice", code=2)
    ours, told = package.load("out", device="cpu"), {"task": "sst2", "device": "cpu"}
    assert package.load(adapter=plain, **told)("x") == ours("x")
    for words, what in (
        (("--task", "cola"), "cola has none"),
        (("--validation-file", "data/SST-2/dev.tsv"), "this file has none"),
    ):
        ran = beftkit("evaluate", "--adapter", "out/adapter", *words, "--device", "cpu")
        refused(ran, f"answers a task's prompt (choice), and {what}; expected --task", code=2)


def test_a_plain_language_model_is_told_its_task(here: Path) -> None:
    """Zero-shot, as `beftkit evaluate` measures it."""
    texts, labels = examples()
    found = package.load("opt", task="sst2", device="cpu")
    right = [one.label == label for one, label in zip(found(texts), labels, strict=True)]
    measured = package.evaluate("opt", task="sst2", data_dir="data", device="cpu")
    assert sum(right) / len(right) == measured.evaluation.metrics["accuracy"]
    words = package.load("opt", task="wic", device="cpu")
    assert words(("place", "a place", "in place")).label in ("False", "True")
    with pytest.raises(BeftError, match="one text an example, and wic has 3 texts"):
        words("a place")


def test_plans_know_that_nothing_trains(here: Path, beftkit: Beftkit) -> None:
    given = ("opt", "--task", "sst2", "--data-dir", "data", "--device", "cpu", "--format", "json")

    def told(command: str, *words: str) -> Any:
        ran = beftkit(command, *given, *words)
        assert ran.code == 0, ran
        return json.loads(ran.out)

    plan = told("train", "--dry-run", "--bias", "none")
    assert plan["course"]["updates"] == 0 and plan["course"]["evaluations"] == 1
    assert (plan["examples"], plan["max_length"]) == (96, 128)
    (run,) = told("train", "--time")["runs"]
    assert (run["steps"], run["evaluations"]) == (60, 5)
    (cell,) = told("select", "--dry-run", "--verify", "--candidates", "q,v")["cells"]
    assert {name: course["updates"] for name, course in cell["runs"].items()} == {
        "probe": 60, "none": 0, "q": 60, "v": 60,
    }  # fmt: skip
    assert cell["fisher_batches"] == 12


def test_advice_speaks_of_no_classifier(here: Path, tmp_path: Path, beftkit: Beftkit) -> None:
    ran = beftkit(
        "train", "opt", "--task", "sst2", "--data-dir", "data", "--lr", "0.05", "--epochs", "1",
        "--bias", "auto", "--device", "cpu", "-o", tmp_path / "auto",
    )  # fmt: skip
    assert ran.code == 0, ran
    select = json.loads((tmp_path / "auto" / "select" / "select.json").read_text())
    assert select["cells"][0]["cell"]["regime"] == "low"
    assert select["cells"][0]["runs"]["probe"]["head_scalars"] == 0
    from beftkit.present.selection import advice
    from beftkit.selection.results import Selection

    lines = advice(Selection.from_dict(select)).words
    assert any("It costs 48 of" in line for line in lines)
    assert "classifier" not in " ".join(lines)


def test_texts_of_an_example_are_the_task_s_columns() -> None:
    columns = {name: one.columns_as("choice") for name, one in TASKS.items() if one.prompt}
    assert columns["boolq"] == ("question", "passage")
    assert columns["wic"] == ("word", "sentence1", "sentence2")
    assert TASKS["wic"].texts_as("choice") == ("{word}", "{sentence1}", "{sentence2}")
    assert TASKS["wic"].texts_as("classes") == TASKS["wic"].fields
    for name, task in TASKS.items():
        if task.prompt and task.fields:
            assert {*task.prompt.needs} == {*columns[name]}, name
