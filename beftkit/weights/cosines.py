"""What a comparison of changes found: cosines and angles in each place, to JSON."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from beftkit.files import headed, plain_of
from beftkit.shown import Shown

Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, repr=False)
class Alike(Shown):
    """How alike K changes are in one place: a site, a role, or all of it.

    Attributes:
        role: None: of all biases together.
        layer: None: of all layers together.
        tower: of a site, else None.
        attention: of a site, else None.
        slice: which part of a fused tensor a site is, else None.
        width: length of the vectors.
        norms: ``[K]``, Euclidean length of each change.
        cosines: ``[K, K]``; None where one of the two changed nothing there.
        angles: ``[K, K]``, in degrees; None in the same places.
    """

    role: str | None
    layer: int | None
    tower: str | None
    attention: str | None
    slice: str | None
    width: int
    norms: tuple[float, ...]
    cosines: Matrix
    angles: Matrix

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "role layer width norms cosines")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = "role layer tower attention slice width norms"
        lists = {n: [list(row) for row in getattr(self, n)] for n in ("cosines", "angles")}
        return plain_of(self, names) | lists


@dataclass(frozen=True, repr=False)
class CosineResult(Shown):
    """What `compare` found.

    Attributes:
        names: the K adapters or checkpoints, as given.
        base: what checkpoints were compared with; None: each adapter carries its own change.
        whole: over all compared biases.
        roles: of each role, all its layers as one vector.
        sites: of each bias vector.
        notes: what a reader should know.
    """

    names: tuple[str, ...]
    base: str | None
    whole: Alike
    roles: tuple[Alike, ...]
    sites: tuple[Alike, ...]
    notes: tuple[str, ...]

    @property
    def cosines(self) -> Matrix:
        """``[K, K]`` over all compared biases."""
        return self.whole.cosines

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Each two of the K, by their places."""
        return tuple(combinations(range(len(self.names)), 2))

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        found = {f"{i},{j}": self.whole.cosines[i][j] for i, j in self.pairs[:6]}
        return {"names": self.names, "cosines": found}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        said = {"names": list(self.names), "base": self.base, "whole": self.whole.to_dict()}
        said |= {
            name: [one.to_dict() for one in getattr(self, name)] for name in ("roles", "sites")
        }
        return headed({**said, "notes": list(self.notes)})
