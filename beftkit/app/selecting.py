"""`beftkit select`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from beftkit.app.common import Format, show
from beftkit.app.options import flag, late_command, with_settings
from beftkit.app.progress import IS_MAIN, watched
from beftkit.app.training import (
    DryRun,
    LateFormat,
    LateQuiet,
    ModelArgument,
    Time,
    check_asked,
    show_time,
)
from beftkit.errors import UsageError
from beftkit.settings.select import SelectSettings

_RESUMES = "Take up a selection that was stopped; what is finished is not repeated."


def command(name: str) -> Any:
    """The command of this name, built."""
    built = with_settings(select, SelectSettings, [*SelectSettings.SHARED, *SelectSettings.GRID])
    why = "Choose the bias to fine-tune, and show why."
    return late_command(name, built, why)


def select(
    model: ModelArgument = None,
    output: Annotated[
        str | None, flag("Folder of the selection and its runs.", "--output", "-o")
    ] = None,
    config: Annotated[Path | None, flag("A select.yaml to start from; flags win over it.")] = None,
    resume: Annotated[bool, flag(_RESUMES, "--resume")] = False,
    overwrite: Annotated[
        bool, flag("Replace a former selection in --output.", "--overwrite")
    ] = False,
    dry_run: DryRun = False,
    time: Time = False,
    format: LateFormat = Format.table,
    quiet: LateQuiet = False,
    **flags: Any,
) -> None:
    """Choose the bias to fine-tune, as the paper does, and show why.

    A probe fine-tunes all biases; projection ratio, magnitude and Fisher rank them. With several
    regimes, learning rates, epochs or seeds every combination is a cell, a resumable run in its own
    folder. --verify trains each candidate alone, and the controls none and all.
    """
    given: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    check_asked(dry_run, time)
    if not (dry_run or time) and output is None:
        raise UsageError("no --output was given; expected the folder that the selection shall make")
    # Not before: these import torch.
    from beftkit.present.planned import select_plan_document
    from beftkit.present.selection import selection_document
    from beftkit.selection import plan_select, settings_of, time_select
    from beftkit.selection import select as run

    if dry_run or time:
        settings = settings_of(model, output, config, resume, flags)
    if time:
        show_time(time_select(settings), format)
        return
    if dry_run:
        planned = plan_select(settings, output=output, **given)
        if IS_MAIN:
            show(select_plan_document(planned), format)
        return
    given |= {"output": output, "config": config}
    stopped = f"stopped; what is done is kept, --output {output} --resume takes it up"
    found = watched(partial(run, model, **given, **flags), quiet, stopped)
    if IS_MAIN:
        show(selection_document(found), format)
