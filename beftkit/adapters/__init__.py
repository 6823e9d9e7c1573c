"""Adapters: what training changed, as files, what such files say, and what they do to a base."""

from beftkit.adapters.changes import change, storable
from beftkit.adapters.places import is_adapter, meant
from beftkit.adapters.reading import (
    BIASES_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    AdapterInfo,
    base_elsewhere,
    biases_config,
    mismatch,
)
from beftkit.adapters.scales import Scales
from beftkit.adapters.steps import (
    Step,
    Target,
    all_steps,
    bias_steps,
    check_kind,
    endings,
    fewer_layers,
    layers_of,
)
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
    "Scales",
    "Step",
    "Target",
    "Tuned",
    "all_steps",
    "base_elsewhere",
    "bias_steps",
    "biases_config",
    "change",
    "check_format",
    "check_kind",
    "default_format",
    "endings",
    "fewer_layers",
    "is_adapter",
    "layers_of",
    "meant",
    "mismatch",
    "storable",
    "write_adapter",
    "write_biases",
]
