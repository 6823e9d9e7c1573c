"""Values as text for other programs: JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any


def json_text(values: Any) -> str:
    """JSON at full precision; null, never NaN."""
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """CSV with the first row's keys as heading."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()
