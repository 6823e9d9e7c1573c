"""The training loop: batches in, trained biases out; it may be stopped and taken up anywhere.

Everything is a function of the settings and the seed: the batches of an epoch are drawn from
(seed, epoch), so a position is two numbers. Nothing waits for the device between two lines of the
log: losses, norms and scores add up where they are made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from beftkit.accelerator import arithmetic, told_by_main
from beftkit.errors import BeftError, Diverged, Refusal, option
from beftkit.files import from_plain
from beftkit.training import state
from beftkit.training.captured import make_stepper
from beftkit.training.course import course_of, scores_backend
from beftkit.training.digests import UNKNOWN, check_same
from beftkit.training.evaluation import Evaluated, Evaluation, evaluate_model
from beftkit.training.forwards import Replays
from beftkit.training.job import Job
from beftkit.training.journal import Journal, Meter, Progress, all_finite, finite
from beftkit.training.stepper import Stepper
from beftkit.watching import Inside

if TYPE_CHECKING:
    import torch

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


class Trainer:
    """Runs a `Job` to its end, from the start or from a saved state."""

    def __init__(self, job: Job) -> None:
        from beftkit_kernels import Track

        self.job, s = job, job.settings
        self.progress = Progress()
        self.meter = Meter(job.accelerator.device)
        # A model that is as it was all the time is evaluated once.
        course = course_of(s, len(job.train), trains=bool(job.tuner.values))
        self.total_steps, self.steps_per_epoch = course.updates, course.per_epoch
        self.stepper: Stepper = make_stepper(job, course, self.meter)
        self.replays = Replays(s.graphs, course.evaluations, job.watcher.note)
        self.best_values: dict[str, torch.Tensor] = {}
        vectors, roles = job.tuner.vectors()
        backend = scores_backend(s, course)
        self.track = Track(vectors, roles, backend=backend) if vectors else None
        self.tracked: list[tuple[int, torch.Tensor]] = []
        self.inside = Inside(job.watcher)
        self.journal = Journal(job.folder, job.accelerator, job.watcher, self.progress)
        self.since = time.perf_counter()

    def run(self, title: str = "train") -> Progress:
        """Train to the end; returns where that is.

        Raises:
            Interrupted: asked to stop, after the state was saved.
            Diverged: the loss is not finite any more.
            BeftError: a file cannot be written.
        """
        with arithmetic(self.job.accelerator):
            return self._run(title)

    def _run(self, title: str) -> Progress:
        p = self.progress
        self.job.watcher.started(title, self.total_steps, p.step)
        if self.total_steps == 0 and p.last is None:
            self.evaluate()
        self.since = time.perf_counter()
        while p.step < self.total_steps and not p.stopped_early:
            self.job.model.train()
            for window in self.updates():
                made = self.stepper.step(window)
                p.step, p.update = p.step + 1, p.update + 1
                if made is not None and made.loss is not None and made.tells is not None:
                    self.meter.add(made.loss, made.tells, made.examples, p.step)
                elif made is not None:
                    self.meter.count(made.examples)
                self.job.watcher.advanced(1)
                self.after_update()
                if p.update == 0 or p.step == self.total_steps or p.stopped_early:
                    break
        return p

    def updates(self) -> Iterator[list[torch.Tensor]]:
        """The batches of each update that is left of this epoch."""
        from beftkit.tasks import plan

        s = self.job.settings
        place = {"seed": self.job.seed, "epoch": self.progress.epoch}
        lengths = self.job.train.lengths
        batches = plan(lengths, s.examples_a_batch, **place, grouped=s.group_by_length)
        first = self.progress.update * s.accumulation
        self.stepper.planned(batches, first)
        for begin in range(first, len(batches), s.accumulation):
            yield batches[begin : begin + s.accumulation]

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
            self.tracked.append((p.step, self.stepper.scored(self.track).clone()))
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
            p.scores = self.scores(self.stepper.scored(self.track))
        record = {
            "step": p.step,
            "epoch": self.epochs_done(),
            "loss": finite(loss),
            "lr": self.stepper.lr,
            "grad_norm": finite(norm),
            "examples_per_second": round(meter.examples / seconds, 2) if seconds else None,
            "scores": p.scores,
        }
        self.journal.write(record)
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
        sound = all_finite(self.stepper.values)
        if math.isfinite(bad) or not math.isfinite(loss) or not sound:
            where = int(bad) if math.isfinite(bad) else self.progress.step
            kept = ""
            if self.job.folder is not None:
                place = self.job.folder / state.FOLDER
                kept = f"; --resume takes up the last good state in {place}"
            raise Diverged(
                f"the loss or its gradient is not finite at update {where}; try a lower --lr, or "
                f"--precision=fp32{kept}"
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
        what = job.model, job.validation, job.objective, job.metrics, job.accelerator
        how = job.settings.eval_batch_size, self.inside
        found = evaluate_model(*what, *how, replays=self.replays)
        job.model.train()
        self.since = time.perf_counter()
        p.eval_seconds += self.since - now
        # A run taken up from a state of before this was kept is not known to have stayed there.
        p.stayed = found.at_baseline and (p.last is None or p.stayed)
        p.last = found.kept(p.step, self.epochs_done())
        if _better(found, p.best, job.better):
            p.best, p.stale = p.last, 0
            if job.settings.keep == "best":
                self.best_values = {k: v.clone() for k, v in job.tuner.state().items()}
        else:
            p.stale += 1
        patience = job.settings.early_stopping
        p.stopped_early = patience is not None and p.stale >= patience
        record = {"step": p.step, "epoch": p.last.epoch, **found.to_dict()}
        del record["baseline_is"]  # trackers want numbers
        self.journal.write(record)

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
            "progress": asdict(self.progress),
            "metered": [self.meter.updates, self.meter.examples],
            "processes": job.accelerator.num_processes,
            "inputs": dict(job.inputs),
            "steps": self.stepper.mode,
        }
        moments, course = self.stepper.state()
        tensors, facts = {**tensors, **moments}, {**facts, **course}
        if job.accelerator.is_main_process:
            state.save_state(job.folder, self.progress.step, tensors, facts)
        self.since += time.perf_counter() - now  # saving is no training

    def resume(self) -> bool:
        """Take up the newest saved state; False where there is none.

        Raises:
            Refusal: data or base are not those it was begun with.
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
        self.check_mode(facts.get("steps", "eager"))
        told_by_main(job.accelerator, lambda: self.check_inputs(facts.get("inputs")))
        for key, value in vars(from_plain(Progress, facts["progress"])).items():
            setattr(self.progress, key, value)
        job.tuner.load_state(state.under("value.", tensors))
        device = job.accelerator.device
        self.best_values = {k: v.to(device) for k, v in state.under("best.", tensors).items()}
        self.meter.sums.copy_(tensors["meter"])
        self.meter.updates, self.meter.examples = facts["metered"]
        self.stepper.restore(tensors, facts)
        state.restore_random(job.accelerator, tensors)
        return True

    def check_mode(self, before: str) -> None:
        """Refuse to go on in another mode: its bits are others.

        Raises:
            Refusal: so it is.
        """
        if before != self.stepper.mode:
            flag = option("graphs", "off" if before == "eager" else "on")
            raise Refusal(
                f"{self.job.folder}: its updates were {before} so far, and now they would be "
                f"{self.stepper.mode}, which rounds otherwise; resume with {flag}"
            )

    def check_inputs(self, before: Mapping[str, str] | None) -> None:
        """Refuse to go on with other data or another base, where the state knows them."""
        if before is None:
            self.job.watcher.note(UNKNOWN)
        elif self.job.folder is not None:
            check_same(self.job.folder, before, self.job.inputs)


def _better(found: Evaluation, best: Evaluated | None, higher: bool) -> bool:
    value = next(iter(found.metrics.values()))
    if best is None:
        return True
    so_far = next(iter(best.metrics.values()))
    if value is None or so_far is None:
        return so_far is None and value is not None
    return bool(value > so_far if higher else value < so_far)
