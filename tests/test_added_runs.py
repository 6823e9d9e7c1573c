"""A tiny Llama without biases: added ones trained, used, scored, measured, selected, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

import beftkit as package
from beftkit.adapters import CONFIG_NAME, WEIGHTS_NAME
from beftkit.biases import ADDED
from beftkit.errors import BeftError
from beftkit.gradients import negative_log_likelihoods
from beftkit.training.trainer import Interrupted
from tests import saved_states
from tests.bias_free import BY_ID, tokens
from tests.causal_models import write_model, write_sst2
from tests.command import Beftkit, misused, refused

RUN: dict[str, Any] = {
    "task": "sst2", "data_dir": "data", "lr": 0.05, "epochs": 2, "device": "cpu",
}  # fmt: skip
FLAGS = ("--task", "sst2", "--data-dir", "data", "--lr", "0.05", "--epochs", "2", "--quiet")
MODULES = [f"model.layers.{layer}.self_attn.v_proj" for layer in range(2)]
peft_warns = pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, the data, and a run of an added b_v in ``out``."""
    folder = tmp_path_factory.mktemp("made")
    write_sst2(folder / "data")
    write_model(folder / "llama", "llama", steps=30, attention_bias=False)
    place = {"data_dir": str(folder / "data"), "output": str(folder / "out")}
    package.train(str(folder / "llama"), add_bias="v", save_snapshots=True, **{**RUN, **place})
    return folder


def document(ran: Any) -> Any:
    assert ran.code == 0, ran
    return json.loads(ran.out)


@peft_warns
def test_from_training_to_predicting(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit("train", "llama", *FLAGS, "--add-bias", "v", "-o", "again")
    assert ran.code == 0 and "added bias v: 32 of 35,104 scalars" in ran.out, ran
    assert saved_states.same_state(Path("again/state/step-00000024.safetensors"), *_last("out"))
    settings = yaml.safe_load(Path("again/run.yaml").read_text())
    assert (settings["bias"], settings["add_bias"]) == ("none", "v")
    plain = json.loads((here / "again" / "adapter" / CONFIG_NAME).read_text())
    assert (plain["peft_type"], plain["target_modules"]) == ("BEFT", MODULES)
    with safe_open("again/adapter/" + WEIGHTS_NAME, framework="pt") as file:
        assert file.metadata()["beftkit.add_bias"] == "v"
        keys = sorted(file.keys())
        assert keys == [f"base_model.model.{name}.beft_bias" for name in MODULES]
        assert all(list(file.get_tensor(key).shape) == [1, 16] for key in keys)
    (run,) = json.loads(Path("again/all_results.json").read_text())["runs"]
    assert any("PEFT loads this adapter, but cannot merge it" in note for note in run["notes"])
    found = document(beftkit("evaluate", "again", "--device", "cpu", "--format", "json"))
    assert found["metrics"] == run["last"]["metrics"]
    assert any("added 2 biases that the base has not" in note for note in found["notes"])
    ran = beftkit("predict", "again", "a fine film", "--device", "cpu", "--format", "json")
    (row,) = document(ran)["predictions"]
    predictor = package.load("again", device="cpu")
    answer = predictor("a fine film")
    assert answer.label == row["label"]
    assert answer.probabilities == pytest.approx(row["probabilities"])
    card = Path("again/adapter/README.md").read_text()
    assert "Biases added at zero (`--add-bias v`) in" in card and "llama-sst2-added-v" in card
    base = package.load("llama", task="sst2", device="cpu").model
    adapted: Any = peft.PeftModel.from_pretrained(base, "again/adapter").eval()
    rows = tokens(base)
    assert torch.equal(adapted(**rows).logits, predictor.model(**rows).logits)
    assert beftkit("export", "again", "-o", "whole").code == 0  # a stock Llama, its switch turned
    whole = package.load("whole", task="sst2", device="cpu").model
    assert whole.config.attention_bias
    torch.testing.assert_close(
        whole(**rows).logits, predictor.model(**rows).logits, rtol=0, atol=1e-5
    )


def _last(run: str) -> list[Path]:
    return [Path(run) / "state" / f"step-{saved_states.newest(Path(run)):08d}.safetensors"]


def test_scores_show_magnitude_and_name_no_target(here: Path, beftkit: Beftkit) -> None:
    found = package.score(None, "out")
    assert found.target is None and [*found.roles] == ["v"]
    assert any("zero in PRE" in note and "magnitude" in note for note in found.notes)
    tensors = load_file("out/adapter/" + WEIGHTS_NAME)
    sums = [float(one.abs().double().sum()) for one in tensors.values()]
    figures = found.roles["v"].figures
    assert figures["magnitude_l1"] == pytest.approx(sum(sums) / 2, rel=1e-12)
    assert figures["projection"] == 1 and figures["norm_pre"] == 0
    assert {site.name for site in found.sites} == {f"{name}.bias" for name in MODULES}
    by_magnitude = package.score("llama", "out", method="magnitude")
    assert by_magnitude.target == "v"
    ran = beftkit("score", "out")
    assert "target: none" in ran.out and "l1 change" in ran.out
    # snapshots hold whole biases, and so do models in memory
    (first, last) = package.score_all("llama", ["out/snapshots"])
    assert first.roles["v"].figures["magnitude_l1"] != figures["magnitude_l1"]
    assert last.roles["v"].figures == figures
    live = package.score("llama", package.load("out", device="cpu").model)
    assert live.roles["v"].figures == figures


def test_inspecting_it_lists_what_it_adds(here: Path, beftkit: Beftkit) -> None:
    found = package.inspect("out/adapter")
    assert [(role.role, role.count, role.widths, role.inert) for role in found.roles] == [
        ("v", 2, (16,), "no")
    ]
    norms = [
        float(one.double().norm()) for one in load_file("out/adapter/" + WEIGHTS_NAME).values()
    ]
    assert found.roles[0].norm_mean == pytest.approx(sum(norms) / 2)
    assert any("v: added by the adapter to" in note for note in found.notes)
    assert not found.bias_free
    assert beftkit("inspect", "out").code == 0


def test_stopped_and_taken_up_it_comes_to_the_same_end(here: Path) -> None:
    given: dict[str, Any] = {**RUN, "add_bias": "q,v", "save_steps": 1, "track_steps": 1}
    package.train("llama", output="whole", **given)
    asked = iter([*[0] * 6, 15])
    with pytest.raises(Interrupted):
        package.train("llama", output="stopped", asked_to_stop=lambda: next(asked), **given)
    assert 0 < saved_states.newest(Path("stopped")) < saved_states.newest(Path("whole"))
    package.train(output="stopped", resume=True)
    assert saved_states.same_runs(Path("whole"), Path("stopped"))


@pytest.mark.parametrize("format", ["lora", "biases"])
def test_the_other_formats_hold_it(here: Path, format: str) -> None:
    ran = package.train("llama", output="other", add_bias="v", adapter_format=format, **RUN)
    found = package.evaluate("other", device="cpu")
    assert found.evaluation.metrics == ran.runs[0].last.metrics
    scores = package.score(None, "other", method="magnitude")
    wanted = package.score(None, "out", method="magnitude")
    assert scores.roles["v"].figures == wanted.roles["v"].figures


@peft_warns
def test_with_a_classifier(here: Path) -> None:
    """A head trains along; PEFT's AutoPeft gives the same answers."""
    ran = package.train("llama", output="classes", add_bias="o", as_="classes", **RUN)
    assert ran.scalars == 64 and ran.head_scalars == 64
    predictor = package.load("classes", device="cpu")
    answer = predictor("a fine film")
    (found,) = predictor.pipeline()(["a fine film"])
    assert found["label"] == answer.label
    assert found["score"] == pytest.approx(answer.probability, rel=1e-5)
    adapted: Any = peft.AutoPeftModelForSequenceClassification.from_pretrained("classes/adapter")
    rows = tokens(predictor.model)
    adapted.base_model.model.config.pad_token_id = predictor.model.config.pad_token_id
    assert torch.equal(adapted.eval()(**rows).logits, predictor.model(**rows).logits)


def test_fisher_is_there_before_the_vector_is() -> None:
    """Of a model in memory: per-example gradients of real biases at zero, by autograd."""
    model, twin = BY_ID["phi3"].build(torch.float64), BY_ID["phi3"].build(torch.float64)
    drawn = torch.Generator().manual_seed(5)
    batch = {"input_ids": torch.randint(3, 50, (4, 6), generator=drawn)}
    batch["labels"] = batch["input_ids"].clone()
    found = package.fisher(model, [batch], add_bias="q,v")
    assert not any(name.endswith(ADDED) for name, _ in model.named_parameters())
    sums = {"q": 0.0, "v": 0.0}
    for layer in range(2):
        module = twin.get_submodule(f"model.layers.{layer}.self_attn.qkv_proj")
        module.bias = torch.nn.Parameter(torch.zeros(64, dtype=torch.float64))
        squares = torch.zeros(64, dtype=torch.float64)
        for row in range(4):
            one = {key: value[row : row + 1] for key, value in batch.items()}
            loss = negative_log_likelihoods(twin, one).sum()
            squares += torch.autograd.grad(loss, module.bias)[0].square()
        sums["q"] += float(squares[:32].mean()) / 4
        sums["v"] += float(squares[48:].mean()) / 4
    for role, total in sums.items():
        figures = found.roles[role].figures
        assert figures["fisher"] == pytest.approx(total / 2, rel=1e-9) and figures["norm_pre"] == 0
    assert found.target in sums
    assert found.settings is not None and found.settings.alone == ()  # one pass for all examples


def test_fisher_of_the_command(here: Path, beftkit: Beftkit) -> None:
    given = ("fisher", "llama", "--task", "sst2", "--data-dir", "data", "--train-size", "16")
    found = document(beftkit(*given, "--add-bias", "v,o", "--format", "json"))
    (post,) = found["posts"]
    assert sorted(post["roles"]) == ["m1", "v"] and post["target"] == "v"
    snapshots = ("--add-bias", "v", "--snapshots", "out/snapshots", "--format", "json")
    before, *after = document(beftkit(*given, *snapshots))["posts"]
    assert len(after) == 2 and before["roles"]["v"]["norm_pre"] == 0
    assert after[-1]["roles"]["v"]["norm_pre"] > 0
    planned = document(beftkit(*given, "--add-bias", "v,o", "--dry-run", "--format", "json"))
    assert planned["roles"] == {"v": 2, "m1": 2}


def test_a_selection_goes_by_fisher(here: Path, beftkit: Beftkit) -> None:
    given = ("select", "llama", *FLAGS[:4], "--lrs", "0.05", "--epochs", "1", "--quiet")
    ran = beftkit(*given, "--add-bias", "q,v", "-o", "select")
    assert ran.code == 0, ran
    assert "its Fisher score" in ran.out and "is the highest of q and v" in ran.out
    assert "Next: beftkit train llama --add-bias v --bias none" in ran.out
    ran = beftkit(*given, "--add-bias", "q,v", "--verify", "--resume", "-o", "select")
    assert ran.code == 0 and "Next: beftkit train llama --add-bias" in ran.out, ran
    found = package.Selection.from_dict(json.loads(Path("select/select.json").read_text()))
    assert found.candidates == ("q", "v")
    assert found.targets["projection"] is None and found.targets["magnitude"] is not None
    assert found.target == found.targets["fisher"] and found.method == "fisher"
    assert any("the target is Fisher's" in note for note in found.notes)
    (cell,) = found.cells
    assert not cell.failed and [*cell.runs] == ["probe", "none", "q", "v", "all"]
    assert [cell.runs[bias].scalars for bias in ("none", "q", "v", "all")] == [0, 64, 32, 96]
    assert all(table.roles["v"].score is not None for table in cell.methods.values())
    assert beftkit("report", "select", "-o", "report.md").code == 0
    misused(beftkit(*given, "--add-bias", "q,v", "--no-fisher", "-o", "x"), "Fisher chooses")
    misused(beftkit(*given, "--add-bias", "q,x", "-o", "x"), "--add-bias q,x: expected roles")


def test_mistakes(here: Path, beftkit: Beftkit) -> None:
    train = ("train", "llama", *FLAGS, "-o", "x")
    misused(beftkit(*train, "--add-bias", "v", "--bias", "full"), "a whole model")
    misused(beftkit(*train, "--add-bias", "v", "--bias", "rand:9"), "a whole model")
    misused(beftkit(*train, "--add-bias", "v", "--bias", "auto"), "beftkit select --add-bias")
    misused(beftkit(*train, "--add-bias", "v", "--peft", "lora"), "--add-bias: is of biases")
    misused(beftkit(*train, "--add-bias", "w"), "--add-bias w: expected roles out of q, k, v")
    refused(beftkit(*train, "--bias", "v"), "and trained (--add-bias)", limit=400)
    with pytest.raises(BeftError, match="has no such bias"):
        package.train("llama", bias="q", add_bias="v", **RUN)


def test_the_time_of_all_its_runs_is_told(here: Path, beftkit: Beftkit) -> None:
    """What is timed first leaves the model without its vectors, for what is timed next."""
    few = ("--train-size", "16", "--validation-size", "8", "--time", "--format", "json")
    data = ("--task", "sst2", "--data-dir", "data", "--quiet", *few)
    assert document(beftkit("train", "llama", *data, "--add-bias", "q,k"))["seconds"] > 0
    run = ("select", "llama", *data, "--add-bias", "q,k", "--verify", "-o", "timed")
    names = [one["name"] for one in document(beftkit(*run))["runs"]]
    assert [name.rpartition(", ")[2] for name in names] == ["probe", "none", "q", "k", "fisher"]
