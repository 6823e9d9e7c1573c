"""The numbers of a report, as rows for CSV and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from beftkit.files import headed
from beftkit.present.pages.figures import metric_gap
from beftkit.present.pages.selections import Folder
from beftkit.present.selection import TITLES, place_row, selection_rows
from beftkit.selection.results import GroupResult, Tau


def role_rows(folders: Sequence[Folder]) -> list[dict[str, Any]]:
    """A row a folder, place of the grid and role: with the columns of ``select --format csv``."""
    return [{**_which(one), **row} for one in folders for row in selection_rows(one.found)]


def group_rows(folders: Sequence[Folder]) -> list[dict[str, Any]]:
    """A row a folder and place of the grid.

    Targets, margin, gap, when the probe settled, metrics of each bias trained alone, and tau.
    """
    groups = [group for one in folders for group in one.found.groups]
    biases = list(dict.fromkeys(bias for group in groups for bias in group.verified))
    return [_row(one, group, biases) for one in folders for group in one.found.groups]


def report_values(folders: Sequence[Folder], title: str, files: Iterable[str]) -> dict[str, Any]:
    """Everything, with each folder's ``select.json`` whole; `Selection.from_dict` reads these."""
    held = [{"folder": one.path, **one.found.to_dict()} for one in folders]
    for one, values in zip(folders, held, strict=True):
        values["beftkit_version"] = one.version
    return headed({"title": title, "files": sorted(files), "folders": held})


def percent(group: GroupResult) -> float | None:
    """Share of the scalars that the target is, where it was trained alone."""
    row = group.verified.get(group.leading.target or "")
    return row.percent if row else None


def _which(one: Folder) -> dict[str, Any]:
    found = one.found
    return {"folder": one.path, "model": found.model, "task": found.task, "metric": found.metric}


def _row(one: Folder, group: GroupResult, biases: Sequence[str]) -> dict[str, Any]:
    lead = vars(group.leading.margin) if group.leading.margin else {}
    settled = vars(group.settled) if group.settled else {}
    row = {**_which(one), **place_row(group)}
    row |= {f"target_{name}": group.target(name) for name in TITLES}
    row["runner_up"] = lead.get("runner_up")
    row |= {f"margin_{key}": lead.get(key) for key in ("value", "low", "high", "close", "over")}
    row |= {"gap_v_q": group.gap, "metric_gap_v_q": metric_gap(group)}
    row |= {f"settled_{key}": settled.get(key) for key in ("target", "ranking", "steps")}
    row |= {"winner_best": group.winner.best, "winner_last": group.winner.last}
    verdict = group.verdict
    row |= {"best_alone": verdict and " ".join(verdict.best), "answer": verdict and verdict.answer}
    row |= {"recommended": verdict and verdict.recommended, "proven": verdict and verdict.proven}
    row |= {"metric_baseline": group.baseline, "never_left": verdict and " ".join(verdict.stayed)}
    for name in TITLES:
        tau = group.tau.get(name, Tau(None, None))
        row |= {f"tau_{name}_best": tau.best, f"tau_{name}_last": tau.last}
    row["percent_target"] = percent(group)
    for bias in biases:
        alone = vars(group.verified[bias]) if bias in group.verified else {}
        kept = ("best", "last", "standard_error", "train_seconds")
        row |= {f"{bias}_{key}": alone.get(key) for key in kept}
    return row
