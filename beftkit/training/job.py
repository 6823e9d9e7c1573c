"""What a training run is given, all of it in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.settings.train import TrainSettings
from beftkit.watching import Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

    from beftkit.objectives import Objective
    from beftkit.tasks import Encoded
    from beftkit.tuning import Tuner


@dataclass(frozen=True)
class Job:
    """What a `Trainer` and its stepper work on.

    Attributes:
        settings: with learning rate and epochs filled in.
        seed: of dropout and of the order of the batches.
        model: on its device.
        tuner: what trains.
        train: tokenised examples.
        validation: the same by split; may be empty.
        objective: loss and predictions.
        metrics: from `beftkit.training.evaluation.load_metrics`.
        better: whether a higher first metric is better.
        accelerator: device, precision, processes.
        folder: where log, states and snapshots go; None: nowhere.
        watcher: whoever looks on.
        asked_to_stop: the number of a signal once one came, else 0.
        inputs: digests of data and base, on the main process (`beftkit.training.digests`).
    """

    settings: TrainSettings
    seed: int
    model: Any
    tuner: Tuner
    train: Encoded
    validation: Mapping[str, Encoded]
    objective: Objective
    metrics: Sequence[Any]
    better: bool
    accelerator: Accelerator
    folder: Path | None
    watcher: Watcher
    asked_to_stop: Callable[[], int] = lambda: 0
    inputs: Mapping[str, str] = field(default_factory=dict)
