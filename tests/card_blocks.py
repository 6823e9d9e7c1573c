"""The blocks of code in a model card, and what they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def block(card: str, heading: str, language: str) -> str:
    """The first block of code of a language under a heading."""
    part = card.partition(f"\n## {heading}\n")[2]
    found = re.search(rf"```{language}\n(.*?)```", part, re.DOTALL)
    assert found, card
    return found[1]


def predictor(card: str, blanks: Mapping[str, str | Path]) -> Callable[..., Any]:
    """``predict`` of the card's Python, with its words in capitals filled in."""
    code = block(card, "Use", "python")
    for word, value in blanks.items():
        code = code.replace(f'"{word}"', repr(str(value)))
    there: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), there)
    found: Callable[..., Any] = there["predict"]
    return found
