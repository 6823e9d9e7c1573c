"""Pairs of vectors, checked at the door and reduced by Triton or by plain torch.

Letters: V vectors, D bias length (which may differ from vector to vector).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import eager
from ._launch import KINDS, WIDE, choose, common_device
from .reference import COLUMNS, check_partners

if TYPE_CHECKING:
    from .layout import PairTable

Vectors = Sequence[Tensor] | Tensor
Offsets = Sequence[int] | Tensor


class Pairs:
    """V pairs of vectors, checked and looked up once, reduced as often as you like.

    The tensors stay where they are and are read anew by each `stats`, so it follows a parameter
    that is changed in place. Only a non-contiguous tensor is copied first, each time. Not for two
    streams at a time; run on another than it was made on, it has to outlive what it launched.

    Args:
        pre: V tensors of any shape, each counts as a vector ``[D]``; or, with ``offsets``, the
            vectors side by side as one ``[values]`` (see `pack`).
        post: their partners; float32, bfloat16, float16 or float64, mixed as you like.
        offsets: ``[V + 1]``, where each vector begins in ``pre`` and ``post``; best on the CPU.
        backend: ``auto`` (Triton on CUDA and ROCm, torch elsewhere), ``triton`` or ``torch``.

    Raises:
        TypeError: something else than float tensors.
        ValueError: the two sides do not match, lie on several devices, or Triton is not there.

    Example:
        >>> pairs = Pairs([torch.ones(3)], [torch.tensor([1.0, 1.0, 3.0])])
        >>> pairs.stats().tolist()
        [[3.0, 11.0, 2.0, 6.0, 2.0, 4.0]]
    """

    def __init__(
        self, pre: Vectors, post: Vectors, offsets: Offsets | None = None, *, backend: str = "auto"
    ) -> None:
        packed = isinstance(pre, Tensor), isinstance(post, Tensor)
        if packed != (offsets is not None,) * 2:
            raise TypeError("expected two sequences of tensors, or two tensors and offsets")
        sides = [[side] if isinstance(side, Tensor) else list(side) for side in (pre, post)]
        self.device = common_device(tensor for side in sides for tensor in side)
        self.backend = choose(backend, self.device)
        check_partners(*sides)
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._table: PairTable | None = None
        self._matrix: tuple[Tensor, Tensor] | None = None
        flat = [[self._flat(tensor) for tensor in side] for side in sides]
        if offsets is None:
            lengths = torch.tensor([tensor.numel() for tensor in flat[0]], dtype=torch.int64)
            starts = torch.zeros_like(lengths)
        else:
            bounds = _check_offsets(offsets, flat[0][0].numel())
            starts, lengths = bounds[:-1], bounds.diff()
        self._count = len(lengths)
        self._flat_sides = flat
        if self.backend == "triton":
            self._table = self._look_up(starts, lengths)
        else:
            self._prepare_torch(offsets is not None, starts, lengths)

    def __len__(self) -> int:
        return self._count

    def stats(self, out: Tensor | None = None) -> Tensor:
        """Reduce every pair, with Triton in one launch.

        Sums are float64: that of <pre, d> is within 64 x 2^-53 of sum |pre_i d_i| (D up to 2^22),
        and nothing overflows or vanishes for float32 inputs. Twice the same to the bit; with sides
        swapped, to that bound, since compilers fuse products and sums as they like.

        Args:
            out: ``[V, 6]``, contiguous float64 on the device of the vectors, to be filled.

        Returns:
            ``[V, 6]`` float64, columns as in `COLUMNS`.
        """
        shape = (self._count, len(COLUMNS))
        if out is None:
            out = torch.empty(shape, dtype=torch.float64, device=self.device)
        check_out(out, shape, self.device)
        for copy, tensor in self._copies:
            copy.copy_(tensor)
        if self._table is not None:
            from .projection import pair_sums

            pair_sums(self._table, out)
        elif self._matrix is not None:
            eager.matrix_sums(*self._matrix, out, eager.scratch(self.device))
        else:
            room = eager.scratch(self.device)
            eager.pair_sums(self._pre, self._post, self._groups, out, room)
        return out

    def _flat(self, tensor: Tensor) -> Tensor:
        if tensor.requires_grad:
            tensor = tensor.detach()
        if tensor.is_contiguous():
            return tensor if tensor.ndim == 1 else tensor.view(-1)
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        self._copies.append((copy, tensor))
        return copy.view(-1)

    def _look_up(self, starts: Tensor, lengths: Tensor) -> PairTable:
        from .layout import pair_table

        # One entry a vector, or a single one for all where they lie side by side.
        def of(side: list[Tensor]) -> tuple[Tensor, Tensor]:
            facts = [(x.data_ptr(), x.itemsize, KINDS[x.dtype]) for x in side]
            base, size, kind = torch.tensor(facts, dtype=torch.int64).reshape(-1, 3).unbind(1)
            return base + starts * size, kind.expand(len(starts))

        pre, post = map(of, self._flat_sides)
        return pair_table((pre[0], post[0]), (pre[1], post[1]), lengths, self.device)

    def _prepare_torch(self, packed: bool, starts: Tensor, lengths: Tensor) -> None:
        pre, post = self._flat_sides
        if packed:
            width = int(lengths[0]) if len(lengths) else 0
            if bool((lengths == width).all()):
                first = int(starts[0]) if len(starts) else 0
                window = slice(first, first + width * self._count)
                shape = (self._count, width)
                self._matrix = pre[0][window].view(shape), post[0][window].view(shape)
                return
            spans = list(zip(starts.tolist(), lengths.tolist(), strict=True))
            pre, post = ([side[0][at : at + n] for at, n in spans] for side in (pre, post))
        self._pre, self._post = pre, post
        groups = eager.group(pre)
        self._groups = [(some, torch.tensor(some, device=self.device)) for some in groups]


def projection_stats(
    pre: Vectors, post: Vectors, offsets: Offsets | None = None, *, backend: str = "auto"
) -> Tensor:
    """Reduce V pairs once: ``Pairs(...).stats()``; see `Pairs` for arguments and errors.

    Example:
        >>> from beftkit_kernels import projection_ratio
        >>> stats = projection_stats([torch.ones(2)], [torch.tensor([1.0, -1.0])])
        >>> projection_ratio(stats).tolist()
        [1.0]
    """
    return Pairs(pre, post, offsets, backend=backend).stats()


def pack(vectors: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """Lay vectors side by side, each at an address that 128-bit loads like.

    The gaps hold zeros, which change no sum, and count to the vector before them.

    Args:
        vectors: V tensors of one dtype and device, each counts as a vector.

    Returns:
        values ``[values]`` and offsets ``[V + 1]``, for `Pairs`.

    Example:
        >>> values, offsets = pack([torch.ones(3), torch.ones(8)])
        >>> len(values), offsets
        (16, [0, 8, 16])
    """
    if len({vector.dtype for vector in vectors}) > 1:
        raise ValueError("vectors of several dtypes; pack those of one dtype")
    device = common_device(vectors)
    offsets = [0]
    for vector in vectors:
        offsets.append(offsets[-1] + -(-vector.numel() // WIDE) * WIDE)
    dtype = vectors[0].dtype if vectors else torch.float32
    values = torch.zeros(offsets[-1], dtype=dtype, device=device)
    for start, vector in zip(offsets, vectors, strict=False):
        values[start : start + vector.numel()] = vector.detach().reshape(-1)
    return values, offsets


def check_out(out: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """An output a kernel may fill as it is."""
    if out.dtype != torch.float64 or out.shape != shape or out.device != device:
        raise ValueError(
            f"out is {out.dtype} {list(out.shape)} on {out.device}; "
            f"expected torch.float64 {list(shape)} on {device}"
        )
    if not out.is_contiguous():
        raise ValueError("out is not contiguous; pass a contiguous tensor")


def _check_offsets(offsets: Offsets, values: int) -> Tensor:
    bounds = torch.as_tensor(offsets, device="cpu")
    if bounds.ndim != 1 or len(bounds) == 0 or bounds.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"offsets {bounds.dtype} {list(bounds.shape)}; expected [V + 1] integers")
    bounds = bounds.to(torch.int64)
    if int(bounds[0]) < 0 or int(bounds[-1]) > values or bool((bounds.diff() < 0).any()):
        raise ValueError(f"offsets have to rise from 0 or more to at most {values} values")
    return bounds
