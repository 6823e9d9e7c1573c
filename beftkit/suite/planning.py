"""What a table of the paper would take: its cells, those that are there, and how long the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.runs import time_run
from beftkit.selection import time_select
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.paper import PaperSettings
from beftkit.settings.select import SelectSettings
from beftkit.suite.cells import table_of
from beftkit.suite.journey import differences, units_of
from beftkit.suite.results import PaperPlan, PlannedCell
from beftkit.suite.sharing import share_of
from beftkit.suite.units import Unit, read


def plan_paper(settings: PaperSettings, output: str | Path | None = None) -> PaperPlan:
    """List a table's cells, without data or a model.

    Args:
        settings: as `beftkit.suite.paper` takes them.
        output: a folder whose finished cells are not run again.

    Raises:
        UsageError: no table, no cell that matches, or settings that make no sense.
    """
    table = table_of(settings)
    units = units_of(table)
    for unit in units:
        unit.settings()
    base = None if output is None else Path(output)
    there = {unit.name for unit in units if base is not None and read(unit, base) is not None}
    mine = {unit.name for unit in share_of(units, settings)}
    cells = []
    for cell in table.cells:
        names = {seed: Unit(cell, seed).name for seed in table.seeds}
        done = tuple(seed for seed, name in names.items() if name in there)
        todo = tuple(s for s, name in names.items() if name in mine and name not in there)
        what = cell.name, cell.what, cell.model, cell.task, _given(cell.settings)
        cells.append(PlannedCell(*what, done, todo))
    name = str(settings.table)
    return PaperPlan(name, table.title, tuple(cells), differences(settings), table.notes)


def time_paper(settings: PaperSettings, output: str | Path | None = None) -> PaperPlan:
    """The same with how long each missing run will take, from a few updates of each cell.

    A cell that cannot be timed says why; evaluations without training are not timed.
    """
    found = plan_paper(settings, output)
    known = {cell.name: cell for cell in table_of(settings).cells}
    cells = []
    for cell in found.cells:
        if cell.todo:
            wanted = Unit(known[cell.name], cell.todo[0]).settings()
            try:
                if isinstance(wanted, SelectSettings):
                    cell = replace(cell, seconds=time_select(wanted).seconds)
                elif not isinstance(wanted, EvaluateSettings):
                    cell = replace(cell, seconds=time_run(wanted).seconds)
            except BeftError as error:
                cell = replace(cell, refused=error.at_terminal)
        cells.append(cell)
    return replace(found, cells=tuple(cells), timed=True)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in settings.items() if one is not None}
