"""A merged model to a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beftkit.present.document import Block, Document, Lines, Only
from beftkit.present.words import size

if TYPE_CHECKING:
    from beftkit.runs import MergeResult


def merge_document(found: MergeResult) -> Document:
    """What was written where, from what, and what became of the biases."""
    model = f"{found.model_type}, {found.parameters:,} parameters, {found.dtype}"
    labels = f"; {', '.join(found.labels)}" if found.labels else ""
    lines = [
        f"{found.output}: {found.base} with {found.adapter}",
        f"{model}{labels}",
        _biases(found),
    ]
    weights = [_files(found.copied, "copied"), _files(found.linked, "linked")]
    rest = ", ".join(filter(None, weights))
    lines.append(f"wrote {size(found.bytes_written)}" + (f"; {rest}" if rest else ""))
    blocks: list[Block] = [
        Lines([one for one in lines if one], bullets=True),  # in Markdown a line each
        Only("table", Lines(found.notes)),
    ]
    row = {name: one for name, one in vars(found).items() if not isinstance(one, tuple)}
    return Document(found.to_dict(), [row], blocks, found.notes)


def _biases(found: MergeResult) -> str:
    said = [f"{found.changed} biases changed"] if found.changed else []
    if found.added:
        zeros = f", {found.zeros} more are zeros" if found.zeros else ""
        said.append(f"{found.added} biases added by {', '.join(found.switches)}{zeros}")
    if found.folded:
        said.append(f"added biases folded into {found.folded} others")
    return "; ".join(said)


def _files(names: tuple[str, ...], how: str) -> str:
    return f"{len(names)} file{'s' * (len(names) != 1)} of weights {how}" if names else ""
