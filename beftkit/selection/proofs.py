"""What verification keeps of a place of the grid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verified:
    """What a bias reached when it trained alone: means over seeds, deviations of several.

    ``best`` and ``last`` are of the selection's metric; None where a run has none.
    ``standard_error``: of one seed's ``best``, at this many examples, the mean over the seeds; None
    where not known. ``stayed``: how many runs never left what a constant prediction gets.
    """

    seeds: int
    best: float | None
    best_deviation: float | None
    last: float | None
    last_deviation: float | None
    percent: float
    train_seconds: float
    scalars: float
    standard_error: float | None = None
    stayed: int = 0


@dataclass(frozen=True)
class Tau:
    """Kendall's tau of a method's ranks against the best and the last metrics."""

    best: float | None
    last: float | None


@dataclass(frozen=True)
class Winner:
    """The candidate with the best metric; None where several tie, and without verification."""

    best: str | None = None
    last: str | None = None
