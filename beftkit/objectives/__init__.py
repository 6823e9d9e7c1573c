"""How a task meets a model: one module a kind, which loads, encodes, gives losses and predictions.

An objective decides which rows of a batch make up an example (`Batch.index`), so one that compares
candidates, or scores the tokens of an answer, fits the same loop, Fisher and evaluation. Targets
and predictions are its own business: everything else hands them on.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from beftkit.objectives.objective import Objective
from beftkit.registry import Kind
from beftkit.tasks import Data

if TYPE_CHECKING:
    from beftkit.settings.resolve import Loading

__all__ = [
    "Objective",
    "has_head",
    "held_labels",
    "kind_of",
    "kind_said",
    "make_objective",
    "objective_of",
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


def kind_of(settings: Loading) -> tuple[Kind | None, tuple[str, ...]]:
    """`beftkit.objectives.kinds.kind_of`, imported when it is asked for."""
    from beftkit.objectives.kinds import kind_of as found

    return found(settings)


def kind_said(word: str | None, task_type: str | None) -> str | None:
    """How an adapter's task met its model, of the two ways that may both be open.

    Args:
        word: what the header of an adapter of ours says; those of older ones say nothing.
        task_type: PEFT's, which tells for all others.
    """
    by_type = {"SEQ_CLS": "classes", "CAUSAL_LM": "choice"}.get(task_type or "")
    return word if word in ("choice", "classes") else by_type


def has_head(kind: Kind | None) -> bool:
    """Whether models of this kind have a head over a whole text, as those of all files have."""
    return kind in (None, "classes", "values")


def held_labels(settings: Loading) -> tuple[str, ...] | None:
    """`beftkit.objectives.heads.held_labels`, imported when it is asked for."""
    from beftkit.objectives.heads import held_labels as found

    return found(settings)


def objective_of(data: Data) -> Objective:
    """The objective that understands the targets of these examples."""
    return make_objective(data.kind, data.labels, data.own_ids)
