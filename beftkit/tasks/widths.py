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
#: the price of added tokens is doubled up to so often, and looked for in so many steps
PRICE, STEPS = 40.0, 18


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

    By dynamic programming over the widths in ascending order: a batch is filled up to the top of
    its group, and groups are neighbours. That is exact but for the limit. Where it binds, the price
    of added tokens is raised until it is kept, and the cheapest way met is taken: the cheapest of
    all with ``everything``, else near it (15 % in small cases). Where no price suffices, they are
    as few as so many widths allow.

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
    every = float((numbers * widths).sum()) * rows * costs.token
    able: list[_Way] = []
    low, high = 0.0, PRICE
    for step in range(STEPS):
        # At first as it is, then as high as it gets, then between.
        doublings = (low, high)[step] if step < 2 else (low + high) / 2
        price = 2.0**doublings
        found = _ways(widths, numbers, rows, costs, price * costs.token, everything)
        able += [way for way in found if way.widths.added < most]
        least = min(found, key=lambda way: way.cost + (price - 1) * every * way.widths.added)
        kept = least.widths.added < most
        if (step == 0 and kept) or (step == 1 and not kept):
            return least.widths
        low, high = (low, doublings) if kept else (doublings, high)
    return min(able, key=lambda way: way.cost).widths


@dataclass(frozen=True)
class _Way:
    """Through a run, and what it costs in seconds, whatever added tokens were priced at."""

    widths: Widths
    cost: float


def _ways(
    widths: np.ndarray, numbers: np.ndarray, rows: int, costs: Costs, price: float, everything: bool
) -> list[_Way]:
    """The cheapest ways at this price of an added token, one for each number of widths."""
    total = len(widths)
    # Sums up to each place: batches, and their tokens.
    before = np.concatenate([[0.0], np.cumsum(numbers)])
    tokens = np.concatenate([[0.0], np.cumsum(numbers * widths * rows)])
    eager = numbers * np.maximum(costs.launch, costs.token * rows * widths)
    best = np.full((MOST + 1, total + 1), math.inf)
    came = np.full((MOST + 1, total + 1), -2, dtype=np.int64)
    best[:, 0] = 0.0
    for place in range(1, total + 1):
        filled = (before[place] - before[:place]) * widths[place - 1] * rows
        added = filled - (tokens[place] - tokens[:place])
        cost = best[:-1, :place] + costs.capture + filled * costs.token
        cost = cost + added * (price - costs.token)
        begin = cost.argmin(1)
        best[1:, place], came[1:, place] = cost[np.arange(MOST), begin], begin
        if not everything:
            alone = best[:, place - 1] + eager[place - 1]
            came[alone <= best[:, place], place] = -1
            best[:, place] = np.minimum(best[:, place], alone)
    found = []
    for number in range(MOST + 1):
        if not math.isfinite(best[number, total]):
            continue
        many, place = number, total
        tops: list[int] = []
        captured: list[bool] = []
        more = cost = 0.0
        while place:
            begin = int(came[many, place])
            tops.append(int(widths[place - 1]))
            captured.append(begin >= 0)
            if begin >= 0:
                filled = (before[place] - before[begin]) * widths[place - 1] * rows
                more += filled - (tokens[place] - tokens[begin])
                cost += costs.capture + filled * costs.token
                many -= 1
            else:
                cost += eager[place - 1]
            place = begin if begin >= 0 else place - 1
        cost += costs.first * any(captured)
        made = Widths(tuple(tops[::-1]), tuple(captured[::-1]), float(more / tokens[-1]))
        found.append(_Way(made, float(cost)))
    return found
