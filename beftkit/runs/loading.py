"""The data that settings name, its labels met with the classes of a head that is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from beftkit.errors import BeftError, Unreachable, UsageError, option
from beftkit.models import code_of
from beftkit.objectives import has_head, held_labels, kind_of
from beftkit.registry import Kind, Task
from beftkit.runs.bases import check_revision
from beftkit.runs.examples import check_labels
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.names import check_regime
from beftkit.settings.resolve import Loading
from beftkit.settings.train import TrainSettings
from beftkit.tasks import (
    Asking,
    Data,
    LabelMisfit,
    check_metric,
    load_choices,
    load_files,
    load_task,
    load_written,
    read_label_map,
    relabel,
    unnamed,
)
from beftkit.tasks.own_prompts import PROMPT_COLUMN
from beftkit.tasks.sources import offered_task
from beftkit.tasks.table import listed
from beftkit.tasks.text_files import bare_name
from beftkit.tuning.added import parse_added
from beftkit.tuning.choice import parse_bias, parse_layers
from beftkit.tuning.lora import check_peft

#: classes that are named one by one in a note
MOST_NAMED = 12


def load_data(
    settings: Loading, *, train: bool | None = True, labels: Sequence[str] | None = None
) -> Data:
    """The splits that settings name, whole.

    Args:
        settings: which; and the model, whose head's names decide where it is kept.
        train: whether a task's training examples are wanted; None: if there are any.
        labels: names of the head's classes in id order, where an adapter brings the head.

    Raises:
        BeftError: there is no such task or regime, labels that do not fit the head, or what reading
            data can meet.
    """
    s = settings
    check_words(s)
    if not isinstance(s, EvaluateSettings):  # that has looked, before its base was filled in
        check_revision(s.model, s.revision)
    kind, how = kind_of(s)
    if s.task:
        check_task(s, kind)
    given = None if s.label_map is None else read_label_map(s.label_map)
    columns = s.text_columns

    def read(names: Sequence[str] | None) -> Data:
        label_map = given if names else None
        if s.answer_column:
            return load_written(
                s.train_file,
                s.validation_file,
                prompt_column=columns or PROMPT_COLUMN,
                answers_column=s.answer_column,
                quotes=s.quotes,
            )
        if s.task:
            return load_task(
                s.task,
                data_dir=s.data_dir,
                revision=s.data_revision,
                train=train,
                labels=names,
                label_map=label_map,
                kind=kind,
            )
        if s.template is not None and s.choices is not None:
            return load_choices(
                s.train_file,
                s.validation_file,
                template=s.template,
                choices=s.choices,
                label_column=s.label_column,
                labels=labels,
                quotes=s.quotes,
            )
        return load_files(
            s.train_file,
            s.validation_file,
            label_column=s.label_column,
            text_columns=[name.strip() for name in columns.split(",")] if columns else None,
            labels=() if s.regression else names,
            label_map=None if s.regression else label_map,
            quotes=s.quotes,
            kind=kind,
        )

    data = _met(read, s, labels, kind)
    check_labels(data)
    if s.as_ not in (None, data.kind):
        raise UsageError(f"{option('as', s.as_)}: {data.name} has {data.kind}; leave it out")
    if isinstance(s, EvaluateSettings) and s.train_file and s.validation_file:
        data = replace(
            data, name=Path(bare_name(Path(s.validation_file))).stem
        )  # what is evaluated
    files = code_of(s.model, s.revision) if s.trust_remote_code else ()
    note = f"{s.model}: its own code is run (--trust-remote-code): {', '.join(files)}"
    return replace(data, notes=(*how, *data.notes, *((note,) if files else ())))


def planned_data(settings: Loading) -> tuple[Data, str]:
    """As `load_data`; of a task that the hub does not give what is known beforehand, and why.

    Returns:
        The data, without splits where they could not be had; and the reason, or nothing.
    """
    s = settings
    try:
        return load_data(s), ""
    except Unreachable as error:
        reason = str(error)
    found, how = kind_of(s)
    task = check_task(s, found)
    kind = found or task.kind
    known = task.name, kind, task.labels, task.metrics_as(kind)
    prompt = task.prompt if task.asked(kind) else None
    bare = Data(*known, None, {}, {}, how, prompt=prompt)
    given = None if s.label_map is None else read_label_map(s.label_map)
    data = _met(lambda names: relabel(bare, names, given) if names else bare, s, None, found)
    return data, reason


def _met(
    read: Callable[[Sequence[str] | None], Data],
    settings: Loading,
    labels: Sequence[str] | None,
    kind: Kind | None,
) -> Data:
    """What ``read`` gives for the names of the head: ``labels``, or those of the checkpoint."""
    s = settings
    names = None
    if has_head(kind):
        names = held_labels(s) if labels is None else labels
    may_be_fresh = not isinstance(s, EvaluateSettings)
    if not names and may_be_fresh:  # a head of one output is refused by its shape, if by anything
        names = None
    if s.label_map is not None and not names:
        raise BeftError(f"--label-map: {s.model} has no classifier that is kept, whose names count")
    try:
        return read(names)
    except LabelMisfit as error:
        assert names is not None
        if s.label_map is None and may_be_fresh:
            own = read(None)
            more = len(own.labels) - len(names)
            if more > 0 or (more and unnamed(names)):
                return own  # the head's size is what does not fit, and loading says so
        hint = "; --new-head draws a fresh classifier" if may_be_fresh else ""
        raise BeftError(f"{error.told}{hint}") from None


def check_task(settings: Loading, kind: Kind | None) -> Task:
    """The task of the registry that settings name.

    Args:
        kind: how it meets the model; None: in its own manner.

    Raises:
        UsageError: there is no such task or regime, or none that commands take.
    """
    task = offered_task(settings.task or "")
    if isinstance(settings, TrainSettings):
        try:
            check_regime(task.name, settings.regime, kind)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return task


def check_words(settings: Loading) -> None:
    """Refuse words of the settings that mean nothing, before anything is read.

    Raises:
        UsageError: what trains, layers, a metric, or a prompt of the user's own.
        BeftError: what trains needs PEFT, which is not there.
    """
    s = settings
    if isinstance(s, TrainSettings):
        if s.peft:
            check_peft()
        if s.layers is not None:
            parse_layers(s.layers)
        if s.bias != "auto":
            _check_whole(s, parse_bias(s.bias).whole)
    if not isinstance(s, EvaluateSettings) and s.add_bias is not None:
        parse_added(s.add_bias)
    others = {
        "--task": s.task, "--text-columns": s.text_columns, "--label-map": s.label_map,
        "--regression": s.regression,
    }  # fmt: skip
    check_template(s.template, s.choices, others)
    for name in () if isinstance(s, FisherSettings) else s.metric:
        check_metric(name, trust_remote_code=s.trust_remote_code)


def check_template(
    template: str | None, choices: str | None, others: Mapping[str, object]
) -> Asking | None:
    """What the user's own prompt asks; None: there is none.

    Args:
        template, choices: as given.
        others: flag to value, of what does not go with it.

    Raises:
        UsageError: one without the other, with one of the others, or words that mean nothing.
    """
    given = {"template": template, "choices": choices}
    names = [name for name, one in given.items() if one is not None]
    if not names:
        return None
    if len(names) < 2:
        (lacking,) = {*given} - {*names}
        raise UsageError(f"--{names[0]} was given without --{lacking}; expected both")
    for flag, one in others.items():
        if one:
            raise UsageError(f"--template and {flag} were both given; expected one of them")
    return Asking.of(template or "", choices or "")


def _check_whole(settings: TrainSettings, whole: str) -> None:
    """Refuse what would not be heeded where no bias is named by its role."""
    s, told = settings, option("bias", settings.bias)
    if whole in ("full", "rand", "head") and s.layers is not None:
        raise UsageError(
            f"{option('layers', s.layers)}: is of biases by their role, and {told} names none; "
            "leave it out"
        )
    if whole in ("full", "rand") and s.adapter_format != "auto":
        raise UsageError(
            f"{option('adapter_format', s.adapter_format)}: {told} makes a whole model and no "
            "adapter; leave it out"
        )
    if whole == "head" and s.freeze_head:
        raise UsageError(
            f"{told} and --freeze-head: nothing would train; for the model as it is give "
            "--bias=none --freeze-head"
        )


def class_notes(data: Data) -> tuple[str, ...]:
    """What was read: rows of each split, and the classes among them with their counts."""
    splits = {} if data.train is None else {"train": data.train}
    notes = []
    for name, split in {**splits, **data.validation}.items():
        counts = data.counts.get(name, {})
        found = [f"{label} {count}" for label, count in counts.items()]
        notes.append(
            f"{name}: {len(split)} row{'s' * (len(split) != 1)}"
            + (f": {listed(found, MOST_NAMED)}" if found else "")
        )
    return tuple(notes)
