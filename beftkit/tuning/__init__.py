"""Which scalars of a model train, and how."""

from beftkit.models import head_names
from beftkit.tuning.added import add, adding, attach, attached, owner_of, parse_added, stored_name
from beftkit.tuning.choice import Choice, choose, parse_layers
from beftkit.tuning.lora import LoraTuner, check_peft, choose_lora
from beftkit.tuning.tuner import Tuner, checkpoint_activations, store_for_autocast

__all__ = [
    "Choice",
    "LoraTuner",
    "Tuner",
    "add",
    "adding",
    "attach",
    "attached",
    "check_peft",
    "checkpoint_activations",
    "choose",
    "choose_lora",
    "head_names",
    "owner_of",
    "parse_added",
    "parse_layers",
    "store_for_autocast",
    "stored_name",
]
