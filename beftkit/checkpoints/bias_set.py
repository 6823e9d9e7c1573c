"""The bias vectors of one checkpoint: recognised, read, decoded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters import Step, bias_steps, endings
from beftkit.biases import BUILT_IN, Recognition, Site, Table, Tensor, plain_name, recognise
from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.errors import BeftError
from beftkit.scores.statistics import decode


class BiasSet:
    """Sites of a checkpoint and their values.

    Attributes:
        checkpoint: where they come from.
        recognition: sites, family, notes.
        sha256: digest of the raw bytes of all recognised biases, in the order of their names.
    """

    def __init__(self, checkpoint: Checkpoint, recognition: Recognition) -> None:
        self.checkpoint = checkpoint
        self.recognition = recognition
        names = sorted({site.name for site in recognition.sites})
        raw = checkpoint.read(names)
        self.sha256 = hashlib.sha256(b"".join(raw[name] for name in names)).hexdigest()
        self._values = {name: decode(raw[name], checkpoint.tensors[name].dtype) for name in names}

    @property
    def sites(self) -> Sequence[Site]:
        """All recognised sites."""
        return self.recognition.sites

    def vector(self, site: Site) -> npt.NDArray[np.float64]:
        """The site's values, ``[D]`` in float64; a fused tensor is cut."""
        values: npt.NDArray[np.float64] = site.take(self._values[site.name])
        return values

    def dtype(self, site: Site) -> str:
        """The precision that the site's values were rounded to."""
        return site.dtype

    @property
    def on_gpu(self) -> bool:
        """Whether these are the biases of a live model on an accelerator."""
        return bool(getattr(self.checkpoint, "on_gpu", False))

    def tensor(self, site: Site) -> Any:
        """The site of a live model as a torch tensor ``[D]`` where it lies."""
        return site.take(self.checkpoint.state[site.name].detach())  # type: ignore[attr-defined]

    def nonfinite(self) -> list[str]:
        """Names of tensors that hold a NaN or an infinity."""
        return [name for name, values in self._values.items() if not np.isfinite(values).all()]

    def identity(self) -> dict[str, Any]:
        """Reference and digest, as results carry them; from a hub also commit and bytes fetched."""
        checkpoint = self.checkpoint
        return {"path": checkpoint.reference, "sha256": self.sha256, **checkpoint.origin()}


class AdaptedBiasSet(BiasSet):
    """The biases of a base model with a PEFT adapter on top, as if the two had been merged.

    Args:
        base: the biases of the model that the adapter was trained on.
        adapter: its file, opened.

    Raises:
        BeftError: the adapter changes no bias, or its shapes do not fit this base.
    """

    def __init__(self, base: BiasSet, adapter: Checkpoint) -> None:
        steps, rest = bias_steps((adapter.adapter or {}), adapter.tensors)
        if not steps:
            kind = (adapter.adapter or {}).get("peft_type", "unknown")
            raise BeftError(
                f"{adapter.reference}: this {kind} adapter changes no bias (a LoRA does only with "
                'lora_bias or bias="all"); there is nothing to score'
            )
        self.checkpoint = adapter
        self.base = base
        self.recognition = base.recognition
        raw = adapter.read(sorted(step.tensor for step in steps))
        self.sha256 = hashlib.sha256(b"".join(raw.values())).hexdigest()
        self._values = {
            name: decode(data, adapter.tensors[name].dtype) for name, data in raw.items()
        }
        self._steps: dict[str, list[Step]] = {}
        for step in sorted(steps, key=Step.turn):
            for end in endings(step.parameter):
                self._steps.setdefault(end, []).append(step)
        notes = (*base.recognition.notes, *self._notes(steps, rest))
        self.recognition = replace(base.recognition, notes=notes)

    def vector(self, site: Site) -> npt.NDArray[np.float64]:
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
            # Sums are rounded as a merge in float32 rounds.
            like = np.float32 if step.kind == "add" and site.dtype != "F64" else np.float64
            part = (fused.take(part) if fused else part).astype(like)
            result = step.after(result.astype(like), [part]).astype(np.float64)
        return result

    def identity(self) -> dict[str, Any]:
        """Reference and digest, and the base that the adapter was put on."""
        return {**super().identity(), "base": self.base.checkpoint.reference}

    def _notes(self, steps: Sequence[Step], rest: Sequence[str]) -> list[str]:
        known = {plain_name(name) for name in self.base.checkpoint.tensors}
        longer = {end for name in known for end in endings(name)}
        known |= {site.parameter for site in self.sites}
        adds = [step.parameter for step in steps if step.kind == "add"]
        # Either side may have the task model's prefix.
        added = [one for one in adds if one not in longer and known.isdisjoint(endings(one))]
        notes = []
        if added:
            notes.append(
                f"the adapter adds {len(added)} biases that the base has not (e.g. {added[0]}): a "
                "bias added at zero always scores 1, so they are not scored"
            )
        if rest:
            notes.append(
                f"ignored {len(rest)} tensors of the adapter that are not biases (e.g. {rest[0]})"
            )
        return notes


def recognise_checkpoint(
    checkpoint: Checkpoint, config: Mapping[str, Any] | None, table: Table = BUILT_IN
) -> Recognition:
    """Recognise a checkpoint's biases from its headers alone."""
    tensors = [Tensor(name, info.dtype, info.shape) for name, info in checkpoint.tensors.items()]
    return recognise(tensors, config, checkpoint.reference, table)
