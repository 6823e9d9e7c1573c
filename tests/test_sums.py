"""Sums, lengths and angles of vectors, against exact fractions and what is known."""

from __future__ import annotations

from fractions import Fraction
from math import isclose, sqrt

import numpy as np
import pytest

from beftkit.weights.sums import angle, combined, cosine, norm


def exact_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """By rational arithmetic, rounded at the end."""
    x, y = ([Fraction(float(one)) for one in vector] for vector in (a, b))
    dot = sum(p * q for p, q in zip(x, y, strict=True))
    squares = sum(p * p for p in x) * sum(q * q for q in y)
    sign = 1 if dot >= 0 else -1
    return sign * sqrt(Fraction(dot * dot) / squares)


@pytest.mark.parametrize("width", [1, 3, 7, 97])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_cosines_are_those_of_exact_arithmetic(width: int, scale: float) -> None:
    rng = np.random.default_rng(width)
    a, b = rng.normal(size=(2, width)) * [[scale], [1e-3]]
    want = exact_cosine(a, b)
    assert cosine(a, b) == pytest.approx(want, abs=1e-15)
    assert cosine(b, a) == cosine(a, b)
    assert angle(a, b) == pytest.approx(np.degrees(np.arccos(np.clip(want, -1, 1))), abs=1e-6)
    assert norm(a) == pytest.approx(scale * np.linalg.norm(a / scale), rel=1e-14)


def test_small_angles_keep_their_digits() -> None:
    a, b = np.array([3.0, 4.0]), np.array([3.0 - 4e-9, 4.0 + 3e-9])
    found = angle(a, b)
    assert found is not None and isclose(found, np.degrees(1e-9), rel_tol=1e-6)
    assert angle(a, a) == 0.0 and angle(a, -a) == pytest.approx(180.0)
    assert cosine(a, -a) == pytest.approx(-1.0)


@pytest.mark.parametrize("width", [0, 1, 5])
def test_a_zero_vector_has_no_angle(width: int) -> None:
    zero, other = np.zeros(width), np.ones(width)
    assert cosine(zero, other) is None and angle(other, zero) is None
    assert cosine(zero, zero) is None and norm(zero) == 0.0


def test_weighted_sums() -> None:
    vectors = list(np.random.default_rng(0).normal(size=(3, 5)))
    np.testing.assert_allclose(combined(vectors, [1 / 3] * 3), np.mean(vectors, axis=0), rtol=1e-15)
    want = 2 * vectors[0] - 0.5 * vectors[2]
    np.testing.assert_allclose(combined(vectors, [2, 0, -0.5]), want, rtol=1e-15)
    assert not combined(vectors, [0, 0, 0]).any()


def test_a_cosine_is_never_beyond_one() -> None:
    """Unit vectors are so but for rounding, of either sign."""
    rng = np.random.default_rng(4)
    some = [rng.normal(size=7) for _ in range(200)]
    units = [one / np.linalg.norm(one) for one in some]
    assert max(one @ one for one in units) > 1
    assert max(cosine(one, 3 * one) or 0 for one in some) <= 1
    assert min(cosine(one, -3 * one) or 0 for one in some) >= -1


def test_what_counts_for_nothing_may_overflow() -> None:
    assert combined([np.array([np.inf]), np.array([2.0])], [0, 1]).tolist() == [2.0]
