"""A model folder before others load from it: what they would read wrongly, or fail on at length."""

from __future__ import annotations

from pathlib import Path

from beftkit.checkpoints.checkpoint import NOT_WEIGHTS
from beftkit.checkpoints.foreign import LOOK, foreign
from beftkit.checkpoints.pickles import PICKLES, check_archive
from beftkit.errors import BeftError


def check_model_files(folder: str | Path) -> None:
    """Refuse pointers and web pages in place of files, and archives whose tensors are compressed.

    transformers maps a ``.bin`` as torch does, so it takes compressed bytes for weights.

    Args:
        folder: a model's folder; anything else, a hub reference say, is left alone.

    Raises:
        BeftError: one file is not what its name says; it is named.
    """
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    except (OSError, ValueError):
        return
    safe = any(path.suffix == ".safetensors" for path in paths)
    for path in paths:
        pickled = path.suffix in PICKLES
        if path.suffix not in (".safetensors", ".json") and (safe or not pickled):
            continue  # beside a .safetensors no pickle is loaded
        with path.open("rb") as file:
            first = file.read(LOOK)
        # A safetensors header may have any length, so may begin with any bytes.
        if (told := foreign(first)) and not first.endswith(b"\0\0\0\0"):
            raise BeftError(f"{path}: {told}")
        if pickled and not NOT_WEIGHTS.match(path.name):
            check_archive(path)
