"""A selection to a document: the table, the proof, and plain words on what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from beftkit.present.commands import next_command
from beftkit.present.document import (
    Block,
    Column,
    Command,
    Document,
    Lines,
    Table,
    numbers,
    texts,
)
from beftkit.present.words import MEANING, count, fixed, marks, noted, number

if TYPE_CHECKING:
    from beftkit.selection import GroupResult, Selection

TITLES = {"projection": "projection", "magnitude": "magnitude", "fisher": "Fisher"}


class Advice(NamedTuple):
    """Which bias, by how much and at what cost; the command that trains it, if there is one."""

    words: list[str]
    command: str | None


def selection_document(found: Selection) -> Document:
    """A table a place of the grid, one over the grid, advice; a CSV row a place and role."""
    blocks: list[Block] = [headline(found)]
    for group in found.groups:
        blocks += group_blocks(found, group)
    if len(found.groups) > 1:
        blocks += [Lines(["targets over the grid:"]), _grid_table(found)]
    if found.notes:
        blocks.append(Lines(noted(found.notes)))
    return Document(found.to_dict(), selection_rows(found), [*blocks, *advice_blocks(found)])


def headline(found: Selection) -> Lines:
    """What was asked, and each method's answer."""
    targets = ", ".join(f"{TITLES[name]} {role or 'none'}" for name, role in found.targets.items())
    failed = sum(bool(cell.failed) for cell in found.cells)
    cells = f"{len(found.cells)} cells" if len(found.cells) > 1 else "1 cell"
    failures = f", {failed} with failures" if failed else ""
    return Lines(
        [
            f"{found.model} ({found.family}) on {found.task}; {cells}{failures}",
            f"target by method: {targets}",
        ]
    )


def group_blocks(found: Selection, group: GroupResult) -> list[Block]:
    """Title, table, and what verification showed, for one place of the grid."""
    blocks: list[Block] = [Lines([f"{group.label}: {sample_words(group)}"]), group_table(group)]
    chosen = group.methods["projection"]
    said = [margin_words(chosen["target"], chosen["margin"])] if chosen["margin"] else []
    said += [settled_words(group)] if group.settled else []
    if said:
        blocks.append(Lines(said, tight=not chosen["margin"]))
    if group.verified:
        blocks.append(Lines([f"each trained alone, {found.metric}:"]))
        blocks += [verified_table(found, group), Lines(tau_words(group))]
    return blocks


def advice_blocks(found: Selection) -> list[Block]:
    """What to do, and the command for it."""
    words, command = advice(found)
    return [Lines(words), *([Command([command])] if command else [])]


def group_table(group: GroupResult, title: str = "", arrow: str = "<-") -> Table:
    """The paper's Figure 1 as a table: score and rank of each role by each method."""
    methods, roles = group.methods, group.methods["projection"]["roles"]
    body = []
    for role, one in roles.items():
        row = [role]
        for table in methods.values():
            mine = table["roles"].get(role, {})
            row += [_spread(mine.get("score"), mine.get("deviation")), str(mine.get("rank") or "-")]
        picks = [TITLES[name] for name, table in methods.items() if table["target"] == role]
        who = "all" if len(picks) == len(methods) else ", ".join(picks)
        row += [number(one["norm_pre"]), count(one["width"], "mixed")]
        body.append([*row, marks(one["inert"], f"{arrow} {who}" if picks else "")])
    mixed = any(one["width"] is None for one in roles.values())
    columns = texts("role")
    for name in methods:
        columns += numbers(TITLES[name], "rank")
    columns += [*numbers("‖pre‖"), Column("width", on_page="left" if mixed else None), *texts("")]
    return Table(columns, body, [role == methods["projection"]["target"] for role in roles], title)


def verified_table(found: Selection, group: GroupResult, title: str = "") -> Table:
    """What each bias reached alone, beside its ranks."""
    body = []
    for bias, row in group.verified.items():
        known = [
            table["roles"].get(bias, {}) if bias in found.candidates else {}
            for table in group.methods.values()
        ]
        reached = [_spread(row[kind], row[f"{kind}_deviation"]) for kind in ("best", "last")]
        ranks = [str(one.get("rank") or "-") for one in known]
        body.append([bias, *reached, *ranks, fixed(row["percent"]), f"{row['train_seconds']:.1f}"])
    ranks = [f"{TITLES[name]} rank" for name in group.methods]
    columns = [*texts("bias"), *numbers("best", "last", *ranks, "% of scalars", "train s")]
    winner = group.winner.get("best")
    return Table(columns, body, [bias == winner for bias in group.verified], title)


def _grid_table(found: Selection) -> Table:
    """One row a place of the grid: targets, the gap between v and q, and the proof."""
    tau = any(group.tau for group in found.groups)
    targets = [TITLES[name] for name in found.targets]
    columns = [*texts("cell"), *numbers(*targets, "v - q", "settled at")]
    columns += numbers("best alone", "tau") if tau else []
    body = []
    for group in found.groups:
        row = [group.label]
        row += [str(group.methods.get(name, {}).get("target") or "none") for name in found.targets]
        row += [number(group.gap), count(group.settled["ranking"] if group.settled else None)]
        if tau:
            mine = group.tau.get("projection", {}).get("best")
            row += [group.winner.get("best") or "-", number(mine)]
        body.append(row)
    return Table(columns, body)


def sample_words(group: GroupResult) -> str:
    """How many examples, and which seeds."""
    seeds = ", ".join(map(str, group.seeds))
    return f"{group.examples} training examples, seed{'s' * (len(group.seeds) > 1)} {seeds}"


def margin_words(target: str | None, lead: Mapping[str, Any]) -> str:
    """By how much the target leads, and how sure that is."""
    ratio = f"{target} leads {lead['runner_up']} by {lead['value']:.4g}"
    if lead["low"] is None:
        return f"{ratio} (one layer, one seed: no interval)"
    interval = f"95 % interval {lead['low']:.4g} to {lead['high']:.4g} over layers and seeds"
    return f"{ratio}, {interval}" + (": too close to call" if lead["close"] else "")


def settled_words(group: GroupResult) -> str:
    """How short the probe might have been."""
    one = group.settled or {}
    return (
        f"the target stays the same from update {one['target']} of {one['steps']}, the candidates' "
        f"ranking from update {one['ranking']}; --probe-steps N stops a probe early"
    )


def tau_words(group: GroupResult) -> list[str]:
    """Each method against the metrics."""
    winner = group.winner.get("best")
    lines = []
    for name, tau in group.tau.items():
        picked = "picked" if group.methods[name]["target"] == winner else "did not pick"
        verdict = f"it {picked} the winner {winner}" if winner else "the candidates tie"
        known = f"{number(tau['best'])} (last epoch {number(tau['last'])})"
        lines.append(f"{TITLES[name]}: Kendall's tau {known}; {verdict}")
    return lines


def advice(found: Selection) -> Advice:
    """Which bias, by how much, what it costs, what to run next."""
    target = found.target
    if target is None:
        return Advice(["No candidate can be the target; nothing to train."], None)
    group = next(g for g in found.groups if g.methods["projection"]["target"] == target)
    table = group.methods["projection"]
    score, lead = table["roles"][target]["score"], table["margin"]
    words = f"Train b_{target} ({MEANING.get(target, 'raw name')}): it moved most, {score:.4g}"
    if lead and lead["runner_up"]:
        other = table["roles"][lead["runner_up"]]["score"]
        words += f", {score / other:.3g} times the runner-up {lead['runner_up']}" if other else ""
        words += " (too close to call)" if lead["close"] else ""
    lines = [f"{words}."]
    if scalars := _scalars(found, group, target):
        share = f"{scalars:,} of {found.total:,} scalars ({100 * scalars / found.total:.4f} %)"
        lines.append(f"It costs {share}, and the classifier.")
    winner = group.winner.get("best")
    mine = group.verified.get(target, {}).get("best")
    if winner is not None and mine is not None:
        best = f"less than {winner}'s {group.verified[winner]['best']:.4f}"
        verdict = "the best of the candidates" if winner == target else best
        lines.append(f"Trained alone it reached {found.metric} {mine:.4f}, {verdict}.")
    return Advice(lines, next_command(found, group, target))


def selection_rows(found: Selection) -> list[dict[str, Any]]:
    """One row a place of the grid and role: every method's score and rank, and its metric."""
    rows = []
    for group in found.groups:
        for role, one in group.methods["projection"]["roles"].items():
            row = {**place_row(group), "role": role}
            row |= {name: one[name] for name in ("inert", "width", "norm_pre")}
            for name in TITLES:
                mine = group.methods.get(name, {}).get("roles", {}).get(role, {})
                row |= {name: mine.get("score"), f"{name}_deviation": mine.get("deviation")}
                row[f"{name}_rank"] = mine.get("rank")
            alone = group.verified.get(role, {})
            row |= {f"metric_{kind}": alone.get(kind) for kind in ("best", "last")}
            row |= {name: alone.get(name) for name in ("percent", "train_seconds")}
            rows.append(row)
    return rows


def place_row(group: GroupResult) -> dict[str, Any]:
    """Where in the grid, as columns of a row."""
    row = {name: getattr(group, name) for name in ("regime", "train_size", "lr", "epochs")}
    return {**row, "seeds": " ".join(map(str, group.seeds)), "examples": group.examples}


def _scalars(found: Selection, group: GroupResult, target: str) -> int | None:
    if target in group.verified:
        return int(group.verified[target]["scalars"])
    cell = next(cell for cell in found.cells if cell.methods)
    one = cell.methods["projection"]["roles"][target]
    return None if one["width"] is None else int(one["width"]) * len(one["layers"])


def _spread(value: float | None, deviation: float | None) -> str:
    return number(value) + ("" if deviation is None else f" ±{number(deviation)}")
