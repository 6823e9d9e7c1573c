"""Which base an adapter of ours says it belongs to, and whether another is that one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beftkit.checkpoints import base_digest
from beftkit.checkpoints.based import BASE_KEY
from beftkit.errors import BeftError


@dataclass(frozen=True)
class BaseSaid:
    """What the header says of the base.

    Attributes:
        given: the base as it was given to the run.
        digest: of its vectors, `beftkit.checkpoints.base_digest`; None: not known.
        kind: what it is, in a few words.
    """

    given: str | None = None
    digest: str | None = None
    kind: str | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> BaseSaid:
        """Read from a header; what is not as it should be counts as not said."""
        try:
            held: Any = json.loads(metadata.get(BASE_KEY) or "null")
        except (ValueError, RecursionError):
            held = None
        texts = {k: v for k, v in (held if isinstance(held, dict) else {}).items() if v}
        texts = {key: one for key, one in texts.items() if isinstance(one, str)}
        return cls(texts.get("given"), texts.get("digest"), texts.get("is"))


def compared(
    said: BaseSaid, adapter: str | None, base: str, revision: str | None, *, own: bool
) -> list[str]:
    """Whether a base is the one that was trained on, as far as its vectors tell.

    Args:
        said: what the adapter says.
        adapter: as it was given.
        base: folder, or ``owner/name``.
        revision: of it on the hub.
        own: nobody but the adapter named it.

    Returns:
        Notes.

    Raises:
        BeftError: it is not, and nobody but the adapter named it.
    """
    there = base_digest(base, revision) if said.digest else None
    if said.digest is None or there is None or there == said.digest:
        return []
    if own:
        raise BeftError(
            f"{base}: has changed since {adapter} was trained on it: its biases or shapes are "
            "others; put it back, or give the base as well, to use it all the same"
        )
    known = f" ({said.kind})" if said.kind else ""
    return [
        f"{base}: its biases, shapes or dtype are not those of the base that {adapter} was "
        f"trained on, {said.given}{known}: the answers may mean nothing"
    ]
