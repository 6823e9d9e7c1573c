"""`beftkit.evaluate`: metrics of a model, or of an adapter over its base, on a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.accelerator import out_of_memory
from beftkit.adapters import base_elsewhere
from beftkit.errors import BeftError, UsageError
from beftkit.runs.loading import class_notes, load_data
from beftkit.runs.prepare import prepare
from beftkit.runs.said import Said
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.resolve import resolve
from beftkit.training.evaluation import Evaluation, evaluate_model, load_metrics
from beftkit.weights import adapter_info, apply_adapter


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` found.

    Attributes:
        model: the base or whole model.
        adapter: put on it, or None.
        task: name of the task or file.
        evaluation: metrics, loss, examples, seconds.
        truncated: rows cut to the maximal length, by split.
        notes: what a reader should know.
        classes: split -> label -> rows; empty for values.
    """

    model: str
    adapter: str | None
    task: str
    evaluation: Evaluation
    truncated: Mapping[str, int]
    notes: tuple[str, ...]
    classes: Mapping[str, Mapping[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        which = {"model": self.model, "adapter": self.adapter, "task": self.task}
        said = {"truncated": dict(self.truncated), "notes": list(self.notes)}
        classes = {split: dict(found) for split, found in self.classes.items()}
        return which | self.evaluation.to_dict() | {"classes": classes} | said


def evaluate(
    model: str | Path | None = None, *, adapter: str | Path | None = None, **settings: Any
) -> EvaluationResult:
    """Evaluate a fine-tuned model, or an adapter over its base, on a validation split.

    Args:
        model: a model folder, ``owner/name``, or an adapter, whose base is then taken.
        adapter: folder or ``owner/name``; names its base where ``model`` is left out.
        settings: fields of `beftkit.settings.EvaluateSettings`: ``task`` or ``validation_file``,
            ``metric``, ``batch_size``, ``max_length``, ``precision``, ``device``, ... What is left
            out an adapter of ours says itself, or it is as in training.

    Raises:
        BeftError: no trained head, labels that do not fit, and whatever loading can meet.
    """
    given = {**settings, "model": model, "adapter": adapter}
    return evaluate_with(resolve(EvaluateSettings, None, given))


def evaluate_with(settings: EvaluateSettings) -> EvaluationResult:
    """`evaluate` (see there) under settings that are resolved."""
    s = settings
    info = None if s.adapter is None else adapter_info(s.adapter)
    led: list[str] = []  # what to say of where the adapter led us
    if not s.model:
        if info is None:
            raise UsageError("neither a model nor --adapter was given; expected one of them")
        if info.base is None:
            raise BeftError(f"{s.adapter}: does not name its base; give the model as well")
        led = base_elsewhere(str(s.adapter), info.base)
        found_base = {"model": info.base, "revision": s.revision or info.revision}
        s = s.model_copy(update=found_base)
    said = Said.of(info)
    s = said.fill(s)
    brought = None if info is None else info.head_labels
    labels = brought if said.labels is None else said.labels
    data = load_data(s, train=False, labels=labels)
    metrics = load_metrics(s.metric or said.metrics or data.metrics, s.trust_remote_code)
    ready = prepare(s, 0, data=data)
    said_of = () if s.metric else said.notes
    notes, held = (*led, *said_of, *data.notes, *class_notes(data)), set[str]()
    if s.adapter is not None:
        applied = apply_adapter(ready.model, s.adapter)
        held, notes = set(applied.parameters), (*notes, *applied.notes)
    lacking = sorted(set(ready.loaded.fresh) - held)
    if lacking:
        raise BeftError(
            f"{s.model}: holds no trained {lacking[0]}, so its answers would be drawn by lot; "
            "evaluate a fine-tuned model, or give its --adapter"
        )
    splits = ready.validation
    with out_of_memory(
        f"with batch_size {s.batch_size}, max_length {ready.length}; lower --batch-size or "
        "--max-length, or use --precision=bf16 or --dtype=bfloat16"
    ):
        ready.place()
        found = evaluate_model(
            ready.model, splits, ready.objective, metrics, ready.accelerator, s.batch_size
        )
    cut = {name: split.truncated for name, split in splits.items()}
    return EvaluationResult(s.model, s.adapter, data.name, found, cut, notes, data.counts)
