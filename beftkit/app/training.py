"""`beftkit train`, `beftkit evaluate` and `beftkit fisher`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from beftkit.app.common import Format, OutputOption, QuietOption, check_outputs, say, show
from beftkit.app.options import TopicCommand, flag, late_command, with_settings
from beftkit.app.progress import IS_MAIN, watched
from beftkit.errors import UsageError
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.parts import Part
from beftkit.settings.train import TrainSettings

ModelArgument = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="Model folder, or owner/name on the hub.")
]
_PRINTED = "What is printed; json holds every figure.  [default: table]"
LateFormat = Annotated[
    Format,
    flag(_PRINTED, "--format", metavar="table|json|csv|markdown"),
]
LateQuiet = Annotated[bool, flag("No progress and notes on stderr.", "--quiet", "-q")]


def command(name: str) -> Any:
    """The command of this name, built."""
    known: dict[str, tuple[Callable[..., None], type[Part], str]] = {
        "train": (train, TrainSettings, "Fine-tune one kind of bias, or what else you name."),
        "evaluate": (evaluate, EvaluateSettings, "Metrics of a model or adapter on a task."),
        "fisher": (fisher, FisherSettings, "Empirical Fisher of each bias, before fine-tuning."),
    }
    function, settings, short_help = known[name]
    built = with_settings(function, settings, settings.model_fields)
    return late_command(name, built, short_help, cls=TopicCommand)


def train(
    model: ModelArgument = None,
    config: Annotated[Path | None, flag("A run.yaml to start from; flags win over it.")] = None,
    dry_run: Annotated[
        bool, flag("Print settings and what would train, and stop.", "--dry-run")
    ] = False,
    resume: Annotated[
        bool, flag("Take up a run that was stopped in --output.", "--resume")
    ] = False,
    overwrite: Annotated[bool, flag("Replace a former run in --output.", "--overwrite")] = False,
    format: LateFormat = Format.table,
    quiet: LateQuiet = False,
    **flags: Any,
) -> None:
    """Fine-tune one kind of bias of a model on a task.

    Everything else is frozen. The classifier and the pooler's bias train along unless
    --freeze-head; --bias none trains those alone, which is the control to compare with.
    """
    from beftkit import train as run
    from beftkit.present.training import plan_document, train_document
    from beftkit.runs import plan_run
    from beftkit.runs.folders import resolve_run

    lacking = UsageError("no --output was given; expected the folder that the run shall make")
    if not dry_run and flags["output"] is None and config is None:
        raise lacking
    settings = resolve_run(config, {**flags, "model": model}, resume=resume)
    if dry_run:
        show(plan_document(plan_run(settings)), format)
        return
    if settings.output is None:
        raise lacking
    stopped = f"stopped; its state is saved, --output {settings.output} --resume takes it up"
    result = watched(partial(run, settings, resume=resume, overwrite=overwrite), quiet, stopped)
    if IS_MAIN:
        show(train_document(result), format)


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A fine-tuned model, or the base of --adapter (which knows its own).",
        ),
    ] = None,
    format: LateFormat = Format.table,
    output: OutputOption = None,
    quiet: QuietOption = False,
    **flags: Any,
) -> None:
    """Evaluate a fine-tuned model, or an adapter over its base, on a task's validation split.

    Whatever is not given is as in the run that made it; what is given, and was another there, is
    said.
    """
    from beftkit.present.evaluation import evaluation_document
    from beftkit.runs import evaluate as run

    check_outputs(output, None, [one for one in (model, flags["adapter"]) if one])
    found = run(model, **flags)
    if IS_MAIN:
        written, notes = show(evaluation_document(found), format, output)
        say([*written, *([] if quiet else notes)])


def fisher(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model folder, or owner/name on the hub.")
    ],
    format: LateFormat = Format.table,
    output: OutputOption = None,
    quiet: QuietOption = False,
    **flags: Any,
) -> None:
    """Measure the empirical Fisher of every bias on a task's training examples.

    The squared gradient of log p(label) of each single example, averaged, at the price of one
    backward pass. A role's score is the mean over its bias vectors.
    """
    from beftkit.present.fisher import fisher_document
    from beftkit.runs import fisher_all as run

    check_outputs(output, None, [model])
    found = run(model, **flags)
    if IS_MAIN:
        written, notes = show(fisher_document(found), format, output)
        say([*written, *([] if quiet else notes)])
