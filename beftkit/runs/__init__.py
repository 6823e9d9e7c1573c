"""Whole journeys: from settings to a trained adapter, from a model to its metrics."""

from beftkit.runs.evaluating import EvaluationResult, evaluate, evaluate_with
from beftkit.runs.measuring import fisher, fisher_all, fisher_with
from beftkit.runs.planning import FisherPlan, RunPlan, plan_fisher, plan_run
from beftkit.runs.timing import Timing, time_fisher, time_run
from beftkit.runs.training import train_with

__all__ = [
    "EvaluationResult",
    "FisherPlan",
    "RunPlan",
    "Timing",
    "evaluate",
    "evaluate_with",
    "fisher",
    "fisher_all",
    "fisher_with",
    "plan_fisher",
    "plan_run",
    "time_fisher",
    "time_run",
    "train_with",
]
