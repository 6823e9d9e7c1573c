"""What an adapter says of the run that made it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from beftkit.errors import BeftError
from beftkit.registry import TASKS
from beftkit.runs.merged_card import hub_id as hub_id
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.resolve import checked
from beftkit.settings.train import TrainSettings
from beftkit.tasks import OUR_METRICS

_KEY = "beftkit."
_COMMIT = re.compile(r"[0-9a-f]{40}")


def words_of_run(settings: TrainSettings) -> dict[str, str]:
    """What an adapter's header says of its run's settings: words that travel, never a path."""
    s = settings
    said: dict[str, Any] = {
        "task": s.task,
        "metrics": json.dumps(list(s.metric)),
        "bias": s.bias,
        "max_length": s.max_length,
        "text_columns": s.text_columns,
        "label_column": s.label_column,
        "answer_column": s.answer_column,
        "quotes": json.dumps(s.quotes),
        "label_map": s.label_map,
        "template": s.template,
        "choices": s.choices,
        "validation_size": s.validation_size,
        "data_revision": s.data_revision,
        "precision": s.precision,
        "dtype": s.dtype,
    }
    if s.peft:  # else biases trained, as in all that older versions wrote
        said["peft"] = s.peft
    if s.add_bias:  # the same
        said["add_bias"] = s.add_bias
    if (task := TASKS.get(s.task or "")) is not None:  # of files the data say it
        said["as"] = s.as_ or task.kind
    if s.tokenizer is None or hub_id(s.tokenizer):  # else what it was is not said
        said["tokenizer"] = s.tokenizer
    return {f"{_KEY}{name}": "" if one is None else str(one) for name, one in said.items()}


def _commit(text: str) -> str | None:
    if text and not _COMMIT.fullmatch(text):
        raise ValueError("expected a commit")
    return text or None


def _of_hub(text: str) -> str | None:
    if text and hub_id(text) is None:
        raise ValueError("expected a name of the hub")
    return text or None


def _number(text: str) -> int | None:
    return int(text) if text else None


def _kind(text: str) -> str | None:
    """The ways that may both be open; of the others no setting is."""
    return None if text in ("", "values", "generation") else text


def _text(text: str) -> str | None:
    return text or None


#: setting of an evaluation -> what reads it in the header
_READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("task", "text_columns", "label_column", "label_map", "answer_column"), _text),
    **dict.fromkeys(("template", "choices"), _text),
    **dict.fromkeys(("max_length", "validation_size"), _number),
    **dict.fromkeys(("precision", "dtype"), str),
    "as_": _kind,
    "quotes": json.loads,
    "data_revision": _commit,
    "tokenizer": _of_hub,
}


@dataclass(frozen=True)
class Said:
    """What an adapter of ours says of the run that made it: words alone, never code to run.

    Attributes:
        evaluation: the run's own; what it says nothing of is not in ``model_fields_set``.
        labels: names of its classes in id order; empty: values; None: not said.
        bias: what trained; None: it is not ours.
        peft: what trained instead of biases; None: nothing.
        add_bias: roles of the biases that were added; None: none were.
        examples: digest of the validation examples as the model read them.
        foreign: metrics that are code, and not run.
        notes: what it says and cannot mean.
    """

    evaluation: EvaluateSettings = field(default_factory=EvaluateSettings)
    labels: tuple[str, ...] | None = None
    bias: str | None = None
    peft: str | None = None
    add_bias: str | None = field(default=None, kw_only=True)
    examples: str | None = None
    foreign: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Said:
        """From the metadata in an adapter's header, which anybody may have written."""

        def listed(key: str) -> list[str] | None:
            try:
                found = json.loads(metadata.get(f"{_KEY}{key}") or "null")
            except (ValueError, RecursionError):
                return None
            return [*map(str, found)] if isinstance(found, list) else None

        found: dict[str, Any] = {}
        notes = []
        for name, read in _READ.items():
            text = metadata.get(f"{_KEY}{name.rstrip('_')}")
            if text is None:
                continue
            try:
                value = read(text)
                checked(EvaluateSettings, {name: value})
            except (ValueError, RecursionError, BeftError):
                what = "kind" if name == "as_" else name
                notes.append(f"the adapter names as {what} {text[:60]!r}, which is left out")
                continue
            found[name] = value
        labels, metrics = listed("labels"), listed("metrics") or []
        if metrics:
            found["metric"] = tuple(name for name in metrics if name in OUR_METRICS)
        return cls(
            EvaluateSettings(**found),
            None if labels is None else tuple(labels),
            metadata.get(f"{_KEY}bias") or None,
            metadata.get(f"{_KEY}peft") or None,
            metadata.get(f"{_KEY}examples") or None,
            tuple(name for name in metrics if name not in OUR_METRICS),
            tuple(notes),
            add_bias=metadata.get(f"{_KEY}add_bias") or None,
        )
