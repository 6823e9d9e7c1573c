"""One cell with one seed: made, and read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.files import read_headed, write_whole
from beftkit.runs import average, evaluate_with, train_with
from beftkit.runs.folders import finished
from beftkit.runs.results import Run, TrainResult
from beftkit.selection import Selection
from beftkit.selection.journey import select_with
from beftkit.selection.opening import RESULT
from beftkit.selection.results import CellRun
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.resolve import resolve, resolve_select, resolve_train
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings
from beftkit.suite.cells import PaperCell
from beftkit.watching import Watcher

#: what an evaluation without a run is kept as
EVALUATION = "evaluation.json"
CELLS = "cells"


@dataclass(frozen=True)
class Unit:
    """A cell with a seed."""

    cell: PaperCell
    seed: int

    @property
    def name(self) -> str:
        """Also of its folder, below ``cells``."""
        return f"{self.cell.name}-seed{self.seed}"

    def folder(self, base: Path) -> Path:
        """Where it lies."""
        return base / CELLS / self.name

    def settings(self) -> TrainSettings | EvaluateSettings | SelectSettings:
        """Resolved.

        Raises:
            UsageError: what is to be other than published makes no sense here.
        """
        cell = self.cell
        given = {**cell.settings, "model": cell.model, "task": cell.task}
        if cell.what == "average":
            # The adapter's own run says the model; what is evaluated on is the task's.
            del given["model"]
            return resolve(EvaluateSettings, None, given)
        if cell.what == "evaluate":
            return resolve(EvaluateSettings, None, {**given, "seed": self.seed})
        given["seeds"] = (self.seed,)
        return resolve_select(None, given) if cell.what == "select" else resolve_train(None, given)


@dataclass(frozen=True)
class Figures:
    """What a unit found: of each row's label best and last metric, error, baseline (fractions)."""

    best: Mapping[str, float | None]
    last: Mapping[str, float | None]
    errors: Mapping[str, float | None]
    baselines: Mapping[str, float | None]
    seconds: Mapping[str, float | None]
    percent: Mapping[str, float | None]
    ranks: Mapping[str, float | None]


def make(unit: Unit, base: Path, watcher: Watcher, asked_to_stop: Callable[[], int]) -> None:
    """Bring a unit to its end, taken up where it was stopped.

    Raises:
        BeftError: whatever its run can meet.
    """
    folder, s = unit.folder(base), unit.settings()
    how: dict[str, Any] = {"watcher": watcher, "asked_to_stop": asked_to_stop}
    if isinstance(s, SelectSettings):
        select_with(s, output=folder, resume=True, **how)
    elif isinstance(s, TrainSettings):
        s = s.model_copy(update={"output": str(folder)})
        train_with(s, resume=True, standalone=False, **how)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
        if unit.cell.summands:
            s = s.model_copy(update={"adapter": str(_averaged(unit, base))})
        found = evaluate_with(s, watcher)
        text = json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"
        write_whole(folder / EVALUATION, text.encode())


def _averaged(unit: Unit, base: Path) -> Path:
    """The sum of a cell's runs, with the first one's head.

    Raises:
        BeftError: one of them did not come to its end yet.
    """
    runs = [base / CELLS / f"{name}-seed{unit.seed}" for name, _ in unit.cell.summands]
    for run in runs:
        if finished(run) is None:
            raise BeftError(f"{run.name} did not come to its end yet; run again after it")
    output = unit.folder(base) / "average"
    weights = [weight for _, weight in unit.cell.summands]
    average(*runs, output=output, weights=weights, head=runs[0], overwrite=True)
    return output


def read(unit: Unit, base: Path) -> Figures | None:
    """What a unit found; None: it did not come to its end.

    Raises:
        BeftError: its file is damaged.
    """
    folder = unit.folder(base)
    if unit.cell.what == "train":
        done = finished(folder)
        return None if done is None else _of_run(unit, done)
    path = folder / (RESULT if unit.cell.what == "select" else EVALUATION)
    if not path.is_file():
        return None
    try:
        values = read_headed(path)
        if unit.cell.what == "select":
            return _of_selection(unit, Selection.from_dict(values))
        return _of_evaluation(unit, values)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BeftError(f"{path}: damaged ({error}); remove it, then run again") from None


def _rows(unit: Unit) -> Iterator[tuple[str, str]]:
    for label, metric, _ in unit.cell.rows:
        yield label, metric


def _of_run(unit: Unit, done: TrainResult) -> Figures:
    run: Run = done.runs[0]
    best, last = run.best, run.last
    rows = dict(_rows(unit))
    return Figures(
        {label: best.metrics.get(metric) if best else None for label, metric in rows.items()},
        {label: last.metrics.get(metric) if last else None for label, metric in rows.items()},
        {
            label: best.standard_errors.get(metric) if best else None
            for label, metric in rows.items()
        },
        {label: best.baselines.get(metric) if best else None for label, metric in rows.items()},
        dict.fromkeys(rows, run.train_seconds),
        dict.fromkeys(rows, done.percent),
        {},
    )


def _of_selection(unit: Unit, found: Selection) -> Figures:
    [cell] = found.cells
    runs: dict[str, CellRun | None] = {label: cell.runs.get(label) for label, _ in _rows(unit)}
    rows = dict(_rows(unit))
    roles = cell.methods["projection"].roles if cell.methods else {}
    return Figures(
        {b: run.best.get(rows[b]) if run else None for b, run in runs.items()},
        {b: run.last.get(rows[b]) if run else None for b, run in runs.items()},
        {b: run.standard_errors.get(rows[b]) if run else None for b, run in runs.items()},
        {b: run.baselines.get(rows[b]) if run else None for b, run in runs.items()},
        {b: run.train_seconds if run else None for b, run in runs.items()},
        {b: run.percent if run else None for b, run in runs.items()},
        {b: roles[b].rank for b in runs if b in roles},
    )


def _of_evaluation(unit: Unit, values: Mapping[str, Any]) -> Figures:
    rows = dict(_rows(unit))
    named = {
        name: {label: values[name].get(metric) for label, metric in rows.items()}
        for name in ("metrics", "standard_errors", "baselines")
    }
    what = named["metrics"], named["metrics"], named["standard_errors"], named["baselines"]
    share = None if unit.cell.summands else 0.0  # sums are of what others trained
    return Figures(*what, {}, dict.fromkeys(rows, share), {})
