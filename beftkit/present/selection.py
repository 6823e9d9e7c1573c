"""A selection to a document: the table, the proof, and plain words on what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from beftkit.present.commands import next_command
from beftkit.present.document import Block, Column, Command, Document, Lines, Table, numbers, texts
from beftkit.present.noise import noise_words
from beftkit.present.rates import at_own_rates, rates_blocks, unlooked_words
from beftkit.present.regrets import NAMES, free_words, regret_table, regret_words
from beftkit.present.verdicts import best_words, score_words, stayed_words, verified_words
from beftkit.present.words import count, fixed, marks, noted, number
from beftkit.tasks.deviations import zero_error_note

if TYPE_CHECKING:
    from beftkit.selection import GroupResult, Selection
    from beftkit.selection.certainty import Margin, Settled
    from beftkit.selection.ranks import RoleMean

#: those that the tables of scores hold
TITLES = {name: NAMES[name] for name in ("projection", "magnitude", "fisher")}
#: of methods that chose a role, in few letters
_SHORTER = (("projection", "proj"), ("magnitude", "magn"), (", ", ","))


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
    blocks += rates_blocks(found)
    if found.regret:
        blocks.append(Lines([f"{regret_words(found.metric)}:"]))
        blocks.append(regret_table(found.regret, found.cells))
    if found.notes:
        blocks.append(Lines(noted(found.notes)))
    return Document(found.to_dict(), selection_rows(found), [*blocks, *advice_blocks(found)])


def headline(found: Selection) -> Lines:
    """What was asked, and each method's answer."""
    targets = ", ".join(f"{TITLES[name]} {role or 'none'}" for name, role in found.targets.items())
    failed = sum(bool(cell.failed) for cell in found.cells)
    cells = f"{len(found.cells)} cells" if len(found.cells) > 1 else "1 cell"
    failures = f", {failed} with failures" if failed else ""
    what = f"{found.model} ({found.family}) on {found.task}; {cells}{failures}"
    return Lines([what, f"target by method: {targets}"])


def group_blocks(found: Selection, group: GroupResult) -> list[Block]:
    """Title, table, and what verification showed, for one place of the grid."""
    blocks: list[Block] = [Lines([f"{group.label}: {sample_words(group)}"]), group_table(group)]
    target, margin = group.leading.target, group.leading.margin
    said = [margin_words(target, margin)] if margin else []
    said += [settled_words(group.settled)] if group.settled else []
    said += [*noise_words(group, found.candidates), *free_words(group)]
    if said:
        blocks.append(Lines(said, tight=not margin))
    if group.verified:
        blocks.append(Lines([f"each trained alone, {reached_words(found, group)}:"]))
        said = [*tau_words(group), *(stayed_words(group) if len(found.groups) > 1 else [])]
        blocks += [verified_table(found, group), Lines(said)]
    return blocks


def advice_blocks(found: Selection) -> list[Block]:
    """What to do, and the command for it."""
    words, command = advice(found)
    return [Lines(words), *([Command([command])] if command else [])]


def group_table(group: GroupResult, title: str = "", arrow: str = "<-") -> Table:
    """The paper's Figure 1 as a table: score and rank of each role by each method."""
    methods, roles = group.methods, group.leading.roles
    body = []
    for role, one in roles.items():
        row = [role]
        for table in methods.values():
            mine = table.roles.get(role)
            row += [_spread(mine.score, mine.deviation) if mine else "-", _rank(mine)]
        picks = [TITLES[name] for name, table in methods.items() if table.target == role]
        who = "all" if len(picks) == len(methods) else ", ".join(picks)
        row += [number(one.norm_pre), count(one.width, "mixed")]
        body.append([*row, marks(one.inert, f"{arrow} {who}" if picks else "")])
    mixed = any(one.width is None for one in roles.values())
    columns = texts("role")
    for spare, name in enumerate(methods):  # a score goes with its rank
        columns += numbers(TITLES[name], spare=spare)
        columns += numbers("rank", spare=spare, name=f"{TITLES[name]} rank")
    columns += numbers("‖pre‖", spare=4)
    columns += [Column("width", on_page="left" if mixed else None, spare=5)]
    columns += texts("", folds=True, name="inert, choices", shorter=_SHORTER)
    return Table(columns, body, [role == group.leading.target for role in roles], title)


def verified_table(found: Selection, group: GroupResult, title: str = "") -> Table:
    """What each bias reached alone, beside its ranks."""
    body = []
    for bias, row in group.verified.items():
        known = bias in found.candidates
        tables = group.methods.values()
        ranks = [_rank(table.roles.get(bias) if known else None) for table in tables]
        reached: list[str | None] = []
        reached += [_spread(row.best, row.best_deviation), _spread(row.last, row.last_deviation)]
        reached += [None if row.standard_error is None else fixed(row.standard_error)]
        body.append([bias, *reached, *ranks, fixed(row.percent), f"{row.train_seconds:.1f}"])
    ranks = [f"{TITLES[name]} rank" for name in group.methods]
    columns = [*texts("bias"), *numbers("best", "last"), *numbers("std. error", spare=1)]
    for spare, rank in enumerate(ranks, 2):
        columns += numbers(rank, spare=spare)
    columns += [*numbers("% of scalars", spare=5), *numbers("train s", spare=6)]
    best = group.verdict.best if group.verdict and group.verdict.recommended else ()
    strong = [bias in best for bias in group.verified]
    if group.baseline is not None:
        body.append([group.baseline_is, fixed(group.baseline), *[""] * (len(columns) - 2)])
        strong.append(False)
    return Table(columns, body, strong, title)


def reached_words(found: Selection, group: GroupResult) -> str:
    """What the columns of `verified_table` are."""
    several = max((one.seeds for one in group.verified.values()), default=1) > 1
    spread = "± deviation over seeds; " if several else ""
    errors = [one.standard_error for one in group.verified.values()]
    zero = "".join(f"; {note}" for note in zero_error_note(errors))
    error = f"std. error: one standard error at this many validation examples{zero}"
    return f"{found.metric} ({spread}{error})"


def _grid_table(found: Selection) -> Table:
    """One row a place of the grid: targets, the gap between v and q, and the proof."""
    tau = any(group.tau for group in found.groups)
    targets = [TITLES[name] for name in found.targets]
    columns = [*texts("cell", folds=True), *numbers(*targets)]
    columns += [*numbers("v - q", spare=1), *numbers("settled at", spare=2)]
    columns += numbers("best alone", "to train", "tau") if tau else []
    body = []
    for group in found.groups:
        row = [group.label, *(group.target(name) or "none" for name in found.targets)]
        row += [number(group.gap), count(group.settled.ranking if group.settled else None)]
        if tau:
            train = (group.verdict.recommended or "nothing") if group.verdict else "-"
            row += [best_words(group), train, number(group.tau_of(group.method))]
        body.append(row)
    return Table(columns, body)


def sample_words(group: GroupResult) -> str:
    """How many examples, and which seeds."""
    seeds = ", ".join(map(str, group.seeds))
    return f"{group.examples} training examples, seed{'s' * (len(group.seeds) > 1)} {seeds}"


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


def tau_words(group: GroupResult) -> list[str]:
    """Each method against the metrics."""
    best = group.verdict.best if group.verdict else ()
    lines = []
    for name, tau in group.tau.items():
        picked = "picked" if group.target(name) in best else "did not pick"
        verdict = f"it {picked} {best[0]}, the best of the candidates" if best else "no metric"
        verdict = f"{best_words(group)}" if len(best) > 1 else verdict
        known = f"{number(tau.best)} (last epoch {number(tau.last)})"
        lines.append(f"{TITLES[name]}: Kendall's tau {known}; {verdict}")
    return lines


def advice(found: Selection) -> Advice:
    """Which bias, by how much, what it costs, what to run next."""
    bias, place = found.recommended, found.place
    if bias is None or place is None:
        groups = [at_own_rates(found, one) for one in found.rates] or found.groups
        judged = [(group, group.verdict) for group in groups if group.verdict]
        if not judged:
            return Advice(["No candidate can be the target; nothing to train."], None)
        lines = []
        for group, verdict in judged:
            where = f"{group.label}: " if len(judged) > 1 else ""
            first, *rest = verified_words(found, group, verdict)
            lines += [f"{where}{first}", *(rest if len(judged) == 1 else [])]
        return Advice(lines, None)
    group = at_own_rates(found, found.across) if found.across else found.groups[place]
    if group.verdict:
        lines = verified_words(found, group, group.verdict)
        own = ", each bias at its own best rate" if found.across else ""
        lines[0] = f"{lines[0][:-1]}{own}."
        lines += unlooked_words(found)
    else:
        lines = score_words(found, group)
        lines.append("Not verified: with --verify each candidate is trained alone.")
    if len(found.groups) > 1:
        lines[0] = f"{lines[0][:-1]} ({group.label})."
    if scalars := _scalars(found, group, bias):
        share = f"{scalars:,} of {found.total:,} scalars ({100 * scalars / found.total:.4f} %)"
        runs = [run for cell in found.cells for run in cell.runs.values()]
        head = any(run.head_scalars != 0 for run in runs)  # older files do not say
        lines.append(f"It costs {share}{', and the classifier' if head else ''}.")
    return Advice(lines, next_command(found, group, bias))


def selection_rows(found: Selection) -> list[dict[str, Any]]:
    """One row a place of the grid and role: every method's score and rank, and its metric."""
    rows = []
    for group in found.groups:
        for role, one in group.leading.roles.items():
            row = {**place_row(group), "role": role, "inert": one.inert, "width": one.width}
            row["norm_pre"] = one.norm_pre
            for name in TITLES:
                mine = group.methods[name].roles.get(role) if name in group.methods else None
                row |= {name: mine and mine.score, f"{name}_deviation": mine and mine.deviation}
                row[f"{name}_rank"] = mine and mine.rank
            moment = group.free["adam"].roles.get(role) if "adam" in group.free else None
            row |= {"adam": moment and moment.score, "adam_rank": moment and moment.rank}
            alone = group.verified.get(role)
            row |= {"metric_best": alone and alone.best, "metric_last": alone and alone.last}
            row |= {"metric_standard_error": alone and alone.standard_error}
            row["metric_baseline"] = group.baseline
            row["percent"] = alone and alone.percent
            rows.append({**row, "train_seconds": alone and alone.train_seconds})
    return rows


def place_row(group: GroupResult) -> dict[str, Any]:
    """Where in the grid, as columns of a row."""
    row = {name: getattr(group, name) for name in ("regime", "train_size", "lr", "epochs")}
    return {**row, "seeds": " ".join(map(str, group.seeds)), "examples": group.examples}


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
