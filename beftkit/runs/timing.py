"""How long a run or a measurement will take, from two updates of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from beftkit.accelerator import make_accelerator
from beftkit.files import headed, plain_of
from beftkit.runs.loading import load_data
from beftkit.runs.pace import Measured, Pace, fisher_pace, peak_bytes, reset_peak, run_pace
from beftkit.runs.prepare import Prepared, check_metrics, choose_parts, prepare
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings
from beftkit.shown import Shown
from beftkit.training.course import Course, course_of
from beftkit.tuning import add


@dataclass(frozen=True)
class RunTime:
    """What one run will take, in seconds.

    Attributes:
        name: ``seed 0``, or a cell and what trains there.
        what: which `Pace` it has.
        steps: updates, or batches of the Fisher measurement.
        step_seconds: of all of them.
        evaluations: how many.
        evaluation_seconds: of all of them.
        loading_seconds: until the first step: model, examples, tokens.
    """

    name: str
    what: str
    steps: int
    step_seconds: float
    evaluations: int
    evaluation_seconds: float
    loading_seconds: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.step_seconds + self.evaluation_seconds + self.loading_seconds


#: said where the command itself would replay what two steps cannot show
AT_MOST = (
    "steps were timed eagerly; replayed ones (--graphs) take less, so this is how long at most"
)
#: said where a stand-in would replay, which calls anew what it recorded
AT_LEAST = (
    "steps were timed eagerly; on a CPU --graphs has a stand-in, which is slower, so this is how "
    "long at least"
)


@dataclass(frozen=True, repr=False)
class Timing(Shown):
    """How long a command will take; stopping early makes it less.

    Attributes:
        command: ``train``, ``select`` or ``fisher``.
        model, task: as given.
        device: where it was timed, by torch's name.
        processes: how many share it out.
        precision, dtype: as given.
        batch_size: examples a step.
        paces: what was measured.
        runs: what each run will take.
        peak_bytes: most memory in use at the longest rows; None: unknown.
        peak_of: whose: the ``device``'s tensors, or the whole ``process``.
        notes: what a reader should know.
    """

    command: str
    model: str
    task: str
    device: str
    processes: int
    precision: str
    dtype: str
    batch_size: int
    paces: tuple[Pace, ...]
    runs: tuple[RunTime, ...]
    peak_bytes: int | None
    peak_of: str
    notes: tuple[str, ...] = ()

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        what = plain_of(self, "command model task device")
        return what | {"runs": len(self.runs), "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """All runs, one after the other."""
        return sum(run.seconds for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        runs = [{**asdict(run), "seconds": run.seconds} for run in self.runs]
        return headed({**asdict(self), "runs": runs, "seconds": self.seconds})


def time_run(settings: TrainSettings) -> Timing:
    """Say how long `beftkit.train` will take under these settings, for each seed and altogether.

    The model is loaded, three updates are made, and batches evaluated; nothing is written, and what
    was trained is dropped.

    Raises:
        BeftError: as training would.
    """
    s = settings
    accelerator = make_accelerator(s.device, s.precision)
    began = time.perf_counter()
    data = load_data(s)
    ready = prepare(s, s.seeds[0], accelerator=accelerator, data=data)
    s = filled(ready, s)
    reset_peak(accelerator.device)
    pace = run_pace(ready, s, s.tuned)
    loading = time.perf_counter() - began - pace.spent
    trains = bool(choose_parts(s, ready.model, ready.seed).parts)
    course = course_of(s, len(ready.train), trains=trains)
    runs = tuple(run_time(f"seed {seed}", course, pace, loading) for seed in s.seeds)
    return timing("train", ready, s, s.examples_a_batch, [pace.pace], runs)


def time_fisher(settings: FisherSettings) -> Timing:
    """Say how long `beftkit.fisher_all` will take, for each head and snapshot and altogether.

    Raises:
        BeftError: as measuring would.
    """
    from beftkit.diff.sides import expand_runs
    from beftkit.gradients import sites_of

    s = settings
    began = time.perf_counter()
    ready = prepare(s, s.head_seeds[0])
    ready.place()
    add(ready.model, s.add_bias)
    names = sites_of(ready.model, s.tower, s.model).names
    how = s.variant, s.buffer_mib << 20, s.gradient_checkpointing
    reset_peak(ready.accelerator.device)
    pace = fisher_pace(ready, names, s.examples_a_pass, *how)
    loading = time.perf_counter() - began - pace.spent
    batches = math.ceil(len(ready.train) / s.examples_a_pass)
    heads = [(f"head seed {seed}", loading) for seed in s.head_seeds]
    passes = [*heads, *((str(path), 0.0) for path in expand_runs(s.snapshots))]
    runs = tuple(
        RunTime(name, "Fisher", batches, batches * pace.pace.step_seconds, 0, 0.0, seconds)
        for name, seconds in passes
    )
    return timing("fisher", ready, s, s.examples_a_pass, [pace.pace], runs)


def filled(ready: Prepared, settings: TrainSettings) -> TrainSettings:
    """The settings as a run has them; its metrics are checked."""
    s = ready.filled(settings)
    metrics = tuple(s.metric) or ready.data.metrics
    check_metrics(metrics, ready.objective, ready.data, s.trust_remote_code)
    return s.model_copy(update={"metric": metrics})


def run_time(name: str, course: Course, measured: Measured, loading: float) -> RunTime:
    """What a run of this course and pace will take."""
    pace = measured.pace
    count = course.evaluations if pace.batch_seconds is not None else 0
    evaluation = measured.evaluation_batches * (pace.batch_seconds or 0.0)
    steps = course.updates, course.updates * pace.step_seconds
    return RunTime(name, pace.what, *steps, count, count * evaluation, loading)


def timing(
    command: str,
    ready: Prepared,
    settings: TrainSettings | FisherSettings | SelectSettings,
    size: int,
    paces: Sequence[Pace],
    runs: Sequence[RunTime],
) -> Timing:
    """All of it together, with the memory that was used."""
    peak, whose = peak_bytes(ready.accelerator.device)
    on_gpu = ready.accelerator.device.type == "cuda"
    captures = settings.graphs == "on" or (settings.graphs == "auto" and on_gpu)
    captures = captures and getattr(settings, "variant", "exact") == "exact"
    bound = AT_MOST if on_gpu else AT_LEAST
    return Timing(
        command=command,
        model=settings.model,
        task=ready.data.name,
        device=str(ready.accelerator.device),
        processes=ready.accelerator.num_processes,
        precision=settings.precision,
        dtype=settings.dtype,
        batch_size=size,
        paces=tuple(paces),
        runs=tuple(runs),
        peak_bytes=peak,
        peak_of=whose,
        notes=(bound,) if captures else (),
    )
