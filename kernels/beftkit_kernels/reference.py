"""The reductions in plain torch and float64: what every kernel is held against.

Letters: V vectors, D bias length (which may differ from vector to vector), N examples, R rows of a
batch, T tokens, K roles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: columns of `projection_stats`, with d = post - pre
COLUMNS = ("pre_pre", "post_post", "pre_d", "post_d", "abs_d", "d_d")


def projection_stats(pre: Sequence[Tensor], post: Sequence[Tensor]) -> Tensor:
    """Reduce V pairs of vectors: ||pre||^2, ||post||^2, <pre,d>, <post,d>, sum |d|, sum d^2.

    Args:
        pre: V float tensors of any shape, dtype and strides; each counts as a vector ``[D]``.
        post: V tensors with as many elements as their partners.

    Returns:
        ``[V, 6]`` float64 on the device of the first tensor, columns as in `COLUMNS`.

    Raises:
        ValueError: the two sides differ in number or in elements.
    """
    check_partners(pre, post)
    rows = []
    for before, after in zip(pre, post, strict=True):
        a, b = before.detach().reshape(-1).double(), after.detach().reshape(-1).double()
        d = b - a
        sums = ((a * a), (b * b), (a * d), (b * d), d.abs(), (d * d))
        rows.append(torch.stack([term.sum() for term in sums]))
    return torch.stack(rows) if rows else torch.empty((0, len(COLUMNS)), dtype=torch.float64)


def check_partners(pre: Sequence[Tensor], post: Sequence[Tensor]) -> None:
    """Refuse sides that differ in number or in elements."""
    if len(pre) != len(post):
        raise ValueError(f"{len(pre)} vectors in pre, {len(post)} in post; expected as many")
    for index, (before, after) in enumerate(zip(pre, post, strict=True)):
        if before.numel() != after.numel():
            raise ValueError(
                f"pair {index}: {before.numel()} elements in pre, {after.numel()} in post"
            )


def projection_ratio(stats: Tensor) -> Tensor:
    """The BEFT score of each pair, 1 - <pre, post> / max(||pre||^2, ||post||^2).

    In the difference form, without the cancellation of the formula as printed (paper section 2.1).

    Args:
        stats: ``[V, 6]`` from `projection_stats`.

    Returns:
        ``[V]``: 0 unchanged (both zero included), 1 orthogonal or one side zero, 2 negated, NaN
        where a vector holds a NaN or an infinity.
    """
    pre_pre, post_post, pre_d, post_d = stats.unbind(-1)[:4]
    shrunk = pre_d + post_d <= 0  # <d, pre + post> = ||post||^2 - ||pre||^2
    ratio = torch.where(shrunk, -pre_d / pre_pre, post_d / post_post)
    ratio = torch.where(pre_pre + post_post == 0, torch.zeros_like(ratio), ratio)
    return ratio + 0 * (pre_pre + post_post)  # infinity times 0 is NaN


def role_means(ratios: Tensor, members: Sequence[Tensor]) -> Tensor:
    """Mean score of each role, ``[K]``.

    Args:
        ratios: ``[V]``.
        members: K index tensors, which vectors belong to each role.
    """
    return torch.stack([ratios.index_select(0, which).mean() for which in members])


def example_square_sum(
    grad: Tensor, index: Sequence[int] | None = None, examples: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sum over examples of (sum over the example's rows and tokens of the gradient)^2.

    Args:
        grad: ``[R, T, D]``, the gradient with respect to a layer's output.
        index: the example each of the R rows belongs to; row and example are the same without.
        examples: N; by default as many as ``index`` names.

    Returns:
        ``[D]`` and the per-example sums ``[N, D]``, float64.
    """
    owners = list(range(len(grad))) if index is None else list(index)
    count = max(owners, default=-1) + 1 if examples is None else examples
    single = torch.zeros((count, grad.shape[2]), dtype=torch.float64, device=grad.device)
    for row, owner in enumerate(owners):
        for token in grad[row].detach().double():
            single[owner] += token
    return (single * single).sum(0), single
