"""`example_square_sum` in Triton: squared per-example sums of many gradients, each read once.

One launch for all tensors of a group. A program owns `COLUMNS` coordinates of one tensor and a
range of examples, and walks through their rows and tokens in order: nothing is shared, so the
result is the same every time. Few and narrow tensors would leave the device idle; there the
examples are dealt over a power of two of programs. Each leaves its sums in ``sums`` and counts
itself in; whoever comes last adds them up in the order of the examples, so the result does not
depend on who that was. The only atomic is that integer count.

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
#: in float32, 2 in the 16-bit dtypes. Larger tiles spill registers on sm_80 and sm_90. The columns
#: have to fit one warp, see the end of the kernel.
COLUMNS = 32
TOKENS = 32
BLOCKS = 2
#: programs that keep a device busy; with fewer, examples are dealt out
BUSY = 512


@triton.jit(
    do_not_specialize=["N", "C", "indexed", "keep"],
    do_not_specialize_on_alignment=["table", "order", "firsts", "counts", "sums", "single"],
)
def square_sums_kernel(
    table,  # [G, 8] int64: address, strides of R, T and D, T, D, first of the C columns, kind
    order,  # [R] int64: the rows, example by example
    firsts,  # [N + 1] int64: where each example begins in order
    counts,  # [G, D blocks] int64, zero before and after
    sums,  # [1, C] float64, or [splits + 1, C]: of each split, then of all
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
        lane = tl.arange(0, BLOCK_T).to(tl.int64)
        token = block[:, None] + lane[None, :]  # [BLOCKS_T, BLOCK_T]
        split = tl.program_id(1).to(tl.int64)
        splits = tl.num_programs(1)
        squares = tl.zeros([BLOCK_D], tl.float64)
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
            squares += gradient * gradient
        tl.store(sums + split * C + column + d, squares, mask=d < D)
        if splits > 1:
            # The first warp has stored all columns. Its first thread counts: that release covers
            # them, on AMD as well, where it waits for the stores of its own warp alone.
            tl.debug_barrier()
            count = counts + tl.program_id(2).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
            if tl.atomic_add(count, 1, sem="acq_rel", scope="gpu") == splits - 1:
                tile = tl.zeros([BLOCK_T, BLOCK_D], tl.float64)
                for start in range(0, splits, BLOCK_T):
                    s = start + lane
                    at = (s * C)[:, None] + (column + d)[None, :]
                    mask = (s < splits)[:, None] & (d < D)[None, :]
                    tile += tl.load(sums + at, mask=mask, other=0.0, cache_modifier=".cg")
                whole = sums + splits.to(tl.int64) * C + column
                tl.store(whole + d, tl.sum(tile, 0), mask=d < D)
                tl.store(count, 0)


def constants(dtype: Any, aligned: bool) -> dict[str, Any]:
    """What the kernel is compiled for; ``dtype`` is a value of `DTYPES` or None."""
    align, width = (ALIGNMENT, WIDE) if aligned else (1, 1)
    # Every element on its own, of four dtypes: the registers suffice for half as many.
    tokens = TOKENS if aligned or dtype else TOKENS // 2
    blocks = {"BLOCKS_T": BLOCKS, "BLOCK_T": tokens, "BLOCK_D": COLUMNS}
    return {"DTYPE": dtype, "ALIGN": align, "WIDTH": width, **blocks}


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
    grads: Sequence[Tensor], by_example: tuple[Tensor, Tensor] | None, examples: int, keep: bool
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
        where = (grad.data_ptr(), *grad.stride())
        rows.append((*where, *grad.shape[1:], columns, KINDS[grad.dtype]))
        columns += grad.shape[2]
    kinds = {row[-1] for row in rows}
    blocks = [-(-grad.shape[2] // COLUMNS) for grad in grads]
    splits = splits_for(sum(blocks), examples)
    # One copy brings all integers, and with them counts of zero.
    counts = torch.zeros(len(grads) * max(blocks), dtype=torch.int64)
    pieces = (torch.tensor(rows, dtype=torch.int64).view(-1), *(by_example or ()), counts)
    table, *lists, counts = upload(torch.cat(pieces), device).split([len(x) for x in pieces])
    order, firsts = lists or (table, table)
    shape = (splits + 1 if splits > 1 else 1, columns)
    sums = torch.empty(shape, dtype=torch.float64, device=device)
    single = torch.empty((examples if keep else 0, columns), dtype=torch.float64, device=device)
    if columns:
        with on(device):
            dtype = DTYPES.get(kinds.pop()) if len(kinds) == 1 else None
            built = constants(dtype, all(is_aligned(grad) for grad in grads))
            arrays = (table, order, firsts, counts, sums, single)
            numbers = (examples, columns, int(by_example is not None), int(keep))
            grid = (max(blocks), splits, len(grads))
            square_sums_kernel[grid](*arrays, *numbers, **built, num_warps=warps())
    return sums[-1], single
