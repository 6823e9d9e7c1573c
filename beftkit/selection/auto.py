"""What ``bias="auto"`` means for a run: a selection first, in the run's own folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from beftkit.errors import BeftError, UsageError
from beftkit.runs import folders
from beftkit.runs.locks import LOCK, occupied
from beftkit.runs.prepare import with_regime
from beftkit.runs.provenance import Chosen
from beftkit.selection.cells import PROBE
from beftkit.selection.journey import select_with
from beftkit.settings.resolve import select_for_run
from beftkit.settings.train import TrainSettings
from beftkit.watching import Watcher

#: what a run's folder may hold before it is one
_APART = (folders.SELECT, LOCK)


def choose_bias(
    settings: TrainSettings,
    *,
    resume: bool,
    overwrite: bool,
    watcher: Watcher,
    asked_to_stop: Callable[[], int],
) -> Chosen:
    """The target of a selection with a run's own settings, kept in ``select`` of its folder.

    It is the projection ratio's: nothing is verified, and so there is nothing to outrank it.

    Raises:
        BeftError: no output, a folder that holds something, or no candidate that can be the target.
    """
    if settings.output is None:
        raise UsageError("--bias=auto: keeps its probe in the run's folder; give --output")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "--bias=auto: is for one process; several can share out a selection: `beftkit select`"
        )
    folder = Path(settings.output)
    held = folder.is_dir() and any(one.name not in _APART for one in folder.iterdir())
    if held and not (resume or overwrite):
        raise BeftError(f"{folder}: is not empty; --resume takes a run up, --overwrite replaces it")
    if held and overwrite:
        folders.former_files(folder, settings, overwrite=True, resume=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    with occupied(folder):
        found = select_with(
            select_for_run(with_regime(settings)),
            output=folder / folders.SELECT,
            resume=resume,
            overwrite=overwrite,
            watcher=watcher,
            asked_to_stop=asked_to_stop,
        )
    if found.target is None:
        why = "".join(f"; {note}" for note in found.notes if "zero in PRE" in note)
        raise BeftError(f"{folder / folders.SELECT}: no candidate can be the target{why}")
    table = found.groups[0].projection
    most = f" of the candidates; {', '.join(table.ahead)} more" if table.ahead else ""
    said = (
        f"moved {found.target} most{most} (projection ratio {table.roles[found.target].score:.4g}"
    )
    if table.margin is not None and table.margin.close:
        said += f", its lead over {table.margin.runner_up} not told apart from zero"
    watcher.note(f"the {PROBE} {said}; not verified): training it alone")
    return Chosen(found.target, "projection", table.roles[found.target].score, folders.SELECT)
