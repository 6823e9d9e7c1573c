"""The training loop: batches in, trained biases out; it may be stopped and taken up anywhere.

Everything is a function of the settings and the seed: the batches of an epoch are drawn from
(seed, epoch), so a position is two numbers. Nothing waits for the device between two lines of the
log: losses, norms and scores add up where they are made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import sum_over_processes
from beftkit.errors import BeftError
from beftkit.files import from_plain
from beftkit.settings.train import TrainSettings
from beftkit.training import state
from beftkit.training.evaluation import Evaluated, Evaluation, evaluate_model
from beftkit.training.journal import Journal, Meter, Progress, Watcher, finite

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from beftkit.objectives.kinds import Objective
    from beftkit.tasks import Encoded
    from beftkit.tuning import Tuner


#: updates between two looks for a signal, where several processes have to agree on it
STOP_EVERY = 16


class Interrupted(Exception):
    """The run was asked to stop; its state is saved.

    Attributes:
        signal: the number of the signal that asked.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass(frozen=True)
class Job:
    """What a `Trainer` is given, all of it in memory.

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


class Trainer:
    """Runs a `Job` to its end, from the start or from a saved state."""

    def __init__(self, job: Job) -> None:
        import torch
        from transformers import get_scheduler

        from beftkit_kernels import Track

        self.job, s = job, job.settings
        self.progress = Progress()
        self.meter = Meter(job.accelerator.device)
        per_epoch = math.ceil(math.ceil(len(job.train.targets) / s.batch_size) / s.accumulation)
        self.total_steps = per_epoch * (s.epochs or 0)
        if s.max_steps is not None:
            self.total_steps = min(self.total_steps, s.max_steps)
        self.steps_per_epoch = per_epoch
        self.values = job.tuner.values
        self.best_values: dict[str, torch.Tensor] = {}
        self.optimizer: Any = None
        self.scheduler: Any = None
        if self.values:
            adam = torch.optim.AdamW(
                self.values, lr=s.lr or 0.0, betas=(s.beta1, s.beta2), eps=s.eps,
                weight_decay=s.weight_decay, fused=job.accelerator.device.type in ("cpu", "cuda"),
            )  # fmt: skip
            warmup = s.warmup if s.warmup >= 1 else s.warmup * self.total_steps
            name = "constant_with_warmup" if s.schedule == "constant" else s.schedule
            # Not prepared: Accelerate would step it once for every process.
            self.scheduler = get_scheduler(name, adam, math.ceil(warmup), self.total_steps)
            self.optimizer = job.accelerator.prepare(adam)
        vectors, roles = job.tuner.vectors()
        self.track = Track(vectors, roles) if vectors else None
        self.tracked: list[tuple[int, torch.Tensor]] = []
        self.journal = Journal(job.folder, job.accelerator, job.watcher, self.progress)
        self.since = time.perf_counter()

    def run(self, title: str = "train") -> Progress:
        """Train to the end; returns where that is.

        Raises:
            Interrupted: asked to stop, after the state was saved.
            BeftError: the loss is not finite any more, or a file cannot be written.
        """
        p = self.progress
        self.job.watcher.started(title, self.total_steps, p.step)
        if self.total_steps == 0 and p.last is None:
            self.evaluate()
        self.since = time.perf_counter()
        while p.step < self.total_steps and not p.stopped_early:
            self.job.model.train()
            for window in self.updates():
                self.update(window)
                p.step, p.update = p.step + 1, p.update + 1
                self.job.watcher.advanced(1)
                self.after_update()
                if p.update == 0 or p.step == self.total_steps or p.stopped_early:
                    break
        return p

    def updates(self) -> Iterator[list[torch.Tensor]]:
        """The batches of each update that is left of this epoch."""
        from beftkit.tasks import plan

        s = self.job.settings
        batches = plan(self.job.train.lengths, s.batch_size, seed=self.job.seed,
                       epoch=self.progress.epoch, grouped=s.group_by_length)  # fmt: skip
        for begin in range(self.progress.update * s.accumulation, len(batches), s.accumulation):
            yield batches[begin : begin + s.accumulation]

    def update(self, window: Sequence[torch.Tensor]) -> None:
        """One step of the optimiser on the mean loss over all examples of a few batches."""
        import torch

        if not self.values:
            return
        job, accelerator = self.job, self.job.accelerator
        examples = sum(len(batch) for batch in window)
        total = torch.zeros((), device=accelerator.device)
        for batch in window:
            mine = batch[accelerator.process_index :: accelerator.num_processes]
            if len(mine) == 0:
                continue
            rows = job.train.batch(mine, device=accelerator.device)
            with accelerator.autocast():
                losses, _ = job.objective.losses(job.model, rows)
            # A share of the mean: the sum over batches and processes is the mean itself.
            loss = losses.sum() / examples
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
        tells = total if job.settings.precision == "fp16" else norm
        self.meter.add(total, tells, examples, self.progress.step + 1)

    def after_update(self) -> None:
        """What is due at this step: scores, log, evaluation, snapshot, state, a stop."""
        p, s = self.progress, self.job.settings
        epoch_ends = p.update == self.steps_per_epoch
        ends = epoch_ends or p.step == self.total_steps
        due = {
            "track": bool(s.track_steps) and p.step % (s.track_steps or 1) == 0,
            "log": p.step % s.log_steps == 0 if s.log_steps else ends,
            "eval": p.step % s.eval_steps == 0 if s.eval_steps else ends,
            "save": ends or (s.save_steps is not None and p.step % s.save_steps == 0),
        }
        if due["track"] and self.track is not None:
            self.tracked.append((p.step, self.track.step().clone()))
        if due["log"]:
            self.log()
        if due["eval"] or p.step == self.total_steps:
            self.evaluate()
        if ends and s.save_snapshots:
            self.snapshot()
        if epoch_ends:
            p.epoch, p.update = p.epoch + 1, 0
        signal = self.stop_signal(ends)
        if due["save"] or signal:
            self.save()
        if signal:
            raise Interrupted(signal)

    def log(self) -> None:
        """One line on the updates since the last one; here the device is waited for."""
        p, meter = self.progress, self.meter
        loss, norm = self.flush()
        now = time.perf_counter()
        seconds, self.since = now - self.since, now
        p.train_seconds += seconds
        if self.track is not None:
            p.scores = self.scores(self.track.step())
        self.journal.write(
            {
                "step": p.step, "epoch": self.epochs_done(), "loss": finite(loss),
                "lr": self.scheduler.get_last_lr()[0] if self.scheduler else 0.0,
                "grad_norm": finite(norm),
                "examples_per_second": round(meter.examples / seconds, 2) if seconds else None,
                "scores": p.scores,
            }
        )  # fmt: skip
        meter.reset()

    def scores(self, means: torch.Tensor) -> dict[str, float | None]:
        """Mean projection ratio by role."""
        roles = self.track.roles if self.track is not None else ()
        return dict(zip(roles, map(finite, means.tolist()), strict=True))

    def flush(self) -> tuple[float, float]:
        """Mean loss and norm; writes the scores that wait; refuses to go on with a bad loss."""
        loss, norm, bad = self.meter.read(self.job.accelerator)
        for step, means in self.tracked:
            self.journal.write({"step": step, "scores": self.scores(means)})
        self.tracked.clear()
        # An update beyond all measure has a finite loss and gradient before it.
        sound = all(bool(value.isfinite().all()) for value in self.values)
        if math.isfinite(bad) or not math.isfinite(loss) or not sound:
            where = int(bad) if math.isfinite(bad) else self.progress.step
            kept = "" if self.job.folder is None else (
                f"; --resume takes up the last good state in {self.job.folder / state.FOLDER}"
            )  # fmt: skip
            raise BeftError(
                f"the loss or its gradient is not finite at update {where}; try a lower --lr, or "
                f"--precision fp32{kept}"
            )
        return loss, norm

    def evaluate(self) -> None:
        """Evaluate, remember the best, and see whether it is time to stop."""
        job, p = self.job, self.progress
        if not job.validation:
            return
        self.flush()  # a spoilt model is no candidate, and the log stays in order
        now = time.perf_counter()
        p.train_seconds += now - self.since
        found = evaluate_model(
            job.model, job.validation, job.objective, job.metrics, job.accelerator,
            job.settings.eval_batch_size,
        )  # fmt: skip
        job.model.train()
        self.since = time.perf_counter()
        p.eval_seconds += self.since - now
        p.last = Evaluated(p.step, self.epochs_done(), dict(found.metrics))
        if _better(found, p.best, job.better):
            p.best, p.stale = p.last, 0
            if job.settings.keep == "best":
                self.best_values = {k: v.clone() for k, v in job.tuner.state().items()}
        else:
            p.stale += 1
        patience = job.settings.early_stopping
        p.stopped_early = patience is not None and p.stale >= patience
        self.journal.write({"step": p.step, "epoch": p.last.epoch, **found.to_dict()})

    def epochs_done(self) -> float:
        """Epochs so far, with a fraction."""
        p = self.progress
        return round(p.epoch + p.update / max(self.steps_per_epoch, 1), 4)

    def snapshot(self) -> None:
        """The biases as they are now, and the head; `beftkit score` and `fisher` read the file."""
        from beftkit.adapters import write_biases

        self.flush()
        folder = self.job.folder
        if folder is None or not self.job.accelerator.is_main_process:
            return
        where = folder / "snapshots"
        try:
            where.mkdir(exist_ok=True)
        except OSError as error:
            raise BeftError(f"{where}: cannot be made ({error.strerror})") from None
        p = self.progress
        full = p.update == self.steps_per_epoch
        name = f"epoch-{p.epoch + 1}" if full else f"step-{p.step}"
        tuner = self.job.tuner
        heads = [unit for unit in tuner.units if unit.part.kind == "head"]
        now = {unit.part.parameter: tuner.after(unit) for unit in heads} | tuner.biases()
        values = {name: tensor.numpy() for name, tensor in now.items()}
        write_biases(where / f"{name}.safetensors", values, {"step": str(p.step)})

    def stop_signal(self, ends: bool) -> int:
        """The signal that asks to stop, agreed on by all processes; asked for now and then."""
        accelerator = self.job.accelerator
        if accelerator.num_processes == 1:
            return self.job.asked_to_stop()
        if not ends and self.progress.step % STOP_EVERY:
            return 0
        mine = self.meter.sums.new_tensor([float(self.job.asked_to_stop())])
        return int(accelerator.gather(mine).max())

    def save(self) -> None:
        """Everything to go on from here, bit by bit."""
        job = self.job
        self.flush()
        if job.folder is None:
            return
        now = time.perf_counter()
        tensors = {f"value.{name}": value for name, value in job.tuner.state().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_values.items()}
        tensors |= {"meter": self.meter.sums, **state.random_states(job.accelerator)}
        facts = {
            "progress": asdict(self.progress), "metered": [self.meter.updates, self.meter.examples],
            "processes": job.accelerator.num_processes,
        }  # fmt: skip
        if self.optimizer is not None:
            moments, course = state.optimizer_state(self.optimizer, self.scheduler, self.values)
            tensors, facts = {**tensors, **moments}, {**facts, "course": course}
        if job.accelerator.is_main_process:
            state.save_state(job.folder, self.progress.step, tensors, facts)
        self.since += time.perf_counter() - now  # saving is no training

    def resume(self) -> bool:
        """Take up the newest saved state; False where there is none.

        Raises:
            BeftError: it was saved by another number of processes, or not all of them see it.
        """
        job = self.job
        found = None if job.folder is None else state.load_state(job.folder, job.watcher.note)
        step = self.meter.sums.new_tensor([found[1]["progress"]["step"] if found else -1.0])
        if len(job.accelerator.gather(step).unique()) > 1:
            raise BeftError(
                f"{job.folder}: not all processes find the same state there; expected one folder "
                "that all of them share"
            )
        if found is None:
            return False
        tensors, facts = found
        if facts["processes"] != job.accelerator.num_processes:
            raise BeftError(
                f"{job.folder}: trained by {facts['processes']} processes so far, now there are "
                f"{job.accelerator.num_processes}; dropout would differ, so resume with as many"
            )
        for key, value in vars(from_plain(Progress, facts["progress"])).items():
            setattr(self.progress, key, value)
        job.tuner.load_state(state.under("value.", tensors))
        device = job.accelerator.device
        self.best_values = {k: v.to(device) for k, v in state.under("best.", tensors).items()}
        self.meter.sums.copy_(tensors["meter"])
        self.meter.updates, self.meter.examples = facts["metered"]
        if self.optimizer is not None:
            state.restore_optimizer(
                self.optimizer, self.scheduler, self.values, tensors, facts["course"]
            )
        state.restore_random(job.accelerator, tensors)
        return True


def _better(found: Evaluation, best: Evaluated | None, higher: bool) -> bool:
    value = next(iter(found.metrics.values()))
    if best is None:
        return True
    so_far = next(iter(best.metrics.values()))
    if value is None or so_far is None:
        return so_far is None and value is not None
    return bool(value > so_far if higher else value < so_far)
