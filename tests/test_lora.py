"""`train --peft lora`: PEFT's own LoRA in our loop, saved, loaded, taken up and used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

import beftkit as package
from beftkit.adapters import CONFIG_NAME, WEIGHTS_NAME
from beftkit.errors import BeftError, UsageError
from beftkit.settings.resolve import resolve_train, settings_yaml
from beftkit.training.trainer import Interrupted
from beftkit.tuning import LoraTuner, choose_lora
from beftkit.weights import apply_adapter
from tests import saved_states, tiny_run
from tests.causal_models import write_model, write_sst2
from tests.command import Beftkit, misused, refused, tree
from tests.tiny_models import build

peft = pytest.importorskip("peft")

DATA: dict[str, tuple[str, ...]] = {
    "bert": ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl"),
    "opt": ("--task", "sst2", "--data-dir", "data"),
}
RUN = ("--peft", "lora", "--lr", "0.02", "--batch-size", "8", "--device", "cpu", "--quiet")
CLASSES = {
    "bert": transformers.AutoModelForSequenceClassification,
    "opt": transformers.AutoModelForCausalLM,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT and a tiny OPT with their data."""
    folder = tmp_path_factory.mktemp("made")
    tiny_run.write_base(folder / "bert")
    tiny_run.write_task(folder)
    write_sst2(folder / "data")
    write_model(folder / "opt", "opt", steps=60)
    return folder


@pytest.fixture(scope="module")
def runs(made: Path) -> Path:
    """A run of each by the command, in ``out-FAMILY``."""
    from typer.testing import CliRunner

    from beftkit.app import app

    before = {family: tree(made / family) for family in DATA}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        for family, data in DATA.items():
            words = ["train", family, *data, *RUN, "--epochs", "6", "-o", f"out-{family}"]
            ran = CliRunner().invoke(app, words)
            assert ran.exit_code == 0, ran.output
    assert {family: tree(made / family) for family in DATA} == before
    return made


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of one test, with links to all of that."""
    tiny_run.link(runs, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder: str) -> Any:
    return json.loads((Path(folder) / "all_results.json").read_text())


@pytest.mark.parametrize("family", DATA)
def test_the_loss_falls_and_evaluating_again_gives_the_metrics(
    here: Path, beftkit: Beftkit, family: str
) -> None:
    losses = [one["loss"] for one in saved_states.log(Path(f"out-{family}")) if "lr" in one]
    assert losses[-1] < 0.8 * losses[0]
    found = results(f"out-{family}")
    (run,) = found["runs"]
    assert run["adapter_format"] == "lora" and run["scores"] == {}
    assert run["last"]["metrics"]["accuracy"] > run["last"]["baselines"]["accuracy"]
    assert any("no projection scores" in note for note in run["notes"])
    # Rank 8 on q and v, 2 layers, as wide as the model.
    width = json.loads(Path(family, "config.json").read_text())["hidden_size"]
    assert found["scalars"] == 2 * 2 * 8 * 2 * width
    ran = beftkit("evaluate", f"out-{family}", "--device", "cpu", "--format", "json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["metrics"] == run["last"]["metrics"]


@pytest.mark.parametrize("family", DATA)
def test_stock_peft_loads_it_and_computes_the_same(here: Path, family: str) -> None:
    base = CLASSES[family].from_pretrained(family)
    ours = CLASSES[family].from_pretrained(family)
    theirs = peft.PeftModel.from_pretrained(base, f"out-{family}/adapter").eval()
    held = json.loads(Path(f"out-{family}/adapter/{CONFIG_NAME}").read_text())
    assert (held["r"], held["lora_alpha"], held["peft_type"]) == (8, 16, "LORA")
    assert held["task_type"] == {"bert": "SEQ_CLS", "opt": "CAUSAL_LM"}[family]
    apply_adapter(ours, f"out-{family}/adapter")
    ids = torch.arange(4, 16).reshape(2, 6)
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
        with theirs.disable_adapter():
            assert not torch.allclose(theirs(ids).logits, ours(ids).logits, atol=1e-3)


def test_peft_answers_as_the_run_did(here: Path) -> None:
    """The accuracy of the run by transformers and PEFT alone; and `predict`'s answers."""
    base = CLASSES["bert"].from_pretrained("bert")
    model = peft.PeftModel.from_pretrained(base, "out-bert/adapter").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("out-bert/adapter")
    rows = [json.loads(line) for line in Path("dev.jsonl").read_text().splitlines()]
    given = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.inference_mode():
        answers = [["neg", "pos"][one] for one in model(**given).logits.argmax(-1).tolist()]
    right = [row["label"] == answer for row, answer in zip(rows, answers, strict=True)]
    metrics = results("out-bert")["runs"][0]["last"]["metrics"]
    assert sum(right) / len(right) == pytest.approx(metrics["accuracy"], abs=1e-12)
    predictor = package.load(adapter="out-bert", device="cpu")
    assert [predictor(row["text"]).label for row in rows] == answers


@pytest.mark.parametrize("case", ["bert", "opt", "gpt2", "llama", "falcon-rw"])
def test_only_the_lora_and_the_head_change(case: str) -> None:
    model = build(case)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choice = choose_lora(model)
    task = "SEQ_CLS" if case == "bert" else "CAUSAL_LM"
    tuner = LoraTuner(model, choice, "cpu", task_type=task)
    training = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert training == {part.parameter: part.size for part in choice.parts}
    assert {part.kind for part in choice.parts} == (
        {"lora", "head"} if "bert" in case else {"lora"}
    )
    outputs = model(input_ids=torch.arange(3, 9).reshape(1, 6)).logits
    outputs.square().sum().backward()
    with torch.no_grad():
        for value in tuner.values:
            assert value.grad is not None
            value += 0.1
    tuner.write_back()
    tuner.close()
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in before if case == "bert" and name.startswith("classifier")}
    assert choose_lora(model).parts == choice.parts


@pytest.mark.parametrize("case", ["bert", "deberta-v2-c2p", "opt", "gpt2", "gpt-neox", "bloom",
                                  "qwen2", "llama", "gemma2", "bart"])  # fmt: skip
def test_it_lies_where_peft_would_put_it(case: str) -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    model = build(case)
    choice = choose_lora(model)
    ours = {part.parameter.partition(".lora_")[0] for part in choice.parts if part.kind == "lora"}
    leaves = KNOWN[model.config.model_type]
    assert ours == {n for n, _ in model.named_modules() if n.rpartition(".")[2] in leaves}
    fused = case in ("gpt2", "gpt-neox", "bloom")
    assert any("on the whole of it" in note for note in choice.notes) == fused


def test_projections_that_are_no_layers_are_refused() -> None:
    with pytest.raises(BeftError, match="DisentangledSelfAttention"):
        choose_lora(build("deberta"))
    with pytest.raises(BeftError, match="of this Linear are not known"):
        choose_lora(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("family", DATA)
def test_taken_up_it_comes_to_the_same_end(here: Path, family: str) -> None:
    """Bit by bit, dropout and a new head included, to the files of the adapter."""
    given: dict[str, Any] = {
        "peft": "lora", "lr": 0.02, "epochs": 2, "batch_size": 8, "device": "cpu", "save_steps": 1,
        "keep": "best",
    }  # fmt: skip
    if family == "opt":
        given |= {"task": "sst2", "data_dir": "data"}
    else:
        given |= {"train_file": "train.jsonl", "validation_file": "dev.jsonl"}
    package.train(family, output="whole", **given)
    asked = iter([*[0] * 6, 15])
    with pytest.raises(Interrupted):
        package.train(family, output="out", asked_to_stop=lambda: next(asked), **given)
    assert 0 < saved_states.newest(Path("out")) < saved_states.newest(Path("whole"))
    package.train(output="out", resume=True)
    assert saved_states.same_runs(Path("whole"), Path("out"))
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        assert Path("whole/adapter", name).read_bytes() == Path("out/adapter", name).read_bytes()


def test_a_pooler_drawn_anew_and_a_half_precision_head_travel(here: Path, beftkit: Beftkit) -> None:
    data = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl")
    model = transformers.BertModel.from_pretrained("bert", add_pooling_layer=False)
    model.save_pretrained("poolerless")
    transformers.AutoTokenizer.from_pretrained("bert").save_pretrained("poolerless")
    words = (*data, *RUN, "--epochs", "1", "--dtype", "bfloat16", "-o", "out")
    assert beftkit("train", "poolerless", *words).code == 0
    held = json.loads(Path("out/adapter", CONFIG_NAME).read_text())
    assert held["modules_to_save"] == ["bert.pooler.dense", "classifier", "score"]
    held = load_file(f"out/adapter/{WEIGHTS_NAME}")
    head = held["base_model.model.classifier.weight"]
    assert head.dtype == torch.float32 and not torch.equal(head, head.bfloat16().float())
    found = package.evaluate("out", device="cpu")
    assert any("which bfloat16 rounds" in note for note in found.notes)
    exact = package.load(adapter="out", device="cpu", dtype="float32")
    assert exact("a film").label in ("neg", "pos")


def test_what_is_said_of_it(here: Path, beftkit: Beftkit) -> None:
    refused(beftkit("score", "out-opt"), "this LORA adapter changes no bias")
    ran = beftkit("score", "out-bert")  # its head has biases, which are no part of the model's
    assert ran.code == 0 and "a LoRA that changes weights and no bias of the model" in ran.out
    card = Path("out-bert/adapter/README.md").read_text()
    assert "A LoRA (rank 8, alpha 16, on queries and values)" in card and "--peft lora" in card
    assert (
        "beftkit score" not in card and "--bias" not in card and "tags:\n- beftkit\n- lora" in card
    )
    ran = beftkit("train", "opt", *DATA["opt"], "--peft", "lora", "--dry-run")
    assert ran.code == 0 and "LoRA: a plan" in ran.out and "lora_A" in ran.out
    assert "lr 0.0002" in ran.out
    ran = beftkit("train", "opt", *DATA["opt"], "--peft", "lora", "--time")
    assert ran.code == 0 and "LoRA" in ran.out
    assert beftkit("export", "out-opt", "-o", "merged", "--quiet").code == 0
    assert "fine-tuned by LoRA" in Path("merged/README.md").read_text()


def test_settings() -> None:
    given = {"model": "m", "task": "sst2", "peft": "lora"}
    settings = resolve_train(None, given)
    assert settings.bias == "none" and settings.tuned == "LoRA"
    assert resolve_train(None, yaml.safe_load(settings_yaml(settings))) == settings
    assert resolve_train(None, {**given, "peft": None}).tuned == "bias v"
    for more in ({"layers": "0"}, {"adapter_format": "beft"}, {"save_snapshots": True},
                 {"track_steps": 2}, {"allow_partial": True}):  # fmt: skip
        with pytest.raises(UsageError, match=f"{next(iter(more))}.*: is of biases"):
            resolve_train(None, {**given, **more})


def test_a_bias_beside_it_is_wrong_usage(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit("train", "bert", *DATA["bert"], *RUN, "--bias", "v", "-o", "new")
    misused(ran, "--peft and --bias v were both given; expected one")
    misused(beftkit("train", "bert", *DATA["bert"], "--peft", "prefix", "-o", "new"), "lora")


def test_without_peft_one_line_says_what_to_install(
    here: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda n, *a: None if n == "peft" else found(n, *a))
    ran = beftkit("train", "bert", *DATA["bert"], *RUN, "-o", "new")
    refused(ran, "needs PEFT: pip install 'beftkit[baselines]'")
    assert not Path("new").exists()
