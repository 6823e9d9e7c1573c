"""Adapters put onto live models: PEFT's merge is the judge; what does not fit changes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from beftkit.adapters import FORMATS, default_format
from beftkit.errors import BeftError
from beftkit.weights import adapter_info, apply_adapter, collect_tuned
from tests import tiny_models
from tests.adapted import same, trained
from tests.builders import write_model
from tests.hub_server import Hub
from tests.tiny_models import build

peft = pytest.importorskip("peft")
VALUE = "bert.encoder.layer.0.attention.self.value"


def peft_trained(case: str, config: Any, folder: Path) -> tuple[Any, Any]:
    """The base, and PEFT's merge after a few of its own steps; the adapter lies in the folder."""
    row = tiny_models.BY_ID[case]
    base = tiny_models.build(row)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(copy.deepcopy(base), config)
    free = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(free, lr=0.5)
    for _ in range(2):
        output = adapted(**tiny_models.batch(row, base))
        output[0].pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(folder)
    return base, adapted.merge_and_unload()


LORA = {"r": 4, "lora_alpha": 6, "lora_bias": True, "target_modules": ["query", "value"]}
CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "BEFT": ("bert", lambda: peft.BeftConfig(target_modules=["value"], task_type="SEQ_CLS")),
    "BEFT with LayerNorms": (
        "bert",
        lambda: peft.BeftConfig(target_modules=["value"], modules_to_save=["LayerNorm"]),
    ),
    "BEFT, all linear": ("opt", lambda: peft.BeftConfig(target_modules="all-linear")),
    "LoRA": ("bert", lambda: peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")),
    "LoRA with biases": ("bert", lambda: peft.LoraConfig(**LORA)),
    "rank-stabilised": ("bert", lambda: peft.LoraConfig(**LORA, use_rslora=True)),
    "patterns": (
        "bert",
        lambda: peft.LoraConfig(**LORA, rank_pattern={"value": 2}, alpha_pattern={"query": 3}),
    ),
    "bias=all": ("bert", lambda: peft.LoraConfig(r=2, target_modules=["query"], bias="all")),
    "bias=lora_only": (
        "bert",
        lambda: peft.LoraConfig(r=2, target_modules=["query"], bias="lora_only"),
    ),
    "fused": (
        "gpt2",
        lambda: peft.LoraConfig(
            r=2, lora_bias=True, target_modules=["c_attn"], fan_in_fan_out=True
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_peft_trained_gives_what_peft_merges(tmp_path: Path, name: str) -> None:
    case, config = CASES[name]
    base, merged = peft_trained(case, config(), tmp_path)
    assert not same(base, merged)
    before = copy.deepcopy(base)
    applied = apply_adapter(base, tmp_path)
    assert same(base, merged)
    ours, theirs = before.state_dict(), base.state_dict()
    changed = {key for key in ours if not torch.equal(ours[key], theirs[key])}
    assert changed <= {*applied.parameters} and applied.notes == ()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_sums_are_rounded_once_to_the_model_s_dtype(
    tmp_path: Path, dtype: torch.dtype, format: str
) -> None:
    base, model = trained("bert", tmp_path, dtype, format)
    apply_adapter(base, tmp_path)
    if dtype is torch.float64:  # the base and the change are float32: their sum need not be
        for key, value in model.state_dict().items():
            torch.testing.assert_close(base.state_dict()[key], value.double(), rtol=0, atol=1e-8)
    else:
        assert base.dtype == dtype and same(base, model.to(dtype))


def test_the_bare_model_s_prefix_may_be_missing_or_too_much(tmp_path: Path) -> None:
    bare, merged = peft_trained("bert-bare", peft.BeftConfig(target_modules=["value"]), tmp_path)
    task = build("bert")
    task.bert.load_state_dict(bare.state_dict())
    apply_adapter(task, tmp_path)
    assert same(task.bert, merged)
    base, model = trained("bert", tmp_path / "task", task_type=None)
    apply_adapter(base.bert, tmp_path / "task")
    assert same(base.bert, model.bert)


def test_what_an_adapter_says_of_itself(tmp_path: Path) -> None:
    for format in FORMATS:
        more = {"revision": "abc", "metadata": {"task": "sst2", "format": "mine"}}
        trained("bert", tmp_path / format, format=format, options={"num_labels": 3}, **more)
        info = adapter_info(tmp_path / format)
        assert (info.format, info.base, info.revision) == (format, "some/base", "abc")
        assert (info.task_type, info.num_labels) == ("SEQ_CLS", 3)
        assert info.metadata == {"task": "sst2"}
    trained("opt", tmp_path / "head", task_type=None, metadata={})
    info = adapter_info(tmp_path / "head")
    assert (info.task_type, info.revision, info.num_labels) == (None, None, None)


def test_an_adapter_on_the_hub(tmp_path: Path, hub: Hub) -> None:
    for format in FORMATS:
        base, model = trained("bert", tmp_path / format, format=format, metadata={"task": "rte"})
        hub.add(f"o/{format}", tmp_path / format)
        assert adapter_info(f"o/{format}@main").metadata == {"task": "rte"}
        applied = apply_adapter(base, f"o/{format}")
        assert same(base, model) and applied.metadata == {"task": "rte"}


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of an adapter."""
    path = next(folder.glob("*.safetensors"))
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def refused(model: Any, folder: Path, match: str) -> None:
    """Refused in one line, and nothing was changed."""
    before = copy.deepcopy(model)
    with pytest.raises(BeftError, match=match) as caught:
        apply_adapter(model, folder)
    assert "\n" not in str(caught.value)
    assert same(model, before)


BEFT, LORA_B = f"base_model.model.{VALUE}.beft_bias", f"base_model.model.{VALUE}.lora_B.weight"


def test_another_base_is_refused(tmp_path: Path) -> None:
    trained("bert", tmp_path)
    trained_on = r"a base model that does not match the adapter \(it was trained on some/base\)"
    refused(build("opt"), tmp_path, f"which this OPTForCausalLM has not; {trained_on}")
    wider = build("bert", hidden_size=48)
    refused(wider, tmp_path, rf"classifier.weight is \[2, 24\], but .* is \[2, 48\]; {trained_on}")
    rewrite(tmp_path, lambda tensors: tensors.update({BEFT: torch.ones(1, 5)}))
    refused(build("bert"), tmp_path, rf"is \[1, 5\], but {VALUE}.bias of this .* is \[24\]; a base")
    trained("bert", tmp_path)
    refused(build("bert", num_hidden_layers=1), tmp_path, "layer.1.*has not; a base model")
    labels = build("bert", num_labels=3)
    refused(labels, tmp_path, r"head has 2 labels, this model's 3 .*with num_labels=2")


def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    model, _ = trained("bert", tmp_path)
    rewrite(tmp_path, lambda tensors: tensors[BEFT].fill_(torch.nan))
    refused(model, tmp_path, "beft_bias holds NaN or infinity; nothing was changed")
    rewrite(tmp_path, lambda tensors: tensors.update({BEFT: torch.ones(1, 24, 1)}))
    refused(model, tmp_path, "a base model that does not match")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    refused(model, tmp_path, "cut short")
    trained("bert", tmp_path)
    config = tmp_path / "adapter_config.json"
    for text, match in (("{", "not valid JSON"), ("{}", "an adapter of type None")):
        config.write_text(text)
        refused(model, tmp_path, match)
    config.unlink()
    refused(model, tmp_path, "not an adapter; expected adapter_config.json with its weights")
    trained("bert", tmp_path / "lora", format="lora")
    for letter in "AB":
        missing = LORA_B.replace("_B", f"_{letter}")
        rewrite(tmp_path / "lora", lambda tensors: tensors.pop(missing))  # noqa: B023
        refused(model, tmp_path / "lora", f"{missing} is missing; is the adapter damaged")
        trained("bert", tmp_path / "lora", format="lora")
    rewrite(tmp_path / "lora", lambda tensors: tensors.update({LORA_B: torch.zeros(24, 2)}))
    refused(model, tmp_path / "lora", "are no pair of matrices")
    rewrite(tmp_path / "lora", lambda tensors: tensors.update({LORA_B: torch.zeros(24, 1).int()}))
    refused(model, tmp_path / "lora", "is stored as I32; expected one of")
    config = tmp_path / "lora" / "adapter_config.json"
    said = json.loads(config.read_text())
    for change in ({"r": 0}, {"r": "x"}, {"lora_alpha": None}, {"rank_pattern": {"(": 1}}):
        config.write_text(json.dumps({**said, **change}))
        refused(model, tmp_path / "lora", "adapter configuration: .*is it damaged")
    trained("bert", tmp_path)
    with torch.device("meta"):
        nowhere = transformers.BertForSequenceClassification(model.config)
    with pytest.raises(BeftError, match="not in memory"):
        apply_adapter(nowhere, tmp_path)


def test_what_is_no_adapter_of_ours_is_refused(tmp_path: Path) -> None:
    model = build("bert")
    refused(model, write_model(tmp_path / "model"), "not an adapter; expected adapter_config.json")
    refused(model, tmp_path / "nowhere", "no such file or folder")
    for name, config, match in (
        ("dora", peft.LoraConfig(r=2, target_modules=["query"], use_dora=True), "with use_dora"),
        ("ia3", peft.IA3Config(target_modules=["query"], feedforward_modules=[]), "type IA3"),
        ("pissa", peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights="pissa"),
         "init_lora_weights=pissa"),
        ("table", peft.LoraConfig(r=2, target_modules=["word_embeddings"]), "lora_embedding_A"),
    ):  # fmt: skip
        peft.get_peft_model(build("bert"), config).save_pretrained(tmp_path / name)
        refused(model, tmp_path / name, f"{match}.*with PEFT")


def test_what_training_changed_is_described() -> None:
    model = build("distilbert")
    layer = "distilbert.transformer.layer.0"
    names = [f"{layer}.attention.v_lin.bias", f"{layer}.output_layer_norm.bias"]
    before = {name: torch.zeros_like(model.get_parameter(name)) for name in names}
    found = {one.parameter: one for one in collect_tuned(model, before, task_type="SEQ_CLS")}
    assert {name: (one.kind, one.module, one.shape_in) for name, one in found.items()} == {
        names[0]: ("linear", f"{layer}.attention.v_lin", 24),
        names[1]: ("norm", f"{layer}.output_layer_norm", 0),
        **{
            f"{module}.{leaf}": ("head", module, 0)
            for module in ("pre_classifier", "classifier")
            for leaf in ("weight", "bias")
        },
    }
    value, norm = (model.get_submodule(name.rpartition(".")[0]) for name in names)
    assert not found[names[0]].pre.any() and found[names[0]].weight is None
    np.testing.assert_array_equal(found[names[0]].post, value.bias.detach().numpy())
    np.testing.assert_array_equal(found[names[1]].weight, norm.weight.detach().numpy())
    with pytest.raises(BeftError, match="nobody: no such parameter or module in DistilBert"):
        collect_tuned(model, {}, heads=["nobody"])


def test_kinds_of_other_families() -> None:
    """A pooler travels as its Linear; Conv1D, free biases and a norm with statistics are told."""
    pooled = collect_tuned(build("deberta-v2-c2p"), {}, heads=["pooler"])
    assert {(one.kind, one.module) for one in pooled} == {("head", "pooler.dense")}
    gpt2 = build("gpt2")
    fused = "transformer.h.1.attn.c_attn.bias"
    [one] = collect_tuned(gpt2, {fused: gpt2.get_parameter(fused)})
    assert (one.kind, one.shape_in, one.post.shape) == ("conv1d", 24, (72,))
    deberta = build("deberta")
    free = "deberta.encoder.layer.0.attention.self.q_bias"
    [one] = collect_tuned(deberta, {free: deberta.get_parameter(free)})
    assert (one.kind, one.module) == ("free", free.rpartition(".")[0])
    assert default_format([one])[0] == "biases"
    batch = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    [one] = collect_tuned(batch, {"0.bias": torch.zeros(3)})
    assert one.kind == "free"
