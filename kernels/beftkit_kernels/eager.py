"""The reductions in plain torch, fast enough to be used: what runs where there is no Triton.

Vectors of one width go through together, a few thousand elements at a time, by way of float64
scratch memory that stays in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: elements that are widened to float64 at a time
BLOCK = 1 << 15
BLOCK_SQUARES = 1 << 17


def group(vectors: Sequence[Tensor]) -> list[list[int]]:
    """Indices of vectors that can be stacked: of one width (dtypes widen without loss)."""
    groups: dict[int, list[int]] = {}
    for index, vector in enumerate(vectors):
        groups.setdefault(vector.numel(), []).append(index)
    return list(groups.values())


def scratch(device: torch.device) -> Tensor:
    """Room for one block in float64: pre, post, d and a product, ``[4, BLOCK]``."""
    return torch.empty((4, BLOCK), dtype=torch.float64, device=device)


def pair_sums(
    pre: Sequence[Tensor],
    post: Sequence[Tensor],
    groups: Sequence[tuple[list[int], Tensor]],
    out: Tensor,
    room: Tensor,
) -> None:
    """Fill ``out [V, 6]``.

    Args:
        pre: V vectors ``[D]``.
        post: their partners.
        groups: `group` of either, each also as an index tensor on the device of ``out``.
        out: float64.
        room: `scratch`.
    """
    for members, where in groups:
        step = max(1, BLOCK // max(1, pre[members[0]].numel()))
        for start in range(0, len(members), step):
            some = members[start : start + step]
            sums = _block(_stacked([pre[i] for i in some]), _stacked([post[i] for i in some]), room)
            out.index_copy_(0, where[start : start + step], sums)


def matrix_sums(pre: Tensor, post: Tensor, out: Tensor, room: Tensor) -> None:
    """The same for V vectors of one width that lie side by side, ``[V, D]``."""
    step = max(1, BLOCK // max(1, pre.shape[1]))
    for start in range(0, len(pre), step):
        rows = slice(start, start + step)
        out[rows] = _block(pre[rows], post[rows], room)


def _stacked(vectors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(vectors)) if len(vectors) > 1 else vectors[0][None]


def _block(pre: Tensor, post: Tensor, room: Tensor) -> Tensor:
    """The six sums of a few rows, ``[rows, 6]``; of a long row piece by piece."""
    if pre.shape[1] > BLOCK:
        pieces = zip(torch.split(pre, BLOCK, 1), torch.split(post, BLOCK, 1), strict=True)
        return torch.stack([_block(a, b, room) for a, b in pieces]).sum(0)
    a, b, d, product = (memory[: pre.numel()].view(pre.shape) for memory in room)
    a.copy_(pre)
    b.copy_(post)
    torch.sub(b, a, out=d)
    terms = ((a, a), (b, b), (a, d), (b, d))
    sums = [torch.mul(x, y, out=product).sum(-1) for x, y in terms]
    sums.append(torch.abs(d, out=product).sum(-1))
    sums.append(torch.mul(d, d, out=product).sum(-1))
    return torch.stack(sums, dim=-1)


def square_sums(grad: Tensor, index: Tensor | None, examples: int) -> tuple[Tensor, Tensor]:
    """Sum of squared per-example sums ``[D]``, and those sums ``[N, D]``; ``grad`` is [R, T, D]."""
    step = max(1, BLOCK_SQUARES // max(1, grad.shape[1] * grad.shape[2]))
    single = torch.empty((len(grad), grad.shape[2]), dtype=torch.float64, device=grad.device)
    room = torch.empty(grad[:step].numel(), dtype=torch.float64, device=grad.device)
    for start in range(0, len(grad), step):
        rows = grad[start : start + step]
        wide = room[: rows.numel()].view(rows.shape).copy_(rows)
        torch.sum(wide, 1, out=single[start : start + step])
    if index is not None:
        # index_put_ and not index_add_: on CUDA the latter adds in whatever order.
        empty = single.new_zeros((examples, single.shape[1]))
        single = empty.index_put_((index.to(single.device),), single, accumulate=True)
    return single.square().sum(0), single
