"""Predictions, and an exported model, to documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beftkit.present.document import Block, Document, Lines, Only, Table, numbers, texts

if TYPE_CHECKING:
    from beftkit.runs import ExportResult, PredictionResult

#: letters of a text that a table shows
_LETTERS = 60


def predictions_document(found: PredictionResult) -> Document:
    """Texts and their answers."""
    over = f" with {found.adapter}" if found.adapter else ""
    columns = [*texts(*found.fields, folds=True), *(_column(found, name) for name in found.columns)]
    body = [
        [*(_short(row.get(name)) for name in found.fields), *map(_cell, _ours(found, row))]
        for row in found.rows
    ]
    blocks: list[Block] = [
        Lines(
            [
                f"{found.model}{over}",
                f"{found.source}, {found.examples} row{'s' * (found.examples != 1)}",
            ],
            bullets=True,
        ),
        Table(columns, body),
        Only("table", Lines(found.notes)),
    ]
    return Document(found.to_dict(), list(found.rows), blocks, found.notes)


def export_document(found: ExportResult) -> Document:
    """What was written where, from what."""
    labels = ", ".join(found.labels) or "values"
    size = f"{found.parameters:,} parameters, {found.dtype}"
    blocks: list[Block] = [
        Lines([f"{found.output}: {found.model} with {found.adapter}", f"{size}; {labels}"], True),
        Only("table", Lines(found.notes)),
    ]
    row = {name: one for name, one in vars(found).items() if not isinstance(one, tuple)}
    return Document(found.to_dict(), [row], blocks, found.notes)


def _ours(found: PredictionResult, row: dict[str, Any]) -> list[Any]:
    return [row.get(name) for name in found.columns]


def _column(found: PredictionResult, name: str) -> Any:
    is_text = any(isinstance(row.get(name), str) for row in found.rows)
    each = name.removeprefix("predicted_").startswith("probability_")
    return (texts if is_text else numbers)(name, spare=int(each))[0]


def _cell(value: Any) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{label} {one:.4f}" for label, one in value.items())
    return f"{value:.4f}" if isinstance(value, float) else value


def _short(value: Any) -> str | None:
    text = " ".join(value.split()) if isinstance(value, str) else value
    return f"{text[: _LETTERS - 3]}..." if text and len(text) > _LETTERS else text
