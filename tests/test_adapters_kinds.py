"""Adapters of PEFT's other kinds: scored where their file tells each bias, refused elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import beftkit
from beftkit.errors import BeftError
from tests import tiny_models

peft = pytest.importorskip("peft")


def made(tmp_path: Path, config: Any) -> tuple[Path, Path, Path]:
    """Folders of the base, an adapter with drawn values, and what PEFT's merge makes of both."""
    base, adapter, merged = (tmp_path / name for name in ("base", "adapter", "merged"))
    tiny_models.build("bert").save_pretrained(base)
    model = transformers.BertForSequenceClassification.from_pretrained(base)
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 10
    adapted.save_pretrained(adapter)
    adapted.merge_and_unload().save_pretrained(merged)
    return base, adapter, merged


@pytest.mark.filterwarnings("ignore:Unsupported layer type.*:UserWarning")
def test_ln_tuning_scores_like_its_merge(tmp_path: Path) -> None:
    base, adapter, merged = made(tmp_path, peft.LNTuningConfig(target_modules=["LayerNorm"]))
    ours, theirs = beftkit.score(base, adapter), beftkit.score(base, merged)
    assert ours.roles["ln1"].figures["projection"]
    for role, one in theirs.roles.items():
        assert ours.roles[role].figures == one.figures


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
def test_what_moves_biases_otherwise_is_refused(tmp_path: Path, task: str | None) -> None:
    """With a head there are biases in the file, and all others would count as unchanged."""
    config = peft.IA3Config(target_modules=["value"], feedforward_modules=[], task_type=task)
    base, adapter, merged = made(tmp_path, config)
    assert beftkit.score(base, merged).roles["v"].figures["projection"]
    with pytest.raises(BeftError, match="type IA3, whose merge may change biases") as caught:
        beftkit.score(base, adapter)
    assert "\n" not in str(caught.value)
