"""How sure a choice is: bootstrap intervals, the update from which a ranking stays. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beftkit.scores import contenders

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Margin:
    """By how much the target leads.

    Attributes:
        runner_up: the best other candidate that can learn.
        value: mean score of the target minus that of the runner-up.
        low, high: bootstrap interval over layers and seeds; None where there is one of each.
        close: whether the interval holds zero, so that it is too close to call.
    """

    runner_up: str
    value: float
    low: float | None
    high: float | None
    close: bool


def margin(
    runner_up: str, target: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> Margin:
    """The margin between two roles, from their scores ``[seeds][layers]``.

    Seeds, and layers within them, are drawn with replacement; where both roles have as many sites,
    a layer is drawn for both at once.
    """
    value = float(np.mean([np.mean(a) - np.mean(b) for a, b in zip(target, other, strict=True)]))
    if len(target) == 1 and len(target[0]) == 1 and len(other[0]) == 1:
        return Margin(runner_up, value, None, None, False)
    rng = np.random.default_rng(0)
    seeds = rng.integers(len(target), size=(DRAWS, len(target)))
    # For every seed, DRAWS means over resampled layers; then means over resampled seeds.
    by_seed = np.stack([_layer_means(rng, a, b) for a, b in zip(target, other, strict=True)])
    draws = by_seed[seeds, np.arange(DRAWS)[:, None]].mean(axis=1)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Margin(runner_up, value, float(low), float(high), bool(low <= 0 <= high))


def _layer_means(rng: np.random.Generator, a: Sequence[float], b: Sequence[float]) -> Any:
    first, second = np.asarray(a), np.asarray(b)
    if len(first) == len(second):
        drawn = rng.integers(len(first), size=(DRAWS, len(first)))
        return (first - second)[drawn].mean(axis=1)
    left = first[rng.integers(len(first), size=(DRAWS, len(first)))].mean(axis=1)
    right = second[rng.integers(len(second), size=(DRAWS, len(second)))].mean(axis=1)
    return left - right


@dataclass(frozen=True)
class Settled:
    """From which update a probe's answer no longer changed.

    Attributes:
        target: from here on the best candidate is the final one.
        ranking: from here on the candidates rank as at the end.
        steps: updates of the whole probe.
    """

    target: int
    ranking: int
    steps: int


def settled(
    track: Sequence[tuple[int, Mapping[str, float | None]]], candidates: Sequence[str]
) -> Settled | None:
    """Read it off the scores at each update.

    Args:
        track: update and score of each role.
        candidates: roles that can learn, in order of preference.

    Returns:
        None where no candidate was tracked.
    """
    rows = [(step, contenders(candidates, scores, {})) for step, scores in track]
    if not rows or not rows[-1][1]:
        return None
    last = rows[-1][1]
    target = ranking = rows[-1][0]
    for step, order in reversed(rows):
        if order[:1] != last[:1]:
            break
        target = step
    for step, order in reversed(rows):
        if order != last:
            break
        ranking = step
    return Settled(target, ranking, rows[-1][0])


def kendall_tau(ranks: Mapping[str, int], metrics: Mapping[str, float | None]) -> float | None:
    """Kendall's tau-b between ranks (1 is best) and metrics; None without variation or metrics."""
    from scipy.stats import kendalltau

    known = [role for role in ranks if metrics.get(role) is not None]
    if len(known) < 2:
        return None
    found = kendalltau([-ranks[role] for role in known], [metrics[role] for role in known])
    return None if np.isnan(found.statistic) else float(found.statistic)
