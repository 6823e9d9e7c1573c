"""The card of a merged model of which nothing is known but its base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from beftkit.edges import markdown

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)


def hub_id(reference: str) -> str | None:
    """The reference if it is one of the hub's; None for a folder here."""
    return None if Path(reference).exists() or not _HUB_ID.fullmatch(reference) else reference


def card_head(
    base: str | None,
    pipeline_tag: str | None,
    tag: str,
    *,
    library: str | None = "transformers",
    adapter: bool = False,
) -> list[str]:
    """The lines that the hub reads.

    Args:
        base: the base's name on the hub.
        pipeline_tag: the hub's word for the task.
        tag: what trained.
        library: that loads it.
        adapter: whether it is one, and no model merged with one.
    """
    lines = ["---", *([f"base_model: {base}"] if base else [])]
    lines += ["base_model_relation: adapter"] if base and adapter else []
    lines += [f"library_name: {library}"] if library else []
    if pipeline_tag:
        lines.append(f"pipeline_tag: {pipeline_tag}")
    tags = ["beft", "beftkit", tag] if adapter else ["beftkit", tag]
    return [*lines, f"tags: [{', '.join(tags)}]", "---", ""]


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


def without_paths(text: str, given: Iterable[str | None]) -> str:
    """A note without the folders of what was given, and of who lives here."""
    for value in filter(None, given):
        path = Path(value)
        if path.is_absolute() or path.exists():
            for form in (str(path.resolve()), str(path)):
                text = text.replace(form, path.name or ".")
    return text.replace(str(Path.home()), "~") if len(Path.home().parts) > 1 else text
