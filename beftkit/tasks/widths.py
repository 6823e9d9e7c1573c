"""Which widths are captured: few, so that capturing pays, and close, so that padding is little.

A captured update is of one width. A batch whose own width none has is filled up to the next one, or
goes on eagerly as wide as it is, whichever is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: graphs at most, each of which holds its own launches
MOST = 12
#: tokens that rounding may add, as a share of all
ADDED = 0.10


@dataclass(frozen=True)
class Costs:
    """What things cost, in seconds.

    Attributes:
        launch: an eager batch, however small it is.
        token: of a batch's rows and columns, padding included.
        capture: one width, warm-up included.
        first: what the first capture takes besides.
    """

    launch: float
    token: float
    capture: float
    first: float = 0.0


@dataclass(frozen=True)
class Widths:
    """Where batches go.

    Attributes:
        tops: the widest batch of each group, ascending; the last is the longest row.
        captured: of each group whether its batches are filled up to its top and captured; those of
            others are as wide as they are, and eager.
        added: tokens that rounding adds, as a share of those of unrounded batches.
    """

    tops: tuple[int, ...]
    captured: tuple[bool, ...]
    added: float

    def of(self, width: int) -> tuple[int, bool]:
        """How wide a batch of this width is made, and whether that width is captured."""
        group = int(np.searchsorted(self.tops, width))
        if group == len(self.tops) or not self.captured[group]:
            return width, False
        return self.tops[group], True

    @property
    def chosen(self) -> tuple[int, ...]:
        """The widths that are captured, ascending."""
        return tuple(w for w, there in zip(self.tops, self.captured, strict=True) if there)


def choose_widths(
    counts: Mapping[int, float],
    rows: int,
    costs: Costs,
    *,
    everything: bool = False,
    most: float = ADDED,
) -> Widths:
    """The cheapest way through a run: at most `MOST` captured widths, under ``most`` more tokens.

    Exact, by dynamic programming over the widths in ascending order: a batch is filled up to the
    top of its group, and groups are neighbours. What tokens cost is raised until few enough are
    added; where even that does not suffice, they are as few as so many widths allow.

    Args:
        counts: how many batches of each width the run has.
        rows: of each batch.
        costs: what launches, tokens and captures cost.
        everything: capture all widths, at whatever cost.
        most: tokens that rounding may add, as a share of all.
    """
    widths = np.array(sorted(counts), dtype=np.int64)
    if not len(widths):
        return Widths((), (), 0.0)
    numbers = np.array([counts[int(w)] for w in widths], dtype=np.float64)
    price = costs.token
    for _ in range(60):
        found = _cheapest(widths, numbers, rows, costs, price, everything)
        if found.added < most:
            return found
        price = max(price, 1e-12) * 2
    return found


def _cheapest(
    widths: np.ndarray, numbers: np.ndarray, rows: int, costs: Costs, price: float, everything: bool
) -> Widths:
    """At this price of an added token."""
    total = len(widths)
    # Sums up to each place: batches, and their tokens.
    before = np.concatenate([[0.0], np.cumsum(numbers)])
    tokens = np.concatenate([[0.0], np.cumsum(numbers * widths * rows)])
    eager = numbers * np.maximum(costs.launch, costs.token * rows * widths)
    best = np.full((MOST + 1, total + 1), math.inf)
    came = np.full((MOST + 1, total + 1), -2, dtype=np.int64)
    best[:, 0] = 0.0
    for many in range(MOST + 1):
        for place in range(1, total + 1):
            if not everything:
                best[many, place] = best[many, place - 1] + eager[place - 1]
                came[many, place] = -1
            if many == 0:
                continue
            filled = (before[place] - before[:place]) * widths[place - 1] * rows
            added = filled - (tokens[place] - tokens[:place])
            cost = best[many - 1, :place] + costs.capture + filled * costs.token
            cost = cost + added * (price - costs.token)
            begin = int(cost.argmin())
            if cost[begin] < best[many, place]:
                best[many, place], came[many, place] = cost[begin], begin
    best[1:, total] += costs.first
    many, place = int(best[:, total].argmin()), total
    tops: list[int] = []
    captured: list[bool] = []
    more = 0.0
    while place:
        begin = int(came[many, place])
        tops.append(int(widths[place - 1]))
        captured.append(begin >= 0)
        if begin >= 0:
            filled_up = (before[place] - before[begin]) * widths[place - 1] * rows
            more += filled_up - (tokens[place] - tokens[begin])
            many -= 1
        place = begin if begin >= 0 else place - 1
    return Widths(tuple(tops[::-1]), tuple(captured[::-1]), float(more / tokens[-1]))
