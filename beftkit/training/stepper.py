"""One update: forward, backward, clipping, optimiser.

The trainer asks a stepper for updates and knows nothing of how they are made: one that replays a
captured update, or stacks variants, takes this one's place without touching log, evaluation, state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from beftkit.accelerator import sum_over_processes
from beftkit.training import state
from beftkit.training.job import Job

if TYPE_CHECKING:
    from torch import Tensor

    from beftkit_kernels import Track


class Update(NamedTuple):
    """What an update tells of itself, still on the device.

    Attributes:
        loss: this process's share of the mean loss, a scalar; None: it is in the meter already.
        tells: not finite where the update went bad: the gradient's norm, or the loss in float16.
        examples: how many there were, of all processes.
    """

    loss: Tensor | None
    tells: Tensor | None
    examples: int


class Stepper(Protocol):
    """Makes updates."""

    @property
    def values(self) -> list[Tensor]:
        """What the optimiser moves; none: nothing trains."""
        ...

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        ...

    @property
    def mode(self) -> str:
        """How updates are made: ``eager`` or ``captured``; a run goes on in the same."""
        ...

    def planned(self, batches: Sequence[Tensor], begin: int) -> None:
        """Told of an epoch's batches, in order, before the first of them is stepped on.

        ``begin``: how many of them went before.
        """
        ...

    def step(self, window: Sequence[Tensor]) -> Update | None:
        """One update on the mean loss over a few batches; None: nothing trains."""
        ...

    def scored(self, track: Track) -> Tensor:
        """The scores as they are now, [K]; written over by the next ones."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain facts from which `restore` goes on bit by bit."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        ...


def schedule(job: Job, optimizer: Any, steps: int) -> Any:
    """The course of the learning rate over so many updates."""
    from torch.optim.lr_scheduler import LambdaLR

    s = job.settings
    warmup = math.ceil(s.warmup if s.warmup >= 1 else s.warmup * steps)
    end = steps if s.schedule == "linear" else None
    return LambdaLR(optimizer, partial(share_of_rate, warmup=warmup, end=end))


def share_of_rate(update: int, *, warmup: int, end: int | None) -> float:
    """What of the learning rate there is at an update: as transformers' `get_scheduler` has it.

    Written out here since its module imports all of PEFT, where that is installed.

    Args:
        update: from 0.
        warmup: updates until all of it is there.
        end: the update at which it has fallen to 0; None: it stays.
    """
    if update < warmup:
        return update / max(1, warmup)
    return 1.0 if end is None else max(0.0, (end - update) / max(1, end - warmup))


class EagerStepper:
    """Runs every operation as it comes.

    Args:
        job: what trains on what.
        steps: updates of the whole run, for the schedule.
    """

    mode = "eager"

    def __init__(self, job: Job, steps: int) -> None:
        import torch

        self.job, s = job, job.settings
        self.values: list[Tensor] = job.tuner.values
        self.optimizer: Any = None
        self.scheduler: Any = None
        if self.values:
            adam = torch.optim.AdamW(
                self.values,
                lr=s.lr or 0.0,
                betas=(s.beta1, s.beta2),
                eps=s.eps,
                weight_decay=s.weight_decay,
                fused=job.accelerator.device.type in ("cpu", "cuda"),
            )
            # Not prepared: Accelerate would step it once for every process.
            self.scheduler = schedule(job, adam, steps)
            self.optimizer = job.accelerator.prepare(adam)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.scheduler.get_last_lr()[0]) if self.scheduler else 0.0

    def planned(self, batches: Sequence[Tensor], begin: int) -> None:
        """Nothing: each batch comes with its update."""

    def step(self, window: Sequence[Tensor]) -> Update | None:
        """One update on the mean loss over all examples of a few batches."""
        import torch

        if not self.values:
            return None
        job, accelerator = self.job, self.job.accelerator
        examples = sum(len(batch) for batch in window)
        units = job.objective.units(job.train, torch.cat([*window]))
        total = torch.zeros((), device=accelerator.device)
        for batch in window:
            mine = batch[accelerator.process_index :: accelerator.num_processes]
            if len(mine) == 0:
                continue
            rows = job.train.batch(mine, device=accelerator.device)
            with accelerator.autocast():
                losses, _ = job.objective.losses(job.model, rows)
            # A share of the mean: the sum over batches and processes is the mean itself.
            loss = losses.sum() / units
            accelerator.backward(loss)
            total = total + loss.detach()
        for value in self.values:
            if value.grad is None:  # this process had no row of these batches
                value.grad = torch.zeros_like(value)
        sum_over_processes(accelerator, [value.grad for value in self.values])
        norm = accelerator.clip_grad_norm_(self.values, job.settings.max_grad_norm or math.inf)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        job.tuner.write_back()
        # fp16: an infinite gradient is how the scaler finds its scale, so the loss has to tell.
        return Update(total, total if job.settings.precision == "fp16" else norm, examples)

    def scored(self, track: Track) -> Tensor:
        """As `Track.step`."""
        return track.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Moments, and the course of the schedule."""
        if not self.values:
            return {}, {}
        moments, course = state.optimizer_state(self.optimizer, self.scheduler, self.values)
        return moments, {"course": course}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        if self.values:
            state.restore_optimizer(
                self.optimizer, self.scheduler, self.values, tensors, facts["course"]
            )
