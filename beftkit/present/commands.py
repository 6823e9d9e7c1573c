"""Commands from settings: the one that made a selection, those of its runs, the one to run next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from beftkit.selection.cells import PROBE, Cell, cell_settings, split_settings
from beftkit.selection.results import CellResult, GroupResult, Selection
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings, flags_of


def select_command(found: Selection, folder: str) -> str:
    """The command that makes this selection, in one line for a POSIX shell.

    Raises:
        UsageError: settings that `beftkit.select` would not take.
    """
    mine, rest = split_settings(None, None, found.settings)
    words = ["beftkit", "select", found.model]
    words += flags_of(SelectSettings, mine.model_dump(mode="json"))
    words += flags_of(TrainSettings, {key: value for key, value in rest.items() if key != "model"})
    return shlex.join([*words, "-o", folder])


def run_commands(found: Selection, cell: CellResult, folder: str) -> list[str]:
    """The commands of a cell's runs: the probe's, and those that verified it.

    The control ``all`` is left out where the probe is that run.
    """
    mine, rest = split_settings(None, None, found.settings)
    commands = []
    for name, run in cell.runs.items():
        if name != PROBE and run.folder == cell.runs[PROBE].folder:
            continue
        settings = cell_settings(rest, mine, cell.cell, name, f"{folder}/{run.folder}")
        commands.append(_train(settings.model, settings.model_dump(mode="json", exclude={"model"})))
    return commands


def next_command(found: Selection, group: GroupResult, target: str) -> str:
    """The command that trains the target with the selection's own settings."""
    select, rest = split_settings(found.model, None, found.settings)
    lr = group.lr if select.lrs else None  # else the task's own
    epochs = group.epochs if select.epochs else None
    name = re.sub(r"[^\w.-]+", "-", found.task)
    cell = Cell(group.regime, group.train_size, lr, epochs, 0)
    settings = cell_settings(rest, select, cell, target, None)
    values = {**settings.model_dump(mode="json"), "seeds": list(group.seeds)}
    values |= dict.fromkeys(("model", "track_steps"))
    return _train(found.model, values, "-o", f"runs/{name}-{target}")


def _train(model: str, values: Mapping[str, Any], *more: str) -> str:
    return shlex.join(["beftkit", "train", model, *flags_of(TrainSettings, values), *more])
