"""`beftkit predict` and `beftkit export`: what a trained model is for."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from beftkit.app.common import Format, OutputOption, QuietOption, put, say, show
from beftkit.app.options import flag, late_command, panel, with_settings
from beftkit.app.progress import IS_MAIN, watched
from beftkit.app.training import LateQuiet
from beftkit.errors import BeftError, UsageError
from beftkit.settings.predict import ExportSettings, PredictSettings
from beftkit.settings.topics import DATA, MODEL, Part

_BASE = "The adapter's base, where it is not the one that it names."
BaseOption = Annotated[str | None, panel(MODEL, _BASE, "--base")]


class Form(StrEnum):
    """How answers are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    markdown = "markdown"


def command(name: str) -> Any:
    """The command of this name, built."""
    known: dict[str, tuple[Callable[..., None], type[Part], str]] = {
        "predict": (predict, PredictSettings, "Answer texts with a model or adapter."),
        "export": (export, ExportSettings, "Merge an adapter into its base, as a plain model."),
    }
    function, settings, short_help = known[name]
    # The argument of an export is the adapter, and its --base the model.
    names = [one for one in settings.model_fields if name == "predict" or one != "adapter"]
    built = with_settings(function, settings, names)
    return late_command(name, built, short_help)


def predict(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL TEXT...",
            help="A fine-tuned model, an adapter or a run's folder, unless --adapter names it; "
            "then texts. With neither texts nor --file, or with -, lines of stdin.",
            show_default=False,
        ),
    ] = None,
    base: BaseOption = None,
    file: Annotated[
        Path | None,
        panel(DATA, "Rows to answer: .csv, .tsv, .jsonl, .json or .parquet; text also as .gz."),
    ] = None,
    all_probabilities: Annotated[
        bool | None,
        flag(
            "Each label's probability, not only that of the answer.  [in JSON]",
            "--all-probabilities/--no-all-probabilities",
        ),
    ] = None,
    format: Annotated[
        Form | None,
        flag(
            "What is written.  [by the file's ending; table]",
            "--format",
            metavar="table|json|jsonl|csv|parquet|markdown",
        ),
    ] = None,
    output: OutputOption = None,
    quiet: LateQuiet = False,
    **flags: Any,
) -> None:
    """Answer texts: the label and its probability, or a value.

    Rows keep their order and their other columns. Of a pair of texts a file names two columns
    (--text-columns); in an argument or a line of stdin a tab stands between the two.
    """
    from beftkit.present.predictions import predictions_document
    from beftkit.runs import predict as run
    from beftkit.runs.predicting import format_of

    given, adapter = [*(words or [])], flags["adapter"]
    if adapter is None:
        if not given:
            raise UsageError("no model was given; expected one, an adapter or a run's folder")
        adapter, base = (given.pop(0), base) if base else (None, given.pop(0))
    form = Form(format_of(output, format))
    if form is Form.parquet and output is None:
        raise UsageError("--format parquet: is not for a terminal; give --output FILE")
    asked: dict[str, Any] = {"file": file, "texts": _texts(given, file)}
    streamed = output is None and form in (Form.csv, Form.jsonl)
    how: dict[str, Any] = {}
    how |= {"output": output if form in ("csv", "jsonl", "parquet") else None, "format": form.value}
    how |= {"all_probabilities": all_probabilities, "sink": _Stdout() if streamed else None}
    settings = {**flags, "adapter": adapter}
    stopped = "stopped; nothing was written" if output else "stopped"
    found = watched(partial(run, base, **asked, **how, **settings), quiet, stopped)
    if not IS_MAIN:
        return
    document = predictions_document(found)
    if how["output"] is not None:
        counts = ", ".join(f"{label} {count}" for label, count in found.counts.items())
        rows = f"{found.examples} row{'s' * (found.examples != 1)}" + (
            f": {counts}" if counts else ""
        )
        written, notes = [f"wrote {output}, {rows}"], list(found.notes)
    elif streamed:
        written, notes = [], list(found.notes)
    else:
        written, notes = show(document, Format(form.value), output)
    say([*written, *([] if quiet else notes)])


def export(
    adapter: Annotated[
        str,
        typer.Argument(metavar="ADAPTER", help="Its folder, a run's, or owner/name on the hub."),
    ],
    base: BaseOption = None,
    output: Annotated[
        Path | None, flag("The folder to make.", "--output", "-o", metavar="MODEL")
    ] = None,
    overwrite: Annotated[bool, flag("Replace a former export in --output.", "--overwrite")] = False,
    format: Annotated[
        Format,
        flag("What is printed.  [default: table]", "--format", metavar="table|json|csv|markdown"),
    ] = Format.table,
    quiet: QuietOption = False,
    **flags: Any,
) -> None:
    """Merge an adapter into its base and write a plain folder for transformers.

    Whoever loads it needs neither beftkit nor PEFT: configuration with the labels, safetensors,
    tokenizer and a short card.
    """
    from beftkit.present.predictions import export_document
    from beftkit.runs import export as run

    if output is None:
        raise UsageError("no --output was given; expected the folder to make")
    found = run(adapter, output, overwrite=overwrite, model=base, **flags)
    if IS_MAIN:
        _, notes = show(export_document(found), format)
        say([] if quiet else notes)


def _texts(given: list[str], file: Path | None) -> Any:
    """The texts that are meant: arguments, or lines of stdin; None with a file."""
    if file is not None:
        if given:
            raise UsageError(f"texts and --file {file} were given; expected one of the two")
        return None
    if given and given != ["-"]:
        return given
    if sys.stdin is None or (not given and sys.stdin.isatty()):
        raise UsageError("no texts were given; expected some, --file FILE, or lines on stdin")
    return _lines()


def _lines() -> Iterator[str]:
    """Lines of stdin as they come, UTF-8 whatever the locale."""
    raw = getattr(sys.stdin, "buffer", None)
    if raw is None:  # replaced by somebody's own
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n") as lines:
        try:
            for line in lines:
                yield line.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise BeftError("stdin: not UTF-8 text; convert it") from None


class _Stdout(io.RawIOBase):
    """Stdout for what is written as it grows; what goes wrong there is met at once."""

    def write(self, data: Any) -> int:
        put(bytes(data).decode())
        return len(data)
