"""Where the base of an adapter is, by the adapter's own word."""

from __future__ import annotations

from pathlib import Path

from beftkit.adapters import base_elsewhere
from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.errors import BeftError


def base_reference(adapter: Checkpoint) -> str:
    """The model that an adapter was trained on, as `open_checkpoint` takes it.

    What is to be said of that place is added to the adapter's notes.

    Raises:
        BeftError: it names none, or leads to a place where no model is.
    """
    name = (adapter.adapter or {}).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise BeftError(f"{adapter.reference}: does not name its base model; give it as PRE")
    for note in base_elsewhere(adapter.reference, name, "give the base as PRE"):
        if note not in adapter.notes:
            adapter.notes.append(note)
    if "/" not in name and not Path(name).exists():  # bert-base-uncased, without an owner
        name = f"hf://{name}"
    revision = (adapter.adapter or {}).get("revision")
    if isinstance(revision, str) and revision and not Path(name).exists():
        name = f"{name}@{revision}"
    return name
