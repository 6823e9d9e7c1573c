"""Nearest neighbours by bias change: who was trained from whom, or on the same thing.

Two models are alike where their biases moved the same way from the base: the cosine between their
changes. N models have changes of D numbers each; of the N x N cosines only tiles are ever held, and
of the changes only blocks, so memory stays flat however many models there are and however wide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
#: models a tile, and numbers of a change read at once: two blocks are 34 MB each, a tile 4 MB
ROWS, COLUMNS = 1024, 8192
#: from this cosine on two models are of one group
ALIKE = 0.5
#: neighbours told of a model, and how many more float64 looks at before it says which
COUNT, MORE = 3, 2
#: why a model has no neighbours
UNCHANGED, NOT_FINITE = "no bias changed", "a change is not finite"


@dataclass(frozen=True)
class Neighbour:
    """A model, one of its nearest neighbours (``rank`` from 1), and their cosine in float64."""

    model: str
    rank: int
    neighbour: str
    cosine: float


@dataclass(frozen=True)
class Neighbours:
    """Who lies near whom.

    Attributes:
        nearest: of each model up to `COUNT`, nearest first; models in the order they came in.
        groups: models that a chain of cosines of at least ``alike`` links, two or more, largest
            groups first.
        left_out: model -> why it has no direction to compare.
        alike: that threshold.
    """

    nearest: tuple[Neighbour, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    alike: float = ALIKE

    def first(self) -> list[Neighbour]:
        """Each model's nearest one, highest cosines first."""
        found = [one for one in self.nearest if one.rank == 1]
        return sorted(found, key=lambda one: -one.cosine)

    def pairs(self) -> list[tuple[Neighbour, bool]]:
        """As `first`, two that are each other's nearest but once, and whether they are."""
        best = {one.model: one.neighbour for one in self.nearest if one.rank == 1}
        order = {model: place for place, model in enumerate(best)}
        found = [(one, best.get(one.neighbour) == one.model) for one in self.first()]
        return [
            (one, mutual)
            for one, mutual in found
            if not mutual or order[one.model] < order[one.neighbour]
        ]


def nearest(
    names: Sequence[str],
    changes: Array,
    places: Sequence[int] | None = None,
    alike: float = ALIKE,
) -> Neighbours:
    """Find each model's nearest neighbours by the cosine between bias changes.

    Candidates come from float32 products of blocks (each change scaled to length 1 first, so that
    nothing under- or overflows); which of them are nearest, and the cosines told, from float64.

    Args:
        names: of the models, N, each once.
        changes: ``[rows, D]`` float32, post minus pre; of a ``numpy.memmap`` blocks are read from
            its file, so that its pages are never this process's memory.
        places: which row is whose, in the order of the names; None: the first N.
        alike: cosine from which two models are of one group.

    Returns:
        The neighbours; models that changed nothing, or whose change is not finite, are left out by
        name.
    """
    rows = np.arange(len(names)) if places is None else np.array(places, np.int64)
    with _reader(changes) as read:
        lengths = _lengths(read, rows, changes.shape[1])
        left_out = {
            name: UNCHANGED if length == 0 else NOT_FINITE
            for name, length in zip(names, lengths, strict=True)
            if not (0 < length < np.inf)
        }
        kept = np.flatnonzero((lengths > 0) & np.isfinite(lengths))
        if len(kept) < 2:
            return Neighbours((), (), left_out, alike)
        search = _Search(read, rows[kept], lengths[kept], changes.shape[1], alike)
        search.run()
        found = tuple(
            Neighbour(names[kept[row]], rank, names[kept[other]], cosine)
            for row, others in enumerate(search.exact())
            for rank, (other, cosine) in enumerate(others[:COUNT], 1)
        )
    groups: dict[int, list[str]] = {}
    for place, label in enumerate(search.labels):
        groups.setdefault(int(label), []).append(names[kept[place]])
    several = sorted((one for one in groups.values() if len(one) > 1), key=lambda one: -len(one))
    return Neighbours(found, tuple(map(tuple, several)), left_out, alike)


class _Read:
    """Blocks of the changes, from memory or by position from their file."""

    def __init__(self, changes: Array, descriptor: int | None) -> None:
        self.changes, self.descriptor = changes, descriptor

    def __call__(self, rows: Array, left: int, right: int, into: Array) -> Array:
        """These rows' numbers from ``left`` to ``right``, in the memory given."""
        into = into[: len(rows), : right - left]
        if self.descriptor is None:
            into[:] = self.changes[rows, left:right]
            return into
        width, start = self.changes.shape[1], self.changes.offset  # type: ignore[attr-defined]
        for place, row in enumerate(rows.tolist()):
            at, wanted = start + 4 * (row * width + left), memoryview(into[place]).cast("B")
            got = os.preadv(self.descriptor, [wanted], at)
            if got != len(wanted):
                raise OSError(f"the changes end after {at + got} bytes")
        return into


@contextmanager
def _reader(changes: Array) -> Iterator[_Read]:
    """Who reads blocks."""
    path = getattr(changes, "filename", None)
    if path is None or changes.dtype != np.dtype("<f4") or not hasattr(os, "preadv"):
        yield _Read(changes, None)
        return
    with Path(path).open("rb", buffering=0) as file:
        yield _Read(changes, file.fileno())


def _lengths(read: _Read, rows: Array, width: int) -> Array:
    """Each change's length in float64, ``[N]``; there no square of a float32 overflows."""
    total, buffer = np.zeros(len(rows)), np.empty((64, min(COLUMNS, width)), np.float32)
    for low in range(0, len(rows), 64):
        for left in range(0, width, COLUMNS):
            block = read(rows[low : low + 64], left, min(left + COLUMNS, width), buffer)
            wide = block.astype(np.float64)
            total[low : low + 64] += np.einsum("nd,nd->n", wide, wide)
    return np.sqrt(total)


class _Search:
    """The candidates of all models, tile by tile; ``labels`` say whose group a model is of."""

    def __init__(self, read: _Read, rows: Array, lengths: Array, width: int, alike: float) -> None:
        self.read, self.rows, self.width, self.alike = read, rows, width, alike
        self.scale, count = 1 / lengths[:, None], len(rows)
        self.held = min(COUNT + MORE, count - 1)
        self.best = np.full((count, self.held), -np.inf, np.float32)
        self.others = np.zeros((count, self.held), np.int64)
        self.labels = np.arange(count)
        self.buffers = [np.empty((min(ROWS, count), min(COLUMNS, width)), np.float32) for _ in "ab"]

    def run(self) -> None:
        """Every pair once."""
        parts = [
            np.arange(low, min(low + ROWS, len(self.rows)))
            for low in range(0, len(self.rows), ROWS)
        ]
        for place, here in enumerate(parts):
            for there in parts[place:]:
                tile = self._tile(here, there)
                if there is here:
                    np.fill_diagonal(tile, -np.inf)
                self._keep(here, there, tile)
                if there is not here:
                    self._keep(there, here, tile.T)
                self._link(here, there, tile)

    def _tile(self, here: Array, there: Array) -> Array:
        """Cosines between two parts, ``[here, there]`` in float32."""
        tile = np.zeros((len(here), len(there)), np.float32)
        for left in range(0, self.width, COLUMNS):
            right = min(left + COLUMNS, self.width)
            mine = self._block(here, left, right, self.buffers[0])
            same = there is here
            tile += mine @ (mine if same else self._block(there, left, right, self.buffers[1])).T
        return tile

    def _block(self, part: Array, left: int, right: int, into: Array) -> Array:
        block = self.read(self.rows[part], left, right, into)
        return np.multiply(block, self.scale[part], out=block, casting="same_kind")

    def _keep(self, part: Array, others: Array, tile: Array) -> None:
        """The best so far of these models and a tile's best."""
        few = min(self.held, tile.shape[1])
        new = np.argpartition(-tile, few - 1, axis=1)[:, :few]
        scores = np.hstack([self.best[part], np.take_along_axis(tile, new, 1)])
        places = np.hstack([self.others[part], others[new]])
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.held]
        self.best[part] = np.take_along_axis(scores, order, 1)
        self.others[part] = np.take_along_axis(places, order, 1)

    def _link(self, here: Array, there: Array, tile: Array) -> None:
        """Groups grow together where a tile has a pair that is alike."""
        first, second = np.nonzero(tile >= self.alike)
        mine, theirs = self.labels[here[first]], self.labels[there[second]]
        apart = mine != theirs
        if not apart.any():
            return
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.unique(np.stack([mine[apart], theirs[apart]], 1), axis=0).T
        count = len(self.labels)
        graph = coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), (count, count))
        self.labels = connected_components(graph, directed=False)[1][self.labels]

    def exact(self) -> Iterator[list[tuple[int, float]]]:
        """Of each model its candidates and their cosines in float64, nearest first."""
        known: dict[tuple[int, int], float] = {}
        mine, theirs = np.empty((2, 1, self.width), np.float32)
        for row, others in enumerate(self.others):
            wide = self.read(self.rows[[row]], 0, self.width, mine)[0].astype(np.float64)
            wide *= self.scale[row]
            found = []
            for other in map(int, others):
                pair = (min(row, other), max(row, other))
                if pair not in known:
                    values = self.read(self.rows[[other]], 0, self.width, theirs)[0]
                    known[pair] = float(wide @ values.astype(np.float64)) * self.scale[other, 0]
                found.append((other, min(1.0, max(-1.0, known[pair]))))
            yield sorted(found, key=lambda one: (-one[1], one[0]))
