"""`beftkit train`, `beftkit evaluate` and `beftkit fisher`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beftkit.app.common import Format, OutputOption, check_outputs, say, show
from beftkit.app.options import flag, late_command, with_settings
from beftkit.app.progress import IS_MAIN, looked_at, watched
from beftkit.errors import UsageError
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.topics import Part
from beftkit.settings.train import TrainSettings

if TYPE_CHECKING:
    from beftkit.runs import Timing

ModelArgument = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="Model folder, or owner/name on the hub.")
]
_PRINTED = "What is printed; json holds every figure.  [default: table]"
LateFormat = Annotated[
    Format,
    flag(_PRINTED, "--format", metavar="table|json|csv|markdown"),
]
LateQuiet = Annotated[bool, flag("No progress and notes on stderr.", "--quiet", "-q")]
DryRun = Annotated[
    bool,
    flag(
        "Say what would be done, on how many examples, in how many updates, and what would be "
        "refused; load no weights, write nothing.",
        "--dry-run",
    ),
]
Time = Annotated[
    bool,
    flag(
        "Load the model, make two updates and say how long all of it will take; write nothing.",
        "--time",
    ),
]


def command(name: str) -> Any:
    """The command of this name, built."""
    known: dict[str, tuple[Callable[..., None], type[Part], str]] = {
        "train": (train, TrainSettings, "Fine-tune one kind of bias, or what else you name."),
        "evaluate": (evaluate, EvaluateSettings, "Metrics of a model or adapter on a task."),
        "fisher": (fisher, FisherSettings, "Empirical Fisher of each bias, before fine-tuning."),
    }
    function, settings, short_help = known[name]
    built = with_settings(function, settings, settings.model_fields)
    return late_command(name, built, short_help)


def train(
    model: ModelArgument = None,
    config: Annotated[Path | None, flag("A run.yaml to start from; flags win over it.")] = None,
    dry_run: DryRun = False,
    time: Time = False,
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
    from beftkit.runs.folders import resolve_run
    from beftkit.settings.resolve import FIND, asked_to_find

    lacking = UsageError("no --output was given; expected the folder that the run shall make")
    check_asked(dry_run, time)
    if not (dry_run or time) and flags["output"] is None and config is None:
        raise lacking
    find = {"lr": FIND} if asked_to_find(config, flags) else {}
    if find and (dry_run or time):
        raise UsageError("--lr=find: is known only after its sweep; give a rate to look ahead with")
    settings = resolve_run(config, {**flags, "model": model}, resume=resume)
    auto = settings.bias == "auto"
    # Not before: these import torch, and what was mistyped is told at once.
    if dry_run:
        from beftkit.present.planned import run_plan_document
        from beftkit.runs import plan_run
        from beftkit.selection import plan_auto

        planned = (plan_auto if auto else plan_run)(settings, resume=resume, overwrite=overwrite)
        if IS_MAIN:
            show(run_plan_document(planned), format)
        return
    if time:
        from beftkit.runs import time_run
        from beftkit.selection import time_auto

        show_time((time_auto if auto else time_run)(settings), format)
        return
    if settings.output is None:
        raise lacking
    from beftkit import train as run
    from beftkit.present.training import train_document

    stopped = f"stopped; its state is saved, --output {settings.output} --resume takes it up"
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, **find}
    result = watched(partial(run, settings, **how), quiet, stopped)
    if IS_MAIN:
        show(train_document(result), format)


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A fine-tuned model, an adapter or a run's folder; with --adapter its base, which "
            "an adapter of ours knows itself.",
        ),
    ] = None,
    format: LateFormat = Format.table,
    output: OutputOption = None,
    quiet: LateQuiet = False,
    **flags: Any,
) -> None:
    """Evaluate a fine-tuned model, or an adapter over its base, on a task's validation split.

    Whatever is not given is as in the run that made it; what is given, and was another there, is
    said.
    """
    from beftkit.present.evaluation import evaluation_document
    from beftkit.runs import evaluate as run

    check_outputs(output, None, [one for one in (model, flags["adapter"]) if one])
    found = looked_at(partial(run, model, **flags), quiet)
    if IS_MAIN:
        written, notes = show(evaluation_document(found), format, output)
        say([*written, *([] if quiet else notes)])


def fisher(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model folder, or owner/name on the hub.")
    ],
    dry_run: DryRun = False,
    time: Time = False,
    format: LateFormat = Format.table,
    output: OutputOption = None,
    quiet: LateQuiet = False,
    **flags: Any,
) -> None:
    """Measure the empirical Fisher of every bias on a task's training examples.

    The squared gradient of log p(label) of each single example, averaged, at the price of one
    backward pass. A role's score is the mean over its bias vectors.
    """
    from beftkit.present.fisher import fisher_document
    from beftkit.present.planned import fisher_plan_document
    from beftkit.runs import fisher_with as run
    from beftkit.runs import plan_fisher, time_fisher
    from beftkit.settings.resolve import resolve

    check_outputs(output, None, [model])
    check_asked(dry_run, time)
    settings = resolve(FisherSettings, None, {**flags, "model": model})
    if dry_run:
        planned = plan_fisher(settings)
        if IS_MAIN:
            say(show(fisher_plan_document(planned), format, output)[0])
        return
    if time:
        show_time(time_fisher(settings), format, output)
        return
    found = looked_at(partial(run, settings), quiet)
    if IS_MAIN:
        written, notes = show(fisher_document(found), format, output)
        say([*written, *([] if quiet else notes)])


def check_asked(dry_run: bool, time: bool) -> None:
    """Refuse what are two questions.

    Raises:
        UsageError: both were asked.
    """
    if dry_run and time:
        raise UsageError("--dry-run and --time were both given; expected one of them")


def show_time(found: Timing, format: Format, output: Path | None = None) -> None:
    """Print how long something will take, by the first process alone."""
    from beftkit.present.timing import timing_document

    if IS_MAIN:
        say(show(timing_document(found), format, output)[0])
