"""`beftkit survey`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from beftkit.app.common import Format, FormatOption, QuietOption, say, show
from beftkit.app.options import late_command
from beftkit.app.scoring import DownloadOption, FamiliesOption
from beftkit.errors import BeftError, UsageError


def command(name: str) -> Any:
    """The command of this name, built."""
    return late_command(name, survey, "Score many fine-tunes of a base, from the hub or from here.")


def survey(
    base: Annotated[
        str,
        Argument(
            metavar="BASE|DIR",
            help="What they were made from: owner/name[@revision] on the hub, or a checkpoint; or "
            "the folder of a survey, which is shown.",
        ),
    ],
    output: Annotated[
        Path | None, Option("--output", "-o", help="Folder to keep the survey in.")
    ] = None,
    source: Annotated[
        Path | None,
        Option(
            "--from",
            metavar="FILE|FOLDER",
            help="Which models: a file with a reference a line, or a folder with checkpoints in "
            "it or below; instead of those that the hub lists.",
        ),
    ] = None,
    limit: Annotated[
        int | None, Option(metavar="N", help="How many of the hub's list; 0: all.  [200]")
    ] = None,
    sort: Annotated[
        str | None,
        Option(
            metavar="KEY",
            help="By what the hub sorts, most first: downloads, likes, lastModified, createdAt, "
            "trendingScore.  [downloads]",
        ),
    ] = None,
    task: Annotated[
        str | None,
        Option(metavar="TASK", help="Of the hub's list this task alone: text-classification, ..."),
    ] = None,
    max_bytes: Annotated[
        int | None,
        Option(
            metavar="BYTES",
            help="Of a model, that may be fetched in vain where the hub grants so few requests "
            "that larger ones save time.  [64000000]",
        ),
    ] = None,
    tower: Annotated[
        str | None, Option(help="Which tower of several: text, vision, text.decoder, all, ...")
    ] = None,
    families: FamiliesOption = None,
    download: DownloadOption = False,
    resume: Annotated[
        bool,
        Option("--resume", help="Go on with the survey in the output folder; renew what moved."),
    ] = False,
    format: FormatOption = Format.table,
    quiet: QuietOption = False,
) -> None:
    """Score every fine-tune of a base against it: what did they do to its biases?

    Of a model on the hub only headers and biases are read. Whatever comes of it is a row in
    survey.jsonl; Ctrl-C loses none, and --resume goes on. At the end there are survey.html with
    its figures and numbers beside it, and survey.parquet; showing a survey makes them anew.
    """
    from beftkit.present.pages.survey import write_page
    from beftkit.present.survey import document
    from beftkit.surveys.listing import read_references
    from beftkit.surveys.results import read
    from beftkit.surveys.rows import is_survey

    if shown := is_survey(base):
        others = {
            "output": output is not None, "from": source is not None, "resume": resume,
            "limit": limit is not None, "sort": sort is not None, "task": task is not None,
            "max-bytes": max_bytes is not None, "tower": tower is not None,
            "families": families is not None, "download": download,
        }  # fmt: skip
        if beside := [f"--{name}" for name, one in others.items() if one]:
            raise UsageError(
                f"{base}: holds a survey, which is shown without {' and '.join(beside)}; to go on "
                "with it give its base, and this folder as --output"
            )
        found = read(base)
    else:
        if output is None:
            raise UsageError("no --output was given; expected a folder to keep the survey in")
        if limit is not None and limit < 0:
            raise UsageError(f"--limit={limit}: expected a number from 0")
        given = {"limit": limit, "sort": sort, "max_bytes": max_bytes}
        options: dict[str, Any] = {name: one for name, one in given.items() if one is not None}
        options |= {"limit": None} if limit == 0 else {}
        options |= {"tower": tower, "families": families, "download": download, "resume": resume}
        options |= {"task": task, "output": output}
        references = None if source is None else read_references(source)
        found = _run(base, references, options, output, quiet)
    _, notes = show(document(found), format)
    try:
        written = write_page(found)
    except BeftError as error:
        if not shown:
            raise
        written = [f"not written anew: {error.at_terminal}"]  # somebody else's, which can be read
    say([] if quiet else [*notes, *written])


def _run(
    base: str, references: list[str] | None, options: dict[str, Any], output: Path, quiet: bool
) -> Any:
    """The survey under a bar or lines, and under signals."""
    from beftkit.app.progress import IS_MAIN, Signals
    from beftkit.progress import Display
    from beftkit.surveys.survey import Interrupted
    from beftkit.surveys.survey import survey as work

    watcher = Display(quiet=quiet or not IS_MAIN)
    stop: Callable[[], int]
    with Signals(watcher) as signals:
        stop = signals.asked
        try:
            return work(base, references, **options, watcher=watcher, asked_to_stop=stop)
        except Interrupted as stopped:
            watcher.close()
            say([f"stopped; what is done is kept: {output}; --resume goes on"])
            raise typer.Exit(128 + stopped.signal) from None
        finally:
            watcher.close()
