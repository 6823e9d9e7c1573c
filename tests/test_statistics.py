"""Statistics against exact rational arithmetic: the judge never rounds."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beftkit.scores.statistics import decode, metrics, pair_stats, stats_from_sums, within_rounding

ULP = {"F32": 2.0**-23, "BF16": 2.0**-7}


def exact_projection(pre: np.ndarray, post: np.ndarray) -> Fraction:
    """1 - <pre, post> / max(||pre||^2, ||post||^2), without any rounding."""
    a, b = [Fraction(float(x)) for x in pre], [Fraction(float(x)) for x in post]
    largest = max(sum(x * x for x in a), sum(x * x for x in b))
    if largest == 0:
        return Fraction(0)
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / largest


def projection(pre: np.ndarray, post: np.ndarray) -> float:
    return float(metrics(pair_stats(pre[None], post[None]))["projection"][0])


def assert_exact(pre: np.ndarray, post: np.ndarray, tolerance: float = 1e-12) -> None:
    want = exact_projection(pre, post)
    got = Fraction(projection(pre, post))
    assert abs(got - want) <= Fraction(tolerance) * abs(want), (float(got), float(want))


def bf16(values: np.ndarray) -> np.ndarray:
    """Cut float32 values down to bfloat16, still as float64."""
    bits = values.astype("<f4").view("<u4") & np.uint32(0xFFFF0000)
    return bits.view("<f4").astype(np.float64)


def random(seed: int, size: int, dtype: str = "F32") -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=size)
    return bf16(values) if dtype == "BF16" else values.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("size", [1, 2, 3, 127, 768, 4097])
@pytest.mark.parametrize("distance", [1e-6, 0.1, 3.0])
def test_projection_is_exact(size: int, distance: float) -> None:
    pre = random(size, size)
    assert_exact(pre, (pre + distance * random(size + 1, size)).astype(np.float32))


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("size", [1, 2, 5, 97, 768])
def test_one_ulp_changes_are_exact(dtype: str, size: int) -> None:
    """The printed formula is 100 % wrong here; the difference form must not be."""
    for seed in range(40):
        pre = random(seed, size, dtype)
        signs = np.random.default_rng(seed + 1000).integers(-1, 2, size)
        post = pre + signs * np.exp2(np.floor(np.log2(np.abs(pre)))) * ULP[dtype]
        assert_exact(pre, post)


def test_the_worst_cancellation_is_exact() -> None:
    """Two coordinates change places by one ulp: <pre, d> cancels to nothing."""
    ulp = ULP["F32"]
    pre = np.array([1.0 + ulp, 1.0, 3.0, 1e-3])
    post = np.array([1.0, 1.0 + ulp, 3.0, 1e-3])
    assert_exact(pre, post)
    many = random(3, 1001)
    swapped = many.copy()
    swapped[[0, 500]] = swapped[[500, 0]]
    assert_exact(many, swapped)


def test_double_precision_inputs_that_cancel() -> None:
    """Products of 53-bit numbers do not fit into 53 bits: their errors must be summed as well."""
    pre = np.random.default_rng(8).normal(size=301)
    pre[100] = pre[7] * (1 + 1e-9)
    post = pre.copy()
    post[[7, 100]] = pre[[100, 7]]
    assert_exact(pre, post)


@given(
    st.lists(st.tuples(*[st.floats(-(2.0**60), 2.0**60, width=32)] * 2), min_size=1, max_size=12)
)
def test_projection_is_exact_on_anything(pairs: list[tuple[float, float]]) -> None:
    pre, post = np.array(pairs, dtype=np.float64).T
    assert_exact(pre, post)


@pytest.mark.parametrize("scale", [1e20, 1e-22, 1e300, 1e-300])
def test_scaled_inputs(scale: float) -> None:
    """Neither the ratio nor the norms may overflow or vanish."""
    pre = random(1, 301)
    post = pre + 0.1 * random(2, 301)
    assert_exact(pre * scale, post * scale)
    found = metrics(pair_stats((pre * scale)[None], (post * scale)[None]))
    plain = metrics(pair_stats(pre[None], post[None]))
    for name in ("norm_pre", "norm_post", "magnitude_l1", "magnitude_l2"):
        assert found[name][0] == pytest.approx(plain[name][0] * scale, rel=1e-12)


def test_float32_scaled_inputs() -> None:
    pre = random(1, 301)
    post = pre + 0.1 * random(2, 301)
    for scale in (1e20, 1e-22):
        big_pre = (pre * scale).astype(np.float32).astype(np.float64)
        assert_exact(big_pre, (post * scale).astype(np.float32).astype(np.float64))


def test_landmarks() -> None:
    pre = random(4, 65)
    zero = np.zeros(65)
    assert projection(pre, pre) == 0
    assert projection(pre, zero) == 1
    assert projection(zero, pre) == 1
    assert projection(zero, zero) == 0
    assert projection(pre, -pre) == 2
    assert projection(np.empty(0), np.empty(0)) == 0


def test_against_plain_formulas() -> None:
    """Every other figure against the definition, on pairs in one batch."""
    rng = np.random.default_rng(5)
    pre, post = rng.normal(size=(2, 7, 33))
    found = metrics(pair_stats(pre, post))
    norm_pre, norm_post = np.linalg.norm(pre, axis=1), np.linalg.norm(post, axis=1)
    cosine = (pre * post).sum(1) / (norm_pre * norm_post)
    want = {
        "norm_pre": norm_pre,
        "norm_post": norm_post,
        "magnitude_l1": np.abs(post - pre).sum(1),
        "magnitude_l2": np.linalg.norm(post - pre, axis=1),
        "magnitude_l1_mean": np.abs(post - pre).mean(1),
        "magnitude_l2_mean": np.sqrt(np.square(post - pre).mean(1)),
        "angle": np.degrees(np.arccos(cosine)),
        "norm_change": norm_post / norm_pre - 1,
        "projection": 1 - (pre * post).sum(1) / np.maximum(norm_pre, norm_post) ** 2,
    }
    assert found.keys() == want.keys()
    for name, values in want.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_small_and_straight_angles() -> None:
    """arccos would give 0 or 1e-8 here."""
    pre = np.array([[1.0, 0.0], [3.0, 4.0], [3.0, 4.0], [1.0, 0.0]])
    post = np.array([[1.0, 1e-9], [6.0, 8.0], [-3.0, -4.0], [0.0, 2.0]])
    angle = metrics(pair_stats(pre, post))["angle"]
    assert angle[0] == pytest.approx(math.degrees(1e-9), rel=1e-12)
    assert list(angle[1:]) == [0.0, 180.0, 90.0]


def test_undefined_is_nan_and_stays_in_its_row() -> None:
    pre = np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0], [1.0, 2.0]])
    post = np.array([[2.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, np.nan]])
    found = metrics(pair_stats(pre, post))
    assert np.isfinite(found["projection"]).tolist() == [True, False, False, True, False]
    assert np.isnan(found["angle"][3]) and not np.isfinite(found["norm_change"][3])
    for name in ("magnitude_l1", "magnitude_l2", "angle"):
        assert not np.isfinite(found[name][[1, 2, 4]]).any(), name


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\[V, D\] expected"):
        pair_stats(np.ones((2, 3)), np.ones((2, 4)))


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2")])
def test_decode(dtype: str, numpy_dtype: str) -> None:
    values = np.random.default_rng(0).normal(size=9).astype(numpy_dtype)
    np.testing.assert_array_equal(decode(values.tobytes(), dtype), values.astype(np.float64))


def test_decode_bf16_against_torch() -> None:
    import torch

    values = torch.randn(300, generator=torch.Generator().manual_seed(0)).bfloat16()
    values[:3] = torch.tensor([float("inf"), float("-inf"), 1e-40])
    raw = values.view(torch.int16).numpy().tobytes()
    np.testing.assert_array_equal(decode(raw, "BF16"), values.double().numpy())


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_rounding_is_told_from_change(dtype: str) -> None:
    import torch

    kind = {"F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    fine = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 0.3
    fine[:4] = torch.tensor([0.0, 1e-7, 0.99999, -1.99999])
    coarse = fine.to(kind).double().numpy()
    exact = fine.double().numpy()
    assert within_rounding(exact, coarse, "F32", dtype)
    assert within_rounding(coarse, exact, dtype, "F32")
    moved = coarse.copy()
    moved[17] *= 1 + 2.0 * (2.0**-10 if dtype == "F16" else 2.0**-7)
    assert not within_rounding(exact, moved, "F32", dtype)
    assert not within_rounding(coarse, moved, dtype, dtype)
    assert within_rounding(coarse, coarse, dtype, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_torch_reference_agrees(dtype: str) -> None:
    """The difference form lives twice, in numpy and in torch: held equal here."""
    import torch

    from beftkit_kernels.reference import projection_ratio, projection_stats

    generator = torch.Generator().manual_seed(2)
    kind = getattr(torch, dtype)
    sizes = [1, 2, 13, 257, 4097]
    pre = [torch.randn(2 * size, generator=generator).to(kind)[::2] for size in sizes]
    post = [x + 0.1 * torch.randn(x.shape, generator=generator).to(kind) for x in pre]
    pre.append(torch.zeros(5, dtype=kind))
    post.append(torch.zeros(5, dtype=kind))
    stats = projection_stats(pre, post)
    ratios = projection_ratio(stats)
    for row, (a, b) in enumerate(zip(pre, post, strict=True)):
        x, y = a.double().numpy(), b.double().numpy()
        ours = pair_stats(x[None], y[None])
        scale = 2.0 ** float(ours.exponent[0])
        want = [getattr(ours, name)[0] for name in ("pre_pre", "post_post", "pre_d", "post_d")]
        np.testing.assert_allclose(
            stats[row, :4], np.array(want) * scale**2, rtol=1e-11, atol=1e-14
        )
        np.testing.assert_allclose(stats[row, 4], ours.abs_d[0] * scale, rtol=1e-12)
        assert float(ratios[row]) == pytest.approx(projection(x, y), rel=1e-11)


def test_the_torch_reference_checks_its_input() -> None:
    import torch

    from beftkit_kernels.reference import projection_stats

    with pytest.raises(ValueError, match="1 vectors in pre, 2 in post"):
        projection_stats([torch.ones(1)], [torch.ones(1)] * 2)
    with pytest.raises(ValueError, match="pair 0: 2 elements in pre, 3 in post"):
        projection_stats([torch.ones(2)], [torch.ones(3)])
    assert projection_stats([], []).shape == (0, 6)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_the_other_neighbour_is_no_rounding(dtype: str) -> None:
    """Of the two values beside an exact one the further is less than a unit away, and a change."""
    import torch

    kind = {"F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    exact = torch.tensor([0.3, -0.7, 1.9, -3.3], dtype=torch.float32)
    near = exact.to(kind)
    beyond = torch.nextafter(near, torch.where(exact > near, torch.inf, -torch.inf).to(kind))
    gaps = [(one.double() - exact.double()).abs() for one in (near, beyond)]
    assert bool((gaps[0] < gaps[1]).all())
    fine, *coarse = (one.double().numpy() for one in (exact, near, beyond))
    assert within_rounding(fine, coarse[0], "F32", dtype)
    for at in range(4):
        moved = coarse[0].copy()
        moved[at] = coarse[1][at]
        assert not within_rounding(fine, moved, "F32", dtype)


def test_angles_from_sums_are_numbers_where_the_change_is_parallel() -> None:
    """||d||^2 - <pre, d>^2 / ||pre||^2 is then zero but for rounding, of either sign."""
    rng = np.random.default_rng(3)
    pre = rng.normal(size=(64, 33))
    post = pre * rng.uniform(0.1, 3, size=(64, 1))
    d = post - pre
    products = [pre * pre, post * post, pre * d, post * d, np.abs(d), d * d]
    sums = np.stack([one.sum(axis=1) for one in products], axis=1)
    short = sums[:, 5] - sums[:, 2] ** 2 / sums[:, 0]
    assert (short < 0).any()
    np.testing.assert_allclose(metrics(stats_from_sums(sums, 33))["angle"], 0, atol=1e-5)
