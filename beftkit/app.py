"""The command line: parse, one public call, render. The only room that prints or exits."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from beftkit.errors import BeftError, UsageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # with markup a usage error becomes a box of five lines
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune, score and inspect the bias terms of language models.",
)


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


class Method(StrEnum):
    """Which figure ranks."""

    projection = "projection"
    magnitude = "magnitude"
    magnitude_l1 = "magnitude_l1"
    magnitude_l2 = "magnitude_l2"
    magnitude_l1_mean = "magnitude_l1_mean"
    magnitude_l2_mean = "magnitude_l2_mean"
    angle = "angle"


_CHECKPOINT = (
    "a .safetensors file, a *.safetensors.index.json, a model folder, or owner/name[@revision] on "
    "the hub (hf:// in front: even if there is such a folder here)"
)
FormatOption = Annotated[
    Format, typer.Option("--format", help="What is printed; json holds every figure.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write the result to this file instead.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--model-config",
        help="config.json to use instead of the one beside the weights (fused biases and "
        "inertness are read from it).",
    ),
]
FamiliesOption = Annotated[
    Path | None,
    typer.Option("--families", help="TOML file with rows for families that beftkit lacks."),
]
DownloadOption = Annotated[
    bool,
    typer.Option(
        "--download", help="Fetch whole weight files from the hub into its cache, not parts."
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No notes on stderr; errors still stand there.")
]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from beftkit import __version__

        print(f"beftkit {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


@app.command(short_help="Score how far each bias of POST moved from PRE.")
def score(
    pre: Annotated[str, typer.Argument(metavar="PRE", help=f"Before: {_CHECKPOINT}.")],
    posts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="POST...",
            help="After fine-tuning: the same kinds, a PEFT adapter, or the folder of a run "
            "(checkpoint-100, ...). An adapter that names its base may stand alone.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="Which figure ranks.")] = Method.projection,
    candidates: Annotated[
        str | None, typer.Option(help="Roles to choose the target from.  [default: q,k,v]")
    ] = None,
    tower: Annotated[
        str | None,
        typer.Option(help="Which tower of several: text, vision, text.decoder, all, ..."),
    ] = None,
    allow_inert: Annotated[
        bool, typer.Option("--allow-inert", help="Let a bias that softmax ignores be the target.")
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="NaN and infinity score as null, not error.")
    ] = False,
    model_config: ConfigOption = None,
    families: FamiliesOption = None,
    format: FormatOption = Format.table,
    output: OutputOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw roles x layers, or scores over several POSTs, to this .png, .svg or .pdf."
        ),
    ] = None,
    modules: Annotated[
        bool,
        typer.Option("--target-modules", help="Print the target's modules for PEFT, as JSON."),
    ] = False,
    fail_on_change: Annotated[
        bool, typer.Option("--fail-on-change", help="Exit with 3 if any bias changed.")
    ] = False,
    fail_if_target_not: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Exit with 3 if another role (or none) is the target."),
    ] = None,
    quiet: QuietOption = False,
    download: DownloadOption = False,
) -> None:
    """Score how far each bias of POST moved from PRE, and name the bias to fine-tune.

    Reads only the headers and the bias bytes. A role's score is the mean over its sites.
    """
    _start_fast()
    from beftkit import diff, report

    _check_outputs(output, plot, [pre, *(posts or [])])
    results = diff.score_all(
        pre if posts else None, posts or [pre],
        candidates=candidates.replace(" ", "").split(",") if candidates is not None else None,
        method=method.value, tower=tower, model_config=model_config, families=families,
        allow_inert=allow_inert, allow_nonfinite=allow_nonfinite, download=download,
    )  # fmt: skip
    if modules:
        text = report.target_modules(results[-1])
    elif format is Format.table:
        text = _rendered(report.scores_table(results), output)
    else:
        text = report.scores_text(results, format.value)
    done = _deliver(text, output, results, plot)
    if format is not Format.table or modules:
        done += [note for one in results for note in one.notes]
    failed = report.failures(results, fail_on_change, fail_if_target_not)
    _say([] if quiet else dict.fromkeys(done))
    if failed:
        _say(failed)
        raise typer.Exit(3)


@app.command(short_help="List a checkpoint's biases by role.")
def inspect(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help=f"What to look at: {_CHECKPOINT}.")
    ],
    model_config: ConfigOption = None,
    families: FamiliesOption = None,
    format: FormatOption = Format.table,
    output: OutputOption = None,
    quiet: QuietOption = False,
    download: DownloadOption = False,
) -> None:
    """List a checkpoint's biases by role: count, width, dtype, norms, and which are inert."""
    _start_fast()
    from beftkit import inspection, report

    _check_outputs(output, None, [checkpoint])
    found = inspection.inspect(
        checkpoint, model_config=model_config, families=families, download=download
    )
    if format is Format.table:
        text = _rendered(report.inspection_table(found), output)
    else:
        text = report.inspection_text(found, format.value)
    done = [] if format is Format.table else list(found.notes)
    done += _deliver(text, output)
    _say([] if quiet else done)


@app.command(short_help="Train a small model here and now, and score its biases.")
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path(
        "beftkit-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the language, the model and the run.")] = 0,
) -> None:
    """Train a small model on a made-up language here and now, then score its biases.

    Offline and within a minute on two cores. The data is synthetic: it shows what beftkit does,
    not what a real task would choose.
    """
    from beftkit import diff, plots, report
    from beftkit.demo import make_demo_pair
    from beftkit.output import write_whole

    made = make_demo_pair(output, seed=seed, progress=lambda line: _say([line]))
    scores = diff.score(made.pre, made.post)
    write_whole(output / "scores.json", report.scores_text([scores], "json").encode())
    plots.heatmap(scores, output / "scores.png")
    closing = report.demo_text(
        str(output), made.accuracy_before, made.accuracy_after, made.majority,
        made.train_examples, made.eval_examples,
    )  # fmt: skip
    _print(_rendered(report.scores_table([scores]), None) + closing)


def _start_fast() -> None:
    """Leave out what a short run never needs, before the heavier imports begin.

    OpenBLAS's pool of threads is a sixth of the run, and the garbage collector's looks at what the
    imports make another tenth.
    """
    gc.set_threshold(100_000)
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _check_outputs(output: Path | None, plot: Path | None, inputs: Sequence[str]) -> None:
    """Refuse what could not, or must not, be written before anything is read."""
    from beftkit.output import check_writable, same_file

    if plot is not None:
        from beftkit.plots import check_plot_path

        check_writable(check_plot_path(plot))
    if output is not None:
        check_writable(output)
    elif sys.stdout is None:
        raise BeftError("stdout is closed; give --output FILE")
    for written in (output, plot):
        if written is not None and any(same_file(written, read) for read in inputs):
            raise BeftError(f"{written}: is an input as well; choose another place")


def _rendered(renderables: Sequence[Any], output: Path | None) -> str:
    """A table as text: in colour on a terminal, plain in a file or a pipe."""
    from rich.console import Console

    terminal = output is None and sys.stdout.isatty()
    width = None if terminal else 120
    encoding = "utf-8" if output else sys.stdout.encoding  # rich draws lines of what it has
    # Not stdout itself: even while capturing, rich writes to its file, and that may fail.
    with Path(os.devnull).open("w", encoding=encoding) as file:
        console = Console(
            file=file,
            force_terminal=terminal,
            width=width,
            color_system="auto" if terminal else None,
            emoji=False,  # a name with :key: in it stays as it is
        )
        with console.capture() as capture:
            for item in renderables:
                console.print(item, markup=False, highlight=False, soft_wrap=isinstance(item, str))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _deliver(
    text: str, output: Path | None, results: Any = None, plot: Path | None = None
) -> list[str]:
    """Write and print what is asked for; returns what was written where."""
    done = []
    if plot is not None:
        from beftkit import plots

        if len(results) > 1:
            plots.lines(results, plot)
        else:
            plots.heatmap(results[0], plot)
        done.append(f"wrote {plot}")
    if output is None:
        _print(text)
    else:
        from beftkit.output import write_whole

        # A path's bytes that are no UTF-8 become \udcxx, which JSON reads back.
        write_whole(output, text.encode(errors="backslashreplace"))
        done.append(f"wrote {output}")
    return done


def _print(text: str) -> None:
    """To stdout at once: what goes wrong there is met here, not when Python shuts down."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drop what is left
        if isinstance(error, BrokenPipeError):  # `beftkit ... | head`: as if killed by SIGPIPE
            raise typer.Exit(141) from None
        raise BeftError(f"stdout: cannot be written ({error.strerror})") from None


def _say(lines: Iterable[str]) -> None:
    """Notes and progress: on stderr, so that stdout holds the result alone."""
    for line in lines:
        print(line, file=sys.stderr)


def main() -> None:
    """Run the command line; a `BeftError` becomes one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a block shows '?'
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # When Python shuts down nothing needs collecting; looking for it takes a sixth of a short run.
    atexit.register(gc.freeze)
    try:
        app(prog_name="beftkit")
    except BeftError as error:
        line = " ".join(str(error).split())
        shown = "".join(letter if letter.isprintable() else "?" for letter in line)
        print(f"beftkit: error: {shown}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
