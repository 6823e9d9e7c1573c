"""Adapters from where they lie, and what they say of themselves; no torch is needed for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from beftkit.adapters import BIASES_NAME, AdapterInfo, Step
from beftkit.checkpoints import Checkpoint, open_checkpoint
from beftkit.errors import BeftError
from beftkit.scores.statistics import PRECISION, decode
from beftkit.weights.values import Array


def adapter_info(reference: str | Path, *, download: bool = False) -> AdapterInfo:
    """Read what an adapter says of itself: its base, task type, labels, metadata.

    Args:
        reference: a folder, or ``owner/name[@revision]`` on the hub.
        download: fetch whole files from the hub into its cache.

    Raises:
        BeftError: there is no adapter, or one of a kind that beftkit does not apply.
    """
    return open_adapter(reference, download=download)[1]


def open_adapter(
    reference: str | Path, *, download: bool = False
) -> tuple[Checkpoint, AdapterInfo]:
    """An adapter's files and what they say.

    Raises:
        BeftError: there is no adapter, or one of a kind that beftkit does not apply.
    """
    checkpoint = open_checkpoint(reference, download=download)
    return checkpoint, info_of(checkpoint, reference)


def info_of(checkpoint: Checkpoint, reference: str | Path | None = None) -> AdapterInfo:
    """What an opened adapter says of itself.

    Args:
        checkpoint: its files.
        reference: how it was given, for messages; None: as it is opened.

    Raises:
        BeftError: there is no adapter, or one of a kind that beftkit does not apply.
    """
    if checkpoint.adapter is None:
        raise BeftError(
            f"{reference or checkpoint.reference}: not an adapter; expected adapter_config.json "
            f"with its weights, {BIASES_NAME} as beftkit train writes it, or a run's folder"
        )
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    about = checkpoint.reference, checkpoint.adapter, shapes, checkpoint.metadata
    return AdapterInfo.read(*about)


def check_stored(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Refuse an adapter whose file lacks one of these tensors, or has it in no dtype of floats.

    Raises:
        BeftError: it names the tensor.
    """
    for name in names:
        if name not in checkpoint.tensors:
            raise BeftError(f"{checkpoint.reference}: {name} is missing; is the adapter damaged?")
        if (dtype := checkpoint.tensors[name].dtype) not in PRECISION:
            raise BeftError(
                f"{checkpoint.reference}: {name} is stored as {dtype}; expected one of "
                f"{', '.join(PRECISION)}"
            )


def read_values(checkpoint: Checkpoint, steps: Iterable[Step]) -> dict[str, Array]:
    """All tensors of an adapter's steps, float64.

    Raises:
        BeftError: one is missing, in no dtype of floats, or not finite.
    """
    names = list(dict.fromkeys(tensor for step in steps for tensor in step.tensors))
    check_stored(checkpoint, names)
    found = {}
    for name, raw in checkpoint.read(names).items():
        info = checkpoint.tensors[name]
        found[name] = decode(raw, info.dtype).reshape(info.shape)
        if not np.isfinite(found[name]).all():
            raise BeftError(f"{checkpoint.reference}: {name} holds NaN or infinity")
    return found
