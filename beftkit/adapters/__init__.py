"""Adapters: what training changed, as files, and what such files say."""

from beftkit.adapters.changes import change, storable
from beftkit.adapters.reading import (
    BIASES_NAME,
    CONFIG_NAME,
    OWN_KEYS,
    WEIGHTS_NAME,
    Change,
    bias_changes,
    biases_config,
    lora_scale,
    plain,
)
from beftkit.adapters.tuned import FORMATS, SAVED_BY_TASK, Kind, Tuned, check_format, default_format
from beftkit.adapters.writing import write_adapter, write_biases

__all__ = [
    "BIASES_NAME",
    "CONFIG_NAME",
    "FORMATS",
    "OWN_KEYS",
    "SAVED_BY_TASK",
    "WEIGHTS_NAME",
    "Change",
    "Kind",
    "Tuned",
    "bias_changes",
    "biases_config",
    "change",
    "check_format",
    "default_format",
    "lora_scale",
    "plain",
    "storable",
    "write_adapter",
    "write_biases",
]
