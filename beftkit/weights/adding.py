"""Adapters of one base added up: which changes meet, their sum, and what holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from beftkit.adapters import Tuned
from beftkit.biases import plain_name
from beftkit.checkpoints import BiasSet
from beftkit.errors import BeftError
from beftkit.tuning.choice import spans
from beftkit.weights.changes import Changed, Changes, base_value, same_name, sites_of
from beftkit.weights.sums import Array, norm


def aligned(changes: Sequence[Changes], base: BiasSet | None) -> list[dict[str, str]]:
    """For each adapter: the first's name of a bias -> its own.

    Args:
        changes: of one adapter or more.
        base: its biases, where they are to be had, for messages that name roles.

    Raises:
        BeftError: they change different biases, norms with different weights, or widths.
    """
    first, found = changes[0], []
    for one in changes:
        if one.products:
            raise BeftError(
                f"{one.reference}: a LoRA that changes {one.products[0]} and other weights; this "
                "adds up biases alone (PEFT's add_weighted_adapter is for LoRA)"
            )
        own = {name: same_name(name, one.biases) for name in first.biases}
        if None in own.values() or len(own) != len(one.biases):
            raise BeftError(
                f"{one.reference} changes {_told(one, base)}, {first.reference} "
                f"{_told(first, base)}; expected the same biases in all"
            )
        for mine, theirs in own.items():
            a, b = first.biases[mine], one.biases[str(theirs)]
            if a.change.size != b.change.size:
                raise BeftError(
                    f"{one.reference}: {theirs} has {b.change.size} elements, in {first.reference} "
                    f"{a.change.size}; these are not of one base"
                )
            weights = [c.weight for c in (a, b) if c.weight is not None]
            if len(weights) == 2 and not np.array_equal(weights[0], weights[1]):
                raise BeftError(
                    f"{one.reference}: holds another {b.module}.weight than {first.reference}; "
                    "this adds up biases alone"
                )
        found.append({mine: str(theirs) for mine, theirs in own.items()})
    if not first.biases:
        raise BeftError(f"{first.reference}: changes no bias outside of a head")
    return found


def _told(changes: Changes, base: BiasSet | None) -> str:
    """``v of layers 0-5``: what an adapter changes."""
    widths = {name: one.change.size for name, one in changes.biases.items()}
    sites = [site for mine in sites_of(widths, base).values() for site in mine]
    sites = [s for s in sites if s.cut is None or s.take(_flat(changes, s.parameter)).any()]
    roles = dict.fromkeys(site.role for site in sites)
    layers = {role: spans({s.layer for s in sites if s.role == role}) for role in roles}
    return ", ".join(f"{r} of layers {one}" for r, one in layers.items()) or "no bias of a layer"


def _flat(changes: Changes, parameter: str) -> Array:
    name = same_name(parameter, changes.biases)
    return changes.biases[name].change.reshape(-1) if name else np.zeros(0)


def tuned_sum(
    first: Changes,
    total: Mapping[str, Array],
    kept: Changes | None,
    base: Callable[[], BiasSet],
    there: BiasSet | None,
) -> list[Tuned]:
    """The result as `beftkit.adapters.write_adapter` takes it, in the first adapter's format.

    Args:
        first: the first adapter.
        total: the sum, by the first's names.
        kept: whose head goes along.
        base: opens the base; asked where the format needs its values or shapes.
        there: the base where it is open already.
    """
    names = {plain_name(name) for name in there.checkpoint.tensors} if there else set()
    names |= {site.parameter for site in there.sites} if there else set()
    pairs = [(first.biases[name], change) for name, change in total.items()]
    pairs += [(one, one.change) for one in kept.pooler.values()] if kept else []
    found = [
        _entry(
            one,
            change,
            first.info.format,
            base,
            there is not None and not same_name(one.parameter, names),
        )
        for one, change in pairs
    ]
    if kept is not None:
        for name, value in kept.head.items():
            whole = value.astype(np.float32)
            found.append(Tuned(name, "head", name.rpartition(".")[0], 0, whole, whole))
    return found


def _entry(
    one: Changed, change: Array, format: str, base: Callable[[], BiasSet], added: bool
) -> Tuned:
    kind, inputs = one.kind, one.inputs
    if format != "biases" and kind in ("linear", "free", "conv1d") and one.value is None:
        pre = np.zeros_like(change)
    elif one.value is not None:
        pre = one.value - one.change
    else:
        held = base_value(base(), one.parameter)
        pre = np.zeros_like(change) if held is None else held
    if format == "lora" and kind in ("linear", "conv1d") and not inputs:
        weight = f"{one.module}.weight"
        shapes = {n: info.shape for n, info in base().checkpoint.tensors.items()}
        name = same_name(weight, shapes)
        if name is None:
            raise BeftError(f"{base().checkpoint.reference}: holds no {weight}")
        shape = shapes[name]
        inputs = shape[0] if kind == "conv1d" else shape[1]
    weight_values = None if one.weight is None else one.weight.astype(np.float32)
    post = pre + change.reshape(pre.shape)
    with np.errstate(over="ignore"):  # write_adapter refuses what is not finite
        values = pre.astype(np.float32), post.astype(np.float32)
    return Tuned(one.parameter, kind, one.module, inputs, *values, weight_values, added)


def measure(
    parameters: Mapping[str, Array], base: BiasSet | None
) -> Callable[[Mapping[str, Array]], tuple[float, dict[str, float]]]:
    """Lengths of changes: of all, and of each role's."""
    sites = sites_of({name: one.size for name, one in parameters.items()}, base)

    def measured(changes: Mapping[str, Array]) -> tuple[float, dict[str, float]]:
        roles: dict[str, list[Array]] = {}
        for name, mine in sites.items():
            for site in mine:
                roles.setdefault(site.role, []).append(site.take(changes[name].reshape(-1)))
        whole = np.concatenate([one.reshape(-1) for one in changes.values()])
        lengths = {role: norm(np.concatenate(some)) for role, some in roles.items()}
        # Of a fused bias the parts that nothing trained are no roles of the adapter.
        return norm(whole), {r: n for r, n in lengths.items() if n or len(lengths) == 1}

    return measured
