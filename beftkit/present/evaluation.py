"""An evaluation to a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beftkit.present.document import Block, Document, Lines, Only, Table, numbers, texts
from beftkit.present.words import fixed

if TYPE_CHECKING:
    from beftkit.runs import EvaluationResult


def evaluation_document(found: EvaluationResult) -> Document:
    """Metrics and loss of a model, or an adapter over its base."""
    one = found.evaluation
    over = f" with {found.adapter}" if found.adapter else ""
    body = [[name, fixed(value)] for name, value in {**one.metrics, "loss": one.loss}.items()]
    where = "examples were cut to the maximal length"
    cut = [f"{split}: {count} {where}" for split, count in found.truncated.items() if count]
    row = {"model": found.model, "adapter": found.adapter, "task": found.task, **one.metrics}
    blocks: list[Block] = [
        Lines([f"{found.model}{over}", f"{found.task}, {one.examples} examples"]),
        Table([*texts("metric", folds=True), *numbers("value")], body),
        Only("table", Lines([*cut, *found.notes])),
    ]
    rows = [{**row, "loss": one.loss, "examples": one.examples}]
    return Document(found.to_dict(), rows, blocks, found.notes)
