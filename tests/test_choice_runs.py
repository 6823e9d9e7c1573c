"""Tiny OPT and GPT-2 answer SST-2's prompts: trained, evaluated, measured, selected, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import beftkit as package
from beftkit.adapters import WEIGHTS_NAME
from beftkit.errors import BeftError
from beftkit.objectives import make_objective
from beftkit.settings.train import TrainSettings
from beftkit.tasks import load_task
from beftkit.training.trainer import Interrupted
from tests import saved_states
from tests.causal_models import write_model, write_sst2
from tests.command import Beftkit, refused
from tests.fisher_run import document

LABELS = ("negative", "positive")
#: beside the published settings, which are for larger models
RUN = ("--task", "sst2", "--data-dir", "data", "--lr", "0.05", "--device", "cpu", "--quiet")
FAMILIES = ("opt", "gpt2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models, the data, and a run of b_v of each in ``out-FAMILY``."""
    folder = tmp_path_factory.mktemp("made")
    write_sst2(folder / "data")
    for family in FAMILIES:
        write_model(folder / family, family, steps=100)
        package.train(
            str(folder / family), task="sst2", data_dir=str(folder / "data"), lr=0.05, bias="v",
            device="cpu", output=str(folder / f"out-{family}"),
        )  # fmt: skip
    return folder


def results(folder: str) -> Any:
    return json.loads((Path(folder) / "all_results.json").read_text())


def evaluated(beftkit: Beftkit, *arguments: str) -> Any:
    ran = beftkit("evaluate", *arguments, "--device", "cpu", "--format", "json")
    assert ran.code == 0, ran
    return json.loads(ran.out)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_its_adapter_is_what_was_trained(
    here: Path, beftkit: Beftkit, family: str
) -> None:
    before = evaluated(beftkit, family, "--task", "sst2", "--data-dir", "data")
    (run,) = results(f"out-{family}")["runs"]
    assert run["last"]["metrics"]["accuracy"] > before["metrics"]["accuracy"] + 0.3
    assert any("is asked as a prompt (choice)" in note for note in before["notes"])
    said = evaluated(beftkit, "--adapter", f"out-{family}/adapter", "--data-dir", "data")
    assert said["metrics"] == run["last"]["metrics"] and said["task"] == "sst2"
    log = [line for line in saved_states.log(Path(f"out-{family}")) if "metrics" in line]
    assert said["loss"] == pytest.approx(log[-1]["loss"], rel=1e-5)


def test_the_published_settings_are_the_defaults(here: Path, beftkit: Beftkit) -> None:
    found = yaml.safe_load((here / "out-opt" / "run.yaml").read_text())
    wanted = {
        "as_": "choice", "epochs": 5, "batch_size": 8, "schedule": "linear", "max_length": 2048,
        "regime": "low", "train_size": None, "validation_size": 1000, "metric": ["accuracy"],
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted
    assert results("out-opt")["runs"][0]["train_examples"] == 96  # there are no 1000

    def planned(*arguments: str) -> Any:
        ran = beftkit("train", "opt", *arguments, "--dry-run", "--format", "json")
        assert ran.code == 0, ran
        return json.loads(ran.out)

    plan = planned("--task", "cb")
    assert (plan["settings"]["lr"], plan["settings"]["metric"]) == (1e-2, ["accuracy", "macro_f1"])
    assert planned("--task", "wic")["settings"]["lr"] == 1e-3
    given = "--lr 1 --epochs 2 --batch-size 3 --schedule constant --max-length 9 --train-size 4"
    own = planned("--task", "rte", *given.split(), "--validation-size", "7")["settings"]
    expected = [1.0, 2, 3, "constant", 9, 4, "all", 7]
    keys = "lr epochs batch_size schedule max_length train_size regime validation_size".split()
    assert [own[key] for key in keys] == expected
    classes = planned("--task", "rte", "--as", "classes")
    keys = "as_ lr epochs batch_size schedule max_length regime validation_size".split()
    usual = ["classes", 1e-3, 30, 16, "constant", 128, "all", None]
    assert [classes["settings"][key] for key in keys] == usual
    assert classes["head_scalars"] > 0 == plan["head_scalars"]
    refused(
        beftkit("train", "opt", "--task", "rte", "--regime", "high", "--dry-run"),
        "--regime high: rte has low; --train-size N",
        code=2,
    )


@pytest.mark.parametrize("bias", ["none", "k"])
def test_nothing_and_an_inert_bias_are_the_model_as_it_is(
    here: Path, beftkit: Beftkit, bias: str
) -> None:
    before = evaluated(beftkit, "opt", "--task", "sst2", "--data-dir", "data")
    ran = beftkit("train", "opt", *RUN, "--bias", bias, "-o", "still")
    assert ran.code == 0, ran
    found = results("still")
    assert found["runs"][0]["last"]["metrics"] == before["metrics"]
    assert found["head_scalars"] == 0
    steps = found["runs"][0]["steps"]
    assert steps == 0 if bias == "none" else steps > 0
    if bias == "k":
        assert "what the metrics show is the model as it was" in json.dumps(found)


def test_a_bias_that_is_not_there(here: Path, beftkit: Beftkit, tmp_path: Path) -> None:
    write_model(tmp_path / "llama", "llama", attention_bias=False)
    for command in ("train", "select"):
        ran = beftkit(command, "llama", *RUN, "-o", "out")
        refused(ran, "bias-free: no attention block has a", limit=500)
    refused(beftkit("fisher", "llama", *RUN[:4], "--quiet"), "bias-free", limit=500)
    refused(beftkit("train", "opt", *RUN, "--bias", "head", "-o", "out"), "has no classifier")


def test_prompts_that_are_cut_are_counted(here: Path, beftkit: Beftkit) -> None:
    given = ("opt", "--task", "sst2", "--data-dir", "data", "--max-length")
    whole, cut, least = (evaluated(beftkit, *given, length) for length in ("64", "6", "3"))
    assert whole["truncated"] == {"validation": 0}
    assert 0 < cut["truncated"]["validation"] < least["truncated"]["validation"] == 60
    ran = beftkit("evaluate", *given, "2", "--device", "cpu", "--quiet")
    refused(
        ran, "example 1 of 60: its longest answer leaves no room for the prompt within 2 tokens"
    )


def test_a_classifier_stays_possible(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit("train", "gpt2", *RUN, "--as", "classes", "--epochs", "1", "-o", "classes")
    assert ran.code == 0, ran
    assert results("classes")["head_scalars"] > 0
    found = evaluated(beftkit, "--adapter", "classes/adapter", "--data-dir", "data")
    assert found["metrics"] == results("classes")["runs"][0]["last"]["metrics"]
    ran = beftkit("evaluate", "--adapter", "classes/adapter", "--as", "choice")
    assert ran.code == 2 and "--as choice: it was trained as classes" in ran.err
    ran = beftkit("train", "gpt2", *RUN, "--as", "choice", "--new-head", "-o", "x")
    assert ran.code == 2 and "--new-head" in ran.err


def test_the_adapter_says_how_the_task_was_met(here: Path) -> None:
    from safetensors import safe_open

    for family, kind in (("opt", "BEFT"), ("gpt2", "LORA")):
        folder = here / f"out-{family}" / "adapter"
        config = json.loads((folder / "adapter_config.json").read_text())
        wanted = ("CAUSAL_LM", kind, None)
        assert tuple(config[k] for k in ("task_type", "peft_type", "modules_to_save")) == wanted
        with safe_open(folder / WEIGHTS_NAME, framework="np") as file:
            assert file.metadata()["beftkit.as"] == "choice"
        card = (folder / "README.md").read_text()
        assert "PeftModel.from_pretrained(base" in card and "--as choice" in card
        assert "pipeline_tag: text-generation" in card and "classification" not in card


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_the_same_scores(here: Path, family: str) -> None:
    peft = pytest.importorskip("peft")
    from beftkit.weights import apply_adapter

    objective = make_objective("choice", LABELS)
    loaded = objective.load(TrainSettings(model=family, task="sst2"), 0)
    data = load_task("sst2", data_dir="data", train=False, kind="choice")
    encoded = objective.encode(data.validation["validation"], loaded.tokenizer, 128)
    batch = encoded.batch(torch.arange(20))
    adapted = peft.AutoPeftModelForCausalLM.from_pretrained(f"out-{family}/adapter").eval()
    apply_adapter(loaded.model, f"out-{family}/adapter")
    with torch.no_grad():
        theirs, ours = (
            objective.losses(model, batch)[1] for model in (adapted.base_model.model, loaded.model)
        )
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_only_the_values_of_a_fused_bias_move(here: Path) -> None:
    import transformers

    from beftkit.weights import apply_adapter

    before, after = (transformers.AutoModelForCausalLM.from_pretrained("gpt2") for _ in range(2))
    apply_adapter(after, "out-gpt2/adapter")
    for name, value in after.named_parameters():
        moved = (value != before.get_parameter(name)).detach().numpy()
        if name.endswith("c_attn.bias"):
            third = len(moved) // 3
            assert not moved[: 2 * third].any() and moved[2 * third :].all()
        else:
            assert not moved.any()


def test_fisher_and_selection(here: Path, beftkit: Beftkit) -> None:
    found = document(beftkit("fisher", "opt", *RUN[:4], "--device", "cpu", "--format", "json"))
    assert found["settings"]["examples"] == 96
    assert found["roles"]["k"]["inert"] == "yes"
    assert found["target"] in ("q", "v")
    ran = beftkit(
        "select", "opt", *RUN, "--epochs", "1", "--candidates", "q,v", "--verify", "-o", "select"
    )
    assert ran.code == 0, ran
    chosen = json.loads(Path("select/select.json").read_text())
    (cell,) = chosen["cells"]
    assert set(cell["runs"]) == {"probe", "none", "q", "v", "all"}
    before = evaluated(beftkit, "opt", "--task", "sst2", "--data-dir", "data")
    assert cell["runs"]["none"]["last"] == before["metrics"]
    assert cell["cell"]["regime"] == "low"
    ran = beftkit(
        "select", "opt", *RUN, "--epochs", "1", "--candidates", "q,v", "--verify", "--resume",
        "-o", "select",
    )  # fmt: skip
    assert ran.code == 0, ran


def test_stopped_and_taken_up_it_comes_to_the_same_end(here: Path) -> None:
    given: dict[str, Any] = {
        "task": "sst2", "data_dir": "data", "lr": 0.05, "epochs": 2, "device": "cpu",
        "save_steps": 1, "track_steps": 1,
    }  # fmt: skip
    package.train("opt", output="whole", **given)
    asked = iter([*[0] * 6, 15])
    with pytest.raises(Interrupted):
        package.train("opt", output="out", asked_to_stop=lambda: next(asked), **given)
    assert 0 < saved_states.newest(Path("out")) < saved_states.newest(Path("whole"))
    package.train(output="out", resume=True)
    assert saved_states.same_runs(Path("whole"), Path("out"))


def test_a_changed_adapter_of_another_kind_is_told(here: Path) -> None:
    """Without a header the task type tells: an adapter that PEFT wrote."""
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree("out-opt/adapter", "plain")
    values = {name: np.array(value) for name, value in load_file(f"plain/{WEIGHTS_NAME}").items()}
    save_file(values, f"plain/{WEIGHTS_NAME}")
    given: dict[str, Any] = {"adapter": "plain", "task": "sst2", "data_dir": "data"}
    found = package.evaluate(device="cpu", **given)
    assert found.evaluation.metrics == results("out-opt")["runs"][0]["last"]["metrics"]
    with pytest.raises(BeftError, match="as_='classes': it was trained as choice"):
        package.evaluate(as_="classes", **given)
