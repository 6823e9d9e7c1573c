"""What a merge comes to: what every tensor of the result is, and the model with a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beftkit.checkpoints.shards import Part
from beftkit.weights.added import Given
from beftkit.weights.values import Rounding


@dataclass(frozen=True)
class HeadFrame:
    """What a model with a head over a whole text is, as transformers says.

    Attributes:
        names: its tensors at runtime.
        prefix: of the base model in it, ``bert.``.
        parts: names of the base model's own modules, ``encoder``.
        config: its configuration.
    """

    names: frozenset[str]
    prefix: str
    parts: frozenset[str]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What every tensor of a merged model is.

    Attributes:
        parts: tensors of the base that change, by their names there.
        new: tensors that the base has not, under the names of the result.
        dropped: tensors of the base that the result has not.
        prefix: stands before every name of the base, in the result.
        dtype: what all floats are cast to, as headers say it; None: nothing is cast.
        config: of the result.
        changed: how many biases change.
        given: what became of added biases.
        merged: whether products of a LoRA's matrices are added to weights.
        roundings: what storing lost.
        notes: what a reader should know.
    """

    parts: Mapping[str, Part]
    new: Sequence[Part]
    dropped: frozenset[str]
    prefix: str
    dtype: str | None
    config: Mapping[str, Any]
    changed: int
    given: Given
    merged: bool
    roundings: tuple[Rounding, ...]
    notes: tuple[str, ...]
