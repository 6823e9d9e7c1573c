"""Checkpoints: names, shapes and, lazily, bytes."""

from beftkit.checkpoints.adapted import AdaptedBiasSet
from beftkit.checkpoints.based import base_reference, model_reference, other_base
from beftkit.checkpoints.bias_set import BiasSet, recognise_checkpoint
from beftkit.checkpoints.checkpoint import Checkpoint, load_config, open_checkpoint
from beftkit.checkpoints.digest import base_digest
from beftkit.checkpoints.header import TensorInfo
from beftkit.checkpoints.screen import check_model_files
from beftkit.checkpoints.widened import widened, widened_by

__all__ = [
    "AdaptedBiasSet",
    "BiasSet",
    "Checkpoint",
    "TensorInfo",
    "base_digest",
    "base_reference",
    "check_model_files",
    "load_config",
    "model_reference",
    "open_checkpoint",
    "other_base",
    "recognise_checkpoint",
    "widened",
    "widened_by",
]
