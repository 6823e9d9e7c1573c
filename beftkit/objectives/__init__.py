"""How a task meets a model: one module a kind, which loads, encodes, gives losses and predictions.

An objective decides which rows of a batch make up an example (`Batch.index`), so one that compares
candidates, or scores the tokens of an answer, fits the same loop, Fisher and evaluation. Targets
and predictions are its own business: everything else hands them on.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from beftkit.objectives.objective import Objective
from beftkit.registry import Kind
from beftkit.tasks import Data

__all__ = ["Objective", "make_objective", "objective_of"]


def make_objective(kind: Kind, labels: Sequence[str] = ()) -> Objective:
    """The objective of a kind, a word of the registry: ``make`` of the module of that name."""
    made: Objective = import_module(f"beftkit.objectives.{kind}").make(tuple(labels))
    return made


def objective_of(data: Data) -> Objective:
    """The objective that understands the targets of these examples."""
    return make_objective(data.kind, data.labels)
