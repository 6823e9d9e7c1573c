"""The command that made a selection and those of its runs, from its settings."""

from __future__ import annotations

import shlex

from beftkit.selection.cells import PROBE, run_settings
from beftkit.selection.results import CellResult, Selection
from beftkit.settings.resolve import flags_of, resolve_select
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings

_LINE = 76


def select_command(found: Selection, folder: str) -> str:
    """The command that makes this selection.

    Args:
        found: its result.
        folder: what is written to.

    Returns:
        One line for a POSIX shell.

    Raises:
        UsageError: settings that `beftkit.select` would not take.
    """
    settings = resolve_select(None, found.settings)
    names = [*SelectSettings.GRID, *SelectSettings.SHARED]
    words = ["beftkit", "select", found.model]
    words += flags_of(settings, (name for name in names if name != "model"))
    return shlex.join([*words, "-o", folder])


def run_commands(found: Selection, cell: CellResult, folder: str) -> list[str]:
    """The commands of a cell's runs: the probe's, and those that verified it.

    Args:
        found: the selection.
        cell: one of its cells.
        folder: the selection's folder.

    Returns:
        A line for each run; the control ``all`` is left out where the probe is that run.
    """
    select = resolve_select(None, found.settings)
    names = [name for name in TrainSettings.model_fields if name != "model"]
    commands = []
    for name, run in cell.runs.items():
        if name != PROBE and run.folder == cell.runs[PROBE].folder:
            continue
        settings = run_settings(select, cell.cell, name, f"{folder}/{run.folder}")
        commands.append(
            shlex.join(["beftkit", "train", settings.model, *flags_of(settings, names)])
        )
    return commands


def folded(command: str) -> str:
    """A command in lines of a readable length, still one command to a shell."""
    lines = [""]
    words = [shlex.quote(word) for word in shlex.split(command)]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        ahead = len(following) + 1 if word.startswith("-") and not following.startswith("-") else 0
        if lines[-1] and len(lines[-1]) + len(word) + ahead > _LINE:
            lines.append("  ")
        lines[-1] += f"{' ' if lines[-1].strip() else ''}{word}"
    return " \\\n".join(lines)
