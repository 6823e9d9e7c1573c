"""What a model is put into while it is measured, and taken out of afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from beftkit.errors import BeftError


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and nothing trainable; modes and flags come back."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    config: Any = getattr(model, "config", None)
    cache = getattr(config, "use_cache", None)
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        if cache is not None:
            config.use_cache = False  # keys and values of no use
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        if cache is not None:
            config.use_cache = cache


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Run each layer again in the backward pass; transformers' own way works in training alone."""
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    if not layers:
        raise BeftError(f"{type(model).__name__} has no layers that gradient checkpointing knows")
    # A device map puts a forward of its own into the instance.
    formers = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        layer.forward = again
    try:
        yield
    finally:
        for layer, former in zip(layers, formers, strict=True):
            if former is None:
                del layer.forward
            else:
                layer.forward = former
