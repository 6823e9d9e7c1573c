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
    from beftkit.settings.predict import PredictSettings
    from beftkit.settings.resolve import Loading, Opening

__all__ = [
    "Answer",
    "Objective",
    "Use",
    "for_files",
    "has_head",
    "held_labels",
    "is_language_model",
    "kind_of",
    "kind_said",
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


def kind_of(settings: Loading | PredictSettings) -> tuple[Kind | None, tuple[str, ...]]:
    """`beftkit.objectives.kinds.kind_of`, imported when it is asked for."""
    from beftkit.objectives.kinds import kind_of as found

    return found(settings)


def is_language_model(settings: PredictSettings) -> bool:
    """`beftkit.objectives.kinds.is_language_model`, imported when it is asked for."""
    from beftkit.objectives.kinds import is_language_model as found

    return found(settings)


def kind_said(word: str | None, task_type: str | None) -> Kind | None:
    """How an adapter's task met its model; None: nobody says.

    Args:
        word: what the header of an adapter of ours says; those of older ones say nothing.
        task_type: PEFT's, which tells for all others which of the two ways it is that may both be
            open.
    """
    if word in get_args(Kind):
        return cast("Kind", word)
    by_type: dict[str, Kind] = {"SEQ_CLS": "classes", "CAUSAL_LM": "choice"}
    return by_type.get(task_type or "")


def has_head(kind: Kind | None) -> bool:
    """Whether models of this kind have a head over a whole text, as those of all files have."""
    return kind in (None, "classes", "values")


def for_files(kind: str) -> bool:
    """Whether `kind_of` takes this word of the settings for files of the user's own."""
    return kind in ("classes", "language")


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
    if labels is None and not has_head(cast("Kind | None", kind)):
        raise BeftError(
            f"made for a language model's own answers ({kind}), and its header does not name them; "
            "expected an adapter of beftkit's"
        )
    names = (held_labels(settings, alone=True) if labels is None else labels) or ()
    if len({*names}) < len(names):
        raise BeftError(f"labels {', '.join(names)}: one of them twice, so answers would mix")
    # A head of one output has no names: it gives values.
    return make_objective(cast("Kind", kind or ("classes" if names else "values")), names)


def objective_of(data: Data) -> Objective:
    """The objective that understands the targets of these examples."""
    return make_objective(data.kind, data.labels, data.own_ids).asking(data.prompt)
