"""Adapters as found: which biases their files change, and how.

Pure reading of names and configuration; values stay with whoever opened the file. Formats checked
against peft 0.21: BEFT stores ``<module>.beft_bias`` ``[1, out]``, a change; LoRA with
``lora_bias`` stores ``<module>.lora_B.bias`` ``[out]``, a change scaled by alpha / r; whole biases
(``bias="all"``, ``modules_to_save``, and our own format) replace those of the base.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from beftkit.errors import BeftError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
#: our own format: new values by runtime name; its header says what PEFT keeps in a configuration
BIASES_NAME = "biases.safetensors"
OWN_KEYS = {
    key: f"beftkit_{key}" for key in ("format", "base_model_name_or_path", "revision", "task_type")
}
_WRAPPERS = {"base_layer", "modules_to_save", "default"}


@dataclass(frozen=True)
class Change:
    """What one tensor of an adapter does to one bias of the base.

    Attributes:
        tensor: its name in the adapter's file.
        parameter: the bias parameter at runtime, ``...query.bias``, as the base model names it.
        kind: ``add`` scale x values to the bias, or ``replace`` it.
        scale: factor of the values.
    """

    tensor: str
    parameter: str
    kind: Literal["add", "replace"]
    scale: float = 1.0


def bias_changes(config: Mapping[str, Any], names: Iterable[str]) -> tuple[list[Change], list[str]]:
    """Sort an adapter's tensors into changes of biases and the rest.

    Args:
        config: its ``adapter_config.json``.
        names: the tensors in its file.

    Returns:
        The changes, and the names of tensors that are not biases.
    """
    changes, rest = [], []
    for name in names:
        module, _, leaf = plain(name).rpartition(".")
        if leaf == "beft_bias":
            changes.append(Change(name, f"{module}.bias", "add"))
        elif leaf == "bias" and module.endswith(".lora_B"):
            module = module.removesuffix(".lora_B")
            changes.append(Change(name, f"{module}.bias", "add", lora_scale(config, module)))
        elif leaf in ("bias", "beta") or leaf.endswith("_bias"):
            leaf = "bias" if leaf == "beta" else leaf
            changes.append(Change(name, f"{module}.{leaf}", "replace"))
        else:
            rest.append(name)
    return changes, rest


def lora_scale(config: Mapping[str, Any], module: str) -> float:
    """LoRA's factor for a module: alpha / r, or alpha / sqrt(r) with rank-stabilised LoRA.

    Raises:
        BeftError: the configuration's numbers are none.
    """
    rank = _by_pattern(config.get("rank_pattern"), module, config.get("r", 8))
    alpha = _by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    if not (rank > 0 and math.isfinite(rank) and math.isfinite(alpha)):
        raise BeftError(f"adapter configuration: r {rank:g}, lora_alpha {alpha:g}; is it damaged?")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Any, module: str, default: Any) -> float:
    try:
        if isinstance(patterns, dict):
            for pattern, value in patterns.items():
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return float(value)
        return float(default)
    except (re.error, TypeError, ValueError, OverflowError):
        raise BeftError(
            "adapter configuration: r, lora_alpha, rank_pattern or alpha_pattern is no number or "
            "pattern; is it damaged?"
        ) from None


def biases_config(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What the header of a `BIASES_NAME` says, under the names of PEFT's configuration.

    Args:
        metadata: the safetensors header's ``__metadata__``.

    Returns:
        None where the header is not that of an adapter.
    """
    if metadata.get(OWN_KEYS["format"]) != "biases":
        return None
    said = {key: metadata.get(own) for key, own in OWN_KEYS.items() if key != "format"}
    return {"peft_type": "biases", **said}


def plain(name: str) -> str:
    """The name as the base model has it: PEFT's prefix and wrappers removed."""
    parts = name.removeprefix("base_model.model.").split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS)
