"""`beftkit score` and `beftkit inspect`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from beftkit.app.common import (
    Format,
    FormatOption,
    OutputOption,
    QuietOption,
    check_outputs,
    say,
    show,
    start_fast,
)


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
ConfigOption = Annotated[
    Path | None,
    Option(
        "--model-config",
        help="config.json to use instead of the one beside the weights (fused biases and "
        "inertness are read from it).",
    ),
]
FamiliesOption = Annotated[
    Path | None,
    Option("--families", help="TOML file with rows for families that beftkit lacks."),
]
DownloadOption = Annotated[
    bool,
    Option("--download", help="Fetch whole weight files from the hub into its cache, not parts."),
]


def score(
    pre: Annotated[str, Argument(metavar="PRE", help=f"Before: {_CHECKPOINT}.")],
    posts: Annotated[
        list[str] | None,
        Argument(
            metavar="POST...",
            help="After fine-tuning: the same kinds, a PEFT adapter, or the folder of a run "
            "(its adapter, or checkpoint-100, ...). An adapter that names its base may stand "
            "alone.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        Method, Option(metavar="FIGURE", help=f"Which figure ranks: {', '.join(Method)}.")
    ] = Method.projection,
    candidates: Annotated[
        str | None, Option(help="Roles to choose the target from.  [default: q,k,v]")
    ] = None,
    tower: Annotated[
        str | None,
        Option(help="Which tower of several: text, vision, text.decoder, all, ..."),
    ] = None,
    allow_inert: Annotated[
        bool, Option("--allow-inert", help="Let a bias that softmax ignores be the target.")
    ] = False,
    allow_nonfinite: Annotated[
        bool, Option("--allow-nonfinite", help="NaN and infinity score as null, not error.")
    ] = False,
    model_config: ConfigOption = None,
    families: FamiliesOption = None,
    format: FormatOption = Format.table,
    output: OutputOption = None,
    plot: Annotated[
        Path | None,
        Option(
            help="Draw roles x layers, or scores over several POSTs, to this .png, .svg or .pdf."
        ),
    ] = None,
    modules: Annotated[
        bool, Option("--target-modules", help="Print the target's modules for PEFT, as JSON.")
    ] = False,
    fail_on_change: Annotated[
        bool, Option("--fail-on-change", help="Exit with 3 if any bias changed.")
    ] = False,
    fail_if_target_not: Annotated[
        str | None,
        Option(metavar="ROLE", help="Exit with 3 if another role (or none) is the target."),
    ] = None,
    quiet: QuietOption = False,
    download: DownloadOption = False,
) -> None:
    """Score how far each bias of POST moved from PRE, and name the bias to fine-tune.

    Reads only the headers and the bias bytes. A role's score is the mean over its sites.
    """
    start_fast()
    from beftkit import diff
    from beftkit.present import plots, scores

    read = [str(one) for one in (model_config, families) if one is not None]
    check_outputs(output, plot, [pre, *(posts or []), *read])
    among = candidates.replace(" ", "").split(",") if candidates is not None else None
    options: dict[str, Any] = {"candidates": among, "method": method.value, "tower": tower}
    options |= {"model_config": model_config, "families": families, "download": download}
    options |= {"allow_inert": allow_inert, "allow_nonfinite": allow_nonfinite}
    results = diff.score_all(pre if posts else None, posts or [pre], **options)
    failed = scores.failures(results, fail_on_change, fail_if_target_not)
    document = scores.scores_document(results)
    if modules:
        format = Format.json
        document = replace(document, json=scores.target_modules(results[-1]))
    if plot is not None:
        plots.draw(results, plot)
    written, notes = show(document, format, output)
    drawn = [f"wrote {plot}"] if plot is not None else []
    say([] if quiet else dict.fromkeys([*drawn, *written, *notes]))
    if failed:
        say(failed)
        raise typer.Exit(3)


def inspect(
    checkpoint: Annotated[
        str, Argument(metavar="CHECKPOINT", help=f"What to look at: {_CHECKPOINT}.")
    ],
    model_config: ConfigOption = None,
    families: FamiliesOption = None,
    format: FormatOption = Format.table,
    output: OutputOption = None,
    quiet: QuietOption = False,
    download: DownloadOption = False,
) -> None:
    """List a checkpoint's biases by role: count, width, dtype, norms, and which are inert."""
    start_fast()
    from beftkit.inspection import inspect as look_at
    from beftkit.present.inspection import inspection_document

    read = [str(one) for one in (model_config, families) if one is not None]
    check_outputs(output, None, [checkpoint, *read])
    found = look_at(checkpoint, model_config=model_config, families=families, download=download)
    written, notes = show(inspection_document(found), format, output)
    say([] if quiet else [*notes, *written])
