"""Sums of what adapters change, and the angles between: pure numpy, float64.

Letters: K adapters or checkpoints, D the length of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def combined(vectors: Sequence[Array], weights: Sequence[float]) -> Array:
    """The weighted sum of K vectors of one shape.

    Args:
        vectors: K arrays, float64.
        weights: K factors; the mean has 1 / K each.
    """
    total = np.zeros_like(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):
        if weight:  # zero times anything is nothing, also of what overflows
            total = total + weight * vector
    return total


def norm(vector: Array) -> float:
    """Euclidean length, whose squares neither overflow nor vanish."""
    largest = float(np.abs(vector).max(initial=0.0))
    if not largest or not np.isfinite(largest):
        return largest
    return float(np.linalg.norm(vector / largest) * largest)


def cosine(one: Array, other: Array) -> float | None:
    """The cosine of the angle between two vectors; None where one of them is zero.

    Args:
        one: ``[D]``, float64.
        other: ``[D]``, float64.
    """
    units = _units(one, other)
    return None if units is None else float(np.clip(units[0] @ units[1], -1.0, 1.0))


def angle(one: Array, other: Array) -> float | None:
    """The angle between two vectors in degrees, 0 to 180; None where one of them is zero.

    By the lengths of the sum and the difference of their unit vectors (W. Kahan), which keeps small
    angles, where the arc cosine loses half of its digits.
    """
    units = _units(one, other)
    if units is None:
        return None
    a, b = units
    half = np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    return float(np.degrees(2 * half))


def _units(one: Array, other: Array) -> tuple[Array, Array] | None:
    found = []
    for vector in (one, other):
        largest = np.abs(vector).max(initial=0.0)
        if not largest:
            return None
        scaled = vector / largest
        found.append(scaled / np.linalg.norm(scaled))
    return found[0], found[1]
