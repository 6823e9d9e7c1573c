"""Where the base of an adapter is, by the adapter's own word."""

from __future__ import annotations

import json
from pathlib import Path

from beftkit.adapters import base_elsewhere
from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.checkpoints.digest import vectors_digest
from beftkit.checkpoints.local import LocalFile
from beftkit.errors import BeftError

#: the entry of an adapter's header that says what its base is
BASE_KEY = "beftkit.base"


def base_reference(adapter: Checkpoint, advice: str = "give the base as PRE") -> str:
    """The model that an adapter was trained on, as `open_checkpoint` takes it.

    What is to be said of that place is added to the adapter's notes.

    Args:
        adapter: opened.
        advice: what to do where it leads nowhere.

    Raises:
        BeftError: it names none, or leads to a place where no model is.
    """
    name = (adapter.adapter or {}).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise BeftError(f"{adapter.reference}: does not name its base model; {advice}")
    for note in base_elsewhere(adapter.reference, name, advice):
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


def other_base(adapter: Checkpoint, base: Checkpoint) -> list[str]:
    """Say where a base is not the one that an adapter of ours was trained on.

    Told by the digest in the adapter's header, where the base's files lie here: of a hub's, more
    than its biases would have to be fetched.
    """
    try:
        said = json.loads(adapter.metadata.get(BASE_KEY) or "null")
    except (ValueError, RecursionError):
        return []
    wanted = said.get("digest") if isinstance(said, dict) else None
    here = bool(base.files) and all(isinstance(file, LocalFile) for file in base.files)
    if not isinstance(wanted, str) or not here or vectors_digest(base) == wanted:
        return []
    given, kind = (one if isinstance(one := said.get(key), str) else "" for key in ("given", "is"))
    named = f", {given}" + (f" ({kind})" if kind else "") if given else ""
    return [
        f"{base.reference}: its biases, shapes or dtype are not those of the base that "
        f"{adapter.reference} was trained on{named}"
    ]
