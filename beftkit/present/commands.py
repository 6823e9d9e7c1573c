"""Commands from settings: the one that made a selection, those of its runs, the one to run next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from beftkit.checkpoints import model_reference
from beftkit.runs.folders import ADAPTER
from beftkit.runs.results import TrainResult
from beftkit.selection.cells import PROBE, Cell, run_settings
from beftkit.selection.results import CellResult, GroupResult, Selection
from beftkit.settings.resolve import flags_of, resolve_select
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings
from beftkit.tasks import OUR_METRICS


def select_command(found: Selection, folder: str) -> str:
    """The command that makes this selection, in one line for a POSIX shell.

    Raises:
        UsageError: settings that `beftkit.select` would not take.
    """
    names = [name for name in (*SelectSettings.GRID, *SelectSettings.SHARED) if name != "model"]
    flags = flags_of(resolve_select(None, found.settings), names)
    return shlex.join(["beftkit", "select", found.model, *flags, "-o", folder])


def run_commands(found: Selection, cell: CellResult, folder: str) -> list[str]:
    """The commands of a cell's runs: the probe's, and those that verified it.

    The control ``all`` is left out where the probe is that run.
    """
    select = resolve_select(None, found.settings)
    commands = []
    for name, run in cell.runs.items():
        if name != PROBE and run.folder == cell.runs[PROBE].folder:
            continue
        settings = run_settings(select, cell.cell, name, f"{folder}/{run.folder}")
        commands.append(_train(settings, TrainSettings.model_fields))
    return commands


def next_command(found: Selection, group: GroupResult, target: str) -> str:
    """The command that trains the target with the selection's own settings."""
    select = resolve_select(None, {**found.settings, "model": found.model})
    lr = group.lr if select.lrs else None  # else the task's own
    epochs = group.epochs if select.epochs else None
    name = re.sub(r"[^\w.-]+", "-", found.task)
    cell = Cell(group.regime, group.train_size, lr, epochs, 0)
    settings = run_settings(select, cell, target, None).model_copy(update={"seeds": group.seeds})
    names = (name for name in TrainSettings.model_fields if name != "track_steps")
    return _train(settings, names, "-o", f"runs/{name}-{target}")


def after_training(result: TrainResult) -> list[str]:
    """Commands for what a run made (of several seeds, the last one's); none: it made nothing.

    What its evaluation had is found beside it; leave to run code, and what is the machine's, has to
    be given again.
    """
    s, run = result.settings, result.runs[-1]
    if run.adapter is None or run.folder is None:
        return []
    place = f"{run.folder}/{run.adapter}"
    again = ["--trust-remote-code"] if s.trust_remote_code else []
    again += ["--device-map", s.device_map] if s.device_map else []
    if any(name not in OUR_METRICS for name in s.metric):
        again += [word for name in s.metric for word in ("--metric", name)]
    if run.adapter == ADAPTER:
        evaluate, score = ["--adapter", place], [place]
    else:
        evaluate, score = [place], [model_reference(s.model, s.revision), place]
    commands = [] if s.peft else [["score", *score]]
    if run.last is not None:
        commands.insert(0, ["evaluate", *evaluate, *again])
    return [shlex.join(["beftkit", *words]) for words in commands]


def _train(settings: TrainSettings, names: Iterable[str], *more: str) -> str:
    # Where the examples are counted or the user's own, a regime can only say "all".
    sized = settings.train_size is not None or settings.train_file is not None
    left_out = ("model", "regime") if sized else ("model",)
    flags = flags_of(settings, (name for name in names if name not in left_out))
    return shlex.join(["beftkit", "train", settings.model, *flags, *more])
