"""Values as text for other programs: JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from beftkit.edges import csv_cell


def json_text(values: Any) -> str:
    """JSON at full precision; null, never NaN."""
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """CSV with the first row's keys as heading; no spreadsheet takes a name for a formula."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: csv_cell(one) for key, one in row.items()} for row in rows)
    return buffer.getvalue()
