"""The bias vectors of one checkpoint: recognised, read, decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
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
    """

    def __init__(self, checkpoint: Checkpoint, recognition: Recognition) -> None:
        self.checkpoint = checkpoint
        self.recognition = recognition
        if not self.on_gpu:  # of a live model on an accelerator only when somebody asks
            _ = self._read

    @property
    def names(self) -> list[str]:
        """Names of the tensors that sites are cut from."""
        return sorted({site.name for site in self.recognition.sites})

    @property
    def _beside(self) -> list[str]:
        tensors = self.checkpoint.tensors
        return [name for name in self.recognition.unscored if tensors[name].dtype in PRECISION]

    @cached_property
    def _read(self) -> tuple[str, dict[str, npt.NDArray[np.float64]], list[str]]:
        """The digest, the values of the sites' tensors, and what is not finite beside them."""
        tensors = self.checkpoint.tensors
        names, beside = self.names, self._beside
        raw = self.checkpoint.read([*names, *beside])
        digest = hashlib.sha256(b"".join(raw[name] for name in names)).hexdigest()
        values = {name: decode(raw[name], tensors[name].dtype) for name in names}
        others = {name: decode(raw[name], tensors[name].dtype) for name in beside}
        return digest, values, [n for n, one in others.items() if not np.isfinite(one).all()]

    @cached_property
    def bias_sha256(self) -> str:
        """Digest of the raw bytes of all recognised biases, in the order of their names."""
        return self._read[0]

    @cached_property
    def _values(self) -> dict[str, npt.NDArray[np.float64]]:
        return self._read[1]

    @cached_property
    def beside_nonfinite(self) -> list[str]:
        """Names of biases outside the roles that hold a NaN or an infinity."""
        return self._read[2]

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

    def all_tensors(self) -> list[Any]:
        """All that is looked at of a live model, where it lies: of sites, and beside them."""
        state = self.checkpoint.state  # type: ignore[attr-defined]
        return [state[name].detach() for name in (*self.names, *self._beside)]

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

    def identity(self, digest: bool = True) -> Identity:
        """Reference and digest, as results carry them; from a hub also commit and bytes fetched.

        Args:
            digest: whether the biases are to be read for one.
        """
        found = self.bias_sha256 if digest else None
        return Identity(self.checkpoint.reference, found, **self.checkpoint.origin())


def recognise_checkpoint(
    checkpoint: Checkpoint, config: Mapping[str, Any] | None, table: Table = BUILT_IN
) -> Recognition:
    """Recognise a checkpoint's biases from its headers alone."""
    tensors = [Tensor(name, info.dtype, info.shape) for name, info in checkpoint.tensors.items()]
    found = recognise(tensors, config, checkpoint.reference, table)
    return replace(found, notes=(*checkpoint.notes, *found.notes))
