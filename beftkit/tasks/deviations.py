"""One standard error of each metric at as many examples as there are, cheap and always the same.

Means over examples have theirs by formula. Of the others a bootstrap draws the examples again, with
a generator of its own and a fixed seed: class metrics through the counts of their confusion matrix,
correlations through how often each example was drawn, so no metric is computed example by example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import evaluate

#: samples that a bootstrap draws; the standard error is then known to about 4 %
DRAWS = 400
#: of more examples a correlation's bootstrap takes so many, and scales
MOST = 10_000
SEED = 0
Values = npt.NDArray[Any]


def standard_errors(
    metrics: Sequence[str | evaluate.EvaluationModule],
    predictions: npt.ArrayLike,
    references: npt.ArrayLike,
) -> dict[str, float]:
    """How far each metric would scatter over other samples of as many examples.

    ``accuracy``: sqrt(p (1 - p) / N); ``mse``, ``mae``: deviation of the errors / sqrt(N); others:
    the deviation of `DRAWS` bootstrap samples (n - 1 below), as of ``scipy.stats.bootstrap``.

    Args:
        metrics: names of `beftkit.tasks.METRIC_NAMES`; those of others are passed over, as running
            them some hundred times may take long.
        predictions, references: [N], as `beftkit.tasks.compute_metrics` took them.

    Returns:
        Name -> standard error; NaN where most samples have no such metric.
    """
    predicted, expected = np.asarray(predictions), np.asarray(references)
    found: dict[str, float] = {}
    names = [one for one in metrics if isinstance(one, str)]
    drawn = {name: _OF_COUNTS[name] for name in names if name in _OF_COUNTS}
    for name in names:
        if name == "accuracy":
            right = float((expected.astype("int64") == predicted.astype("int64")).mean())
            found[name] = math.sqrt(right * (1 - right) / len(expected))
        elif name in ("mse", "mae"):
            error = np.abs(expected.astype("float64") - predicted.astype("float64"))
            error = error**2 if name == "mse" else error
            found[name] = float(error.std() / math.sqrt(len(error)))
        elif name in ("pearson", "spearman"):
            found[name] = _of_correlation(name, expected, predicted)
    if drawn:
        samples = _Counts(expected.astype("int64"), predicted.astype("int64"))
        found |= {name: _deviation(function(samples)) for name, function in drawn.items()}
    return {name: found[name] for name in names if name in found}


def zero_error_note(errors: Iterable[float | None]) -> list[str]:
    """What to say where a standard error is 0, as sqrt(p (1 - p) / N) is at an accuracy of 0 or 1.

    Where N of N are right, a share of 1 - .05^(1 / N) of others may be wrong at 95 % (Clopper and
    Pearson 1934), about 3 / N (Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything
    all right?").

    Args:
        errors: standard errors; None where one is not known.
    """
    said = "a standard error of 0: all N examples are alike (right, or wrong), and still about"
    return [f"{said} 3 / N of others may differ (95 %)"] if 0.0 in errors else []


class _Counts:
    """Bootstrap samples of a confusion matrix.

    Drawing N examples again is drawing from a multinomial over the pairs of classes that occur.

    Attributes:
        total: N.
        labels: the classes, sorted.
        both, expected, predicted: [draws, classes], how often right, how often there, how often
            said.
    """

    def __init__(self, expected: Values, predicted: Values) -> None:
        pairs, counts = np.unique(np.stack([expected, predicted], 1), axis=0, return_counts=True)
        self.total = int(counts.sum())
        self.labels = np.unique(pairs)
        drawn = np.random.default_rng(SEED).multinomial(self.total, counts / self.total, size=DRAWS)
        there, said = (pairs[:, n, None] == self.labels for n in (0, 1))
        self.expected, self.predicted = drawn @ there, drawn @ said
        self.both = drawn @ (there & said)


def _f1_scores(samples: _Counts) -> tuple[Values, Values]:
    """F1 of each class [draws, classes], 0 where it is not defined; whether the class occurs."""
    occurs = samples.expected + samples.predicted
    scores: Values = 2 * samples.both / np.maximum(occurs, 1)
    return scores, occurs > 0


def _f1(samples: _Counts) -> Values:
    scores: Values = _f1_scores(samples)[0][:, samples.labels == 1].sum(axis=1)
    return scores


def _macro_f1(samples: _Counts) -> Values:
    scores, occurs = _f1_scores(samples)
    means: Values = scores.sum(axis=1) / occurs.sum(axis=1)
    return means


def _matthews(samples: _Counts) -> Values:
    n = float(samples.total)
    there, said = samples.expected.astype("float64"), samples.predicted.astype("float64")
    above = samples.both.sum(axis=1) * n - (there * said).sum(axis=1)
    below = np.sqrt((n**2 - (there**2).sum(axis=1)) * (n**2 - (said**2).sum(axis=1)))
    found: Values = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


_OF_COUNTS = {"f1": _f1, "macro_f1": _macro_f1, "matthews": _matthews}


def _of_correlation(name: str, expected: Values, predicted: Values) -> float:
    random = np.random.default_rng(SEED)
    x, y = expected.astype("float64"), predicted.astype("float64")
    scale = 1.0
    if len(x) > MOST:
        scale = math.sqrt(MOST / len(x))
        some = np.sort(random.choice(len(x), MOST, replace=False))
        x, y = x[some], y[some]
    if len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    # Sums of squares keep their digits where the means are taken off first.
    x, y = x - x.mean(), y - y.mean()
    chances = np.full(len(x), 1 / len(x))
    found = []
    for _ in range(DRAWS):
        times = random.multinomial(len(x), chances).astype("float64")
        one, other = (x, y) if name == "pearson" else (_ranks(x, times), _ranks(y, times))
        found.append(_correlation(one, other, times))
    return scale * _deviation(np.array(found))


def _ranks(values: Values, times: Values) -> Values:
    """Mean ranks within a sample that holds each value so many times."""
    _, place = np.unique(values, return_inverse=True)
    held = np.bincount(place, weights=times)
    ranks: Values = (np.cumsum(held) - held / 2)[place]
    return ranks


def _correlation(x: Values, y: Values, times: Values) -> float:
    held = times > 0
    if not (np.ptp(x[held]) and np.ptp(y[held])):  # sums of squares would be zero but for rounding
        return math.nan
    total = times.sum()
    x, y = x - (times @ x) / total, y - (times @ y) / total
    below = math.sqrt((times @ x**2) * (times @ y**2))
    return float(times @ (x * y)) / below if below > 0 else math.nan


def _deviation(samples: Values) -> float:
    known = samples[np.isfinite(samples)]
    return float(known.std(ddof=1)) if 2 * len(known) >= DRAWS else math.nan
