"""An average of adapters to a document: what went in, how long each is, what came out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from beftkit.present.document import Block, Document, Lines, Table, numbers, texts
from beftkit.present.words import noted, number

if TYPE_CHECKING:
    from beftkit.runs import AverageResult


def average_document(found: AverageResult) -> Document:
    """A row an adapter, and the result below them."""
    lengths = [*(one.norms for one in found.adapters), found.norms]
    roles = list(dict.fromkeys(role for one in lengths for role in one))
    columns = [*texts("adapter", folds=True), *numbers("weight", "‖change‖")]
    columns += numbers(*(f"‖{role}‖" for role in roles), spare=1)
    body: list[list[str | None]] = [
        [one.reference, number(one.weight), number(one.norm), *_lengths(one.norms, roles)]
        for one in found.adapters
    ]
    body.append(["result", None, number(found.norm), *_lengths(found.norms, roles)])
    strong = [False] * len(found.adapters) + [True]
    rows = [_row(one.reference, one.weight, one.norm, one.norms) for one in found.adapters]
    rows.append(_row("result", None, found.norm, found.norms))
    head = f"with the head of {found.head}" if found.head else "without a head"
    what = f"{found.vectors} biases, {found.scalars:,} scalars"
    lines = [
        f"{found.output}: {what}, {head}, format {found.adapter_format}",
        f"base: {found.base}",
        *([f"the sum is multiplied by {found.scale:g}"] if found.scale != 1 else []),
    ]
    blocks: list[Block] = [Lines(lines, bullets=True), Table(columns, body, strong)]
    blocks.append(Lines(noted(found.notes), bullets=True))
    return Document(found.to_dict(), rows, blocks, found.notes)


def _lengths(norms: Mapping[str, float], roles: list[str]) -> list[str]:
    return [number(norms.get(role)) for role in roles]


def _row(
    name: str, weight: float | None, norm: float, norms: Mapping[str, float]
) -> dict[str, Any]:
    return {"adapter": name, "weight": weight, "norm": norm} | {
        f"norm_{role}": length for role, length in norms.items()
    }
