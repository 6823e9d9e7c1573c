"""From cells to groups: means over seeds, ranks, margins, and how verification went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from beftkit.selection.certainty import kendall_tau, margin
from beftkit.selection.results import METHODS, CellResult, GroupResult
from beftkit.settings.select import SelectSettings


def summarise(
    cells: Sequence[CellResult], settings: SelectSettings, metric: str | None, higher: bool
) -> tuple[GroupResult, ...]:
    """One group for each place of the grid whose cells came to something."""
    grouped: dict[tuple[Any, ...], list[CellResult]] = {}
    for cell in cells:
        if cell.methods:
            c = cell.cell
            key = (c["regime"], c["train_size"], c["lr"], c["epochs"])
            grouped.setdefault(key, []).append(cell)
    return tuple(_group(key, members, settings, metric, higher)
                 for key, members in grouped.items())  # fmt: skip


def overall_targets(groups: Sequence[GroupResult]) -> dict[str, str | None]:
    """Method -> the role that most groups choose; where they are even, the first group's."""
    result: dict[str, str | None] = {}
    for method in METHODS:
        chosen = [g.methods[method]["target"] for g in groups if method in g.methods]
        if chosen:
            result[method] = Counter(chosen).most_common(1)[0][0]
    return result


def _group(
    key: tuple[Any, ...], cells: Sequence[CellResult], settings: SelectSettings,
    metric: str | None, higher: bool,
) -> GroupResult:  # fmt: skip
    methods = {}
    for method in METHODS:
        tables = [cell.methods[method] for cell in cells if method in cell.methods]
        if tables:
            methods[method] = _method(tables, settings)
    shifts = [cell.settled for cell in cells if cell.settled]
    roles = methods["projection"]["roles"]
    both = [roles[role]["score"] for role in ("v", "q") if role in roles]
    verified = _verified(cells, settings, metric)
    metrics = {
        which: {role: verified[role][which] for role in settings.candidates if role in verified}
        for which in ("best", "last")
    }
    tau = {
        method: {
            which: kendall_tau(
                {role: table["roles"][role]["rank"] for role in values if role in table["roles"]},
                {role: _signed(value, higher) for role, value in values.items()},
            )
            for which, values in metrics.items()
        }
        for method, table in methods.items()
        if metrics["best"]
    }
    winner = {which: _winner(values, higher) for which, values in metrics.items()}
    return GroupResult(
        regime=key[0], train_size=key[1], lr=key[2], epochs=key[3],
        seeds=[cell.cell["seed"] for cell in cells], examples=cells[0].examples, methods=methods,
        gap=both[0] - both[1] if len(both) == 2 and None not in both else None,
        settled={name: max(one[name] for one in shifts) for name in shifts[0]} if shifts else None,
        verified=verified, tau=tau, winner=winner if verified else {},
    )  # fmt: skip


def _winner(values: Mapping[str, float | None], higher: bool) -> str | None:
    signed = {role: _signed(value, higher) for role, value in values.items()}
    known = {role: value for role, value in signed.items() if value is not None}
    best = [role for role, value in known.items() if value == max(known.values())]
    return best[0] if len(best) == 1 else None


def _signed(value: float | None, higher: bool) -> float | None:
    return value if value is None or higher else -value


def _method(tables: Sequence[Mapping[str, Any]], settings: SelectSettings) -> dict[str, Any]:
    """Mean scores over seeds, ranked anew; the target, and by how much it leads."""
    roles: dict[str, dict[str, Any]] = {}
    for role, first in tables[0]["roles"].items():
        scores = [table["roles"][role]["score"] for table in tables]
        known = [score for score in scores if score is not None]
        whole = len(known) == len(scores)
        roles[role] = {
            "score": fmean(known) if whole else None,
            "deviation": stdev(known) if whole and len(known) > 1 else None,
            "inert": first["inert"], "width": first["width"], "norm_pre": first["norm_pre"],
        }  # fmt: skip

    def order(role: str) -> tuple[bool, bool, float]:
        one = roles[role]
        return one["score"] is None, one["inert"] == "yes", -(one["score"] or 0.0)

    ranked = {role: {**roles[role], "rank": None if roles[role]["score"] is None else rank}
              for rank, role in enumerate(sorted(roles, key=order), start=1)}  # fmt: skip
    can = sorted(
        (role for role in ranked if role in settings.candidates and ranked[role]["score"]
         and (settings.allow_inert or ranked[role]["inert"] != "yes")),
        key=lambda role: -ranked[role]["score"],
    )  # fmt: skip
    lead = None
    if len(can) > 1:
        target, other = ([table["roles"][role]["layers"] for table in tables] for role in can[:2])
        lead = margin(can[1], target, other).to_dict()
    return {"target": can[0] if can else None, "margin": lead, "roles": ranked}


def _verified(
    cells: Sequence[CellResult], settings: SelectSettings, metric: str | None
) -> dict[str, Any]:
    """Means over seeds of what each bias reached when it trained alone."""
    if not settings.verify or metric is None:
        return {}
    result = {}
    for bias in (*settings.candidates, "none", "all"):
        runs = [cell.runs[bias] for cell in cells if bias in cell.runs]
        if not runs:
            continue
        row: dict[str, Any] = {"seeds": len(runs)}
        for which in ("best", "last"):
            values = [_metric(run[which], metric) for run in runs]
            known = [value for value in values if value is not None]
            whole = len(known) == len(values)
            row[which] = fmean(known) if whole else None
            row[f"{which}_deviation"] = stdev(known) if whole and len(known) > 1 else None
        for name in ("percent", "train_seconds", "scalars"):
            row[name] = fmean(run[name] for run in runs)
        result[bias] = row
    return result


def _metric(metrics: Mapping[str, float | None], metric: str) -> float | None:
    """A run's metric; of two validation splits (MNLI) the first's."""
    if metric in metrics:
        return metrics[metric]
    return next((value for name, value in metrics.items() if name.startswith(metric)), None)
