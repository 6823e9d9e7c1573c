"""A selection in full: tables, heatmaps, tracks, verification, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beftkit.errors import UsageError
from beftkit.present.pages.blocks import Block, Bullets, Code, Fold, Section, Table, Text
from beftkit.present.pages.commands import folded, run_commands, select_command
from beftkit.present.pages.probe_figures import heatmaps, track
from beftkit.present.pages.selections import Folder
from beftkit.present.scores import MEANING
from beftkit.present.selection import (
    TITLES,
    group_cells,
    margin_words,
    next_command,
    settled_words,
    tau_words,
    verified_cells,
)
from beftkit.selection.results import CellResult, GroupResult, Selection


def detail(one: Folder, number: int, several: bool) -> Section:
    """A folder's tables and figures, place by place of its grid.

    Args:
        one: the folder.
        number: which of the report's it is, from 1.
        several: whether there are others.

    Returns:
        A section with one below it for each place.
    """
    found = one.found
    roles = found.groups[0].projection.roles
    words = ", ".join(f"{role} {MEANING[role]}" for role in roles if role in MEANING)
    below = []
    for place, group in enumerate(found.groups, 1):
        name = "-".join(map(str, [*([number] if several else []),
                                  *([place] if len(found.groups) > 1 else [])]))  # fmt: skip
        below.append(Section(group.label, _place(one, group, f"-{name}" if name else "")))
    roles_words = [Text(f"Roles: {words}.")] if words else []
    return Section(one.label, roles_words, below)


def _place(one: Folder, group: GroupResult, suffix: str) -> list[Block]:
    found = one.found
    head, body, bold = group_cells(found, group)
    for row in body:
        row[-1] = row[-1].replace("<-", "←")
    seeds = ", ".join(map(str, group.seeds))
    plural = "s" * (len(group.seeds) > 1)
    title = f"Score and rank by method; {group.examples} training examples, seed{plural} {seeds}"
    blocks: list[Block] = [Table(title, head, body, bold)]
    said = []
    for method, table in group.methods.items():
        if table.margin:
            said.append(f"{TITLES[method]}: {margin_words(table.target, table.margin)}.")
    said += [_sentence(settled_words(group.settled))] if group.settled else []
    blocks += [Bullets(said)] if said else []
    cell = _first(found, group)
    if cell is not None:
        blocks.append(heatmaps(one, group, cell, f"layers{suffix}"))
        if cell.track:
            blocks.append(track(one, group, cell, f"track{suffix}"))
    if group.verified:
        head, body, bold = verified_cells(found, group)
        blocks.append(Table(f"Each trained alone: {found.metric}, best and last", head, body, bold))
        blocks.append(Bullets([_sentence(line) for line in tau_words(found, group)]))
    return blocks


def origin(one: Folder) -> Section:
    """How to make a folder again, and what to run next.

    Args:
        one: the folder.

    Returns:
        Settings and commands.
    """
    found = one.found
    blocks: list[Block] = [
        Text(f"{found.model} ({found.family}, {found.total:,} scalars) on {found.task}; folder "
             f"{one.path}, written by beftkit {one.version}."),
    ]  # fmt: skip
    if one.settings.strip():
        blocks += [Text("select.yaml:"), Code(one.settings.rstrip(), "yaml")]
    try:
        blocks += [Text("The selection:"), Code(folded(select_command(found, one.path)))]
        runs = {cell.folder: run_commands(found, cell, one.path) for cell in found.cells}
    except (UsageError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        return Section(one.label, [*blocks[:-1], Text(f"Its commands are not known: {reason}")])
    following = [
        next_command(found, group, target) for group in found.groups
        if (target := group.projection.target)
    ]  # fmt: skip
    if following:
        blocks += [Text("Next, the target alone, in each place of the grid:"),
                   Code("\n".join(map(folded, following)))]  # fmt: skip
    folds = [Code("\n".join(map(folded, lines))) for lines in runs.values() if lines]
    if folds:
        blocks.append(Fold(f"Its runs, one by one ({_count(runs)})", folds))
    return Section(one.label, blocks)


def _first(found: Selection, group: GroupResult) -> CellResult | None:
    """The first cell of a place that came to something."""
    want = (group.regime, group.train_size, group.lr, group.epochs)
    for cell in found.cells:
        if cell.methods and cell.cell.group == want:
            return cell
    return None


def _count(runs: Mapping[str, Sequence[Any]]) -> str:
    commands, cells = sum(map(len, runs.values())), len(runs)
    return f"{commands} command{'s' * (commands > 1)} in {cells} cell{'s' * (cells > 1)}"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
