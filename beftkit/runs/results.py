"""Results of training runs: plain fields, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any

from beftkit.files import from_plain, headed
from beftkit.runs.provenance import Provenance
from beftkit.settings import TrainSettings
from beftkit.shown import Shown
from beftkit.training.evaluation import Evaluated


@dataclass(frozen=True, repr=False)
class Run(Shown):
    """One seed's run.

    Attributes:
        seed: of head, data, batches and dropout.
        folder: where it lies, or None.
        adapter: what was written there (``adapter`` or ``model``), or None.
        adapter_format: ``beft``, ``lora``, ``biases``; None for a whole model.
        best: the best evaluation; None without a validation split.
        last: the last one.
        kept: which of the two the adapter holds.
        scores: mean projection ratio of each trained role against the start, at the end.
        steps: updates.
        epochs: passes over the data.
        stopped_early: evaluations stopped getting better.
        train_examples: how many there were.
        truncated: rows cut to the maximal length, by split.
        train_seconds: time of the updates alone.
        eval_seconds: time of evaluations.
        notes: what a reader should know.
        stayed: no evaluation was better than one and the same prediction for every example.
    """

    seed: int
    folder: str | None
    adapter: str | None
    adapter_format: str | None
    best: Evaluated | None
    last: Evaluated | None
    kept: str
    scores: Mapping[str, float | None]
    steps: int
    epochs: float
    stopped_early: bool
    train_examples: int
    truncated: Mapping[str, int]
    train_seconds: float
    eval_seconds: float
    notes: tuple[str, ...] = ()
    stayed: bool = False

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        found = {"seed": self.seed, "steps": self.steps, "epochs": self.epochs}
        metrics = {which: run_metrics(self, which) for which in ("best", "last")}
        return found | metrics | {"folder": self.folder}

    @property
    def examples_per_second(self) -> float | None:
        """Training speed, evaluation left out."""
        done = self.train_examples * self.epochs
        return done / self.train_seconds if self.train_seconds > 0 and done else None


@dataclass(frozen=True, repr=False)
class TrainResult(Shown):
    """What `beftkit.train` found, over one or more seeds.

    Attributes:
        model: what was trained, as given.
        task: name of the task or of the user's files.
        bias: what was trained in it.
        metric: the one that picks the best.
        scalars: how many scalars trained, without the head.
        head_scalars: those of classifier and pooler bias.
        total: all scalars of the model.
        settings: the resolved settings, as in ``run.yaml``.
        runs: one a seed.
        classes: split -> label -> rows, as the data have them; empty for values.
        provenance: versions, device, date, command; None: an older version's.
    """

    model: str
    task: str
    bias: str
    metric: str | None
    scalars: int
    head_scalars: int
    total: int
    settings: TrainSettings
    runs: tuple[Run, ...]
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def percent(self) -> float:
        """Share of the model's scalars that trained, without the head, in percent."""
        return 100 * self.scalars / self.total if self.total else 0.0

    def summary(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """``best`` and ``last`` -> metric -> mean and deviation over the seeds (n - 1 below).

        A deviation needs two seeds, and a metric a value in every run; None otherwise.
        """
        return {
            which: {
                name: _spread([run_metrics(run, which).get(name) for run in self.runs])
                for name in run_metrics(self.runs[0], which)
            }
            for which in ("best", "last")
        }

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        means = {
            which: {name: one["mean"] for name, one in found.items()}
            for which, found in self.summary().items()
        }
        what = {"model": self.model, "task": self.task, "bias": self.bias, **means}
        return what | {"scalars": self.scalars, "seeds": [run.seed for run in self.runs]}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        runs = [{**asdict(r), "examples_per_second": r.examples_per_second} for r in self.runs]
        shares = {"percent": self.percent, "summary": self.summary()}
        settings = self.settings.model_dump(mode="json")
        whence = None if self.provenance is None else asdict(self.provenance)
        plain = {"settings": settings, "runs": runs, "provenance": whence}
        return headed({**vars(self), **shares, **plain})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainResult:
        """The result that `to_dict` wrote down."""
        return from_plain(cls, values)


def run_evaluated(run: Run, which: str) -> Evaluated | None:
    """The ``best`` or ``last`` evaluation of a run."""
    return run.best if which == "best" else run.last


def run_metrics(run: Run, which: str) -> Mapping[str, float | None]:
    """The metrics of a run's ``best`` or ``last`` evaluation."""
    found = run_evaluated(run, which)
    return {} if found is None else found.metrics


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return {"mean": None, "deviation": None}
    return {"mean": fmean(known), "deviation": stdev(known) if len(known) > 1 else None}
