"""`beftkit.inspect` of a model in memory says what it says of the same model in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import beftkit
from beftkit.errors import BeftError
from tests import tiny_models


def said(found: beftkit.Inspection) -> Any:
    """All but where it comes from."""
    return replace(found, checkpoint=replace(found.checkpoint, path="")).to_dict()


@pytest.mark.parametrize("family", ["bert-bare", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_of_its_folder(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_models.build(family, dtype)
    model.save_pretrained(tmp_path)
    wanted = beftkit.inspect(tmp_path)
    found = beftkit.inspect(model)
    assert said(found) == said(wanted) and found.roles
    assert found.checkpoint.path == f"<{type(model).__name__} in memory>"
    config = tmp_path / "config.json"
    assert said(beftkit.inspect(model.state_dict(), model_config=config)) == said(wanted)


def test_what_is_none(tmp_path: Path) -> None:
    for one in (["a", "b"], 1, {"text": "x"}):
        with pytest.raises(BeftError, match="was given; expected a path, a module or a state dict"):
            beftkit.inspect(one)
    with torch.device("meta"):
        model = torch.nn.MultiheadAttention(4, 2)
    with pytest.raises(BeftError, match="meta device"):
        beftkit.inspect(model)
