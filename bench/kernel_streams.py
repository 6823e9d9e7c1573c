"""A way through short vectors that no launch takes yet: few programs, whose loads never stop.

`projection.pair_sums_kernel` begins a program a vector or two: it asks for addresses, waits,
asks for data, waits, adds up, ends. Here no more programs than the device holds at once go through
all vectors. Each is one warp and has the data of the next two turns on its way at any time, across
the end of a vector too and while the lanes of the last one come together; and the addresses of the
vector after those. `kernel_configs_short.py` compares it where an H200 found `torch.compile` 7 %
faster (768-wide, bfloat16), and where addresses in no order cost most (.772 of a copy, goal .80).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from beftkit_kernels._launch import ALIGNMENT, WIDE, on, warps
from beftkit_kernels.layout import PairTable

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

#: threads of a program
LANES = 32
#: programs to a multiprocessor: half of those it may hold, and about what their registers allow
PROGRAMS = 16, 20


@triton.jit
def _row(items, item, P):
    """Addresses in pre and post and elements of an item; no elements behind the last."""
    row = items + tl.minimum(item, P - 1).to(tl.int64) * 4
    return tl.load(row), tl.load(row + 1), tl.where(item < P, tl.load(row + 2), 0)


@triton.jit
def _ask(pre, post, n, turn, DTYPE: tl.constexpr, ALIGN: tl.constexpr, LANES, WIDTH: tl.constexpr):
    """A turn's elements of both sides, ``[LANES * WIDTH]``, as they are."""
    at = turn.to(tl.int64) * (LANES * WIDTH) + tl.arange(0, LANES * WIDTH)
    mask = at < tl.multiple_of(n // WIDTH * WIDTH, WIDTH)  # whole loads
    a = tl.load(tl.multiple_of(pre.to(tl.pointer_type(DTYPE)), ALIGN) + at, mask=mask, other=0.0)
    b = tl.load(tl.multiple_of(post.to(tl.pointer_type(DTYPE)), ALIGN) + at, mask=mask, other=0.0)
    return a, b


@triton.jit
def _on(items, item, turn, pre, post, n, pre_2, post_2, n_2, P, G, turns):
    """To the next turn: where an item has no more, of the item that is known to follow it."""
    turn += 1
    if turn == turns:
        turn = turn * 0
        item += G
        pre, post, n = pre_2, post_2, n_2
        pre_2, post_2, n_2 = _row(items, item + G, P)
    return item, turn, pre, post, n, pre_2, post_2, n_2


@triton.jit
def _own(x, LANES: tl.constexpr, WIDTH: tl.constexpr):
    return tl.sum(tl.reshape(x, [LANES, WIDTH]), 1)


@triton.jit
def _add6(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5


@triton.jit(do_not_specialize=["P", "turns"], do_not_specialize_on_alignment=["items", "out"])
def stream_sums_kernel(
    items,  # [P, 4] int64, as for `pair_sums_kernel`
    out,  # [V, 6] float64
    P,
    turns,  # of the longest item
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    item, G = tl.program_id(0), tl.num_programs(0)
    mine = (P - item + G - 1) // G
    asked, turn = item, item * 0
    pre, post, n = _row(items, asked, P)
    pre_2, post_2, n_2 = _row(items, asked + G, P)
    a0, b0 = _ask(pre, post, n, turn, DTYPE, ALIGN, LANES, WIDTH)
    asked, turn, pre, post, n, pre_2, post_2, n_2 = _on(
        items, asked, turn, pre, post, n, pre_2, post_2, n_2, P, G, turns
    )
    a1, b1 = _ask(pre, post, n, turn, DTYPE, ALIGN, LANES, WIDTH)
    zero = tl.zeros([LANES], tl.float64)
    for _ in range(mine):
        vector = tl.load(items + item.to(tl.int64) * 4 + 3) // 16  # read long before it is needed
        s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
        for _ in range(turns):
            asked, turn, pre, post, n, pre_2, post_2, n_2 = _on(
                items, asked, turn, pre, post, n, pre_2, post_2, n_2, P, G, turns
            )
            a2, b2 = _ask(pre, post, n, turn, DTYPE, ALIGN, LANES, WIDTH)
            a, b = a0.to(tl.float64), b0.to(tl.float64)
            d = b - a
            s0 += _own(a * a, LANES, WIDTH)
            s1 += _own(b * b, LANES, WIDTH)
            s2 += _own(a * d, LANES, WIDTH)
            s3 += _own(b * d, LANES, WIDTH)
            s4 += _own(tl.abs(d), LANES, WIDTH)
            s5 += _own(d * d, LANES, WIDTH)
            a0, b0, a1, b1 = a1, b1, a2, b2
        s0, s1, s2, s3, s4, s5 = tl.reduce((s0, s1, s2, s3, s4, s5), 0, _add6)
        to = out + vector * 6
        tl.store(to, s0)
        tl.store(to + 1, s1)
        tl.store(to + 2, s2)
        tl.store(to + 3, s3)
        tl.store(to + 4, s4)
        tl.store(to + 5, s5)
        item += G


def stream(table: PairTable, out: Tensor, programs: int) -> Callable[[], Tensor]:
    """What fills ``out [V, 6]`` as `pair_sums` does, with so many programs to a multiprocessor.

    Raises:
        ValueError: vectors that are split, of several dtypes, or not of whole loads.
    """
    if table.dtype is None or not table.aligned:
        raise ValueError("expected vectors of one dtype, float32 or narrower, at whole loads")
    built = constants(table.dtype)
    lengths = table.items[:, 2]
    if table.split or bool((lengths % built["WIDTH"]).any()):
        raise ValueError(f"expected vectors of at most one item, of whole {ALIGNMENT}-byte loads")
    count = len(table.items)
    turns = -(-int(lengths.max()) // (LANES * built["WIDTH"]))
    many = 1
    if out.is_cuda:
        many = torch.cuda.get_device_properties(out.device).multi_processor_count
    grid = (min(count, many * programs),)

    def run() -> Tensor:
        with on(out.device):
            stream_sums_kernel[grid](table.items, out, count, turns, **built, num_warps=warps(1))
        return out

    return run


def constants(dtype: Any) -> dict[str, Any]:
    """What the kernel is compiled for; ``dtype`` is a value of `layout.DTYPES`."""
    width = WIDE // 2 if dtype == tl.float32 else WIDE
    return {"DTYPE": dtype, "ALIGN": ALIGNMENT, "LANES": LANES, "WIDTH": width}
