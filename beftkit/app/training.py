"""`beftkit train`, `beftkit evaluate` and `beftkit fisher`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from beftkit.app.common import Format, OutputOption, QuietOption, check_outputs, show
from beftkit.app.common import say as say_lines
from beftkit.app.options import TopicCommand, late_command, with_settings
from beftkit.app.progress import Shown, Signals
from beftkit.errors import UsageError
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.train import DATA, DEVICE, EVALUATION, MODEL, OUTPUT, TrainSettings

IS_MAIN = os.environ.get("RANK", "0") == "0"  # torchrun's


def panel(panel: str, help: str, *names: str, **rest: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **rest)


FormatOption = Annotated[
    Format, panel(OUTPUT, "What is printed; json holds every figure.  [default: table]",
                   "--format", metavar="table|json|csv|markdown"),
]  # fmt: skip


def command(name: str) -> Any:
    """The command of this name, built."""
    if name == "train":
        built = with_settings(train, TrainSettings, skip=("model",))
        short_help = "Fine-tune one kind of bias, or what else you name."
    elif name == "fisher":
        built = with_settings(fisher, FisherSettings, skip=("model",))
        short_help = "Empirical Fisher of each bias, before fine-tuning."
    else:
        built, short_help = evaluate, "Metrics of a model or adapter on a task."
    return late_command(name, built, short_help, cls=TopicCommand)


def train(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Model folder, or owner/name on the hub."),
    ] = None,
    config: Annotated[
        Path | None, panel(OUTPUT, "A run.yaml to start from; flags win over it.")
    ] = None,
    dry_run: Annotated[
        bool, panel(OUTPUT, "Print settings and what would train, and stop.", "--dry-run")
    ] = False,
    resume: Annotated[
        bool, panel(OUTPUT, "Take up a run that was stopped in --output.", "--resume")
    ] = False,
    overwrite: Annotated[
        bool, panel(OUTPUT, "Replace a former run in --output.", "--overwrite")
    ] = False,
    format: FormatOption = Format.table,
    quiet: Annotated[
        bool, panel(OUTPUT, "No progress and notes on stderr.", "--quiet", "-q")
    ] = False,
    **flags: Any,
) -> None:
    """Fine-tune one kind of bias of a model on a task.

    Everything else is frozen. The classifier and the pooler's bias train along unless
    --freeze-head; --bias none trains those alone, which is the control to compare with.
    """
    from beftkit.present.training import plan_document, train_document
    from beftkit.runs import plan_run
    from beftkit.runs.folders import saved_settings
    from beftkit.selection import train as run
    from beftkit.settings.train import resolve_settings
    from beftkit.training.trainer import Interrupted

    flags = {**flags, "metric": flags["metric"] or None}
    output = flags["output"]
    if dry_run:
        file = config or (saved_settings(Path(output)) if resume and output else None)
        planned = plan_run(resolve_settings(file, {"model": model, **flags}))
        show(plan_document(planned), format)
        return
    if output is None and config is not None:
        output = _keys(config).get("output")
    if output is None:
        raise UsageError("no --output was given; expected the folder that the run shall make")
    watcher = Shown(quiet or not IS_MAIN)
    with Signals(watcher) as signals:
        try:
            result = run(
                model, config=config, resume=resume, overwrite=overwrite, watcher=watcher,
                asked_to_stop=signals.asked, **flags,
            )  # fmt: skip
        except Interrupted as stop:
            watcher.close()
            if IS_MAIN:
                say_lines([f"stopped; its state is saved, --output {output} --resume takes it up"])
            raise typer.Exit(128 + stop.signal) from None
        finally:
            watcher.close()
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
    adapter: Annotated[
        str | None, panel(MODEL, "An adapter's folder, or owner/name[@revision] on the hub.")
    ] = None,
    revision: Annotated[str | None, panel(MODEL, "The model's branch, tag or commit.")] = None,
    tokenizer: Annotated[
        str | None, panel(MODEL, "Tokenizer, where it is not the model's own.")
    ] = None,
    dtype: Annotated[
        str, panel(MODEL, "float32, bfloat16, float16 or auto.  [default: float32]")
    ] = "float32",
    task: Annotated[
        str | None, panel(DATA, "cola, sst2, ... as in train; an adapter knows its own.")
    ] = None,
    data_dir: Annotated[
        str | None, panel(DATA, "Folder of GLUE or SuperGLUE; without it the hub.")
    ] = None,
    data_revision: Annotated[str | None, panel(DATA, "The data set's revision on the hub.")] = None,
    validation_file: Annotated[
        Path | None, panel(DATA, "Your own examples: .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    text_columns: Annotated[str | None, panel(DATA, "One or two columns.")] = None,
    label_column: Annotated[str | None, panel(DATA, "The column of labels or values.")] = None,
    max_length: Annotated[int | None, panel(DATA, "Tokens a row is cut to.", min=1)] = None,
    metric: Annotated[
        list[str] | None, panel(EVALUATION, "Metrics instead of the task's; as in train.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        panel(EVALUATION, "Let --metric fetch a module from the hub.", "--trust-remote-code"),
    ] = False,
    batch_size: Annotated[int, panel(EVALUATION, "Examples a batch.  [default: 64]", min=1)] = 64,
    precision: Annotated[str, panel(DEVICE, "fp32, bf16 or fp16.  [default: fp32]")] = "fp32",
    device: Annotated[str | None, panel(DEVICE, "cpu, cuda, cuda:1, ...")] = None,
    device_map: Annotated[
        str | None, panel(DEVICE, "auto: spread a model that one GPU cannot hold.")
    ] = None,
    format: FormatOption = Format.table,
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Evaluate a fine-tuned model, or an adapter over its base, on a task's validation split."""
    from beftkit.present.evaluation import evaluation_document
    from beftkit.runs import evaluate as run

    _check_words(dtype=dtype, precision=precision)
    check_outputs(output, None, [one for one in (model, adapter) if one])
    found = run(
        model, adapter=adapter, revision=revision, tokenizer=tokenizer, dtype=dtype, task=task,
        data_dir=data_dir, data_revision=data_revision, validation_file=validation_file,
        text_columns=text_columns, label_column=label_column, max_length=max_length,
        metric=tuple(metric or ()), trust_remote_code=trust_remote_code, batch_size=batch_size,
        precision=precision, device=device, device_map=device_map,
    )  # fmt: skip
    if IS_MAIN:
        written, notes = show(evaluation_document(found), format, output)
        say_lines([*written, *([] if quiet else notes)])


def fisher(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model folder, or owner/name on the hub.")
    ],
    format: FormatOption = Format.table,
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
    found = run(model, **{**flags, "snapshots": flags["snapshots"] or None})
    if IS_MAIN:
        written, notes = show(fisher_document(found), format, output)
        say_lines([*written, *([] if quiet else notes)])


def _check_words(**given: str) -> None:
    allowed = {"dtype": ("float32", "bfloat16", "float16", "auto"),
               "precision": ("fp32", "bf16", "fp16")}  # fmt: skip
    for name, value in given.items():
        if value not in allowed[name]:
            raise UsageError(f"{name} {value!r}: expected one of {', '.join(allowed[name])}")


def _keys(config: Path) -> Mapping[str, Any]:
    from beftkit.settings.train import read_yaml

    return {key: value for key, value in read_yaml(config).items() if value is not None}
