"""`beftkit merge`: a stock model to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from beftkit.app.common import Format, QuietOption, say, show
from beftkit.app.options import flag, late_command, with_settings
from beftkit.app.progress import IS_MAIN
from beftkit.errors import UsageError
from beftkit.settings.merge import MergeSettings


def command(name: str) -> Any:
    """The command of this name, built."""
    names = [one for one in MergeSettings.model_fields if one != "adapter"]
    built = with_settings(merge, MergeSettings, names)
    return late_command(name, built, "Merge an adapter into its base on files, as a stock model.")


def merge(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="The model's folder, or owner/name on the hub.")
    ],
    adapter: Annotated[
        str | None,
        typer.Argument(
            metavar="ADAPTER",
            help="Its folder, a run's, or owner/name on the hub.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, flag("The folder to make.", "--output", "-o", metavar="MODEL")
    ] = None,
    link: Annotated[
        bool,
        flag(
            "Hard-link files of weights that stay the same, where the disk can; a changed file is "
            "always a copy.",
            "--link",
        ),
    ] = False,
    overwrite: Annotated[bool, flag("Replace a former merge in --output.", "--overwrite")] = False,
    format: Annotated[
        Format,
        flag("What is printed.  [default: table]", "--format", metavar="table|json|csv|markdown"),
    ] = Format.table,
    quiet: QuietOption = False,
    **flags: Any,
) -> None:
    """Merge an adapter into its base and write a stock folder for transformers and servers.

    It works on files: no model is made, and dtype, metadata and sharding stay the base's. Biases
    that the base has not get a place by its configuration's switch, or are folded into others
    where that is exact; else the merge is refused.
    """
    from beftkit.present.merging import merge_document
    from beftkit.runs.merging import merge as run

    if adapter is None:
        raise UsageError("no ADAPTER was given; expected `beftkit merge BASE ADAPTER -o MODEL`")
    if output is None:
        raise UsageError("no --output was given; expected the folder to make")
    found = run(base, adapter, output, link=link, overwrite=overwrite, **flags)
    if IS_MAIN:
        _, notes = show(merge_document(found), format)
        say([] if quiet else notes)
