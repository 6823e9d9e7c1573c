"""A selection in full: tables, heatmaps, tracks, verification, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beftkit.errors import UsageError
from beftkit.present.commands import next_command, run_commands, select_command
from beftkit.present.document import Block, Code, Command, Fold, Lines, Section
from beftkit.present.pages.probe_figures import heatmaps, track
from beftkit.present.pages.selections import Folder
from beftkit.present.selection import (
    TITLES,
    group_table,
    margin_words,
    reached_words,
    sample_words,
    settled_words,
    tau_words,
    verified_table,
)
from beftkit.present.verdicts import verified_words
from beftkit.present.words import MEANING
from beftkit.selection.results import GroupResult


def detail(one: Folder, number: int, several: bool) -> Section:
    """A folder's tables and figures, a section below it for each place of its grid.

    ``number`` is which of the report's it is, from 1; it names files where there are several.
    """
    found = one.found
    roles = found.groups[0].leading.roles
    words = ", ".join(f"{role} {MEANING[role]}" for role in roles if role in MEANING)
    below = []
    for place, group in enumerate(found.groups, 1):
        suffix = f"-{number}" if several else ""
        suffix += f"-{place}" if len(found.groups) > 1 else ""
        below.append(Section(group.label, _place(one, group, suffix)))
    return Section(one.label, [Lines([f"Roles: {words}."])] if words else [], below)


def _place(one: Folder, group: GroupResult, suffix: str) -> list[Block]:
    found = one.found
    title = f"Score and rank by method; {sample_words(group)}"
    blocks: list[Block] = [group_table(group, title, "←")]
    said = [
        f"{TITLES[method]}: {margin_words(table.target, table.margin)}."
        for method, table in group.methods.items()
        if table.margin
    ]
    said += [_sentence(settled_words(group.settled))] if group.settled else []
    blocks += [Lines(said, bullets=True)] if said else []
    want = (group.regime, group.train_size, group.lr, group.epochs)
    cells = [cell for cell in found.cells if cell.methods and cell.cell.group == want]
    for cell in cells[:1]:  # the first that came to something
        blocks.append(heatmaps(one, group, cell, f"layers{suffix}"))
        if cell.track:
            blocks.append(track(one, group, cell, f"track{suffix}"))
    if group.verified:
        title = f"Each trained alone: {reached_words(found, group)}"
        blocks.append(verified_table(found, group, title))
        said = [_sentence(line) for line in tau_words(group)]
        said += verified_words(found, group, group.verdict) if group.verdict else []
        blocks.append(Lines(said, bullets=True))
    return blocks


def origin(one: Folder) -> Section:
    """How to make a folder again, and what to run next: settings and commands."""
    found = one.found
    what = f"{found.model} ({found.family}, {found.total:,} scalars) on {found.task}"
    where = f"folder {one.path}, written by beftkit {one.version}"
    blocks: list[Block] = [Lines([f"{what}; {where}."])]
    if one.settings.strip():
        blocks += [Lines(["select.yaml:"]), Code(one.settings.rstrip(), "yaml")]
    try:
        blocks += [Lines(["The selection:"]), Command([select_command(found, one.path)])]
        runs = {cell.folder: run_commands(found, cell, one.path) for cell in found.cells}
    except (UsageError, KeyError, TypeError) as error:
        reason = " ".join(getattr(error, "at_terminal", str(error)).split())
        blocks[-1] = Lines([f"Its commands are not known: {reason}"])
        return Section(one.label, blocks)
    biases = [(g, g.verdict.recommended if g.verdict else g.leading.target) for g in found.groups]
    following = [next_command(found, group, bias) for group, bias in biases if bias]
    if following:
        blocks.append(Lines(["Next, what is recommended in each place of the grid, alone:"]))
        blocks.append(Command(following))
    folds = [Command(lines) for lines in runs.values() if lines]
    if folds:
        blocks.append(Fold(f"Its runs, one by one ({_count(runs)})", folds))
    return Section(one.label, blocks)


def _count(runs: Mapping[str, Sequence[str]]) -> str:
    commands, cells = sum(map(len, runs.values())), len(runs)
    return f"{commands} command{'s' * (commands > 1)} in {cells} cell{'s' * (cells > 1)}"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
