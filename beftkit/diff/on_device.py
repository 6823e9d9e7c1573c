"""Two live models on one accelerator: all that scores need, from where their tensors lie.

One launch reduces every pair, and every tensor that no pair shows whole; one copy brings sums and
flags back. No bias is copied to the host: there is no digest of them then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from beftkit.biases import Site
from beftkit.checkpoints import BiasSet
from beftkit.scores.statistics import PRECISION

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[Site, Site]
Array = npt.NDArray[np.float64]
#: what float64 sums neither overflow nor lose
_DTYPES = {"F32", "F16", "BF16"}


@dataclass(frozen=True)
class Measured:
    """What the device says of two models without a NaN or an infinity.

    Attributes:
        sums: ``[V, 6]`` float64, a row for each pair, columns as `stats_from_sums` takes them.
        changed: ``[V]``, whether the two sides of a pair differ.
        rounding: ``[V]``, whether they differ by no more than the rounding of the coarser dtype.
    """

    sums: Array
    changed: npt.NDArray[np.bool_]
    rounding: npt.NDArray[np.bool_]

    def of(self, members: Sequence[int]) -> Measured:
        """Of some of the pairs."""
        some = np.asarray(members, np.int64)
        return Measured(self.sums[some], self.changed[some], self.rounding[some])


def measure(
    pairs: Sequence[Pair], left: BiasSet, right: BiasSet, backend: str = "auto"
) -> Measured | None:
    """Reduce all pairs on the device; None where the host has to look.

    That is: a side that is no live model on an accelerator, tensors on several devices or in
    float64, and anything that is not finite, which is named, or scored, from its bytes.

    Args:
        pairs: sites of equal width.
        left: of PRE.
        right: of POST.
        backend: of `beftkit_kernels`.
    """
    if not (pairs and left.on_gpu and right.on_gpu):
        return None
    whole = [tensor for one in (left, right) for tensor in one.all_tensors()]
    dtypes = {one.checkpoint.tensors[n].dtype for one in (left, right) for n in one.names}
    if len({tensor.device for tensor in whole}) != 1 or not dtypes <= _DTYPES:
        return None
    import torch

    from beftkit_kernels import Pairs

    pre, post = [left.tensor(a) for a, _ in pairs], [right.tensor(b) for _, b in pairs]
    shown = {_place(tensor) for tensor in (*pre, *post)}
    rest = [x for x in whole if _place(x) not in shown]
    count, more = len(pairs), len(rest)
    mixed = [i for i, (a, b) in enumerate(pairs) if left.dtype(a) != right.dtype(b)]
    back = torch.empty((count + more) * 6 + len(mixed), dtype=torch.float64, device=whole[0].device)
    sums = back[: (count + more) * 6].view(-1, 6)
    Pairs([*pre, *rest], [*post, *rest], backend=backend).stats(out=sums)
    if mixed:
        dtypes_of = [(left.dtype(pairs[i][0]), right.dtype(pairs[i][1])) for i in mixed]
        beyond = _beyond_rounding([pre[i] for i in mixed], [post[i] for i in mixed], dtypes_of)
        back[(count + more) * 6 :] = beyond
    seen = _to_host(back)
    found = seen[: (count + more) * 6].reshape(-1, 6)
    if not np.isfinite(found[:, :2]).all():
        return None
    changed = found[:count, 4] > 0
    rounding = ~changed
    rounding[mixed] = seen[(count + more) * 6 :] == 0
    return Measured(found[:count], changed, rounding)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """What two tensors of one device agree in that show the same scalars."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _beyond_rounding(
    pre: Sequence[Tensor], post: Sequence[Tensor], dtypes: Sequence[tuple[str, str]]
) -> Tensor:
    """How many elements of each pair differ by more than rounding to the coarser dtype.

    As `within_rounding`, for finite vectors of two dtypes.
    """
    import torch

    fine, coarse, places = [], [], []
    for a, b, (of_a, of_b) in zip(pre, post, dtypes, strict=True):
        first = PRECISION[of_a][0] > PRECISION[of_b][0]
        fine.append((a if first else b).reshape(-1).double())
        coarse.append((b if first else a).reshape(-1).double())
        places.append(PRECISION[of_b if first else of_a])
    widths = torch.tensor([len(x) for x in fine])
    device = fine[0].device
    each = torch.tensor(places).repeat_interleave(widths, 0).to(device, non_blocking=True)
    x, y = torch.cat(fine), torch.cat(coarse)
    exponent = torch.maximum(torch.frexp(x)[1].long(), each[:, 1] + 1) - each[:, 0] - 1
    part, power = torch.frexp((y - x).abs())  # part in [1/2, 1): exact, unlike powers on a GPU
    off = (part > 0) & ((power > exponent + 1) | ((power == exponent + 1) & (part > 0.5)))
    until = torch.nn.functional.pad(off.cumsum(0), (1, 0))
    ends = torch.nn.functional.pad(widths.cumsum(0), (1, 0)).to(device, non_blocking=True)
    return until[ends].diff().double()


def _to_host(values: Any) -> Array:
    """The one copy back."""
    result: Array = values.cpu().numpy()
    return result
