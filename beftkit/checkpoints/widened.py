"""Biases of a checkpoint, with zeros where another has biases and this one has none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters import bias_steps, endings
from beftkit.biases import ADDED, BUILT_IN, Site, Table, Tensor, match_sites, missing_sites
from beftkit.biases.recognise import ordered
from beftkit.checkpoints.bias_set import BiasSet
from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.scores import Identity


class WidenedBiasSet(BiasSet):
    """The biases of a checkpoint, and zeros at projections that have none.

    Args:
        held: what there is.
        sites: of `beftkit.biases.missing_sites`, what there is not.
    """

    def __init__(self, held: BiasSet, sites: Iterable[Site]) -> None:
        self.checkpoint = held.checkpoint
        self.base: BiasSet | None = getattr(held, "base", None)
        self._held, self._new = held, frozenset(sites)
        there = ordered([*held.sites, *self._new])
        self.recognition = replace(held.recognition, sites=tuple(there))

    @cached_property
    def bias_sha256(self) -> str:
        """Digest of what there is."""
        return self._held.bias_sha256

    @cached_property
    def beside_nonfinite(self) -> list[str]:
        """Of what there is beside."""
        return self._held.beside_nonfinite

    def vector(self, site: Site) -> npt.NDArray[np.float64]:
        """The site's values, ``[D]`` in float64."""
        return np.zeros(site.width) if site in self._new else self._held.vector(site)

    @property
    def on_gpu(self) -> bool:
        """Zeros lie nowhere."""
        return False

    def nonfinite(self) -> list[str]:
        """Names of tensors that hold a NaN or an infinity."""
        return self._held.nonfinite()

    def identity(self, digest: bool = True) -> Identity:
        """Reference and digest of what there is."""
        return self._held.identity(digest)


def widened(
    held: BiasSet, other: Iterable[Site], config: dict[str, Any] | None, table: Table = BUILT_IN
) -> BiasSet:
    """A checkpoint's biases, and zeros where another checkpoint has some and this one has none."""
    _, _, lacking = match_sites(held.sites, [*other])
    if not lacking:
        return held
    pairs, _, _ = match_sites(_missing(held, config, table), lacking)
    return WidenedBiasSet(held, [one for one, _ in pairs]) if pairs else held


def widened_by(
    held: BiasSet, adapter: Checkpoint, config: dict[str, Any] | None, table: Table = BUILT_IN
) -> BiasSet:
    """A base's biases, and zeros where an adapter of it brings some that the base has not."""
    steps, _ = bias_steps(adapter.adapter or {}, adapter.tensors)
    ends = {end for step in steps for end in endings(step.parameter)}
    if ends <= {site.parameter for site in held.sites}:
        return held
    new = [site for site in _missing(held, config, table) if site.parameter in ends]
    return WidenedBiasSet(held, new) if new else held


def _missing(held: BiasSet, config: dict[str, Any] | None, table: Table) -> tuple[Site, ...]:
    base: BiasSet | None = getattr(held, "base", None)
    there = (base or held).checkpoint
    tensors = [Tensor(name, info.dtype, info.shape) for name, info in there.tensors.items()]
    found = missing_sites(tensors, config, there.reference, table)
    # In files a bias has the name of a bias, whatever its parameter is called in memory.
    return tuple(replace(one, name=f"{one.name.removesuffix(ADDED)}bias") for one in found)
