"""Checkpoints: names, shapes and, lazily, bytes."""

from beftkit.checkpoints.bias_set import AdaptedBiasSet, BiasSet, recognise_checkpoint
from beftkit.checkpoints.checkpoint import Checkpoint, load_config, open_checkpoint
from beftkit.checkpoints.header import TensorInfo

__all__ = [
    "AdaptedBiasSet",
    "BiasSet",
    "Checkpoint",
    "TensorInfo",
    "load_config",
    "open_checkpoint",
    "recognise_checkpoint",
]
