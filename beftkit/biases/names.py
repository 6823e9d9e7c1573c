"""From tensor names to roles: each name is looked up, then settled by what its stack holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from beftkit.biases.table import Table, is_torch_fused

#: module wrappers that come and go between a run and its checkpoint, wherever they stand
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"}
#: a module's parameter that `beftkit.tuning.added` adds to its output, where it has no bias
ADDED = "added_bias"
_BIAS = re.compile(r"(.*[._])?bias")
_QKV_LIKE = re.compile(r"(^|_)(q|k|v|qkv|query|key|value)($|_)")


@dataclass(frozen=True)
class Tensor:
    """What recognition sees of a tensor: ``name`` on disk, dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Named:
    """A bias tensor whose name stands in a layout."""

    tensor: Tensor
    stack: str
    indices: tuple[int, ...]
    leaf: str
    role: str = ""
    attention: str = "self"
    layout: str = ""


def is_bias(tensor: Tensor) -> bool:
    """A vector whose name says bias; ``LayerNorm.beta`` is one too.

    Old GPT-2 files hold the causal mask as ``attn.bias``: four dimensions, so not a bias.
    """
    return len(tensor.shape) == 1 and bool(_BIAS.fullmatch(plain_name(tensor.name)))


def plain_name(name: str) -> str:
    """A tensor's name without wrappers, with ``beta`` and an added bias spelled ``bias``."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    if parts[-1] in ("beta", ADDED):
        parts[-1] = "bias"
    return ".".join(parts)


def find_names(biases: Sequence[Tensor], table: Table) -> list[Named]:
    """Find each bias in the layouts, then settle its role by what else its stack holds."""
    found = [item for tensor in biases if (item := _lookup(tensor, table.names))]
    stacks: dict[str, set[str]] = {}
    for item in found:
        stacks.setdefault(item.stack, set()).add(item.leaf)
    tables = {stack: table.roles(leaves) for stack, leaves in stacks.items()}
    named = []
    for item in found:
        if item.leaf in tables[item.stack]:  # else its row needs what this stack has not
            role, layout = tables[item.stack][item.leaf]
            named.append(replace(item, role=role, attention=layout.attention, layout=layout.name))
    return named


def _lookup(tensor: Tensor, names: frozenset[str]) -> Named | None:
    parts = plain_name(tensor.name).split(".")
    for position, part in enumerate(parts[:-1]):
        if part.isdecimal():
            path, leaf = parts[: position + 1], ".".join(parts[position + 1 :])
            if leaf in names:
                return Named(tensor, *_stack(path), leaf)
            if position and f"{path[-2]}.*.{leaf}" in names:  # a list for each part of a layer
                return Named(tensor, *_stack([*path[:-2], path[-1]]), f"{path[-2]}.*.{leaf}")
    at = max((i for i, part in enumerate(parts) if part.isdecimal()), default=None)
    if at is None or not is_torch_fused(parts[-1]):
        return None
    return Named(tensor, *_stack(parts[: at + 1]), ".".join(parts[at + 1 :]))


def _stack(path: list[str]) -> tuple[str, tuple[int, ...]]:
    stack = ".".join("*" if part.isdecimal() else part for part in path)
    return stack, tuple(int(part) for part in path if part.isdecimal())


def raw_names(biases: Sequence[Tensor]) -> list[Named]:
    """For an unknown family: what looks like q, k or v keeps its own name as role."""
    found = []
    for tensor in biases:
        parts = plain_name(tensor.name).split(".")
        module = parts[-2] if parts[-1] == "bias" and len(parts) > 1 else parts[-1]
        index = max((i for i, part in enumerate(parts) if part.isdecimal()), default=None)
        like = _QKV_LIKE.search(module.lower()) and "norm" not in module.lower()
        if index is not None and like:
            place, leaf = _stack(parts[: index + 1]), ".".join(parts[index + 1 :])
            found.append(Named(tensor, *place, leaf, leaf.removesuffix(".bias")))
    return found
