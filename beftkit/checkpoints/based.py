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
    revision = (adapter.adapter or {}).get("revision")
    return model_reference(name, revision if isinstance(revision, str) else None)


def model_reference(name: str, revision: str | None) -> str:
    """A model as transformers names it, and its revision on the hub, as `open_checkpoint` takes it.

    A folder is itself; of the hub's models the first have no owner (bert-base-cased).
    """
    if Path(name).exists():
        return name
    at = name if "/" in name else f"hf://{name}"
    return f"{at}@{revision}" if revision else at
