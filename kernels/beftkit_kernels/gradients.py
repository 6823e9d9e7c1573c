"""Squared per-example gradients, checked at the door and summed by Triton or by plain torch.

Letters: N examples, R rows of a batch, T tokens, D bias length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import eager
from ._launch import choose, common_device

Index = Sequence[int] | Tensor


@dataclass(frozen=True)
class SquareSum:
    """Result of `example_square_sum`, in float64.

    Attributes:
        total: ``[D]``, sum over examples of the squared per-example gradient.
        examples: ``[N, D]``, the per-example gradients, where asked for.
    """

    total: Tensor
    examples: Tensor | None = None


def example_square_sum(
    grad: Tensor,
    index: Index | None = None,
    *,
    examples: int | None = None,
    per_example: bool = False,
    backend: str = "auto",
) -> SquareSum:
    """Sum over examples of (sum over the example's rows and tokens of the gradient)^2.

    Args:
        grad: ``[R, T, D]`` of any strides, the gradient with respect to a layer's output.
        index: ``[R]``, the example each row belongs to (best on the CPU); without it every row is
            an example.
        examples: N, where it is more than ``index`` names; absent examples count as zero.
        per_example: also return the per-example gradients.
        backend: as in `Pairs`.

    Raises:
        TypeError: not a float tensor, or an index that is not of integers.
        ValueError: shapes that do not match, an index out of range, or Triton is not there.

    Example:
        >>> grad = torch.tensor([[[1.0], [2.0]], [[3.0], [-1.0]]])
        >>> example_square_sum(grad).total.tolist()
        [13.0]
        >>> example_square_sum(grad, index=[0, 0]).total.tolist()
        [25.0]
    """
    return example_square_sums(
        [grad], index, examples=examples, per_example=per_example, backend=backend
    )[0]


def example_square_sums(
    grads: Sequence[Tensor],
    index: Index | None = None,
    *,
    examples: int | None = None,
    per_example: bool = False,
    backend: str = "auto",
) -> list[SquareSum]:
    """`example_square_sum` of many tensors of one batch (say q, k, v of all layers), in one launch.

    Args:
        grads: tensors ``[R, T, D]``; R is the same in all.
        index: as in `example_square_sum`, the same for all.
        examples: N.
        per_example: also return the per-example gradients.
        backend: as in `Pairs`.
    """
    grads = [grad.detach() for grad in grads]
    chosen = choose(backend, common_device(grads))
    for grad in grads:
        if grad.ndim != 3 or len(grad) != len(grads[0]):
            shapes = ", ".join(str(list(grad.shape)) for grad in grads)
            raise ValueError(f"gradients [R, T, D] with one R expected, got {shapes}")
    if not grads:
        return []
    rows = len(grads[0])
    owners = None if index is None else _check_index(index, rows)
    named = rows if owners is None else max(owners.tolist(), default=-1) + 1
    count = named if examples is None else examples
    if count < named or (owners is None and count != named):
        raise ValueError(f"{named} examples in {rows} rows, but examples={examples}")
    if chosen == "torch":
        room = eager.scratch(grads[0].device)
        sums = [eager.square_sums(grad, owners, count, room) for grad in grads]
    else:
        sums = _triton_sums(grads, owners, count, per_example)
    return [SquareSum(total, single if per_example else None) for total, single in sums]


def _triton_sums(
    grads: Sequence[Tensor], owners: Tensor | None, examples: int, keep: bool
) -> list[tuple[Tensor, Tensor]]:
    from .squares import square_sums

    by_example = None
    if owners is not None:
        firsts = torch.bincount(owners + 1, minlength=examples + 1).cumsum(0)
        by_example = owners.argsort(stable=True), firsts
    total, single = square_sums(grads, by_example, examples, keep)
    widths = [grad.shape[2] for grad in grads]
    return list(zip(total.split(widths), single.split(widths, 1), strict=True))


def _check_index(index: Index, rows: int) -> Tensor:
    owners = torch.as_tensor(index, device="cpu")
    if len(owners) == 0:
        owners = owners.to(torch.int64)
    if owners.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"index of {owners.dtype}; expected integers")
    if owners.shape != (rows,):
        raise ValueError(f"index {list(owners.shape)} for {rows} rows; expected one each")
    if bool((owners < 0).any()):
        raise ValueError(f"index names example {int(owners.min())}; expected 0 or more")
    return owners.to(torch.int64)
