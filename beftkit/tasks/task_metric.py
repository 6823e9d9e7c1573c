"""The metrics shipped here, as ``evaluate`` modules. Slow to import."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from beftkit.tasks.functions import FUNCTIONS, Values


class TaskMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """One number; ``TaskMetric(config_name="matthews", keep_in_memory=True)``.

    Without ``keep_in_memory`` evaluate writes predictions to the user's cache and leaves a lock.
    f1: label 1 is the positive one. matthews of a constant is 0, a correlation with one NaN.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.info.module_name = self.config_name  # so that `name` tells one from another

    def _info(self) -> evaluate.MetricInfo:
        kind = datasets.Value(FUNCTIONS[self.config_name][1])
        return evaluate.MetricInfo(
            description=f"{self.config_name} by scikit-learn or scipy",
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": kind, "references": kind}),
        )

    def _compute(self, *, predictions: Values, references: Values) -> dict[str, float]:
        function, _ = FUNCTIONS[self.config_name]
        return {self.config_name: float(function(references, predictions))}
