"""Tiny models with other biases, and the adapters that make them of their bases."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from beftkit.adapters import storable, write_adapter
from beftkit.weights import collect_tuned
from tests.tiny_models import build


def same(model: Any, other: Any) -> bool:
    """Whether two models hold equal parameters."""
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def trained(
    case: str, folder: Path, dtype: torch.dtype = torch.float32, format: str = "beft", **more: Any
) -> tuple[Any, Any]:
    """A base, the same with other value biases and head, and its adapter in the folder."""
    base = build(case, dtype, **more.pop("options", {}))
    model, before = copy.deepcopy(base).float(), {}
    generator = torch.Generator().manual_seed(more.pop("seed", 3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in ("value.bias", "v_proj.bias", "c_attn.bias")):
                before[name] = parameter.clone()
                noise = torch.randn(parameter.shape, generator=generator) / 10
                reached = storable(parameter.numpy(), (parameter + noise).numpy())
                parameter.copy_(torch.from_numpy(reached))
            elif name.startswith("classifier"):
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    given = {"base": "some/base", "task_type": "SEQ_CLS", "metadata": {}, **more}
    what = collect_tuned(model, before, task_type=given["task_type"])
    write_adapter(folder, what, format=format, **given)
    return base, model
