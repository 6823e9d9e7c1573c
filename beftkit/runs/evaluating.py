"""`beftkit.evaluate`: metrics of a model, or of an adapter over its base, on a task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.accelerator import make_accelerator, out_of_memory
from beftkit.errors import BeftError, UsageError
from beftkit.models import load_classifier
from beftkit.objectives.kinds import objective_for
from beftkit.registry import TASKS
from beftkit.tasks import Data, encode, load_files, load_task
from beftkit.training.evaluation import Evaluation, evaluate_model, load_metrics
from beftkit.weights import AdapterInfo, adapter_info, apply_adapter


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
    """

    model: str
    adapter: str | None
    task: str
    evaluation: Evaluation
    truncated: Mapping[str, int]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "model": self.model, "adapter": self.adapter, "task": self.task,
            **self.evaluation.to_dict(), "truncated": dict(self.truncated),
            "notes": list(self.notes),
        }  # fmt: skip


def evaluate(
    model: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    task: str | None = None,
    data_dir: str | None = None,
    data_revision: str | None = None,
    validation_file: str | Path | None = None,
    text_columns: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    metric: Sequence[str] = (),
    trust_remote_code: bool = False,
    batch_size: int = 64,
    max_length: int | None = None,
    precision: str = "fp32",
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    tokenizer: str | None = None,
) -> EvaluationResult:
    """Evaluate a fine-tuned model, or an adapter over its base, on a validation split.

    Args:
        model: a model folder, ``owner/name``, or an adapter, whose base is then taken.
        adapter: folder or ``owner/name``; names its base where ``model`` is left out.
        task: of the registry; an adapter of ours knows its own.
        data_dir, data_revision, validation_file, text_columns, label_column: as in training.
        revision: the model's, on the hub.
        metric: instead of the task's.
        trust_remote_code: let a metric come from the hub.
        batch_size: examples a forward pass.
        max_length: tokens a row is cut to; by default what the adapter was trained with, or the
            task's.
        precision, dtype, device, device_map, tokenizer: as in training.

    Raises:
        BeftError: no trained head, labels that do not fit, and whatever loading can meet.
    """
    info = None if adapter is None else adapter_info(adapter)
    if model is None:
        if info is None:
            raise UsageError("neither a model nor an adapter was given; expected one of them")
        if info.base is None:
            raise BeftError(f"{adapter}: does not name its base; give the model as well")
        model, revision = info.base, revision or info.revision
    said = _Said.of(info)
    data = _data(task, data_dir, data_revision, validation_file, text_columns, label_column, said)
    chosen = tuple(metric) or said.metrics or data.metrics
    metrics = load_metrics(chosen, trust_remote_code)
    accelerator = make_accelerator(device, precision)
    loaded = load_classifier(
        str(model), data.labels, revision=revision, tokenizer=tokenizer, dtype=dtype,
        device_map=device_map, new_head=info is not None,
    )  # fmt: skip
    notes: tuple[str, ...] = tuple(data.notes)
    held: set[str] = set()
    if adapter is not None:
        applied = apply_adapter(loaded.model, adapter)
        held, notes = set(applied.parameters), (*notes, *applied.notes)
    lacking = sorted(set(loaded.fresh) - held)
    if lacking:
        raise BeftError(
            f"{model}: holds no trained {lacking[0]}, so its answers would be drawn by lot; "
            "evaluate a fine-tuned model, or give its --adapter"
        )
    length = loaded.fit_length(max_length or said.max_length or _length(task))
    splits = {name: encode(split, loaded.tokenizer, max_length=length)
              for name, split in data.validation.items()}  # fmt: skip
    with out_of_memory(
        f"with batch_size {batch_size}, max_length {length}; lower --batch-size or --max-length, "
        "or use --precision bf16 or --dtype bfloat16"
    ):
        if device_map is None:
            loaded.model.to(accelerator.device)
        found = evaluate_model(
            loaded.model, splits, objective_for(data.labels), metrics, accelerator, batch_size
        )
    return EvaluationResult(
        str(model), None if adapter is None else str(adapter), data.name, found,
        {name: split.truncated for name, split in splits.items()}, notes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Said:
    """What an adapter of ours says of the run that made it."""

    task: str | None = None
    labels: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()
    max_length: int | None = None
    text_columns: str | None = None
    label_column: str | None = None

    @classmethod
    def of(cls, info: AdapterInfo | None) -> _Said:
        said = {} if info is None else info.metadata

        def read(key: str) -> Any:
            try:
                return json.loads(said.get(f"beftkit.{key}") or "null")
            except ValueError:
                return None

        labels, metrics, length = read("labels"), read("metrics"), read("max_length")
        return cls(
            said.get("beftkit.task") or None,
            tuple(map(str, labels)) if isinstance(labels, list) else None,
            tuple(map(str, metrics)) if isinstance(metrics, list) else (),
            length if isinstance(length, int) else None,
            said.get("beftkit.text_columns") or None,
            said.get("beftkit.label_column") or None,
        )


def _data(
    task: str | None,
    data_dir: str | None,
    data_revision: str | None,
    file: str | Path | None,
    text_columns: str | None,
    label_column: str | None,
    said: _Said,
) -> Data:
    if file is not None:
        columns = text_columns or said.text_columns
        return load_files(
            None, file, label_column=label_column or said.label_column, labels=said.labels,
            text_columns=[name.strip() for name in columns.split(",")] if columns else None,
        )  # fmt: skip
    task = task or said.task
    if task is None:
        raise UsageError("neither a task nor a validation file was given; expected one of them")
    if task not in TASKS:
        raise BeftError(f"task {task!r}: expected one of {', '.join(TASKS)}")
    return load_task(task, data_dir=data_dir, revision=data_revision, train=False)


def _length(task: str | None) -> int:
    return TASKS[task].max_length if task in TASKS else 128
