"""Over all cells of a verified selection: what each method's picks cost."""

from __future__ import annotations

from dataclasses import replace

from beftkit.selection.ranks import FREE, METHODS
from beftkit.selection.regret import Regret, mean_regret, regret_of
from beftkit.selection.results import Selection
from beftkit.selection.summary import metric_of


def compared(found: Selection) -> Selection:
    """The selection with what only all of its cells together tell."""
    return replace(found, regret=regrets(found))


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
    means = {name: mean_regret(costs[name]) for name in (*METHODS, *FREE) if name in costs}
    return {name: one for name, one in means.items() if one is not None}
