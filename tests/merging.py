"""Bases and PEFT's adapters for merges: tiny, with biases drawn, so that nothing hides in zeros."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
IDS = torch.arange(3, 20)[None]


def draw(model: torch.nn.Module, seed: int = 0) -> Any:
    """Every parameter drawn anew, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def write_base(folder: Path, config: Any, auto: str = "AutoModelForCausalLM", **saving: Any) -> Any:
    """A drawn model of this configuration, saved; returns it."""
    model = draw(getattr(transformers, auto).from_config(config))
    dtype = saving.pop("dtype", None)
    model = model if dtype is None else model.to(dtype)
    model.save_pretrained(folder, **saving)
    return model


def modules(model: torch.nn.Module, *ends: str) -> list[str]:
    """Names of modules that end so."""
    return [name for name, _ in model.named_modules() if name.endswith(ends)]


def write_beft(
    folder: Path, model: Any, names: Iterable[str], *, task: str | None = "CAUSAL_LM",
    base: str = "base", seed: int = 1, more: dict[str, torch.Tensor] | None = None,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda x: x, **config: Any,
) -> Path:  # fmt: skip
    """PEFT's BEFT by hand: a drawn change of each module's output."""
    generator = torch.Generator().manual_seed(seed)
    names, tensors = list(names), {}
    for name in names:
        module = model.get_submodule(name)
        width = getattr(module, "out_features", None) or module.nf
        drawn = change(0.3 * torch.randn(1, width, generator=generator))
        tensors[f"base_model.model.{name}.beft_bias"] = drawn
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensor in (more or {}).items():
        tensors[f"base_model.model.{name}"] = tensor
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    said = {
        "peft_type": "BEFT", "task_type": task, "base_model_name_or_path": base,
        "target_modules": names, "inference_mode": True, **config,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def loaded(folder: Path, auto: str = "AutoModelForCausalLM", **options: Any) -> Any:
    """A merged folder as stock transformers loads it: nothing lacks, nothing is too much."""
    model, info = getattr(transformers, auto).from_pretrained(
        folder, output_loading_info=True, **options
    )
    assert not any(info.values()), info
    return model.eval()


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder; none in two files."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        held = load_file(path)
        assert not found.keys() & held.keys()
        found |= held
    return found


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """What a model answers; copied first: how tensors lie in a mapped file decides last bits."""
    found: torch.Tensor = copy.deepcopy(model)(ids).logits
    return found
