"""What an adapter says of the run that made it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from beftkit.errors import UsageError
from beftkit.objectives import kind_said
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.tasks import METRIC_NAMES
from beftkit.weights import AdapterInfo


@dataclass(frozen=True)
class Said:
    """What an adapter of ours says of the run that made it: words alone, never code to run."""

    task: str | None = None
    as_: str | None = None
    labels: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()
    max_length: int | None = None
    text_columns: str | None = None
    label_column: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: AdapterInfo | None) -> Said:
        said = {} if info is None else info.metadata

        def read(key: str) -> Any:
            try:
                return json.loads(said.get(f"beftkit.{key}") or "null")
            except (ValueError, RecursionError):
                return None

        labels, metrics, length = read("labels"), read("metrics"), read("max_length")
        named = [*map(str, metrics)] if isinstance(metrics, list) else []
        foreign = [name for name in named if name not in METRIC_NAMES]
        return cls(
            said.get("beftkit.task") or None,
            None if info is None else kind_said(said.get("beftkit.as"), info.task_type),
            tuple(map(str, labels)) if isinstance(labels, list) else None,
            tuple(name for name in named if name in METRIC_NAMES),
            length if isinstance(length, int) else None,
            said.get("beftkit.text_columns") or None,
            said.get("beftkit.label_column") or None,
            tuple(
                f"the adapter names the metric {name!r}, which is code and not run for that; "
                "--metric takes it"
                for name in foreign
            ),
        )

    def fill(self, settings: EvaluateSettings) -> EvaluateSettings:
        """The settings, with what they leave out as the run had it.

        Raises:
            UsageError: nobody says what to evaluate on.
        """
        s = settings
        filled: dict[str, Any] = {"max_length": s.max_length or self.max_length}
        if s.validation_file is not None:
            filled["task"] = None
            filled["text_columns"] = s.text_columns or self.text_columns
            filled["label_column"] = s.label_column or self.label_column
        else:
            filled["task"] = s.task or self.task
            filled["as_"] = self.as_ or s.as_
            if s.as_ is not None and s.as_ != filled["as_"]:
                raise UsageError(
                    f"--as {s.as_}: the adapter was trained as {self.as_}; leave --as out"
                )
            if filled["task"] is None:
                raise UsageError(
                    "neither a task nor a validation file was given; expected one of them"
                )
        return s.model_copy(update=filled)
