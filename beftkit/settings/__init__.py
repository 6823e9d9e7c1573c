"""Typed settings behind flags, YAML files and Python, made of parts."""

from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.predict import ExportSettings, PredictSettings
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings

__all__ = [
    "EvaluateSettings",
    "ExportSettings",
    "FisherSettings",
    "PredictSettings",
    "SelectSettings",
    "TrainSettings",
]
