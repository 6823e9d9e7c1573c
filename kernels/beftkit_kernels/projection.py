"""`projection_stats` in Triton: six sums of every pair, and the mean score per role.

One launch. A program reduces one *item*: a vector, or a chunk of a long one. Where a vector is one
item, its program writes the result. Where it is several, each program leaves its sums in ``part``
and counts itself in; whoever comes last adds them up in the order of the items, so the result does
not depend on who that was. The only atomic is that integer count.

Sums are kept in float64. There float32 and 16-bit inputs are exact, d = post - pre is exact unless
the two differ by more than a factor of 2^29, and products neither overflow nor vanish. No term goes
through more than 64 additions for D up to 2^22 (8 and 4 in a thread, the rest in trees), hence
|error of <pre, d>| <= 64 eps sum |pre_i d_i| with eps = 2^-53; near 1 eps of it as a rule. Pairs of
float32 (two-sum, two-product) would cost some 60 operations an element instead of 9: the choice
rests on such counts (bench/README.md), not on a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import ALIGNMENT, KINDS, WIDE, on, upload, warps

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton, which ships no types, reads the annotations of a kernel as its own.

#: most elements of an item, up to SPLITS items a vector; then items grow
CHUNK = 4096
SPLITS = 1024
#: elements of a pair a program holds at a time, 8 per thread
TILE = 1024
LANES = 128

#: kernel dtypes; None: several in one launch (or float64), looked up item by item
DTYPES = {0: tl.float32, 1: tl.bfloat16, 2: tl.float16}


@triton.jit
def load_float64(
    address,  # scalar int64
    kind,  # scalar, a code of KINDS; read only where DTYPE is None
    at,  # int64 offsets in elements, of any shape
    mask,
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """Elements at an address, in float64. The hint of alignment has to follow the cast."""
    if DTYPE is None:
        if kind == 0:
            pointer = tl.multiple_of(address.to(tl.pointer_type(tl.float32)), ALIGN)
            x = tl.load(pointer + at, mask=mask, other=0.0).to(tl.float64)
        elif kind == 1:
            half = tl.multiple_of(address.to(tl.pointer_type(tl.bfloat16)), ALIGN)
            x = tl.load(half + at, mask=mask, other=0.0).to(tl.float64)
        elif kind == 2:
            short = tl.multiple_of(address.to(tl.pointer_type(tl.float16)), ALIGN)
            x = tl.load(short + at, mask=mask, other=0.0).to(tl.float64)
        else:
            double = tl.multiple_of(address.to(tl.pointer_type(tl.float64)), ALIGN)
            x = tl.load(double + at, mask=mask, other=0.0)
    else:
        x = tl.load(
            tl.multiple_of(address.to(tl.pointer_type(DTYPE)), ALIGN) + at, mask=mask, other=0.0
        ).to(tl.float64)
    return x


@triton.jit
def _terms(pre, post, kinds, at, mask, DTYPE: tl.constexpr, ALIGN: tl.constexpr):
    """The six sums over the second axis of a tile."""
    a = load_float64(pre, kinds % 4, at, mask, DTYPE, ALIGN)
    b = load_float64(post, kinds // 4, at, mask, DTYPE, ALIGN)
    d = b - a
    return (
        tl.sum(a * a, 1),
        tl.sum(b * b, 1),
        tl.sum(a * d, 1),
        tl.sum(b * d, 1),
        tl.sum(tl.abs(d), 1),
        tl.sum(d * d, 1),
    )


@triton.jit
def _add6(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5


@triton.jit
def _store6(to, s0, s1, s2, s3, s4, s5):
    tl.store(to, s0)
    tl.store(to + 1, s1)
    tl.store(to + 2, s2)
    tl.store(to + 3, s3)
    tl.store(to + 4, s4)
    tl.store(to + 5, s5)


@triton.jit(do_not_specialize_on_alignment=["items", "firsts", "part", "counts", "out"])
def pair_sums_kernel(
    items,  # [P, 4] int64: addresses in pre and post, elements, vector * 16 + kinds of both
    firsts,  # [V + 1] int64: the first item of each vector
    part,  # [P, 6] float64
    counts,  # [V] int32, zero before and after
    out,  # [V, 6] float64
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    item = tl.program_id(0).to(tl.int64)
    row = items + item * 4
    pre = tl.load(row)
    post = tl.load(row + 1)
    n = tl.load(row + 2)
    last = tl.load(row + 3)
    kinds = last % 16
    vector = last // 16
    lane = tl.arange(0, ROWS).to(tl.int64)
    tile = lane[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]  # [ROWS, WIDTH]
    zero = tl.zeros([ROWS], tl.float64)
    s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
    # Masks that change only at multiples of WIDTH leave loads whole.
    even = tl.multiple_of(n - n % WIDTH, WIDTH)
    for start in range(0, even, ROWS * WIDTH):
        at = start + tile
        t0, t1, t2, t3, t4, t5 = _terms(pre, post, kinds, at, at < even, DTYPE, ALIGN)
        s0, s1, s2, s3, s4, s5 = _add6(s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5)
    s0, s1, s2, s3, s4, s5 = tl.reduce((s0, s1, s2, s3, s4, s5), 0, _add6)
    if WIDTH > 1:
        if even < n:
            at = even + tl.arange(0, WIDTH)[:, None]
            t0, t1, t2, t3, t4, t5 = _terms(pre, post, kinds, at, at < n, DTYPE, ALIGN)
            t0, t1, t2, t3, t4, t5 = tl.reduce((t0, t1, t2, t3, t4, t5), 0, _add6)
            s0, s1, s2, s3, s4, s5 = _add6(s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5)

    first = tl.load(firsts + vector)
    count = tl.load(firsts + vector + 1) - first
    if count == 1:
        _store6(out + vector * 6, s0, s1, s2, s3, s4, s5)
    else:
        # One thread stores the scalars and counts: its release covers them.
        _store6(part + item * 6, s0, s1, s2, s3, s4, s5)
        tl.debug_barrier()
        before = tl.atomic_add(counts + vector, 1, sem="acq_rel", scope="gpu")
        if before == count - 1:
            s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
            for start in range(0, count, ROWS):
                at = start + lane
                of = (first + at) * 6
                t0 = tl.load(part + of, mask=at < count, other=0.0, cache_modifier=".cg")
                t1 = tl.load(part + (of + 1), mask=at < count, other=0.0, cache_modifier=".cg")
                t2 = tl.load(part + (of + 2), mask=at < count, other=0.0, cache_modifier=".cg")
                t3 = tl.load(part + (of + 3), mask=at < count, other=0.0, cache_modifier=".cg")
                t4 = tl.load(part + (of + 4), mask=at < count, other=0.0, cache_modifier=".cg")
                t5 = tl.load(part + (of + 5), mask=at < count, other=0.0, cache_modifier=".cg")
                s0, s1, s2, s3, s4, s5 = _add6(s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5)
            s0, s1, s2, s3, s4, s5 = tl.reduce((s0, s1, s2, s3, s4, s5), 0, _add6)
            _store6(out + vector * 6, s0, s1, s2, s3, s4, s5)
            tl.store(counts + vector, 0)


@triton.jit(do_not_specialize_on_alignment=["stats", "members", "firsts", "ratios", "means"])
def role_means_kernel(
    stats,  # [V, 6] float64
    members,  # [V] int64: the vectors, role by role
    firsts,  # [K + 1] int64: where each role begins in members
    ratios,  # [V] float64
    means,  # [K] float64
    LANES: tl.constexpr,
):
    role = tl.program_id(0).to(tl.int64)
    first = tl.load(firsts + role)
    end = tl.load(firsts + role + 1)
    total = tl.zeros([LANES], tl.float64)
    for start in range(first, end, LANES):
        at = start + tl.arange(0, LANES)
        mask = at < end
        vector = tl.load(members + at, mask=mask, other=0)
        of = vector * 6
        pre_pre = tl.load(stats + of, mask=mask, other=0.0)
        post_post = tl.load(stats + (of + 1), mask=mask, other=0.0)
        pre_d = tl.load(stats + (of + 2), mask=mask, other=0.0)
        post_d = tl.load(stats + (of + 3), mask=mask, other=0.0)
        shrunk = pre_d + post_d <= 0
        squares = tl.where(shrunk, pre_pre, post_post)
        divisor = tl.where(pre_pre + post_post == 0, 1.0, squares)
        ratio = tl.where(shrunk, -pre_d, post_d) / divisor
        ratio += (pre_pre + post_post) * 0  # NaN where either is not finite
        tl.store(ratios + vector, ratio, mask=mask)
        total += tl.where(mask, ratio, 0.0)
    tl.store(means + role, tl.sum(total, 0) / (end - first).to(tl.float64))


def constants(dtype: Any, aligned: bool) -> dict[str, Any]:
    """What the kernel is compiled for; ``dtype`` is a value of `DTYPES` or None."""
    if not aligned:
        return {"DTYPE": dtype, "ALIGN": 1, "ROWS": TILE // 2, "WIDTH": 1}
    # The elements of one 128-bit load in a row: a thread has all of them and adds them up itself.
    width = WIDE // 2 if dtype == tl.float32 else WIDE
    return {"DTYPE": dtype, "ALIGN": ALIGNMENT, "ROWS": TILE // width, "WIDTH": width}


@dataclass(frozen=True)
class PairTable:
    """Where V pairs lie on a device, and room for the sums of split vectors.

    One launch at a time: the counts in it are in use until the launch has ended.
    """

    items: Tensor  # [P, 4]
    firsts: Tensor  # [V + 1]
    part: Tensor  # [P, 6]
    counts: Tensor  # [V]
    dtype: Any
    aligned: bool


def pair_table(
    addresses: tuple[Tensor, Tensor],
    kinds: tuple[Tensor, Tensor],
    lengths: Tensor,
    device: torch.device,
) -> PairTable:
    """Cut V pairs into items; all arguments are ``[V]`` int64 on the CPU.

    Args:
        addresses: of pre and post, in bytes.
        kinds: of pre and post, codes of `KINDS`.
        lengths: elements.
        device: where the vectors lie.
    """
    sizes = torch.tensor([dtype.itemsize for dtype in KINDS])
    chunks = (-(-lengths // SPLITS) + CHUNK - 1).clamp_min(CHUNK) // CHUNK * CHUNK
    number = (-(-lengths // chunks)).clamp_min(1)
    firsts = torch.cat([torch.zeros(1, dtype=torch.int64), number.cumsum(0)])
    vector = torch.repeat_interleave(torch.arange(len(lengths)), number)
    begin = (torch.arange(len(vector)) - firsts[vector]) * chunks[vector]
    items = torch.stack(
        [
            addresses[0][vector] + begin * sizes[kinds[0]][vector],
            addresses[1][vector] + begin * sizes[kinds[1]][vector],
            torch.minimum(chunks[vector], lengths[vector] - begin),
            vector * 16 + kinds[0][vector] + 4 * kinds[1][vector],
        ],
        dim=1,
    )
    codes = set(torch.cat(kinds).tolist())
    starts = torch.cat(addresses)[lengths.repeat(2) > 0]
    split = len(vector) > len(lengths)
    return PairTable(
        upload(items, device),
        upload(firsts, device),
        torch.empty((len(vector) if split else 0, 6), dtype=torch.float64, device=device),
        torch.zeros(len(lengths), dtype=torch.int32, device=device),
        DTYPES.get(codes.pop()) if len(codes) == 1 else None,
        bool((starts % ALIGNMENT == 0).all()),
    )


def pair_sums(table: PairTable, out: Tensor) -> None:
    """Fill ``out [V, 6]`` in one launch."""
    if len(table.items):
        with on(out.device):
            given = (table.items, table.firsts, table.part, table.counts, out)
            built = constants(table.dtype, table.aligned)
            pair_sums_kernel[(len(table.items),)](*given, **built, num_warps=warps())


def role_means(
    stats: Tensor, members: Tensor, firsts: Tensor, ratios: Tensor, means: Tensor
) -> None:
    """Fill ``ratios [V]`` and ``means [K]`` in one launch; see `role_means_kernel`."""
    with on(stats.device):
        role_means_kernel[(len(means),)](
            stats, members, firsts, ratios, means, LANES=LANES, num_warps=warps()
        )
