"""`example_square_sum` in Triton: squared per-example sums of many gradients, each read once.

One launch for all tensors of a group. A program owns a block of columns of one tensor and a group
of examples, and walks through their rows and tokens in order: a thread has its columns to itself,
with several wide loads on their way at a time, and shares an example's tokens with few others or
none. Nothing else is shared, so the result is the same every time. How many examples make a group
depends on the length of theirs alone, and groups are added up in their order, by a second small
launch where there are several: an example without rows adds zeros, so the result is the same to the
bit for any larger N, too.

Sums are kept in float64, as in `projection`: tokens cancel, and squares leave the range of float32.
With eps = 2^-53 and M rows times tokens an example, its gradient is within M eps sum |g_t| of the
exact one, and a total within (N + 1) eps of the sum of these squares, relatively.
Tiles that are ``narrow`` add up the tokens of one step of a thread (``unroll`` of them, at most 32)
in float32 first: then a per-example sum is within unroll x 2^-24 x sum |g_t| of the exact one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import ALIGNMENT, KINDS, WIDE, on, upload, warps
from .layout import DTYPES
from .projection import load_float64

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton, which ships no types, reads the annotations of a kernel as its own.


class Tiles(NamedTuple):
    """How a program goes through its columns and tokens.

    Attributes:
        columns: threads side by side, each with the columns of one load.
        tokens: threads that share the tokens; with ``columns`` the threads of the program.
        unroll: loads of a thread at a time, each of another token.
        warps: of a program, of 32 threads.
        narrow: whether the tokens of these loads are added up in float32.
        load: bytes of a load, where aligned and of one dtype.
    """

    columns: int
    tokens: int
    unroll: int
    warps: int
    narrow: bool = False
    load: int = ALIGNMENT


#: by bytes of an element: what an H200 measured to be fastest, in float64 throughout, for 32 and
#: for 128 examples of 128 tokens, in fractions of a copy; tables in bench/README.md
CHOICES = {
    4: Tiles(32, 1, 8, 1),  # .898, .957
    2: Tiles(32, 1, 8, 1, load=8),  # .799, .918
}
#: of several dtypes in one launch, and of any strides
MIXED, STRIDED = Tiles(32, 4, 1, 4), Tiles(32, 4, 4, 4)
#: tokens that are worth a program
BUSY = 64
#: of the second launch: groups and columns at a time
TOTALS = {"LANES": 16, "BLOCK": 64}


@triton.jit(
    do_not_specialize=["N", "C", "group", "blocks", "indexed", "keep"],
    do_not_specialize_on_alignment=["table", "order", "firsts", "sums", "single"],
)
def square_sums_kernel(
    table,  # [G, 8] int64: address, strides of R, T and D, T, D, first of the C columns, kind
    order,  # [R] int64: the rows, example by example
    firsts,  # [N + 1] int64: where each example begins in order
    sums,  # [groups of examples, C] float64
    single,  # [N, C] float64, written where keep
    N,
    C,  # columns of all tensors side by side
    group,  # examples of a program
    blocks,  # of columns of the widest tensor
    indexed,  # 0: row and example are the same
    keep,
    DTYPE: tl.constexpr,
    ALIGN: tl.constexpr,
    NARROW: tl.constexpr,
    UNROLL: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = table + tl.program_id(1).to(tl.int64) * 8
    D = tl.multiple_of(tl.load(row + 5), WIDTH)
    part = tl.program_id(0).to(tl.int64) // blocks
    begin = (tl.program_id(0).to(tl.int64) % blocks) * (COLUMNS * WIDTH)
    if begin < D:
        address = tl.load(row)
        stride_r = tl.multiple_of(tl.load(row + 1), WIDTH)
        stride_t = tl.multiple_of(tl.load(row + 2), WIDTH)
        stride_d = tl.load(row + 3)
        T, column, kind = tl.load(row + 4), tl.load(row + 6), tl.load(row + 7)
        if WIDTH > 1:
            stride_d = 1
        d = begin + tl.arange(0, COLUMNS * WIDTH)
        # Two axes: of more, Triton 3.6 and 3.7 deal them out to threads differently.
        token = tl.arange(0, UNROLL * TOKENS).to(tl.int64)
        squares = tl.zeros([COLUMNS * WIDTH], tl.float64)
        end = part * group + group
        for example in range(part * group, tl.where(end < N, end, N)):
            low, high = example, example + 1
            if indexed:
                low, high = tl.load(firsts + example), tl.load(firsts + example + 1)
            tile = tl.zeros([TOKENS, COLUMNS * WIDTH], tl.float64)
            for place in range(low, high):
                r = place
                if indexed:
                    r = tl.load(order + place)
                for start in range(0, T, UNROLL * TOKENS):
                    t = start + token
                    at = (r * stride_r + t * stride_t)[:, None] + (d * stride_d)[None, :]
                    mask = (t < T)[:, None] & (d < D)[None, :]
                    if NARROW:
                        known = tl.multiple_of(address.to(tl.pointer_type(DTYPE)), ALIGN)
                        x = tl.load(known + at, mask=mask, other=0.0).to(tl.float32)
                    else:
                        x = load_float64(address, kind, at, mask, DTYPE, ALIGN)
                    x = tl.reshape(x, [UNROLL, TOKENS, COLUMNS * WIDTH])
                    tile += tl.sum(x, 0).to(tl.float64)
            gradient = tl.sum(tile, 0)
            if keep:
                tl.store(single + example * C + column + d, gradient, mask=d < D)
            squares += gradient * gradient
        tl.store(sums + part * C + column + d, squares, mask=d < D)


@triton.jit(
    do_not_specialize=["S", "C"],
    do_not_specialize_on_alignment=["sums", "total"],
)
def totals_kernel(
    sums,  # [S, C] float64
    total,  # [C] float64
    S,
    C,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, LANES).to(tl.int64)
    tile = tl.zeros([LANES, BLOCK], tl.float64)
    for start in range(0, S, LANES):
        s = start + lane
        mask = (s < S)[:, None] & (c < C)[None, :]
        tile += tl.load(sums + (s * C)[:, None] + c[None, :], mask=mask, other=0.0)
    tl.store(total + c, tl.sum(tile, 0), mask=c < C)


def tiles_for(dtype: Any, aligned: bool) -> Tiles:
    """How a launch goes through its tensors; ``dtype`` is a value of `DTYPES` or None."""
    if dtype is None or not aligned:
        return MIXED if aligned else STRIDED
    return CHOICES[4 if dtype == tl.float32 else 2]


def constants(dtype: Any, aligned: bool, tiles: Tiles) -> dict[str, Any]:
    """What the kernel is compiled for."""
    size = 4 if dtype == tl.float32 else 2
    width = (WIDE if dtype is None else tiles.load // size) if aligned else 1
    memory = {"DTYPE": dtype, "ALIGN": ALIGNMENT if aligned else 1}
    shape = {"UNROLL": tiles.unroll, "TOKENS": tiles.tokens, "COLUMNS": tiles.columns}
    return memory | {"NARROW": tiles.narrow and dtype is not None} | shape | {"WIDTH": width}


def is_aligned(grad: Tensor) -> bool:
    """Whether ``grad [R, T, D]`` can be read 128 bits at a time, wherever a row begins."""
    rows, tokens, unit = grad.stride()
    whole = rows % WIDE == 0 and tokens % WIDE == 0 and grad.shape[2] % WIDE == 0
    return unit == 1 and whole and grad.data_ptr() % ALIGNMENT == 0


def group_of(tokens: int) -> int:
    """Examples of a program: a power of two; of their length alone, see above."""
    return 1 << max(0, -(-BUSY // max(1, tokens)) - 1).bit_length()


class Launch:
    """All but the addresses of a launch, made once; its results lie in the same memory each time.

    Args:
        grads: G tensors ``[R, T, D]`` on one device, T and D as they come: these and those of later
            runs agree in shape, strides, dtype and alignment.
        by_example: rows in the order of examples ``[R]`` and where each begins ``[N + 1]``, int64
            on the CPU; None where row and example are the same.
        examples: N.
        keep: also fill the per-example gradients.
        once: whether no graph will capture it.

    Attributes:
        total: ``[C]`` float64; C is the sum of all D.
        single: ``[N, C]`` float64, without rows unless kept.
        tiles: how programs go through their tensors; may be set to another, to be compared.
    """

    def __init__(
        self,
        grads: Sequence[Tensor],
        by_example: tuple[Tensor, Tensor] | None,
        examples: int,
        keep: bool,
        once: bool = False,
    ) -> None:
        self.device = device = grads[0].device
        rows, columns = [], 0
        for grad in grads:
            _, tokens, width = grad.shape
            rows.append((0, *grad.stride(), tokens, width, columns, KINDS[grad.dtype]))
            columns += width
        self._columns, self._examples, self._keep = columns, examples, keep
        self._widest = max(row[5] for row in rows)
        kinds = {row[-1] for row in rows}
        self._dtype = DTYPES.get(kinds.pop()) if len(kinds) == 1 else None
        self._aligned = all(is_aligned(grad) for grad in grads)
        self.tiles = tiles_for(self._dtype, self._aligned)
        self._host = torch.tensor(rows, dtype=torch.int64)
        self._addresses: list[int] | None = None
        # A graph reads its copy of the table anew each time it is replayed.
        self._once = once
        on_gpu = device.type == "cuda" and not once
        self._of_graph = self._host.clone().pin_memory() if on_gpu else self._host
        self._captured: list[int] | None = None
        self._table = torch.empty_like(self._host, device=device)
        self._indexed = by_example is not None
        self._lists = [upload(one, device) for one in by_example or ()] or [self._table] * 2
        self._group = group_of(max(row[4] for row in rows))
        parts = max(1, -(-examples // self._group))
        self._sums = torch.empty((parts, columns), dtype=torch.float64, device=device)
        self.total = self._sums[0] if parts == 1 else torch.empty_like(self._sums[0])
        shape = (examples if keep else 0, columns)
        self.single = torch.empty(shape, dtype=torch.float64, device=device)

    def run(self, grads: Sequence[Tensor]) -> None:
        """Fill `total` and `single`: one launch, two where there are several groups of examples."""
        addresses = [grad.data_ptr() for grad in grads]
        self._look_up(addresses)
        if not self._columns:
            return
        with on(self.device):
            built = constants(self._dtype, self._aligned, self.tiles)
            blocks = -(-self._widest // (built["COLUMNS"] * built["WIDTH"]))
            arrays = (self._table, *self._lists, self._sums, self.single)
            numbers = (self._examples, self._columns, self._group, blocks)
            grid = (blocks * len(self._sums), len(addresses))
            flags = int(self._indexed), int(self._keep)
            square_sums_kernel[grid](
                *arrays, *numbers, *flags, **built, num_warps=warps(self.tiles.warps)
            )
            if len(self._sums) > 1:
                parts, columns = self._sums.shape
                whole = (-(-columns // TOTALS["BLOCK"]),)
                totals_kernel[whole](self._sums, self.total, parts, columns, **TOTALS)

    def _look_up(self, addresses: list[int]) -> None:
        """Bring the table of addresses to the device; into a graph where one is being captured."""
        # Not by torch.cuda's own function, which others put another in place of.
        capturing = self.device.type == "cuda" and torch._C._cuda_isCurrentStreamCapturing()
        if capturing and self._once:
            raise ValueError("captured, but prepared for one call; prepare a `SquareSums` before")
        if capturing and self._captured not in (None, addresses):
            raise ValueError("captured before, with gradients elsewhere; prepare another")
        # What a graph has replayed since has left its own addresses there, unknown to us.
        if not capturing and self._captured is None and addresses == self._addresses:
            return
        if self._aligned and any(address % ALIGNMENT for address in addresses):
            raise ValueError("a gradient lies at an unaligned address, unlike those prepared for")
        host = self._of_graph if capturing else self._host
        if not capturing or self._captured is None:
            host[:, 0] = torch.tensor(addresses, dtype=torch.int64)
        # What is not pinned has been taken over when this returns; what is, nobody writes again.
        self._table.copy_(host, non_blocking=True)
        if capturing:  # each replay brings its addresses, and leaves them there
            self._captured = addresses
        else:
            self._addresses = addresses
