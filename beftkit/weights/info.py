"""What an adapter says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from beftkit.adapters import BIASES_NAME, FORMATS, OWN_KEYS, plain
from beftkit.checkpoints import Checkpoint, open_checkpoint
from beftkit.errors import BeftError

_HEAD = re.compile(r"(?:.*\.)?(?:classifier|score)(?:\.out_proj)?\.weight")


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter says of itself.

    Attributes:
        reference: as given.
        format: ``beft``, ``lora`` or ``biases``.
        base: the model it was trained on, as it names it; None if it does not.
        revision: the base's revision, or None.
        task_type: PEFT's ``SEQ_CLS``, ``CAUSAL_LM``, ..., or None.
        num_labels: rows of its classification head; None if it holds none.
        metadata: what was given to `beftkit.adapters.write_adapter`.
    """

    reference: str
    format: str
    base: str | None
    revision: str | None
    task_type: str | None
    num_labels: int | None
    metadata: Mapping[str, str]


def adapter_info(reference: str | Path, *, download: bool = False) -> AdapterInfo:
    """Read what an adapter says of itself: its base, task type, labels, metadata.

    Args:
        reference: a folder, or ``owner/name[@revision]`` on the hub.
        download: fetch whole files from the hub into its cache.

    Raises:
        BeftError: there is no adapter, or one of a kind that beftkit does not apply.
    """
    return info_of(open_adapter(reference, download))


def open_adapter(reference: str | Path, download: bool) -> Checkpoint:
    """Open an adapter's files; anything else is refused."""
    checkpoint = open_checkpoint(reference, download=download)
    if checkpoint.adapter is None:
        raise BeftError(
            f"{reference}: not an adapter; expected adapter_config.json with its weights, or "
            f"{BIASES_NAME} as beftkit train writes it"
        )
    return checkpoint


def info_of(checkpoint: Checkpoint) -> AdapterInfo:
    """What an opened adapter says of itself."""
    config = checkpoint.adapter or {}
    kind = str(config.get("peft_type")).lower()
    if kind not in FORMATS:
        raise BeftError(
            f"{checkpoint.reference}: an adapter of type {config.get('peft_type')}; beftkit "
            "applies BEFT and LoRA, so load this one with PEFT"
        )

    def text(key: str) -> str | None:
        return config[key] if isinstance(config.get(key), str) and config[key] else None

    rows = [
        info.shape[0]
        for name, info in checkpoint.tensors.items()
        if _HEAD.fullmatch(plain(name)) and len(info.shape) == 2
    ]
    return AdapterInfo(
        reference=checkpoint.reference,
        format=kind,
        base=text("base_model_name_or_path"),
        revision=text("revision"),
        task_type=text("task_type"),
        num_labels=rows[0] if rows else None,
        metadata={
            key: value
            for key, value in checkpoint.metadata.items()
            if key != "format" and key not in OWN_KEYS.values()
        },
    )
