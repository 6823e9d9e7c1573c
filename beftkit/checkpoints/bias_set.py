"""The bias vectors of one checkpoint: recognised, read, decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.biases import BUILT_IN, Recognition, Site, Table, Tensor, recognise
from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.scores import Identity
from beftkit.scores.statistics import PRECISION, decode


class BiasSet:
    """Sites of a checkpoint and their values.

    Attributes:
        checkpoint: where they come from.
        recognition: sites, family, notes.
        bias_sha256: digest of the raw bytes of all recognised biases, in the order of their names.
        beside_nonfinite: names of biases outside the roles that hold a NaN or an infinity.
    """

    def __init__(self, checkpoint: Checkpoint, recognition: Recognition) -> None:
        self.checkpoint = checkpoint
        self.recognition = recognition
        names = sorted({site.name for site in recognition.sites})
        beside = [
            name for name in recognition.unscored if checkpoint.tensors[name].dtype in PRECISION
        ]
        raw = checkpoint.read([*names, *beside])
        self.bias_sha256 = hashlib.sha256(b"".join(raw[name] for name in names)).hexdigest()
        self._values = {name: decode(raw[name], checkpoint.tensors[name].dtype) for name in names}
        others = {name: decode(raw[name], checkpoint.tensors[name].dtype) for name in beside}
        self.beside_nonfinite = [n for n, one in others.items() if not np.isfinite(one).all()]

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

    def beside_notes(self) -> list[str]:
        """What to say of biases that no score shows."""
        if not (names := self.beside_nonfinite):
            return []
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return [
            f"{self.checkpoint.reference}: {names[0]}{more}, which no role has, holds NaN or "
            "infinity: the checkpoint is damaged or diverged"
        ]

    def nonfinite(self) -> list[str]:
        """Names of tensors that hold a NaN or an infinity."""
        return [name for name, values in self._values.items() if not np.isfinite(values).all()]

    def identity(self) -> Identity:
        """Reference and digest, as results carry them; from a hub also commit and bytes fetched."""
        return Identity(self.checkpoint.reference, self.bias_sha256, **self.checkpoint.origin())


def recognise_checkpoint(
    checkpoint: Checkpoint, config: Mapping[str, Any] | None, table: Table = BUILT_IN
) -> Recognition:
    """Recognise a checkpoint's biases from its headers alone."""
    tensors = [Tensor(name, info.dtype, info.shape) for name, info in checkpoint.tensors.items()]
    found = recognise(tensors, config, checkpoint.reference, table)
    return replace(found, notes=(*checkpoint.notes, *found.notes))
