"""`projection_stats` in Triton: six sums of every pair, and the mean score per role.

One launch. An *item* is a vector, or a chunk of a long one; a program reduces ``rows`` items side
by side, each in ``lanes`` threads, with several 128-bit loads on their way at a time: the memory is
kept busy by what is in flight, not by arithmetic. Threads add up what they read by themselves, and
the lanes of an item come together once, at its end. Where every vector is one item, its program
writes the result. Where one is several, programs take one item each, leave its sums in ``part`` and
count themselves in; whoever comes last adds them up in the order of the items, so the result does
not depend on who that was. The only atomic is that integer count.

Sums are kept in float64. There float32 and 16-bit inputs are exact, d = post - pre is exact unless
the two differ by more than a factor of 2^29, and products neither overflow nor vanish. No term goes
through more than 64 additions for D up to 2^22 (of a load, of the loads at a time, of a thread's
turns, the rest in trees; `layout.depth` counts them), hence |error of <pre, d>| <= 64 eps sum
|pre_i d_i| with eps = 2^-53; near 1 eps of it as a rule. Pairs of float32 (two-sum, two-product)
would cost some 60 operations an element instead of 9, float32 products leave the range of
bfloat16's squares.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._launch import on, warps
from .layout import PairTable, constants

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton, which ships no types, reads the annotations of a kernel as its own.

#: vectors of a role at a time
LANES = 128


@triton.jit
def load_float64(
    address,  # scalar int64; or one to each row of a tile of two axes, where DTYPE is known
    kind,  # scalar, a code of KINDS; read only where DTYPE is None
    at,  # int64 offsets in elements, of any shape
    mask,
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr = 1,
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
        x = _load(address, at, mask, DTYPE, ALIGN, ROWS).to(tl.float64)
    return x


@triton.jit
def _load(address, at, mask, DTYPE: tl.constexpr, ALIGN: tl.constexpr, ROWS: tl.constexpr):
    """Elements of a known dtype, as they are."""
    known = address.to(tl.pointer_type(DTYPE))
    if ROWS == 1:
        known = tl.multiple_of(known, ALIGN)
    else:
        known = tl.multiple_of(known, [ALIGN, ALIGN])
    return tl.load(known + at, mask=mask, other=0.0)


@triton.jit
def _terms(
    pre,
    post,
    kinds,
    at,  # [loads * ROWS, lanes * WIDTH]
    mask,
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The six sums over what a thread has to itself, ``[ROWS, lanes]``."""
    a = load_float64(pre, kinds % 4, at, mask, DTYPE, ALIGN, ROWS)
    b = load_float64(post, kinds // 4, at, mask, DTYPE, ALIGN, ROWS)
    return _sums(a, b, ROWS, WIDTH)


@triton.jit
def _sums(a, b, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    # Two axes until here: of more, Triton 3.6 and 3.7 deal them out to threads differently.
    loads: tl.constexpr = a.shape[0] // ROWS
    lanes: tl.constexpr = a.shape[1] // WIDTH
    a = tl.reshape(a, [loads, ROWS, lanes, WIDTH])
    b = tl.reshape(b, [loads, ROWS, lanes, WIDTH])
    d = b - a
    return _own(a * a), _own(b * b), _own(a * d), _own(b * d), _own(tl.abs(d)), _own(d * d)


@triton.jit
def _own(x):
    return tl.sum(tl.sum(x, 3), 0)


@triton.jit
def _add6(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5


@triton.jit
def _store6(to, at, s0, s1, s2, s3, s4, s5, mask):
    tl.store(to + at, s0, mask=mask)
    tl.store(to + (at + 1), s1, mask=mask)
    tl.store(to + (at + 2), s2, mask=mask)
    tl.store(to + (at + 3), s3, mask=mask)
    tl.store(to + (at + 4), s4, mask=mask)
    tl.store(to + (at + 5), s5, mask=mask)


@triton.jit(
    do_not_specialize=["P", "pre_at", "post_at", "pre_step", "post_step", "length"],
    do_not_specialize_on_alignment=["items", "firsts", "part", "counts", "out"],
)
def pair_sums_kernel(
    items,  # [P, 4] int64: addresses in pre and post, elements, vector * 16 + kinds of both
    firsts,  # [V + 1] int64: the first item of each vector; read where SPLIT
    part,  # [P, 6] float64, written where SPLIT
    counts,  # [V] int32, zero before and after
    out,  # [V, 6] float64
    P,
    pre_at,  # these five are read where EVEN: addresses of the first vectors, in bytes
    post_at,
    pre_step,  # from one vector to the next, in bytes
    post_step,
    length,  # elements of each
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
    SPLIT: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    AHEAD: tl.constexpr,
    EVEN: tl.constexpr,
):
    load = tl.arange(0, UNROLL * ROWS)
    if EVEN:
        first = tl.program_id(0).to(tl.int64) * ROWS
        whole = length.to(tl.int64)
        longest = tl.multiple_of(whole - whole % WIDTH, WIDTH)
        rest = whole - longest
        if ROWS == 1:
            item, of, there = first, first, True
            n, even = whole, longest
        else:
            item = first + tl.arange(0, ROWS)
            there = item < P
            of = (first + load % ROWS)[:, None]
            n = tl.where(of < P, whole, 0)
            even = tl.multiple_of(tl.where(of < P, longest, 0), [WIDTH, WIDTH])
        pre = pre_at.to(tl.int64) + of * pre_step
        post = post_at.to(tl.int64) + of * post_step
        vector, kinds = item, 0
    elif ROWS == 1:  # scalars: their tests and branches are the program's
        item = tl.program_id(0).to(tl.int64)
        row = items + item * 4
        pre, post = tl.load(row), tl.load(row + 1)
        n, last = tl.load(row + 2), tl.load(row + 3)
        there = True
        kinds, vector = last % 16, last // 16
        even = tl.multiple_of(n - n % WIDTH, WIDTH)
        longest, rest = even, n - even
    else:
        first = tl.program_id(0).to(tl.int64) * ROWS
        item = first + tl.arange(0, ROWS)
        there = item < P
        vector = tl.load(items + (item * 4 + 3), mask=there, other=0) // 16
        of = (first + load % ROWS) * 4
        inside = first + load % ROWS < P
        pre = tl.load(items + of, mask=inside, other=0)[:, None]
        post = tl.load(items + (of + 1), mask=inside, other=0)[:, None]
        n = tl.load(items + (of + 2), mask=inside, other=0)
        kinds = 0  # DTYPE is known
        even = tl.multiple_of(n - n % WIDTH, WIDTH)
        longest, rest = tl.max(even, 0), tl.max(n - even, 0)
        n, even = n[:, None], even[:, None]
    lane = tl.arange(0, LANES).to(tl.int64)
    within = tl.arange(0, LANES * WIDTH)[None, :]
    tile = (load // ROWS).to(tl.int64)[:, None] * (LANES * WIDTH) + within
    zero = tl.zeros([ROWS, LANES], tl.float64)
    s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
    # Masks that change only at multiples of WIDTH leave loads whole.
    if AHEAD:
        a = _load(pre, tile, tile < even, DTYPE, ALIGN, ROWS)
        b = _load(post, tile, tile < even, DTYPE, ALIGN, ROWS)
        for start in range(0, longest, UNROLL * LANES * WIDTH):
            at = start + UNROLL * LANES * WIDTH + tile
            next_a = _load(pre, at, at < even, DTYPE, ALIGN, ROWS)
            next_b = _load(post, at, at < even, DTYPE, ALIGN, ROWS)
            t0, t1, t2, t3, t4, t5 = _sums(a.to(tl.float64), b.to(tl.float64), ROWS, WIDTH)
            s0, s1, s2, s3, s4, s5 = _add6(s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5)
            a, b = next_a, next_b
    else:
        for start in range(0, longest, UNROLL * LANES * WIDTH):
            at, mask = start + tile, start + tile < even
            t0, t1, t2, t3, t4, t5 = _terms(pre, post, kinds, at, mask, DTYPE, ALIGN, ROWS, WIDTH)
            s0, s1, s2, s3, s4, s5 = _add6(s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5)
    s0, s1, s2, s3, s4, s5 = tl.reduce((s0, s1, s2, s3, s4, s5), 1, _add6)  # [ROWS]
    if WIDTH > 1:
        if rest > 0:  # fewer than WIDTH elements, read by the first of the loads
            at = even + tile
            mask = (at < n) & (tile < WIDTH)
            t0, t1, t2, t3, t4, t5 = _terms(pre, post, kinds, at, mask, DTYPE, 1, ROWS, WIDTH)
            t0, t1, t2, t3, t4, t5 = tl.reduce((t0, t1, t2, t3, t4, t5), 1, _add6)
            s0, s1, s2, s3, s4, s5 = _add6(s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5)

    if ROWS == 1:
        s0, s1, s2, s3, s4, s5 = tl.reduce((s0, s1, s2, s3, s4, s5), 0, _add6)  # scalars
    if SPLIT:
        first = tl.load(firsts + vector)
        count = tl.load(firsts + vector + 1) - first
        if count == 1:
            _store6(out, vector * 6, s0, s1, s2, s3, s4, s5, there)
        else:
            # One thread stores the scalars and counts: its release covers them.
            _store6(part, item * 6, s0, s1, s2, s3, s4, s5, there)
            tl.debug_barrier()
            before = tl.atomic_add(counts + vector, 1, sem="acq_rel", scope="gpu")
            if before == count - 1:
                none = tl.zeros([LANES], tl.float64)
                s0, s1, s2, s3, s4, s5 = none, none, none, none, none, none
                for start in range(0, count, LANES):
                    at = start + lane
                    of, mask = (first + at) * 6, at < count
                    t0 = tl.load(part + of, mask=mask, other=0.0, cache_modifier=".cg")
                    t1 = tl.load(part + (of + 1), mask=mask, other=0.0, cache_modifier=".cg")
                    t2 = tl.load(part + (of + 2), mask=mask, other=0.0, cache_modifier=".cg")
                    t3 = tl.load(part + (of + 3), mask=mask, other=0.0, cache_modifier=".cg")
                    t4 = tl.load(part + (of + 4), mask=mask, other=0.0, cache_modifier=".cg")
                    t5 = tl.load(part + (of + 5), mask=mask, other=0.0, cache_modifier=".cg")
                    s0, s1, s2, s3, s4, s5 = _add6(s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5)
                s0, s1, s2, s3, s4, s5 = tl.reduce((s0, s1, s2, s3, s4, s5), 0, _add6)
                _store6(out, vector * 6, s0, s1, s2, s3, s4, s5, there)
                tl.store(counts + vector, 0)
    else:
        _store6(out, vector * 6, s0, s1, s2, s3, s4, s5, there)


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
    first, end = tl.load(firsts + role), tl.load(firsts + role + 1)
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


def pair_sums(table: PairTable, out: Tensor) -> None:
    """Fill ``out [V, 6]`` in one launch."""
    if count := len(table.items):
        with on(out.device):
            given = (table.items, table.firsts, table.part, table.counts, out, count, *table.places)
            built = constants(table.dtype, table.aligned, table.tiles, table.split)
            grid = (-(-count // table.tiles.rows),)
            pair_sums_kernel[grid](*given, **built, num_warps=warps(table.tiles.warps))


def role_means(
    stats: Tensor, members: Tensor, firsts: Tensor, ratios: Tensor, means: Tensor
) -> None:
    """Fill ``ratios [V]`` and ``means [K]`` in one launch; see `role_means_kernel`."""
    with on(stats.device):
        given = (stats, members, firsts, ratios, means)
        role_means_kernel[(len(means),)](*given, LANES=LANES, num_warps=warps())
