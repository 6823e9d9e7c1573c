"""What the metrics shipped here compute, to the bit as scikit-learn and scipy do.

Those are slow to import and 70 MB, so they are asked only for what takes more than counting.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import evaluate

Values = Any  # [N] numbers


class Function(Protocol):
    """Of references and predictions."""

    def __call__(self, expected: Values, predicted: Values) -> float:
        """The metric."""
        ...


def _counts(expected: Values, predicted: Values) -> tuple[Values, Values, Values, Values]:
    """Labels that either side has [C], and of each: right answers, references, predictions."""
    labels, places = np.unique(np.concatenate([expected, predicted]), return_inverse=True)
    true, given = places[: len(expected)], places[len(expected) :]
    counted = (
        np.bincount(one, minlength=len(labels)) for one in (true[true == given], true, given)
    )
    right, references, predictions = (one.astype(np.float64) for one in counted)
    return labels, right, references, predictions


def _accuracy(expected: Values, predicted: Values) -> float:
    return float((np.asarray(expected) == np.asarray(predicted)).mean())


def _f1(expected: Values, predicted: Values) -> float:
    if max(np.max(expected), np.max(predicted)) > 1:
        raise ValueError("is for two labels, the second one being the positive; use macro_f1")
    labels, right, references, predictions = _counts(expected, predicted)
    scores = 2 * right / (references + predictions)
    return float(scores[labels == 1].sum())  # none of either: 0


def _macro_f1(expected: Values, predicted: Values) -> float:
    _, right, references, predictions = _counts(expected, predicted)
    return float(np.average(2 * right / (references + predictions)))


def _matthews(expected: Values, predicted: Values) -> float:
    _, right, references, predictions = _counts(expected, predicted)
    count = predictions.sum()
    both = right.sum() * count - references @ predictions
    spread = (count**2 - predictions @ predictions) * (count**2 - references @ references)
    return float(both / np.sqrt(spread)) if spread else 0.0


def _by_scipy(name: str) -> Function:
    def correlation(expected: Values, predicted: Values) -> float:
        if len(expected) < 2:
            return math.nan
        from scipy import stats

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constants, whose correlation is NaN
            return float(getattr(stats, name)(expected, predicted).statistic)

    return correlation


def _by_sklearn(name: str) -> Function:
    def error(expected: Values, predicted: Values) -> float:
        from sklearn import metrics

        return float(getattr(metrics, name)(expected, predicted))

    return error


# name -> (function of references and predictions, their type)
FUNCTIONS: dict[str, tuple[Function, str]] = {
    "accuracy": (_accuracy, "int64"),
    "f1": (_f1, "int64"),
    "macro_f1": (_macro_f1, "int64"),
    "matthews": (_matthews, "int64"),
    "pearson": (_by_scipy("pearsonr"), "float64"),
    "spearman": (_by_scipy("spearmanr"), "float64"),
    "mse": (_by_sklearn("mean_squared_error"), "float64"),
    "mae": (_by_sklearn("mean_absolute_error"), "float64"),
}


def evaluate_metric(name: str) -> evaluate.EvaluationModule:
    """One of `FUNCTIONS` as a metric of ``evaluate``, which is slow to import; kept in memory.

    Otherwise evaluate writes predictions to the user's cache and leaves a lock. f1: label 1 is the
    positive one. matthews of a constant is 0, a correlation with one NaN.
    """
    import datasets
    import evaluate

    function, kind = FUNCTIONS[name]

    class TaskMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
        def _info(self) -> evaluate.MetricInfo:
            value = datasets.Value(kind)
            return evaluate.MetricInfo(
                description=f"{name} by scikit-learn or scipy",
                citation="",
                inputs_description="",
                features=datasets.Features({"predictions": value, "references": value}),
            )

        def _compute(self, *, predictions: Values, references: Values) -> dict[str, float]:
            return {name: float(function(references, predictions))}

    metric = TaskMetric(config_name=name, keep_in_memory=True)
    metric.info.module_name = name  # so that `name` tells one from another
    return metric
