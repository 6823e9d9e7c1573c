"""Squared per-example gradients, checked at the door and summed by Triton or by plain torch.

Letters: N examples, R rows of a batch, T tokens, D bias length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import eager
from ._launch import choose, common_device

if TYPE_CHECKING:
    from .squares import Launch

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

    In float64: with eps = 2^-53 and M rows times tokens an example, its gradient is within
    M eps sum |g_t| of the exact one, and a total within (N + 1) eps of the sum of these squares,
    relatively. For a larger ``examples`` the sums are the same: with Triton to the bit, with torch
    to that rounding.

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
    """`example_square_sum` of many tensors of one batch (say q, k, v of all layers), at once.

    Triton takes one launch, and a small second one where the examples are dealt out. See
    `SquareSums` for many batches.

    Args:
        grads: tensors ``[R, T, D]``; R is the same in all.
        index: as in `example_square_sum`, the same for all.
        examples: N.
        per_example: also return the per-example gradients.
        backend: as in `Pairs`.
    """
    if not grads:
        choose(backend, common_device(grads))
        return []
    prepared = SquareSums(
        grads, index, examples=examples, per_example=per_example, backend=backend, once=True
    )
    return prepared._sums(grads)


class SquareSums:
    """`example_square_sums` of many batches of one layout, looked up once and run often.

    `run` neither waits for the device nor, with Triton, allocates: it can be recorded in a CUDA
    graph, once, whose replays read the gradients where they lay then. Results lie in the same
    memory each time: use them up, or copy them, before the next run. Keep this object as long as
    such a graph, and as what it launched on another stream than it was made on. Not for two streams
    at a time.

    Args:
        grads: tensors ``[R, T, D]`` like those to come, of which shapes, strides, dtypes, device
            and alignment count, not values.
        index: as in `example_square_sum`, the same for all and for all runs.
        examples: N.
        per_example: also return the per-example gradients.
        backend: as in `Pairs`.
        once: whether it will not be captured, which needs pinned memory.

    Raises:
        TypeError: as `example_square_sum`.
        ValueError: as `example_square_sum`.

    Example:
        >>> grad = torch.ones(2, 3, 1)
        >>> prepared = SquareSums([grad])
        >>> [one.total.tolist() for one in prepared.run([2 * grad])]
        [[72.0]]
    """

    def __init__(
        self,
        grads: Sequence[Tensor],
        index: Index | None = None,
        *,
        examples: int | None = None,
        per_example: bool = False,
        backend: str = "auto",
        once: bool = False,
    ) -> None:
        self._device = common_device(grads)
        self.backend = choose(backend, self._device)
        if not grads:
            raise ValueError("no gradients to prepare for")
        self._layout = _layout(grads)
        shapes = [one[0] for one in self._layout]
        if any(len(shape) != 3 or shape[0] != shapes[0][0] for shape in shapes):
            given = ", ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"gradients [R, T, D] with one R expected, got {given}")
        rows = shapes[0][0]
        owners = None if index is None else _check_index(index, rows)
        named = rows if owners is None else max(owners.tolist(), default=-1) + 1
        count = named if examples is None else examples
        if count < named or (owners is None and count != named):
            raise ValueError(f"{named} examples in {rows} rows, but examples={examples}")
        self._count, self._keep = count, per_example
        self._launch: Launch | None = None
        if self.backend == "torch":
            self._owners = None if owners is None else owners.to(self._device)
            return
        from .squares import Launch

        by_example = None
        if owners is not None:
            firsts = torch.bincount(owners + 1, minlength=count + 1).cumsum(0)
            by_example = owners.argsort(stable=True), firsts
        self._launch = Launch(grads, by_example, count, per_example, once)
        widths = [shape[2] for shape in shapes]
        totals = self._launch.total.split(widths)
        singles = self._launch.single.split(widths, 1)
        self._results = [
            SquareSum(total, single if per_example else None)
            for total, single in zip(totals, singles, strict=True)
        ]

    def run(self, grads: Sequence[Tensor]) -> list[SquareSum]:
        """The sums of these gradients.

        Raises:
            ValueError: they are unlike those prepared for; or captured in a second graph.
        """
        if _layout(grads) != self._layout:
            raise ValueError(
                "gradients of other shapes, strides, dtypes or device than those prepared for"
            )
        return self._sums(grads)

    def _sums(self, grads: Sequence[Tensor]) -> list[SquareSum]:
        if self._launch is not None:
            self._launch.run(grads)
            return list(self._results)
        room = eager.scratch(self._device)
        sums = [eager.square_sums(one.detach(), self._owners, self._count, room) for one in grads]
        return [SquareSum(total, single if self._keep else None) for total, single in sums]


def _layout(
    grads: Sequence[Tensor],
) -> list[tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]]:
    return [(one.shape, one.stride(), one.dtype, one.device) for one in grads]


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
