"""What the rows of a survey come to: each role's scores, layers, targets by task, who stands out.

Scored models alone count, but for the outcomes. A role's score of one model is the mean over the
sites that the model has, undefined where one of them is, as `beftkit.scores` has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.scores import METHODS, Inert, combine_inert, unmeasured
from beftkit.surveys.rows import KEPT, OUTCOMES, Head, Row

Array = npt.NDArray[np.float64]
#: a model stands out from this modified z on; Iglewicz and Hoaglin (1993), "How to detect and
#: handle outliers", recommend it with 0.6745 (x - median) / MAD
FAR, _SIGMA = 3.5, 0.6745
#: fewer scores than these have no outliers
FEWEST = 8
#: bins of a distribution, and how many decades below the largest score it begins at most
BINS, DECADES = 48, 8.0
#: where nothing is said
UNSAID = "not said"


@dataclass(frozen=True)
class RoleSummary:
    """One role's scores over all scored models.

    Attributes:
        models: that have a score of it.
        zero: of those, that did not move it at all; a logarithm has no place for them.
        quantiles: at 5, 25, 50, 75 and 95 %; empty without a model.
        mean: of the scores; None without a model.
        targets: models whose target it is.
        bins: models by score, in the bins of `Summary.edges`.
    """

    role: str
    inert: Inert
    models: int
    zero: int
    quantiles: tuple[float, ...]
    mean: float | None
    targets: int
    bins: tuple[int, ...]


@dataclass(frozen=True)
class LayerSummary:
    """A role in one layer: how many models have it, mean and median of their scores."""

    tower: str
    attention: str
    role: str
    layer: int
    models: int
    mean: float | None
    median: float | None


@dataclass(frozen=True)
class TaskSummary:
    """Models of one task: how many, and how many have which role as target (``none`` too)."""

    task: str
    models: int
    targets: Mapping[str, int]


@dataclass(frozen=True)
class Outlier:
    """A model whose score of a role stands out; ``z`` is the modified z of its logarithm."""

    model: str
    role: str
    score: float
    median: float
    z: float


@dataclass(frozen=True)
class Summary:
    """What the rows come to.

    Attributes:
        figure: what the scores are, a key of `beftkit.scores.FIGURES`.
        outcomes: outcome -> models, in the order of `OUTCOMES`; those that happened.
        listed: which of the base's ids lists models -> how many.
        roles: roles that can learn before inert ones, highest median first.
        empty: roles that are zero in the base: their projection ratio is 1 whatever changed.
        edges: of the bins, `BINS` + 1, evenly spaced on a logarithmic scale; empty without scores.
        layers: role by role in the order of ``roles``.
        tasks: most models first; where no task is said, last.
        outliers: furthest first, a model by its furthest role.
        partial: scored models that lack some of the base's biases.
        copies: scored models whose biases equal another's.
    """

    figure: str
    outcomes: Mapping[str, int]
    listed: Mapping[str, int]
    roles: tuple[RoleSummary, ...]
    empty: tuple[str, ...]
    edges: tuple[float, ...]
    layers: tuple[LayerSummary, ...]
    tasks: tuple[TaskSummary, ...]
    outliers: tuple[Outlier, ...]
    partial: int
    copies: int


def figure_of(head: Head) -> str:
    """Which figure is the score: of the survey's method where rows keep it, else the projection."""
    figure = METHODS.get(head.method, "")
    return figure if figure in KEPT else "projection"


def scored(rows: Sequence[Row]) -> list[Row]:
    """The rows that have scores to count."""
    return [row for row in rows if row.outcome == "scored"]


def matrix(rows: Sequence[Row], figure: str, sites: int) -> Array:
    """A figure of these rows, ``[rows, sites]``; NaN where there is none."""
    empty = (None,) * sites
    values = [getattr(row, figure) or empty for row in rows]
    return np.array(values, np.float64).reshape(len(rows), sites)


def role_scores(head: Head, rows: Sequence[Row]) -> dict[str, Array]:
    """Role -> its score in each of these rows, ``[rows]``; NaN where there is none."""
    values = matrix(rows, figure_of(head), len(head.sites))
    there = ~np.isnan(matrix(rows, "norm_pre", len(head.sites)))
    return {role: _mean(values[:, at], there[:, at]) for role, at in _roles(head).items()}


def summarise(head: Head, rows: Sequence[Row]) -> Summary:
    """All of it from the rows of a survey."""
    held = scored(rows)
    scores = role_scores(head, held)
    edges = _edges(list(scores.values()))
    targets = Counter(row.target or "none" for row in held)
    inert = {role: combine_inert([head.sites[n] for n in at]) for role, at in _roles(head).items()}
    roles = [_role(role, inert[role], one, edges, targets[role]) for role, one in scores.items()]
    empty = _empty(head, held)
    roles.sort(key=lambda one: (one.inert == "yes", one.role in empty, -_median(one)))
    digests = Counter(row.bias_sha256 for row in held if row.bias_sha256)
    return Summary(
        figure=figure_of(head),
        outcomes=_counted(Counter(row.outcome for row in rows), list(OUTCOMES)),
        listed=dict(Counter(row.listed for row in rows if row.listed).most_common()),
        roles=tuple(roles),
        empty=tuple(one.role for one in roles if one.role in empty),
        edges=tuple(map(float, edges)),
        layers=tuple(_layers(head, held, [one.role for one in roles])),
        tasks=tuple(_tasks(held, [*(one.role for one in roles), "none"])),
        outliers=tuple(_outliers(held, {r: s for r, s in scores.items() if inert[r] != "yes"})),
        partial=sum(row.compared < row.of for row in held),
        copies=sum(count for count in digests.values() if count > 1),
    )


def _roles(head: Head) -> dict[str, list[int]]:
    """Role -> places of its sites."""
    found: dict[str, list[int]] = {}
    for place, site in enumerate(head.sites):
        found.setdefault(site.role, []).append(place)
    return found


def _median(role: RoleSummary) -> float:
    return role.quantiles[2] if role.quantiles else -1.0


def _empty(head: Head, rows: Sequence[Row]) -> frozenset[str]:
    """Roles whose score means nothing, as `beftkit.scores` says."""
    before = matrix(rows, "norm_pre", len(head.sites))
    # The largest of all, as rows of models that lack a site have none of it.
    known = {role: before[:, at][~np.isnan(before[:, at])] for role, at in _roles(head).items()}
    most = {role: float(one.max()) if one.size else None for role, one in known.items()}
    measured = "projection" if figure_of(head) == "projection" else head.method
    return unmeasured(measured, most) if rows else frozenset()


def _mean(values: Array, there: npt.NDArray[np.bool_]) -> Array:
    """Means over the sites that are there, ``[rows]``; NaN where one is undefined, or none is."""
    total = np.where(there, values, 0.0).sum(axis=1)
    count = there.sum(axis=1)
    means: Array = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return means


def _edges(scores: Sequence[Array]) -> Array:
    known = np.concatenate([np.zeros(0), *scores])
    known = known[known > 0]
    if not len(known):
        return np.zeros(0)
    high = np.log10(known.max())
    low = max(np.log10(known.min()), high - DECADES)
    room = max(0.02 * (high - low), 0.05)  # equal scores have a width as well
    edges: Array = np.logspace(low - room, high + room, BINS + 1)
    return edges


def _role(role: str, inert: Inert, scores: Array, edges: Array, targets: int) -> RoleSummary:
    known = scores[~np.isnan(scores)]
    above = known[known > 0]
    counts = np.zeros(0, np.int64)
    if len(edges):  # what lies further down than is shown is drawn at the edge
        counts = np.histogram(np.maximum(above, edges[0]), edges)[0]
    quantiles = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist() if len(known) else []
    mean = float(known.mean()) if len(known) else None
    zero = len(known) - len(above)
    bins = tuple(map(int, counts))
    return RoleSummary(role, inert, len(known), zero, tuple(quantiles), mean, targets, bins)


def _layers(head: Head, rows: Sequence[Row], roles: Sequence[str]) -> list[LayerSummary]:
    values = matrix(rows, figure_of(head), len(head.sites))
    there = ~np.isnan(matrix(rows, "norm_pre", len(head.sites)))
    places: dict[tuple[str, str, str, int], list[int]] = {}
    for place, site in enumerate(head.sites):
        places.setdefault((site.tower, site.attention, site.role, site.layer), []).append(place)
    found = []
    for key, at in places.items():  # a gated MLP has two biases of one role in a layer
        known = _mean(values[:, at], there[:, at])
        known = known[~np.isnan(known)]
        told = (float(known.mean()), float(np.median(known))) if len(known) else (None, None)
        found.append(LayerSummary(*key, len(known), *told))
    order = {role: place for place, role in enumerate(roles)}
    return sorted(found, key=lambda one: (one.tower, one.attention, order[one.role], one.layer))


def _tasks(rows: Sequence[Row], order: Sequence[str]) -> list[TaskSummary]:
    by_task: dict[str | None, Counter[str]] = {}
    for row in rows:
        by_task.setdefault(row.task, Counter())[row.target or "none"] += 1
    found = sorted(by_task.items(), key=lambda one: (one[0] is None, -one[1].total(), one[0] or ""))
    return [
        TaskSummary(UNSAID if task is None else task, targets.total(), _counted(targets, order))
        for task, targets in found
    ]


def _counted(counts: Mapping[Any, int], order: Sequence[Any]) -> dict[str, int]:
    """Counts above zero in this order; what it does not know comes after."""
    known = [*order, *(key for key in counts if key not in order)]
    return {key: counts[key] for key in known if counts.get(key)}


def _outliers(rows: Sequence[Row], scores: Mapping[str, Array]) -> list[Outlier]:
    """Scores differ by orders of magnitude, so what is compared are their logarithms."""
    furthest: dict[int, Outlier] = {}
    for role, values in scores.items():
        places = np.flatnonzero(values > 0)  # NaN is not
        if len(places) < FEWEST:
            continue
        logs = np.log10(values[places])
        middle = np.median(logs)
        spread = np.median(np.abs(logs - middle))
        if spread < 1e-12:  # most are equal: there is no measure of how far the others are
            continue
        for place, z in zip(places.tolist(), _SIGMA * (logs - middle) / spread, strict=True):
            if abs(z) >= max(FAR, abs(furthest[place].z) if place in furthest else 0.0):
                told = float(values[place]), float(10**middle), float(z)
                furthest[place] = Outlier(rows[place].model, role, *told)
    return sorted(furthest.values(), key=lambda one: (-abs(one.z), one.model))
