"""Tables and documents as text: for a terminal, JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any


def json_text(document: Any) -> str:
    """JSON at full precision; null, never NaN."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def rich_table(head: Sequence[str], body: Sequence[Sequence[str]], bold: Sequence[bool]) -> Any:
    """A table for a terminal; bold rows stand out."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    left = {
        "post", "role", "per layer", "", "dtype", "inert", "tower", "attention", "parameter",
        "kind", "roles", "part", "metric", "seed", "bias", "cell",
    }  # fmt: skip
    for heading in head:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    for cells, strong in zip(body, bold, strict=True):
        table.add_row(*cells, style="bold" if strong else None)
    return table


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    rows = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """CSV with the first row's keys as heading."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()
