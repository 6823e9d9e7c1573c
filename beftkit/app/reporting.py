"""`beftkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from beftkit.app.common import QuietOption, say
from beftkit.app.options import late_command
from beftkit.errors import UsageError


def command(name: str) -> Any:
    """The command of this name, built."""
    what = "Write up selections: rankings against metrics, figures, tables."
    return late_command(name, report, what)


def report(
    folders: Annotated[
        list[str], Argument(metavar="DIR...", help="Folders that `beftkit select` made.")
    ],
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="report.md or report.html; files go beside it."),
    ] = None,
    title: Annotated[str | None, Option("--title", help="The report's title.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Write up what selections found, as Markdown or as one HTML file.

    Numbers (CSV, JSON) and figures (SVG, PNG) go to the folder OUTPUT_files beside it, under
    names that begin with the report's. A former report there is replaced.
    """
    from beftkit.present.pages import write_report

    if output is None:
        raise UsageError("no --output was given; expected report.md or report.html")
    page, beside = write_report(folders, output, title=title)
    if not quiet:
        say([f"wrote {page}, and numbers and figures to {beside}"])
