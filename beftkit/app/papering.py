"""`beftkit paper`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from beftkit.app.common import Format, say, show
from beftkit.app.options import flag, late_command, panel, with_settings
from beftkit.app.progress import IS_MAIN, watched
from beftkit.app.training import LateFormat, LateQuiet, check_asked
from beftkit.errors import UsageError
from beftkit.settings.paper import PaperSettings
from beftkit.settings.topics import MODEL


def command(name: str) -> Any:
    """The command of this name, built."""
    names = [one for one in PaperSettings.model_fields if one != "table"]
    built = with_settings(paper, PaperSettings, names)
    return late_command(name, built, "Run a table of the paper, ours beside the published.")


def paper(
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="TABLE",
            help="figure1, table1, table2, table3, figure4, table4, lr-epochs or table5.",
        ),
    ] = None,
    model: Annotated[
        str | None, panel(MODEL, "One model in the place of the published ones.", "--model")
    ] = None,
    output: Annotated[
        str | None, flag("Folder of the cells; tables may share one.", "--output", "-o")
    ] = None,
    dry_run: Annotated[
        bool, flag("List the cells, and which are there; run nothing.", "--dry-run")
    ] = False,
    time: Annotated[
        bool, flag("Time a few updates of each missing cell; keep nothing.", "--time")
    ] = False,
    format: LateFormat = Format.table,
    quiet: LateQuiet = False,
    **flags: Any,
) -> None:
    """Run what is missing of a table of the paper, and show ours beside the published figures.

    Each cell and seed is an ordinary run in --output: what is finished is not repeated, what was
    stopped is taken up. --part 1/4 shares a table out; what others have not finished counts as
    missing. OUTPUT/TABLE.csv holds the figures, OUTPUT/TABLE.html those of selections.
    """
    from beftkit.present.paper import paper_document, paper_plan_document
    from beftkit.settings.resolve import resolve
    from beftkit.suite import paper as run
    from beftkit.suite import plan_paper, time_paper

    check_asked(dry_run, time)
    if dry_run or time:
        settings = resolve(PaperSettings, None, {**flags, "model": model, "table": table})
        found = (time_paper if time else plan_paper)(settings, output)
        if IS_MAIN:
            show(paper_plan_document(found), format)
        return
    if table is None:
        raise UsageError("no table was given; expected such as table1")
    if output is None:
        raise UsageError("no --output was given; expected the folder of the cells")
    stopped = f"stopped; what is done is kept, the same command with --output {output} goes on"
    done = watched(partial(run, table, output=output, model=model, **flags), quiet, stopped)
    if IS_MAIN:
        document = paper_document(done)
        written = _kept(done, document, Path(output))
        show(document, format)
        say([] if quiet else written)


def _kept(done: Any, document: Any, folder: Path) -> list[str]:
    """The figures as CSV, and a report of selections."""
    from beftkit.files import write_whole
    from beftkit.present.data import csv_text

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{done.table}.csv"
    write_whole(path, csv_text(document.rows).encode())
    said = [f"wrote {path}"]
    if done.selections:
        from beftkit.present.pages import write_report

        page, _ = write_report(done.selections, folder / f"{done.table}.html", title=done.title)
        said.append(f"wrote {page}")
    return said
