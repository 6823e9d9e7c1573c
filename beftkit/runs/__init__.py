"""Whole journeys: from settings to a trained adapter, from a model to its metrics."""

from beftkit.runs.evaluating import EvaluationResult, evaluate
from beftkit.runs.measuring import fisher, fisher_all
from beftkit.runs.planning import RunPlan, plan_run
from beftkit.runs.training import train

__all__ = ["EvaluationResult", "RunPlan", "evaluate", "fisher", "fisher_all", "plan_run", "train"]
