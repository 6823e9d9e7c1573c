"""What a selection would do: its cells and their runs, counted without any weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from beftkit.errors import UsageError
from beftkit.files import headed, plain_of
from beftkit.runs.planning import Plan, count_examples, outline, planned_course
from beftkit.runs.prepare import choose_parts, fill_settings
from beftkit.selection.cells import PROBE, Cell, biases_to_verify, grid, run_settings
from beftkit.selection.opening import check_former
from beftkit.settings.select import SelectSettings
from beftkit.tasks import Data
from beftkit.training.course import Course
from beftkit.watching import Watcher


@dataclass(frozen=True)
class CellPlan:
    """One cell.

    Attributes:
        cell: its place in the grid, as it is named.
        lr, epochs: of its runs, filled in.
        examples: that its runs train on; None: unknown.
        runs: ``probe`` and what verifies it, each with its course; None: unknown.
        fisher_batches: backward passes of the Fisher measurement; 0: none.
    """

    cell: Cell
    lr: float
    epochs: int
    examples: int | None
    runs: Mapping[str, Course | None]
    fisher_batches: int | None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.cell.name

    @property
    def updates(self) -> int | None:
        """Of all its runs."""
        known = [course.updates for course in self.runs.values() if course is not None]
        return sum(known) if len(known) == len(self.runs) else None

    def steps(self, run: str) -> int:
        """Updates of a run, with the Fisher batches that follow the probe; 0: unknown."""
        course = self.runs[run]
        more = (self.fisher_batches or 0) if run == PROBE else 0
        return more + (course.updates if course else 0)


@dataclass(frozen=True, repr=False)
class SelectPlan(Plan):
    """What `beftkit select --dry-run` shows.

    Attributes:
        settings: as given.
        cells: of the grid.
        scalars: run -> scalars that train in it, without the head.
        head_scalars: those of classifier and pooler bias.
        total: all scalars of the model.
        folder: what becomes of the output folder: ``new``, ``replaced``, ``taken up``; None: none
            given.
        output: that folder.
    """

    settings: SelectSettings
    cells: tuple[CellPlan, ...]
    scalars: Mapping[str, int]
    head_scalars: int
    total: int
    folder: str | None
    output: str | None

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        what = plain_of(self.settings, "model task") | {"device": self.device}
        return what | {"cells": len(self.cells), "runs": self.runs}

    @property
    def runs(self) -> int:
        """Of all cells."""
        return sum(len(cell.runs) for cell in self.cells)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        cells = [{"name": one.name, **asdict(one), "updates": one.updates} for one in self.cells]
        counts = {"head_scalars": self.head_scalars, "total": self.total, "runs": self.runs}
        values = {
            **self.common(),
            "settings": self.settings.model_dump(mode="json"),
            "cells": cells,
            "scalars": dict(self.scalars),
            **counts,
            "folder": self.folder,
            "output": self.output,
        }
        return headed(values)


def plan_select(
    settings: SelectSettings,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> SelectPlan:
    """Resolve a selection's settings and count its runs, without weights.

    Args:
        settings: as `beftkit.selection.journey.select_with` takes them.
        output, resume, overwrite: the folder it shall make, and what becomes of a former one.

    Raises:
        BeftError: as `beftkit.select` would, but for what weights and tokens alone tell.
    """
    s = settings
    biases = biases_to_verify(s)
    first = run_settings(s, grid(s)[0], PROBE, None)
    found = outline(first, s)
    if not found.unread:
        check_verifiable(s, found.data)
    runs = [PROBE, *biases]
    choices = {
        run: choose_parts(run_settings(s, grid(s)[0], run, None), found.model, first.seeds[0])
        for run in runs
    }
    probe = choices[PROBE]
    notes = dict.fromkeys(note for choice in choices.values() for note in choice.notes)
    return SelectPlan(
        **{**found.plan.common(), "notes": (*notes, *found.plan.notes)},
        settings=s,
        cells=tuple(plan_cells(s, found.data, found.model, found.unread)),
        scalars={run: choice.scalars for run, choice in choices.items()},
        head_scalars=probe.head_scalars,
        total=probe.total,
        folder=_fate(s, output, resume, overwrite),
        output=None if output is None else str(output),
    )


def plan_cells(
    settings: SelectSettings, data: Data, model: Any, unread: str = ""
) -> list[CellPlan]:
    """The cells of a selection, with the course of each of their runs.

    Args:
        settings: of the selection.
        data: as read.
        model: its configuration is looked at.
        unread: why the data were not read; empty: they were.

    Raises:
        BeftError: not as many examples as asked for.
    """
    s = settings
    biases = [
        bias for bias in biases_to_verify(s) if bias != "all" or s.probe_steps is not None
    ]  # else the probe is that run
    found = []
    for cell in grid(s):
        plans = {run: run_settings(s, cell, run, None) for run in (PROBE, *biases)}
        plans = {run: fill_settings(one, model.config, data) for run, one in plans.items()}
        probe = plans[PROBE]
        examples = count_examples(probe, data, unread)
        runs = {
            run: planned_course(
                one,
                examples,
                data,
                unread,
                trains=run != "none" or bool(choose_parts(one, model, cell.seed).parts),
            )
            for run, one in plans.items()
        }
        batches = None if examples is None else math.ceil(examples / probe.examples_a_batch)
        passes = batches if s.fisher else 0
        place = probe.lr or 0.0, probe.epochs or 0
        found.append(CellPlan(cell, *place, examples, runs, passes))
    return found


def check_verifiable(settings: SelectSettings, data: Data) -> None:
    """Refuse to verify without metrics.

    Raises:
        UsageError: there is nothing to evaluate on.
    """
    if settings.verify and not data.validation:
        raise UsageError("--verify: compares metrics; give --validation-file as well")


class Whole:
    """Tells a watcher where a selection is: the run it is at, and how much lies behind it."""

    def __init__(self, watcher: Watcher, cells: Sequence[CellPlan]) -> None:
        self._watcher = watcher
        self._runs = [(one.cell, run, one.steps(run)) for one in cells for run in one.runs]
        self._steps = sum(steps for *_, steps in self._runs)

    def reached(self, cell: Cell, bias: str) -> None:
        """A run of a cell begins."""
        at = [(one, run) for one, run, _ in self._runs].index((cell, bias))
        behind = sum(steps for *_, steps in self._runs[:at])
        self._watcher.reached(at + 1, len(self._runs), behind, self._steps)

    def over(self) -> None:
        """All cells came to their end."""
        self._watcher.reached(len(self._runs), len(self._runs), self._steps, self._steps)


def _fate(
    settings: SelectSettings, output: str | Path | None, resume: bool, overwrite: bool
) -> str | None:
    """What becomes of the output folder, which is refused as a selection would refuse it."""
    if output is None:
        return None
    values = settings.document()
    former = check_former(Path(output), values, resume=resume, overwrite=overwrite)
    return "taken up" if former is None else "replaced" if former else "new"
