"""How sure a choice is: a margin's interval, the update from which a ranking stays, tau."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beftkit.files import plain_of
from beftkit.scores import contenders
from beftkit.shown import Shown

LEVEL = 0.95


@dataclass(frozen=True, repr=False)
class Margin(Shown):
    """By how much the target leads.

    Attributes:
        runner_up: the best other candidate that can learn.
        value: mean score of the target minus that of the runner-up.
        low, high: interval for the margin; None where there is one layer and one seed.
        close: whether the interval holds zero, so that it is too close to call.
        over: what the interval allows for: ``layers and seeds``, or the one there are several of;
            None without an interval, and in files of before it was written down.
    """

    runner_up: str
    value: float
    low: float | None
    high: float | None
    close: bool
    over: str | None = None

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "runner_up value low high close over")


def margin(
    runner_up: str, target: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> Margin:
    """The margin between two roles, from their scores ``[seeds][layers]``, the same ones in both.

    The interval is Student's t. Layers are the same ones in every seed: the squared standard error
    of the layers' means (over seeds) and that of the seeds' means (over layers) add up, and Welch
    and Satterthwaite give the degrees of freedom. Roles with as many sites are compared layer by
    layer, others as two samples. Resampling would not do: draws of three seeds stay in their range,
    which holds the truth in three cases of four. Scores that are not finite have no interval.
    """
    value = float(np.mean([np.mean(a) - np.mean(b) for a, b in zip(target, other, strict=True)]))
    first, second = np.asarray(target), np.asarray(other)
    paired = first.shape == second.shape
    layers = (
        [(first - second).mean(axis=0)] if paired else [first.mean(axis=0), second.mean(axis=0)]
    )
    seeds = first.mean(axis=1) - second.mean(axis=1)
    several = [one for one in (*layers, seeds) if len(one) > 1]
    if not several or not np.isfinite(value):
        return Margin(runner_up, value, None, None, False)
    half = _half_width(several)
    low, high = value - half, value + half
    over = ["layers"] * any(len(one) > 1 for one in layers) + ["seeds"] * (len(seeds) > 1)
    return Margin(runner_up, value, low, high, low <= 0 <= high, " and ".join(over))


def _half_width(samples: Sequence[Any]) -> float:
    """Of the interval for a sum of independent means, each of a sample ``[N]``, N > 1."""
    from scipy.special import stdtrit

    errors = np.array([one.var(ddof=1) / len(one) for one in samples])
    total = errors.sum()
    if total == 0:
        return 0.0
    freedom = 1 / sum((errors / total) ** 2 / [len(one) - 1 for one in samples])
    return float(stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(total))


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
