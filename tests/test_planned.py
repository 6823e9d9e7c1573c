"""`--dry-run` of train, select and fisher: what would be done, and what would be refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit import models
from beftkit.errors import BeftError
from beftkit.present.planned import _pattern
from beftkit.runs import plan_run
from beftkit.settings import TrainSettings
from beftkit.settings.resolve import resolve_train
from beftkit.tasks import hub_tables
from tests import task_files, tiny_run
from tests.command import Beftkit, misused, refused, tree

OWN = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu")
QUICK = ("--epochs", "2", "--batch-size", "8", "--lr", "1e-2")


pytestmark = pytest.mark.usefixtures("no_hub", "workplace")


@pytest.fixture
def planned(beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command with --dry-run, where no weights can be loaded: its table by the first word of
    each line, and its JSON.
    """

    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    def run(*words: str | Path) -> tuple[dict[str, str], Any]:
        before = tree(Path())
        with monkeypatch.context() as patch:
            patch.setattr("beftkit.objectives.heads.load_model", load)
            ran = beftkit(*words, "--dry-run")
            assert ran.code == 0 and ran.err == "", ran
            document = json.loads(beftkit(*words, "--dry-run", "--format", "json").out)
        assert tree(Path()) == before
        facts = {line[:10].strip(): line[10:].strip() for line in ran.out.splitlines()}
        return facts | {"all": ran.out}, document

    return run


def test_a_run(planned: Any, beftkit: Beftkit) -> None:
    facts, document = planned("train", "base", *OWN, *QUICK, "--layers", "1", "-o", "out")
    assert facts["device"] == "cpu, fp32, weights in float32"
    assert facts["data"] == "train.jsonl, dev.jsonl"
    assert facts["examples"] == "60; validation 31; rows of at most 32 tokens"
    assert facts["classes"] == "2: neg, pos"
    assert facts["updates"] == "16: 2 epochs of 8, batch 8; 2 evaluations"
    assert facts["trains"] == "24 of 10,906 scalars (0.2201 %): v, and 74 of the head"
    assert facts["writes"] == "out (a new folder)"
    assert facts["settings"] == "layers 1; batch_size 8 (the rest as by default)"
    assert "bert.encoder.layer.1.attention.self.value.bias" in facts["all"]
    assert {*document["settings"]} == {*TrainSettings.model_fields}
    assert document["settings"]["max_length"] == 128 and document["max_length"] == 32
    assert document["course"] == {"per_epoch": 8, "updates": 16, "evaluations": 2}
    assert len(document["parts"]) == 4 and document["folder"] == "new"
    rows = beftkit("train", "base", *OWN, "--bias", "q,v", "--dry-run", "--format", "csv").out
    assert len(list(csv.DictReader(io.StringIO(rows)))) == 4 + 3
    alike = beftkit("train", "base", *OWN, "--bias", "q,v", "--dry-run").out
    assert "bert.encoder.layer.0-1.attention.self.query.bias   q" in alike and "2 x 24" in alike


@pytest.mark.parametrize(
    "more",
    [{}, {"eval_steps": 3}, {"max_steps": 5}, {"accumulation": 3, "batch_size": 7, "eval_steps": 2},
     {"train_size": 9, "validation_size": 4}, {"epochs": 0}],
)  # fmt: skip
def test_a_run_makes_the_updates_that_were_planned(more: dict[str, Any]) -> None:
    given = {"model": "base", "train_file": "train.jsonl", "validation_file": "dev.jsonl",
             "device": "cpu", "epochs": 2, "batch_size": 8, "output": "out"} | more  # fmt: skip
    plan = plan_run(resolve_train(None, given))
    run = api.train(given.pop("model"), **given).runs[0]
    log = [json.loads(line) for line in Path("out/log.jsonl").read_text().splitlines()]
    evaluations = [record for record in log if "metrics" in record]
    assert plan.course is not None
    assert (plan.course.updates, plan.course.evaluations) == (run.steps, len(evaluations))
    assert plan.examples == run.train_examples
    assert {*plan.validation.values()} == {record["examples"] for record in evaluations}


def test_a_regime_means_so_many_examples(planned: Any, tmp_path: Path) -> None:
    rte = task_files.write_folder(tmp_path, "rte")
    header, _, rows = (rte / "train.tsv").read_text().partition("\n")
    (rte / "train.tsv").write_text(f"{header}\n{50 * rows}")
    given = ("train", "base", "--task", "rte", "--data-dir", str(tmp_path), "--regime")
    facts, document = planned(*given, "low")
    assert facts["examples"].startswith(
        "300 (low regime of rte), drawn by the seed out of 400; validation 4;"
    )
    assert document["rows"] == {"train": 400, "validation": 4} and document["unread"] == ""
    facts, _ = planned(*given, "medium")  # 900 there are not
    assert facts["examples"].startswith("400 (medium regime of rte); validation 4;")


def test_without_the_data_an_estimate_is_called_one(planned: Any, no_hub: str) -> None:
    facts, document = planned("train", "base", "--task", "rte", "--regime", "low")
    assert facts["examples"].startswith("about 300 (low regime of rte); validation unknown;")
    assert facts["updates"] == "about 570: 30 epochs of 19, batch 16; 30 evaluations"
    assert facts["rate"] == "lr 0.001, constant" and facts["writes"] == "nowhere yet: give --output"
    assert f"note: {no_hub}" in facts["all"] and "is an estimate, or unknown" in facts["all"]
    assert no_hub in document["unread"] and document["labels"] == ["entailment", "not_entailment"]
    assert document["course"]["updates"] == 570 and document["rows"] == {}
    facts, document = planned("train", "base", "--task", "rte")
    assert facts["updates"].startswith("unknown") and document["course"] is None
    _, document = planned("train", "base", "--task", "sst2", "--bias", "full")
    settings = document["settings"]
    assert (settings["lr"], settings["epochs"], settings["metric"]) == (1e-5, 16, ["accuracy"])


def write_rows(path: str, labels: list[str]) -> None:
    rows = [{"text": "good film", "label": label} for label in labels]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def headed(tiny: Path, tmp_path: Path) -> None:
    """``kept``: a model with a head of three named classes."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with models.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(tiny / "base", num_labels=3)
        model.config.id2label = dict(enumerate(("red", "green", "blue")))
        model.save_pretrained(tmp_path / "kept")
        AutoTokenizer.from_pretrained(tiny / "base").save_pretrained(tmp_path / "kept")
    write_rows("two.jsonl", ["red", "purple"])
    write_rows("four.jsonl", ["red", "green", "blue", "purple"])
    write_rows("three.jsonl", ["red", "green", "blue"])


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("kept", ["--train-file", "two.jsonl"], "--label-map"),
        ("kept", ["--train-file", "four.jsonl"], "needs [4]; --new-head draws a fresh one"),
        ("kept", ["--task", "stsb"], "values to predict; the head has classes"),
        ("base", ["--train-file", "train.jsonl", "--train-size", "99"], "but there are 60"),
        ("base", [*OWN, "--metric", "nope"], "allow it with --trust-remote-code"),
        ("base", [*OWN, "--bias", "x"], "expected roles out of"),
        ("base", [*OWN, "--layers", "7"], "no layer 7"),
        ("base", [*OWN, "-o", "taken"], "holds old.txt and is no run's folder"),
        ("base", [*OWN, "--precision", "fp16"], "needs a GPU"),
        ("bare", [*OWN], "no tokenizer"),
        ("base", [*OWN, "--report-to", "nope"], "--report-to nope: expected none or some of"),
    ],
)
def test_what_training_refuses_is_refused(
    headed: None, beftkit: Beftkit, model: str, words: list[str], message: str, tmp_path: Path
) -> None:
    """In the same words, and no output is needed for it."""
    Path("taken").mkdir()
    Path("taken/old.txt").touch()
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((tmp_path / "base" / name).read_bytes())
    ran = beftkit("train", model, *words, "--dry-run", "--device", "cpu")
    typed = {"--metric", "--bias", "--precision", "--report-to"} & {*words}
    refused(ran, message, limit=400, code=2 if typed else 1)
    assert not Path("out").exists()
    if "--task" not in words:  # whose data are not there
        out = () if "-o" in words else ("-o", "out")
        trained = beftkit("train", model, *words, *out, "--device", "cpu", "-q")
        assert trained.err.splitlines()[-1] == ran.err.splitlines()[-1]


def test_a_head_that_fits_is_kept_and_a_new_one_takes_all(headed: None, planned: Any) -> None:
    facts, _ = planned("train", "kept", "--train-file", "three.jsonl")
    assert facts["classes"] == "3: red, green, blue"  # in the head's order
    planned("train", "kept", "--train-file", "four.jsonl", "--new-head")


def test_a_former_run(planned: Any, beftkit: Beftkit) -> None:
    ran = beftkit("train", "base", *OWN, *QUICK, "--max-steps", "1", "-o", "out", "-q")
    assert ran.code == 0, ran
    refused(beftkit("train", "base", *OWN, "-o", "out", "--dry-run"), "--resume takes it up")
    facts, _ = planned("train", "base", *OWN, "-o", "out", "--overwrite")
    assert facts["writes"] == "out (a former one is replaced)"
    facts, document = planned("train", "--resume", "-o", "out")
    assert facts["writes"] == "out (a former one is taken up)"
    assert document["course"]["updates"] == 1


def test_a_selection(planned: Any, beftkit: Beftkit) -> None:
    words = ("select", "base", *OWN, "--lrs", "1e-2,1e-3", "--epochs", "1,2", "--seeds", "0,1",
             "--batch-size", "8", "--verify")  # fmt: skip
    facts, document = planned(*words)
    assert facts["cells"] == "8 (2 lrs x 2 epochs x 2 seeds), 40 runs"
    assert facts["each cell"] == "probe, none, q, k, v; then the Fisher score"
    assert facts["updates"] == "480 together"
    assert facts["trains"].startswith("probe 440; none 0; q 48; k 48; v 48; all 440 of 10,906")
    assert facts["writes"] == "nowhere yet: give --output"
    assert "all-lr0.01-e1-seed0" in facts["all"]
    first = document["cells"][0]
    assert first["name"] == "all-lr0.01-e1-seed0" and first["updates"] == 40
    assert first["runs"]["q"] == {"per_epoch": 8, "updates": 8, "evaluations": 1}
    assert document["runs"] == 40 and first["fisher_batches"] == 8
    facts, document = planned("select", "base", "--task", "cb", "--no-fisher", "--probe-steps", "9")
    assert document["cells"][0]["runs"]["probe"]["updates"] == 9
    assert document["cells"][0]["fisher_batches"] == 0
    misused(
        beftkit("select", "base", *OWN, "--candidates", "x", "--dry-run"),
        "--candidates x: expected",
    )
    ran = beftkit("select", "base", *OWN[:2], "--verify", "--dry-run")
    assert ran.code == 2 and "give --validation-file as well" in ran.err
    Path("taken").mkdir()
    Path("taken/old.txt").touch()
    refused(beftkit(*words, "-o", "taken", "--dry-run"), "is no selection's folder")


def test_a_measurement(headed: None, planned: Any, beftkit: Beftkit) -> None:
    words = ("fisher", "base", "--train-file", "train.jsonl", "--device", "cpu")
    facts, document = planned(*words, "--examples", "20", "--head-seeds", "0,1")
    assert facts["examples"] == "20, the first of 60; rows of at most 32 tokens"
    assert facts["batches"] == "2 x 2 (heads and snapshots), 16 examples each"
    assert facts["measures"] == "416 scalars in 16 bias vectors"
    assert (document["batches"], document["passes"], document["roles"]["v"]) == (2, 2, 2)
    refused(beftkit(*words, "--examples", "99", "--dry-run"), "has 60 training examples, not 99")
    misused(beftkit(*words, "--candidates", "x", "--dry-run"), "--candidates x: expected")
    kept = ("fisher", "kept", "--train-file", "three.jsonl", "--head-seeds", "0,1", "--dry-run")
    refused(beftkit(*kept), "holds a trained classifier")


def test_two_questions_at_once(beftkit: Beftkit) -> None:
    for command in ("train", "select", "fisher"):
        ran = beftkit(command, "base", "--train-file", "train.jsonl", "--dry-run", "--time")
        assert ran.code == 2 and "expected one of them" in ran.err


def test_what_is_no_matter_of_reach_is_refused(
    beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise BeftError("not found at revision x")

    monkeypatch.setattr(hub_tables, "read_hub", wrong)
    refused(beftkit("train", "base", "--task", "rte", "--dry-run"), "not found at revision x")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a.0.b"], "a.0.b"),
        (["a.0.b", "a.1.b", "a.2.b", "a.5.b"], "a.0-2,5.b"),
        (["e.0.x.3.b", "e.0.x.4.b"], "e.0.x.3-4.b"),
        (["e.0.x.3.b", "e.1.x.4.b"], "e.0.x.3.b ... e.1.x.4.b"),
    ],
)
def test_what_is_alike_is_one_row(names: list[str], shown: str) -> None:
    assert _pattern(names) == shown


def test_a_family_of_another_layout(planned: Any, tmp_path: Path) -> None:
    """More layers than numbers of one digit: one row each kind."""
    with models.quiet():
        tiny_run.write_base(tmp_path / "deep", num_hidden_layers=12)
    facts, document = planned("train", "deep", *OWN, "--bias", "all")
    assert "bert.encoder.layer.0-11.output.dense.bias" in facts["all"]
    assert len(document["parts"]) == 12 * 8 + 4 and len(facts["all"].splitlines()) < 32
