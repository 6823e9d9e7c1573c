"""A learning rate for one bias, from a short sweep on part of its own training data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError, Diverged, UsageError, option
from beftkit.runs import folders, provenance
from beftkit.runs.loading import load_data
from beftkit.runs.prepare import training_examples, with_regime
from beftkit.runs.provenance import RateSearch, RateTried
from beftkit.runs.training import train_with
from beftkit.settings.resolve import read_yaml
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Data, higher_is_better, subsample
from beftkit.watching import Unwatched, Watcher

#: rates that are tried; of all parameters a hundredth of these
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
#: examples that are trained on and held out, at most; of all examples a quarter is held out
EXAMPLES, HELD_OUT = 400, 200
#: updates of each short run, at most, and how often it is evaluated in them
UPDATES, LOOKS = 100, 4
_FEWEST = 16


class _Losses(Unwatched):
    """Keeps what evaluations found."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []

    def logged(self, record: Mapping[str, Any]) -> None:
        """An evaluation's line has metrics."""
        if "metrics" in record:
            self.lines.append(record)


def found_before(settings: TrainSettings, *, resume: bool) -> float | None:
    """The rate that a sweep found for the run that is to be taken up; None: there is no such run.

    Raises:
        BeftError: it was given its rate.
    """
    folder = None if settings.output is None else Path(settings.output)
    if not resume or folder is None or not (folder / folders.SETTINGS).is_file():
        return None
    known = provenance.kept(folder)
    if known is not None and known.rates is None:
        rate = option("lr", read_yaml(folder / folders.SETTINGS).get("lr"))
        raise BeftError(
            f"{folder}: was begun with {rate}, which no sweep found; resume without --lr, or start "
            "afresh with --overwrite"
        )
    return settings.lr if known is None or known.rates is None else known.rates.lr


def find_rate(
    settings: TrainSettings,
    watcher: Watcher,
    asked_to_stop: Callable[[], int],
    *,
    overwrite: bool = False,
) -> RateSearch:
    """Try some rates for what a run trains, each in a short run; the validation set is not touched.

    Args:
        settings: of the run, its bias named; the rate in them is not looked at.
        watcher: told of each rate.
        asked_to_stop: as of a run.
        overwrite: whether the run may replace another: its folder is looked at beforehand.

    Raises:
        UsageError: several processes, or no update.
        BeftError: too few examples, nothing trains, no rate came to a metric, or what a run meets.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--lr=find: is for one process; give a rate")
    if settings.epochs == 0:
        raise UsageError("--lr=find: with --epochs=0 nothing is trained; leave one of them out")
    s = with_regime(settings)
    if s.output is not None:
        folders.former_files(Path(s.output), s, overwrite=overwrite, resume=False)
    data, seed = load_data(s), s.seeds[0]
    drawn = training_examples(s, data, seed)
    held = min(HELD_OUT, len(drawn) // 4)
    if held < _FEWEST // 4:
        raise BeftError(
            f"--lr=find: holds out a quarter of the training examples, and there are {len(drawn)}; "
            "give a rate"
        )
    mixed = subsample(drawn, len(drawn), seed)
    inside = mixed.take(range(held, min(len(drawn), held + EXAMPLES)))
    parted = replace(data, train=inside, validation={"held out": mixed.take(range(held))}, notes=())
    scale = 0.01 if s.bias == "full" else 1.0
    updates = _updates(s, len(inside))
    tried, metric = [], ""
    for number, rate in enumerate(RATES, 1):
        lr = rate * scale
        watcher.note(f"rate {number} of {len(RATES)}: {lr:g}, {updates} updates")
        one, name = _tried(s, lr, updates, parted, asked_to_stop)
        tried.append(one)
        metric = metric or name
    best = _best(tried, higher=not metric or higher_is_better(metric))
    if best is None:
        raise BeftError("--lr=find: no rate came to a metric; give a rate")
    edge = best.lr in (tried[0].lr, tried[-1].lr)
    found = RateSearch(best.lr, metric, tuple(tried), len(inside), held, updates, edge)
    told = f"{best.metric:.4f}" + (f" ± {error:.2g}" if (error := best.standard_error) else "")
    watcher.note(f"rate {best.lr:g}: {metric} {told} on {held} held-out examples")
    return found


def _updates(settings: TrainSettings, examples: int) -> int:
    """Of each short run: no more than the run itself would make on so many examples."""
    s = settings
    per_epoch = math.ceil(examples / (s.examples_a_batch * s.accumulation))
    wanted = s.max_steps or (per_epoch * s.epochs if s.epochs else UPDATES)
    return min(UPDATES, wanted)


def _tried(
    settings: TrainSettings,
    lr: float,
    updates: int,
    data: Data,
    asked_to_stop: Callable[[], int],
) -> tuple[RateTried, str]:
    """One short run: its rate, and the name of its metric."""
    # As many passes as it takes: the updates end it. Nothing is written.
    changes: dict[str, Any] = {"lr": lr, "max_steps": updates, "epochs": updates, "warmup": 0.0}
    changes |= {"eval_steps": max(1, updates // LOOKS), "seeds": settings.seeds[:1]}
    changes |= {"regime": "all", "train_size": None, "validation_size": None, "output": None}
    changes |= {"early_stopping": None, "save_snapshots": False, "save_steps": None}
    changes |= {"push_to_hub": None, "report_to": "none", "keep": "last"}
    watch = _Losses()
    try:
        how: dict[str, Any] = {"watcher": watch, "asked_to_stop": asked_to_stop, "data": data}
        found = train_with(settings.model_copy(update=changes), **how)
    except Diverged:  # a result as well; whatever else is wrong is wrong with every rate
        return RateTried(lr, None, None), ""
    name, run = str(found.metric), found.runs[0]
    if not run.steps:
        raise BeftError("--lr=find: nothing here trains, so no rate matters; leave it out")
    if run.best is None:
        return RateTried(lr, None, None), name
    step = run.best.step
    losses = [line["loss"] for line in watch.lines if line["step"] == step]
    error = run.best.standard_errors.get(name)
    loss = losses[0] if losses else None
    return RateTried(lr, run.best.metrics.get(name), loss, error), name


def _best(tried: list[RateTried], *, higher: bool) -> RateTried | None:
    """The best metric; of those that tie the one with the lowest loss."""
    known = [one for one in tried if one.metric is not None]
    sign = -1.0 if higher else 1.0

    def order(one: RateTried) -> tuple[float, float]:
        return sign * (one.metric or 0.0), math.inf if one.loss is None else one.loss

    return min(known, key=order) if known else None
