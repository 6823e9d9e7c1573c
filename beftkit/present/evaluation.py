"""An evaluation to a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beftkit.present.document import Block, Document, Lines, Only, Table, numbers, texts
from beftkit.present.words import fixed
from beftkit.tasks.deviations import zero_error_note

if TYPE_CHECKING:
    from beftkit.runs import EvaluationResult


def evaluation_document(found: EvaluationResult) -> Document:
    """Metrics and loss of a model, or an adapter over its base."""
    one = found.evaluation
    over = f" with {found.adapter}" if found.adapter else ""
    known = any(value is not None for value in one.baselines.values())
    named = [one.baseline_is] if known else []
    body = []
    for name, value in {**one.metrics, "loss": one.loss}.items():
        error = one.standard_errors.get(name)
        cells = [name, fixed(value), None if error is None else f"{error:.4f}"]
        cells += [fixed(one.baselines.get(name)) for _ in named]
        body.append(cells)
    notes = (*found.notes, *zero_error_note(one.standard_errors.values()))
    where = "examples were cut to the maximal length"
    cut = [f"{split}: {count} {where}" for split, count in found.truncated.items() if count]
    row = {"model": found.model, "adapter": found.adapter, "task": found.task, **one.metrics}
    spare = [*numbers("standard error", spare=1), *numbers(*named, spare=2)]
    count = found.in_context.shots if found.in_context else 0
    shots = f", {count} shot{'s' * (count > 1)}" if count else ""
    examples = f"{one.examples} example{'s' * (one.examples != 1)}"
    blocks: list[Block] = [
        Lines([f"{found.model}{over}", f"{found.task}, {examples}{shots}"]),
        Table([*texts("metric", folds=True), *numbers("value"), *spare], body),
        Only("table", Lines([*cut, *notes])),
    ]
    if found.in_context:
        row["shots"] = found.in_context.shots
    row |= {f"{name}_standard_error": value for name, value in one.standard_errors.items()}
    row |= {f"{name}_baseline": value for name, value in one.baselines.items()}
    rows = [{**row, "loss": one.loss, "examples": one.examples}]
    return Document(found.to_dict(), rows, blocks, notes)
