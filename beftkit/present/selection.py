"""A selection in, text out: the table, the proof, and plain words on what to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from beftkit.present.rendering import csv_text, json_text, markdown_table, rich_table
from beftkit.present.scores import MEANING, number
from beftkit.settings.resolve import flags_of, resolve_select
from beftkit.settings.train import TrainSettings

if TYPE_CHECKING:
    from beftkit.selection import GroupResult, Selection
    from beftkit.selection.certainty import Margin, Settled
    from beftkit.selection.results import RoleMean

TITLES = {"projection": "projection", "magnitude": "magnitude", "fisher": "Fisher"}


def selection_text(found: Selection, form: str) -> Any:
    """A selection as ``json``, ``csv`` (a row a group and role), ``markdown``, or rich."""
    if form == "json":
        return json_text(found.to_dict())
    if form == "csv":
        return csv_text(selection_rows(found))
    lines: list[Any] = headline(found)
    for group in found.groups:
        lines += ["", *group_parts(found, group, form)]
    if len(found.groups) > 1:
        head, body = grid_cells(found)
        lines += ["", "targets over the grid:", "", *_table(head, body, [False] * len(body), form)]
    lines += ["", *(f"note: {note}" for note in found.notes)] if found.notes else []
    lines += ["", *plain_words(found)]
    if form == "markdown":
        return "\n".join(lines).rstrip() + "\n"
    return lines


def headline(found: Selection) -> list[str]:
    """What was asked, and each method's answer."""
    targets = ", ".join(f"{TITLES[name]} {role or 'none'}" for name, role in found.targets.items())
    failed = sum(bool(cell.failed) for cell in found.cells)
    count = f"{len(found.cells)} cells" if len(found.cells) > 1 else "1 cell"
    return [
        f"{found.model} ({found.family}) on {found.task}; {count}"
        + (f", {failed} with failures" if failed else ""),
        f"target by method: {targets}",
    ]


def group_parts(found: Selection, group: GroupResult, form: str) -> list[Any]:
    """Title, table, and what verification showed, for one place of the grid."""
    head, body, bold = group_cells(found, group)
    seeds = ", ".join(map(str, group.seeds))
    parts: list[Any] = [
        f"{group.label}: {group.examples} training examples, seed{'s' * (len(group.seeds) > 1)} "
        f"{seeds}",
        "", *_table(head, body, bold, form),
    ]  # fmt: skip
    if group.projection.margin:
        parts += ["", margin_words(group.projection.target, group.projection.margin)]
    if group.settled:
        parts.append(settled_words(group.settled))
    if group.verified:
        head, body, bold = verified_cells(found, group)
        parts += ["", f"each trained alone, {found.metric}:", "", *_table(head, body, bold, form)]
        parts += ["", *tau_words(found, group)]
    return parts


def group_cells(
    found: Selection, group: GroupResult
) -> tuple[list[str], list[list[str]], list[bool]]:
    """The paper's Figure 1 as a table: score and rank of each role by each method."""
    methods = group.methods
    head = ["role", *(TITLES[name] for name in methods for _ in (0, 1)), "‖pre‖", "width", ""]
    for place in range(2, 2 * len(methods) + 1, 2):
        head[place] = "rank"
    body, bold = [], []
    for role, one in group.projection.roles.items():
        row = [role]
        for table in methods.values():
            mine = table.roles.get(role)
            row += [_spread(mine.score, mine.deviation) if mine else "-", _rank(mine)]
        marks = {"yes": ["inert"], "unknown": ["inert?"]}.get(one.inert, [])
        picks = [TITLES[name] for name, table in methods.items() if table.target == role]
        if picks:
            marks = [*marks, "<- " + ("all" if len(picks) == len(methods) else ", ".join(picks))]
        width = "mixed" if one.width is None else str(one.width)
        body.append([*row, number(one.norm_pre), width, " ".join(marks)])
        bold.append(role == group.projection.target)
    return head, body, bold


def verified_cells(
    found: Selection, group: GroupResult
) -> tuple[list[str], list[list[str]], list[bool]]:
    """What each bias reached alone, beside its ranks."""
    head = ["bias", "best", "last", *(f"{TITLES[name]} rank" for name in group.methods),
            "% of scalars", "train s"]  # fmt: skip
    body, bold = [], []
    for bias, row in group.verified.items():
        known = bias in found.candidates
        ranks = [_rank(table.roles.get(bias) if known else None)
                 for table in group.methods.values()]  # fmt: skip
        body.append([
            bias, _spread(row.best, row.best_deviation), _spread(row.last, row.last_deviation),
            *ranks, f"{row.percent:.4f}", f"{row.train_seconds:.1f}",
        ])  # fmt: skip
        bold.append(bias == group.winner.best)
    return head, body, bold


def grid_cells(found: Selection) -> tuple[list[str], list[list[str]]]:
    """One row a place of the grid: targets, the gap between v and q, and the proof."""
    tau = any(group.tau for group in found.groups)
    head = ["cell", *(TITLES[name] for name in found.targets), "v - q", "settled at",
            *(["best alone", "tau"] if tau else [])]  # fmt: skip
    body = []
    for group in found.groups:
        row = [
            group.label, *(str(group.target(name) or "none") for name in found.targets),
            number(group.gap), str(group.settled.ranking) if group.settled else "-",
        ]  # fmt: skip
        if tau:
            row += [group.winner.best or "-", number(group.tau_of("projection"))]
        body.append(row)
    return head, body


def margin_words(target: str | None, lead: Margin) -> str:
    """By how much the target leads, and how sure that is."""
    ratio = f"{target} leads {lead.runner_up} by {lead.value:.4g}"
    if lead.low is None:
        return f"{ratio} (one layer, one seed: no interval)"
    over = f" over {lead.over}" if lead.over else ""
    interval = f"95 % interval {lead.low:.4g} to {lead.high:.4g}{over}"
    return f"{ratio}, {interval}" + (": too close to call" if lead.close else "")


def settled_words(one: Settled) -> str:
    """How short the probe might have been."""
    return (
        f"the target stays the same from update {one.target} of {one.steps}, the candidates' "
        f"ranking from update {one.ranking}; --probe-steps N stops a probe early"
    )


def tau_words(found: Selection, group: GroupResult) -> list[str]:
    """Each method against the metrics."""
    winner = group.winner.best
    lines = []
    for name, tau in group.tau.items():
        target = group.target(name)
        verdict = "the candidates tie" if winner is None else (
            f"it {'picked' if target == winner else 'did not pick'} the winner {winner}"
        )  # fmt: skip
        lines.append(
            f"{TITLES[name]}: Kendall's tau {number(tau.best)} (last epoch "
            f"{number(tau.last)}); {verdict}"
        )
    return lines


def plain_words(found: Selection) -> list[str]:
    """Which bias, by how much, what it costs, what to run next."""
    target = found.target
    if target is None:
        return ["No candidate can be the target; nothing to train."]
    group = next(g for g in found.groups if g.projection.target == target)
    table = group.projection
    score, lead = table.roles[target].score, table.margin
    words = f"Train b_{target} ({MEANING.get(target, 'raw name')}): it moved most, {score:.4g}"
    if lead and score is not None:
        other = table.roles[lead.runner_up].score
        times = f", {score / other:.3g} times the runner-up {lead.runner_up}" if other else ""
        words += times + (" (too close to call)" if lead.close else "")
    lines = [f"{words}."]
    scalars = _scalars(found, group, target)
    if scalars:
        lines.append(
            f"It costs {scalars:,} of {found.total:,} scalars ({100 * scalars / found.total:.4f} "
            "%), and the classifier."
        )
    winner = group.winner.best
    mine = group.reached(target)
    if winner is not None and mine is not None:
        lines.append(
            f"Trained alone it reached {found.metric} {mine:.4f}, the best of the candidates."
            if winner == target
            else f"Trained alone it reached {found.metric} {mine:.4f}, less than {winner}'s "
            f"{group.reached(winner):.4f}."
        )
    return [*lines, f"Next: {next_command(found, group, target)}"]


def next_command(found: Selection, group: GroupResult, target: str) -> str:
    """The command that trains the target with the selection's own settings."""
    from beftkit.selection.cells import Cell, run_settings

    select = resolve_select(None, {**found.settings, "model": found.model})
    lr = group.lr if select.lrs else None  # else the task's own
    epochs = group.epochs if select.epochs else None
    name = re.sub(r"[^\w.-]+", "-", found.task)
    cell = Cell(group.regime, group.train_size, lr, epochs, 0)
    settings = run_settings(select, cell, target, None)
    settings = settings.model_copy(update={"seeds": tuple(group.seeds)})
    shown = (one for one in TrainSettings.model_fields if one not in ("model", "track_steps"))
    words = ["beftkit", "train", found.model, *flags_of(settings, shown)]
    return shlex.join([*words, "-o", f"runs/{name}-{target}"])


def selection_rows(found: Selection) -> list[dict[str, Any]]:
    """One row a place of the grid and role: every method's score and rank, and its metric."""
    rows = []
    for group in found.groups:
        for role, one in group.projection.roles.items():
            row: dict[str, Any] = {
                "regime": group.regime, "train_size": group.train_size, "lr": group.lr,
                "epochs": group.epochs, "seeds": " ".join(map(str, group.seeds)),
                "examples": group.examples, "role": role, "inert": one.inert, "width": one.width,
                "norm_pre": one.norm_pre,
            }  # fmt: skip
            for name in TITLES:
                mine = group.methods[name].roles.get(role) if name in group.methods else None
                row |= {name: mine and mine.score, f"{name}_deviation": mine and mine.deviation,
                        f"{name}_rank": mine and mine.rank}  # fmt: skip
            alone = group.verified.get(role)
            row |= {
                "metric_best": alone and alone.best, "metric_last": alone and alone.last,
                "percent": alone and alone.percent,
                "train_seconds": alone and alone.train_seconds,
            }  # fmt: skip
            rows.append(row)
    return rows


def _scalars(found: Selection, group: GroupResult, target: str) -> int | None:
    if target in group.verified:
        return int(group.verified[target].scalars)
    cell = next(cell for cell in found.cells if cell.methods)
    one = cell.methods["projection"].roles[target]
    return None if one.width is None else one.width * len(one.layers)


def _rank(role: RoleMean | None) -> str:
    return str(role.rank or "-") if role else "-"


def _spread(value: float | None, deviation: float | None) -> str:
    return number(value) + ("" if deviation is None else f" ±{number(deviation)}")


def _table(
    head: Sequence[str], body: Sequence[Sequence[str]], bold: Sequence[bool], form: str
) -> list[Any]:
    return markdown_table(head, body) if form == "markdown" else [rich_table(head, body, bold)]
