"""How a task meets a model: one module a kind, which loads, encodes, gives losses and predictions.

An objective decides which rows of a batch make up an example (`Batch.index`), so one that compares
candidates, or scores the tokens of an answer, fits the same loop, Fisher and evaluation. Targets
and predictions are its own business: everything else hands them on.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from beftkit.objectives.objective import Objective, Use
from beftkit.registry import Kind
from beftkit.tasks import Data

if TYPE_CHECKING:
    from beftkit.settings.resolve import Loading

__all__ = ["Objective", "Use", "held_labels", "make_objective", "objective_of"]


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


def held_labels(settings: Loading) -> tuple[str, ...] | None:
    """`beftkit.objectives.heads.held_labels`, imported when it is asked for."""
    from beftkit.objectives.heads import held_labels as found

    return found(settings)


def objective_of(data: Data) -> Objective:
    """The objective that understands the targets of these examples."""
    return make_objective(data.kind, data.labels, data.own_ids)
