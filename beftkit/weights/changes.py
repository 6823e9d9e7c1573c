"""What an adapter does, as vectors: each bias's change, and what travels whole beside them.

One account for all three formats: `beft` and `lora` hold changes, `biases` and what PEFT saves
whole hold new values, whose change takes the base to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from beftkit.adapters import AdapterInfo, Kind, Step, all_steps, endings, storable
from beftkit.biases import Site, Tensor, plain_name, recognise
from beftkit.checkpoints import BiasSet, Checkpoint
from beftkit.errors import BeftError
from beftkit.scores.statistics import PRECISION, decode
from beftkit.tuning.choice import POOLER_BIAS
from beftkit.weights.opening import info_of, read_values
from beftkit.weights.values import Array


@dataclass(frozen=True, eq=False)
class Changed:
    """One bias that an adapter changes; a fused one is not cut.

    Attributes:
        parameter: its name at runtime.
        kind: what owns it, as of `beftkit.adapters.Tuned`, as far as the format tells.
        change: float64, the parameter's shape.
        value: what the file holds in its place, where that is no change but the new value.
        inputs: in_features of its module, where the format tells; else 0.
        weight: the weight of a norm, which PEFT saves along.
    """

    parameter: str
    kind: Kind
    change: Array
    value: Array | None = None
    inputs: int = 0
    weight: Array | None = None

    @property
    def module(self) -> str:
        """The path of what owns it."""
        return self.parameter.rpartition(".")[0]

    def same(self, other: Changed) -> bool:
        """Whether both lead to one value; of the two one may hold a change, one the value."""
        if np.array_equal(self.change, other.change):
            return True
        held, change = (self, other) if self.value is not None else (other, self)
        if held.value is None or change.value is not None or held.change.size != change.change.size:
            return False
        # A change in float32 does not reach every value.
        pre = (held.value - held.change).astype(np.float32).reshape(-1)
        reached = pre + change.change.astype(np.float32).reshape(-1)
        wanted = storable(pre, held.value.astype(np.float32).reshape(-1))
        return np.array_equal(reached, wanted)


@dataclass(frozen=True, eq=False)
class Changes:
    """What one adapter does to its base.

    Attributes:
        info: what it says of itself.
        checkpoint: its file.
        biases: runtime name -> change, without the head's.
        head: runtime name -> new value, of modules that are saved whole: a classifier, a pooler
            that was drawn anew.
        pooler: changes of the pretrained pooler's bias, which belong to the head.
        products: weights that a LoRA's matrices change.
    """

    info: AdapterInfo
    checkpoint: Checkpoint
    biases: Mapping[str, Changed]
    head: Mapping[str, Array] = field(default_factory=dict)
    pooler: Mapping[str, Changed] = field(default_factory=dict)
    products: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The adapter, as it was given."""
        return self.info.reference

    def same_head(self, other: Changes) -> bool:
        """Whether both bring one head, to the bit, in whatever format."""
        mine, theirs = self.pooler, other.pooler
        pooled = mine.keys() == theirs.keys() and all(mine[n].same(theirs[n]) for n in mine)
        return pooled and _equal(self.head, other.head)


def read_changes(checkpoint: Checkpoint, base: Callable[[], BiasSet]) -> Changes:
    """Read an adapter as changes.

    Args:
        checkpoint: the adapter's file, opened.
        base: opens the base; asked where the file holds values instead of changes.

    Raises:
        BeftError: no adapter, one of a kind that beftkit does not apply, a tensor that is damaged
            or not finite, a value without a bias of the base.
    """
    where, info = checkpoint.reference, info_of(checkpoint)
    settings = checkpoint.adapter or {}
    steps = all_steps(settings, checkpoint.tensors, info)
    values = read_values(checkpoint, steps)
    whole = {s.parameter: values[s.tensor] for s in steps if s.kind == "replace"}
    owners = {_owner(name) for name, one in whole.items() if _leaf(name) == "weight"}
    norms = {name for name in owners if whole[f"{name}.weight"].ndim == 1}
    heads = owners - norms
    low = {s.parameter: s for s in steps if s.kind == "low_rank"}
    products = [
        name for name, s in low.items() if all(values[tensor].any() for tensor in s.tensors)
    ]
    found: dict[str, Changed] = {}
    head: dict[str, Array] = {}
    conv = bool(settings.get("fan_in_fan_out"))
    for step in sorted(steps, key=Step.turn):
        name, owner = step.parameter, _owner(step.parameter)
        if step.kind == "low_rank" or (owner in norms and _leaf(name) == "weight"):
            continue
        value = values[step.tensor]
        if step.kind == "add":
            pair = low.get(f"{owner}.weight")
            inputs = checkpoint.tensors[pair.tensors[0]].shape[1] if pair else 0
            before = found[name].change if name in found else 0.0
            change = before + value.reshape(-1) * step.scale
            found[name] = Changed(name, "conv1d" if conv else "linear", change, None, inputs)
        elif owner in heads:
            head[name] = value
        elif _leaf(name) == "bias" or _leaf(name).endswith("_bias"):
            kind: Kind = "norm" if owner in norms else "free"
            change = value - _value_of(base(), name, value.shape, where)
            found[name] = Changed(name, kind, change, value, weight=whole.get(f"{owner}.weight"))
        else:
            head[name] = value
    pooler = {name: one for name, one in found.items() if POOLER_BIAS.fullmatch(name)}
    biases = {name: one for name, one in found.items() if name not in pooler}
    return Changes(info, checkpoint, biases, head, pooler, tuple(products))


def base_value(base: BiasSet, parameter: str) -> Array | None:
    """A parameter of a base, float64; None where it has none of that name.

    Args:
        base: the base's biases.
        parameter: its name at runtime, with or without the base model's prefix.
    """
    tensors = base.checkpoint.tensors
    names = {site.parameter: site.name for site in base.sites}
    names |= {plain_name(name): name for name in tensors}
    found = same_name(parameter, names)
    if found is None or tensors[names[found]].dtype not in PRECISION:
        return None
    info = tensors[names[found]]
    [raw] = base.checkpoint.read([names[found]]).values()
    return decode(raw, info.dtype).reshape(info.shape)


def same_name(name: str, others: Iterable[str]) -> str | None:
    """The one of these names that means the same parameter: equal, or one the end of the other."""
    others = {*others}
    if name in others:
        return name
    ends = [end for end in endings(name) if end in others]
    longer = [other for other in others if other.endswith(f".{name}")]
    found = [*ends[:1], *longer]
    return found[0] if len(found) == 1 else None


def sites_of(parameters: Mapping[str, int], base: BiasSet | None) -> dict[str, list[Site]]:
    """Which biases of which roles these parameters are; several of a fused one.

    Told by the base's own names and configuration; of a parameter that the base has not, or
    without a base, by its name alone. What has no role then keeps its module's name as role.

    Args:
        parameters: runtime name -> how many scalars.
        base: biases of the model.
    """
    found: dict[str, list[Site]] = {}
    for site in base.sites if base else ():
        if (name := same_name(site.parameter, parameters)) is not None:
            found.setdefault(name, []).append(site)
    outside = set() if base is None else {plain_name(name) for name in base.recognition.unscored}
    rest = {n: d for n, d in parameters.items() if n not in found and not same_name(n, outside)}
    config = base.checkpoint.config if base else None
    try:
        tensors = [Tensor(name, "F32", (width,)) for name, width in rest.items()]
        for site in recognise(tensors, config, "").sites:
            found.setdefault(site.name, []).append(site)
    except BeftError:  # a fused one, of which nothing says how it is cut
        pass
    for name, width in rest.items():
        if name not in found and (alone := _by_name(name, width)):
            found[name] = [alone]
    return found


def _by_name(name: str, width: int) -> Site | None:
    """A bias of some layer, whose role nothing tells; None outside of layers."""
    parts = name.split(".")
    at = max((i for i, part in enumerate(parts) if part.isdecimal()), default=None)
    if at is None:
        return None
    stack = ".".join("*" if part.isdecimal() else part for part in parts[: at + 1])
    indices = tuple(int(part) for part in parts if part.isdecimal())
    leaf = ".".join(parts[at + 1 :])
    role, owner = leaf.removesuffix(".bias"), _owner(name)
    return Site(
        role, name, stack, indices, leaf, indices[-1], "self", width, "F32",
        inert="unknown", owner=owner if leaf.endswith(".bias") else name,
    )  # fmt: skip


def _value_of(base: BiasSet, name: str, shape: tuple[int, ...], adapter: str) -> Array:
    held = base_value(base, name)
    where = base.checkpoint.reference
    if held is None:
        if shape == () or len(shape) > 1:
            raise BeftError(f"{adapter}: changes {name}, which {where} has not")
        return np.zeros(shape)  # added
    if held.shape != shape:
        raise BeftError(
            f"{adapter}: {name} is {list(shape)}, but that of {where} is {list(held.shape)}; is "
            "this the adapter's base?"
        )
    return held


def _equal(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[n], theirs[n]) for n in mine)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
