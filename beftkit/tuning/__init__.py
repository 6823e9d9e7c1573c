"""Which scalars of a model train, and how."""

from beftkit.models import head_names
from beftkit.tuning.choice import Choice, choose, parse_layers
from beftkit.tuning.lora import LoraTuner, check_peft, choose_lora
from beftkit.tuning.tuner import Tuner, checkpoint_activations, store_for_autocast

__all__ = [
    "Choice",
    "LoraTuner",
    "Tuner",
    "check_peft",
    "checkpoint_activations",
    "choose",
    "choose_lora",
    "head_names",
    "parse_layers",
    "store_for_autocast",
]
