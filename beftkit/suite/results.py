"""Ours beside the paper's: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from beftkit.files import headed, plain_of
from beftkit.shown import Shown


@dataclass(frozen=True)
class PaperRow:
    """One figure of the paper and ours; figures are in percent.

    Attributes:
        cell: whose, and ``label`` which of its figures.
        metric: its name.
        published: the paper's; None: it prints none.
        ours: mean over seeds of the best evaluation; None: no run is there.
        last: the same of the last one.
        difference: ours minus the published.
        standard_error: of ours: over several seeds the deviation / sqrt(n), of one that of the
            metric at so many examples; None: not known.
        baseline: what a constant prediction gets; None: not known.
        seeds: that are there, ``missing``: that are not.
        seconds: mean time of the updates; ``published_seconds``: the paper's.
        percent: of the scalars that trained, without the head.
        rank: by the projection ratio, of a selection's probe, mean over seeds.
    """

    cell: str
    label: str
    metric: str
    published: float | None
    ours: float | None
    last: float | None
    difference: float | None
    standard_error: float | None
    baseline: float | None
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    seconds: float | None
    published_seconds: float | None
    percent: float | None
    rank: float | None


@dataclass(frozen=True, repr=False)
class PaperResult(Shown):
    """What a table of the paper comes to.

    Attributes:
        table: its name, and ``title`` what it is.
        rows: its figures.
        differs: setting -> what it is in place of the published one.
        failed: run -> in one line, why.
        notes: what a reader should know.
        folder: where its runs lie.
        selections: folders of selections, for a report.
    """

    table: str
    title: str
    rows: tuple[PaperRow, ...]
    differs: Mapping[str, Any]
    failed: Mapping[str, str]
    notes: tuple[str, ...]
    folder: str
    selections: tuple[str, ...]

    @property
    def missing(self) -> int:
        """Runs that are not there."""
        lacking = {row.cell: len(row.missing) for row in self.rows}
        return sum(lacking.values())

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "table folder") | {"rows": len(self.rows), "missing": self.missing}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return headed({**asdict(self), "missing": self.missing})


@dataclass(frozen=True)
class PlannedCell:
    """A cell that would be run: its seeds that are there, and those of this part that are not."""

    name: str
    what: str
    model: str
    task: str
    settings: Mapping[str, Any]
    done: tuple[int, ...]
    todo: tuple[int, ...]
    seconds: float | None = None
    refused: str = ""


@dataclass(frozen=True, repr=False)
class PaperPlan(Shown):
    """What `beftkit paper --dry-run` or ``--time`` shows."""

    table: str
    title: str
    cells: tuple[PlannedCell, ...]
    differs: Mapping[str, Any]
    notes: tuple[str, ...]
    timed: bool = False

    @property
    def runs(self) -> int:
        """That are to be made."""
        return sum(len(cell.todo) for cell in self.cells)

    @property
    def seconds(self) -> float | None:
        """Of those that were timed; None: none was."""
        known = [one.seconds * len(one.todo) for one in self.cells if one.seconds is not None]
        return sum(known) if known else None

    @property
    def untimed(self) -> int:
        """How many of them could not be timed, or are evaluations, which are not."""
        left = (len(one.todo) for one in self.cells if one.seconds is None)
        return sum(left) if self.timed else 0

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "table") | {"cells": len(self.cells), "runs": self.runs}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return headed(
            {
                **asdict(self),
                "runs": self.runs,
                "seconds": self.seconds,
                "untimed": self.untimed,
            }
        )
