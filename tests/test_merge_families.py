"""Classifiers whose files call, fuse or nest things otherwise than the running model does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

import beftkit
from beftkit.adapters import Tuned, write_adapter
from beftkit.errors import BeftError
from tests.tiny_classifiers import FAMILIES, write_classifier

AUTO = transformers.AutoModelForSequenceClassification


@pytest.mark.parametrize("form", ["bare", "whole"])
@pytest.mark.parametrize(
    "kind", ["albert", "deberta-v2", "gemma3", "gte", "jina_embeddings_v3", "ultrabert"]
)
def test_every_bias_and_the_head_arrive(kind: str, form: str, tmp_path: Path) -> None:
    if kind not in FAMILIES or kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    base = write_classifier(tmp_path / "whole", kind)
    model = AUTO.from_pretrained(base).eval()
    if form == "bare":
        base = shutil.copytree(base, tmp_path / "bare")
        for path in base.glob("*.safetensors*"):
            path.unlink()
        model.base_model.save_pretrained(base)
    wanted = {name: one.clone() for name, one in model.state_dict().items()}
    generator, tuned = torch.Generator().manual_seed(0), []
    for name, one in model.named_parameters():
        head = not name.startswith(f"{model.base_model_prefix}.") or "pooler" in name.split(".")
        if head or (name.endswith("bias") and one.dim() == 1):
            after = one.detach() + torch.randn(one.shape, generator=generator)
            wanted[name] = after
            module = name.rpartition(".")[0]
            kind_ = "head" if head else "free"
            pair = one.detach().numpy(), after.numpy()
            tuned.append(Tuned(name, kind_, module, 0, *pair))  # type: ignore[arg-type]
    said = {"beftkit.as": "classes", "beftkit.labels": json.dumps(["no", "yes"])}
    write_adapter(tmp_path / "adapter", tuned, format="biases", base=str(base), task_type="SEQ_CLS",
                  metadata=said)  # fmt: skip
    if kind == "jina_embeddings_v3":  # its LayerNorm of embeddings is called otherwise in files
        with pytest.raises(BeftError, match=r"changes .*embeddings\.LayerNorm\.bias, which"):
            beftkit.merge(base, tmp_path / "adapter", tmp_path / "out")
        return
    found = beftkit.merge(base, tmp_path / "adapter", tmp_path / "out")
    assert found.labels == ("no", "yes")
    whole, info = AUTO.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    held = whole.state_dict()
    assert held.keys() == wanted.keys()
    assert [name for name in held if not torch.equal(held[name], wanted[name])] == []
