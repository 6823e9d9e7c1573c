"""Statistics of (pre, post) pairs of vectors in float64, cancellation-proof. Pure numpy.

Letters: V vectors, D bias length. The projection ratio lives on differences that can be one unit
in the last place of the inputs, so <pre, d> and <post, d> are summed as pairs of doubles (the
error-free transformations of Knuth and Dekker; Ogita, Rump & Oishi 2005, "Accurate sum and dot
product").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_BYTES = {"F64": 8, "F32": 4, "F16": 2}
#: significant bits (hidden one included) and smallest normal exponent of each float dtype on disk
PRECISION = {"F64": (53, -1022), "F32": (24, -126), "BF16": (8, -126), "F16": (11, -14)}


@dataclass(frozen=True)
class Stats:
    """Per pair, with d = post - pre; every field is a float64 array of shape ``[V]``.

    Attributes:
        pre_pre: ||pre||^2.
        post_post: ||post||^2.
        pre_d: <pre, d>.
        post_d: <post, d>.
        abs_d: sum |d|.
        d_d: ||d||^2.
        across: length of d's part at right angles to pre.
        exponent: each pair was divided by 2^exponent first, so that no square overflows.
        width: D.
    """

    pre_pre: Array
    post_post: Array
    pre_d: Array
    post_d: Array
    abs_d: Array
    d_d: Array
    across: Array
    exponent: npt.NDArray[np.int64]
    width: int


def decode(raw: bytes, dtype: str) -> Array:
    """Turn stored bytes into float64, exactly.

    Args:
        raw: little-endian bytes as a safetensors file keeps them.
        dtype: ``F64``, ``F32``, ``F16`` or ``BF16``.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN stays a NaN, and that is no news here
        if dtype == "BF16":  # the upper half of a float32
            wide = np.frombuffer(raw, "<u2").astype("<u4") << np.uint32(16)
            return wide.view("<f4").astype(np.float64)
        return np.frombuffer(raw, f"<f{_BYTES[dtype]}").astype(np.float64)


def rounded(values: Array, dtype: str) -> Array:
    """Values as a float32 result is stored in a dtype: to the nearest, ties to even.

    Args:
        values: any shape.
        dtype: ``F64`` (nothing is rounded), ``F32``, ``F16`` or ``BF16``.
    """
    if dtype == "F64":
        return values
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity stay what they are
        single = values.astype(np.float32)
        if dtype == "F16":
            return single.astype(np.float16).astype(np.float64)
        if dtype == "BF16":
            bits = single.view(np.uint32)
            near = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
            single = np.where(np.isnan(single), single, near.astype(np.uint32).view(np.float32))
        return single.astype(np.float64)


def pair_stats(pre: Array, post: Array) -> Stats:
    """Reduce V pairs of vectors.

    Args:
        pre: ``[V, D]``, float64.
        post: ``[V, D]``, float64.

    Returns:
        Statistics of each pair; NaN where a pair holds a NaN or an infinity.
    """
    if pre.shape != post.shape or pre.ndim != 2:
        raise ValueError(f"two arrays [V, D] expected, got {pre.shape} and {post.shape}")
    pre, post = np.asarray(pre, np.float64), np.asarray(post, np.float64)
    largest = np.maximum(np.abs(pre), np.abs(post)).max(axis=1, initial=0.0)
    finite = np.isfinite(largest)
    exponent = np.frexp(np.where(finite, largest, 1.0))[1].astype(np.int64)
    with np.errstate(all="ignore"):  # NaN and infinity pass through to the result
        # Not by a product, as 2^-exponent itself may not be a float64.
        pre, post = (np.ldexp(x, -exponent[:, None]) for x in (pre, post))
        d = post - pre  # exact wherever the change is small beside the value
        pre_pre, pre_d = _dot(pre, pre), _dot(pre, d)
        along = np.divide(pre_d, pre_pre, out=np.zeros_like(pre_d), where=pre_pre > 0)
        across = np.sqrt(np.square(d - along[:, None] * pre).sum(axis=1))
        post_post, post_d = _dot(post, post), _dot(post, d)
        abs_d, d_d = np.abs(d).sum(axis=1), np.square(d).sum(axis=1)
    for values in (pre_d, post_d, across, abs_d, d_d):
        values[~finite] = np.nan
    return Stats(pre_pre, post_post, pre_d, post_d, abs_d, d_d, across, exponent, pre.shape[1])


def stats_from_sums(sums: Array, width: int) -> Stats:
    """The statistics from the six sums that the kernels give.

    Args:
        sums: ``[V, 6]``: ||pre||^2, ||post||^2, <pre,d>, <post,d>, sum |d|, sum d^2.
        width: D, the same for all.
    """
    pre_pre, post_post, pre_d, post_d, abs_d, d_d = np.asarray(sums, np.float64).T
    with np.errstate(all="ignore"):
        square = d_d - np.divide(pre_d**2, pre_pre, out=np.zeros_like(d_d), where=pre_pre > 0)
        across = np.sqrt(np.where(square < 0, 0.0, square))
    exponent = np.zeros(len(pre_pre), np.int64)
    return Stats(pre_pre, post_post, pre_d, post_d, abs_d, d_d, across, exponent, width)


def metrics(stats: Stats) -> dict[str, Array]:
    """Every per-site figure from the statistics; each value is ``[V]``, NaN where undefined.

    ``projection`` is 1 - <pre, post> / max(||pre||^2, ||post||^2) (BEFT, section 2.1; the square
    is missing in the paper's merged formula, a misprint), in the difference form: 0 unchanged,
    1 orthogonal or one side zero, 2 negated. ``magnitude_l1`` is the paper's Magnitude
    (section 2.2), ``magnitude_l1_mean`` the mean absolute change of its published code,
    ``magnitude_l2_mean`` the root mean square. ``angle`` is in degrees. ``norm_change`` is
    (||post|| - ||pre||) / ||pre||.
    """
    with np.errstate(all="ignore"):
        norm_pre, norm_post = np.sqrt(stats.pre_pre), np.sqrt(stats.post_post)
        growth = stats.pre_d + stats.post_d  # ||post||^2 - ||pre||^2
        shrunk = growth <= 0
        projection = np.where(shrunk, -stats.pre_d / stats.pre_pre, stats.post_d / stats.post_post)
        both_zero = (stats.pre_pre == 0) & (stats.post_post == 0)
        projection = np.where(both_zero, 0.0, projection)
        cosine_part = stats.pre_pre + stats.pre_d  # <pre, post>
        angle = np.degrees(np.arctan2(norm_pre * stats.across, cosine_part))
        angle = np.where((stats.pre_pre == 0) | (stats.post_post == 0), np.nan, angle)
        l2 = np.sqrt(stats.d_d)
        width = float(max(stats.width, 1))
        return {
            "norm_pre": np.ldexp(norm_pre, stats.exponent),
            "norm_post": np.ldexp(norm_post, stats.exponent),
            "projection": projection,
            "magnitude_l1": np.ldexp(stats.abs_d, stats.exponent),
            "magnitude_l2": np.ldexp(l2, stats.exponent),
            "magnitude_l1_mean": np.ldexp(stats.abs_d / width, stats.exponent),
            "magnitude_l2_mean": np.ldexp(l2 / np.sqrt(width), stats.exponent),
            "angle": angle,
            "norm_change": growth / ((norm_pre + norm_post) * norm_pre),
        }


def within_rounding(pre: Array, post: Array, dtype_pre: str, dtype_post: str) -> bool:
    """Whether one side is the other rounded to the coarser of two different dtypes."""
    if dtype_pre == dtype_post:
        return bool(np.array_equal(pre, post))
    fine, coarse, dtype = post, pre, dtype_pre
    if PRECISION[dtype_pre][0] > PRECISION[dtype_post][0]:
        fine, coarse, dtype = pre, post, dtype_post
    bits, smallest = PRECISION[dtype]
    # Half a unit in the last place of the coarser dtype at each value of the finer side.
    exponent = np.maximum(np.frexp(fine)[1], smallest + 1)
    return bool(np.all(np.abs(coarse - fine) <= np.ldexp(1.0, exponent - bits - 1)))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b as rounded sum and exact error."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a * b as rounded product and exact error (Dekker, by splitting at 27 bits)."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _split(a: Array) -> tuple[Array, Array]:
    big = a * 134217729.0  # 2^27 + 1
    high = big - (big - a)
    return high, a - high


def _dot(a: Array, b: Array) -> Array:
    """<a, b> along the last axis, as if summed in twice the precision."""
    total, error = _two_product(a, b)
    while total.shape[1] > 1:
        half = (total.shape[1] + 1) // 2
        left, right = total[:, :half], total[:, half:]
        summed, lost = _two_sum(left[:, : right.shape[1]], right)
        carried = error[:, : right.shape[1]] + error[:, half:] + lost
        total = np.concatenate([summed, left[:, right.shape[1] :]], axis=1)
        error = np.concatenate([carried, error[:, right.shape[1] : half]], axis=1)
    result: Array = (total + error).sum(axis=1)  # one column, or none where D is 0
    return result
