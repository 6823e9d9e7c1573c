"""The bias vectors of one checkpoint: recognised, read, decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters import Change, bias_changes
from beftkit.biases import BUILT_IN, Cut, Recognition, Site, Table, Tensor, plain_name, recognise
from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.errors import BeftError
from beftkit.scores import Identity
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
        whole = self._values[site.name]
        if site.cut is None:
            return whole
        return take(whole, site.cut)

    def dtype(self, site: Site) -> str:
        """The precision that the site's values were rounded to."""
        return site.dtype

    @property
    def on_gpu(self) -> bool:
        """Whether these are the biases of a live model on an accelerator."""
        return bool(getattr(self.checkpoint, "on_gpu", False))

    def tensor(self, site: Site) -> Any:
        """The site of a live model as a torch tensor ``[D]`` where it lies."""
        return self.checkpoint.vector(site.name, site.cut)  # type: ignore[attr-defined]

    def nonfinite(self) -> list[str]:
        """Names of tensors that hold a NaN or an infinity."""
        return [name for name, values in self._values.items() if not np.isfinite(values).all()]

    def identity(self) -> Identity:
        """Reference and digest, as results carry them; from a hub also commit and bytes fetched."""
        return Identity(self.checkpoint.reference, self.sha256, **self.checkpoint.origin())


class AdaptedBiasSet(BiasSet):
    """The biases of a base model with a PEFT adapter on top, as if the two had been merged.

    Args:
        base: the biases of the model that the adapter was trained on.
        adapter: its file, opened.

    Raises:
        BeftError: the adapter changes no bias, or its shapes do not fit this base.
    """

    def __init__(self, base: BiasSet, adapter: Checkpoint) -> None:
        changes, rest = bias_changes((adapter.adapter or {}), adapter.tensors)
        if not changes:
            kind = (adapter.adapter or {}).get("peft_type", "unknown")
            raise BeftError(
                f"{adapter.reference}: this {kind} adapter changes no bias (a LoRA does only with "
                'lora_bias or bias="all"); there is nothing to score'
            )
        self.checkpoint = adapter
        self.base = base
        self.recognition = base.recognition
        raw = adapter.read(sorted(change.tensor for change in changes))
        self.sha256 = hashlib.sha256(b"".join(raw.values())).hexdigest()
        self._values = {
            name: decode(data, adapter.tensors[name].dtype) for name, data in raw.items()
        }
        self._changes: dict[str, list[Change]] = {}
        for change in sorted(changes, key=lambda one: one.kind, reverse=True):  # replace, then add
            parts = change.parameter.split(".")
            for start in range(len(parts)):
                self._changes.setdefault(".".join(parts[start:]), []).append(change)
        self.recognition = replace(
            base.recognition, notes=(*base.recognition.notes, *self._notes(changes, rest))
        )

    def vector(self, site: Site) -> npt.NDArray[np.float64]:
        """The site's values with the adapter's changes, ``[D]`` in float64."""
        result = self.base.vector(site)
        for change in self._changes.get(site.parameter, ()):
            part = self._values[change.tensor].reshape(-1)
            if site.module is None and site.cut is not None:
                if part.size != int(np.prod(site.cut.view)):
                    raise self._unfit(change, part.size, int(np.prod(site.cut.view)))
                part = take(part, site.cut)
            if part.size != site.width:
                raise self._unfit(change, part.size, site.width)
            if change.kind == "replace":
                result = part
            elif site.dtype == "F64":
                result = result + change.scale * part
            else:  # rounded as a merge in float32 rounds
                scaled = np.float32(change.scale) * part.astype(np.float32)
                result = (result.astype(np.float32) + scaled).astype(np.float64)
        return result

    def identity(self) -> Identity:
        """Reference and digest, and the base that the adapter was put on."""
        return replace(super().identity(), base=self.base.checkpoint.reference)

    def _unfit(self, change: Change, given: int, expected: int) -> BeftError:
        return BeftError(
            f"{self.checkpoint.reference}: {change.tensor} has {given} elements, but that bias of "
            f"{self.base.checkpoint.reference} has {expected}; is this the adapter's base?"
        )

    def _notes(self, changes: list[Change], rest: list[str]) -> list[str]:
        scored = {site.parameter for site in self.sites}
        known = {plain_name(name) for name in self.base.checkpoint.tensors}
        longer = {end for name in known for end in _ends(name)}
        unmet = [
            change for change in changes
            # Either side may have the task model's prefix.
            if not _ends(change.parameter) & (scored | known) and change.parameter not in longer
        ]  # fmt: skip
        notes = []
        added = [change.parameter for change in unmet if change.kind == "add"]
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


def _ends(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[start:]) for start in range(len(parts))}


def take(values: npt.NDArray[np.float64], cut: Cut) -> npt.NDArray[np.float64]:
    """The part of a fused vector that a cut means, ``[D]``."""
    part = np.take(values.reshape(cut.view), range(cut.start, cut.stop), axis=cut.axis)
    return part.reshape(-1)


def recognise_checkpoint(
    checkpoint: Checkpoint, config: Mapping[str, Any] | None, table: Table = BUILT_IN
) -> Recognition:
    """Recognise a checkpoint's biases from its headers alone."""
    tensors = [Tensor(name, info.dtype, info.shape) for name, info in checkpoint.tensors.items()]
    return recognise(tensors, config, checkpoint.reference, table)
