"""Updates that are recorded once for each width, and replayed: forward to write-back as one launch.

On a GPU an update of so few values waits for Python to launch its kernels; a CUDA graph launches
them all at once. Everything an update reads lies where it always does: examples, the epoch's plan,
learning rates, counters and sums are on the device, and a replay finds its batch by itself.

Every update of a captured width is a replay, the first too: warm-up and recording run on a state
that is put back afterwards, so a run that was killed and taken up gives the same bits.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from beftkit.files import from_plain
from beftkit.graphs import (
    WARMUPS,
    Graph,
    NotCaptured,
    capture,
    detach_from_past,
    kept_tensors,
    memory_pool,
)
from beftkit.tasks.batches import plan
from beftkit.tasks.costs import costs_of
from beftkit.tasks.resident import Resident, widths_of
from beftkit.tasks.widths import Widths, choose_widths
from beftkit.training import state
from beftkit.training.course import Course
from beftkit.training.fitness import hindrance, read_chance
from beftkit.training.job import Job
from beftkit.training.journal import Meter
from beftkit.training.stepper import EagerStepper, Stepper, Update, schedule

if TYPE_CHECKING:
    from torch import Tensor

    from beftkit_kernels import Track

#: epochs whose batches are looked at for their widths; later ones are much like them
LOOKED_AT = 16


def make_stepper(job: Job, course: Course, meter: Meter) -> Stepper:
    """What makes a run's updates, as ``graphs`` says; says why where it cannot be as wanted."""
    wanted = job.settings.graphs
    auto = wanted == "auto" and job.accelerator.device.type == "cuda"
    if wanted == "on" or auto:
        reason = hindrance(job)
        if reason is None and job.tuner.values and course.updates:
            return CapturedStepper(job, course, meter)
        if reason is not None:
            job.watcher.note(f"updates go on eagerly, none is captured: {reason}")
    return EagerStepper(job, course.updates)


class CapturedStepper:
    """Replays updates; what cannot be captured is done eagerly from the same state.

    Args:
        job: what trains on what; nothing stands in the way (`beftkit.training.fitness.hindrance`).
        course: of the whole run.
        meter: which updates add to.

    Attributes:
        widths: which are captured.
        eager: of those the ones that could not be.
        graphs: what was recorded, by name and width.
        recording: seconds that each took.
    """

    mode = "captured"

    def __init__(self, job: Job, course: Course, meter: Meter) -> None:
        import torch

        self.job, self.meter, self.course = job, meter, course
        self.values: list[Tensor] = job.tuner.values
        s, device = job.settings, job.accelerator.device
        self.device, self.together = device, s.accumulation
        self.rows = min(s.examples_a_batch, len(job.train))
        self.resident = Resident(job.train, device)
        self.widths = self._widths()
        self.eager: set[int] = set()
        self.graphs: dict[tuple[str, int], Graph] = {}
        self.recording: list[float] = []
        self.scored_eagerly = False
        self.pool = memory_pool(device)
        self.held: list[Any] = []
        batches = math.ceil(len(job.train) / s.examples_a_batch)
        # Of the epoch: numbers of examples, and by what their losses are multiplied.
        self.plan = torch.zeros((batches, self.rows), dtype=torch.int64, device=device)
        self.shares = torch.zeros((batches, self.rows), device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.done = torch.zeros(1, dtype=torch.int64, device=device)
        # How far an update moves these: not at all while it is tried and recorded, or the next
        # batches would be read, of which not all fit the width.
        self.stride = torch.ones(1, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), device=device)
        self.upcoming: list[int] = []
        self._optimiser(course.updates)

    def _optimiser(self, steps: int) -> None:
        """AdamW whose every number is on the device, and the rates of all updates."""
        import torch

        s, on_gpu = self.job.settings, self.device.type == "cuda"
        self.rate = torch.zeros((), device=self.device)
        self.adam = torch.optim.AdamW(
            self.values,
            lr=self.rate,
            betas=(s.beta1, s.beta2),
            eps=s.eps,
            weight_decay=s.weight_decay,
            fused=True,
            capturable=on_gpu,
        )
        if not on_gpu:  # the stand-in says that a stream records, and a GPU may be there unused
            adam: Any = self.adam
            adam._cuda_graph_capture_health_check = lambda: None
        self.grads = [torch.zeros_like(value) for value in self.values]
        for value, grad in zip(self.values, self.grads, strict=True):
            value.grad = grad
            self.adam.state[value] = {
                "step": torch.zeros((), device=self.device),
                "exp_avg": torch.zeros_like(value),
                "exp_avg_sq": torch.zeros_like(value),
            }
        course = schedule(self.job, torch.optim.SGD([torch.zeros(1)], lr=s.lr or 0.0), steps)
        factor = course.lr_lambdas[0]
        self.rates = [(s.lr or 0.0) * factor(step) for step in range(steps + 1)]
        self.table = torch.tensor(self.rates, device=self.device)
        self.updates = 0

    def _widths(self) -> Widths:
        """Those of a run at its beginning; one that is taken up keeps its own."""
        job, s = self.job, self.job.settings
        epochs = math.ceil(self.course.updates / max(self.course.per_epoch, 1))
        looked_at = min(epochs, LOOKED_AT)
        counts: dict[int, float] = {}
        for epoch in range(looked_at):
            how: dict[str, Any] = {"seed": job.seed, "epoch": epoch, "grouped": s.group_by_length}
            batches = plan(job.train.lengths, s.examples_a_batch, **how)
            for width in widths_of(job.train, batches):
                counts[width] = counts.get(width, 0.0) + epochs / looked_at
        everything = s.graphs == "on"
        rows = self.rows * self.resident.each
        costs = costs_of(job.model, half=s.precision != "fp32")
        return choose_widths(counts, rows, costs, everything=everything)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.rates[min(self.updates, len(self.rates) - 1)])

    def planned(self, batches: Sequence[Tensor], begin: int) -> None:
        """Bring an epoch's plan to the device: the one copy that it needs."""
        import torch

        job = self.job
        numbers = torch.zeros(self.plan.shape, dtype=torch.int64)
        shares = torch.zeros(self.shares.shape)
        for first in range(0, len(batches), self.together):
            window = batches[first : first + self.together]
            units = job.objective.units(job.train, torch.cat([*window]))
            for place, batch in enumerate(window, start=first):
                numbers[place] = batch[0]  # a row of weight 0 is one of the batch again
                numbers[place, : len(batch)] = batch
                shares[place, : len(batch)] = 1.0 / units
        for there, made in ((self.plan, numbers), (self.shares, shares)):
            pinned = made.pin_memory() if self.device.type == "cuda" else made
            there.copy_(pinned, non_blocking=True)
        self.at.fill_(begin)
        self.upcoming = widths_of(job.train, batches)
        self.next = begin

    def step(self, window: Sequence[Tensor]) -> Update | None:
        """The next update of the plan."""
        for _ in window:
            width, captured = self.widths.of(self.upcoming[self.next])
            self.next += 1
            if self.together == 1:
                self._do("update", width, captured, self._update)
            else:
                self._do("batch", width, captured, self._batch)
        if self.together > 1:
            self._do("end", 0, True, lambda _: self._end())
        self.updates += 1
        return Update(None, None, sum(len(batch) for batch in window))

    def _do(self, name: str, width: int, captured: bool, work: Callable[[int], None]) -> None:
        if captured and width not in self.eager and (name, width) not in self.graphs:
            self._record(name, width, work)
        graph = self.graphs.get((name, width))
        if graph is None:
            work(width)
        else:
            graph.replay()

    def _record(self, name: str, width: int, work: Callable[[int], None]) -> None:
        """Record the work of a width, or note why that cannot be; the state is as before."""
        begun = time.perf_counter()
        before = kept_tensors(self.job.model)
        detach_from_past([*self.values, *(unit.parameter for unit in self.job.tuner.units)])
        try:
            with self._scratch(), read_chance(self.job) as chance:
                made = capture(
                    lambda: work(width),
                    device=self.device,
                    warmups=1 if self.recording else WARMUPS,
                    pool=self.pool,
                )
            chance.check()
            after = kept_tensors(self.job.model)
            self.held += [*before.values(), *after.values()]
            if {*map(id, after.values())} != {*map(id, before.values())}:
                raise NotCaptured("its modules keep tensors from one call to the next")
        except NotCaptured as error:
            told = not self.eager
            self.eager.add(width)
            if told:
                what = "the optimiser's step" if name == "end" else f"width {width}"
                self.job.watcher.note(f"updates of {what} go on eagerly, not captured: {error}")
            return
        self.graphs[name, width] = made
        self.recording.append(time.perf_counter() - begun)

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        """Put back afterwards all that an update changes."""
        import numpy as np
        import torch

        tensors = [*self._moving()]
        saved = [tensor.detach().clone() for tensor in tensors]
        chance, drawn = random.getstate(), np.random.get_state()
        generators = state.random_states(self.job.accelerator)
        self.stride.zero_()
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before in zip(tensors, saved, strict=True):
                    tensor.copy_(before)
            self.job.tuner.write_back()
            state.restore_random(self.job.accelerator, generators)
            random.setstate(chance)
            np.random.set_state(drawn)

    def _moving(self) -> Iterator[Tensor]:
        yield from (*self.values, *self.grads)
        for value in self.values:
            yield from self.adam.state[value].values()
        yield from (self.at, self.done, self.loss, self.rate, self.stride, self.meter.sums)

    # --- what is recorded: no value of a tensor is looked at, and nothing made for good

    def _update(self, width: int) -> None:
        self._batch(width)
        self._end()

    def _batch(self, width: int) -> None:
        """Add the gradients of the next batch."""
        job = self.job
        examples = self.plan.index_select(0, self.at).squeeze(0)
        shares = self.shares.index_select(0, self.at).squeeze(0)
        rows = self.resident.batch(examples, width)
        # Within what is recorded: casts of what trains must be made anew by each replay.
        with job.accelerator.autocast():
            losses, _ = job.objective.losses(job.model, rows)
        loss = (losses * shares).sum()
        loss.backward()
        self.loss += loss.detach()
        self.at += self.stride

    def _end(self) -> None:
        """Clip, move the values, write them back, and leave sums and gradients ready."""
        import torch

        limit = self.job.settings.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.values, limit)
        self.rate.copy_(self.table.index_select(0, self.done).squeeze(0))
        self.adam.step()
        self.done += self.stride
        torch._foreach_zero_(self.grads)
        self.job.tuner.write_back()
        self.meter.add_sums(self.loss, norm, self.done.squeeze(0))
        self.loss.zero_()

    def scored(self, track: Track) -> Tensor:
        """The scores as they are now; recorded at the first call."""
        key = ("scores", 0)
        if key not in self.graphs and not self.scored_eagerly:
            try:
                self.graphs[key] = capture(
                    track.step, device=self.device, warmups=1, pool=self.pool
                )
            except NotCaptured:
                self.scored_eagerly = True
        if self.scored_eagerly:
            return track.step()
        found: Tensor = self.graphs[key].replay()
        return found

    # --- its part of the state

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Moments, updates made, and the widths: which there are, which could not be captured."""
        tensors = {
            f"adam.{index}.{key}": moment
            for index, value in enumerate(self.values)
            for key, moment in self.adam.state[value].items()
        }
        facts = {"updates": self.updates, "eager": sorted(self.eager), "widths": vars(self.widths)}
        return tensors, {"captured": facts}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        for index, value in enumerate(self.values):
            for key, moment in state.under(f"adam.{index}.", tensors).items():
                self.adam.state[value][key].copy_(moment)
        kept = facts["captured"]
        self.updates, self.eager = kept["updates"], {*kept["eager"]}
        # Not those of now: `--graphs on` after auto, or other costs, would choose others.
        if (widths := kept.get("widths")) is not None:
            self.widths = from_plain(Widths, widths)
        self.done.fill_(self.updates)
