"""How many updates and evaluations a run comes to, from its settings and its examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from beftkit.settings.train import TrainSettings

#: scores of a run from which on a kernel of our own repays what it costs: compiling it takes .3 to
#: 2.1 s on an H200, and torch's operations need about .1 ms more each time (the latter by count)
SCORES_REPAY = 10_000


@dataclass(frozen=True)
class Course:
    """A run's course, unless it stops early.

    Attributes:
        per_epoch: updates a pass over the data.
        updates: all of them.
        evaluations: of the validation splits, where there are some.
    """

    per_epoch: int
    updates: int
    evaluations: int


def course_of(settings: TrainSettings, examples: int, *, trains: bool = True) -> Course:
    """The course of a run with epochs filled in, on so many training examples.

    Args:
        settings: of the run.
        examples: that train.
        trains: False: nothing does, and the model as it is is evaluated once.
    """
    s = settings
    per_epoch = math.ceil(math.ceil(examples / s.examples_a_batch) / s.accumulation)
    updates = per_epoch * (s.epochs or 0) if trains else 0
    if s.max_steps is not None:
        updates = min(updates, s.max_steps)
    # One after each epoch or so many updates, and one at the end.
    evaluations = math.ceil(updates / (s.eval_steps or per_epoch)) if updates else 1
    return Course(per_epoch, updates, evaluations)


def scores_backend(settings: TrainSettings, course: Course) -> str:
    """What reduces the scores of a run, for `beftkit_kernels.Track`: ``auto``, or ``torch``.

    A function of the settings and the course alone, so that a run that is taken up finds the same.
    """
    s, updates = settings, course.updates
    logged = (
        updates // s.log_steps if s.log_steps else math.ceil(updates / max(course.per_epoch, 1))
    )
    tracked = updates // s.track_steps if s.track_steps else 0
    return "auto" if logged + tracked >= SCORES_REPAY else "torch"
