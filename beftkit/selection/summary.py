"""From cells to groups: means over seeds, ranks, margins, and how verification went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from beftkit.scores import best_first, contenders, unmeasured
from beftkit.selection.certainty import Settled, kendall_tau, margin
from beftkit.selection.ranks import ALWAYS, FREE, METHODS, MethodMean, MethodTable, RoleMean
from beftkit.selection.results import CellResult, GroupResult, Selection, Tau, Verified, Winner
from beftkit.selection.verdicts import Verdict, judge
from beftkit.settings.select import SelectSettings


def summarise(
    cells: Sequence[CellResult], settings: SelectSettings, metric: str | None, higher: bool
) -> tuple[GroupResult, ...]:
    """One group for each place of the grid whose cells came to something."""
    grouped: dict[tuple[Any, ...], list[CellResult]] = {}
    for cell in cells:
        if cell.methods:
            grouped.setdefault(cell.cell.group, []).append(cell)
    return tuple(_group(members, settings, metric, higher) for members in grouped.values())


def overall_targets(groups: Sequence[GroupResult]) -> dict[str, str | None]:
    """Method -> the role that most groups choose; where they are even, the first group's."""
    chosen = {name: [g.target(name) for g in groups if name in g.methods] for name in METHODS}
    return {name: Counter(some).most_common(1)[0][0] for name, some in chosen.items() if some}


def _group(
    cells: Sequence[CellResult], settings: SelectSettings, metric: str | None, higher: bool
) -> GroupResult:
    tables = {name: [c.methods[name] for c in cells if name in c.methods] for name in METHODS}
    methods = {name: _method(name, some, settings) for name, some in tables.items() if some}
    shifts = [cell.settled for cell in cells if cell.settled]
    roles = methods["projection"].roles
    v, q = (roles[role].score if role in roles else None for role in ("v", "q"))
    gap = None if v is None or q is None else v - q
    verified = _verified(cells, settings, metric)
    alone = [role for role in settings.candidates if role in verified]
    best = {role: _signed(verified[role].best, higher) for role in alone}
    last = {role: _signed(verified[role].last, higher) for role in alone}
    tau = {}
    for method, table in methods.items() if alone else ():
        ranked = {role: table.roles[role].rank for role in alone if role in table.roles}
        ranks = {role: rank for role, rank in ranked.items() if rank is not None}
        tau[method] = Tau(kendall_tau(ranks, best), kendall_tau(ranks, last))
    when = None
    if shifts:
        target, ranking = max(s.target for s in shifts), max(s.ranking for s in shifts)
        when = Settled(target, ranking, max(s.steps for s in shifts))
    method = _method_that_counts(methods, settings)
    if method != "projection":  # what that says of added biases means nothing
        gap = None
        tau.pop("projection", None)
    place = cells[0].cell
    what = place.regime, place.train_size, place.lr, place.epochs
    seeds = tuple(cell.cell.seed for cell in cells)
    proof = verified, tau, Winner(_winner(best), _winner(last))
    free = {name: [c.free[name] for c in cells if name in c.free] for name in FREE}
    freely = {name: _method(name, some, settings) for name, some in free.items() if some}
    group = GroupResult(
        *what, seeds, cells[0].examples, methods, gap, when, *proof, free=freely, method=method
    )
    if not verified or metric is None:
        return group
    baseline, name = _baseline(cells, metric)
    rules = group.leading, settings.candidates, settings.allow_inert
    verdict = _verdict(cells, *rules, metric, higher)
    return replace(group, baseline=baseline, baseline_is=name, verdict=verdict)


def with_verdicts(found: Selection) -> Selection:
    """A selection whose verified groups all have a verdict, made of its cells where it lacks."""
    groups = []
    for group in found.groups:
        if group.verified and group.verdict is None and found.metric is not None:
            place = group.regime, group.train_size, group.lr, group.epochs
            cells = [cell for cell in found.cells if cell.methods and cell.cell.group == place]
            what = group.leading, found.candidates, bool(found.settings.get("allow_inert"))
            verdict = _verdict(cells, *what, found.metric, found.higher_is_better)
            group = replace(group, verdict=verdict)
        groups.append(group)
    return replace(found, groups=tuple(groups))


def _verdict(
    cells: Sequence[CellResult],
    leading: MethodMean,
    candidates: Sequence[str],
    allow_inert: bool,
    metric: str,
    higher: bool,
) -> Verdict:
    inert = [r for r, one in leading.roles.items() if one.inert == "yes" and not allow_inert]
    ranked = [role for role in leading.roles if role in candidates]
    ranked += [role for role in candidates if role not in ranked]
    ranked = [role for role in ranked if role not in inert]
    alone = alone_of(cells, metric)
    held: dict[str, list[bool]] = {}
    for cell in cells:
        for bias, run in cell.runs.items():
            held.setdefault(bias, []).append(run.stayed)
    names = [bias for bias in ("none", *candidates, "all") if bias in held]
    stayed = [bias for bias in names if all(held[bias])]
    return judge(alone, ranked, leading.target, higher=higher, stayed=stayed)


def _method_that_counts(methods: Mapping[str, MethodMean], settings: SelectSettings) -> str:
    """The projection ratio, but Fisher where biases were added, which the ratio cannot measure."""
    if settings.add_bias is None or "fisher" not in methods:
        return "projection"
    norms = {role: one.norm_pre for role, one in methods["projection"].roles.items()}
    empty = unmeasured("projection", norms)
    return "fisher" if empty & {*settings.candidates} else "projection"


def alone_of(
    cells: Sequence[CellResult], metric: str
) -> dict[str, dict[int, tuple[float | None, float | None]]]:
    """Bias -> seed -> its metric alone, and one standard error of that."""
    found: dict[str, dict[int, tuple[float | None, float | None]]] = {}
    for cell in cells:
        for bias, run in cell.runs.items():
            values = metric_of(run.best, metric), metric_of(run.standard_errors, metric)
            found.setdefault(bias, {})[cell.cell.seed] = values
    return found


def _baseline(cells: Sequence[CellResult], metric: str) -> tuple[float | None, str]:
    """What a constant prediction gets on the validation examples, the same in all runs."""
    runs = [run for cell in cells for run in cell.runs.values() if run.baseline_is]
    return (metric_of(runs[0].baselines, metric), runs[0].baseline_is) if runs else (None, "")


def _winner(signed: Mapping[str, float | None]) -> str | None:
    known = {role: value for role, value in signed.items() if value is not None}
    best = [role for role, value in known.items() if value == max(known.values())]
    return best[0] if len(best) == 1 else None


def _signed(value: float | None, higher: bool) -> float | None:
    return value if value is None or higher else -value


def _mean(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and deviation; None where a value is lacking, or there is one alone."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None, None
    return fmean(known), stdev(known) if len(known) > 1 else None


def _method(method: str, tables: Sequence[MethodTable], settings: SelectSettings) -> MethodMean:
    """Mean scores over seeds, ranked anew; the target, and by how much it leads."""
    if method == ALWAYS:
        return MethodMean(tables[0].target, None, {})
    first = tables[0].roles
    means = {role: _mean([table.roles[role].score for table in tables]) for role in first}
    scores = {role: mean for role, (mean, _) in means.items()}
    inert = {role: one.inert for role, one in first.items()}
    norms = {role: one.norm_pre for role, one in first.items()}
    empty = unmeasured(method, norms) if method in METHODS else frozenset()
    roles = {}
    for rank, role in enumerate(best_first(scores, inert, empty), start=1):
        one, (mean, deviation) = first[role], means[role]
        what = mean, deviation, one.inert, one.width, one.norm_pre
        floor = _floor([table.roles[role].score for table in tables])
        roles[role] = RoleMean(*what, None if mean is None else rank, floor)
    moved = [role for role in roles if role in settings.candidates and scores[role]]
    can = contenders(moved, scores, inert, settings.allow_inert, empty)
    layers = [_layers(tables, role) for role in can[:2]]
    lead = margin(can[1], *layers) if len(can) > 1 else None
    return MethodMean(can[0] if can else None, lead, roles)


def _floor(scores: Sequence[float | None]) -> float | None:
    """Mean distance between two seeds' scores; None of one seed, or where one has no score."""
    known = [score for score in scores if score is not None]
    if len(known) < max(2, len(scores)):
        return None
    return fmean(abs(one - other) for one, other in combinations(known, 2))


def _layers(tables: Sequence[MethodTable], role: str) -> list[list[float]]:
    """Scores by seed and layer of a role that has them all."""
    return [[one for one in table.roles[role].layers if one is not None] for table in tables]


def _verified(
    cells: Sequence[CellResult], settings: SelectSettings, metric: str | None
) -> dict[str, Verified]:
    """Means over seeds of what each bias reached when it trained alone."""
    if not settings.verify or metric is None:
        return {}
    result = {}
    for bias in (*settings.candidates, "none", "all"):
        runs = [cell.runs[bias] for cell in cells if bias in cell.runs]
        if runs:
            result[bias] = Verified(
                len(runs),
                *_mean([metric_of(run.best, metric) for run in runs]),
                *_mean([metric_of(run.last, metric) for run in runs]),
                percent=fmean(run.percent for run in runs),
                train_seconds=fmean(run.train_seconds for run in runs),
                scalars=fmean(run.scalars for run in runs),
                standard_error=_mean([metric_of(run.standard_errors, metric) for run in runs])[0],
                stayed=sum(run.stayed for run in runs),
            )
    return result


def metric_of(metrics: Mapping[str, float | None], metric: str) -> float | None:
    """A run's metric; of two validation splits (MNLI) the first's."""
    if metric in metrics:
        return metrics[metric]
    return next((value for name, value in metrics.items() if name.startswith(metric)), None)
