"""Whole journeys: from settings to a trained adapter, from a model to its metrics."""

from beftkit.runs.evaluating import EvaluationResult, evaluate, evaluate_with
from beftkit.runs.measuring import fisher, fisher_all, fisher_with
from beftkit.runs.prepare import RunPlan, plan_run
from beftkit.runs.training import train_with

__all__ = [
    "EvaluationResult",
    "RunPlan",
    "evaluate",
    "evaluate_with",
    "fisher",
    "fisher_all",
    "fisher_with",
    "plan_run",
    "train_with",
]
