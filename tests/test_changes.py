"""What an adapter changes, against PEFT's own merge."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from beftkit.checkpoints import BiasSet, open_checkpoint, recognise_checkpoint
from beftkit.weights.changes import read_changes, same_name
from tests.tiny_models import build

peft = pytest.importorskip("peft")


def test_a_new_bias_and_one_that_is_added_to_it_add_up(tmp_path: Path) -> None:
    """LoRA with the base's biases, saved as values, and biases of its own, which are scaled."""
    base = build("bert")
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4, lora_alpha=6, lora_bias=True, bias="lora_only", target_modules=["value"]
    )
    model = peft.get_peft_model(copy.deepcopy(base), config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "value" in name and name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path / "adapter")
    checkpoint = open_checkpoint(tmp_path / "base")
    biases = BiasSet(checkpoint, recognise_checkpoint(checkpoint, checkpoint.config))
    found = read_changes(open_checkpoint(tmp_path / "adapter"), lambda: biases)
    before, after = base.state_dict(), model.merge_and_unload().state_dict()
    names = [f"bert.encoder.layer.{n}.attention.self.value.bias" for n in range(2)]
    assert [*found.biases] == names and not found.products
    for name in names:
        judge = (after[name].double() - before[name].double()).numpy()
        np.testing.assert_allclose(found.biases[name].change, judge, atol=1e-6)


def test_a_name_that_two_parameters_end_with_means_neither() -> None:
    two = ["text.layer.0.q.bias", "vision.layer.0.q.bias"]
    assert same_name("layer.0.q.bias", two) is None
    assert same_name("model.text.layer.0.q.bias", two) == two[0]
    assert same_name("layer.0.q.bias", two[1:]) == two[1]
    assert same_name("layer.0.q.bias", [*two, "layer.0.q.bias"]) == "layer.0.q.bias"
