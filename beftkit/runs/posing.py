"""What a model is asked that answers texts: as its adapter says, or as settings do."""

from __future__ import annotations

from dataclasses import replace

from beftkit.errors import UsageError, option
from beftkit.objectives import has_head, is_language_model, kind_of, kind_said
from beftkit.registry import OFFERED, TASKS
from beftkit.runs.adapted import Named
from beftkit.runs.loading import check_template
from beftkit.runs.standing import Standing
from beftkit.settings.predict import PredictSettings
from beftkit.tasks import Asking, own_task
from beftkit.tasks.sources import offered_task


def task_told(
    found: Named[PredictSettings],
) -> tuple[Standing, tuple[str, ...] | None, tuple[str, ...]]:
    """What the adapter stands for, its labels, and notes; told by settings where it says nothing.

    Raises:
        UsageError: they say something else than the adapter, or too little.
    """
    s, info, standing = found.settings, found.info, found.standing
    others = {"--task": s.task, "--text-columns": s.text_columns}
    if (asking := check_template(s.template, s.choices, others)) is not None:
        return _own_asked(found, asking)
    if s.task is None:
        if s.as_ is not None:
            raise UsageError(
                f"{option('as', s.as_)}: is how a task meets the model; give --task, or --template"
            )
        if info is None and is_language_model(s):
            asked = ", ".join(name for name in OFFERED if TASKS[name].prompt)
            raise UsageError(
                f"{s.model}: is a language model without a classifier; give --task, whose prompt "
                f"it is asked: one of {asked}; or --template and --choices"
            )
        return standing, found.labels, ()
    task = offered_task(s.task)
    if standing.task not in (None, task) or (standing.task is None and standing.columns):
        was = standing.task.name if standing.task else "files of its own"
        raise UsageError(f"{option('task', s.task)}: it was trained on {was}; leave it out")
    was_met = kind_said(standing.kind, None if info is None else info.task_type)
    if s.as_ is not None and was_met not in (None, s.as_):
        raise UsageError(f"{option('as', s.as_)}: it was trained as {was_met}; leave it out")
    kind, notes = (was_met, ()) if was_met else kind_of(s)
    if has_head(kind):  # its head knows whether it has classes or values
        return replace(standing, task=task), found.labels, notes
    return replace(standing, task=task, kind=kind), task.labels, notes


def _own_asked(
    found: Named[PredictSettings], asking: Asking
) -> tuple[Standing, tuple[str, ...] | None, tuple[str, ...]]:
    """As `task_told`, of a prompt of the user's own; its labels are its answers, unless named.

    Raises:
        UsageError: the adapter was trained on something else.
    """
    s, info, standing = found.settings, found.info, found.standing
    was_met = kind_said(standing.kind, None if info is None else info.task_type)
    if was_met not in (None, "choice"):
        raise UsageError(f"--template: it was trained as {was_met}; leave it out")
    if s.as_ not in (None, "choice"):
        raise UsageError(
            f"{option('as', s.as_)}: --template has answers to choose from; leave it out"
        )
    task = asking.task(asking.labels or asking.words)
    known = standing.task
    if known is not None:
        fits = {*asking.labels} in (set(), {*known.labels})
        if not fits or own_task(s.template or "", s.choices or "", known.labels) != known:
            was = known.name if known.name in TASKS else "a prompt of its own"
            raise UsageError(f"--template: it was trained on {was}; leave it out")
        return standing, found.labels, ()
    kind, notes = kind_of(s)
    return replace(standing, task=task, kind=kind), task.labels, notes
