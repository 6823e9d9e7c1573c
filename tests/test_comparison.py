"""`beftkit.diff.comparison`: a probe's change as it trained, not as its merge is rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import beftkit
from beftkit.diff import comparison
from tests.adapted import trained

pytest.importorskip("peft")


def test_sums_stay_as_they_are_on_a_coarse_base(tmp_path: Path) -> None:
    base, _ = trained("bert", tmp_path / "adapter", torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    both = tmp_path / "base", tmp_path / "adapter"
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    exact = {
        name.partition("layer.")[2][0]: np.abs(change.astype(np.float64)).sum()
        for name, change in held.items()
        if name.endswith("value.beft_bias")
    }
    found = {str(one.layer): one for one in comparison(*both).sites if one.role == "v"}
    merged = {str(one.layer): one for one in beftkit.score(*both).sites if one.role == "v"}
    assert found.keys() == merged.keys() == exact.keys() and len(exact) == 2
    for layer, one in found.items():
        assert one.figures["magnitude_l1"] == pytest.approx(exact[layer], rel=1e-6)
        assert merged[layer].figures["magnitude_l1"] != pytest.approx(exact[layer], rel=1e-6)
