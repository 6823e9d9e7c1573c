"""How a task meets a model: one module a kind, which loads, encodes, gives losses and predictions.

An objective decides which rows of a batch make up an example (`Batch.index`), so one that compares
candidates, or scores the tokens of an answer, fits the same loop, Fisher and evaluation. Targets
and predictions are its own business: everything else hands them on.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast, get_args

from beftkit.errors import BeftError
from beftkit.objectives.answers import Answer
from beftkit.objectives.objective import Objective, Use
from beftkit.registry import Kind
from beftkit.tasks import Data

if TYPE_CHECKING:
    from beftkit.settings.resolve import Opening

__all__ = [
    "Answer",
    "Objective",
    "Use",
    "held_labels",
    "make_objective",
    "objective_of",
    "objective_told",
]


def make_objective(
    kind: Kind, labels: Sequence[str] = (), own_ids: Sequence[int] = ()
) -> Objective:
    """The objective of a kind, a word of the registry: ``make`` of the module of that name.

    Args:
        kind: which.
        labels, own_ids: as in `beftkit.tasks.Data`.
    """
    make = import_module(f"beftkit.objectives.{kind}").make
    made: Objective = make(tuple(labels), tuple(own_ids))
    return made


def held_labels(settings: Opening, *, alone: bool = False) -> tuple[str, ...] | None:
    """`beftkit.objectives.heads.held_labels`, imported when it is asked for."""
    from beftkit.objectives.heads import held_labels as found

    return found(settings, alone=alone)


def objective_told(settings: Opening, kind: str | None, labels: Sequence[str] | None) -> Objective:
    """The objective of a model that there are no examples for.

    Args:
        settings: name the model.
        kind: what its adapter says it is of; None: it does not.
        labels: of the answers in id order, as the adapter says; None: the model's own head knows.

    Raises:
        BeftError: a kind that is not known here, a model that cannot be read, or one that gives
            several labels at once.
    """
    if kind is not None and kind not in get_args(Kind):
        raise BeftError(f"made for a task of kind {kind!r}, which this version does not know")
    names = (held_labels(settings, alone=True) if labels is None else labels) or ()
    if len({*names}) < len(names):
        raise BeftError(f"labels {', '.join(names)}: one of them twice, so answers would mix")
    # A head of one output has no names: it gives values.
    return make_objective(cast("Kind", kind or ("classes" if names else "values")), names)


def objective_of(data: Data) -> Objective:
    """The objective that understands the targets of these examples."""
    return make_objective(data.kind, data.labels, data.own_ids)
