"""`beftkit.evaluate`: metrics of a model, or of an adapter over its base, on a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.accelerator import out_of_memory
from beftkit.adapters import base_elsewhere
from beftkit.errors import BeftError, UsageError
from beftkit.runs.inputs import validation_digest
from beftkit.runs.loading import class_notes, load_data
from beftkit.runs.prepare import prepare
from beftkit.runs.repeating import repeated
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.resolve import resolve
from beftkit.training.evaluation import Evaluation, evaluate_model, load_metrics
from beftkit.weights import adapter_info, apply_adapter

#: where nothing that was given tells why
OTHERS = (
    "these are not the examples of the run's own evaluation: texts, labels, their order or the "
    "tokens differ"
)


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
            out is as in the run's own evaluation, where an adapter of ours or the ``run.yaml`` of
            the folder that it lies in says so; notes say what differs from that.

    Raises:
        BeftError: no trained head, labels that do not fit, and whatever loading can meet.
    """
    given = {**settings, "model": model, "adapter": adapter}
    return evaluate_with(resolve(EvaluateSettings, None, given))


def evaluate_with(settings: EvaluateSettings) -> EvaluationResult:
    """`evaluate` (see there) under settings that are resolved."""
    s = settings
    info = None if s.adapter is None else adapter_info(s.adapter)
    if not s.model and info is None:
        raise UsageError("neither a model nor an adapter was given; expected one of them")
    again = repeated(s, info)
    s, said = again.settings, again.said
    led: list[str] = []  # what to say of where the adapter led us
    if not s.model and info is not None:
        if info.base is None:
            raise BeftError(f"{s.adapter}: does not name its base; give the model as well")
        led = base_elsewhere(str(s.adapter), info.base)
        found_base = {"model": info.base, "revision": s.revision or info.revision}
        s = s.model_copy(update=found_base)
    brought = None if info is None else info.head_labels
    labels = brought if said.labels is None else said.labels
    data = load_data(s, train=False, labels=labels)
    metrics = load_metrics(s.metric or data.metrics, s.trust_remote_code)
    ready = prepare(s, 0, data=data)
    notes, held = (*led, *again.notes, *data.notes, *class_notes(data)), set[str]()
    if said.examples and not again.other_examples and said.examples != validation_digest(ready):
        notes = (*notes, OTHERS)
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
        "--max-length, or use --precision bf16 or --dtype bfloat16"
    ):
        ready.place()
        found = evaluate_model(
            ready.model, splits, ready.objective, metrics, ready.accelerator, s.batch_size
        )
    cut = {name: split.truncated for name, split in splits.items()}
    return EvaluationResult(s.model, s.adapter, data.name, found, cut, notes, data.counts)
