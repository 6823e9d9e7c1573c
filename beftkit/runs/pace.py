"""How fast updates, evaluations and Fisher batches go: a few are made and timed, nothing is kept.

What is timed is the real loop on examples as long as the average row of a batch; one step before,
on the longest rows, warms up and shows the memory that is needed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import out_of_memory
from beftkit.runs.prepare import Prepared, choose_parts
from beftkit.runs.training import make_tuner, memory_advice
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Encoded, higher_is_better, plan, plan_evaluation
from beftkit.training.evaluation import evaluate_model
from beftkit.training.job import Job
from beftkit.training.trainer import Trainer
from beftkit.tuning.added import detach
from beftkit.watching import Unwatched

if TYPE_CHECKING:
    import torch

#: steps that are timed, behind one to warm up
TIMED = 2


@dataclass(frozen=True)
class Pace:
    """What was measured of one kind of run.

    Attributes:
        what: ``bias v``, ``Fisher``.
        step_seconds: an update, or a batch of the Fisher measurement.
        batch_seconds: a batch of an evaluation; None: nothing is evaluated.
    """

    what: str
    step_seconds: float
    batch_seconds: float | None = None


@dataclass(frozen=True)
class Measured:
    """A pace, the batches of one evaluation, and the seconds that measuring it took."""

    pace: Pace
    evaluation_batches: int
    spent: float


def run_pace(ready: Prepared, settings: TrainSettings, what: str) -> Measured:
    """Time updates and evaluation of a run; what trained is as it was afterwards.

    Args:
        ready: model and examples of any run with the same model, task and batch.
        settings: with everything filled in.
        what: the pace is called.
    """
    train, s = ready.train, settings  # encoded before the clock runs
    splits = list(ready.validation.values())
    began = time.perf_counter()
    update = s.examples_a_batch * s.accumulation
    short: dict[str, Any] = {"epochs": TIMED, "eval_steps": None, "early_stopping": None}
    short |= {
        "save_steps": None,
        "log_steps": None,
        "save_snapshots": False,
        "output": None,
        "keep": "last",
        "graphs": "off",  # so few would be recordings more than replays: what is said is at most
    }
    with out_of_memory(memory_advice(s)):
        choice = choose_parts(s, ready.model, ready.seed)
        tuner = make_tuner(ready, choice, s)
        before = {name: value.clone() for name, value in tuner.state().items()}

        def updates(examples: Encoded, count: int) -> float:
            watch = Stopwatch(ready.accelerator.device)
            job = Job(
                settings=s.model_copy(update={**short, "max_steps": count}),
                seed=ready.seed,
                model=ready.model,
                tuner=tuner,
                train=examples,
                validation={},
                objective=ready.objective,
                metrics=(),
                better=higher_is_better(s.metric[0]),
                accelerator=ready.accelerator,
                folder=None,
                watcher=watch,
            )
            Trainer(job).run()
            return watch.seconds_a_step

        updates(longest(train, update), 1)
        width = mean_width(train, plan(train.lengths, s.examples_a_batch, seed=ready.seed, epoch=0,
                                       grouped=s.group_by_length))  # fmt: skip
        seconds = updates(nearest(train, width, TIMED * update), TIMED)
        tuner.load_state(before)
        tuner.close()
        batch_seconds, batches = _evaluation_pace(ready, splits, s.eval_batch_size)
        for name in choice.added:  # the model is as it was, for whatever is timed next
            detach(ready.model.get_submodule(name))
    pace = Pace(what, seconds, batch_seconds)
    return Measured(pace, batches, time.perf_counter() - began)


def _evaluation_pace(
    ready: Prepared, splits: Sequence[Encoded], size: int
) -> tuple[float | None, int]:
    """Seconds of an evaluation's batch, and how many of them this process has."""
    if not splits:
        return None, 0
    share = slice(ready.accelerator.process_index, None, ready.accelerator.num_processes)
    plans = [plan_evaluation(one.lengths, size, by_length=one.by_length) for one in splits]
    first = splits[0]

    def batches(examples: Encoded) -> float:
        watch = Stopwatch(ready.accelerator.device)
        evaluate_model(
            ready.model,
            {"validation": examples},
            ready.objective,
            (),
            ready.accelerator,
            size,
            watch,
        )
        return watch.seconds_a_step

    batches(longest(first, size))
    seconds = batches(nearest(first, mean_width(first, plans[0]), TIMED * size))
    return seconds, sum(len(one[share]) for one in plans)


def fisher_pace(
    ready: Prepared,
    names: Sequence[str],
    size: int,
    variant: str = "exact",
    buffer: int | None = None,
    gradient_checkpointing: bool = False,
) -> Measured:
    """Time batches of a Fisher measurement.

    Args:
        ready: model in its place, and examples.
        names: parameters that are measured.
        size: examples a batch.
        variant, buffer, gradient_checkpointing: as in `FisherSettings`; bytes.
    """
    from beftkit.gradients.means import example_means, published_means

    train = ready.train
    began = time.perf_counter()

    def batches(examples: Encoded) -> float:
        watch = Stopwatch(ready.accelerator.device)
        given = ready.model, names, examples, ready.objective, ready.accelerator
        how: dict[str, Any] = {"batch_size": size, "watcher": watch}
        if variant == "batch-mean":
            published_means(*given, **how)
        else:
            # So few batches would not show what capturing brings: what is said is at most.
            how |= {"gradient_checkpointing": gradient_checkpointing, "graphs": "off"}
            how |= {} if buffer is None else {"budget": buffer}
            example_means(*given, **how)
        return watch.seconds_between

    batches(longest(train, size))
    width = mean_width(train, plan_evaluation(train.lengths, size, by_length=train.by_length))
    # Before the first batch two examples are tried out, so one more is made, and not timed.
    seconds = batches(nearest(train, width, (TIMED + 1) * size))
    return Measured(Pace("Fisher", seconds), 0, time.perf_counter() - began)


class Stopwatch(Unwatched):
    """Reads the clock at each step, once the device has done it."""

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._device, self._clock = device, clock
        self._times: list[float] = []

    def started(self, title: str, steps: int, done: int) -> None:
        self._times = [self._now()]

    def advanced(self, steps: int) -> None:
        self._times.append(self._now())

    @property
    def seconds_a_step(self) -> float:
        """Mean over all steps."""
        return (self._times[-1] - self._times[0]) / max(len(self._times) - 1, 1)

    @property
    def seconds_between(self) -> float:
        """Mean over all steps but the first, where there are more."""
        if len(self._times) < 3:
            return self.seconds_a_step
        return (self._times[-1] - self._times[1]) / (len(self._times) - 2)

    def _now(self) -> float:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return self._clock()


def mean_width(encoded: Encoded, batches: Sequence[torch.Tensor]) -> float:
    """Tokens of a row of a batch, filled up: the mean over all rows."""
    rows = sum(len(batch) for batch in batches)
    return sum(len(batch) * int(encoded.lengths[batch].max()) for batch in batches) / rows


def longest(encoded: Encoded, count: int) -> Encoded:
    """The longest examples."""
    return encoded.take(encoded.lengths.argsort(descending=True, stable=True)[:count])


def nearest(encoded: Encoded, width: float, count: int) -> Encoded:
    """The examples whose lengths are nearest to a width."""
    return encoded.take((encoded.lengths - width).abs().argsort(stable=True)[:count])


def reset_peak(device: torch.device) -> None:
    """Begin to look for the most memory anew, where a device can tell."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> tuple[int | None, str]:
    """The most memory so far, and whose: the ``device``'s tensors or all of the ``process``."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "device"
    try:
        import resource
    except ImportError:  # Windows
        return None, "process"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024), "process"
