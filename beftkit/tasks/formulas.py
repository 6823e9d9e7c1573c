"""What the metrics shipped here compute, by scikit-learn and scipy. Slow to import."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from sklearn import metrics

if TYPE_CHECKING:
    import evaluate

Values = Any  # [N] numbers


def _f1(expected: Values, predicted: Values) -> float:
    if max(np.max(expected), np.max(predicted)) > 1:
        raise ValueError("is for two labels, the second one being the positive; use macro_f1")
    return float(metrics.f1_score(expected, predicted, zero_division=0))


def _macro_f1(expected: Values, predicted: Values) -> float:
    return float(metrics.f1_score(expected, predicted, average="macro", zero_division=0))


def _correlation(function: Callable[..., Any]) -> Callable[[Values, Values], float]:
    def correlation(expected: Values, predicted: Values) -> float:
        if len(expected) < 2:
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constants, whose correlation is NaN
            return float(function(expected, predicted).statistic)

    return correlation


# name -> (function of references and predictions, their type)
FUNCTIONS: dict[str, tuple[Callable[[Values, Values], float], str]] = {
    "accuracy": (metrics.accuracy_score, "int64"),
    "f1": (_f1, "int64"),
    "macro_f1": (_macro_f1, "int64"),
    "matthews": (metrics.matthews_corrcoef, "int64"),
    "pearson": (_correlation(stats.pearsonr), "float64"),
    "spearman": (_correlation(stats.spearmanr), "float64"),
    "mse": (metrics.mean_squared_error, "float64"),
    "mae": (metrics.mean_absolute_error, "float64"),
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
