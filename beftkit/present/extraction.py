"""An extraction to a document: what the adapter holds, and what else differs. No arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.words import noted, number

if TYPE_CHECKING:
    from beftkit.runs import ExtractResult


def extract_document(found: ExtractResult) -> Document:
    """Roles in the adapter; with ``deep`` the tensors beside it that moved most."""
    beside = found.beside
    head = f", with {', '.join(found.head)}" if found.head else ""
    added = f", {found.added} of them added" if found.added else ""
    lines = [
        f"PRE   {found.pre}",
        f"POST  {found.post}",
        f"{found.output}: {found.vectors} biases{added}, {found.scalars:,} scalars{head}, format "
        f"{found.adapter_format}",
    ]
    body: list[list[str | None]] = [
        ["adapter", role, number(length)] for role, length in found.norms.items()
    ]
    rows: list[dict[str, Any]] = [
        {"where": "adapter", "name": role, "norm": length, "vectors": None, "relative": None}
        for role, length in found.norms.items()
    ]
    table = Table([*texts("in", "role"), *numbers("‖change‖")], body)
    rows += [
        {"where": "beside", "name": name, "norm": None, "vectors": count, "relative": None}
        for name, count in beside.biases.items()
    ]
    rows += [
        {"where": "beside", "name": name, "norm": None, "vectors": None, "relative": share}
        for name, share in beside.largest
    ]
    blocks: list[Block] = [Lines(lines, bullets=True), table]
    if beside.largest:
        columns = [*texts("moved most beside it", folds=True), *numbers("‖change‖ / ‖pre‖")]
        moved: list[list[str | None]] = [[name, number(one)] for name, one in beside.largest]
        blocks.append(Table(columns, moved))
    blocks.append(Lines(noted(found.notes), bullets=True))
    return Document(found.to_dict(), rows, blocks, found.notes)
