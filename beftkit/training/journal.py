"""What a run leaves behind as it goes: progress, sums kept on the device, lines of the log."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import sum_over_processes
from beftkit.errors import BeftError
from beftkit.training.evaluation import Evaluated
from beftkit.watching import Watcher

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

LOG = "log.jsonl"


@dataclass
class Progress:
    """Where a run is: all of it that is not a tensor.

    Attributes:
        step: updates so far.
        epoch: full passes so far.
        update: updates so far in this epoch.
        best: the best evaluation.
        last: the latest one.
        stale: evaluations since the best.
        log_bytes: length of the log.
        train_seconds: time of the updates, evaluation and saving left out.
        eval_seconds: time of evaluations.
        scores: the latest projection score of each role.
        stopped_early: evaluations stopped getting better.
        stayed: no evaluation so far was better than its baseline (`Evaluation.at_baseline`).
    """

    step: int = 0
    epoch: int = 0
    update: int = 0
    best: Evaluated | None = None
    last: Evaluated | None = None
    stale: int = 0
    log_bytes: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    scores: dict[str, float | None] = field(default_factory=dict)
    stopped_early: bool = False
    stayed: bool = False


class Meter:
    """Sums since the last line of the log, kept on the device; nothing waits for them.

    Attributes:
        sums: loss, gradient norm, and the first update that went bad (infinity: none).
        updates: how many updates were added.
        examples: how many examples they had.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        wide = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.tensor([0.0, 0.0, math.inf], dtype=wide, device=device)
        self.updates = self.examples = 0

    def add(self, loss: torch.Tensor, norm: torch.Tensor, examples: int, step: int) -> None:
        """Add one update.

        Args:
            loss: this process's share of the mean loss.
            norm: of the gradient, the same on every process.
            examples: of all processes.
            step: number of the update.
        """
        self.add_sums(loss, norm, step)
        self.count(examples)

    def add_sums(self, loss: torch.Tensor, norm: torch.Tensor, step: int | torch.Tensor) -> None:
        """What of `add` is on the device; ``step`` may be there too, so that it can be captured."""
        import torch

        self.sums[0] += loss
        self.sums[1] += norm
        bad, before = ~torch.isfinite(norm), self.sums[2]
        at = step.to(before) if isinstance(step, torch.Tensor) else float(step)
        self.sums[2] = torch.where(bad, before.clamp(max=at), before)

    def count(self, examples: int) -> None:
        """What of `add` is not."""
        self.updates += 1
        self.examples += examples

    def read(self, accelerator: Accelerator) -> tuple[float, float, float]:
        """Mean loss over all processes, mean norm, first bad update; waits for the device."""
        shares = self.sums[:1].clone()
        sum_over_processes(accelerator, [shares])
        count = max(self.updates, 1)
        return float(shares[0]) / count, float(self.sums[1]) / count, float(self.sums[2])

    def reset(self) -> None:
        """Begin anew; a bad update stays known."""
        self.sums[:2] = 0.0
        self.updates = self.examples = 0


class Journal:
    """The log of a run: ``log.jsonl``, trackers, whoever looks on.

    Args:
        folder: of the run; None: no file.
        accelerator: its main process writes; its trackers are told.
        watcher: told every line.
        progress: whose ``log_bytes`` is kept.
    """

    def __init__(
        self, folder: Path | None, accelerator: Accelerator, watcher: Watcher, progress: Progress
    ) -> None:
        self.path = folder / LOG if folder and accelerator.is_main_process else None
        self.accelerator, self.watcher, self.progress = accelerator, watcher, progress

    def cut(self) -> None:
        """Drop what was logged after the state that is taken up, or all of a run begun anew."""
        if self.path is None:
            return
        try:
            with self.path.open("ab") as file:
                # Never longer: that would fill it up with zeros.
                self.progress.log_bytes = min(self.progress.log_bytes, file.tell())
                file.truncate(self.progress.log_bytes)
        except OSError as error:
            raise BeftError(f"{self.path}: cannot be written ({error.strerror})") from None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line."""
        self.watcher.logged(record)
        values = dict(_flat(record))
        try:
            self.accelerator.log(values, step=values.pop("step"))
        except Exception as error:  # code of others may raise anything
            raise BeftError(
                f"a tracker failed ({named(error)}); --resume with --report-to=none goes on without"
            ) from error
        if self.path is None:
            return
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            with self.path.open("ab") as file:
                file.write(line)
        except OSError as error:
            raise BeftError(f"{self.path}: cannot be written ({error.strerror})") from None
        self.progress.log_bytes += len(line)


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif value is not None:
            yield f"{prefix}{key}", value


def named(error: Exception) -> str:
    """An error of somebody else's code: its kind, and the first line of what it says."""
    said = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {said}"


def all_finite(values: Sequence[torch.Tensor]) -> bool:
    """Whether all numbers of tensors on one device are finite; the device is waited for once."""
    import torch

    found = [value.isfinite().all() for value in values]
    return not found or bool(torch.stack(found).all())


def finite(value: float) -> float | None:
    """A number that JSON knows, or None."""
    return value if math.isfinite(value) else None
