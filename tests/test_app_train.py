"""`beftkit train` and `beftkit evaluate` as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

import beftkit as package
from beftkit.settings.train import TrainSettings
from beftkit.spelling import flag_of
from tests.command import Beftkit, Ran, misused, refused

Train = Callable[..., Ran]


@pytest.fixture
def train(workplace: Path, beftkit: Beftkit) -> Train:
    """Run it beside the data, on the CPU."""

    def run(*arguments: str | Path) -> Ran:
        quick = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--epochs", "2",
                 "--batch-size", "8", "--lr", "1e-2")  # fmt: skip
        return beftkit("train", "base", "--device", "cpu", *quick, *arguments)

    return run


def test_a_run_and_its_folder(train: Train, beftkit: Beftkit) -> None:
    ran = train("-o", "out", "--bias", "q,v", "--save-snapshots", "--track-steps", "2")
    assert ran.code == 0, ran
    assert "bias q,v: 96 of" in ran.out and "accuracy best" in ran.out and "adapter" in ran.out
    assert "step 8, epoch 1: loss" in ran.err and "projection q" in ran.err
    assert "drawn anew by seed 0: bert" not in ran.err and "classifier.bias" in ran.err
    out = Path("out")
    assert {path.name for path in out.iterdir()} == {
        ".beftkit.lock", "adapter", "all_results.json", "log.jsonl", "manifest.json",
        "provenance.json", "run.yaml", "snapshots", "state", "trainer_state.json",
    }  # fmt: skip
    results = json.loads((out / "all_results.json").read_text())
    [run] = results["runs"]
    assert results["bias"] == "q,v" and results["scalars"] == 96
    assert run["steps"] == 16 and run["epochs"] == 2 and run["train_examples"] == 60
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert run["last"]["metrics"] == [one for one in log if "metrics" in one][-1]["metrics"]
    state = json.loads((out / "trainer_state.json").read_text())
    assert state["global_step"] == 16 and state["log_history"] == log
    assert [one["step"] for one in log if one.keys() == {"step", "scores"}] == list(range(2, 17, 2))
    assert yaml.safe_load((out / "run.yaml").read_text())["bias"] == "q,v"
    # The adapter, the last snapshot and the track tell the same story.
    scores = package.score("base", "out/adapter")
    last = package.score("base", "out/snapshots/epoch-2.safetensors")
    for role in ("q", "v"):
        assert scores.roles[role].figures["projection"] == pytest.approx(run["scores"][role], 1e-6)
        assert last.roles[role].figures["projection"] == pytest.approx(run["scores"][role], 1e-6)
    assert len(package.score_all("base", ["out/snapshots"])) == 2
    found = json.loads(
        beftkit(
            "evaluate", "--adapter", "out/adapter", "--validation-file", "dev.jsonl", "--format",
            "json",
        ).out
    )  # fmt: skip
    assert found["metrics"] == run["last"]["metrics"]


def test_forms_of_the_result(train: Train) -> None:
    ran = train("-o", "out", "--seeds", "0,1", "--format", "json", "--quiet")
    document = json.loads(ran.out)
    assert ran.err == ""
    assert [run["seed"] for run in document["runs"]] == [0, 1]
    values = [run["last"]["metrics"]["accuracy"] for run in document["runs"]]
    summary = document["summary"]["last"]["accuracy"]
    assert summary["mean"] == pytest.approx(sum(values) / 2)
    assert summary["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert {path.name for path in Path("out").iterdir()} == {
        ".beftkit.lock", "all_results.json", "manifest.json", "provenance.json", "run.yaml",
        "seed-0", "seed-1",
    }  # fmt: skip
    table = train("-o", "out2", "--seeds", "0,1").out
    assert "deviation" in table and "mean" in table
    rows = list(csv.DictReader(io.StringIO(train("-o", "out3", "--format", "csv").out)))
    assert float(rows[0]["accuracy_last"]) == values[0]
    assert "| seed | accuracy best |" in train("-o", "out4", "--format", "markdown").out
    again = package.TrainResult.from_dict(document).to_dict()
    assert json.loads(json.dumps(again)) == document


def test_defaults_come_from_the_task(train: Train, beftkit: Beftkit, no_hub: str) -> None:
    ran = beftkit(
        "train", "base", "--task", "rte", "--regime", "low", "--dry-run", "--format", "json"
    )
    settings = json.loads(ran.out)["settings"]
    assert (settings["lr"], settings["epochs"], settings["max_length"]) == (1e-3, 30, 128)
    ran = beftkit(
        "train", "base", "--task", "sst2", "--bias", "full", "--dry-run", "--format", "json"
    )
    settings = json.loads(ran.out)["settings"]
    assert (settings["lr"], settings["epochs"], settings["metric"]) == (1e-5, 16, ["accuracy"])


def test_a_configuration_repeats_a_run(train: Train, beftkit: Beftkit) -> None:
    train("-o", "one", "--bias", "m1")
    ran = beftkit("train", "--config", "one/run.yaml", "-o", "two")
    assert ran.code == 0, ran
    first, second = (
        load_file(f"{name}/adapter/adapter_model.safetensors") for name in ("one", "two")
    )
    assert all((first[name] == second[name]).all() for name in first)
    assert (
        Path("one/adapter/adapter_model.safetensors").read_bytes()
        == Path("two/adapter/adapter_model.safetensors").read_bytes()
    )
    ran = beftkit(
        "train", "--config", "one/run.yaml", "-o", "three", "--bias", "m2", "--max-steps", "1"
    )
    assert "bias m2" in ran.out
    Path("one/run.yaml").write_text("model: base\ntask: sst2\nlearning_rate: 3\n")
    ran = beftkit("train", "--config", "one/run.yaml", "-o", "four")
    refused(ran, "one/run.yaml: no setting 'learning_rate'; did you mean lr?")


def test_a_former_run_is_kept_unless_told(train: Train) -> None:
    assert train("-o", "out", "--max-steps", "1").code == 0
    refused(train("-o", "out", "--max-steps", "1"), "--resume takes it up, --overwrite replaces it")
    Path("out/mine.txt").write_text("kept")
    assert train("-o", "out", "--overwrite", "--bias", "none", "--max-steps", "1").code == 0
    assert Path("out/mine.txt").read_text() == "kept"
    Path("other").mkdir()
    Path("other/thesis.txt").write_text("precious")
    refused(train("-o", "other", "--overwrite"), "holds thesis.txt and is no run's folder")
    refused(train("-o", "train.jsonl"), "is a file")
    ran = train("-o", "out", "--resume", "--bias", "q")
    refused(ran, "was begun with --bias none, not 'q'", limit=400)


def test_a_whole_model_where_weights_trained(train: Train, beftkit: Beftkit) -> None:
    for bias in ("full", "rand:100"):
        out = bias.partition(":")[0]
        ran = train("-o", out, "--bias", bias, "--max-steps", "4")
        assert ran.code == 0 and f"{out}/model" in ran.out
        result = json.loads(Path(out, "all_results.json").read_text())
        found = beftkit("evaluate", f"{out}/model", "--validation-file", "dev.jsonl", "--format",
                        "json")  # fmt: skip
        assert json.loads(found.out)["metrics"] == result["runs"][0]["last"]["metrics"]
        assert not Path(out, "adapter").exists()


@pytest.mark.parametrize("form", ["beft", "lora", "biases"])
def test_adapter_formats(train: Train, beftkit: Beftkit, form: str) -> None:
    train("-o", "out", "--bias", "all", "--adapter-format", form, "--max-steps", "5")
    result = json.loads(Path("out/all_results.json").read_text())["runs"][0]
    assert result["adapter_format"] == form
    ran = beftkit("evaluate", "base", "--adapter", "out/adapter", "--validation-file", "dev.jsonl",
                  "--format", "json")  # fmt: skip
    assert json.loads(ran.out)["metrics"] == result["last"]["metrics"]
    assert package.score("base", "out/adapter").changed


def test_a_regression(train: Train, tmp_path: Path, beftkit: Beftkit) -> None:
    rows = [{"a": "good film", "b": "bad plot", "score": i / 7} for i in range(20)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = beftkit(
        "train", "base", "--train-file", "pairs.jsonl", "--validation-file", "pairs.jsonl",
        "--text-columns", "a,b", "--label-column", "score", "--epochs", "1", "-o", "out",
        "--metric", "mse", "--metric", "mae", "--format", "json",
    )  # fmt: skip
    metrics = json.loads(ran.out)["runs"][0]["last"]["metrics"]
    assert list(metrics) == ["mse", "mae"] and metrics["mse"] > 0


def test_inert_and_truncated_are_said(train: Train) -> None:
    ran = train("-o", "out", "--bias", "k", "--max-length", "4", "--max-steps", "2")
    assert "k is inert here" in ran.err and "examples cut to 4 tokens" in ran.err
    assert (
        json.loads(Path("out/all_results.json").read_text())["runs"][0]["truncated"]["train"] > 10
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "7"], "no layer 7"),
        (["--device", "cuda"], "sees 0 CUDA devices here"),
        (["--metric", "nope.py"], "no script there"),
        (["--train-size", "99"], "99 examples asked for, but there are 60"),
        (["--text-columns", "title"], "title"),
        (["--max-length", "2"], "leaves no room"),
    ],
)
def test_mistakes_are_one_line(train: Train, arguments: list[str], message: str) -> None:
    if arguments[0] == "--device":
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is one")
    ran = train("-o", "out", *arguments)
    assert ran.code == 1, ran
    last = ran.err.splitlines()[-1]
    assert last.startswith("beftkit: error: ") and message in last
    assert "Traceback" not in ran.err and ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "-1"], "--epochs -1: expected a number from 0"),
        (["--lr", "fast"], "--lr fast: expected a number"),
        (["--precision", "fp8"], "--precision fp8: expected one of fp32, tf32, bf16, fp16"),
        (["--precision", "fp16"], "--precision fp16: needs a GPU"),
        (["--precision", "tf32"], "--precision tf32: needs an NVIDIA GPU; use fp32 or bf16"),
        (["--task", "sst2"], "--task and --train-file were both given"),
        (["--task", "sst-2"], "--task sst-2: expected one of cola, "),
        (["--bias", "x"], "--bias x: expected roles out of q, k, v"),
        (["--bias", "query"], "did you mean q?"),
        (["--layers", "0-x"], "--layers 0-x: expected numbers and ranges"),
        (["--metric", "acuracy"], "did you mean accuracy?"),
        (["--device", "gpu"], "--device gpu: expected cpu, cuda, cuda:1, mps, ...; did you mean c"),
        (["--report-to", "tensorbord"], "did you mean tensorboard?"),
        (["--label-map", "x"], "--label-map x: expected LABEL=NAME,LABEL=NAME,..."),
        (["--text-columns", "a,b,c"], "--text-columns a,b,c: expected one or two"),
        (["--push-to-hub", "mine"], "--push-to-hub mine: expected owner/name"),
        (["--regime", "low"], "--regime: is for tasks; use --train-size"),
        ([], "no --output was given"),
    ],
)
def test_wrong_usage_exits_with_2(train: Train, arguments: list[str], message: str) -> None:
    misused(train(*arguments, *(["-o", "out"] if arguments else [])), message, limit=500)
    assert not Path("out").exists()


def test_models_that_do_not_fit(train: Train, beftkit: Beftkit, tmp_path: Path) -> None:
    refused(beftkit("evaluate", "base", "--validation-file", "dev.jsonl"),
            "holds no trained classifier.bias")  # fmt: skip
    train("-o", "out", "--bias", "full", "--max-steps", "1")
    three = [{"text": "good film", "label": word} for word in ("a", "b", "c")]
    Path("three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in three))
    arguments: list[Any] = ["--train-file", "three.jsonl", "--epochs", "1", "-o", "new"]
    ran = beftkit("train", "out/model", *arguments)
    refused(ran, "its head does not fit: classifier.bias is [2], this task with 3 labels needs [3]")
    assert beftkit("train", "out/model", *arguments, "--new-head").code == 0
    bare = shutil.copytree(tmp_path / "base", tmp_path / "bare", symlinks=False)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (bare / name).unlink(missing_ok=True)
    refused(beftkit("train", "bare", *arguments[:-1], "x"), "no tokenizer", limit=400)
    for model in ("absent", "o/absent/x", "train.jsonl"):
        ran = beftkit("train", model, *arguments[:-1], "y")
        assert ran.code == 1 and "Traceback" not in ran.err, ran


def test_help_has_topics(beftkit: Beftkit) -> None:
    out = beftkit("train", "--help").out
    for topic in ("What trains:", "Data:", "Optimisation:", "Output:"):
        assert f"\n{topic}\n" in out
    assert out.index("Model:") < out.index("What trains:") < out.index("Output:")
    for name in TrainSettings.model_fields:
        assert flag_of(name) in out or name == "model", name
    assert beftkit("evaluate", "--help").code == 0
    assert beftkit("train").code == 2
