"""Whole journeys: from settings to a trained adapter, from a model to its metrics.

Names are handed on lazily: a merge of files needs none of what training needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beftkit.runs.averaging import AverageResult as AverageResult
    from beftkit.runs.averaging import average as average
    from beftkit.runs.evaluating import EvaluationResult as EvaluationResult
    from beftkit.runs.evaluating import evaluate as evaluate
    from beftkit.runs.evaluating import evaluate_with as evaluate_with
    from beftkit.runs.exporting import ExportResult as ExportResult
    from beftkit.runs.exporting import export as export
    from beftkit.runs.extracting import ExtractResult as ExtractResult
    from beftkit.runs.extracting import extract as extract
    from beftkit.runs.measuring import fisher as fisher
    from beftkit.runs.measuring import fisher_all as fisher_all
    from beftkit.runs.measuring import fisher_with as fisher_with
    from beftkit.runs.merge_result import MergeResult as MergeResult
    from beftkit.runs.merging import merge as merge
    from beftkit.runs.planning import FisherPlan as FisherPlan
    from beftkit.runs.planning import RunPlan as RunPlan
    from beftkit.runs.planning import plan_fisher as plan_fisher
    from beftkit.runs.planning import plan_run as plan_run
    from beftkit.runs.predicting import PredictionResult as PredictionResult
    from beftkit.runs.predicting import predict as predict
    from beftkit.runs.predictor import Predictor as Predictor
    from beftkit.runs.predictor import load as load
    from beftkit.runs.timing import Timing as Timing
    from beftkit.runs.timing import time_fisher as time_fisher
    from beftkit.runs.timing import time_run as time_run
    from beftkit.runs.training import train_with as train_with

_HOMES = {
    "AverageResult": "averaging",
    "EvaluationResult": "evaluating",
    "ExportResult": "exporting",
    "ExtractResult": "extracting",
    "FisherPlan": "planning",
    "MergeResult": "merge_result",
    "PredictionResult": "predicting",
    "Predictor": "predictor",
    "RunPlan": "planning",
    "Timing": "timing",
    "average": "averaging",
    "evaluate": "evaluating",
    "evaluate_with": "evaluating",
    "export": "exporting",
    "extract": "extracting",
    "fisher": "measuring",
    "fisher_all": "measuring",
    "fisher_with": "measuring",
    "load": "predictor",
    "merge": "merging",
    "plan_fisher": "planning",
    "plan_run": "planning",
    "predict": "predicting",
    "time_fisher": "timing",
    "time_run": "timing",
    "train_with": "training",
}
__all__ = [
    "AverageResult",
    "EvaluationResult",
    "ExportResult",
    "ExtractResult",
    "FisherPlan",
    "MergeResult",
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
    "merge",
    "plan_fisher",
    "plan_run",
    "predict",
    "time_fisher",
    "time_run",
    "train_with",
]


def __getattr__(name: str) -> Any:
    """Import a journey when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit.runs' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"beftkit.runs.{_HOMES[name]}"), name)
