"""Whole journeys: from settings to a trained adapter, from a model to its metrics."""

from beftkit.runs.evaluating import EvaluationResult, evaluate, evaluate_with
from beftkit.runs.exporting import ExportResult, export
from beftkit.runs.measuring import fisher, fisher_all, fisher_with
from beftkit.runs.planning import FisherPlan, RunPlan, plan_fisher, plan_run
from beftkit.runs.predicting import PredictionResult, predict
from beftkit.runs.predictor import Predictor, load
from beftkit.runs.timing import Timing, time_fisher, time_run
from beftkit.runs.training import train_with

__all__ = [
    "EvaluationResult",
    "ExportResult",
    "FisherPlan",
    "PredictionResult",
    "Predictor",
    "RunPlan",
    "Timing",
    "evaluate",
    "evaluate_with",
    "export",
    "fisher",
    "fisher_all",
    "fisher_with",
    "load",
    "plan_fisher",
    "plan_run",
    "predict",
    "time_fisher",
    "time_run",
    "train_with",
]
