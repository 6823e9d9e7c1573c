"""The biases of a base with an adapter on it, as PEFT's merge would leave them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from beftkit.adapters import (
    Step,
    bias_steps,
    check_kind,
    endings,
    fewer_layers,
    layers_of,
    mismatch,
)
from beftkit.biases import Site, plain_name
from beftkit.checkpoints.bias_set import BiasSet
from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.errors import BeftError
from beftkit.scores import Identity
from beftkit.scores.statistics import decode, rounded

Array = npt.NDArray[np.float64]


class AdaptedBiasSet(BiasSet):
    """The biases of a base model with a PEFT adapter on top, as if the two had been merged.

    Args:
        base: the biases of the model that the adapter was trained on.
        adapter: its file, opened.
        merged: whether sums are rounded to the base's dtype, as PEFT's merge rounds them; without,
            they are as a base in float32 would have them.

    Raises:
        BeftError: the adapter changes no bias, is of a kind that may change biases otherwise, or
            its shapes or layers do not fit this base.
    """

    def __init__(self, base: BiasSet, adapter: Checkpoint, *, merged: bool = True) -> None:
        check_kind(adapter.adapter or {}, adapter.reference)
        steps, rest = bias_steps((adapter.adapter or {}), adapter.tensors)
        if not steps:
            kind = (adapter.adapter or {}).get("peft_type", "unknown")
            raise BeftError(
                f"{adapter.reference}: this {kind} adapter changes no bias (a LoRA does only with "
                'lora_bias or bias="all"); there is nothing to score'
            )
        self.checkpoint = adapter
        self.base = base
        self.beside_nonfinite = []  # of an adapter all is looked at alike
        self._merged = merged
        raw = adapter.read(sorted(step.tensor for step in steps))
        self.bias_sha256 = hashlib.sha256(b"".join(raw.values())).hexdigest()
        self._values = {
            name: decode(data, adapter.tensors[name].dtype) for name, data in raw.items()
        }
        self._steps: dict[str, list[Step]] = {}
        for step in sorted(steps, key=Step.turn):
            for end in endings(step.parameter):
                self._steps.setdefault(end, []).append(step)
        names = [plain_name(name) for name in base.checkpoint.tensors]
        self._check_layers(steps, names)
        notes = (*base.recognition.notes, *self._notes(steps, rest, names))
        self.recognition = replace(base.recognition, notes=notes)

    def vector(self, site: Site) -> Array:
        """The site's values with the adapter's changes, ``[D]`` in float64."""
        result = self.base.vector(site)
        for step in self._steps.get(site.parameter, ()):
            part = self._values[step.tensor].reshape(-1)
            fused = site.cut if site.module is None else None
            expected = math.prod(fused.view) if fused else site.width
            if part.size != expected:
                raise BeftError(
                    f"{self.checkpoint.reference}: {step.tensor} has {part.size} elements, but "
                    f"that bias of {self.base.checkpoint.reference} has {expected}; is this the "
                    "adapter's base?"
                )
            # Sums are formed in float32, as a merge forms them.
            like = np.float32 if step.kind == "add" and site.dtype != "F64" else np.float64
            with np.errstate(over="ignore", invalid="ignore"):
                part = (fused.take(part) if fused else part).astype(like)
                result = step.after(result.astype(like), [part]).astype(np.float64)
            if self._merged:
                result = rounded(result, site.dtype)
        return result

    def nonfinite(self) -> list[str]:
        """Names of the adapter's tensors that hold a NaN or an infinity, or that sum up to one."""
        beyond = [
            step.tensor
            for site in self._touched()
            for step in self._steps[site.parameter]
            if not np.isfinite(self.vector(site)).all()
            and np.isfinite(self.base.vector(site)).all()
        ]
        return list(dict.fromkeys([*super().nonfinite(), *beyond]))

    def identity(self, digest: bool = True) -> Identity:
        """Reference and digest, and the base that the adapter was put on."""
        return replace(super().identity(digest), base=self.base.checkpoint.reference)

    def _touched(self) -> list[Site]:
        return [site for site in self.base.sites if site.parameter in self._steps]

    def _check_layers(self, steps: Sequence[Step], names: Sequence[str]) -> None:
        """Refuse an adapter with more layers than the base has, as putting it on does."""
        whole = layers_of([*names, *(one.owner for one in self.base.sites)])
        # Either side may have the task model's prefix.
        longer = {end: layers for stack, layers in whole.items() for end in endings(stack)}
        for step in steps:
            for stack, layers in layers_of([step.parameter]).items():
                ends = [longer.get(stack), *(whole.get(end) for end in endings(stack))]
                known = next((one for one in ends if one is not None), layers)
                if not layers <= known:
                    named = (self.checkpoint.adapter or {}).get("base_model_name_or_path")
                    raise BeftError(
                        f"{self.checkpoint.reference}: {step.tensor} changes {step.parameter}, "
                        f"which {self.base.checkpoint.reference} has not; {mismatch(named)}"
                    )

    def _notes(self, steps: Sequence[Step], rest: Sequence[str], names: Sequence[str]) -> list[str]:
        longer = {end for name in names for end in endings(name)}
        known = {*names, *(site.parameter for site in self.base.sites)}
        # Either side may have the task model's prefix.
        new = [
            step
            for step in steps
            if step.parameter not in longer and known.isdisjoint(endings(step.parameter))
        ]
        added = [step.parameter for step in new if step.kind == "add"]
        # A head that the base has not is as usual.
        lost = [step.parameter for step in new if step.kind == "replace"]
        lost = [parameter for parameter in lost if layers_of([parameter])]
        notes = [*self.checkpoint.notes]
        if added:
            notes.append(
                f"the adapter adds {len(added)} biases that the base has not (e.g. {added[0]}): a "
                "bias added at zero always scores 1, so they are not scored"
            )
        if lost:
            notes.append(
                f"{len(lost)} biases of the adapter are none of the base's (e.g. {lost[0]}), so "
                "they are not scored"
            )
        if rest:
            notes.append(
                f"ignored {len(rest)} tensors of the adapter that are not biases (e.g. {rest[0]})"
                if len(rest) > 1
                else f"ignored a tensor of the adapter that is no bias ({rest[0]})"
            )
        touched = self._touched()
        if not touched and any(".lora_A." in name for name in rest):
            notes.append(
                "a LoRA that changes weights and no bias of the model, so there is nothing to score"
            )
        there = [site.owner for site in self.base.sites]
        notes += fewer_layers([site.owner for site in touched], there)
        coarse = sorted({site.dtype for site in touched} & {"BF16", "F16"})
        if coarse and self._merged:
            notes.append(
                f"POST is PRE with the adapter merged into it: rounded to {', '.join(coarse)}, the "
                "base's precision, as PEFT's merge rounds it"
            )
        return notes
