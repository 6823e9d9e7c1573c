"""A demo's run to a document: its scores, its selection, and what to make of them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from beftkit.present.document import Document, Lines
from beftkit.present.scores import scores_document
from beftkit.present.selection import advice_blocks, group_blocks, headline

if TYPE_CHECKING:
    from beftkit.scores import Scores
    from beftkit.selection import Selection


def demo_document(
    scores: Scores, found: Selection, folder: str, accuracy: tuple[float, ...], *examples: int
) -> Document:
    """What a demo run showed, what it did not, and what to try next.

    Args:
        scores: of the pair; JSON and rows are theirs.
        found: the pair's selection.
        folder: where everything lies.
        accuracy: before, after, and of the commoner label.
        examples: how many it was trained and evaluated on.
    """
    before, after, majority = accuracy
    trained, evaluated = examples
    place = shlex.quote(folder)
    closing = [
        f"Training only the biases on {trained} sentences took accuracy on {evaluated} unseen ones "
        f"from {before:.3f} to {after:.3f} (always the commoner label: {majority:.3f}).",
        "The language is made up and the model tiny: this shows how to read the table, not what "
        "your task would choose.",
        f"In {folder}: pre/ and post/ (ordinary Hugging Face folders), scores.json, scores.png, "
        "select.json, and the sentences",
        f"Also: beftkit score {place}/pre {place}/post --method magnitude",
        "      beftkit score your-base your-finetuned --plot biases.png",
    ]
    shown = scores_document([scores])
    chosen = [headline(found), *group_blocks(found, found.groups[0]), *advice_blocks(found)]
    return Document(shown.json, shown.rows, [*shown.blocks, *chosen, Lines(closing)])
