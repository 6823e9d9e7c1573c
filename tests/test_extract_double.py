"""`beftkit.extract` on a float64 base: what it says is missed is what a merge misses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import beftkit
from tests.test_extract import moved, on_base, values
from tests.tiny_models import build

pytest.importorskip("peft")


@pytest.mark.parametrize("format", ["beft", "biases"])
@pytest.mark.parametrize("fine", [True, False])
def test_what_is_missed_is_what_a_merge_misses(tmp_path: Path, format: str, fine: bool) -> None:
    """Of values that float32 holds too the sum in float64 may still be another."""
    base = moved(build("opt", torch.float64), values, seed=2)  # its biases begin at zero
    post = moved(base, values)
    post = post if fine else post.float().double()
    base.save_pretrained(tmp_path / "pre")
    post.save_pretrained(tmp_path / "post")
    found = beftkit.extract(
        tmp_path / "pre", tmp_path / "post", output=tmp_path / "a", adapter_format=format
    )
    wanted, live = post.state_dict(), on_base(base, tmp_path / "a").state_dict()
    beftkit.merge(tmp_path / "pre", tmp_path / "a", output=tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    names = [name for name in merged if name.endswith("v_proj.bias")]
    assert names and all(torch.equal(merged[name], live[name]) for name in names)
    assert all(merged[name].dtype == torch.float64 for name in names)
    missed = sum(int((live[name] != wanted[name]).sum()) for name in names)
    assert found.unreached == missed and found.rounded == 0
    assert (missed > 0) is (fine or format == "beft")
    said = [note for note in found.notes if "miss POST's value" in note or "finer than" in note]
    assert len(said) == (missed > 0)
    assert all("by a rounding to float32" in note and "base is in float64" in note for note in said)


def test_biases_without_a_role_are_counted_too(tmp_path: Path) -> None:
    """They are among the scalars of which so many are missed: BERT's embeddings have one."""
    base = moved(build("bert", torch.float64), lambda name: "bias" in name, seed=2)
    post = moved(base, lambda name: name == "bert.embeddings.LayerNorm.bias")
    base.save_pretrained(tmp_path / "pre")
    post.save_pretrained(tmp_path / "post")
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", "all", output=tmp_path / "a")
    wanted, got = post.state_dict(), on_base(base, tmp_path / "a").state_dict()
    names = [one for one in wanted if one.endswith("bias") and "encoder" in one]
    names.append("bert.embeddings.LayerNorm.bias")
    assert found.scalars == sum(wanted[name].numel() for name in names)
    assert found.unreached == sum(int((got[name] != wanted[name]).sum()) for name in names) > 0
