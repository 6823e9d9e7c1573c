"""Whole journeys: from settings to a trained adapter, from a model to its metrics."""

from beftkit.runs.averaging import AverageResult, average
from beftkit.runs.evaluating import EvaluationResult, evaluate, evaluate_with
from beftkit.runs.exporting import ExportResult, export
from beftkit.runs.extracting import ExtractResult, extract
from beftkit.runs.measuring import fisher, fisher_all, fisher_with
from beftkit.runs.planning import FisherPlan, RunPlan, plan_fisher, plan_run
from beftkit.runs.predicting import PredictionResult, predict
from beftkit.runs.predictor import Predictor, load
from beftkit.runs.timing import Timing, time_fisher, time_run
from beftkit.runs.training import train_with

__all__ = [
    "AverageResult",
    "EvaluationResult",
    "ExportResult",
    "ExtractResult",
    "FisherPlan",
    "PredictionResult",
    "Predictor",
    "RunPlan",
    "Timing",
    "average",
    "evaluate",
    "evaluate_with",
    "export",
    "extract",
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
