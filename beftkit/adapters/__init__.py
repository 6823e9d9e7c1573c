"""Adapters: what training changed, as files, what such files say, and what they do to a base."""

from beftkit.adapters.changes import change, storable
from beftkit.adapters.reading import (
    BIASES_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    AdapterInfo,
    biases_config,
)
from beftkit.adapters.steps import Step, Target, all_steps, bias_steps, endings, lora_scale
from beftkit.adapters.tuned import FORMATS, SAVED_BY_TASK, Kind, Tuned, check_format, default_format
from beftkit.adapters.writing import write_adapter, write_biases

__all__ = [
    "BIASES_NAME",
    "CONFIG_NAME",
    "FORMATS",
    "SAVED_BY_TASK",
    "WEIGHTS_NAME",
    "AdapterInfo",
    "Kind",
    "Step",
    "Target",
    "Tuned",
    "all_steps",
    "bias_steps",
    "biases_config",
    "change",
    "check_format",
    "default_format",
    "endings",
    "lora_scale",
    "storable",
    "write_adapter",
    "write_biases",
]
