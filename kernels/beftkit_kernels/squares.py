"""`example_square_sum` in Triton: squared per-example sums of many gradients, each read once.

One launch for all tensors of a group. A program owns `COLUMNS` coordinates of one tensor and a
range of examples, and walks through their rows and tokens in order: nothing is shared, so the
result is the same every time. Few and narrow tensors would leave the device idle; there the
examples are dealt over a power of two of programs, whose sums torch adds afterwards, in order.

Sums are kept in float64, as in `projection`: tokens cancel, and squares leave the range of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import ALIGNMENT, KINDS, WIDE, on, upload, warps
from .projection import DTYPES, load_float64

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton, which ships no types, reads the annotations of a kernel as its own.

#: what a program loads at a time: coordinates, and blocks of tokens; 4 loads of 128 bits a thread
#: in float32, 2 in the 16-bit dtypes. Larger tiles spill registers on sm_80 and sm_90.
COLUMNS = 32
TOKENS = 32
BLOCKS = 2
#: programs that keep a device busy; with fewer, examples are dealt out
BUSY = 512


@triton.jit(
    do_not_specialize=["N", "C", "indexed", "keep"],
    do_not_specialize_on_alignment=["table", "order", "firsts", "part", "single"],
)
def square_sums_kernel(
    table,  # [G, 8] int64: address, strides of R, T and D, T, D, first of the C columns, kind
    order,  # [R] int64: the rows, example by example
    firsts,  # [N + 1] int64: where each example begins in order
    part,  # [splits, C] float64
    single,  # [N, C] float64, written where keep
    N,
    C,  # columns of all tensors side by side
    indexed,  # 0: row and example are the same
    keep,
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS_T: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = table + tl.program_id(2).to(tl.int64) * 8
    D = tl.multiple_of(tl.load(row + 5), WIDTH)
    begin = tl.program_id(0).to(tl.int64) * BLOCK_D
    if begin < D:
        address = tl.load(row)
        stride_r = tl.multiple_of(tl.load(row + 1), WIDTH)
        stride_t = tl.multiple_of(tl.load(row + 2), WIDTH)
        stride_d = tl.load(row + 3)
        T = tl.load(row + 4)
        column = tl.load(row + 6)
        kind = tl.load(row + 7)
        if WIDTH > 1:
            stride_d = 1
        d = begin + tl.arange(0, BLOCK_D)
        block = tl.arange(0, BLOCKS_T).to(tl.int64) * BLOCK_T
        token = block[:, None] + tl.arange(0, BLOCK_T)[None, :]  # [BLOCKS_T, BLOCK_T]
        split = tl.program_id(1).to(tl.int64)
        splits = tl.num_programs(1)
        total = tl.zeros([BLOCK_D], tl.float64)
        for example in range(N * split // splits, N * (split + 1) // splits):
            low = example
            high = example + 1
            if indexed:
                low = tl.load(firsts + example)
                high = tl.load(firsts + example + 1)
            tile = tl.zeros([BLOCK_T, BLOCK_D], tl.float64)
            for place in range(low, high):
                r = place
                if indexed:
                    r = tl.load(order + place)
                for start in range(0, T, BLOCKS_T * BLOCK_T):
                    t = start + token
                    at = (r * stride_r + t * stride_t)[:, :, None] + (d * stride_d)[None, None, :]
                    mask = (t < T)[:, :, None] & (d < D)[None, None, :]
                    tile += tl.sum(load_float64(address, kind, at, mask, DTYPE, ALIGN), 0)
            gradient = tl.sum(tile, 0)
            if keep:
                tl.store(single + example * C + column + d, gradient, mask=d < D)
            total += gradient * gradient
        tl.store(part + split * C + column + d, total, mask=d < D)


def constants(dtype: Any, aligned: bool) -> dict[str, Any]:
    """What the kernel is compiled for; ``dtype`` is a value of `DTYPES` or None."""
    align, width = (ALIGNMENT, WIDE) if aligned else (1, 1)
    return {
        "DTYPE": dtype, "ALIGN": align, "WIDTH": width,
        "BLOCKS_T": BLOCKS, "BLOCK_T": TOKENS, "BLOCK_D": COLUMNS,
    }  # fmt: skip


def is_aligned(grad: Tensor) -> bool:
    """Whether ``grad [R, T, D]`` can be read 128 bits at a time, wherever a row begins."""
    rows, tokens, unit = grad.stride()
    whole = rows % WIDE == 0 and tokens % WIDE == 0 and grad.shape[2] % WIDE == 0
    return unit == 1 and whole and grad.data_ptr() % ALIGNMENT == 0


def splits_for(programs: int, examples: int) -> int:
    """Ranges of examples: a power of two, 1 where the tensors alone keep a device busy."""
    splits = 1
    while splits * programs < BUSY and splits * 2 <= examples:
        splits *= 2
    return splits


def square_sums(
    grads: Sequence[Tensor],
    by_example: tuple[Tensor, Tensor] | None,
    examples: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Sums of all tensors side by side.

    Args:
        grads: G tensors ``[R, T, D]`` on one device, T and D as they come.
        by_example: rows in the order of examples ``[R]`` and where each begins ``[N + 1]``, int64
            on the CPU; None where row and example are the same.
        examples: N.
        keep: also return the per-example gradients.

    Returns:
        ``[C]`` and ``[N, C]`` (without rows unless kept), float64; C is the sum of all D.
    """
    device = grads[0].device
    rows, columns = [], 0
    for grad in grads:
        shape = (*grad.stride(), *grad.shape[1:], columns, KINDS[grad.dtype])
        rows.append((grad.data_ptr(), *shape))
        columns += grad.shape[2]
    kinds = {row[-1] for row in rows}
    blocks = [-(-grad.shape[2] // COLUMNS) for grad in grads]
    splits = splits_for(sum(blocks), examples)
    part = torch.empty((splits, columns), dtype=torch.float64, device=device)
    single = torch.empty((examples if keep else 0, columns), dtype=torch.float64, device=device)
    table = upload(torch.tensor(rows, dtype=torch.int64), device)
    order, firsts = (upload(x, device) for x in by_example) if by_example else (table, table)
    if columns:
        with on(device):
            square_sums_kernel[(max(blocks), splits, len(grads))](
                table, order, firsts, part, single,
                examples, columns, int(by_example is not None), int(keep),
                **constants(
                    DTYPES.get(kinds.pop()) if len(kinds) == 1 else None,
                    all(is_aligned(grad) for grad in grads),
                ),
                num_warps=warps(),
            )  # fmt: skip
    total = part[0] if splits == 1 else part.sum(0)
    return total, single
