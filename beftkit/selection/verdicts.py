"""What verification says: which candidate did best, how sure that is, and what to train."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

#: as many standard errors apart are two biases told apart
APART = 2.0
_SAME = 1e-12  # means that differ by rounding alone are equal
NONE = "none"

Over = Literal["seeds", "examples", "seeds and examples"]
#: bias -> seed -> its metric and one standard error of that at so many examples
Alone = Mapping[str, Mapping[int, tuple[float | None, float | None]]]


@dataclass(frozen=True)
class Contrast:
    """Two biases, each trained alone: the first one's mean metric against the second one's.

    Attributes:
        first, second: the biases.
        value: mean difference, positive where the first did better, whichever way the metric runs.
        standard_error: of ``value``; None where it is not known.
        over: what the standard error allows for.
        seeds: how many the first has.
        told_apart: ``value`` exceeds two standard errors.
    """

    first: str
    second: str
    value: float
    standard_error: float | None
    over: Over
    seeds: int
    told_apart: bool


@dataclass(frozen=True)
class Verdict:
    """What training each candidate alone says of one place of a grid.

    Attributes:
        answer: ``target``: the score's target did best; ``other``: another candidate did;
            ``nothing``: none has a better mean than ``none``, or a metric at all.
        best: candidates with the best mean; several tie.
        recommended: what to train, None where the answer is ``nothing``.
        proven: the recommended one is told apart from ``none``.
        behind: the best against the score's target, where that did not do best.
        next: the best against the best of the candidates that did worse.
        control: the best against ``none``; None where that has no metric.
        stayed: biases whose runs never left what a constant prediction gets.
        candidates: those compared: an inert one learns nothing but the head, and is left out unless
            it may be a target.
    """

    answer: Literal["target", "other", "nothing"]
    best: tuple[str, ...]
    recommended: str | None
    proven: bool
    behind: Contrast | None
    next: Contrast | None
    control: Contrast | None
    stayed: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()


def judge(
    alone: Alone,
    candidates: Sequence[str],
    target: str | None,
    *,
    higher: bool,
    stayed: Sequence[str] = (),
) -> Verdict:
    """Hold the score's target to the metrics.

    Args:
        alone: what each bias reached, controls included.
        candidates: that can learn, in the order of their scores; of those that tie the first is
            recommended, unless the target is one of them.
        target: the score's choice.
        higher: whether more of the metric is better.
        stayed: as in `Verdict`.
    """
    means = {role: mean for role in candidates if (mean := _mean(alone, role, higher)) is not None}
    top = max(means.values(), default=0.0)
    best = tuple(role for role, mean in means.items() if top - mean <= _SAME)
    named = target if target in best else next(iter(best), None)
    others = sorted((role for role in means if role not in best), key=lambda role: -means[role])

    def against(other: str | None) -> Contrast | None:
        known = named and other and _mean(alone, other, higher) is not None
        return contrast(alone, named, other, higher) if known and named and other else None

    control = against(NONE)
    behind = against(target) if target not in best else None
    rest = behind, against(others[0] if others else None), control
    if named is None or (control is not None and control.value <= _SAME):
        return Verdict("nothing", best, None, False, *rest, tuple(stayed), tuple(means))
    proven = control is not None and control.told_apart
    answer: Literal["target", "other"] = "target" if named == target else "other"
    return Verdict(answer, best, named, proven, *rest, tuple(stayed), tuple(means))


def contrast(alone: Alone, first: str, second: str, higher: bool) -> Contrast:
    """Compare two biases that have metrics in all of their runs.

    The standard error of the difference: over seeds that both have, the deviation of their
    differences / sqrt(n); over seeds of each its own, sqrt(s1² / n1 + s2² / n2); a side of one
    seed has, instead of s² / n, the square of its metric's standard error at so many examples.
    """
    sign = 1.0 if higher else -1.0
    one, other = _values(alone, first), _values(alone, second)
    value = sign * (fmean(one.values()) - fmean(other.values()))
    over: Over
    error: float | None
    if one.keys() == other.keys() and len(one) > 1:
        over = "seeds"
        error = math.sqrt(variance([one[seed] - other[seed] for seed in one]) / len(one))
    else:
        squares = [_square(alone, bias) for bias in (first, second)]
        known = [square for square in squares if square is not None]
        error = math.sqrt(sum(known)) if len(known) == 2 else None
        single = [len(side) == 1 for side in (one, other)]
        over = "examples" if all(single) else "seeds and examples" if any(single) else "seeds"
    apart = error is not None and abs(value) > APART * error + _SAME
    return Contrast(first, second, value, error, over, len(one), apart)


def best_place(recommended: Sequence[tuple[str | None, float]]) -> int | None:
    """Of the bias that most places recommend the place where it did best.

    Args:
        recommended: of each place the bias and what it reached there, more being better.
    """
    counts = Counter(bias for bias, _ in recommended if bias is not None)
    if not counts:
        return None
    bias = counts.most_common(1)[0][0]
    where = [n for n, (one, _) in enumerate(recommended) if one == bias]
    return max(where, key=lambda n: recommended[n][1])


def _values(alone: Alone, bias: str) -> dict[int, float]:
    return {seed: value for seed, (value, _) in alone[bias].items() if value is not None}


def _mean(alone: Alone, bias: str, higher: bool) -> float | None:
    """Over the seeds, more being better; None where a run has no metric, or there is none."""
    values = _values(alone, bias) if bias in alone else {}
    if not values or len(values) < len(alone[bias]):
        return None
    return fmean(values.values()) * (1.0 if higher else -1.0)


def _square(alone: Alone, bias: str) -> float | None:
    """Squared standard error of a bias's mean."""
    values = _values(alone, bias)
    if len(values) > 1:
        return variance(values.values()) / len(values)
    [error] = [one for _, one in alone[bias].values()]
    return None if error is None else error**2
