"""`beftkit extract`, `average` and `compare`: adapters of models, and of adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from beftkit.app.common import Format, QuietOption, check_outputs, say, show, start_fast
from beftkit.app.options import late_command
from beftkit.app.scoring import ConfigOption, DownloadOption, FamiliesOption
from beftkit.errors import UsageError, option

_ADAPTER = "An adapter's folder, a run's, or owner/name on the hub"
_HERE = Annotated[Path | None, Option("--output", "-o", metavar="ADAPTER", help="Folder to make.")]
_PRINTED = Annotated[Format, Option("--format", help="What is printed; json holds every figure.")]
_OVERWRITE = Annotated[
    bool,
    Option("--overwrite", help="Replace what extract or average made in --output."),
]
_TOWER = Annotated[
    str | None, Option(help="Which tower of several: text, vision, text.decoder, all, ...")
]


def command(name: str) -> Any:
    """The command of this name, built."""
    known: dict[str, tuple[Callable[..., None], str]] = {
        "extract": (extract, "A fine-tuning's bias change as an adapter."),
        "average": (average, "Several adapters of one base into one: mean, weighted sum."),
        "compare": (compare, "Cosines and angles between what several trainings changed."),
    }
    function, short_help = known[name]
    return late_command(name, function, short_help)


def extract(
    pre: Annotated[
        str,
        Argument(metavar="PRE", help="The base: a file, a model folder, or owner/name on the hub."),
    ],
    post: Annotated[str, Argument(metavar="POST", help="The same after fine-tuning.")],
    bias: Annotated[str, Option(help="Which biases: roles such as v or q,v, or all.")] = "v",
    output: _HERE = None,
    adapter_format: Annotated[
        str,
        Option(metavar="auto|beft|lora|biases", help="auto: the first that holds everything."),
    ] = "auto",
    deep: Annotated[
        bool, Option("--deep", help="Compare all other tensors too, piece by piece.")
    ] = False,
    overwrite: _OVERWRITE = False,
    tower: _TOWER = None,
    model_config: ConfigOption = None,
    families: FamiliesOption = None,
    format: _PRINTED = Format.table,
    quiet: QuietOption = False,
    download: DownloadOption = False,
) -> None:
    """Write what a fine-tuning did to the biases of its base as an adapter.

    Reads headers, biases and POST's classification head, which comes along; says in numbers what
    else changed, since the adapter is the fine-tuning only if nothing did.
    """
    start_fast()
    from beftkit.present.extraction import extract_document
    from beftkit.runs import extract as run

    found = run(
        pre,
        post,
        bias,
        output=_folder(output),
        adapter_format=adapter_format,
        deep=deep,
        overwrite=overwrite,
        tower=tower,
        model_config=model_config,
        families=families,
        download=download,
    )
    _, notes = show(extract_document(found), format)
    say([] if quiet else notes)


def average(
    adapters: Annotated[
        list[str], Argument(metavar="ADAPTER", help=f"{_ADAPTER}; two or more, or one to scale.")
    ],
    output: _HERE = None,
    weights: Annotated[
        str | None,
        Option(metavar="N,N,...", help="A factor for each: the weighted sum.  [the mean]"),
    ] = None,
    scale: Annotated[
        float, Option(help="A factor of the whole sum; one adapter alone can be scaled.")
    ] = 1.0,
    head: Annotated[
        str | None,
        Option(
            metavar="ADAPTER",
            help="Which of the adapters' heads goes into it.  [one that all have alike, or none]",
        ),
    ] = None,
    base: Annotated[
        str | None, Option(help="Their base, where it is not the one that they name.")
    ] = None,
    overwrite: _OVERWRITE = False,
    format: _PRINTED = Format.table,
    quiet: QuietOption = False,
) -> None:
    """Write the mean, or a weighted sum, of what several adapters of one base change.

    Heads are each task's own and are never added up. Adapters of another base, of other biases or
    of other widths are refused by name.
    """
    start_fast()
    from beftkit.present.averages import average_document
    from beftkit.runs import average as run

    found = run(
        *adapters,
        output=_folder(output),
        weights=None if weights is None else _numbers(weights),
        scale=scale,
        head=head,
        base=base,
        overwrite=overwrite,
    )
    _, notes = show(average_document(found), format)
    say([] if quiet else notes)


def compare(
    references: Annotated[
        list[str],
        Argument(metavar="ADAPTER", help=f"{_ADAPTER}; with --base also checkpoints; two or more."),
    ],
    base: Annotated[
        str | None, Option(metavar="PRE", help="What the checkpoints were trained from.")
    ] = None,
    tower: _TOWER = None,
    model_config: ConfigOption = None,
    families: FamiliesOption = None,
    format: _PRINTED = Format.table,
    output: Annotated[
        Path | None, Option("--output", "-o", help="Write the result to this file instead.")
    ] = None,
    plot: Annotated[
        Path | None,
        Option(help="Draw a heat map of cosines to this .png, .svg or .pdf."),
    ] = None,
    quiet: QuietOption = False,
    download: DownloadOption = False,
) -> None:
    """Say how alike the changes of several trainings are: cosine and angle, by role and layer.

    An adapter is its own change; of a checkpoint it is the difference to --base. Where one of two
    changes is zero there is no angle, and the figure is left open.
    """
    start_fast()
    from beftkit.present import cosines
    from beftkit.weights import compare as run

    read = [str(one) for one in (base, model_config, families) if one is not None]
    check_outputs(output, plot, [*references, *read])
    found = run(
        *references,
        base=base,
        tower=tower,
        model_config=model_config,
        families=families,
        download=download,
    )
    if plot is not None:
        cosines.draw(found, plot)
    written, notes = show(cosines.cosines_document(found), format, output)
    drawn = [f"wrote {plot}"] if plot is not None else []
    say([] if quiet else [*drawn, *written, *notes])


def _folder(output: Path | None) -> Path:
    if output is None:
        raise UsageError("no --output was given; expected the folder to make")
    return output


def _numbers(words: str) -> list[float]:
    try:
        return [float(word) for word in words.split(",")]
    except ValueError:
        raise UsageError(
            f"{option('weights', words)}: expected numbers with commas between them, one for each "
            "adapter"
        ) from None
