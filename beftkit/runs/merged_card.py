"""The card of a merged model of which nothing is known but its base."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from beftkit.edges import markdown

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)


def hub_id(reference: str) -> str | None:
    """The reference if it is one of the hub's; None for a folder here."""
    return None if Path(reference).exists() or not _HUB_ID.fullmatch(reference) else reference


def card_head(base: str | None, pipeline_tag: str | None, tag: str) -> list[str]:
    """The lines that the hub reads."""
    lines = ["---", *([f"base_model: {base}"] if base else []), "library_name: transformers"]
    if pipeline_tag:
        lines.append(f"pipeline_tag: {pipeline_tag}")
    return [*lines, f"tags: [beftkit, {tag}]", "---", ""]


def card_name(reference: str) -> str:
    """The last part of a path: no path of this machine is in a card."""
    return Path(reference).name


def plain_card(base: str, tag: str, facts: Sequence[str]) -> str:
    """A short card of a merged model."""
    id = hub_id(base)
    name = markdown(id or card_name(base))
    lines = card_head(id, None, tag)
    lines += [f"# {name} with an adapter merged into it", ""]
    lines += ["Merged by beftkit; nothing but transformers is needed to load it.", ""]
    return "\n".join([*lines, *(f"- {markdown(fact)}" for fact in facts), ""])
