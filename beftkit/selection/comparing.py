"""Over all cells of a verified selection: what picks cost, and each bias at its own best rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from beftkit.selection.ranks import FREE, METHODS
from beftkit.selection.rates import AcrossRates, OwnRate, RateWinner, edge_of
from beftkit.selection.regret import Regret, mean_regret, regret_of
from beftkit.selection.results import GroupResult, Selection
from beftkit.selection.summary import alone_of, metric_of
from beftkit.selection.verdicts import judge


def regrets(found: Selection) -> dict[str, Regret]:
    """Method -> what its picks cost over cells whose candidates were all trained alone."""
    costs: dict[str, list[float | None]] = {}
    sign, may = 1.0 if found.higher_is_better else -1.0, bool(found.settings.get("allow_inert"))
    for cell in found.cells:
        roles = cell.methods["projection"].roles if cell.methods else {}
        able = [r for r in found.candidates if r in roles and (may or roles[r].inert != "yes")]
        runs = {role: cell.runs[role] for role in able if role in cell.runs}
        alone = {role: metric_of(run.best, str(found.metric)) for role, run in runs.items()}
        known = {role: sign * value for role, value in alone.items() if value is not None}
        if not known or len(known) < len(able):
            continue
        for name, table in {**cell.methods, **cell.free}.items():
            costs.setdefault(name, []).append(regret_of(known, table.target))
    if found.method != "projection":  # what that says of added biases means nothing
        costs.pop("projection", None)
    means = {name: mean_regret(costs[name]) for name in (*METHODS, *FREE) if name in costs}
    return {name: one for name, one in means.items() if one is not None}


def across_rates(found: Selection) -> tuple[AcrossRates, ...]:
    """One for each place of the grid that was verified at several learning rates."""
    places: dict[tuple[str, int | None, int | None], list[GroupResult]] = {}
    for group in found.groups:
        if group.verdict is not None and group.lr is not None:
            places.setdefault((group.regime, group.train_size, group.epochs), []).append(group)
    return tuple(_across(found, some) for some in places.values() if len(some) > 1)


def _across(found: Selection, groups: Sequence[GroupResult]) -> AcrossRates:
    sign, metric = 1.0 if found.higher_is_better else -1.0, str(found.metric)
    ordered = sorted(groups, key=lambda group: group.lr or 0.0)
    lrs = tuple(group.lr or 0.0 for group in ordered)
    own, alone, stayed = {}, {}, []
    for bias in dict.fromkeys(bias for group in ordered for bias in group.verified):
        known = [group for group in ordered if group.reached(bias) is not None]
        if not known:
            continue
        best = max(known, key=lambda group: sign * (group.reached(bias) or 0.0))
        row, lr = best.verified[bias], best.lr or 0.0
        ties = [group for group in known if group.reached(bias) == row.best]
        edge = edge_of(lr, lrs) if len(ties) == 1 else "inside"
        own[bias] = OwnRate(lr, edge, row.best or 0.0, row.seeds)
        place = best.regime, best.train_size, best.lr, best.epochs
        cells = [cell for cell in found.cells if cell.methods and cell.cell.group == place]
        alone[bias] = alone_of(cells, metric)[bias]
        stayed += [bias] if row.stayed == row.seeds else []
    judged = [group.verdict for group in ordered if group.verdict]
    able = [role for role in found.candidates if any(role in one.candidates for one in judged)]
    targets = Counter(group.leading.target for group in ordered)
    verdict = judge(
        alone, able, targets.most_common(1)[0][0], higher=found.higher_is_better, stayed=stayed
    )
    winners = [
        RateWinner(group.lr or 0.0, group.verdict.best) for group in ordered if group.verdict
    ]
    first = ordered[0]
    what = first.regime, first.train_size, first.epochs, lrs
    return AcrossRates(*what, own, tuple(winners), verdict)
