"""Which scalars of a model train, and how."""

from beftkit.tuning.choice import (
    Choice,
    Part,
    choose,
    head_names,
    parse_bias,
    parse_layers,
)
from beftkit.tuning.tuner import Tuner, Unit, checkpoint_activations, store_for_autocast

__all__ = [
    "Choice",
    "Part",
    "Tuner",
    "Unit",
    "checkpoint_activations",
    "choose",
    "head_names",
    "parse_bias",
    "parse_layers",
    "store_for_autocast",
]
