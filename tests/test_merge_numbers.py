"""In which dtype a merge adds, and what it refuses to store: to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.checkpoints import open_checkpoint
from beftkit.errors import BeftError
from beftkit.weights.merging import main_dtype
from beftkit.weights.values import Ledger
from tests.merging import SIZES, modules, tensors_of, write_base, write_beft

peft = pytest.importorskip("peft")


def qwen2(folder: Path, **saving: Any) -> Any:
    return write_base(folder, transformers.Qwen2Config(**SIZES), **saving)


def changes(adapter: Path) -> dict[str, torch.Tensor]:
    """Of a BEFT adapter's file: bias -> what is added to it."""
    held = load_file(adapter / "adapter_model.safetensors")
    return {
        name.removeprefix("base_model.model.").replace("beft_bias", "bias"): one[0]
        for name, one in held.items()
    }


@pytest.mark.filterwarnings("ignore:Adapter 'default'.*:UserWarning")
def test_a_scaled_bias_is_added_as_peft_adds_it(tmp_path: Path) -> None:
    """In float32: times a scale of 5/3, which rounds, and then to the base's, which rounds."""
    model = qwen2(tmp_path / "base")
    config = peft.LoraConfig(r=3, lora_alpha=5, lora_bias=True, target_modules=["v_proj"])
    made = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name and name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    made.save_pretrained(tmp_path / "adapter")
    beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    found, judge = tensors_of(tmp_path / "out"), made.merge_and_unload().state_dict()
    names = [name for name in found if name.endswith("v_proj.bias")]
    assert len(names) == 2
    for name in names:
        assert torch.equal(found[name], judge[name])


def test_a_base_is_rounded_to_the_wanted_dtype_before_anything_is_added(tmp_path: Path) -> None:
    model = qwen2(tmp_path / "base")
    write_beft(tmp_path / "adapter", model, modules(model, "v_proj"))
    beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", dtype="bfloat16")
    before, after = (tensors_of(tmp_path / name) for name in ("base", "out"))
    twice = 0
    for name, change in changes(tmp_path / "adapter").items():
        judge = (before[name].bfloat16().float() + change).bfloat16()
        assert torch.equal(after[name], judge)
        twice += int((judge != (before[name] + change).bfloat16()).sum())
    assert twice > 0, "to round once would be another value"


def test_a_sum_beyond_the_base_s_dtype_is_refused(tmp_path: Path) -> None:
    model = qwen2(tmp_path / "base", dtype=torch.float16)
    far: Any = {"change": lambda one: one + 7e4}
    write_beft(tmp_path / "adapter", model, modules(model, "v_proj"), **far)
    with pytest.raises(BeftError, match=r"v_proj.bias is no number of F16"):
        beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_weight_that_is_replaced_and_multiplied_is_refused(tmp_path: Path) -> None:
    """Either of both alone would be another model."""
    model = qwen2(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    made = peft.get_peft_model(model, config)
    made.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    held = load_file(file)
    name = "base_model.model.model.layers.1.self_attn.v_proj.weight"
    save_file({**held, name: torch.ones(16, 32)}, file)
    with pytest.raises(BeftError, match=r"changes model.layers.1.self_attn.v_proj.weight twice"):
        beftkit.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")


def test_elements_that_nothing_moves_are_not_lost_to_rounding() -> None:
    ledger = Ledger()
    before = np.array([1.0, 1.0, 1.0, 2.0])
    ledger.add(before, np.array([1.0, 1.0001, 1.5, 2.0]), "BF16")
    ledger.add(before, before, "BF16")
    [one] = ledger.roundings()
    assert (one.biases, one.unchanged, one.elements) == (1, 1, 2)
    assert one.lost == pytest.approx(1e-4 / (0.25 + 1e-8) ** 0.5)


def test_the_main_dtype_is_that_of_most_bytes_not_of_most_tensors(tmp_path: Path) -> None:
    held = {
        "model.embed.weight": torch.zeros(8, 8, dtype=torch.bfloat16),
        **{f"model.layers.{n}.norm.weight": torch.zeros(2) for n in range(4)},
        "model.table": torch.zeros(99, dtype=torch.int64),
    }
    save_file(held, tmp_path / "model.safetensors")
    assert main_dtype(open_checkpoint(tmp_path / "model.safetensors")) == "BF16"
