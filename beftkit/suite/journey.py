"""A table of the paper: what is missing of it is run, and all of it is read together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from beftkit.errors import BeftError, Refusal, UsageError
from beftkit.progress import displayed
from beftkit.settings.paper import PaperSettings
from beftkit.settings.resolve import resolve
from beftkit.suite.cells import PaperCell, PaperTable, table_of
from beftkit.suite.results import PaperResult, PaperRow
from beftkit.suite.sharing import share_of
from beftkit.suite.units import Figures, Unit, make, read
from beftkit.watching import Watcher, never


def paper(
    table: str,
    *,
    output: str | Path,
    watcher: Watcher | None = None,
    progress: bool = False,
    asked_to_stop: Callable[[], int] | None = None,
    **settings: Any,
) -> PaperResult:
    """Run what is missing of a table of the paper, and put ours beside the published figures.

    Every cell and seed is a run (or selection) of its own, an ordinary one, below ``cells`` of the
    folder; what is finished is not repeated, what was stopped is taken up. Tables that share cells
    may share a folder. Several processes share out a table by ``part``; none waits for another,
    and what the others have not finished counts as missing.

    Args:
        table: ``figure1``, ``table1``, ``table2``, ``table3``, ``figure4``, ``table4``,
            ``lr-epochs``, ``table5``.
        output: folder of the cells.
        watcher: told how it goes.
        progress: show that on stderr instead.
        asked_to_stop: the number of a signal once one came.
        settings: fields of `beftkit.settings.paper.PaperSettings`.

    Raises:
        BeftError: what is wrong with what was given, or no cell came to its end; one that fails is
            told of, and the rest goes on.
    """
    wanted = resolve(PaperSettings, None, {**settings, "table": table})
    with displayed(progress, watcher) as looking:
        return paper_with(wanted, Path(output), looking, asked_to_stop or never)


def paper_with(
    settings: PaperSettings, base: Path, watcher: Watcher, asked_to_stop: Callable[[], int]
) -> PaperResult:
    """`paper` (see there) under settings that are resolved."""
    table = table_of(settings)
    units = units_of(table)
    for unit in units:
        unit.settings()  # what makes no sense is refused before anything is run
    failed: dict[str, str] = {}
    mine = [unit for unit in share_of(units, settings) if not _there(unit, base)]
    for number, unit in enumerate(mine, 1):
        watcher.note(f"run {number} of {len(mine)}: {unit.name}")
        try:
            make(unit, base, watcher, asked_to_stop)
        except Refusal:
            raise
        except UsageError:
            raise
        except BeftError as error:
            watcher.note(f"{unit.name}: failed: {error.at_terminal}")
            failed[unit.name] = error.at_terminal
    found = summed_up(settings, table, base, failed)
    if failed and not any(row.seeds for row in found.rows):
        name, why = next(iter(failed.items()))
        raise BeftError(f"no cell came to its end; {name}: {why}")
    return found


def units_of(table: PaperTable) -> list[Unit]:
    """Cells with seeds, the first seed of every cell first."""
    return [Unit(cell, seed) for seed in table.seeds for cell in table.cells]


def _there(unit: Unit, base: Path) -> bool:
    return read(unit, base) is not None


def summed_up(
    settings: PaperSettings, table: PaperTable, base: Path, failed: Mapping[str, str]
) -> PaperResult:
    """All cells that are there, whoever made them."""
    rows: list[PaperRow] = []
    folders = []
    for cell in table.cells:
        units = [Unit(cell, seed) for seed in table.seeds]
        found = {unit.seed: figures for unit in units if (figures := read(unit, base))}
        rows += [_row(cell, at, found, table.seeds) for at in range(len(cell.rows))]
        if cell.what == "select":
            folders += [str(unit.folder(base)) for unit in units if unit.seed in found]
    what = str(settings.table), table.title, tuple(rows), differences(settings)
    return PaperResult(*what, dict(failed), table.notes, str(base), tuple(folders))


def differences(settings: PaperSettings) -> dict[str, Any]:
    """What is other than published."""
    data = {"data_dir": settings.data_dir} if settings.data_dir else {}
    return {**settings.changes, **data}


def _row(cell: PaperCell, at: int, found: Mapping[int, Figures], seeds: Sequence[int]) -> PaperRow:
    label, metric, printed = cell.rows[at]

    def mean(name: str, scale: float = 1.0) -> float | None:
        values = [getattr(one, name).get(label) for one in found.values()]
        known = [scale * value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None

    best = [one.best.get(label) for one in found.values()]
    known = [100 * value for value in best if value is not None]
    ours = mean("best", 100)
    several = len(known) > 1 and len(known) == len(best)
    error = stdev(known) / sqrt(len(known)) if several else mean("errors", 100)
    difference = None if ours is None or printed is None else ours - printed
    shown = f"{cell.name}, b_{label}" if cell.what == "select" else label
    return PaperRow(
        cell=cell.name,
        label=shown,
        metric=metric,
        published=printed,
        ours=ours,
        last=mean("last", 100),
        difference=difference,
        standard_error=error,
        baseline=mean("baselines", 100),
        seeds=tuple(found),
        missing=tuple(seed for seed in seeds if seed not in found),
        seconds=mean("seconds"),
        published_seconds=cell.seconds,
        percent=mean("percent"),
        rank=mean("ranks"),
    )
