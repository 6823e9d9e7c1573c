"""Our adapters in stock PEFT, beyond docs/formats.md: language models, controls, swapping."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from beftkit.adapters import FORMATS, write_adapter
from beftkit.weights import apply_adapter, collect_tuned
from tests import tiny_models
from tests.adapted import same, trained
from tests.tiny_models import build

peft = pytest.importorskip("peft")


@pytest.mark.parametrize(("case", "formats"), [("opt", FORMATS), ("gpt2", FORMATS[1:])])
def test_language_models_in_peft(tmp_path: Path, case: str, formats: tuple[str, ...]) -> None:
    row = tiny_models.BY_ID[case]
    for format in formats:
        folder = tmp_path / format
        build(case).save_pretrained(tmp_path / "base")
        _, model = trained(
            case, folder, format=format, base=str(tmp_path / "base"), task_type="CAUSAL_LM"
        )
        base = getattr(transformers, row.model).from_pretrained(tmp_path / "base")
        apply_adapter(base, folder)
        assert same(base, model)
        if format != "biases":
            merged = peft.AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()
            assert same(merged, model)


@pytest.mark.parametrize("format", FORMATS[:2])
def test_a_head_and_layernorms_alone_in_peft(tmp_path: Path, format: str) -> None:
    """The controls: no bias of a Linear is changed, and PEFT wants a target all the same."""
    base = build("bert")
    model = copy.deepcopy(base)
    name = "bert.encoder.layer.1.output.LayerNorm.bias"
    with torch.no_grad():
        model.classifier.weight.mul_(2)
        model.get_parameter(name).add_(1)
    for before in ({}, {name: base.get_parameter(name)}):
        what = collect_tuned(model, before, task_type="SEQ_CLS")
        write_adapter(tmp_path, what, format=format, base="b", task_type="SEQ_CLS", metadata={})
        merged = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).merge_and_unload()
        want = copy.deepcopy(model)
        if not before:
            want.bert = base.bert
        assert same(merged, want)
        other = copy.deepcopy(base)
        apply_adapter(other, tmp_path)
        assert same(other, want)


def test_many_layers_in_peft(tmp_path: Path) -> None:
    """From 20 targets on PEFT replaces full names by the shortest endings that still fit."""
    base, model = trained(
        "bert", tmp_path, options={"num_hidden_layers": 23}, task_type=None, format="beft"
    )
    model.classifier = copy.deepcopy(base.classifier)  # without a task type no head is kept
    merged = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).merge_and_unload()
    assert same(merged, model)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == 23


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias:UserWarning")
@pytest.mark.filterwarnings("ignore:.*targeted layer of type Linear has no bias:UserWarning")
def test_biases_that_the_base_has_not(tmp_path: Path) -> None:
    base = build("llama", attention_bias=False)
    model = copy.deepcopy(base)
    names = [f"model.layers.{layer}.self_attn.v_proj" for layer in range(2)]
    for name in names:
        bias = torch.linspace(-1, 1, 16)
        model.get_submodule(name).bias = torch.nn.Parameter(bias)
    before = {f"{name}.bias": torch.zeros(16) for name in names}
    what = collect_tuned(model, before, added=before)
    assert all(one.added and not one.pre.any() for one in what)
    for format in FORMATS:
        notes = write_adapter(
            tmp_path / format, what, format=format, base="b", task_type=None, metadata={}
        )
        other = copy.deepcopy(base)
        applied = apply_adapter(other, tmp_path / format)
        batch = tiny_models.batch(tiny_models.BY_ID["llama"], base)
        logits = other(**batch).logits
        torch.testing.assert_close(logits, model(**batch).logits, rtol=0, atol=1e-5)
        assert "added 2 biases that the base has not" in applied.notes[0]
        if format != "biases":
            assert "cannot merge" in notes[0]
            adapted = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / format)
            assert torch.equal(adapted.eval()(**batch).logits, logits)


def said(model: Any, **more: Any) -> torch.Tensor:
    """Logits for a fixed batch of four."""
    ids = torch.randint(2, 50, (4, 7), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids, **more).logits
    return found


def test_two_adapters_of_one_gpt2(tmp_path: Path) -> None:
    """Mixed in a batch, and swapped in place."""
    more = {"format": "lora", "task_type": "CAUSAL_LM"}
    base, first = trained("gpt2", tmp_path / "1", **more)
    _, second = trained("gpt2", tmp_path / "2", seed=4, **more)
    want = [said(model) for model in (first, second, base)]
    assert (want[0] - want[1]).abs().max() > 0.01
    both = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "1", adapter_name="one")
    both.load_adapter(tmp_path / "2", "two")
    mixed = said(both, adapter_names=["one", "two", "__base__", "one"])
    rows = torch.stack([want[which][row] for row, which in enumerate((0, 1, 2, 0))])
    torch.testing.assert_close(mixed, rows, rtol=0, atol=1e-5)
    both.set_adapter("two")
    torch.testing.assert_close(said(both), want[1], rtol=0, atol=1e-5)
    swapped = copy.deepcopy(base)
    swapped.load_adapter(str(tmp_path / "1"), adapter_name="default")
    torch.testing.assert_close(said(swapped), want[0], rtol=0, atol=1e-5)
    swapped.load_adapter(str(tmp_path / "2"), adapter_name="default", hotswap=True)
    torch.testing.assert_close(said(swapped), want[1], rtol=0, atol=1e-5)
    from peft.utils.hotswap import hotswap_adapter

    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "1")
    hotswap_adapter(wrapped, str(tmp_path / "2"), adapter_name="default")
    torch.testing.assert_close(said(wrapped), want[1], rtol=0, atol=1e-5)
