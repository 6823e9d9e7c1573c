"""Biases that a base has none for: by its configuration's switch, or folded into others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from beftkit.biases.adding import NESTED, Fold, as_llama, fold_for, switches_for
from beftkit.biases.splits import HEADS
from beftkit.checkpoints import Checkpoint
from beftkit.errors import BeftError
from beftkit.scores.statistics import PRECISION
from beftkit.weights.products import output_product
from beftkit.weights.values import Array

_KEEP = "keep the adapter, which PEFT loads unmerged"


@dataclass
class Given:
    """What becomes of added biases.

    Attributes:
        biases: new biases by name on disk; those that nothing trained are zeros.
        folded: what is added to a bias that is there, by its name on disk.
        config: entries of the configuration that change; ``whole`` replaces all of it.
        whole: whether ``config`` is a whole one, of another model type.
        switches: the configuration's switches that were turned.
        zeros: how many of ``biases`` are zeros, for the switch gives a bias to more than trained.
        notes: what a reader should know.
    """

    biases: dict[str, Array] = field(default_factory=dict)
    folded: dict[str, Array] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    whole: bool = False
    switches: tuple[str, ...] = ()
    zeros: int = 0
    notes: tuple[str, ...] = ()


def place_added(
    base: Checkpoint, config: Mapping[str, Any], added: Mapping[str, Array], adapter: str
) -> Given:
    """Find a place for biases of modules that have none.

    Args:
        base: the checkpoint, whose weights may be read.
        config: its configuration.
        added: module on disk -> bias, float64 [D].
        adapter: for messages.

    Raises:
        BeftError: there is none that computes the same; what remains is named.
    """
    layers = [_in_layer(module) for module in added]
    leaves = {leaf for _, _, leaf in layers if leaf}
    model_type = str(config.get("model_type"))
    lone = sorted(module for module, (_, _, leaf) in zip(added, layers, strict=True) if not leaf)
    if lone:
        raise BeftError(f"{adapter}: adds a bias to {lone[0]}, which is in no layer; {_KEEP}")
    if config.get("quantization_config"):
        raise BeftError(
            f"{base.reference}: is quantised, and {adapter} adds biases where it has none, which "
            f"its kernels need not read; {_KEEP}"
        )
    turned, given = switches_for(model_type, leaves)
    if leaves <= given:
        return _switched(base, config, added, turned, given)
    tower, key = NESTED.get(model_type, ("", ""))
    text = config.get(key)
    if isinstance(text, dict) and all(tower in stack.split(".") for stack, _, _ in layers):
        turned, given = switches_for(str(text.get("model_type")), leaves)
        if leaves <= given:
            found = _switched(base, text, added, turned, given)
            found.config = {key: {**text, **found.config}}
            return found
    why = ""
    if model_type == "mistral":
        turned, given = switches_for("llama", leaves)
        llama, why = as_llama(config)
        if llama is not None and leaves <= given:
            found = _switched(base, llama, added, turned, given)
            found.config, found.whole = {**llama, **found.config}, True
            found.notes += (
                "Mistral without sliding window is written as Llama, which computes the same and "
                "whose configuration has a switch for biases",
            )
            return found
    fold = fold_for(model_type)
    if fold is not None:
        return _folded(base, config, added, fold, adapter)
    inner = {str(one.get("model_type") or "") for one in config.values() if isinstance(one, dict)}
    if not why and inner - {"", model_type}:
        why = "a model of several towers, whose configurations lie one in the other"
    rest = sorted(leaves - given)
    raise BeftError(
        f"{base.reference}: of model type {model_type} there is no plain model with a bias in "
        f"{', '.join(rest or sorted(leaves))}{f' ({why})' if why else ''}, nor another bias that "
        f"would do the same; {_KEEP}"
    )


def _in_layer(module: str) -> tuple[str, int, str]:
    """A module's stack, layer, and path from there on; an empty path where it is in none."""
    parts = module.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    if at is None:
        return "", 0, ""
    return ".".join(parts[:at]), int(parts[at]), ".".join(parts[at + 1 :])


def _switched(
    base: Checkpoint,
    config: Mapping[str, Any],
    added: Mapping[str, Array],
    turned: Mapping[str, bool],
    given: Iterable[str],
) -> Given:
    """Every module that the switches speak of gets a bias: what was added, or zeros."""
    found = Given(config=dict(turned), switches=tuple(sorted(turned)))
    stacks = {_in_layer(module)[0] for module in added}
    named = {f"{module}.bias" for module in added}
    for name, info in base.tensors.items():
        module = name.removesuffix(".weight")
        stack, _, leaf = _in_layer(module)
        bias = f"{module}.bias"
        if module == name or stack not in stacks or leaf not in given or bias in base.tensors:
            continue
        if info.dtype not in PRECISION:
            raise BeftError(
                f"{base.reference}: {name} is stored as {info.dtype}, and a bias beside it would "
                f"need another dtype; {_KEEP}"
            )
        found.biases[bias] = added.get(module, np.zeros(info.shape[0]))
        found.zeros += module not in added
    lost = sorted(named - {*found.biases})
    if lost:
        raise BeftError(f"{base.reference}: {lost[0]} has no place; is the checkpoint whole?")
    return found


def _folded(
    base: Checkpoint,
    config: Mapping[str, Any],
    added: Mapping[str, Array],
    fold: Fold,
    adapter: str,
) -> Given:
    """What the added biases do, as changes of biases that are there."""
    found = Given()
    for module, bias in added.items():
        stack, layer, leaf = _in_layer(module)
        above = f"{stack}.{layer}"
        target = f"{above}.{fold.into}.bias"
        if target not in base.tensors:
            raise BeftError(f"{base.reference}: has no {target} to take it in; {_KEEP}")
        if leaf == fold.value:
            values = _values_of(bias, fold, adapter, module)
            weight = f"{above}.{fold.output}.weight"
            change = output_product(base, weight, values, _heads(config, base))
        elif leaf == fold.output and fold.is_parallel:
            change = bias
        else:
            raise BeftError(
                f"{adapter}: adds a bias to {module}, which no bias of this "
                f"{config.get('model_type')} can take in; {_KEEP}"
            )
        found.folded[target] = found.folded.get(target, 0.0) + change
    into = fold.into.rpartition(".")[2]
    found.notes = (
        f"{len(added)} added biases are folded into {len(found.folded)} biases of {into}: exact in "
        "evaluation mode; trained further, or with dropout of attention, it is another model",
    )
    return found


def _values_of(bias: Array, fold: Fold, adapter: str, module: str) -> Array:
    """The values' part of a bias, [D]; of a fused one all else must be zero."""
    if not fold.blocks:
        return bias
    parts = bias.reshape(fold.blocks, 3, -1)  # q, v, k
    if parts[:, (0, 2)].any():
        raise BeftError(
            f"{adapter}: adds biases to queries or keys in {module}, which no bias of this family "
            f"can take in; {_KEEP}"
        )
    values: Array = parts[:, 1].reshape(-1)
    return values


def _heads(config: Mapping[str, Any], base: Checkpoint) -> int:
    """How many heads its queries have."""
    heads = next((n for key in HEADS if type(n := config.get(key)) is int and n > 0), None)
    if heads is None:
        raise BeftError(f"{base.reference}: its configuration does not say how many heads it has")
    return heads
