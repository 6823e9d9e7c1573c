"""The reductions in plain torch, fast enough to be used: what runs where there is no Triton.

Vectors of one width go through together, and so do examples, by way of 4 MiB of float64 scratch
memory: enough that the overhead of torch's operations hardly counts, little enough for the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

#: elements of a pair that are widened to float64 at a time; of a gradient four times as many
BLOCK = 1 << 17
Vectors = Sequence[Tensor]
#: what `group` gives, each group also as an index tensor on the device of the result
Groups = Sequence[tuple[list[int], Tensor]]
_kept = threading.local()


def group(vectors: Vectors) -> list[list[int]]:
    """Indices of vectors that can be stacked: of one width (dtypes widen without loss)."""
    groups: dict[int, list[int]] = {}
    for index, vector in enumerate(vectors):
        groups.setdefault(vector.numel(), []).append(index)
    return list(groups.values())


def scratch(device: torch.device) -> Tensor:
    """Room for one block in float64: pre, post, d and a product, ``[4, BLOCK]``.

    On the CPU every thread keeps its own: fresh pages would take as long as a fifth of the sums of
    a gradient. Elsewhere streams could get into each other's way, and allocating is cheap.
    """
    if device.type != "cpu":
        return torch.empty((4, BLOCK), dtype=torch.float64, device=device)
    if not hasattr(_kept, "room"):
        with torch.inference_mode(False):  # or it could not be written to elsewhere
            _kept.room = torch.empty((4, BLOCK), dtype=torch.float64)
    room: Tensor = _kept.room
    return room


def pair_sums(pre: Vectors, post: Vectors, groups: Groups, out: Tensor, room: Tensor) -> None:
    """Fill ``out [V, 6]``.

    Args:
        pre: V vectors ``[D]``.
        post: their partners.
        groups: of either.
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


def _stacked(vectors: Vectors) -> Tensor:
    return torch.stack(list(vectors)) if len(vectors) > 1 else vectors[0][None]


def _block(pre: Tensor, post: Tensor, room: Tensor) -> Tensor:
    """The six sums of a few rows, ``[rows, 6]``; of a long row piece by piece."""
    if pre.shape[1] > BLOCK:
        pieces = zip(torch.split(pre, BLOCK, 1), torch.split(post, BLOCK, 1), strict=True)
        return torch.stack([_block(a, b, room) for a, b in pieces]).sum(0)
    a, b, d, product = room[:, : pre.numel()].view(4, *pre.shape).unbind()
    a.copy_(pre)
    b.copy_(post)
    torch.sub(b, a, out=d)
    terms = ((a, a), (b, b), (a, d), (b, d))
    sums = [torch.mul(x, y, out=product).sum(-1) for x, y in terms]
    distance = torch.abs(d, out=product).sum(-1)
    return torch.stack([*sums, distance, torch.mul(d, d, out=product).sum(-1)], dim=-1)


def square_sums(
    grad: Tensor, index: Tensor | None, examples: int, room: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of squared per-example sums ``[D]``, and those sums ``[N, D]``.

    Args:
        grad: ``[R, T, D]``.
        index: the example of each row ``[R]``; None where row and example are the same.
        examples: N.
        room: `scratch`.
    """
    single = _token_sums(grad, room.view(-1))
    if index is not None:
        # index_put_ and not index_add_: on CUDA the latter adds in whatever order.
        empty = single.new_zeros((examples, single.shape[1]))
        single = empty.index_put_((index.to(single.device),), single, accumulate=True)
    return single.square().sum(0), single


def _token_sums(grad: Tensor, room: Tensor) -> Tensor:
    """Sums over tokens ``[R, D]``; some rows at a time, or as many tokens of one as fit.

    Several rows fill half the room: on a busy machine the cache does not hold more.
    """
    rows, tokens, width = grad.shape
    if tokens == 1:
        return grad[:, 0].double()
    if tokens * width > len(room):
        pieces = grad.split(max(1, len(room) // width), 1)
        return torch.stack([_token_sums(piece, room) for piece in pieces]).sum(0)
    sums = torch.empty((rows, width), dtype=torch.float64, device=grad.device)
    step = max(1, min(rows, len(room) // 2 // max(1, tokens * width)))
    wide = room[: step * tokens * width].view(step, tokens, width)
    for some, out in zip(grad.split(step), sums.split(step), strict=True):
        if len(some) < len(wide):
            wide = wide[: len(some)]
        torch.sum(wide.copy_(some), 1, out=out)
    return sums
