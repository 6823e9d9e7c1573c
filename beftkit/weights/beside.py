"""What else differs between two checkpoints: by their headers, and tensor by tensor where asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np

from beftkit.adapters import endings
from beftkit.biases import plain_name
from beftkit.checkpoints import Checkpoint
from beftkit.files import plain_of
from beftkit.scores.statistics import PRECISION, decode
from beftkit.shown import Shown

#: scalars that are compared at once: 8 MiB in float64
_BLOCK = 1 << 20
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: how many of the tensors that moved most are named
_NAMED = 5


@dataclass(frozen=True, repr=False)
class Beside(Shown):
    """What differs between PRE and POST and is not in the adapter.

    Attributes:
        biases: other biases that changed: role, or name without one -> how many vectors.
        only_pre: tensors of PRE alone.
        only_post: tensors of POST alone that the adapter does not bring.
        reshaped: tensors of another shape in POST.
        unread: tensors that both have and that were not looked at: all but biases, without
            ``deep``.
        compared: how many further tensors were compared, value by value; None: none was.
        changed: how many of those changed.
        scalars: how many scalars of those changed.
        relative: length of their change over the length of PRE's values, over all compared.
        largest: the tensors that moved most in that figure, with it.
        nonfinite: of those that changed the tensors that hold NaN or infinity in POST; in the
            figures they do not count.
    """

    biases: Mapping[str, int]
    only_pre: tuple[str, ...]
    only_post: tuple[str, ...]
    reshaped: tuple[str, ...]
    unread: int
    compared: int | None = None
    changed: int | None = None
    scalars: int | None = None
    relative: float | None = None
    largest: tuple[tuple[str, float], ...] = ()
    nonfinite: tuple[str, ...] = ()

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        said = plain_of(self, "unread compared changed relative")
        return {"biases": sum(self.biases.values()), **said}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = "only_pre only_post reshaped unread compared changed scalars relative"
        largest = [{"name": name, "relative": one} for name, one in self.largest]
        return {
            "biases": dict(self.biases),
            **plain_of(self, names),
            "largest": largest,
            "nonfinite": [*self.nonfinite],
        }


def look_beside(
    pre: Checkpoint,
    post: Checkpoint,
    *,
    deep: bool,
    biases: Mapping[str, int],
    read: Collection[str],
    brought: Collection[str],
) -> Beside:
    """Compare what no adapter holds.

    Args:
        pre: before.
        post: after.
        deep: whether all tensors are read, piece by piece.
        biases: as `Beside` has it.
        read: tensors of POST that were compared already, or that the adapter holds.
        brought: tensors of POST alone that the adapter brings.
    """
    pairs = dict(_pairs(pre, post))
    reshaped = [b for a, b in pairs.items() if pre.tensors[a].shape != post.tensors[b].shape]
    left = {a: b for a, b in pairs.items() if b not in read and b not in reshaped}
    only_pre = tuple(name for name in pre.tensors if name not in pairs)
    there = {*pairs.values(), *brought}
    only_post = tuple(name for name in post.tensors if name not in there)
    what = dict(biases), only_pre, only_post, tuple(name for name in reshaped if name not in read)
    if not deep:
        return Beside(*what, len(left))
    changed, scalars, before, moved = 0, 0, 0.0, 0.0
    shares: list[tuple[str, float]] = []
    nonfinite: list[str] = []
    for a, b in left.items():
        count, old, new = _differs(pre, post, a, b)
        changed, scalars = changed + bool(count), scalars + count
        if not isfinite(new):
            nonfinite.append(b)
            continue
        before, moved = before + old, moved + new
        if count:
            shares.append((b, sqrt(new / old) if old else float(bool(new))))
    shares.sort(key=lambda pair: -pair[1])
    relative = sqrt(moved / before) if before else (0.0 if not moved else None)
    relative = None if nonfinite and not moved else relative
    largest = tuple(shares[:_NAMED])
    unfit = tuple(nonfinite)
    return Beside(*what, 0, len(left), changed, scalars, relative, largest, unfit)


def _pairs(pre: Checkpoint, post: Checkpoint) -> Iterator[tuple[str, str]]:
    """Tensors of one name, where either side may have a prefix."""
    theirs = {plain_name(name): name for name in post.tensors}
    ends: dict[str, list[str]] = {}
    for plain, name in theirs.items():
        for end in endings(plain)[1:]:
            ends.setdefault(end, []).append(name)
    taken = set()
    for name in pre.tensors:
        plain = plain_name(name)
        found = [theirs[plain]] if plain in theirs else ends.get(plain, [])
        found = found or [theirs[end] for end in endings(plain)[1:] if end in theirs][:1]
        if len(found) == 1 and found[0] not in taken:
            taken.add(found[0])
            yield name, found[0]


def _differs(pre: Checkpoint, post: Checkpoint, a: str, b: str) -> tuple[int, float, float]:
    """Of two tensors: scalars that differ, squares of PRE's values, squares of the change.

    That is infinite where a scalar that moved is no finite number.
    """
    mine, theirs = pre.tensors[a].dtype, post.tensors[b].dtype
    if mine not in PRECISION or theirs not in PRECISION:  # whole numbers, quantised: bytes tell
        same = mine == theirs and all(
            one == other
            for one, other in zip(pre.blocks(a, _BLOCK), post.blocks(b, _BLOCK), strict=True)
        )
        return int(not same), 0.0, 0.0
    count, before, moved = 0, 0.0, 0.0
    sides = pre.blocks(a, _BLOCK * _SIZES[mine]), post.blocks(b, _BLOCK * _SIZES[theirs])
    for one, other in zip(_even(sides[0], mine), _even(sides[1], theirs), strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            change = other - one
            # Equal bits are no change, NaN among them.
            moving = ~((other == one) | (np.isnan(other) & np.isnan(one)))
            count += int(moving.sum())
            before += float(np.square(one[np.isfinite(one)]).sum())
            moved += float(np.square(change[np.isfinite(change)]).sum())
            moved += inf if not np.isfinite(other[moving]).all() else 0.0
    return count, before, moved


def _even(blocks: Iterator[bytes], dtype: str) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    """Blocks of `_BLOCK` scalars, whatever the file gives at once."""
    step = _BLOCK * _SIZES[dtype]
    for block in blocks:
        for start in range(0, len(block), step):
            yield decode(block[start : start + step], dtype)
