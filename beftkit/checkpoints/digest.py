"""What tells one base from another, in a few characters."""

from __future__ import annotations

import hashlib
from pathlib import Path

from beftkit.checkpoints.checkpoint import Checkpoint, open_checkpoint
from beftkit.checkpoints.reach import cached_commit
from beftkit.errors import BeftError


def vectors_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 of a checkpoint's vectors as they are stored, and of the shapes of all the rest.

    Vectors are biases and the weights of norms: they are few, and fine-tuning of any kind moves
    them. Names that differ give another digest, and so does another dtype.
    """
    tensors = dict(sorted(checkpoint.tensors.items()))
    vectors = [name for name, info in tensors.items() if len(info.shape) == 1]
    raw = checkpoint.read(vectors)
    found = hashlib.sha256()
    for name, info in tensors.items():
        found.update(f"{name} {info.dtype} {list(info.shape)}\n".encode())
        found.update(raw.get(name, b""))
    return found.hexdigest()


def base_digest(reference: str, revision: str | None) -> str | None:
    """`vectors_digest` of a model's folder or of ``owner/name``; None where we cannot read it."""
    try:
        if Path(reference).exists():
            return vectors_digest(open_checkpoint(reference))
        at = cached_commit(reference, revision) or revision
        return vectors_digest(open_checkpoint(f"hf://{reference}" + (f"@{at}" if at else "")))
    except (BeftError, OSError, MemoryError):  # a form that transformers alone reads
        return None
