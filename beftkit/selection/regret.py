"""What a method's pick costs: the best candidate's metric minus the pick's, over cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from beftkit.selection.certainty import LEVEL


@dataclass(frozen=True)
class Regret:
    """A method's regret over the cells in which it picked a candidate.

    Attributes:
        mean: of the metric of the best candidate of a cell minus that of the pick, 0 or more,
            whichever way the metric runs.
        low, high: interval of that mean by Student's t over cells; None: one cell.
        cells: how many there are.
        best: in how many of them the pick was the best, alone or with others.
    """

    mean: float
    low: float | None
    high: float | None
    cells: int
    best: int


def regret_of(cell: Mapping[str, float], pick: str | None) -> float | None:
    """Of one cell; None: no pick, or none that was trained.

    Args:
        cell: candidate -> its metric, more being better.
        pick: the method's choice.
    """
    return max(cell.values()) - cell[pick] if pick is not None and pick in cell else None


def mean_regret(regrets: Iterable[float | None]) -> Regret | None:
    """Over cells; None where there is none.

    Cells of one grid have data and seeds in common, so that the interval is too narrow rather than
    too wide; it may reach below zero, which no regret does.
    """
    known = [one for one in regrets if one is not None]
    if not known:
        return None
    mean, best = fmean(known), sum(one <= 1e-12 for one in known)
    if len(known) == 1:
        return Regret(mean, None, None, 1, best)
    half = half_width(known)
    return Regret(mean, mean - half, mean + half, len(known), best)


def half_width(values: Sequence[float]) -> float:
    """Of Student's interval for the mean of two or more values."""
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2))
    return quantile * stdev(values) / math.sqrt(len(values))
