"""Adapters from where they lie, and what they say of themselves; no torch is needed for it."""

from __future__ import annotations

from pathlib import Path

from beftkit.adapters import BIASES_NAME, AdapterInfo
from beftkit.checkpoints import Checkpoint, open_checkpoint
from beftkit.errors import BeftError


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
    if checkpoint.adapter is None:
        raise BeftError(
            f"{reference}: not an adapter; expected adapter_config.json with its weights, or "
            f"{BIASES_NAME} as beftkit train writes it"
        )
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    about = checkpoint.reference, checkpoint.adapter, shapes, checkpoint.metadata
    return checkpoint, AdapterInfo.read(*about)
