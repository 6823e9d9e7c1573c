"""Adapters as POST: what stock PEFT trained and saved, scored against what stock PEFT merges."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

import beftkit
from beftkit.adapters import Scales, Step, bias_steps
from beftkit.errors import BeftError, UsageError
from beftkit.weights import apply_adapter
from tests import tiny_models
from tests.hub_fixtures import outside
from tests.hub_server import Hub

peft = pytest.importorskip("peft")


def trained(model: Any, config: Any, batch: dict[str, Any]) -> Any:
    """A few real steps of stock PEFT."""
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config)
    free = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(free, lr=0.5)
    for _ in range(3):
        output = adapted(**batch)
        loss = (output[0] if output[0].dim() else output[1]).float().pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return adapted


def saved(tmp_path: Path, case: str, config: Any) -> tuple[Path, Path, Path]:
    """Folders of the base, the adapter, and the base after PEFT's own merge."""
    row = tiny_models.BY_ID[case]
    base, adapter, merged = (tmp_path / name for name in ("base", "adapter", "merged"))
    tiny_models.build(row).save_pretrained(base)
    model = getattr(transformers, row.model).from_pretrained(base).eval()
    adapted = trained(model, config, tiny_models.batch(row, model))
    adapted.save_pretrained(adapter)
    adapted.merge_and_unload().save_pretrained(merged)
    return base, adapter, merged


BEFT = {"target_modules": ["value"], "modules_to_save": []}
LORA = {"r": 4, "lora_alpha": 6, "lora_bias": True, "target_modules": ["query", "value"]}
CASES = {
    "BEFT on BERT": ("bert-bare", lambda: peft.BeftConfig(target_modules=["value"])),
    "BEFT on OPT": ("opt", lambda: peft.BeftConfig(target_modules=["q_proj"])),
    "LoRA with lora_bias": ("bert-bare", lambda: peft.LoraConfig(**LORA)),
    "rank-stabilised LoRA": ("bert-bare", lambda: peft.LoraConfig(**LORA, use_rslora=True)),
    "LoRA with patterns": (
        "bert-bare",
        lambda: peft.LoraConfig(**LORA, rank_pattern={"value": 2}, alpha_pattern={"query": 3}),
    ),
    "LoRA with bias=all": (
        "bert-bare",
        lambda: peft.LoraConfig(r=2, target_modules=["query"], bias="all"),
    ),
    "fused LoRA on GPT-2": (
        "gpt2",
        lambda: peft.LoraConfig(
            r=2, lora_bias=True, target_modules=["c_attn"], fan_in_fan_out=True
        ),
    ),
    "LayerNorms in modules_to_save": (
        "bert-bare",
        lambda: peft.BeftConfig(target_modules=["value"], modules_to_save=["LayerNorm"]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_scores_like_its_merge(tmp_path: Path, name: str) -> None:
    case, config = CASES[name]
    base, adapter, merged = saved(tmp_path, case, config())
    found, want = beftkit.score(base, adapter), beftkit.score(base, merged)
    assert found.changed
    assert found.post.base == str(base)
    moved = 0
    for ours, theirs in zip(found.sites, want.sites, strict=True):
        assert (ours.name, ours.slice) == (theirs.name, theirs.slice)
        for figure in ("projection", "magnitude_l1", "norm_post"):
            assert ours.figures[figure] == pytest.approx(theirs.figures[figure], rel=1e-12)
        moved += ours.figures["projection"] > 0
    assert 0 < moved
    if name.startswith("BEFT"):
        assert moved == len(found.roles[found.target or ""].sites)


def test_pre_may_be_left_out_when_the_adapter_names_its_base(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, "bert-bare", peft.BeftConfig(target_modules=["value"]))
    assert beftkit.score(None, adapter).roles == beftkit.score(base, adapter).roles
    with pytest.raises(UsageError, match="PRE is needed"):
        beftkit.score(None, base)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(BeftError, match="does not name its base"):
        beftkit.score(None, adapter)


def test_what_is_not_a_bias_is_ignored_and_said(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, "bert-bare", peft.LoraConfig(**LORA))
    notes = beftkit.score(base, adapter).notes
    assert any("ignored 8 tensors of the adapter that are not biases" in note for note in notes)


def test_a_lora_without_biases_is_refused(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, "bert-bare", peft.LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(BeftError, match="LORA adapter changes no bias"):
        beftkit.score(base, adapter)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, "bert-bare", peft.BeftConfig(target_modules=["value"]))
    tensors = {"base_model.model.encoder.layer.0.attention.self.value.beft_bias": torch.ones(1, 5)}
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(BeftError, match=r"has 5 elements, but that bias of .* has 24"):
        beftkit.score(base, adapter)


def test_biases_that_the_base_has_not_are_noted(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, "bert-bare", peft.BeftConfig(target_modules=["value"]))
    tensors = {
        "base_model.model.encoder.layer.0.attention.self.value.beft_bias": torch.ones(1, 24),
        "base_model.model.somewhere.else.beft_bias": torch.ones(1, 24),
    }
    save_file(tensors, adapter / "adapter_model.safetensors")
    notes = beftkit.score(base, adapter).notes
    assert any("adds 1 biases that the base has not" in note for note in notes)


def test_inspecting_an_adapter_points_to_its_base(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, "bert-bare", peft.BeftConfig(target_modules=["value"]))
    with pytest.raises(BeftError, match=rf"an adapter.*inspect its base \({base}\)"):
        beftkit.inspect(adapter)


def test_names_and_scales() -> None:
    prefix = "base_model.model.bert.encoder.layer.0."
    steps, rest = bias_steps(
        {"r": 4, "lora_alpha": 8},
        [
            f"{prefix}attention.self.query.lora_B.bias",
            f"{prefix}attention.self.query.lora_B.weight",
            f"{prefix}attention.self.value.base_layer.bias",
            f"{prefix}output.LayerNorm.modules_to_save.default.bias",
        ],
    )
    assert [
        (s.parameter.removeprefix("bert.encoder.layer.0."), s.kind, s.scale) for s in steps
    ] == [
        ("attention.self.query.bias", "add", 2.0),
        ("attention.self.value.bias", "replace", 1.0),
        ("output.LayerNorm.bias", "replace", 1.0),
    ]
    assert len(rest) == 1
    config = {"r": 4, "lora_alpha": 8, "use_rslora": True, "rank_pattern": {"query": 16}}
    assert Scales(config).of("a.query") == 2.0
    assert Scales(config).of("a.value") == 4.0


MODULE = "bert.encoder.layer.0.attention.self.value"
ENDLESS = {
    "backtracking": r"([a-z]|[a-z.]|[^q]|\d)*[0-9]{3}",
    "repeats written out": "(?:(?:(?:a{1000}){1000}){1000}){1000}",
    "one great repeat": "(?:.?){0,999999999}x",
    "long": "(a|b)" * 1000,
}


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_pattern_without_end_is_named(kind: str, key: str) -> None:
    pattern = ENDLESS[kind]
    start = time.monotonic()
    with pytest.raises(BeftError, match=f"{key} .*takes for ever to match") as refused:
        Scales({key: {pattern: 8}}).of(MODULE)
    assert repr(pattern)[:30] in str(refused.value) and "\n" not in str(refused.value)
    assert time.monotonic() - start < 120


def test_patterns_mean_what_they_mean_in_peft() -> None:
    from peft.utils.other import get_pattern_key

    patterns = ["value", "self.value", r"layer\.[0-3]\..*value", MODULE, "alue", "^bert.*key"]
    patterns.append(r".*\.1[02]\..*(query|value)")
    patterns.append(r"encoder\.layer\.(\d{1,2})\.attention\.self\.(?!key).*")
    modules = [
        f"bert.encoder.layer.{layer}.attention.{part}"
        for layer in (0, 1, 3, 10, 12, 21)
        for part in ("self.query", "self.key", "self.value", "output.dense")
    ]
    for pattern in patterns:
        scales = Scales({"r": 4, "lora_alpha": 4, "alpha_pattern": {pattern: 8}})
        for module in modules:
            want = 2.0 if get_pattern_key([pattern], module) == pattern else 1.0
            assert scales.of(module) == want, (pattern, module)


def test_an_adapter_with_a_pattern_without_end_ends(tmp_path: Path) -> None:
    """Scored and put on: both read the patterns."""
    base, adapter, _ = saved(
        tmp_path, "bert-bare", peft.LoraConfig(r=2, lora_bias=True, target_modules=["value"])
    )
    said = json.loads((adapter / "adapter_config.json").read_text())
    said["rank_pattern"] = {ENDLESS["backtracking"]: 8}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    for call in (
        lambda: beftkit.score(base, adapter),
        lambda: apply_adapter(tiny_models.build("bert-bare"), adapter),
    ):
        with pytest.raises(BeftError, match="takes for ever to match"):
            call()


def test_a_step_sums_alike_in_numpy_and_torch() -> None:
    """To the bit, in float32 and in float64: what is scored is what a merge gives."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        before, given = rng.normal(size=(2, 1000)).astype(dtype)
        for step in (Step("add", "a.bias", ("t",), 1 / 3), Step("replace", "a.bias", ("t",))):
            ours = step.after(before, [given])
            theirs = step.after(torch.from_numpy(before), [torch.from_numpy(given)])
            assert ours.dtype == dtype and np.array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("name", ["o/tiny", "tiny"])
def test_adapter_and_base_on_the_hub(tmp_path: Path, hub: Hub, name: str) -> None:
    """``beftkit score owner/adapter``: the base is fetched by the name that the adapter has."""
    base, adapter, _ = saved(tmp_path, "bert-bare", peft.BeftConfig(target_modules=["value"]))
    want = beftkit.score(base, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = name
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    hub.add(name, base)
    hub.add("o/adapter", adapter)
    found = beftkit.score(None, "o/adapter")
    assert found.roles == want.roles
    assert name in str(found.post.base)


def test_a_pickle_on_the_hub_needs_a_download(tmp_path: Path, hub: Hub) -> None:
    row = tiny_models.BY_ID["bert-bare"]
    folder = tmp_path / "bin"
    folder.mkdir()
    model = tiny_models.build(row)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    hub.add("o/pickled", folder)
    with pytest.raises(BeftError, match="download=True"):
        beftkit.score("o/pickled", folder)
    ran = outside(hub, tmp_path / "home", "score", "o/pickled", folder, "--download")
    assert (ran.code, ran.err) == (0, "")
    assert "nothing changed" in ran.out
