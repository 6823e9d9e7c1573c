"""Values of tensors between what files hold and what is computed, and what rounding took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from beftkit.scores.statistics import rounded

Array = npt.NDArray[np.float64]
#: names of dtypes: in a header, and in a configuration
WORDS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def encode(values: Array, dtype: str) -> bytes:
    """Bytes of float64 values as a safetensors file keeps them in a dtype, rounded once."""
    near = rounded(np.asarray(values, np.float64), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "BF16":
            bits = near.astype("<f4").view("<u4") >> np.uint32(16)
            return bits.astype("<u2").tobytes()
        return near.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


@dataclass(frozen=True)
class Rounding:
    """What storing biases in a coarse dtype lost.

    Attributes:
        dtype: in which they are kept: ``bfloat16``, ``float16``.
        biases: how many vectors.
        lost: length of what rounding took from them over the length of the changes.
        unchanged: elements that a change moved to no other value, of those that it should move.
        elements: how many it should move.
    """

    dtype: str
    biases: int
    lost: float
    unchanged: int
    elements: int

    def told(self) -> str:
        """In a sentence."""
        share = f"{self.lost:.2%}" if self.lost >= 1e-4 else f"{self.lost:.1e}"
        stay = f"; {self.unchanged:,} of {self.elements:,} elements stay where they were"
        kept = f"{self.biases} biases are kept" if self.biases != 1 else "1 bias is kept"
        return (
            f"{kept} in {self.dtype}, the base's dtype: rounding lost "
            f"{share} of the change (by length){stay if self.unchanged else ''}"
        )


@dataclass
class Ledger:
    """Sums up what rounding took."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, before: Array, exact: Array, dtype: str) -> None:
        """A bias before, after, and in which dtype the latter is kept."""
        if dtype not in ("BF16", "F16"):
            return
        kept = rounded(exact, dtype)
        moved = exact != before
        if not moved.any():
            return
        row = self.sums.setdefault(dtype, [0.0, 0.0, 0.0, 0.0, 0.0])
        stay = int((moved & (kept == before)).sum())
        new = (1, ((kept - exact) ** 2).sum(), ((exact - before) ** 2).sum(), stay, moved.sum())
        for at, value in enumerate(new):
            row[at] += float(value)

    def roundings(self) -> tuple[Rounding, ...]:
        """One entry a dtype, where anything changed."""
        return tuple(
            Rounding(WORDS[dtype], int(n), (lost / change) ** 0.5, int(stay), int(elements))
            for dtype, (n, lost, change, stay, elements) in self.sums.items()
            if change
        )
