"""What a run will be before it begins: data, resolved settings, matched sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beftkit.errors import BeftError
from beftkit.models import load_skeleton
from beftkit.registry import REGIMES, TASKS
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Data, Split, load_files, load_task, subsample
from beftkit.tuning import Choice, choose

#: for files of the user's own: SST-2's settings
OWN_LR, OWN_EPOCHS, OWN_LENGTH = 4e-4, 16, 128
#: full fine-tuning (paper section 3.1)
FULL_LR = 1e-5
#: of the draw of ``validation_size``, so that all seeds are evaluated on the same examples
VALIDATION_SEED = 0


@dataclass(frozen=True)
class RunPlan:
    """What ``--dry-run`` shows.

    Attributes:
        settings: with everything filled in.
        choice: parameters that train, and the sites among them.
        labels: of the task; empty for regression; None where the data would tell.
    """

    settings: TrainSettings
    choice: Choice
    labels: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        choice = self.choice
        return {
            "settings": self.settings.model_dump(mode="json"),
            "labels": list(self.labels),
            "scalars": choice.scalars, "head_scalars": choice.head_scalars,
            "total": choice.total, "percent": choice.percent,
            "parts": [
                {"parameter": part.parameter, "kind": part.kind, "scalars": part.size,
                 "roles": [site.role for site in part.sites],
                 "slices": [str(site.cut) for site in part.sites if site.cut]}
                for part in choice.parts
            ],
            "notes": list(choice.notes),
        }  # fmt: skip


def plan_run(settings: TrainSettings) -> RunPlan:
    """Resolve settings and match sites, without weights: the model's configuration is enough.

    Raises:
        BeftError: as training would.
    """
    labels = task_labels(settings) if settings.task else load_data(settings).labels
    model = load_skeleton(settings.model, labels, revision=settings.revision)
    filled = fill_settings(settings, model.config)
    return RunPlan(filled, choose_parts(filled, model, filled.seeds[0]), tuple(labels))


def choose_parts(settings: TrainSettings, model: Any, seed: int) -> Choice:
    """What trains in this model."""
    return choose(
        model, settings.bias, layers=settings.layers, freeze_head=settings.freeze_head,
        allow_partial=settings.allow_partial, seed=seed,
    )  # fmt: skip


def task_labels(settings: TrainSettings) -> tuple[str, ...]:
    """The labels of a task of the registry.

    Raises:
        BeftError: there is no such task, or it has no such regime.
    """
    task = TASKS.get(settings.task or "")
    if task is None:
        raise BeftError(f"task {settings.task!r}: expected one of {', '.join(TASKS)}")
    if settings.regime in REGIMES and settings.regime not in task.sizes:
        raise BeftError(
            f"regime {settings.regime}: {task.name} has {', '.join(task.sizes)}; --train-size N "
            "takes any number"
        )
    return task.labels


def fill_settings(settings: TrainSettings, config: Any) -> TrainSettings:
    """Fill in what is None from the task's published settings, for this size of model."""
    task = TASKS.get(settings.task or "")
    large = _is_large(config)
    lr, epochs = task.settings(large=large) if task else (OWN_LR, OWN_EPOCHS)
    lr = FULL_LR if settings.bias == "full" else lr
    filled: dict[str, Any] = {
        "lr": lr, "epochs": epochs, "max_length": task.max_length if task else OWN_LENGTH,
    }  # fmt: skip
    if task and not settings.metric:
        filled["metric"] = task.metrics
    missing = {key: value for key, value in filled.items() if getattr(settings, key) in (None, ())}
    return settings.model_copy(update=missing)


def _is_large(config: Any) -> bool:
    """The geometry of BERT-large, and RoBERTa of any size: the published settings go with it."""
    return (getattr(config, "hidden_size", 0) or 0) >= 1024 or config.model_type == "roberta"


def load_data(settings: TrainSettings) -> Data:
    """The splits that the settings name, whole."""
    if settings.task:
        task_labels(settings)
        return load_task(settings.task, data_dir=settings.data_dir, revision=settings.data_revision)
    columns = settings.text_columns
    return load_files(
        settings.train_file, settings.validation_file, label_column=settings.label_column,
        text_columns=[name.strip() for name in columns.split(",")] if columns else None,
        labels=() if settings.regression else None,
    )  # fmt: skip


def draw_train(settings: TrainSettings, data: Data, seed: int) -> Split:
    """The training examples of a seed.

    Raises:
        BeftError: there are none, or not as many as asked for.
    """
    if data.train is None:
        raise BeftError(f"{data.name}: no training examples there; give --train-file")
    count = settings.train_size
    if settings.regime in REGIMES and settings.task:
        count = TASKS[settings.task].sizes[settings.regime]
        count = min(count, len(data.train))
    return data.train if count is None else subsample(data.train, count, seed)


def draw_validation(validation: Mapping[str, Split], count: int | None) -> dict[str, Split]:
    """The validation examples, or so many of each split."""
    return {
        name: split if count is None else subsample(split, min(count, len(split)), VALIDATION_SEED)
        for name, split in validation.items()
    }
