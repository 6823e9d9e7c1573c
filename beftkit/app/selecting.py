"""`beftkit select`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from beftkit.app.common import Format, say, show
from beftkit.app.options import TopicCommand, late_command, with_settings
from beftkit.app.progress import Shown, Signals
from beftkit.app.training import IS_MAIN, FormatOption, panel
from beftkit.errors import UsageError
from beftkit.settings.select import OWN, SelectSettings
from beftkit.settings.train import OUTPUT, TrainSettings


def command(name: str) -> Any:
    """The command of this name, built."""
    own = [key for key in OWN if key not in SelectSettings.model_fields]
    built = with_settings(select, TrainSettings, SelectSettings, skip=("model", *own))
    return late_command(
        name, built, "Choose the bias to fine-tune, and show why.", cls=TopicCommand
    )


def select(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Model folder, or owner/name on the hub."),
    ] = None,
    output: Annotated[
        Path | None, panel(OUTPUT, "Folder of the selection and its runs.", "--output", "-o")
    ] = None,
    config: Annotated[
        Path | None, panel(OUTPUT, "A select.yaml to start from; flags win over it.")
    ] = None,
    resume: Annotated[
        bool,
        panel(
            OUTPUT,
            "Take up a selection that was stopped; what is finished is not repeated.",
            "--resume",
        ),
    ] = False,
    overwrite: Annotated[
        bool, panel(OUTPUT, "Replace a former selection in --output.", "--overwrite")
    ] = False,
    format: FormatOption = Format.table,
    quiet: Annotated[
        bool, panel(OUTPUT, "No progress and notes on stderr.", "--quiet", "-q")
    ] = False,
    **flags: Any,
) -> None:
    """Choose the bias to fine-tune, as the paper does, and show why.

    A probe fine-tunes all biases; projection ratio, magnitude and Fisher rank them. With several
    regimes, learning rates, epochs or seeds every combination is a cell, a resumable run in its own
    folder. --verify trains each candidate alone, and the controls none and all.
    """
    from beftkit.present.selection import selection_document
    from beftkit.selection import select as run
    from beftkit.training.trainer import Interrupted

    if output is None:
        raise UsageError("no --output was given; expected the folder that the selection shall make")
    flags = {key: value for key, value in flags.items() if value not in (None, [])}
    watcher = Shown(quiet or not IS_MAIN)
    with Signals(watcher) as signals:
        try:
            found = run(
                model, output=output, config=config, resume=resume, overwrite=overwrite,
                watcher=watcher, asked_to_stop=signals.asked, **flags,
            )  # fmt: skip
        except Interrupted as stop:
            watcher.close()
            if IS_MAIN:
                say([f"stopped; what is done is kept, --output {output} --resume takes it up"])
            raise typer.Exit(128 + stop.signal) from None
        finally:
            watcher.close()
    if IS_MAIN:
        show(selection_document(found), format)
