"""What every command needs: shared options, output that is whole or not there, notes on stderr."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from beftkit.edges import printable
from beftkit.errors import BeftError

if TYPE_CHECKING:
    from beftkit.present.document import Document


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


#: what all of our commands have in common
CONVENTIONS: dict[str, Any] = {
    "rich_markup_mode": None,  # with markup a usage error becomes a box of five lines
    "context_settings": {"help_option_names": ["-h", "--help"]},
    **dict.fromkeys(("add_completion", "pretty_exceptions_enable"), False),
}
FormatOption = Annotated[
    Format, Option("--format", help="What is printed; json holds every figure.")
]
OutputOption = Annotated[
    Path | None, Option("--output", "-o", help="Write the result to this file instead.")
]
QuietOption = Annotated[
    bool, Option("--quiet", "-q", help="No notes on stderr; errors still stand there.")
]


def start_fast() -> None:
    """Leave out what a short run never needs, before the heavier imports begin.

    OpenBLAS's pool of threads is a sixth of the run, and the garbage collector's looks at what the
    imports make another tenth.
    """
    gc.set_threshold(100_000)
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


#: what lies in folders of models, adapters and runs, and is never a result to be written there
_OF_MODELS = re.compile(
    r"([a-z]+_)?config\.json|.+\.index\.json|tokenizer\.json|vocab\.\w+|merges\.txt|run\.yaml"
    r"|(special_tokens_map|added_tokens|all_results|manifest|provenance|trainer_state)\.json"
    r"|.+\.(safetensors|bin|pt|pth|ckpt|gguf|model|jsonl|jinja)"
)


def check_outputs(output: Path | None, plot: Path | None, inputs: Sequence[str]) -> None:
    """Refuse what could not, or must not, be written before anything is read."""
    from beftkit.files import check_writable, same_file

    if plot is not None:
        from beftkit.present.plots import check_plot_path

        check_writable(check_plot_path(plot))
    if output is not None:
        check_writable(output)
    elif sys.stdout is None:
        raise BeftError("stdout is closed; give --output FILE")
    for written in filter(None, (output, plot)):
        if any(same_file(written, read) for read in inputs):
            raise BeftError(f"{written}: is an input as well; choose another place")
        if _OF_MODELS.fullmatch(written.name) and any(_lies_in(written, one) for one in inputs):
            raise BeftError(
                f"{written}: is a file of {written.parent}, which is read; choose another name"
            )


def _lies_in(file: Path, read: str) -> bool:
    """Whether a file that there is lies in a folder that is read, or beside a file that is."""
    try:
        folder = Path(read) if Path(read).is_dir() else Path(read).parent
        there = Path(read).exists() and file.is_file()
        return there and file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        return False


def show(
    document: Document, format: Format, output: Path | None = None
) -> tuple[list[str], list[str]]:
    """Print a document, or write it whole.

    Returns:
        For stderr: what was written, and the notes that the form has no place for.
    """
    from beftkit.files import write_whole
    from beftkit.present.data import csv_text, json_text

    match format:
        case Format.json:
            text = json_text(document.json)
        case Format.csv:
            text = csv_text(document.rows)
        case Format.markdown:
            from beftkit.present.markdown import markdown_text

            text = markdown_text(document.blocks)
        case Format.table:
            from beftkit.present.terminal import terminal_text

            colour = output is None and sys.stdout.isatty()
            encoding = "utf-8" if output else sys.stdout.encoding
            text = terminal_text(document.blocks, encoding, colour)
    notes = [] if format is Format.table else list(document.notes)
    if output is None:
        put(text)
        return [], notes
    # A path's bytes that are no UTF-8 become \udcxx, which JSON reads back.
    write_whole(output, text.encode(errors="backslashreplace"))
    return [f"wrote {output}"], notes


def put(text: str) -> None:
    """To stdout at once: what goes wrong there is met here, not when Python shuts down."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drop what is left
        if isinstance(error, BrokenPipeError):  # `beftkit ... | head`: as if killed by SIGPIPE
            raise typer.Exit(141) from None
        raise BeftError(f"stdout: cannot be written ({error.strerror})") from None


def say(lines: Iterable[str]) -> None:
    """Notes and progress: on stderr, so that stdout holds the result alone."""
    for line in lines:
        print(printable(line), file=sys.stderr)
